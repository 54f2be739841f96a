"""Logistic regression along a path of L2 penalties: learns from labels."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.method_groups import CEILING
from jelicit.pairs import Pairs
from jelicit.probes.discriminant import labelled_rows
from jelicit.probes.lbfgs import QuasiNewton, minimise
from jelicit.probes.linear import Affine, LinearProbe, Signs, logits
from jelicit.probes.losses import bce_loss
from jelicit.probes.method import TARGETS, Data, Method, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.settings import PerRun, count, rate
from jelicit.probes.supervised import validation_rows
from jelicit.probes.training import Rate, to_probe


class PathInfo(NamedTuple):
    """How the choice of the penalty went. Leading axes, if any, are stacked fits."""

    penalty: Float[Array, "*batch"]
    """The chosen one."""
    validation_loss: Float[Array, "*batch"]
    """Mean cross-entropy of the held-out rows at the chosen penalty."""
    loss: Float[Array, "*batch"]
    """Mean cross-entropy of all rows by the probe that is returned."""
    finite: Bool[Array, "*batch"]
    """Whether the probe is finite."""


def penalties(weakest: Rate, strongest: Rate, points: int) -> Float[Array, " points"]:
    """From the strongest to the weakest, evenly on a logarithmic scale."""
    steps = jnp.linspace(0.0, 1.0, points)
    return strongest * (weakest / strongest) ** steps


def fit_logistic(
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    penalty: Rate,
    *,
    weights: Float[Array, " n"] | None = None,
    begin: Float[Array, " d"] | None = None,
    steps: int = 100,
) -> Affine:
    """Minimise BCE + penalty v / 2 |w|^2, v the rows' mean variance per dimension.

    BCE is that of phi+' with target y and phi-' with 1 - y (`bce_loss`). Without a bias: truth
    scores do not have one. v makes the penalty the same whatever the divisor.
    """
    rows = labelled_rows(pairs, normaliser, weights)
    d, dtype = rows.pairs.pos.shape[1], rows.pairs.pos.dtype
    begin = jnp.zeros(d, dtype) if begin is None else begin
    # `QuasiNewton` has its penalty per dimension, too.
    settings = QuasiNewton(
        penalty=penalty * rows.mean_square(), tolerance=1e-6, steps=steps, line_search_steps=3
    )

    def read(params: Affine) -> Signs:
        unbiased = params._replace(bias=jnp.zeros((), dtype))
        return logits(unbiased, normaliser, rows.pairs)

    def judge(found: Signs) -> Float[Array, ""]:
        return bce_loss(*found, targets, rows.share)

    start = Affine(begin, jnp.zeros((), dtype))
    return minimise(read, judge, start, settings)


def fit_logistic_path(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    path: Float[Array, " points"],
    *,
    weights: Float[Array, " n"] | None = None,
    kept: Bool[Array, " pool"] | None = None,
    validation_share: Rate = 0.2,
    steps: int = 100,
) -> tuple[LinearProbe, PathInfo]:
    """The penalty of the lowest loss on held-out items; then all items at that penalty.

    Args:
        key: draws the held-out items.
        pairs: labelled pairs [n, d], without a large common mean.
        normaliser: applied to them; fitted on all the labelled rows, held-out ones included.
        targets: in [0, 1]; 0.5 for an item without a truth value.
        path: penalties, the strongest first; each fit starts where the one before ended.
        weights: row weights [n]; 0 and 1 choose a subset.
        kept: which rows of a pool these are; see `validation_rows`.
        validation_share: share of the items to hold out.
        steps: cap on the steps of L-BFGS at each penalty.
    """
    share = labelled_rows(pairs, normaliser, weights).share
    held_out = validation_rows(key, share, share=validation_share, kept=kept)

    def fit(penalty: Rate, weights: Float[Array, " n"], begin: Float[Array, " d"]) -> Affine:
        return fit_logistic(
            pairs, normaliser, targets, penalty, weights=weights, begin=begin, steps=steps
        )

    def loss(params: Affine, weights: Float[Array, " n"]) -> Float[Array, ""]:
        return bce_loss(*logits(params, normaliser, pairs), targets, weights)

    def along(begin: Float[Array, " d"], penalty: Float[Array, ""]):
        params = fit(penalty, share * ~held_out, begin)
        return params.weight, (params.weight, loss(params, share * held_out))

    zeros = jnp.zeros(pairs.pos.shape[1], share.dtype)
    _, (weights_found, losses) = jax.lax.scan(along, zeros, path.astype(share.dtype))
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    params = fit(path[best], share, weights_found[best])
    finite = jnp.isfinite(params.weight).all() & jnp.isfinite(losses[best])
    return to_probe(params), PathInfo(path[best], losses[best], loss(params, share), finite)


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """Of logistic regression along a path of penalties."""

    path_strongest: PerRun = rate(10.0, above=0, help="Strongest penalty of logistic regression.")
    path_weakest: PerRun = rate(1e-4, above=0, help="Weakest penalty of logistic regression.")
    path_points: int = count(8, help="Penalties of logistic regression, the two ends included.")
    path_steps: int = count(60, help="Cap on the steps of L-BFGS at each penalty.")
    path_validation_share: PerRun = rate(
        0.2, above=0, below=1, help="Of the items, held out to choose the penalty."
    )


def _fit(run: Run, data: Data, settings: PathSettings) -> tuple[LinearProbe, PathInfo]:
    return fit_logistic_path(
        run.key,
        data.hard,
        run.normaliser,
        data.targets(),
        penalties(settings.path_weakest, settings.path_strongest, settings.path_points),
        weights=run.rows,
        kept=data.kept,
        validation_share=settings.path_validation_share,
        steps=settings.path_steps,
    )


LOGISTIC = Method(
    name="logistic",
    title="Logistic regression, L2 path",
    group=CEILING,
    fit=_fit,
    free_sign=False,
    source="Hastie et al. 2009, section 4.4; Mallen & Belrose 2023 on pairs",
    needs=frozenset({TARGETS}),
    settings=PathSettings,
    info=PathInfo,
    # Weak penalties leave flat optima, which a loss of float32 cannot tell apart.
    double=True,
    vectors=lambda settings: 40 + settings.path_points,
)
