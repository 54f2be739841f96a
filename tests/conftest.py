import os
from collections.abc import Iterator
from pathlib import Path

# Tests compile hundreds of programs and run each for milliseconds: LLVM's optimisations would take
# a third of all time. What is computed stays the same; subprocesses inherit it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

# A silent [n] + [n, 1] is how a loss becomes an n x n mean.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, so that a tolerance can be about mathematics and not about rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> Path:
    """A pocket model with random weights in Hugging Face format; needs the extract extra."""
    from random_pocket import export_random

    return export_random(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Every compiled program keeps memory maps, and Linux gives a process 65,530 of them."""
    yield
    jax.clear_caches()
