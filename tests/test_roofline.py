"""Operations and bytes of the manual's predictions are those that XLA counts in the programs."""

import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from experiment_scripts import DOCS, script
from planted import planted

from jelicit import metrics
from jelicit.pairs import Pairs
from jelicit.probes.method import Data
from jelicit.probes.methods import METHODS, SweepConfig
from jelicit.probes.sweep import fitting, prepare
from jelicit.probes.sweep.family import Family, families

# Large enough for the products to be nearly all there is, and for PCA to take a Krylov space.
N, E, D, RUNS = 640, 320, 256, 6
CONFIG = SweepConfig(methods=METHODS, ensemble_size=24)


@pytest.fixture(scope="module")
def roofline() -> Iterator[ModuleType]:
    with script("roofline", DOCS) as module:
        yield module


@functools.cache
def xla_counts(family: Family) -> dict[str, float]:
    """XLA's own cost analysis of a family's program, before any fusion."""
    dtype = jnp.float64 if family.double else jnp.float32
    with jax.enable_x64(family.double):
        hard, labels, _ = planted(N, D, seed=0)
        easy, easy_labels, _ = planted(E, D, seed=1)
        hard, easy = (
            Pairs(*(jnp.asarray(side, dtype) for side in pairs)) for pairs in (hard, easy)
        )
        data = Data(hard, jnp.asarray(labels, dtype), easy, jnp.asarray(easy_labels, dtype))
        rows = jnp.ones((RUNS, N), bool)
        normalisers = prepare.run_normalisers.eval_shape(hard, rows * 1.0, divisor="paper")
        lowered = fitting.fit_runs.lower(
            *(jnp.arange(RUNS, dtype=jnp.uint32), rows, normalisers),
            *(data.only(family.needs), jnp.asarray(0), family.rates(CONFIG, RUNS), None),
            jnp.broadcast_to(jnp.arange(N), (RUNS, N)) if family.copies else None,
            family=family,
        )
        found: Any = lowered.cost_analysis()
    return found


def ranking() -> float:
    """Operations of the members' AUROC on the easy set: sorts and running sums, no products."""
    members = jnp.ones((RUNS * CONFIG.ensemble_size, E))
    counts: Any = metrics._auroc.lower(members, members[0], members).cost_analysis()
    return counts["flops"]


@pytest.mark.parametrize("family", families(CONFIG), ids=lambda family: family.names[0])
def test_operations_are_xlas(roofline, family):
    sizes = roofline.Sizes(n=N, e=E, d=D, m=N)
    parts = roofline.parts_of(family, sizes, RUNS, CONFIG)
    ours = sum(part.written * part.operations for part in parts if part.seen)
    theirs = xla_counts(family)["flops"]
    if any(name.endswith("ensemble_e2h") for name in family.names):
        theirs -= ranking()
    if not parts:
        # Random probes read no hidden state: they are less than one product of one run with it.
        assert theirs < 2 * N * D
        return
    # XLA counts what is done to single numbers as well.
    assert ours <= theirs <= 1.15 * ours


@pytest.mark.parametrize("family", families(CONFIG)[1:], ids=lambda family: family.names[0])
def test_bytes_are_no_more_than_xla_moves(roofline, family):
    parts = roofline.parts_of(family, roofline.Sizes(n=N, e=E, d=D, m=N), RUNS, CONFIG)
    ours = sum(part.written * part.bytes for part in parts if part.seen)
    assert 0 < ours <= xla_counts(family)["bytes accessed"]


def test_a_step_of_the_papers_sweep_is_what_its_floor_says(roofline):
    parts = {
        family.names[0]: (family, roofline.parts_of(family, sizes(roofline), 39, SweepConfig()))
        for family in families(SweepConfig(methods=("ccs", "ue_e2h")))
    }
    _, [steps, end] = parts["ccs"]
    # 39 runs over the pool of 4,000: 5.1 GFLOP a step.
    assert steps.operations == pytest.approx(5.11e9, rel=1e-3)
    assert (steps.turns, end.turns) == (1000, 1)
    cores = roofline.MACHINES[-1]
    assert roofline.seconds([steps], cores, double=False) == pytest.approx(28.1, rel=0.01)
    assert parts["ue_e2h"][1][0].operations == 1.5 * steps.operations


def sizes(roofline: ModuleType):
    return roofline.Sizes(n=roofline.POOL, e=roofline.EASY, d=roofline.WIDTH, m=roofline.TRAINED)


def test_time_is_that_of_the_scarcer_thing(roofline):
    machine = roofline.Machine(name="m", single=10.0, double=5.0, bandwidth=2.0)
    computes = roofline.Part(operations=100.0, bytes=2.0, turns=3)
    waits = roofline.Part(operations=1.0, bytes=8.0)
    assert roofline.seconds([computes, waits], machine, double=False) == 3 * 10 + 4
    assert roofline.seconds([computes], machine, double=True) == 3 * 20
    no_double = roofline.Machine(name="t", single=10.0, double=None, bandwidth=2.0)
    assert roofline.seconds([computes], no_double, double=True) is None


def test_what_is_not_counted_is_refused(roofline):
    [lda] = families(SweepConfig(methods=("lda",)))
    with pytest.raises(ValueError, match=r"operations of \('lda',\) are not counted"):
        roofline.parts_of(lda, sizes(roofline), 1, SweepConfig())


def test_runs_that_come_out_alike_are_counted_once(roofline):
    data = roofline.paper_sweep()
    assert data.subsets.shape == (39, roofline.POOL)
    assert (data.subsets.sum(axis=1) == roofline.TRAINED).all()
    text = roofline.predictions()
    rows = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines()}
    assert rows["CCS"][2].strip() == "39"
    assert rows["E2H"][2].strip() == "3"
    assert float(rows["CCS"][3]) == 5.1
