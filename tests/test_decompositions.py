"""Decompositions under `vmap`: the same numbers, and on a CPU no batched call of LAPACK."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jelicit.probes.decompositions import eigh, qr, qr_factor, singular

ROOT = Path(__file__).resolve().parents[1]
WIDE = np.random.default_rng(0).normal(size=(3, 2, 7, 5)).astype(np.float32)
SQUARE = WIDE @ WIDE.swapaxes(-1, -2)
CASES = {"eigh": (eigh, SQUARE), "qr": (qr, WIDE), "r": (qr_factor, WIDE), "svd": (singular, WIDE)}


def test_one_matrix_and_many_are_decomposed_alike():
    for decompose, every in CASES.values():
        alone = [[decompose(jnp.asarray(A)) for A in row] for row in every]
        expected = jax.tree.map(
            lambda *rows: np.stack(rows),
            *[jax.tree.map(lambda *cells: np.stack(cells), *row) for row in alone],
        )
        found = jax.jit(jax.vmap(jax.vmap(decompose)))(every)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_they_are_numpys():
    A, S = WIDE[0, 0], SQUARE[0, 0]
    values, vectors = eigh(jnp.asarray(S))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(S), atol=1e-4)
    np.testing.assert_allclose(S @ np.asarray(vectors), vectors * values[None], atol=1e-4)
    across, factor = qr(jnp.asarray(A))
    np.testing.assert_allclose(across @ factor, A, atol=1e-5)
    np.testing.assert_allclose(np.triu(factor), factor)
    np.testing.assert_allclose(np.abs(qr_factor(jnp.asarray(A))), np.abs(factor), atol=1e-5)
    values, rows = singular(jnp.asarray(A))
    np.testing.assert_allclose(values, np.linalg.svd(A, compute_uv=False), atol=1e-5)
    np.testing.assert_allclose(np.abs(rows), np.abs(np.linalg.svd(A)[2]), atol=1e-4)


def lapack_operands(function: Callable[..., Any], *args: np.ndarray) -> list[str]:
    """Shapes of the matrices that the CPU program of a function hands to LAPACK."""
    text = export.export(jax.jit(function), platforms=["cpu"])(*args).mlir_module()
    calls = re.findall(r"custom_call @lapack_\w+\(.*?: \(tensor<([\dx]+)xf", text)
    assert calls, "the program decomposes nothing"
    return calls


@pytest.mark.parametrize("name", CASES)
def test_a_cpu_is_given_one_matrix_at_a_time(name):
    """Batched calls that meet in one program wait for each other's threads for ever."""
    decompose, every = CASES[name]
    assert all(shape.count("x") == 1 for shape in lapack_operands(jax.vmap(decompose), every[0]))
    both = jax.vmap(jax.vmap(decompose))
    assert all(shape.count("x") == 1 for shape in lapack_operands(both, every))
    # As JAX does it by itself, a call has the whole batch.
    batched = lapack_operands(jax.vmap(lambda A: jnp.linalg.qr(A)), every[0])
    assert any(shape.count("x") == 2 for shape in batched)


def test_the_core_calls_lapack_nowhere_else():
    calls = re.compile(
        r"linalg\.(eig\w*|qr|svd\w*|solve\w*|inv|pinv|cholesky|lstsq|det|expm)\(|cho_"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "jelicit").rglob("*.py"))
        if path.name != "decompositions.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if calls.search(line) and "np.linalg" not in line.replace("jnp.linalg", "")
    ]
    assert found == []
