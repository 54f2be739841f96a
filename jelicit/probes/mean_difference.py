"""The difference of the class means (mass-mean; Marks & Tegmark 2023): learns from labels."""

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
from jelicit.probes.normalise import Normaliser


def fit_mean_difference(
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    *,
    weights: Float[Array, " n"] | None = None,
) -> tuple[LinearProbe, DiscriminantInfo]:
    """The mean of the true rows minus that of the false ones (mass-mean; Marks & Tegmark 2023).

    w = sum_i r_i (2 y_i - 1) (phi_i+' - phi_i-') / sum_i r_i; 0 where all weighted rows are of one
    class, as each sign is centred on them.

    Args:
        pairs: labelled pairs [n, d].
        normaliser: applied to them; fitted on the weighted rows.
        targets: in [0, 1]; 0.5 for an item without a truth value, which then has no say.
        weights: row weights r [n]; 0 and 1 choose a subset.
    """
    delta = difference_of_means(labelled_rows(pairs, normaliser, weights), targets)
    return unbiased(delta), DiscriminantInfo(jnp.zeros((), delta.dtype), jnp.isfinite(delta).all())


def _fit(run: Run, data: Data, settings: None) -> tuple[LinearProbe, DiscriminantInfo]:
    return fit_mean_difference(data.hard, run.normaliser, data.targets(), weights=run.rows)


MEAN_DIFFERENCE = Method(
    name="mean_difference",
    title="Difference of means",
    group=CEILING,
    fit=_fit,
    free_sign=False,
    source="Marks & Tegmark 2023",
    needs=frozenset({TARGETS}),
    info=DiscriminantInfo,
    by_seed=False,
)
