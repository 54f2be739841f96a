import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

# Tests compile hundreds of programs and run each for milliseconds, so the compiler is asked for
# quick work rather than quick programs, in subprocesses too: that halves the time of the suite.
# Rounding differs, nothing else. Another version may not know these flags, and XLA ends the
# process at one that it does not know.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", QUICK_TO_COMPILE)

# One thread a worker: there are as many workers as a small machine has cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# JAX makes millions of objects while it traces, few of them in cycles: with Python's own thresholds
# a fifth of the suite's time goes into looking for those.
gc.set_threshold(100_000, 50, 1_000)

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
    gc.collect()


LEFT_OUT = ("slow", "campaign")
"""Markers of tests that run where they are asked for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what has one of these markers, unless -m speaks of it or a test is named."""
    quiet = [marker for marker in LEFT_OUT if marker not in config.option.markexpr]
    left_out = [
        item
        for item in items
        if any(map(item.get_closest_marker, quiet)) and not _named(item, config.args)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _named(item: pytest.Item, words: list[str]) -> bool:
    """Whether a word of the command line names this very test, and not its file alone."""
    own = item.nodeid.partition("::")[2]
    names = [name for word in words if (name := word.partition("::")[2])]
    return any(own == name or own.startswith((f"{name}[", f"{name}::")) for name in names)


def pytest_collection_finish() -> None:
    """What is imported by now stays; no collection has to look at it again."""
    gc.collect()
    gc.freeze()
