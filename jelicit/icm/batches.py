"""Sets that do not fit one context are labelled in batches of whole groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat
from jelicit.icm.objective import Label
from jelicit.icm.prompter import Reading
from jelicit.icm.search import check_given, search
from jelicit.icm.settings import SearchSettings
from jelicit.icm.steps import SearchResult, Step, accuracy
from jelicit.prompting import Scorer

Between = Callable[[Scorer, Sequence[Item], Sequence[Label]], Scorer]
"""(the scorer, the items labelled so far, their labels) -> the scorer of the next batch."""


@dataclass(frozen=True, kw_only=True)
class BatchedResult:
    """What a search in batches found.

    Attributes:
        labels: [N]; None where the draws of its batch ended before the item was labelled.
        batches: Numbers of the items in each batch.
        results: The search of each batch.
    """

    labels: tuple[Label, ...]
    batches: tuple[tuple[int, ...], ...]
    results: tuple[SearchResult, ...]

    @property
    def reading(self) -> Reading:
        """All that the scorers were asked."""
        return sum((result.reading for result in self.results), Reading())

    @property
    def draws(self) -> int:
        """Items drawn."""
        return sum(result.draws for result in self.results)

    @property
    def evaluations_per_label(self) -> float:
        """Values of U computed for each item that has a label in the end."""
        judged = sum(result.evaluations for result in self.results)
        return judged / max(sum(label is not None for label in self.labels), 1)

    @property
    def converged(self) -> bool:
        """Whether every search ended because nothing changed any more."""
        return all(result.converged for result in self.results)

    def accuracy(self, gold: Sequence[bool | None]) -> float:
        """Share of right labels among the items that have a label and a truth value."""
        return accuracy(self.labels, gold)


def split_in_batches(items: Sequence[Item], *, size: int) -> list[tuple[int, ...]]:
    """Numbers of items in batches of at most `size`, whole groups, in order of their first items.

    Raises:
        ValueError: If a group is larger than a batch.
    """
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(item.group, []).append(number)
    batches: list[list[int]] = []
    for name, members in groups.items():
        if len(members) > size:
            raise ValueError(
                f"group {name!r} has {len(members)} items and a batch at most {size}; groups stay "
                "whole, so take larger batches"
            )
        if not batches or len(batches[-1]) + len(members) > size:
            batches.append([])
        batches[-1] += members
    return [tuple(batch) for batch in batches]


def search_in_batches(
    scorer: Scorer,
    items: Sequence[Item],
    format: str | PromptFormat,
    settings: SearchSettings | None = None,
    *,
    size: int,
    start: Sequence[Label] | None = None,
    between: Between | None = None,
    journal: Path | None = None,
    gold: Sequence[bool | None] | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> BatchedResult:
    """Searches the labels of one batch after another (Wen et al. 2025).

    Batches do not see each other's labels, and labels of earlier batches are not changed. With
    `between` the model may learn from them: iterative fine-tuning. Without, a concept that the
    model could as well hold the other way round may come out differently in each batch.

    Args:
        scorer: The model of the first batch.
        items: N items.
        format: How they are shown.
        settings: Of every batch's search.
        size: Most items in a batch (256 in the paper, or what fits: `examples_that_fit`).
        start: [N] labels to begin with in place of each batch's random ones; None = unlabelled.
        between: Called after every batch but the last; gives the scorer of the next one.
        journal: As of `search`; it holds all batches.
        gold: [N] true labels, for `Step.accuracy` alone.
        on_step: Called with the number of the batch and the step.

    Raises:
        ValueError: If a group is larger than a batch, or as of `search`.
    """
    check_given(items, start=start, gold=gold)
    batches = split_in_batches(items, size=size)
    labels: list[Label] = [None] * len(items)
    results: list[SearchResult] = []
    for number, batch in enumerate(batches):
        if number and between is not None:
            done = [n for one in batches[:number] for n in one]
            scorer = between(scorer, [items[n] for n in done], [labels[n] for n in done])
        found = search(
            scorer,
            [items[n] for n in batch],
            format,
            settings,
            start=None if start is None else [start[n] for n in batch],
            journal=journal,
            gold=None if gold is None else [gold[n] for n in batch],
            on_step=None if on_step is None else partial(on_step, number),
        )
        results.append(found)
        for n, label in zip(batch, found.labels, strict=True):
            labels[n] = label
    return BatchedResult(labels=tuple(labels), batches=tuple(batches), results=tuple(results))
