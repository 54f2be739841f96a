"""A method of your own: ridge regression of the labels on the differences of the pairs.

Name it as `own_method.py:RIDGE` wherever a method is named.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jelicit.probes import Data, LinearProbe, Method, PerRun, Run, rate
from jelicit.probes.linear import Affine, logits


@dataclass(frozen=True, kw_only=True)
class RidgeSettings:
    """Of ridge regression."""

    ridge_penalty: PerRun = rate(1e-4, above=0, help="Of the squared length of the weights.")


def fit(run: Run, data: Data, settings: RidgeSettings) -> LinearProbe:
    """Minimise mean_i (w . (phi_i+' - phi_i-') - (2 y_i - 1))^2 + penalty ||w||^2."""
    share = run.rows / run.rows.sum()

    def differences(weight):  # through products that all runs share, never a copy of the rows
        pos, neg = logits(Affine(weight, jnp.zeros(())), run.normaliser, data.hard)
        return pos - neg

    zeros = jnp.zeros(data.hard.pos.shape[1])
    _, gather = jax.vjp(differences, zeros)

    def normal(weight):
        return gather(share * differences(weight))[0] + settings.ridge_penalty * weight

    (wanted,) = gather(share * (2 * data.targets() - 1))
    weight, _ = jax.scipy.sparse.linalg.cg(normal, wanted, maxiter=200)
    return LinearProbe(weight=weight, bias=jnp.zeros(()), offset=jnp.zeros(()))


RIDGE = Method(
    name="ridge",
    title="Ridge regression",
    group="Ceiling",
    fit=fit,
    free_sign=False,
    source="Hoerl & Kennard 1970",
    needs={"targets"},
    settings=RidgeSettings,
    by_seed=False,
)
