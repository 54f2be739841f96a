"""Probe files: what is read back scores as what was written, in another process too."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from planted import planted

import jelicit
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
