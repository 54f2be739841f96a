"""Normalisers: the statistics of a named set of rows, applied explicitly.

Each sign is normalised on its own, phi' = (phi - mean) / scale (paper A; Burns et al. 2022), so
that the mean effect of the verdict word is gone. A normaliser knows which rows it was fitted on;
nothing is ever normalised by "whatever batch came along".
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jelicit.pairs import Pairs, check_shapes, full_floats
from jelicit.probes.pytree import frozen_pytree

# JAX's default precision is TF32 or bfloat16 on accelerators; hidden states need all of float32.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

Divisor = Literal["paper", "norm", "burns", "std"]

ALGORITHM = 1
"""Raised whenever `fit_normaliser` or what applies it gives other numbers: kept fits of another
number are not read back."""


@frozen_pytree(static=("fitted_on",))
@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """Mean and divisor of each sign. Leading axes, if any, are stacked normalisers.

    A divisor is one number [*batch], or one for every dimension [*batch, d].
    """

    mean_pos: Float[Array, "*batch d"]
    mean_neg: Float[Array, "*batch d"]
    scale_pos: Float[Array, "..."]
    scale_neg: Float[Array, "..."]
    fitted_on: str
    """Name of the rows the statistics come from."""


def fit_normaliser(
    pairs: Pairs,
    weights: Float[Array, " n"] | None = None,
    *,
    fitted_on: str,
    divisor: Divisor = "paper",
) -> Normaliser:
    """Statistics of the weighted rows: the mean, and the mean row norm around it.

    scale = mean_i ||phi_i - mean|| * f, where f is sqrt(d) for "paper" (paper A's released code,
    the default), 1 for "norm", and 1 / sqrt(d) for "burns" (Burns' research code). "std" divides
    every dimension by its own standard deviation (Burns' notebook).
    Rows, or dimensions, that are all the same get scale 1 and so become zero.

    With each sign centred on its own mean, no linear reader can tell the signs apart: erasing the
    sign by LEACE (Belrose et al. 2023) would change nothing any more.

    Args:
        pairs: hidden states [n, d].
        weights: row weights [n], not negative, some positive; None weighs all rows alike. Weights
            of 0 and 1 give the statistics of the chosen rows alone.
        fitted_on: name of the rows.
        divisor: which f.

    Raises:
        ValueError: malformed pairs, or an unknown divisor.
    """
    n, d = check_shapes(pairs)
    factors = {"paper": d**0.5, "norm": 1.0, "burns": d**-0.5, "std": 1.0}
    if divisor not in factors:
        raise ValueError(f"divisor={divisor!r} is unknown; choose one of {sorted(factors)}.")
    pos, neg = full_floats(pairs.pos), full_floats(pairs.neg)
    weights = jnp.ones(n, pos.dtype) if weights is None else weights
    spread = _mean_and_deviations if divisor == "std" else _mean_and_norm
    mean_pos, scale_pos = spread(pos, weights)
    mean_neg, scale_neg = spread(neg, weights)
    factor = factors[divisor]
    return Normaliser(
        mean_pos=mean_pos,
        mean_neg=mean_neg,
        scale_pos=jnp.where(scale_pos > 0, scale_pos * factor, 1.0),
        scale_neg=jnp.where(scale_neg > 0, scale_neg * factor, 1.0),
        fitted_on=fitted_on,
    )


class _Centred(NamedTuple):
    """Rows less their plain mean: what all rows share must go before anything is squared."""

    rows: Float[Array, "n d"]
    common: Float[Array, " d"]
    share: Float[Array, " n"]
    """Row weights that add up to 1."""

    def mean(self) -> Float[Array, " d"]:
        """Weighted mean of what is left."""
        return matmul(self.share, self.rows)


def _centred(X: Float[Array, "n d"], weights: Float[Array, " n"]) -> _Centred:
    common = X.mean(axis=0)
    return _Centred(X - common[None], common, (weights / weights.sum()).astype(X.dtype))


def _mean_and_norm(
    X: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Weighted mean of the rows and weighted mean of their distances from it."""
    centred = _centred(X, weights)
    rows, mean = centred.rows, centred.mean()
    # ||x - mean||^2 is expanded so that many weightings of one X need one matmul and no copy of
    # X each.
    squares = jnp.square(rows).sum(axis=1) - 2 * matmul(rows, mean) + matmul(mean, mean)
    return centred.common + mean, matmul(centred.share, jnp.sqrt(jnp.maximum(squares, 0)))


def _mean_and_deviations(
    X: Float[Array, "n d"], weights: Float[Array, " n"]
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Weighted mean of the rows and standard deviation of every dimension."""
    centred = _centred(X, weights)
    mean, square = centred.mean(), matmul(centred.share, jnp.square(centred.rows))
    variance = square - jnp.square(mean)
    # A dimension that never varies is left with rounding, which must not be divided by.
    varies = variance > 10 * jnp.finfo(X.dtype).eps * square
    return centred.common + mean, jnp.sqrt(jnp.where(varies, variance, 0.0))


def normalise(normaliser: Normaliser, pairs: Pairs) -> Pairs:
    """Apply phi' = (phi - mean) / scale to each sign of pairs [n, d]."""

    def one_sign(phi, mean, scale):
        return (phi - mean[None]) / jnp.broadcast_to(scale, mean.shape)[None]

    return Pairs(
        one_sign(pairs.pos, normaliser.mean_pos, normaliser.scale_pos),
        one_sign(pairs.neg, normaliser.mean_neg, normaliser.scale_neg),
    )


def denormalise(normaliser: Normaliser, pairs: Pairs) -> Pairs:
    """The inverse of `normalise`: phi = phi' * scale + mean for each sign of pairs [n, d].

    Pairs that one set's normaliser has normalised get another set's mean and scale by it, so that
    probes of the other set, which carry its normaliser, can read them.
    """

    def one_sign(phi, mean, scale):
        return phi * jnp.broadcast_to(scale, mean.shape)[None] + mean[None]

    return Pairs(
        one_sign(pairs.pos, normaliser.mean_pos, normaliser.scale_pos),
        one_sign(pairs.neg, normaliser.mean_neg, normaliser.scale_neg),
    )


def identity_normaliser(d: int, *, fitted_on: str = "nothing", dtype=jnp.float32) -> Normaliser:
    """The normaliser that changes nothing, for pairs that are normalised already."""
    zero, one = jnp.zeros(d, dtype), jnp.ones((), dtype)
    return Normaliser(
        mean_pos=zero, mean_neg=zero, scale_pos=one, scale_neg=one, fitted_on=fitted_on
    )


class Contrast(NamedTuple):
    """Pairs as what sets the two signs apart and what they share (the content of the item).

    phi+' - phi-' = apart * near + shared * far - (the same of the means): see `contrast_scales`.
    The content is much larger than the rest. Here it enters times `far` alone, which is small, so
    that its rounding is small, too; in the difference of two products it would not be.
    """

    apart: Float[Array, "*n d"]
    """phi+ - phi-."""
    shared: Float[Array, "*n d"]
    """(phi+ + phi-) / 2."""


def contrast(pos: ArrayLike, neg: ArrayLike) -> Contrast:
    """The two signs of hidden states, or their means, as a `Contrast`."""
    pos, neg = full_floats(pos), full_floats(neg)
    return Contrast(pos - neg, (pos + neg) / 2)


def contrast_scales(normaliser: Normaliser) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """(near, far): mean and difference of 1 / scale of the true and of the false sign."""
    pos, neg = normaliser.scale_pos, normaliser.scale_neg
    near, far = (1 / pos + 1 / neg) / 2, (neg - pos) / (pos * neg)
    width = normaliser.mean_pos.shape
    return jnp.broadcast_to(near, width), jnp.broadcast_to(far, width)


def compose(outer: Normaliser, inner: Normaliser) -> Normaliser:
    """The one normaliser that equals applying `outer` first and then `inner`.

    `inner` was fitted on what `outer` gives, and lends its name. For one normaliser each.
    """
    return Normaliser(
        mean_pos=outer.mean_pos + outer.scale_pos * inner.mean_pos,
        mean_neg=outer.mean_neg + outer.scale_neg * inner.mean_neg,
        scale_pos=outer.scale_pos * inner.scale_pos,
        scale_neg=outer.scale_neg * inner.scale_neg,
        fitted_on=inner.fitted_on,
    )
