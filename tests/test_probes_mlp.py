"""The network of two layers: what it computes, and that it finds what no direction does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.kinds import NotLinearError
from jelicit.probes.methods import SweepConfig
from jelicit.probes.mlp import fit_mlp
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.sweep import SweepData, sweep

N, D = 160, 6


def crossed(n: int, seed: int) -> tuple[Pairs, np.ndarray]:
    """A claim is true where two coordinates of its true verdict's state have one sign."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    lean = 2 * labels - 1
    signs = []
    for sign in (1, -1):
        states = 0.3 * rng.normal(size=(n, D))
        first = rng.choice([-1, 1], n)
        states[:, 0] += first
        states[:, 1] += sign * lean * first
        signs.append(states.astype(np.float32))
    return Pairs(*signs), labels.astype(np.float32)


def test_it_finds_what_no_direction_does():
    pairs, labels = crossed(N, 0)
    test, test_labels = crossed(120, 1)
    data = SweepData(
        hard={0: pairs},
        layers=(0,),
        subsets=np.ones((2, N), bool),
        seeds=np.arange(2),
        hard_targets=labels,
    )
    result = sweep(data, SweepConfig(methods=("mlp", "logistic")))
    found = {
        method: np.asarray(auroc(values, jnp.asarray(test_labels)))
        for method, values in result.score(0, test).items()
    }
    assert found["mlp"].min() > 0.95
    assert np.abs(found["logistic"] - 0.5).max() < 0.2
    with pytest.raises(NotLinearError, match="'mlp' is a MLPProbe and no direction"):
        result.probe("mlp", layer=0, run=0)


def test_the_score_is_the_difference_of_what_the_network_says_of_normalised_rows():
    pairs, labels = crossed(N, 0)
    normaliser = fit_normaliser(pairs, fitted_on="rows")
    probe, info = fit_mlp(
        jax.random.key(0), pairs, normaliser, jnp.asarray(labels), width=5, steps=20
    )
    assert 0 < int(info.best_step) <= 20

    def network(rows):
        units = np.maximum(rows @ np.asarray(probe.hidden).T + np.asarray(probe.hidden_bias), 0)
        return units @ np.asarray(probe.out) + float(probe.bias)

    rows = normalise(normaliser, pairs)
    wanted = network(np.asarray(rows.pos)) - network(np.asarray(rows.neg))
    found = probe.score(normaliser, pairs)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
