"""Runs shared among devices: eight virtual ones give the numbers of one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import planted

from jelicit.probes.methods import PAPER, PEERS, SweepConfig
from jelicit.probes.sweep import SweepData, sweep

# And two that are not linear, or work on the host.
CORE = (*PAPER, *PEERS, "cluster_ccs", "mlp")

TESTS = Path(__file__).resolve().parent
RUNS, N, D = 5, 60, 12
CONFIG = SweepConfig(methods=CORE, ccs_steps=30, bce_steps=40, patience=10, ensemble_size=6)


def scores(config: SweepConfig) -> dict[str, np.ndarray]:
    hard, labels, _ = planted(N, D, seed=0)
    easy, easy_labels, _ = planted(40, D, seed=1)
    subsets = np.random.default_rng(0).random((RUNS, N)) < 0.8
    data = SweepData(
        hard={2: hard},
        layers=(2,),
        subsets=subsets,
        seeds=np.arange(RUNS),
        hard_targets=labels,
        easy={2: easy},
        easy_labels=easy_labels,
    )
    return {k: np.asarray(v) for k, v in sweep(data, config).score(2, hard).items()}


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(tmp_path):
    # Another process: the number of virtual devices is fixed when JAX starts.
    code = (
        "import jax, numpy as np, dataclasses, test_sweep_devices as test\n"
        "from jelicit.probes.sweep import fitting as module\n"
        "assert len(jax.devices()) == 8\n"
        "fit, spread = module.fit_runs, set()\n"
        "def watched(seeds, *rest, **options):\n"
        "    spread.add(len(seeds.sharding.device_set))\n"
        "    assert not seeds.sharding.is_fully_replicated\n"
        "    return fit(seeds, *rest, **options)\n"
        "module.fit_runs = watched\n"
        "config = dataclasses.replace(test.CONFIG, devices=8)\n"
        "np.savez('scores.npz', **test.scores(config))\n"
        "assert spread == {8}, spread\n"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, eight = scores(CONFIG), np.load(tmp_path / "scores.npz")
    assert set(eight.files) == set(CORE)
    for method in CORE:
        spread = float(np.std(one[method]))
        np.testing.assert_allclose(eight[method], one[method], atol=1e-3 * spread, err_msg=method)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match="devices=999; this machine has"):
        scores(dataclasses.replace(CONFIG, devices=999))
