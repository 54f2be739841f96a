"""Prompts of labelled examples, put to a scorer, and a count of what that took to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, few_shot, get_format
from jelicit.icm.orders import count_reads
from jelicit.prompting import Scorer

Example = tuple[int, bool]
"""(number of an item, label it is shown with)."""

Ask = tuple[tuple[Example, ...], int]
"""(examples in the order shown, number of the item that is judged after them)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was asked of a scorer.

    Attributes:
        prompts: Prompts scored.
        reads: Examples read before the judged items, what prompts of one call share counted once.
        reads_alone: The same with nothing shared: the sum of all prompts' examples.
    """

    prompts: int = 0
    reads: int = 0
    reads_alone: int = 0

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            prompts=self.prompts + other.prompts,
            reads=self.reads + other.reads,
            reads_alone=self.reads_alone + other.reads_alone,
        )

    def __sub__(self, other: Reading) -> Reading:
        return Reading(
            prompts=self.prompts - other.prompts,
            reads=self.reads - other.reads,
            reads_alone=self.reads_alone - other.reads_alone,
        )


def blind(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items without labels and notes: all that a search may see of them."""
    return tuple(replace(item, label=None, alt_labels={}, meta={}) for item in items)


class Prompter:
    """Asks a scorer about items after examples with proposed labels.

    Attributes:
        items: The items, without their own labels.
        done: What was asked so far.
    """

    def __init__(self, scorer: Scorer, items: Sequence[Item], format: str | PromptFormat) -> None:
        """Lays the texts out once: each as an example with either label, and as a target."""
        self.scorer, self.items, self.format = scorer, blind(items), get_format(format)
        self.done = Reading()
        self._shown: dict[Example, str] = {}
        self._target: list[str] = []
        self._system: tuple[str, ...] = ()
        for number, item in enumerate(self.items):
            for label in (True, False):
                *system, shown, target = few_shot(item, [(item, label)], self.format)
                self._shown[number, label] = shown
            self._system = tuple(system)
            self._target.append(target)

    def prompt(self, ask: Ask) -> tuple[str, ...]:
        """The few-shot prompt as segments (`jelicit.data.prompts.few_shot`)."""
        examples, target = ask
        return (*self._system, *map(self._shown.__getitem__, examples), self._target[target])

    def ask(self, asks: Sequence[Ask]) -> np.ndarray:
        """Log-probabilities [n, 2] of the true and the false verdict, in one call of the scorer.

        Args:
            asks: n of them, best in trie order: then neighbours share all that can be shared.

        Raises:
            ValueError: If the scorer returns another shape, or a number that is not finite.
        """
        if not asks:
            return np.zeros((0, 2))
        words = (self.format.true_word, self.format.false_word)
        found = np.asarray(self.scorer.score([self.prompt(ask) for ask in asks], words), np.float64)
        if found.shape != (len(asks), 2):
            raise ValueError(
                f"the scorer returned {found.shape} for {len(asks)} prompts and 2 verdicts"
            )
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise ValueError(
                f"the scorer gave item {self.items[asks[row][1]].id!r} {found[row]} after "
                f"{len(asks[row][0])} examples; U needs finite log-probabilities"
            )
        contexts = [examples for examples, _ in asks]
        self.done += Reading(
            prompts=len(asks),
            reads=count_reads(contexts),
            reads_alone=sum(map(len, contexts)),
        )
        return found
