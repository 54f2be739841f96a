"""Rates per run, and units of work: what a fit depends on, kept, resumed and shared by hosts."""

import dataclasses
import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from planted import planted

from jelicit.pairs import Pairs
from jelicit.probes.methods import PAPER, PEERS, RATES, SweepConfig
from jelicit.probes.sweep import SweepData, SweepResult, check_config, fitting, sweep
from jelicit.probes.sweep import sweeping as module
from jelicit.probes.sweep.family import families
from jelicit.probes.sweep.fitstore import FitStore

# Tests of the field's proposals have a file of their own.
CORE = (*PAPER, *PEERS)

TESTS = Path(__file__).resolve().parent
N, D, E = 60, 12, 40
CONFIG = SweepConfig(
    methods=CORE,
    ccs_steps=30,
    bce_steps=150,
    patience=60,
    bce_learning_rate=0.5,
    ensemble_size=6,
)


def data(runs: int = 4, layers: tuple[int, ...] = (2,)) -> SweepData:
    hard, labels, _ = planted(N, D, seed=0)
    easy, easy_labels, _ = planted(E, D, seed=1)
    rng = np.random.default_rng(0)
    subsets = rng.random((runs, N)) < 0.8
    # Wrong labels, so that the validation loss rises again: otherwise nothing would stop early.
    labels, easy_labels = (
        np.where(rng.random(len(y)) < 0.3, 1 - y, y) for y in (labels, easy_labels)
    )
    return SweepData(
        hard=dict.fromkeys(layers, hard),
        layers=layers,
        subsets=subsets,
        seeds=np.arange(runs),
        hard_targets=labels,
        easy=dict.fromkeys(layers, easy),
        easy_labels=easy_labels,
    )


def weights(result: SweepResult) -> dict[str, np.ndarray]:
    return {method: np.asarray(probe.weight) for method, probe in result.probes.items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    return weights(sweep(data(), CONFIG))


OTHERS = {
    "ccs_learning_rate": 0.02,
    "bce_learning_rate": 0.01,
    "validation_share": 0.4,
    "weight_decay": 0.5,
    "max_gradient_norm": 0.01,
    "easy_share": 0.2,
    "temperature": 1.0,
    "lda_shrinkage": 0.9,
    "ccs_steps": 10,
    "bce_steps": 5,
    "patience": 1,
    "restarts": 3,
    "ensemble_size": 3,
    "scale_by_variance": True,
    "precision": "bfloat16",
    "divisor": "norm",
}


@pytest.mark.slow
def test_a_divisor_per_dimension_makes_fits_blind_to_the_scale_of_each():
    base = data()
    gain = np.exp(np.random.default_rng(3).normal(size=D)).astype(np.float32)
    hard, easy = base.hard[2], base.easy[2]  # type: ignore[index]
    scaled = dataclasses.replace(
        base,
        hard={2: hard._replace(pos=hard.pos * gain, neg=hard.neg * gain)},
        easy={2: easy._replace(pos=easy.pos * gain, neg=easy.neg * gain)},
    )
    config = dataclasses.replace(CONFIG, divisor="std")
    one, other = (
        sweep(d, config).score(2, d.hard[2])  # type: ignore[index]
        for d in (base, scaled)
    )
    for method in CORE:
        spread = float(np.std(one[method]))
        np.testing.assert_allclose(other[method], one[method], atol=2e-3 * spread, err_msg=method)


@pytest.mark.parametrize("setting", list(OTHERS))
def test_a_family_reads_the_settings_that_change_its_fits_and_no_others(setting, plain):
    config = dataclasses.replace(CONFIG, **{setting: OTHERS[setting]})
    found = weights(sweep(data(), config))
    changed = {m for m in CORE if not np.array_equal(found[m], plain[m])}
    reading = {
        method
        for family in families(config)
        for method in family.names
        if setting in family.reads or (setting == "divisor" and method != "random")
    }
    assert changed
    assert changed <= reading
    # What is declared is true of at least one method of each family.
    for family in families(config):
        # Patience decides only where the validation loss rises before its lowest point.
        if setting in family.reads and setting != "patience":
            assert changed & set(family.names), family.names


def test_every_setting_was_tried():
    # So small a PCA is exact at once.
    unread = {"methods", "own", "memory_budget", "devices", "pca_steps"}
    names = {field.name for field in dataclasses.fields(SweepConfig)} - unread
    assert names == set(OTHERS)


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_per_run_is_the_same_as_a_sweep_per_rate(rate):
    # Runs 0 and 1 differ in nothing but the rate, and so do 2 and 3.
    base = data()
    twice = dataclasses.replace(
        base, subsets=base.subsets[[0, 0, 1, 1]], seeds=base.seeds[[0, 0, 1, 1]]
    )
    reading = {m for family in families(CONFIG) for m in family.names if rate in family.reads}
    methods = tuple(m for m in CORE if m in reading)
    config = dataclasses.replace(CONFIG, methods=methods)
    values = (getattr(config, rate), OTHERS[rate])
    mixed = weights(
        sweep(twice, dataclasses.replace(config, **{rate: np.array([*values, *values])}))
    )
    for place, value in enumerate(values):
        alone = weights(sweep(twice, dataclasses.replace(config, **{rate: value})))
        for method in methods:
            found, expected = mixed[method][:, place::2], alone[method][:, place::2]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=1e-3 * scale, err_msg=method)
    assert any(not np.array_equal(mixed[m][:, 0], mixed[m][:, 1]) for m in methods)


# --- kept units ----------------------------------------------------------------------------------


def counted(monkeypatch) -> list[tuple[str, ...]]:
    fitted, fit = [], module.fit_together

    def watched(group, *rest):
        fitted.extend(family.names for family in group)
        return fit(group, *rest)

    monkeypatch.setattr(module, "fit_together", watched)
    return fitted


@pytest.mark.parametrize("folder", [True, False])
def test_a_unit_is_fitted_again_only_if_something_that_it_reads_changed(
    tmp_path, monkeypatch, folder
):
    store = FitStore(tmp_path / "fits" if folder else None)
    first = sweep(data(), CONFIG, store=store)
    fitted = counted(monkeypatch)
    again = sweep(data(), CONFIG, store=store)
    assert not fitted
    for method in CORE:
        for mine, other in zip(
            jax.tree.leaves((first.probes[method], first.info[method])),
            jax.tree.leaves((again.probes[method], again.info[method])),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, other)
        assert type(first.info[method]) is type(again.info[method])
    sweep(data(), dataclasses.replace(CONFIG, easy_share=0.1), store=store)
    assert fitted == [("ue_e2h",)]
    fitted.clear()
    changed = dataclasses.replace(data(), hard_targets=1 - np.asarray(data().hard_targets))
    sweep(changed, CONFIG, store=store)
    assert set(fitted) == {("supervised",), ("mean_difference",), ("lda",)}
    fitted.clear()
    pairs = data().hard[2]  # type: ignore[index]
    sweep(dataclasses.replace(data(), hard={2: pairs._replace(pos=pairs.pos + 1)}), CONFIG,
          store=store)  # fmt: skip
    assert len(fitted) == len(families(CONFIG))


def test_the_fits_of_another_layer_are_others(tmp_path):
    # The same hidden states at two layers: the layer still seeds its own random stream.
    found = weights(sweep(data(layers=(2, 5)), CONFIG, store=FitStore(tmp_path)))
    assert not np.array_equal(found["ccs"][0], found["ccs"][1])
    np.testing.assert_array_equal(found["pca"][0], found["pca"][1])


def run_until(folder: str, units: int) -> None:
    """Another process: this sweep, killed after so many units."""

    def report(done: int, total: int) -> None:
        if done == units:
            os.kill(os.getpid(), signal.SIGKILL)

    sweep(data(layers=(2, 5)), CONFIG, store=FitStore(folder), report=report)


def test_a_killed_sweep_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    code = f"import test_sweep_units as test; test.run_until({str(tmp_path)!r}, 5)"
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "JAX_PLATFORMS": "cpu"}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = len(list(tmp_path.glob("*.npz")))
    assert 5 <= kept < 2 * len(families(CONFIG))
    fitted = counted(monkeypatch)
    resumed = sweep(data(layers=(2, 5)), CONFIG, store=FitStore(tmp_path))
    assert len(fitted) == 2 * len(families(CONFIG)) - kept
    undisturbed = sweep(data(layers=(2, 5)), CONFIG)
    for method in CORE:
        np.testing.assert_array_equal(weights(resumed)[method], weights(undisturbed)[method])


def test_a_damaged_file_is_named(tmp_path):
    config = dataclasses.replace(CONFIG, methods=("ccs",))
    sweep(data(), config, store=FitStore(tmp_path))
    [file] = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{file.name} is no whole file of fits.*remove it"):
        sweep(data(), config, store=FitStore(tmp_path))


def test_progress_counts_units():
    seen = []
    sweep(data(layers=(2, 5)), CONFIG, report=lambda done, total: seen.append((done, total)))
    total = 2 * len(families(CONFIG))
    assert seen == [(done, total) for done in range(total + 1)]


# --- layers ---------------------------------------------------------------------------------------


def watch_fits(monkeypatch, then) -> None:
    """Calls `then` with the layer before each group of families is fitted."""
    fit = module.fit_together

    def watched(group, its_data, layer, *rest):
        then(layer)
        return fit(group, its_data, layer, *rest)

    monkeypatch.setattr(module, "fit_together", watched)


def layers_in_memory(shape: tuple[int, int]) -> float:
    """Layers on JAX's devices, two signs of this shape each; float64 counts twice."""
    here = [array for array in jax.live_arrays() if array.shape == shape]
    return sum(array.dtype.itemsize for array in here) / 8


@pytest.mark.parametrize("methods", [("random",), ("random", "supervised", "e2h")])
def test_each_layer_is_read_once_while_the_one_before_is_fitted(monkeypatch, methods):
    base, read, begun = data(), {"hard": [], "easy": []}, []

    def reader(name: str):
        def load(layer: int) -> Pairs:
            read[name].append(layer)
            return getattr(base, name)[2]

        return load

    watch_fits(monkeypatch, lambda layer: begun.append((layer, read["hard"].copy())))
    layers = (2, 5, 9)
    config = dataclasses.replace(CONFIG, methods=methods)
    read_late = dataclasses.replace(
        base,
        layers=layers,
        hard=reader("hard"),
        easy=reader("easy"),
        hard_ids=[*map(str, range(N))],
    )
    sweep(read_late, config)
    assert read["hard"] == list(layers)
    assert read["easy"] == (list(layers) if "e2h" in methods else [])
    assert [layer for layer, _ in begun] == [each for each in layers for _ in methods]
    # Never more than one layer ahead.
    for layer, seen in begun:
        assert len(seen) <= layers.index(layer) + 2


def test_a_layer_that_cannot_be_fitted_is_told_as_it_is_of_one_at_hand(tmp_path, monkeypatch):
    hard = data().hard[2]  # type: ignore[index]
    broken = Pairs(hard.pos.copy(), hard.neg)
    broken.pos[5, 2] = np.nan
    by_layer = {2: hard, 5: hard, 9: broken}
    fitted = []
    watch_fits(monkeypatch, fitted.append)
    config = dataclasses.replace(CONFIG, methods=("random",))
    several = dataclasses.replace(data(layers=(2, 5, 9)), hard=by_layer)
    said = []
    for way in (by_layer, by_layer.__getitem__):
        with pytest.raises(ValueError, match="'pos' of layer 9, row 5") as error:
            sweep(dataclasses.replace(several, hard=way), config, store=FitStore(tmp_path))
        said.append(str(error.value))
    assert said[0] == said[1]
    # At hand, before any fit; read, when it is its turn, and what was fitted by then is kept.
    assert fitted == [2, 5]
    mended = dataclasses.replace(several, hard={**by_layer, 9: hard}.__getitem__)
    sweep(mended, config, store=FitStore(tmp_path))
    assert fitted == [2, 5, 9]


@pytest.mark.slow
def test_no_more_than_two_layers_and_their_coordinates_are_in_memory(monkeypatch):
    n, d = 61, 13  # a shape that nothing else has
    hard, labels, _ = planted(n, d, seed=0)
    most = {"read": 0.0, "fit": 0.0}

    def watch(place: str) -> None:
        gc.collect()
        most[place] = max(most[place], layers_in_memory((n, d)))

    def load(layer: int) -> Pairs:
        watch("read")
        return Pairs(hard.pos + layer, hard.neg)

    methods = ("random", "mean_difference", "pca")
    watch_fits(monkeypatch, lambda layer: watch("fit"))
    swept = SweepData(
        hard=load,
        layers=(1, 2, 3, 4, 5),
        subsets=np.ones((2, n), bool),
        seeds=np.arange(2),
        hard_targets=labels,
    )
    before = layers_in_memory((n, d))
    sweep(swept, SweepConfig(methods=methods))
    # As read, the next one, in the pool's coordinates, and those in float64.
    assert most["fit"] - before <= 1 + 1 + 1 + 2
    assert most["read"] - before <= 1 + 1 + 2 + 2
    assert layers_in_memory((n, d)) == before


# --- float64 where the accelerator has none -------------------------------------------------------


def test_fits_in_float64_are_made_on_the_cpu_beside_a_tpu(plain, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    seen = []
    fit_runs = fitting.fit_runs

    def watched(*args, family):
        if getattr(family, "double", False):
            leaves = jax.tree.leaves(args)
            seen.append({str(leaf.dtype) for leaf in leaves if hasattr(leaf, "dtype")})
        return fit_runs(*args, family=family)

    monkeypatch.setattr(fitting, "fit_runs", watched)
    config = dataclasses.replace(CONFIG, devices=0)
    found = weights(sweep(data(), config))
    assert "float64" in seen[0]
    for method in CORE:
        np.testing.assert_array_equal(found[method], plain[method], err_msg=method)


def test_float64_is_refused_where_no_device_has_it(monkeypatch):
    def local_devices(*args, backend=None, **rest):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return jax.devices()

    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "local_devices", local_devices)
    config = dataclasses.replace(CONFIG, methods=("ccs", "pca", "pca_ensemble_e2h"))
    with pytest.raises(ValueError, match=r"^pca, pca_ensemble_e2h: .*Set JAX_PLATFORMS=tpu,cpu"):
        check_config(config)
    check_config(dataclasses.replace(config, methods=("ccs",)))


# --- hosts ---------------------------------------------------------------------------------------


def on_host(address: str, number: int, folder: str, out: str) -> None:
    """Another process: one of two hosts that share a sweep."""
    jax.distributed.initialize(address, num_processes=2, process_id=number)
    assert jax.process_count() == 2
    fitted, fit = [], module.fit_together

    def watched(group, *rest):
        fitted.extend(family.names for family in group)
        return fit(group, *rest)

    module.fit_together = watched
    result = sweep(data(layers=(2, 5)), CONFIG, store=FitStore(folder))
    np.savez(out, fitted=len(fitted), **weights(result))  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_hosts_divide_the_units_and_both_get_all(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "JAX_PLATFORMS": "cpu"}
    hosts = [
        subprocess.Popen(
            [
                *(sys.executable, "-c"),
                f"import test_sweep_units as test; test.on_host({address!r}, {number}, "
                f"{str(tmp_path / 'fits')!r}, {str(tmp_path / f'{number}.npz')!r})",
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for host in hosts:
        _, errors = host.communicate(timeout=240)
        assert host.returncode == 0, errors
    expected = weights(sweep(data(layers=(2, 5)), CONFIG))
    found = [np.load(tmp_path / f"{number}.npz") for number in range(2)]
    shares = [int(arrays["fitted"]) for arrays in found]
    assert sum(shares) == 2 * len(families(CONFIG))
    assert min(shares) > 0
    for arrays in found:
        for method in CORE:
            np.testing.assert_array_equal(arrays[method], expected[method], err_msg=method)


def test_hosts_without_a_shared_folder_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for store in (None, FitStore()):
        with pytest.raises(ValueError, match=r"2 hosts share this sweep; give it store=FitStore"):
            sweep(data(), CONFIG, store=store)
