"""Prompting: the scorer protocol, few-shot methods, what fits a prompt, and consistency rules."""

from jelicit.prompting.few_shot import (
    METHODS,
    PAPER_POOL,
    PAPER_SHOTS,
    Bootstrapped,
    Round,
    bootstrapped,
    draw_examples,
    few_shot_scores,
    golden_labels,
    prompted,
    random_labels,
    zero_shot_scores,
)
from jelicit.prompting.scorer import Scorer, truth_scores

__all__ = [
    "METHODS",
    "PAPER_POOL",
    "PAPER_SHOTS",
    "Bootstrapped",
    "Round",
    "Scorer",
    "bootstrapped",
    "draw_examples",
    "few_shot_scores",
    "golden_labels",
    "prompted",
    "random_labels",
    "truth_scores",
    "zero_shot_scores",
]
