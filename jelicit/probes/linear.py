"""The linear probe that every method returns, and its one way to score.

s(phi') = w . phi' + b, and an item's truth score is s(phi+') - s(phi-') - offset. The offset keeps
PCA's centring. A weighted sum of such scores is again one, so an ensemble is a probe too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.pairs import Pairs
from jelicit.probes.normalise import Normaliser, contrast, contrast_scales, matmul, normalise
from jelicit.probes.pytree import frozen_pytree


@frozen_pytree()
@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A probe in normalised coordinates. Leading axes, if any, are stacked probes."""

    weight: Float[Array, "*batch d"]
    bias: Float[Array, "*batch"]
    offset: Float[Array, "*batch"]


class Affine(NamedTuple):
    """What training changes: s(phi') = weight . phi' + bias."""

    weight: Float[Array, " d"]
    bias: Float[Array, ""]


PRECISIONS = ("float32", "tf32", "bfloat16")
"""What the products with the hidden states are rounded to; sums are float32 always.

"tf32" is an accelerator's faster mode (on a TPU, three passes of bfloat16) and plain float32 on a
CPU.
"""


def project(
    phi: Float[Array, "n d"], weight: Float[Array, " d"], precision: str = "float32"
) -> Float[Array, " n"]:
    """The product phi . w and its gradient, at one of `PRECISIONS`.

    Raises:
        ValueError: An unknown precision.
    """
    if precision == "float32":
        return matmul(phi, weight)
    if precision == "tf32":
        return jnp.matmul(phi, weight, precision=jax.lax.Precision.HIGH)
    if precision == "bfloat16":
        return _bfloat16_project(phi, weight)
    raise ValueError(f"precision={precision!r}; choose one of {PRECISIONS}.")


def _bfloat16(left: Array, right: Array) -> Array:
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


# JAX's own transposition would compute the gradient of the weights from float32 hidden states.
@jax.custom_vjp
def _bfloat16_project(phi: Array, weight: Array) -> Array:
    return _bfloat16(phi, weight)


def _forward(phi: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _bfloat16(phi, weight), (phi, weight)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    phi, weight = kept
    return jnp.outer(gradient, weight).astype(phi.dtype), _bfloat16(gradient, phi)


_bfloat16_project.defvjp(_forward, _backward)


Signs = tuple[Float[Array, " n"], Float[Array, " n"]]
"""Logits of all rows at the true and at the false verdict."""


def logits(
    params: Affine, normaliser: Normaliser, pairs: Pairs, precision: str = "float32"
) -> Signs:
    """s(phi+') and s(phi-') of pairs [n, d], with the normaliser folded into the probe.

    w . (phi - mean) / scale + b = phi . (w / scale) - mean . (w / scale) + b, so probes with
    different normalisers share one matmul with the hidden states. Pairs with a large common mean
    should be centred beforehand (`fit_normaliser` on the pool, `normalise`), or the difference
    cancels.
    """

    def one_sign(phi, mean, scale):
        weight = params.weight / scale
        return project(jnp.asarray(phi), weight, precision) - (mean * weight).sum() + params.bias

    return (
        one_sign(pairs.pos, normaliser.mean_pos, normaliser.scale_pos),
        one_sign(pairs.neg, normaliser.mean_neg, normaliser.scale_neg),
    )


def score(probe: LinearProbe, normaliser: Normaliser, pairs: Pairs) -> Float[Array, " n"]:
    """Truth scores [n] of pairs [n, d]: w . phi+' - w . phi-' - offset. Positive reads as true.

    The sign is only meaningful once the probe has been oriented.
    """
    phi = normalise(normaliser, pairs)
    return matmul(phi.pos, probe.weight) - matmul(phi.neg, probe.weight) - probe.offset


def score_folded(probe: LinearProbe, normaliser: Normaliser, pairs: Pairs) -> Float[Array, " n"]:
    """`score` with the normaliser folded into the probe: the same, without a normalised copy.

    Through a `Contrast`, so that probes whose scores are far below the content's keep their digits:
    a late component, or an ensemble of components that are scaled by their variance.
    """
    hidden = contrast(*pairs)
    mean = contrast(normaliser.mean_pos, normaliser.mean_neg)
    near, far = contrast_scales(normaliser)
    near, far = near * probe.weight, far * probe.weight
    constant = matmul(mean.apart, near) + matmul(mean.shared, far) + probe.offset
    return matmul(hidden.apart, near) + matmul(hidden.shared, far) - constant


def combine(probes: LinearProbe, weights: Float[Array, " m"]) -> LinearProbe:
    """The probe whose score is sum_m weights_m * score_m, from m stacked probes.

    The mean of the probes has weights 1 / m.
    """
    return jax.tree.map(lambda leaf: matmul(weights, leaf), probes)


class RawDirections(NamedTuple):
    """A probe in the coordinates of the hidden states, one direction per sign."""

    pos: Float[Array, " d"]
    neg: Float[Array, " d"]
    constant: Float[Array, ""]


def unfold(probe: LinearProbe, normaliser: Normaliser) -> RawDirections:
    """Truth score = pos . phi+ - neg . phi- + constant, on hidden states as the model made them."""
    pos = probe.weight / normaliser.scale_pos
    neg = probe.weight / normaliser.scale_neg
    constant = matmul(normaliser.mean_neg, neg) - matmul(normaliser.mean_pos, pos) - probe.offset
    return RawDirections(pos, neg, constant)
