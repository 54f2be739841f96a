"""Prompting: the scorer, few-shot methods, calibration, what fits a prompt, consistency rules."""

from jelicit.prompting.calibrated import calibrated_scores, zero_shot_offset
from jelicit.prompting.few_shot import (
    CALIBRATED,
    METHODS,
    PAPER_POOL,
    PAPER_SHOTS,
    ZERO_SHOT_CALIBRATED,
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
    "CALIBRATED",
    "METHODS",
    "PAPER_POOL",
    "PAPER_SHOTS",
    "ZERO_SHOT_CALIBRATED",
    "Bootstrapped",
    "Round",
    "Scorer",
    "bootstrapped",
    "calibrated_scores",
    "draw_examples",
    "few_shot_scores",
    "golden_labels",
    "prompted",
    "random_labels",
    "truth_scores",
    "zero_shot_offset",
    "zero_shot_scores",
]
