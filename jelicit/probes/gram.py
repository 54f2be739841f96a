"""Gram matrices of many runs of one pool: products of all its rows are made once.

phi+' - phi-' = apart * near + shared * far (see `Contrast`), with near and far a run's own. Where
they are one number for all dimensions, the products of any two rows of a run follow from those of
`apart` and `shared`, which are the pool's.
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jelicit.pairs import Pairs
from jelicit.probes.normalise import contrast, matmul


class PoolGram(NamedTuple):
    """Products of all rows of a pool with each other."""

    apart: Float[Array, "n n"]
    cross: Float[Array, "n n"]
    """apart_i . shared_j + shared_i . apart_j."""
    shared: Float[Array, "n n"]

    def of_run(
        self,
        places: Int[Array, " m"],
        share: Float[Array, " m"],
        scales: tuple[Float[Array, ""], Float[Array, ""]],
    ) -> Float[Array, "m m"]:
        """Gram matrix of a run's differences, centred, each row times the root of its share.

        Args:
            places: The run's rows.
            share: Their weights, which add up to 1.
            scales: near and far.
        """
        near, far = scales

        def among(products: Float[Array, "n n"]) -> Float[Array, "m m"]:
            return products[places][:, places]

        K = near**2 * among(self.apart) + near * far * among(self.cross)
        K += far**2 * among(self.shared)
        for _ in range(2):  # the mean is rounded to its own size
            mean = matmul(share, K)
            K = K - mean[None] - mean[:, None] + matmul(share, mean)
        root = jnp.sqrt(share)
        return root[:, None] * K * root[None]


def gram(A: Float[Array, "q p"], blocks: int = 4) -> Float[Array, "q q"]:
    """A A^T: the blocks below its diagonal, and their mirror."""
    q = len(A)
    ends = [-(-q * block // blocks) for block in range(blocks + 1)]
    lower = [
        jnp.pad(matmul(A[begin:end], A[:end].T), ((0, 0), (0, q - end)))
        for begin, end in pairwise(ends)
    ]
    lower = jnp.tril(jnp.concatenate(lower))
    return lower + jnp.tril(lower, -1).T


@jax.jit
def pool_gram(pairs: Pairs) -> PoolGram:
    """The products of all rows of pairs [n, d], in their precision."""
    apart, shared = contrast(*pairs)
    of_apart, of_shared = gram(apart), gram(shared)
    return PoolGram(of_apart, gram(apart + shared) - of_apart - of_shared, of_shared)


def pays(n: int, d: int, m: int, runs: int) -> bool:
    """Whether the products of a pool of n rows of d are fewer than those of its runs of m rows."""
    return m < d and 3 * n**2 < runs * m**2
