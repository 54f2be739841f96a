"""Leading eigenpairs of a symmetric matrix: block Lanczos without restarts, or all at once.

A tenth of the eigenpairs of a large matrix, of which none stands apart, takes a Krylov space of
nearly half its size. That costs a fraction of a whole decomposition, and almost all of it in
products; restarts, which keep the space small, would make it grow again and again.
"""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jelicit.probes.decompositions import eigh, qr
from jelicit.probes.krylov import first_block, settled
from jelicit.probes.normalise import matmul

WIDTH = 8
"""Columns of a block: fewer make a smaller space do, and products of fewer wait for memory."""
WHOLE = 0.3
"""A space of more than this share of the matrix costs more than a whole decomposition: of 2,000
rows on a CPU, 0.36 s for 384 columns, 1.5 s for 896, 0.83 s for all."""


class Eigenpairs(NamedTuple):
    """The leading eigenpairs of K, by falling eigenvalue."""

    values: Float[Array, " k"]
    vectors: Float[Array, "q k"]
    residual: Float[Array, " k"]
    """||K v - lambda v|| / lambda_1."""
    steps: Int[Array, ""]
    """How often the space was made larger; 0 too where all was decomposed at once."""


class _Space(NamedTuple):
    """K Q = Q T + block coupling (last w rows of the identity)."""

    basis: Float[Array, "q t"]
    """Orthonormal columns Q."""
    inner: Float[Array, "t t"]
    """T = Q^T K Q, its upper triangle."""
    block: Float[Array, "q w"]
    """Where the space goes on: orthonormal, and orthogonal to the basis."""
    coupling: Float[Array, "w w"]


def space_sizes(q: int, count: int, max_steps: int) -> list[int]:
    """Columns of the spaces that are tried one after another; q stands for all at once."""
    unit = -(-max(count, 32) // WIDTH) * WIDTH
    # Each further size costs another eigendecomposition.
    sizes = [(3 + 4 * step) * unit for step in range(max_steps + 1)]
    fitting = [size for size in sizes if size <= WHOLE * q]
    return fitting + [q] * (len(fitting) < len(sizes))


def leading_eigenpairs(K: Float[Array, "q q"], count: int, *, max_steps: int) -> Eigenpairs:
    """The `count` algebraically largest eigenvalues of a symmetric matrix, and their vectors.

    The space grows until all errors are small enough; see `settled`. Eigenvalues below rounding of
    the first one are rounding, and so are their vectors.

    Args:
        K: symmetric, positive semidefinite up to rounding.
        count: how many.
        max_steps: how often the space may be made larger. Where it would come near the whole
            matrix, that is decomposed instead.
    """
    q, sizes = len(K), space_sizes(len(K), count, max_steps)
    if sizes[0] == q:
        return _whole(K, count, 0)
    space = _extended(K, _begin(q, K.dtype), 0, sizes[0])
    now = space, _ritz(space, count, 0)
    for step, (small, large) in enumerate(pairwise(sizes), 1):
        now = _grown(K, *now, step=step, small=small, large=large)
    return now[1]


def _grown(
    K: Float[Array, "q q"], space: _Space, found: Eigenpairs, *, step: int, small: int, large: int
) -> tuple[_Space, Eigenpairs]:
    """The search after a space of `small` columns, or where that does not do, of `large`."""
    count, whole = len(found.values), large == len(K)

    def unsettled(now: tuple[_Space, Eigenpairs]) -> Array:
        # At most one turn: under `jax.vmap` a branch would be taken in any case.
        return (now[1].steps < step) & _unsettled(now[1])

    def larger(now: tuple[_Space, Eigenpairs]) -> tuple[_Space, Eigenpairs]:
        if whole:
            return now[0], _whole(K, count, step)
        space = _extended(K, now[0], small, large)
        return space, _ritz(space, count, step)

    space = space if whole else _with_room(space, large)
    return jax.lax.while_loop(unsettled, larger, (space, found))


def _unsettled(found: Eigenpairs) -> Array:
    share = found.values / _largest(found.values)
    # Products round to eps of the first eigenvalue.
    rounding = jnp.finfo(share.dtype).eps * jnp.ones_like(share)
    return ~settled(found.residual, share, rounding)


def _largest(values: Float[Array, " k"]) -> Float[Array, ""]:
    return jnp.maximum(values[0], jnp.finfo(values.dtype).tiny)


def _whole(K: Float[Array, "q q"], count: int, step: int) -> Eigenpairs:
    """All eigenpairs, of which the leading ones."""
    values, vectors = eigh(K)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    error = jnp.linalg.norm(matmul(K, vectors) - vectors * values[None], axis=0)
    return Eigenpairs(values, vectors, error / _largest(values), jnp.asarray(step))


def _ritz(space: _Space, count: int, step: int) -> Eigenpairs:
    """The leading eigenpairs within a space (Rayleigh and Ritz)."""
    inner = jnp.triu(space.inner) + jnp.triu(space.inner, 1).T
    values, rotation = eigh(inner)
    values, rotation = values[::-1][:count], rotation[:, ::-1][:, :count]
    error = jnp.linalg.norm(matmul(space.coupling, rotation[-WIDTH:]), axis=0)
    vectors = matmul(space.basis, rotation)
    return Eigenpairs(values, vectors, error / _largest(values), jnp.asarray(step))


def _begin(q: int, dtype) -> _Space:
    """An empty space."""
    none = jnp.zeros((q, 0), dtype), jnp.zeros((0, 0), dtype)
    return _Space(*none, first_block(q, WIDTH, dtype), jnp.zeros((WIDTH, WIDTH), dtype))


def _with_room(space: _Space, size: int) -> _Space:
    """A space with columns of zeros up to a size."""
    more = size - len(space.inner)
    basis = jnp.pad(space.basis, ((0, 0), (0, more)))
    return space._replace(basis=basis, inner=jnp.pad(space.inner, ((0, more), (0, more))))


def _extended(K: Float[Array, "q q"], space: _Space, small: int, large: int) -> _Space:
    """The space with columns from `small` to `large`; all later ones are zero."""

    def step(now: _Space, place: Int[Array, ""]) -> tuple[_Space, None]:
        basis = jax.lax.dynamic_update_slice_in_dim(now.basis, now.block, place, axis=1)
        image = matmul(K, now.block)
        column = matmul(basis.T, image)
        inner = jax.lax.dynamic_update_slice_in_dim(now.inner, column, place, axis=1)
        rest = image - matmul(basis, column)
        block, coupling = _orthonormal(rest, basis, jnp.linalg.norm(image, axis=0).max())
        return _Space(basis, inner, block, coupling), None

    return jax.lax.scan(step, _with_room(space, large), jnp.arange(small, large, WIDTH))[0]


def _orthonormal(
    rest: Float[Array, "q w"], basis: Float[Array, "q t"], size: Float[Array, ""]
) -> tuple[Float[Array, "q w"], Float[Array, "w w"]]:
    """(F, r) with F r = a block from which the basis was taken, F orthonormal and orthogonal to it.

    What is left of a block that lies almost in the basis is rounding, which the basis has a part
    in: it is taken off again until the rest keeps its length (Daniel et al. 1976).
    """

    def shortest(factor: Float[Array, "w w"], length: Float[Array, ""]) -> Array:
        return jnp.abs(jnp.diagonal(factor)).min() / jnp.where(length > 0, length, 1.0)

    def again(now):
        block, coupling, _, turn = now
        block, factor = qr(block - matmul(basis, matmul(basis.T, block)))
        kept = shortest(factor, jnp.ones((), factor.dtype))
        return block, matmul(factor, coupling), kept, turn + 1

    block, coupling = qr(rest)
    begin = (block, coupling, shortest(coupling, size), jnp.asarray(0))
    return jax.lax.while_loop(lambda now: (now[2] < 0.5) & (now[3] < 3), again, begin)[:2]
