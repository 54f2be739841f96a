"""How many examples fit the model's context.

A scorer may say how long prompts are: `lengths(prompts, verdicts)` gives tokens [n], and `context`
the most that it reads (None = no limit). Segments of a prompt are tokenised one by one, so lengths
add up, and what fits is known before anything is read. A scorer that does not say so is not asked;
its own error has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, few_shot, get_format
from jelicit.prompting.scorer import Scorer


@runtime_checkable
class Measures(Protocol):
    """A scorer that knows how long prompts are."""

    @property
    def context(self) -> int | None:
        """Most tokens that it reads, or None where nothing limits it."""
        ...

    def lengths(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Tokens [n] that it reads of each prompt, of its longest verdict too where it reads it."""
        ...


def most_tokens(scorer: Scorer, *, limit: int | None = None) -> int | None:
    """Most tokens that a prompt may have; None where nothing limits it, or nobody knows lengths.

    Args:
        scorer: The model.
        limit: Most tokens, where that is less than the scorer's own context (the length that a
            model was trained on, for example).
    """
    if not isinstance(scorer, Measures):
        return None
    return min([most for most in (scorer.context, limit) if most is not None], default=None)


def tokens_needed(
    scorer: Measures,
    examples: Sequence[Item],
    format: str | PromptFormat,
    *,
    targets: Sequence[Item] | None = None,
) -> np.ndarray:
    """Tokens [N] of the longest prompt that the first 1, 2, ... N examples make.

    What is needed rises with every example.

    Args:
        scorer: The model.
        examples: N items. Shown with the longer of the two verdicts.
        format: How items are shown.
        targets: Items to judge after them. None: each of the examples is judged after all others,
            and counts among them.
    """
    if not examples:
        return np.zeros(0, np.int64)
    format = get_format(format)
    words = (format.true_word, format.false_word)

    def measured(prompts: list[tuple[str, ...]]) -> np.ndarray:
        return np.asarray(scorer.lengths(prompts, words), np.int64)

    def alone(items: Sequence[Item]) -> np.ndarray:
        return measured([few_shot(item, [], format) for item in items])

    first = examples[0]
    shown = np.maximum(
        *(
            measured([few_shot(first, [(item, label)], format) for item in examples])
            for label in (True, False)
        )
    )
    added = shown - alone([first])
    total = np.cumsum(added)
    if targets is None:
        return total + np.maximum.accumulate(alone(examples) - added)
    return total + alone(targets).max(initial=0)


def examples_that_fit(
    scorer: Scorer,
    examples: Sequence[Item],
    format: str | PromptFormat,
    *,
    targets: Sequence[Item] | None = None,
    limit: int | None = None,
) -> int:
    """How many of the examples, from the first on, fit one prompt, whatever their labels are.

    Args:
        scorer: The model; all examples fit one that does not measure (`Measures`).
        examples: N items. Shown with the longer of the two verdicts.
        format: How items are shown.
        targets: Items to judge after them. None: each of the examples is judged after all others,
            and counts among those that fit.
        limit: As of `most_tokens`.

    Returns:
        The largest n such that the first n examples fit with every target; 0 if none does.
    """
    most = most_tokens(scorer, limit=limit)
    if most is None or not isinstance(scorer, Measures):
        return len(examples)
    return int((tokens_needed(scorer, examples, format, targets=targets) <= most).sum())


def check_fit(scorer: Scorer, items: Sequence[Item], format: str | PromptFormat) -> None:
    """Refuses items of which not each fits after all the others.

    Raises:
        ValueError: Saying how many do.
    """
    most = examples_that_fit(scorer, items, format)
    if most < len(items):
        raise ValueError(
            f"{len(items)} items do not fit the model's context: each is judged after all the "
            f"others, and the first {most} fit; take at most {most}, or search in batches of fewer"
        )
