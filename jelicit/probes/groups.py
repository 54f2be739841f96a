"""Means of rows over groups of them: paraphrases of one item, or clusters of items."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def group_means(
    values: Float[Array, "n k"], groups: Int[Array, " n"], share: Float[Array, " n"]
) -> Float[Array, "n k"]:
    """Each row's mean over its group, weighted by the row weights.

    Args:
        values: One row each.
        groups: The number of each row's group, below n; negative for a row of no group, which has
            the mean 0.
        share: Row weights; a group without weight has the mean 0.
    """
    n = len(groups)
    place = jnp.where(groups < 0, n, groups)
    total = jax.ops.segment_sum(share[:, None] * values, place, num_segments=n + 1)
    weight = jax.ops.segment_sum(share, place, num_segments=n + 1)
    means = total / jnp.where(weight > 0, weight, 1.0)[:, None]
    return means.at[n].set(0.0)[place]
