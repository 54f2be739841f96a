"""CCS over several wordings of each item: no labels."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import Affine, LinearProbe, logits
from jelicit.probes.losses import ccs_loss, weighted_mean
from jelicit.probes.method import WORDINGS, Data, Method, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.settings import PerRun, rate
from jelicit.probes.training import (
    CCS_DESCENT,
    Descent,
    TrainingInfo,
    best_of,
    descend,
    start,
    to_probe,
)
from jelicit.probes.training_settings import CCSTraining, vectors_trained


def variance_within_items(
    values: Float[Array, " n"], items: Int[Array, " n"], weights: Float[Array, " n"]
) -> Float[Array, ""]:
    """The variance of an item's wordings about their mean, averaged over rows.

    sum_i w_i (v_i - m(i))^2 / sum_i w_i with m(i) the weighted mean of the wordings of i's item:
    items count by their wordings, and one with a single wording adds 0.

    Args:
        values: Of the rows [n].
        items: The number, below n, of the item that each row is a wording of.
        weights: Row weights [n].
    """
    n = len(values)
    counts = jax.ops.segment_sum(weights, items, n)
    totals = jax.ops.segment_sum(weights * values, items, n)
    # Items of which no row counts have no mean; nothing is read there.
    means = totals / jnp.where(counts > 0, counts, 1)
    return weighted_mean((values - means[items]) ** 2, weights)


def fit_ccs_paraphrases(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    items: Int[Array, " n"] | None,
    invariance: PerRun = 1.0,
    weights: Float[Array, " n"] | None = None,
    descent: Descent = CCS_DESCENT,
    restarts: int = 1,
) -> tuple[LinearProbe, TrainingInfo]:
    """Minimise the loss of CCS plus b (var p+ + var p-), variances within items.

    What changes with the wording of a claim is no property of the claim, however well its
    probabilities contradict each other (EleutherAI's ccs, losses.py: the variance over templates).

    Args:
        key: Seeds the start, as of `fit_ccs`.
        pairs: Hard pairs [n, d], a row per wording.
        normaliser: Applied to them.
        items: The number, below n, of the item that each row is a wording of; None = one wording
            each, and the fit is that of CCS.
        invariance: b.
        weights: Row weights [n]; 0 and 1 choose a subset.
        descent: As of `fit_ccs`.
        restarts: How many starts; the lowest final loss wins.

    Returns:
        The probe, of unknown sign, and how training went.
    """
    pairs = with_full_floats(pairs)
    n, d = pairs.pos.shape
    dtype = pairs.pos.dtype
    weights = jnp.ones(n, dtype) if weights is None else weights

    def objective(params: Affine) -> Float[Array, ""]:
        signs = logits(params, normaliser, pairs, descent.precision)
        loss = ccs_loss(*signs, weights)
        if items is None:
            return loss
        varied = [variance_within_items(jax.nn.sigmoid(sign), items, weights) for sign in signs]
        return loss + invariance * sum(varied)

    params, info = best_of(
        lambda key: descend(objective, start(key, d, dtype), descent), key, restarts=restarts
    )
    return to_probe(params), info


@dataclass(frozen=True, kw_only=True)
class ParaphraseSettings(CCSTraining):
    """Of CCS over several wordings."""

    paraphrase_invariance: PerRun = rate(
        1.0,
        least=0,
        help="Of the variance over wordings in CCS; does nothing where every item has one wording.",
    )


def _fit(run: Run, data: Data, settings: ParaphraseSettings) -> tuple[LinearProbe, TrainingInfo]:
    return fit_ccs_paraphrases(
        run.key,
        data.hard,
        run.normaliser,
        items=data.wordings,
        invariance=settings.paraphrase_invariance,
        weights=run.rows,
        descent=settings.ccs_descent(),
        restarts=settings.restarts,
    )


CCS_PARAPHRASES = Method(
    name="ccs_paraphrases",
    title="CCS over wordings",
    group=UNSUPERVISED,
    fit=_fit,
    free_sign=True,
    source="EleutherAI's ccs (losses.py): Burns et al. 2022, plus the variance over wordings",
    needs=frozenset({WORDINGS}),
    settings=ParaphraseSettings,
    info=TrainingInfo,
    vectors=vectors_trained,
    stream="ccs",
)
