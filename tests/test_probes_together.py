"""Methods trained side by side: each probe is the one that it would be by itself."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.probes.ccs import CCS
from jelicit.probes.e2h import E2H
from jelicit.probes.joint import UE_E2H
from jelicit.probes.method import Data, Run
from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import fit_normaliser
from jelicit.probes.supervised import SUPERVISED
from jelicit.probes.sweep import FitStore, SweepData, fitting, sweep
from jelicit.probes.sweep.family import Together, families, side_by_side
from jelicit.probes.together import can_go_together, descend_together
from jelicit.probes.training import BCE_DESCENT, CCS_DESCENT

N, D, E = 60, 12, 40
SIZES = (N, D, E)
TRAINED = ("ccs", "supervised", "ue_e2h")
CONFIG = SweepConfig(
    methods=TRAINED, ccs_steps=90, bce_steps=80, patience=20, bce_learning_rate=0.5
)


@pytest.fixture(scope="module")
def data() -> SweepData:
    hard, labels, _ = planted(N, D, seed=0)
    easy, easy_labels, _ = planted(E, D, seed=1)
    rng = np.random.default_rng(0)
    # Wrong labels, so that the validation loss rises again: otherwise nothing would stop early.
    labels = np.where(rng.random(N) < 0.3, 1 - labels, labels)
    return SweepData(
        hard={2: hard},
        layers=(2,),
        subsets=rng.random((5, N)) < 0.8,
        seeds=np.arange(5),
        hard_targets=labels,
        easy={2: easy},
        easy_labels=easy_labels,
    )


def names(groups) -> list[tuple[str, ...]]:
    return [tuple(name for family in group for name in family.names) for group in groups]


def grouped(data: SweepData, config: SweepConfig, sizes=SIZES) -> list[tuple[str, ...]]:
    return names(side_by_side(families(config), data, config, sizes))


def by_itself(data: SweepData, config: SweepConfig) -> dict:
    return {
        method: sweep(data, dataclasses.replace(config, methods=(method,)))
        for method in config.names
    }


@pytest.mark.parametrize("restarts", [1, 3])
def test_probes_are_those_of_each_method_by_itself(data, restarts):
    config = dataclasses.replace(CONFIG, restarts=restarts)
    assert grouped(data, config) == [TRAINED]
    together, alone = sweep(data, config), by_itself(data, config)
    for method in TRAINED:
        ours, theirs = together.info[method], alone[method].info[method]
        for field in ("steps", "best_step", "passes", "finite"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-4)
        np.testing.assert_allclose(ours.validation_loss, theirs.validation_loss, rtol=1e-4)
        ours, theirs = together.probes[method], alone[method].probes[method]
        np.testing.assert_allclose(ours.weight, theirs.weight, atol=2e-4)
        np.testing.assert_allclose(ours.bias, theirs.bias, atol=2e-4)
    steps = np.asarray(together.info["supervised"].steps)
    assert len(np.unique(steps)) > 1  # runs stop at steps of their own,
    assert steps.min() < 80  # some early


def test_in_double_precision_they_are_the_same_numbers(x64):
    hard, labels, _ = planted(N, D, seed=0)
    easy, easy_labels, _ = planted(E, D, seed=1)
    hard, easy = (jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), p) for p in (hard, easy))
    shared = Data(hard, jnp.asarray(labels), easy, jnp.asarray(easy_labels))
    rows = jnp.asarray(np.random.default_rng(0).random(N) < 0.7, jnp.float64)
    run = Run(jax.random.key(3), rows, fit_normaliser(hard, rows, fitted_on="a run's rows"))
    methods = (CCS, SUPERVISED, UE_E2H, E2H)
    own: list[Any] = [method.settings() for method in methods if method.settings]
    how = [method.trained for method in methods if method.trained]
    problems = [each.problem(run, shared, mine) for each, mine in zip(how, own, strict=True)]
    made = descend_together(problems, {"hard": hard, "easy": easy})
    for method, settings, (probe, info) in zip(methods, own, made, strict=True):
        expected, went = method.fit(run, shared, settings)
        np.testing.assert_allclose(probe.weight, expected.weight, rtol=0, atol=1e-9)
        np.testing.assert_allclose(info.loss, went.loss, rtol=1e-10)
        assert (info.steps, info.best_step) == (went.steps, went.best_step)


def test_hidden_states_are_multiplied_once_for_all(data):
    together, runs = Together(families=tuple(families(CONFIG))), len(data.seeds)
    hard, easy = data.hard[2], data.easy[2]
    shared = Data(
        hard,
        jnp.asarray(data.hard_targets, jnp.float32),
        easy,
        jnp.asarray(data.easy_labels, jnp.float32),
    )
    one = fit_normaliser(hard, fitted_on="a run's rows")
    normalisers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (runs, *leaf.shape)), one)
    program = str(
        fitting.fit_runs.lower(
            *(jnp.arange(runs, dtype=jnp.uint32), jnp.asarray(data.subsets), normalisers),
            *(shared, jnp.asarray(2), together.rates(CONFIG, runs)),
            family=together,
        ).as_text()
    )
    products = [line for line in program.splitlines() if "dot_general" in line]
    # Of either sign: a step's logits and gradients, and the logits of the end.
    for rows in (N, E):
        assert sum(f"tensor<{rows}x{D}xf32>" in line for line in products) == 6
    wide = [line for line in products if f"tensor<{N}x{D}xf32>" in line]
    assert all("x3x" in line for line in wide)  # the three methods side by side


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"bce_steps": 91}, [("ccs", "ue_e2h"), ("supervised",)]),
        ({"methods": ("supervised", "ccs")}, [("supervised", "ccs")]),
        ({"methods": ("supervised", "e2h")}, [("supervised",), ("e2h",)]),
        ({"methods": ("ccs", "pca", "ue_e2h")}, [("ccs", "ue_e2h"), ("pca",)]),
        # Runs that come out alike are made once, and are then not those of the others.
        ({"methods": ("ccs", "e2h")}, [("ccs",), ("e2h",)]),
        ({"weight_decay": np.array([0.1, 0.1, 0.1, 0.2, 0.2])}, [TRAINED]),
    ],
)
def test_what_goes_together(data, changed, expected):
    if "e2h" in changed.get("methods", ()):
        data = dataclasses.replace(data, seeds=np.array([0, 0, 0, 1, 1]))
    assert grouped(data, dataclasses.replace(CONFIG, **changed)) == expected


def test_e2h_goes_along_where_every_run_is_its_own(data):
    config = dataclasses.replace(CONFIG, methods=(*TRAINED, "e2h"))
    assert grouped(data, config) == [(*TRAINED, "e2h")]
    together, alone = sweep(data, config), by_itself(data, config)
    ours, theirs = together.probes["e2h"], alone["e2h"].probes["e2h"]
    np.testing.assert_allclose(ours.weight, theirs.weight, atol=2e-4)


def test_what_does_not_fit_the_memory_budget_is_fitted_one_by_one(data):
    each = families(CONFIG)[0].bytes_each(*SIZES)
    assert grouped(data, dataclasses.replace(CONFIG, memory_budget=3 * each)) == [TRAINED]
    two = dataclasses.replace(CONFIG, memory_budget=3 * each - 1)
    assert grouped(data, two) == [("ccs", "supervised"), ("ue_e2h",)]
    small, whole = sweep(data, two), sweep(data, CONFIG)
    for method in TRAINED:
        np.testing.assert_allclose(
            small.probes[method].weight, whole.probes[method].weight, atol=2e-4
        )


def test_loops_of_other_lengths_are_no_one_loop():
    long = dataclasses.replace(CCS_DESCENT, steps=2000)
    coarse = dataclasses.replace(BCE_DESCENT, precision="bfloat16")
    assert can_go_together([(CCS_DESCENT, False), (BCE_DESCENT, True)])
    assert not can_go_together([(CCS_DESCENT, False), (long, False)])
    assert not can_go_together([(CCS_DESCENT, False), (long, True)])
    assert not can_go_together([(CCS_DESCENT, False), (coarse, True)])
    assert not can_go_together([(BCE_DESCENT, True)])


def test_kept_fits_of_one_are_found_by_all(data):
    store, done = FitStore(None), []
    sweep(data, dataclasses.replace(CONFIG, methods=("supervised",)), store=store)
    sweep(data, CONFIG, store=store, report=lambda *count: done.append(count))
    assert done == [(0, 3), (1, 3), (2, 3), (3, 3)]
    again = []
    sweep(data, CONFIG, store=store, report=lambda *count: again.append(count))
    assert again == [(0, 3), (3, 3)]
