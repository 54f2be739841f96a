"""The scorer protocol: whatever can say how likely verdicts are after prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jelicit.data.prompts import PromptFormat


class Scorer(Protocol):
    """Log-probabilities of verdicts after prompts, from any model."""

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """[n, k] for n prompts (tuples of text segments) and k verdict words."""
        ...


def truth_scores(
    scorer: Scorer, prompts: Sequence[tuple[str, ...]], format: PromptFormat
) -> np.ndarray:
    """Truth scores [n] of prompts: log P(true) - log P(false), for the format's verdicts.

    Raises:
        ValueError: If the scorer returns another shape, or numbers without a difference.
    """
    found = np.asarray(scorer.score(prompts, (format.true_word, format.false_word)), np.float64)
    if found.shape != (len(prompts), 2):
        raise ValueError(
            f"the scorer returned {found.shape} for {len(prompts)} prompts and 2 verdicts"
        )
    with np.errstate(invalid="ignore"):
        scores = found[:, 0] - found[:, 1]
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores))[0])
        raise ValueError(f"the scorer gave prompt {row} {found[row]}, which is no truth score")
    return scores
