"""CCS over several wordings of each item: no labels."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.linear import LinearProbe
from jelicit.probes.losses import weighted_mean
from jelicit.probes.method import WORDINGS, Data, Method, Run
from jelicit.probes.settings import PerRun, rate
from jelicit.probes.training import TrainingInfo
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


@dataclass(frozen=True, kw_only=True)
class ParaphraseSettings(CCSTraining):
    """Of CCS over several wordings."""

    paraphrase_invariance: PerRun = rate(
        1.0,
        least=0,
        help="Of the variance over wordings in CCS; does nothing where every item has one wording.",
    )


def _fit(run: Run, data: Data, settings: ParaphraseSettings) -> tuple[LinearProbe, TrainingInfo]:
    """Minimise the loss of CCS plus b (var p+ + var p-), variances within items.

    What changes with the wording of a claim is no property of the claim, however well its
    probabilities contradict each other. Where every item has one wording, this is CCS.
    """
    items = data.wordings

    def varied(pos: Float[Array, " n"], neg: Float[Array, " n"]) -> Float[Array, ""]:
        assert items is not None
        both = (variance_within_items(jax.nn.sigmoid(sign), items, run.rows) for sign in (pos, neg))
        return settings.paraphrase_invariance * sum(both)

    return fit_ccs(
        run.key,
        data.hard,
        run.normaliser,
        weights=run.rows,
        descent=settings.ccs_descent(),
        restarts=settings.restarts,
        beside=None if items is None else varied,
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
