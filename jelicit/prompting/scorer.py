"""The scorer protocol: whatever can say how likely verdicts are after prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jelicit.data.items import Item
from jelicit.data.long_prompts import LongPromptError
from jelicit.data.prompts import PromptFormat


class Scorer(Protocol):
    """Log-probabilities of verdicts after prompts, from any model."""

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """[n, k] for n prompts (tuples of text segments) and k verdict words."""
        ...


def truth_scores(
    scorer: Scorer,
    prompts: Sequence[tuple[str, ...]],
    format: PromptFormat,
    *,
    items: Sequence[Item] | None = None,
) -> np.ndarray:
    """Truth scores [n] of prompts: log P(true) - log P(false), for the format's verdicts.

    Args:
        scorer: The model.
        prompts: n prompts.
        format: Whose verdicts.
        items: The n items that they ask about, for messages.

    Raises:
        ValueError: If a prompt is too long for the scorer, or it returns another shape, or numbers
            without a difference; the message names the item.
    """

    def named(row: int) -> str:
        return f"prompt {row}" if items is None else f"item {items[row].id!r}: its prompt"

    try:
        answers = scorer.score(prompts, (format.true_word, format.false_word))
    except LongPromptError as error:
        raise ValueError(f"{named(error.number)} {error.why}") from error
    found = np.asarray(answers, np.float64)
    if found.shape != (len(prompts), 2):
        raise ValueError(
            f"the scorer returned {found.shape} for {len(prompts)} prompts and 2 verdicts"
        )
    with np.errstate(invalid="ignore"):
        scores = found[:, 0] - found[:, 1]
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores))[0])
        raise ValueError(f"{named(row)} was given {found[row]}, which is no truth score")
    return scores
