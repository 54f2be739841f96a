"""Signs that a direction may not be the truth, read off its scores without any label.

A method that has found something else than the truth looks like one that has found it: failure is
silent. What is here sees scores, hidden states, texts and what the model itself answers, and no
label of what is asked for. All of it is the same for a direction and its opposite, since without
labels nobody knows the sign. Whether any of it warns is another question: `jelicit.studies
.warning_signs` asks it of runs whose labels are known.

Scores of many runs go in at once: ``scores[..., n]``, one column per item. What cannot be told is
nan: scores that do not vary, a fit that failed, a text that nobody has. Everything is NumPy: it is
cheap beside the fits, and nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from jelicit.metrics import Scores

Warns = Literal["low", "high"]


class Indicator(NamedTuple):
    """A column of result rows that no label decides.

    The side that warns is said beforehand, by the reasons that the field gives for it; it is not
    learnt from outcomes.
    """

    name: str
    title: str
    warns: Warns
    """Which values are a reason to doubt."""
    reason: str
    """Why they are."""

    def warning(self, values: Any) -> np.ndarray:
        """Its values so turned that more of them is more of a reason to doubt."""
        values = np.asarray(values, float)
        return values if self.warns == "high" else -values


INDICATORS = (
    Indicator(
        "repaired_loss",
        "CCS loss against re-paired claims",
        "high",
        "a loss as high where members belong to different claims owes nothing to the contrast",
    ),
    Indicator(
        "pair_consistency",
        "Consistency over negation",
        "low",
        "what is true of a claim is false of its negation",
    ),
    Indicator(
        "seed_agreement", "Agreement over seeds", "low", "other starts and rows find something else"
    ),
    Indicator(
        "method_agreement", "Agreement over methods", "low", "other methods find something else"
    ),
    Indicator(
        "direction_share",
        "Share of variance",
        "low",
        "hidden states hardly vary along the direction",
    ),
    Indicator("bimodality", "Bimodality", "low", "claims do not fall into two kinds"),
    Indicator(
        "length_dependence", "Dependence on length", "high", "scores follow how long a text is"
    ),
    Indicator(
        "feature_dependence",
        "Dependence on a known feature",
        "high",
        "scores follow what is known to be in the texts and is not asked for",
    ),
    Indicator(
        "zero_shot_agreement",
        "Agreement with zero-shot",
        "low",
        "scores have nothing to do with what the model answers",
    ),
)
"""The columns of result rows."""

NAMES = tuple(indicator.name for indicator in INDICATORS)


# --- agreement -----------------------------------------------------------------------------------


def unit_ranks(scores: Scores) -> np.ndarray:
    """Ranks (of ties: their mean), centred and of length 1, so that Spearman's rho is a product.

    Args:
        scores: [..., n].

    Returns:
        [..., n]; nan in a run that does not vary or has a nan.
    """
    values = np.asarray(scores, float)
    flat = values.reshape(-1, values.shape[-1])
    # pandas leaves nan without a rank; here it takes its whole run with it.
    ranks = pd.DataFrame(flat.T).rank().to_numpy().T
    ranks = ranks - ranks.mean(1, keepdims=True)
    length = np.sqrt(np.square(ranks).sum(1, keepdims=True))
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0).reshape(
        values.shape
    )


def dependence(scores: Scores, feature: Any) -> np.ndarray:
    """How far scores follow a feature: |Spearman's rho| over the items that have it.

    Args:
        scores: [..., n].
        feature: [n] numbers; nan where an item has none.

    Returns:
        [...] in [0, 1].
    """
    feature = np.asarray(feature, float)
    known = ~np.isnan(feature)
    if known.sum() < 2:
        return np.full(np.shape(scores)[:-1], np.nan)
    ranks = unit_ranks(np.asarray(scores, float)[..., known])
    return np.abs(ranks @ unit_ranks(feature[known]))


def largest_dependence(scores: Scores, features: Sequence[Any]) -> np.ndarray:
    """`dependence` on the feature that scores follow most; nan where there is no feature."""
    if not features:
        return np.full(np.shape(scores)[:-1], np.nan)
    return np.fmax.reduce([dependence(scores, feature) for feature in features])


def seed_agreement(ranks: np.ndarray, settings: Sequence[Any]) -> np.ndarray:
    """Mean |Spearman's rho| of each run with the other runs of the same settings.

    CCS that finds one thing from one start and another thing from another has found two equally
    consistent features, and at most one of them is the truth.

    Args:
        ranks: `unit_ranks` of the scores [R, n].
        settings: [R] what sets a run apart beside its seed, equal for runs to compare.

    Returns:
        [R] in [0, 1]; nan of a run that is alone, or failed.
    """
    agreement = np.full(len(ranks), np.nan)
    for setting in [s for place, s in enumerate(settings) if s not in settings[:place]]:
        members = np.array([place for place, s in enumerate(settings) if s == setting])
        alike = np.abs(ranks[members] @ ranks[members].T)
        np.fill_diagonal(alike, np.nan)
        agreement[members] = _mean_of_known(alike)
    return agreement


def method_agreement(
    ranks: Mapping[str, np.ndarray], others: Sequence[str]
) -> dict[str, np.ndarray]:
    """Mean |Spearman's rho| of each method with other methods in the same run.

    Args:
        ranks: Method -> `unit_ranks` of its scores [R, n].
        others: The methods that count; none is compared with itself.

    Returns:
        Method -> [R] in [0, 1]; nan where there is no other method.
    """
    agreement = {}
    for method, own in ranks.items():
        alike = [np.abs((own * ranks[o]).sum(-1)) for o in others if o != method and o in ranks]
        agreement[method] = _mean_of_known(np.array(alike).reshape(-1, len(own)).T)
    return agreement


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is a number; nan where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


# --- the shape of scores -------------------------------------------------------------------------


def bimodality(scores: Scores) -> np.ndarray:
    """Sarle's coefficient of bimodality.

    With the sample skewness g and excess kurtosis k (both corrected for the sample's size),

        b = (g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2) (n - 3))).

    It is 5/9 of a uniform distribution, about 1/3 of a normal one and 1 of two points; a skewed one
    has more of it, too, whatever its modes (SAS/STAT User's Guide, the CLUSTER procedure; Pfister
    et al. 2013, "Good things peak in pairs", Frontiers in Psychology 4:700).

    Args:
        scores: [..., n].

    Returns:
        [...]; nan for fewer than four items, and where scores do not vary.
    """
    values = np.asarray(scores, float)
    n = values.shape[-1]
    varies = values.max(-1) > values.min(-1)
    if n < 4:
        return np.full(varies.shape, np.nan)
    centred = values - values.mean(-1, keepdims=True)
    # Scores have no unit; in that of the largest no power of them leaves the range of numbers.
    largest = np.abs(centred).max(-1, keepdims=True)
    unit = np.divide(centred, largest, out=np.zeros_like(centred), where=largest > 0)
    second, third, fourth = (np.mean(unit**power, -1) for power in (2, 3, 4))
    second = np.where(varies, second, np.nan)
    skewness = third / second**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    excess = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (fourth / second**2 - 3) + 6)
    return (skewness**2 + 1) / (excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def direction_share(scores: Scores, lengths: Any, variance: Any) -> np.ndarray:
    """Share of the variance of contrast differences that lies along a probe's direction.

    With the differences x = phi+' - phi-' and a probe's weight w,

        share = w' Cov(x) w / (|w|^2 trace Cov(x)) = Var(scores) / (|w|^2 trace Cov(x)).

    Of PCA's first component it is the explained share of variance.

    Args:
        scores: w' x + const of the items [..., n].
        lengths: |w| [...].
        variance: trace Cov(x) over the same items [...].
    """
    whole = np.square(np.asarray(lengths, float)) * np.asarray(variance, float)
    own = np.var(np.asarray(scores, float), axis=-1)
    return np.divide(own, whole, out=np.full(np.shape(own), np.nan), where=whole > 0)


# --- the two members of a pair -------------------------------------------------------------------


def pair_consistency(pos: Scores, neg: Scores) -> np.ndarray:
    """How far a claim and its denial are scored oppositely: -corr(s(phi+'), s(phi-')).

    1 where the score of the denial is the claim's turned round, as consistency asks of the truth
    (Burns et al. 2022, eq. 1); -1 where both have the same, as of what a text says anyway.

    Args:
        pos: s(phi+') of the items [..., n].
        neg: s(phi-').
    """
    pos, neg = (np.asarray(side, float) for side in (pos, neg))
    varies = (pos.max(-1) > pos.min(-1)) & (neg.max(-1) > neg.min(-1))
    pos, neg = (side - side.mean(-1, keepdims=True) for side in (pos, neg))
    size = np.sqrt(np.sum(pos**2, -1) * np.sum(neg**2, -1))
    return -np.divide(
        np.sum(pos * neg, -1), size, out=np.full(np.shape(size), np.nan), where=varies
    )


def repaired_loss(pos: Scores, neg: Scores) -> np.ndarray:
    """CCS's loss on pairs, over its mean on all pairs whose members are of different items.

    With the probabilities p_i of the claim of item i, q_i of its denial, and CCS's loss of a pair
    L(p, q) = (p + q - 1)^2 + min(p, q)^2 (Burns et al. 2022, eq. 1-2),

        ratio = mean_i L(p_i, q_i) / mean_{i != j} L(p_i, q_j).

    The null breaks who belongs to whom and nothing else: every probability stays. It is the mean
    over all derangements of the denials, exact and without a draw. Near 0, the loss is low because
    the members of a pair contradict each other; at 1, any other pairing does as well, and the loss
    says nothing of consistency.

    To swap the members of random pairs would be no null: L(p, q) = L(q, p), so that every direction
    keeps its loss, and a search on swapped pairs finds what it found before. (Normalised anew per
    sign, swapped pairs even give the verdict word back: a direction that always contradicts itself
    and knows nothing.) Nor is a search on re-paired train rows: with more dimensions than rows, it
    brings its loss to 0 whatever the pairs are. Here the loss is of rows that no fit has seen.

    Args:
        pos: Logits of the claims [..., n].
        neg: Logits of their denials.

    Returns:
        [...]; nan for fewer than two items.
    """
    pos, neg = (np.asarray(side, float) for side in (pos, neg))
    flat = [side.reshape(-1, side.shape[-1]) for side in (pos, neg)]
    ratios = [_repaired(*map(_sigmoid, sides)) for sides in zip(*flat, strict=True)]
    return np.array(ratios, float).reshape(pos.shape[:-1])


def _repaired(p: np.ndarray, q: np.ndarray) -> float:
    n = len(p)
    if n < 2 or np.isnan(p).any() or np.isnan(q).any():
        return np.nan
    own = np.sum((p + q - 1) ** 2 + np.minimum(p, q) ** 2)
    # (p + q - 1)^2 of every claim with every denial, from sums.
    a, b = np.subtract(p, 0.5), np.subtract(q, 0.5)
    squares = n * np.sum(a**2) + n * np.sum(b**2) + 2 * np.sum(a) * np.sum(b)
    # Over all j: q_j^2 where q_j < p_i, p_i^2 for each of the others.
    order = np.sort(q)
    below = np.searchsorted(order, p)
    smaller = np.concatenate([[0.0], np.cumsum(order**2)])[below].sum() + np.sum(p**2 * (n - below))
    others = (squares + smaller - own) / (n * (n - 1))
    return float(own / n / others) if others > 0 else np.nan


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logits / 2))
