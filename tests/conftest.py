from collections.abc import Iterator

import jax
import pytest

# A silent [n] + [n, 1] is how a loss becomes an n x n mean.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, so that a tolerance can be about mathematics and not about rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Every compiled program keeps memory maps, and Linux gives a process 65,530 of them."""
    yield
    jax.clear_caches()
