"""LEACE of the verdict word (Belrose et al. 2023): its linear trace, taken out of hidden states."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.pairs import Pairs
from jelicit.probes.discriminant import labelled_rows
from jelicit.probes.normalise import Normaliser, compose, contrast_scales, matmul
from jelicit.probes.settings import PerRun, count, rate
from jelicit.probes.training import Rate


class Erasure(NamedTuple):
    """x -> P x with P = I - verdict reader^T, of rows that are centred per sign: oblique."""

    verdict: Float[Array, " d"]
    """Mean of the true word's rows less that of the false word's."""
    reader: Float[Array, " d"]
    """What reads the verdict off a row: reader . verdict = 1."""

    def apply(self, V: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """P V: columns that are hidden states."""
        return V - self.verdict[:, None] * matmul(self.reader, V)[None]

    def fold(self, V: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """P^T V: columns that are weights; what they read of P x, these read of x."""
        return V - self.reader[:, None] * matmul(self.verdict, V)[None]


def fit_erasure(
    pairs: Pairs,
    normaliser: Normaliser,
    pool: Normaliser | None = None,
    *,
    weights: Float[Array, " n"] | None = None,
    shrinkage: Rate = 0.0,
    max_steps: int = 500,
) -> Erasure:
    """The least change of the rows of both signs after which no linear reader tells the signs.

    x' = x - S_xz S_zx S^-1 (x - mean) / (S_zx S^-1 S_xz), with z the sign of a row and S the
    covariance of the 2n rows (Belrose et al. 2023, eq. 1, for one bit). It takes each sign's mean
    off, as our normaliser does, and what is more, each row's own component along the verdict, as
    far as the covariance tells it from the rest. S_xz is a multiple of the difference delta of the
    signs' means, and S^-1 delta one of S_w^-1 delta, S_w = the covariance within the signs.

    S_w is shrunk, (1 - g) S_w + g trace(S_w) / d I: from fewer rows than dimensions the erasure of
    the paper would be centring alone on the rows it was fitted on. Solved by conjugate gradients.

    Args:
        pairs: hidden states [n, d], without a large common mean.
        normaliser: applied to them; fitted on the weighted rows.
        pool: what was applied to the pairs before, which took the verdict's mean away; None = no
            normaliser was.
        weights: row weights [n]; 0 and 1 choose a subset.
        shrinkage: g in [0, 1].
        max_steps: cap on the steps.
    """
    rows = labelled_rows(pairs, normaliser, weights)
    d, dtype = rows.pairs.pos.shape[1], rows.pairs.pos.dtype
    whole = normaliser if pool is None else compose(pool, normaliser)
    verdict = (whole.mean_pos - whole.mean_neg) * contrast_scales(whole)[0]
    ridge = shrinkage * rows.mean_square() / d

    def within(v: Float[Array, " d"]) -> Float[Array, " d"]:
        return (1 - shrinkage) * rows.gather(*rows.project(v)) / 2 + ridge * v

    tolerance = 1e-6 if dtype == jnp.float32 else 1e-12
    reader, _ = jax.scipy.sparse.linalg.cg(within, verdict, tol=tolerance, maxiter=max_steps)
    length = matmul(reader, verdict)
    return Erasure(verdict, reader / jnp.where(length > 0, length, 1.0))


@dataclass(frozen=True, kw_only=True)
class ErasureSettings:
    """Of methods that erase the verdict first."""

    erasure_shrinkage: PerRun = rate(
        0.1,
        least=0,
        most=1,
        help="Of the covariance that LEACE goes by, towards a multiple of the identity.",
    )
    erasure_steps: int = count(500, help="Cap on the steps that solve for what LEACE erases.")
