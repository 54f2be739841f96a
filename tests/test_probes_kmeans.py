"""Contrastive k-means: against scikit-learn's on explicit differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from sklearn.cluster import KMeans

from jelicit.pairs import Pairs
from jelicit.probes.kmeans import fit_kmeans
from jelicit.probes.linear import score
from jelicit.probes.normalise import fit_normaliser, normalise

pytestmark = pytest.mark.usefixtures("x64")
N, D = 90, 6


@pytest.fixture(scope="module")
def case():
    pairs, labels, _ = planted(N, D, seed=0, strength=1.0, common=0.0, share=0.3)
    return Pairs(*(np.asarray(sign, np.float64) for sign in pairs)), labels, np.arange(N) % 4 != 0


def test_centres_and_loss_are_scikit_learns(case):
    pairs, labels, chosen = case
    normaliser = fit_normaliser(pairs.take(chosen), fitted_on="chosen")
    rows = normalise(normaliser, pairs)
    difference = np.asarray(rows.pos - rows.neg)[chosen]
    theirs = KMeans(2, init="random", random_state=0, tol=0).set_params(n_init=30).fit(difference)
    probe, info = fit_kmeans(
        jax.random.key(0), pairs, normaliser, weights=jnp.asarray(chosen, float), starts=30
    )
    first, second = theirs.cluster_centers_
    w, offset = second - first, (second @ second - first @ first) / 2
    assert abs(offset) > 0.01 * (w @ w)  # a share of .3 of true claims: not halfway between the two
    sign = np.sign(w @ np.asarray(probe.weight))
    np.testing.assert_allclose(sign * probe.weight, w, atol=1e-9)
    np.testing.assert_allclose(sign * probe.offset, offset, atol=1e-9)
    total = np.square(difference).sum(axis=1).mean()
    np.testing.assert_allclose(float(info.between), total - theirs.inertia_ / chosen.sum())
    assert bool(info.settled)
    # A score above 0 is what lies nearer to the second centre.
    found = np.asarray(score(probe, normaliser, pairs))[chosen] * sign > 0
    np.testing.assert_array_equal(found, theirs.labels_ == 1)
    right = np.mean(found == labels[chosen])
    assert max(right, 1 - right) > 0.9


def test_more_starts_are_never_worse(case):
    _, _, chosen = case
    pairs, _, _ = planted(N, D, seed=0, strength=0.0)
    pairs = Pairs(*(np.asarray(sign, np.float64) for sign in pairs))
    weights = jnp.asarray(chosen, float)
    normaliser = fit_normaliser(pairs, weights, fitted_on="chosen")
    between = [
        float(fit_kmeans(jax.random.key(seed), pairs, normaliser, weights=weights, starts=1)[1][0])
        for seed in range(6)
    ]
    # In mere noise single starts end in several places.
    assert len(np.unique(np.round(between, 9))) > 2
    best = fit_kmeans(jax.random.key(9), pairs, normaliser, weights=weights, starts=40)[1][0]
    assert float(best) >= max(between) - 1e-12
