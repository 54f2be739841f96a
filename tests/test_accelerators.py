"""What sweeps, scores and metrics compile can be compiled for GPUs and TPUs, which no test has.

The programs are those of real calls: every jitted function that a call reaches is exported for both
platforms instead of run, and answers with zeros.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.core import Tracer
from planted import planted

from jelicit import calibration, metrics
from jelicit.calibration import Platt
from jelicit.probes.methods import ALL_METHODS, SweepConfig
from jelicit.probes.normalise import Divisor
from jelicit.probes.sweep import SweepData, sweep
from jelicit.probes.sweep.family import families

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = ("cuda", "tpu")
OF_CUDA = re.compile(r"cu(solver|blas|_threefry|_lu)\w*")
OF_TPU = {"Qr", "Eigh", "ProductOfElementaryHouseholderReflectors", "LuDecomposition"}
OF_COMPILER = {"Sharding", "annotate_device_placement"}

RUNS, N, D, E = 2, 30, 20, 16
WIDE = 150
"""Rows and width at which the search for components replaces a whole decomposition."""
MANY = 6
"""Runs for which the products of all rows are fewer than those of each run's."""
LITTLE = 500_000
BY_PCA = ("pca", "pca_ensemble_consensus", "pca_ensemble_e2h")

Program = tuple[str, str, tuple[str, ...], bool]
"""Function, static settings, shapes and dtypes, and whether JAX runs in x64."""


class Exports:
    """StableHLO of programs; they are exported when they are called, once per shape."""

    def __init__(self) -> None:
        self.programs: dict[Program, str] = {}
        self._answers: dict[Program, Callable[[], Any]] = {}

    def of(self, name: str) -> list[str]:
        return [text for (function, *_), text in self.programs.items() if function == name]

    def instead_of(self, name: str, function: Any) -> Callable[..., Any]:
        """What may be called in the place of a jitted function."""

        def call(*args: Any, **settings: Any) -> Any:
            leaves = jax.tree.leaves((args, settings))
            if any(isinstance(leaf, Tracer) for leaf in leaves):
                return function(*args, **settings)
            shapes = [jax.typeof(x) for x in leaves if isinstance(x, np.ndarray | jax.Array)]
            in_x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
            key = (name, str(settings), tuple(map(str, shapes)), in_x64)
            if key not in self.programs:
                made = export.export(function, platforms=PLATFORMS)(*args, **settings)
                self.programs[key] = made.mlir_module()
                self._answers[key] = lambda: jax.tree.unflatten(
                    made.out_tree, [jnp.zeros(leaf.shape, leaf.dtype) for leaf in made.out_avals]
                )
            return self._answers[key]()

        return call


def jitted() -> dict[str, Any]:
    """Every function of the core that is compiled as a whole, by name; the pocket model's apart."""
    kind, functions = type(jax.jit(lambda: 0)), {}
    for file in sorted((ROOT / "jelicit").rglob("*.py")):
        path = file.relative_to(ROOT).with_suffix("")
        if "jax.jit" not in file.read_text(encoding="utf-8") or "pocket" in path.parts:
            continue
        module = importlib.import_module(".".join(path.parts))
        for name, value in vars(module).items():
            if isinstance(value, kind) and value.__module__ == module.__name__:
                functions[f"{module.__name__}.{name}"] = value
    return functions


def data(n: int, d: int, runs: int = RUNS) -> SweepData:
    hard, labels, _ = planted(n, d, seed=0)
    easy, easy_labels, _ = planted(E, d, seed=1)
    subsets = np.random.default_rng(0).random((runs, n)) < 0.8
    subsets[0] |= ~subsets[1]  # every row is in use
    return SweepData(
        hard={3: hard},
        layers=(3,),
        subsets=subsets,
        seeds=np.arange(runs),
        hard_targets=labels,
        easy={3: easy},
        easy_labels=easy_labels,
    )


def config(**changes: Any) -> SweepConfig:
    steps = {"ccs_steps": 3, "bce_steps": 3, "ensemble_size": 6}
    return SweepConfig(**{"methods": ALL_METHODS, **steps, **changes})


def measures(exports: Exports) -> None:
    """Everything that a metric compiles, in whole programs or on its way to one."""
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(RUNS, N)), jnp.float32)
    labels = (np.arange(N) % 3 == 0).astype(np.float32)
    boot = metrics.group_bootstrap(jax.random.key(0), [*map(str, range(N))], 7)
    metrics.auroc(scores, labels)
    metrics.auroc_interval(scores, labels, boot)
    metrics.auroc_samples(scores, labels, boot)
    metrics.accuracy_interval(scores, labels, boot)
    by_run = (scores, jnp.broadcast_to(labels, scores.shape), jnp.ones_like(scores))
    calibration._newton(*(each[0] for each in by_run))
    unit = Platt(scores[:, 0], scores[:, 1])
    plain: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "platt": (jax.vmap(lambda *run: calibration._newton(*run)), by_run),
        "accuracy": (metrics.accuracy, (scores, labels)),
        "orient": (metrics.orient, (scores, labels)),
        "salience": (metrics.salience, (scores.T, labels[:RUNS].repeat(N // RUNS))),
        "variance_share": (lambda own: metrics.variance_share(own, labels == 1), (scores,)),
        "variance_share_interval": (
            lambda own, weights: metrics.variance_share_interval(own, labels == 1, weights),
            (scores, boot),
        ),
        "probability": (lambda own: unit.probability(own), (scores,)),
    }
    for name, (function, args) in plain.items():
        exports.instead_of(name, jax.jit(function))(*args)


def all_exports() -> Exports:
    exports = Exports()
    with pytest.MonkeyPatch.context() as patch:
        for name, function in jitted().items():
            module, _, own = name.rpartition(".")
            instead = exports.instead_of(name, function)
            patch.setattr(importlib.import_module(module), own, instead)
        small = data(N, D)
        assert not callable(small.hard)
        sweep(small, config()).score(3, small.hard[3])
        for alone in ("ccs", "supervised", "ue_e2h"):  # in the whole sweep they are one program
            sweep(small, config(methods=(alone,)))
        wide = config(methods=BY_PCA, scale_by_variance=True)
        for runs in (RUNS, MANY):
            sweep(data(WIDE, WIDE + 5, runs), wide)
        # Too little memory for copies of rows.
        sweep(data(WIDE, WIDE + 5), dataclasses.replace(wide, memory_budget=LITTLE))
        for precision in ("tf32", "bfloat16"):
            sweep(small, config(methods=("ccs",), precision=precision))
        for divisor in get_args(Divisor):
            sweep(small, config(methods=("random",), divisor=divisor))
        measures(exports)
    return exports


@pytest.fixture(scope="module")
def exports() -> Exports:
    return all_exports()


def custom_calls(program: str) -> set[str]:
    return set(re.findall(r"custom_call @([\w.$]+)", program))


def strangers(program: str) -> set[str]:
    """Custom calls of a program that neither CUDA nor TPUs have."""
    calls = custom_calls(program) - OF_TPU - OF_COMPILER
    return {call for call in calls if not OF_CUDA.fullmatch(call)}


def test_every_jitted_function_of_the_core_is_exported(exports):
    assert jitted().keys() <= {function for function, *_ in exports.programs}


def test_every_family_and_divisor_is_among_the_programs(exports):
    fits = [
        program for program in exports.programs if program[0].endswith("sweep.fitting.fit_runs")
    ]
    by_pca = families(config(methods=BY_PCA))
    for wanted in (*families(config()), *by_pca):
        names = [f"name={name!r}" for name in wanted.names]
        assert any(all(name in settings for name in names) for _, settings, *_ in fits), names
    # CCS at two precisions more; PCA with copies of rows, with products of all, and with neither.
    assert len(fits) >= len(families(config())) + len(by_pca) + 2 + 2
    divided = [settings for name, settings, *_ in exports.programs if name.endswith("normalisers")]
    assert all(any(divisor in settings for settings in divided) for divisor in get_args(Divisor))


def test_no_program_calls_what_only_a_cpu_has(exports):
    for (name, *_), program in exports.programs.items():
        assert not strangers(program), name
    # What such a call looks like.
    on_cpu = export.export(jax.jit(jnp.linalg.qr), platforms=["cpu"])(jnp.ones((3, 3)))
    assert strangers(on_cpu.mlir_module())


def test_only_programs_of_methods_in_float64_have_it(exports):
    """Those are not run on TPUs, which lack it; see `jelicit.probes.sweep.devices`."""
    for (name, settings, _, in_x64), program in exports.programs.items():
        assert ("f64" in program) == in_x64, name
        shared = name.rpartition(".")[0].endswith(("prepare", "gram"))
        assert not in_x64 or shared or "double=True" in settings


def test_products_ask_for_all_digits(exports):
    """Else a GPU rounds to TF32, and a TPU to bfloat16."""
    for (name, settings, *_), program in exports.programs.items():
        if "precision='tf32'" in settings or "precision='bfloat16'" in settings:
            continue
        products = re.findall(r"stablehlo.dot_general.*", program)
        assert all("HIGHEST" in line for line in products), (name, products)
