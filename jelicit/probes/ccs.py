"""CCS, contrast-consistent search (Burns et al. 2022): no labels."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import Affine, LinearProbe, logits
from jelicit.probes.losses import ccs_loss
from jelicit.probes.method import Data, Method, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.together import HARD, Problem, Trained
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


def fit_ccs(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    weights: Float[Array, " n"] | None = None,
    descent: Descent = CCS_DESCENT,
    restarts: int = 1,
    beside: Callable[[Float[Array, " n"], Float[Array, " n"]], Float[Array, ""]] | None = None,
) -> tuple[LinearProbe, TrainingInfo]:
    """Minimise mean[(p+ + p- - 1)^2 + min(p+, p-)^2] over the weighted rows.

    Args:
        key: seeds the start.
        pairs: hard pairs [n, d].
        normaliser: applied to them; see `logits` about pairs with a large common mean.
        weights: row weights [n]; 0 and 1 choose a subset.
        descent: AdamW, 1000 steps at learning rate 0.01 by default.
        restarts: how many starts; the lowest final loss wins.
        beside: A further term of the loss, of the logits of both signs.

    Returns:
        The probe, of unknown sign, and how training went.

    Raises:
        ValueError: restarts < 1.
    """
    pairs = with_full_floats(pairs)
    n, d = pairs.pos.shape
    dtype = pairs.pos.dtype
    weights = jnp.ones(n, dtype) if weights is None else weights

    def objective(params: Affine) -> Float[Array, ""]:
        signs = logits(params, normaliser, pairs, descent.precision)
        loss = ccs_loss(*signs, weights)
        return loss if beside is None else loss + beside(*signs)

    params, info = best_of(
        lambda key: descend(objective, start(key, d, dtype), descent), key, restarts=restarts
    )
    return to_probe(params), info


def _fit(run: Run, data: Data, settings: CCSTraining) -> tuple[LinearProbe, TrainingInfo]:
    return fit_ccs(
        run.key,
        data.hard,
        run.normaliser,
        weights=run.rows,
        descent=settings.ccs_descent(),
        restarts=settings.restarts,
    )


def _problem(run: Run, data: Data, settings: CCSTraining) -> Problem:
    return Problem(
        key=run.key,
        descent=settings.ccs_descent(),
        reads={HARD: run.normaliser},
        losses=lambda signs: (ccs_loss(*signs[HARD], run.rows), None),
        restarts=settings.restarts,
    )


CCS = Method(
    name="ccs",
    title="CCS",
    group=UNSUPERVISED,
    fit=_fit,
    trained=Trained(problem=_problem, descent=CCSTraining.ccs_descent),
    free_sign=True,
    source="Burns et al. 2022, eq. 1-3",
    settings=CCSTraining,
    info=TrainingInfo,
    vectors=vectors_trained,
)
