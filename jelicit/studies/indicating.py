"""Indicators of fits: what warns without labels, for every method and run at one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jelicit import indicators, metrics
from jelicit.indicators import NAMES
from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import EASY, TARGETS
from jelicit.probes.registry import known_methods
from jelicit.probes.sweep import SweepResult
from jelicit.probes.training import TrainingInfo
from jelicit.studies.situation import Runs, Situation

CHANCE = ("random",)
"""Methods that agree with nobody by design."""

Columns = dict[str, dict[str, np.ndarray]]
"""Method -> column -> a value for each run [R]."""


def indicator_columns(
    situation: Situation,
    runs: Runs,
    fits: SweepResult,
    layer: int,
    pairs: Pairs,
    scores: Mapping[str, Any],
    log_probs: np.ndarray | None,
) -> Columns:
    """The columns of `indicators.INDICATORS`, of all methods; nan where one cannot be told.

    The label that is asked for is not read.

    Args:
        situation: Whose test items: their texts, and the labels that are not asked for.
        runs: The fits.
        fits: Their probes.
        layer: Which layer.
        pairs: Its hidden states of the test items [n, d], as the model made them.
        scores: Method -> truth scores of the test items [R, n], of any sign.
        log_probs: log P of the two verdicts [n, 2], or None.
    """
    values = {method: np.asarray(own, float) for method, own in scores.items()}
    ranks = {method: indicators.unit_ranks(own) for method, own in values.items()}
    among = indicators.method_agreement(ranks, [m for m in without_labels() if m not in CHANCE])
    settings = [_beside_the_seed(run) for run in runs.about]
    lengths = lengths_of(situation)
    features = [target.test for target in situation.targets()[1:]]
    answer = None if log_probs is None else np.asarray(metrics.log_odds(log_probs))
    centred = _centred(fits, layer, pairs)
    columns: Columns = {}
    for method, own in values.items():
        columns[method] = dict.fromkeys(NAMES, np.full(len(own), np.nan)) | {
            "seed_agreement": indicators.seed_agreement(ranks[method], settings),
            "method_agreement": among[method],
            "bimodality": indicators.bimodality(own),
            "feature_dependence": indicators.largest_dependence(own, features),
        }
        if lengths is not None:
            columns[method]["length_dependence"] = indicators.dependence(own, lengths)
        if answer is not None:
            columns[method]["zero_shot_agreement"] = indicators.dependence(own, answer)
        columns[method] |= _of_direction(fits, layer, method, own, centred)
    return columns


def without_labels() -> list[str]:
    """The methods that see no label, neither of the task nor of an easy set."""
    return [method.name for method in known_methods() if not method.needs & {TARGETS, EASY}]


def lengths_of(situation: Situation) -> np.ndarray | None:
    """Characters of the judged texts [n]; None where only labels are at hand."""
    items = situation.test
    if all(item.choice == f"row {row}" for row, item in enumerate(items)):
        return None  # they stand for rows of an array
    return np.array([float(len(item.choice)) for item in items])


def _beside_the_seed(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "seed" and value is not None}


# --- directions ----------------------------------------------------------------------------------


class _Centred(NamedTuple):
    """Hidden states [n, d] of either sign in the pool's coordinates, and how runs scale them on."""

    pos: np.ndarray
    neg: np.ndarray
    mean_pos: np.ndarray
    mean_neg: np.ndarray
    scale_pos: np.ndarray
    scale_neg: np.ndarray
    variance: np.ndarray
    """trace Cov(phi+' - phi-') in the coordinates of each run [R]."""


def _centred(fits: SweepResult, layer: int, pairs: Pairs) -> _Centred:
    place, pool, within = fits.layers.index(layer), fits.pool, fits.within_pool

    def of_sign(sign: str, phi: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, scale = (np.asarray(getattr(pool, f"{what}_{sign}"))[place] for what in _PARTS)
        onward, own = (np.asarray(getattr(within, f"{what}_{sign}"))[place] for what in _PARTS)
        # A scale is one number a run, or one for every dimension.
        return (
            (np.asarray(phi).astype(np.float32) - mean) / scale,
            onward,
            own.reshape(len(own), -1),
        )

    pos, mean_pos, scale_pos = of_sign("pos", pairs.pos)
    neg, mean_neg, scale_neg = of_sign("neg", pairs.neg)
    variance = _variance(pos - pos.mean(0), neg - neg.mean(0), scale_pos, scale_neg)
    return _Centred(pos, neg, mean_pos, mean_neg, scale_pos, scale_neg, variance)


_PARTS = ("mean", "scale")


def _variance(
    pos: np.ndarray, neg: np.ndarray, scale_pos: np.ndarray, scale_neg: np.ndarray
) -> np.ndarray:
    """Trace Cov(pos / scale+ - neg / scale-) of each run [R], from three sums over the items."""

    def spread(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.einsum("nd,nd->d", one, other, dtype=np.float64) / len(one)

    whole = (
        spread(pos, pos) / scale_pos**2
        - 2 * spread(pos, neg) / (scale_pos * scale_neg)
        + spread(neg, neg) / scale_neg**2
    )
    return whole.sum(-1)


def _of_direction(
    fits: SweepResult, layer: int, method: str, scores: np.ndarray, states: _Centred
) -> dict[str, np.ndarray]:
    """What only a direction has: the scores of either member, and a length."""
    probes = fits.probes[method]
    if not isinstance(probes, LinearProbe):
        return {}
    place = fits.layers.index(layer)
    weight, bias = (np.asarray(part)[place] for part in (probes.weight, probes.bias))
    lengths = np.linalg.norm(weight, axis=-1)
    columns = {"direction_share": indicators.direction_share(scores, lengths, states.variance)}
    failed = np.isnan(scores).any(-1)
    pos = _side(weight, bias, states.pos, states.mean_pos, states.scale_pos)
    neg = _side(weight, bias, states.neg, states.mean_neg, states.scale_neg)
    columns["pair_consistency"] = indicators.pair_consistency(pos, neg)
    # Only what was trained on probabilities has scores in their unit.
    if isinstance(fits.info[method], TrainingInfo):
        columns["repaired_loss"] = indicators.repaired_loss(pos, neg)
    return {name: np.where(failed, np.nan, values) for name, values in columns.items()}


def _side(
    weight: np.ndarray, bias: np.ndarray, phi: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """s(phi') [R, n] of one member: w . (phi - mean) / scale + b."""
    folded = weight / scale
    return folded @ phi.T + (bias - (folded * mean).sum(-1))[:, None]
