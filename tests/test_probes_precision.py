"""Products with the hidden states in less than float32: what changes, and how little it matters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.linear import project
from jelicit.probes.methods import SweepConfig
from jelicit.probes.sweep import SweepData, sweep

rng = np.random.default_rng(0)
PHI = jnp.asarray(rng.normal(size=(50, 30)), jnp.float32)
W = jnp.asarray(rng.normal(size=30), jnp.float32)


def rounded(values) -> np.ndarray:
    return np.asarray(jnp.asarray(values).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_bfloat16_rounds_the_factors_and_not_the_sums():
    exact = rounded(PHI) @ rounded(W)
    np.testing.assert_allclose(project(PHI, W, "bfloat16"), exact, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(project(PHI, W)) - exact).max() > 1e-3


def test_gradients_are_those_of_the_rounded_product():
    pull = jnp.asarray(rng.normal(size=50), jnp.float32)
    gradient = jax.grad(lambda w: project(PHI, w, "bfloat16") @ pull)(W)
    np.testing.assert_allclose(gradient, rounded(pull) @ rounded(PHI), rtol=1e-5, atol=1e-5)
    to_phi = jax.grad(lambda phi: project(phi, W, "bfloat16") @ pull)(PHI)
    np.testing.assert_allclose(to_phi, np.outer(pull, W), rtol=1e-5)


def test_many_runs_read_the_hidden_states_once():
    found = jax.jit(jax.vmap(lambda w: project(PHI, w, "bfloat16")))
    text = found.lower(jnp.ones((7, 30))).as_text()
    assert "7x50x30" not in text
    assert "50x30x7" not in text


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        ValueError, match=r"precision='float16'; choose one of .'float32', 'tf32', 'bf"
    ):
        project(PHI, W, "float16")


def pairs_of_a_model(n: int, seed: int) -> tuple[Pairs, np.ndarray]:
    """Hidden states as models have them: a few directions that are hundreds of times larger."""
    pairs, labels, _ = planted(n, 64, seed=seed, strength=0.6, common=20.0)
    heavy = np.ones(64, np.float32)
    heavy[:3] = [100, 40, 20]
    return Pairs(pairs.pos * heavy, pairs.neg * heavy), labels


@pytest.mark.slow
def test_auroc_hardly_changes():
    train, labels = pairs_of_a_model(600, 0)
    test, test_labels = pairs_of_a_model(2000, 1)
    easy, easy_labels = pairs_of_a_model(300, 2)
    data = SweepData(
        hard={0: train},
        layers=(0,),
        subsets=np.random.default_rng(0).random((3, 600)) < 0.8,
        seeds=np.arange(3),
        hard_targets=labels,
        easy={0: easy},
        easy_labels=easy_labels,
    )
    trained = ("ccs", "e2h", "supervised", "ue_e2h")
    base = SweepConfig(methods=trained, ccs_steps=300, bce_steps=300)
    areas, scores = {}, {}
    for precision in ("float32", "tf32", "bfloat16"):
        result = sweep(data, dataclasses.replace(base, precision=precision))
        scores[precision] = result.score(0, test)
        areas[precision] = {
            method: np.asarray(auroc(found, test_labels))
            for method, found in scores[precision].items()
        }
    for method in trained:
        exact = areas["float32"][method]
        assert np.abs(exact - 0.5).max() > 0.2  # or nothing could change
        for precision in ("tf32", "bfloat16"):
            np.testing.assert_allclose(areas[precision][method], exact, atol=0.002)
        assert not np.array_equal(scores["bfloat16"][method], scores["float32"][method])
