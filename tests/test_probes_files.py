"""Probe files: what is read back scores as what was written, in another process too."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from planted import planted
from small_stores import fill

import jelicit
from jelicit.activations import ActivationStore
from jelicit.pairs import Pairs
from jelicit.probes.files import FittedProbe, load_probe, save_probe
from jelicit.probes.sweep import SweepConfig, SweepData, sweep

METHODS = ("ccs", "pca", "supervised", "pca_ensemble_consensus")


@pytest.fixture(scope="module")
def fitted() -> dict[str, FittedProbe]:
    pairs, labels, _ = planted(60, 10, seed=0)
    data = SweepData(
        hard={3: pairs},
        layers=(3,),
        subsets=np.arange(60)[None, :] < np.array([[40], [60]]),
        seeds=np.arange(2),
        hard_targets=labels,
        rows_name="claims/train",
    )
    config = SweepConfig(methods=METHODS, ccs_steps=30, bce_steps=30, ensemble_size=4)
    result = sweep(data, config)
    found = {}
    for method in METHODS:
        probe, normaliser = result.probe(method, layer=3, run=1)
        settings = {"method": method, "layer": 3, "model": "tiny"}
        found[method] = FittedProbe(probe=probe, normaliser=normaliser, settings=settings)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_probe_read_back_scores_the_same(fitted, method, tmp_path):
    pairs, _, _ = planted(25, 10, seed=1)
    again = load_probe(save_probe(tmp_path / "probe", fitted[method]))
    np.testing.assert_array_equal(again.score(pairs), fitted[method].score(pairs))
    assert again.settings == {"method": method, "layer": 3, "model": "tiny"}
    assert again.normaliser.fitted_on == "claims/train, layer 3, run 1"


def test_another_process_scores_the_same(fitted, tmp_path):
    pairs, _, _ = planted(25, 10, seed=1)
    save_probe(tmp_path / "probe", fitted["ccs"])
    np.savez(tmp_path / "pairs.npz", pos=pairs.pos, neg=pairs.neg)
    code = (
        "import sys, jelicit, numpy as np\n"
        "pairs = np.load(sys.argv[2])\n"
        "pairs = jelicit.Pairs(pairs['pos'], pairs['neg'])\n"
        "scores = jelicit.load_probe(sys.argv[1]).score(pairs)\n"
        "np.save(sys.argv[3], scores)\n"
        "assert 'torch' not in sys.modules\n"
    )
    names = [str(tmp_path / name) for name in ("probe", "pairs.npz", "scores.npy")]
    subprocess.run([sys.executable, "-c", code, *names], check=True)
    np.testing.assert_array_equal(np.load(names[2]), fitted["ccs"].score(pairs))


def test_the_flipped_probe_scores_the_opposite(fitted):
    pairs, _, _ = planted(25, 10, seed=1)
    np.testing.assert_array_equal(
        fitted["pca"].flipped().score(pairs), -np.asarray(fitted["pca"].score(pairs))
    )


def test_wrong_use_is_refused(fitted, tmp_path):
    path = save_probe(tmp_path / "probe", fitted["ccs"])
    with pytest.raises(FileExistsError, match="never overwritten"):
        save_probe(path, fitted["pca"])
    assert load_probe(path).settings["method"] == "ccs"
    with pytest.raises(FileNotFoundError, match="no probe folder"):
        jelicit.load_probe(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no probe file"):
        load_probe(tmp_path / "empty")
    wide = Pairs(*(np.zeros((4, 11), np.float32) for _ in range(2)))
    with pytest.raises(ValueError, match="width 11, the probe 10"):
        load_probe(path).score(wide)


def test_a_damaged_probe_is_refused_not_half_read(fitted, tmp_path):
    path = save_probe(tmp_path / "probe", fitted["ccs"])
    for file in (path / "arrays").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_probe(path)


def test_stacked_probes_are_no_fitted_probe(fitted):
    one = fitted["ccs"]
    stacked = jax.tree.map(lambda leaf: leaf[None], one.probe)
    with pytest.raises(ValueError, match="one probe with one normaliser"):
        FittedProbe(probe=stacked, normaliser=one.normaliser)


# --- devices, edits, kills -----------------------------------------------------------------------

ON_ANOTHER = """
import sys
import jax
import numpy as np
from jelicit import FittedProbe, LinearProbe, Normaliser, save_probe

assert len(jax.devices()) == 4
there = jax.devices()[3]
one, five = (jax.device_put(np.arange(n, dtype=np.float32), there) for n in (1, 5))
probe = LinearProbe(weight=five, bias=one[0], offset=one[0])
means = {"mean_pos": five, "mean_neg": five, "scale_pos": one[0], "scale_neg": one[0]}
normaliser = Normaliser(**means, fitted_on="rows")
save_probe(sys.argv[1], FittedProbe(probe=probe, normaliser=normaliser, settings={"layer": 1}))
"""


def test_a_probe_saved_on_another_device_is_read(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER, str(tmp_path / "p")],
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_probe(tmp_path / "p").probe.weight.tolist() == [0, 1, 2, 3, 4]


def test_a_probe_of_an_older_version_that_lay_on_a_gpu_is_read(fitted, tmp_path):
    """Written as it was then: from the device's own arrays, whose place the folder then names."""
    one = fitted["ccs"]
    normaliser = dataclasses.asdict(one.normaliser)
    record = {"format": 1, "fitted_on": normaliser.pop("fitted_on"), "settings": {"layer": 3}}
    arrays = {"probe": dataclasses.asdict(one.probe), "normaliser": normaliser}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            tmp_path / "p",
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(jax.tree.map(jax.numpy.asarray, arrays)),
                record=ocp.args.JsonSave(record),
            ),
        )
    sharding = tmp_path / "p" / "arrays" / "_sharding"
    assert "TFRT_CPU_0" in sharding.read_text() or "cpu:0" in sharding.read_text().lower()
    text = re.sub("TFRT_CPU_0|cpu:0", "cuda:0", sharding.read_text(), flags=re.IGNORECASE)
    sharding.write_text(text)
    pairs, _, _ = planted(25, 10, seed=1)
    np.testing.assert_array_equal(load_probe(tmp_path / "p").score(pairs), one.score(pairs))


def edited(path, change):
    file = path / "record" / "metadata"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record["settings"].update(layer=4), "was changed since it was saved"),
        (lambda record: record.update(fitted_on="other rows"), "was changed since it was saved"),
        (lambda record: record.pop("sha256"), "was changed since it was saved"),
        (lambda record: record.pop("fitted_on"), "does not say fitted_on"),
        (lambda record: record.update(format=1, fitted_on=None), "does not say fitted_on"),
        (lambda record: record.update(settings=[]), "does not say settings"),
        (lambda record: record.update(format=9), "has format 9; this version reads 1 and 2"),
    ],
)
def test_an_edited_probe_is_refused_by_name(fitted, tmp_path, change, message):
    path = save_probe(tmp_path / "probe", fitted["pca"])
    edited(path, change)
    with pytest.raises(ValueError, match=message) as error:
        load_probe(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_given_as_numbers_of_numpy_are_kept_as_plain_ones(fitted, tmp_path):
    settings = {"layer": np.int64(3), "share": np.float32(0.5), "on": np.bool_(True)}
    settings |= {"rows": np.arange(2), "of": jax.numpy.ones(()), "where": tmp_path}
    one = dataclasses.replace(fitted["ccs"], settings=settings)
    found = load_probe(save_probe(tmp_path / "probe", one)).settings
    expected = {"layer": 3, "share": 0.5, "on": True, "rows": [0, 1], "of": 1.0}
    assert found == {**expected, "where": str(tmp_path)}
    bad = dataclasses.replace(one, settings={"what": object()})
    with pytest.raises(ValueError, match="settings of a probe cannot be written: a object is no"):
        save_probe(tmp_path / "bad", bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe"]


def test_a_save_that_fails_leaves_nothing_and_names_the_folder(fitted, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nat a place in C++")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", full)
        with pytest.raises(OSError, match=r"probe could not be written: RESOURCE_EXH.*device\. W"):
            save_probe(tmp_path / "probe", fitted["ccs"])
    assert list(tmp_path.iterdir()) == []
    save_probe(tmp_path / "probe", fitted["ccs"])


KILLED = """
import os, signal, sys
import orbax.checkpoint as ocp
from jelicit import load_probe, save_probe

real = ocp.Checkpointer.save
def save(self, folder, **options):
    real(self, folder, **options)
    os.kill(os.getpid(), signal.SIGKILL)

ocp.Checkpointer.save = save
save_probe(sys.argv[2], load_probe(sys.argv[1]))
"""


def test_a_save_that_was_killed_blocks_nothing_and_its_leftovers_go(fitted, tmp_path):
    first = save_probe(tmp_path / "first", fitted["ccs"])
    folder = tmp_path / "probes"
    command = [sys.executable, "-c", KILLED, str(first), str(folder / "a")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.name[0] for path in folder.iterdir()] == ["."]
    save_probe(folder / "a", fitted["ccs"])
    assert [path.name for path in folder.iterdir()] == ["a"]
    load_probe(folder / "a")


# --- the store that is scored --------------------------------------------------------------------


def test_a_store_of_another_model_is_scored_only_on_request(fitted, tmp_path):
    fill(tmp_path / "s")  # of width 5, layers 0, 2 and 3, model digest "abc"
    store = ActivationStore.open(tmp_path / "s")
    cut = lambda tree: jax.tree.map(lambda leaf: leaf[:5] if leaf.ndim else leaf, tree)  # noqa: E731
    one = FittedProbe(
        probe=cut(fitted["ccs"].probe),
        normaliser=cut(fitted["ccs"].normaliser),
        settings={"layer": 3, "model": "tiny", "model_digest": "abc"},
    )
    np.testing.assert_array_equal(one.score_store(store), one.score(store.pairs(3)))
    np.testing.assert_array_equal(one.score_store(store, layer=2), one.score(store.pairs(2)))
    other = dataclasses.replace(one, settings={**one.settings, "model_digest": "xyz"})
    with pytest.raises(ValueError, match=r"/s holds .* of tiny, the probe .*--other-model"):
        other.score_store(store)
    np.testing.assert_array_equal(
        other.score_store(store, other_model=True), one.score_store(store)
    )
    for layer in (None, "3", 3.0):
        unknown = dataclasses.replace(one, settings={"layer": layer})
        with pytest.raises(ValueError, match=r"which layer it is of .*--layer"):
            unknown.score_store(store)
