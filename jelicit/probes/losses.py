"""The two losses that probes are trained on, from the logits of both signs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.probes.normalise import matmul


def weighted_mean(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, ""]:
    """sum_i w_i v_i / sum_i w_i. Weights of 0 and 1 give the mean over the chosen rows."""
    return matmul(weights, values) / weights.sum()


def ccs_loss(
    pos: Float[Array, " n"], neg: Float[Array, " n"], weights: Float[Array, " n"]
) -> Float[Array, ""]:
    """mean[(p+ + p- - 1)^2 + min(p+, p-)^2], p = sigmoid(logit) (Burns et al. 2022, eq. 1-3).

    The first term asks that a claim and its denial have probabilities that add to one, the second
    that one of them is sure.
    """
    p, q = jax.nn.sigmoid(pos), jax.nn.sigmoid(neg)
    return weighted_mean((p + q - 1) ** 2 + jnp.minimum(p, q) ** 2, weights)


def bce_loss(
    pos: Float[Array, " n"],
    neg: Float[Array, " n"],
    targets: Float[Array, " n"],
    weights: Float[Array, " n"],
) -> Float[Array, ""]:
    """Binary cross-entropy over the 2n rows phi+ with target y and phi- with target 1 - y.

    Targets may lie anywhere in [0, 1]; an item without a truth value has 0.5.
    """
    # -y log p - (1 - y) log(1 - p) = softplus(s) - y s, which never overflows. optax's
    # sigmoid_binary_cross_entropy takes a logarithm for either label: the line search of L-BFGS,
    # which evaluates losses and nothing else, would take almost twice as long.
    per_item = jax.nn.softplus(pos) - targets * pos + jax.nn.softplus(neg) - (1 - targets) * neg
    return weighted_mean(per_item, weights) / 2
