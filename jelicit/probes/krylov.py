"""Block Krylov spaces of symmetric operators that are never built: what searches share.

Such an operator is known by its products alone, which touch the hidden states through matmuls, so
that many subsets of one pool share them.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.probes.decompositions import qr
from jelicit.probes.normalise import matmul


@runtime_checkable
class Rows(Protocol):
    """What makes the operator S = (gather after project)."""

    def project(self, V: Float[Array, "d k"]) -> Float[Array, "n k"]:
        """Images of vectors among the rows."""
        ...

    def gather(self, U: Float[Array, "n k"]) -> Float[Array, "d k"]:
        """S V from the images of V."""
        ...

    def variance(self) -> Float[Array, ""]:
        """How large S is: what is below the square of rounding of it is nothing."""
        ...


class Space(NamedTuple):
    """A block Krylov space of S."""

    basis: Float[Array, "d k"]
    """Orthonormal columns Q."""
    image: Float[Array, "n k"]
    """Images of Q."""
    block: Float[Array, "d w"]
    """Where it would go on: orthonormal, and orthogonal to the basis."""
    coupling: Float[Array, "w w"]
    """S Q = Q (...) + block coupling (last w rows of the identity)."""


class Shape(NamedTuple):
    """Sizes of the search for `wanted` components."""

    wanted: int
    kept: int
    """Vectors carried over a restart."""
    width: int
    total: int
    """Columns of a whole space."""

    @classmethod
    def of(cls, count: int) -> "Shape":
        """Sizes that suit so many components."""
        width = min(max(8, count // 8), 32)
        # Some vectors more than wanted: the error then falls with the ratio to the first left out.
        kept = count + max(8, count // 8)
        total = max(96, 4 * count)
        return cls(count, kept, width, -(-total // width) * width)


def first_block(size: int, width: int, dtype) -> Float[Array, "d w"]:
    """Orthonormal columns that a space begins with.

    Any that are not orthogonal to the answer lead to it: the draw is part of the algorithm, not of
    the experiment, so it has a fixed key.
    """
    return qr(jax.random.normal(jax.random.key(0), (size, width), dtype))[0]


def settled(
    residual: Float[Array, " k"], share: Float[Array, " k"], rounding: Float[Array, " k"]
) -> Bool[Array, ""]:
    """Whether errors are small enough: of the first vector about rounding, of the others little.

    That is: some rounding, or a small share of their own eigenvalue. Vectors inside the space do
    not mix at that. NaN is settled, so that searches end.

    Args:
        residual: of each vector, relative to the first eigenvalue.
        share: each eigenvalue, relative to the first.
        rounding: what one product leaves of it, in the same way.
    """
    eps = float(jnp.finfo(share.dtype).eps)
    # In float64 it ends short of rounding: what is left turns the sign of no score.
    of_first, of_others = (20 * eps, 1e-3) if share.dtype == jnp.float32 else (1e-12, 1e-7)
    allowed = jnp.maximum(20 * rounding, of_others * share).at[0].set(of_first)
    return ~(residual > allowed).any()


def extended(
    rows: Rows,
    basis: Float[Array, "d k"],
    image: Float[Array, "n k"],
    block: Float[Array, "d w"],
    blocks: int,
) -> Space:
    """The space of a basis with its image, and `blocks` blocks more."""
    start, width = basis.shape[1], block.shape[1]
    room = [(0, 0), (0, blocks * width)]
    basis, image = jnp.pad(basis, room), jnp.pad(image, room)

    def step(carry, place):
        basis, image, block, _ = carry
        basis = jax.lax.dynamic_update_slice_in_dim(basis, block, place, axis=1)
        own = rows.project(block)
        image = jax.lax.dynamic_update_slice_in_dim(image, own, place, axis=1)
        fresh = jax.random.normal(jax.random.key(place), block.shape, block.dtype)
        block, coupling = _orthonormal(rows.gather(own), basis, fresh, least)
        return (basis, image, block, coupling), None

    begin = (basis, image, block, jnp.zeros((width, width), basis.dtype))
    least = jnp.finfo(basis.dtype).eps ** 2 * rows.variance()
    places = start + width * jnp.arange(blocks)
    return Space(*jax.lax.scan(step, begin, places)[0])


def _orthonormal(
    block: Float[Array, "d w"],
    basis: Float[Array, "d k"],
    fresh: Float[Array, "d w"],
    least: Float[Array, ""],
) -> tuple[Float[Array, "d w"], Float[Array, "w w"]]:
    """(F, r) with F r = what of a block is orthogonal to the basis, F orthonormal.

    Where that is below `least`, the basis spans all the rows do: F comes from `fresh` draws then.
    Rounding of rounding, ever smaller, would end in directions that the basis already has.
    """
    block = block - matmul(basis, matmul(basis.T, block))
    size = jnp.abs(block).max()
    ended = size <= least
    # NaN stays, and is told of.
    block = jnp.where(ended, fresh, block / jnp.where(ended, 1.0, size))
    coupling = jnp.where(ended, 0.0, size) * jnp.eye(block.shape[1], dtype=block.dtype)
    # Twice more: what is left of a block that lies in the basis is rounding, and is made a
    # direction of its own, orthogonal to the basis only after another pass.
    for _ in range(2):
        block, factor = qr(block)
        coupling = matmul(factor, coupling)
        block = block - matmul(basis, matmul(basis.T, block))
    block, factor = qr(block)
    return block, matmul(factor, coupling)


def signed_units(V: Float[Array, "d k"], present: Bool[Array, " k"]) -> Float[Array, "d k"]:
    """Columns of length 1 whose largest loading is positive; zero where there is no component."""
    return V * unit_factors(V, present)[None]


def unit_factors(V: Float[Array, "d k"], present: Bool[Array, " k"]) -> Float[Array, " k"]:
    """What makes columns `signed_units`: they are multiplied by it.

    As NumPy's argmax has it, the first of several equal loadings decides.
    """
    largest = jnp.take_along_axis(V, jnp.abs(V).argmax(axis=0)[None], axis=0)[0]
    length = jnp.where(present, jnp.linalg.norm(V, axis=0) * jnp.sign(largest), 1.0)
    return jnp.where(present, 1 / length, 0.0)
