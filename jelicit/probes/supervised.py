"""Probes trained on labels: the supervised ceiling (on the hard set) and E2H (on the easy set).

Both are this one fit. They differ only in the pairs, targets and normaliser they are given.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.method_groups import CEILING
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import Affine, LinearProbe, logits
from jelicit.probes.losses import bce_loss
from jelicit.probes.method import TARGETS, Data, Method, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.together import HARD, Problem, Trained
from jelicit.probes.training import (
    BCE_DESCENT,
    Descent,
    Rate,
    TrainingInfo,
    descend_with_validation,
    start,
    to_probe,
)
from jelicit.probes.training_settings import LabelTraining, vectors_trained


def validation_rows(
    key: Array,
    weights: Float[Array, " n"],
    *,
    share: Rate = 0.2,
    kept: Bool[Array, " pool"] | None = None,
) -> Bool[Array, " n"]:
    """Draw the held-out items among those of positive weight, both signs together.

    `share` of them, rounded, but at least one, and not all. Draws do not look at groups or labels.

    Args:
        key: seeds the draw.
        weights: row weights [n].
        share: share of the items to hold out.
        kept: which n rows of a pool these are; every row of the pool has its number in the draw,
            so that the same items are held out whatever else of the pool is there. None = all.
    """
    present = weights > 0
    count = jnp.clip(jnp.round(share * present.sum()), 1, jnp.maximum(present.sum() - 1, 1))
    if kept is None:
        draws = jax.random.uniform(key, weights.shape)
    else:
        places = jnp.flatnonzero(kept, size=len(weights))
        draws = jax.random.uniform(key, kept.shape)[places]
    order = jnp.argsort(jnp.where(present, draws, jnp.inf))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    return rank < count


def fit_supervised(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    *,
    weights: Float[Array, " n"] | None = None,
    held_out: Bool[Array, " n"] | None = None,
    kept: Bool[Array, " pool"] | None = None,
    validation_share: Rate = 0.2,
    descent: Descent = BCE_DESCENT,
) -> tuple[LinearProbe, TrainingInfo]:
    """Binary cross-entropy of phi+' with target y and phi-' with 1 - y, early stopping.

    Args:
        key: seeds the start and, unless `held_out` is given, the validation items.
        pairs: labelled pairs [n, d].
        normaliser: applied to them; fitted on all the labelled rows, held-out ones included.
        targets: in [0, 1]; 0.5 for an item without a truth value.
        weights: row weights [n]; 0 and 1 choose a subset.
        held_out: the validation items; None draws them.
        kept: which rows of a pool these are; see `validation_rows`.
        validation_share: share of the items to hold out.
        descent: AdamW, at most 1000 steps at learning rate 0.03, patience 100 by default.

    Returns:
        The probe with the lowest validation loss, and how training went.
    """
    pairs = with_full_floats(pairs)
    n, d = pairs.pos.shape
    dtype = pairs.pos.dtype
    weights = jnp.ones(n, dtype) if weights is None else weights
    key_start, key_split = jax.random.split(key)
    begin = start(key_start, d, dtype)

    if held_out is None:
        held_out = validation_rows(key_split, weights, share=validation_share, kept=kept)
    train, validation = weights * ~held_out, weights * held_out

    def objective(params: Affine):
        found = logits(params, normaliser, pairs, descent.precision)
        return bce_loss(*found, targets, train), bce_loss(*found, targets, validation)

    params, info = descend_with_validation(objective, begin, descent)
    return to_probe(params), info


def _fit(run: Run, data: Data, settings: LabelTraining) -> tuple[LinearProbe, TrainingInfo]:
    return fit_supervised(
        run.key,
        data.hard,
        run.normaliser,
        data.targets(),
        weights=run.rows,
        kept=data.kept,
        validation_share=settings.validation_share,
        descent=settings.label_descent(),
    )


def label_problem(
    key: Array,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    settings: LabelTraining,
    *,
    on: str,
    rows: Float[Array, " n"],
    kept: Bool[Array, " pool"] | None = None,
) -> Problem:
    """`fit_supervised` as a problem, on the rows of a set; its arguments, and the set's name."""
    key_start, key_split = jax.random.split(key)
    held_out = validation_rows(key_split, rows, share=settings.validation_share, kept=kept)
    return Problem(
        key=key_start,
        descent=settings.label_descent(),
        reads={on: normaliser},
        losses=lambda signs: (
            bce_loss(*signs[on], targets, rows * ~held_out),
            bce_loss(*signs[on], targets, rows * held_out),
        ),
        validated=True,
    )


def _problem(run: Run, data: Data, settings: LabelTraining) -> Problem:
    own = run.key, run.normaliser, data.targets(), settings
    return label_problem(*own, on=HARD, rows=run.rows, kept=data.kept)


SUPERVISED = Method(
    name="supervised",
    title="Supervised",
    group=CEILING,
    fit=_fit,
    trained=Trained(problem=_problem, descent=LabelTraining.label_descent, validated=True),
    free_sign=False,
    source="Paper A",
    needs=frozenset({TARGETS}),
    settings=LabelTraining,
    info=TrainingInfo,
    vectors=vectors_trained,
)
