"""Linear discriminant analysis (Fisher 1936) by conjugate gradients: learns from labels."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.method_groups import CEILING
from jelicit.pairs import Pairs
from jelicit.probes.discriminant import (
    DiscriminantInfo,
    difference_of_means,
    labelled_rows,
    unbiased,
)
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import TARGETS, Data, Method, Run
from jelicit.probes.normalise import Normaliser, matmul
from jelicit.probes.settings import PerRun, rate
from jelicit.probes.training import Rate


def fit_lda(
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    *,
    weights: Float[Array, " n"] | None = None,
    shrinkage: Rate = 0.1,
    max_steps: int = 500,
) -> tuple[LinearProbe, DiscriminantInfo]:
    """Fisher's direction S^-1 delta, delta the difference of the class means (Fisher 1936).

    S = (1 - g) S_w + g trace(S_w) / d I, with S_w the covariance within the classes and g the
    shrinkage. S is never built: the system is solved by conjugate gradients, whose products with
    the hidden states all runs share.

    Args:
        pairs: labelled pairs [n, d], without a large common mean.
        normaliser: applied to them; fitted on the weighted rows.
        targets: in [0, 1]; 0.5 for an item without a truth value.
        weights: row weights [n]; 0 and 1 choose a subset.
        shrinkage: g in (0, 1]; small ones take more steps.
        max_steps: cap on the steps; `DiscriminantInfo.residual` tells whether it was reached.
    """
    rows = labelled_rows(pairs, normaliser, weights)
    d = pairs.pos.shape[1]
    delta = difference_of_means(rows, targets)
    trace = rows.mean_square() - matmul(delta, delta) / 4

    def within(v: Float[Array, " d"]) -> Float[Array, " d"]:
        pos, neg = rows.project(v)
        spread = rows.gather(pos, neg) / 2 - delta * matmul(delta, v) / 4
        return (1 - shrinkage) * spread + shrinkage * trace / d * v

    weight, _ = jax.scipy.sparse.linalg.cg(within, delta, tol=1e-6, maxiter=max_steps)
    error, length = jnp.linalg.norm(within(weight) - delta), jnp.linalg.norm(delta)
    residual = error / jnp.where(length > 0, length, 1.0)
    return unbiased(weight), DiscriminantInfo(residual, jnp.isfinite(weight).all())


@dataclass(frozen=True, kw_only=True)
class LDASettings:
    """Of LDA."""

    lda_shrinkage: PerRun = rate(
        0.1,
        above=0,
        most=1,
        help="Of LDA's covariance within classes, towards a multiple of the identity.",
    )


def _fit(run: Run, data: Data, settings: LDASettings) -> tuple[LinearProbe, DiscriminantInfo]:
    return fit_lda(
        data.hard,
        run.normaliser,
        data.targets(),
        weights=run.rows,
        shrinkage=settings.lda_shrinkage,
    )


LDA = Method(
    name="lda",
    title="LDA",
    group=CEILING,
    fit=_fit,
    free_sign=False,
    source="Fisher 1936",
    needs=frozenset({TARGETS}),
    settings=LDASettings,
    info=DiscriminantInfo,
    by_seed=False,
)
