"""Dense decompositions that may be batched without risk of a deadlock on a CPU.

The CPU's LAPACK calls of JAX (seen in jaxlib 0.10.2) share a batch out to the pool of threads that
runs the program, and wait for it on one of these threads. Where a program comes to as many batched
calls at once as there are threads, all of them wait and none is left to work: the fit stands still
for ever, at two cores within minutes. A call of one matrix is done where it is, so on a CPU `vmap`
goes through its matrices one after another here; elsewhere the batched call is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _one_by_one(decompose: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """A decomposition of one matrix that under `vmap` runs as the platform can stand it."""

    @jax.custom_batching.custom_vmap
    def alone(A: Array) -> Any:
        return decompose(A)

    @alone.def_vmap
    def batched(size: int, in_batched: list[bool], A: Array) -> tuple[Any, Any]:
        del size, in_batched  # there is one argument, so it is what is batched
        found = jax.lax.platform_dependent(
            A, cpu=lambda A: jax.lax.map(alone, A), default=decompose
        )
        return found, jax.tree.map(lambda _: True, found)

    return alone


def _eigh(A: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(A, symmetrize_input=False)
    return values, vectors


def _qr(A: Array) -> tuple[Array, Array]:
    across, factor = jnp.linalg.qr(A)
    return across, factor


def _svd(A: Array) -> tuple[Array, Array]:
    _, values, rows = jnp.linalg.svd(A, full_matrices=False)
    return values, rows


_of_eigh, _of_qr, _of_svd = map(_one_by_one, (_eigh, _qr, _svd))
_of_factor = _one_by_one(lambda A: jnp.linalg.qr(A, mode="r"))


def eigh(A: Float[Array, "q q"]) -> tuple[Float[Array, " q"], Float[Array, "q q"]]:
    """Eigenvalues, rising, and eigenvectors (columns) of a symmetric matrix; its lower half."""
    return _of_eigh(A)


def qr(A: Float[Array, "m n"]) -> tuple[Float[Array, "m k"], Float[Array, "k n"]]:
    """Orthonormal columns and an upper triangular factor, k = min(m, n)."""
    return _of_qr(A)


def qr_factor(A: Float[Array, "m n"]) -> Float[Array, "k n"]:
    """The upper triangular factor alone."""
    return _of_factor(A)


def singular(A: Float[Array, "m n"]) -> tuple[Float[Array, " k"], Float[Array, "k n"]]:
    """Singular values, falling, and right singular vectors (rows)."""
    return _of_svd(A)
