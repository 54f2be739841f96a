"""Directions that are consistent under negation: against SciPy, PCA and the papers' own losses."""

import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from scipy.linalg import eigh, null_space

from jelicit.pairs import Pairs
from jelicit.probes import spectral
from jelicit.probes.erasure import fit_erasure
from jelicit.probes.krylov import Shape
from jelicit.probes.negation import midpoint_weights
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.pca import fit_pca
from jelicit.probes.spectral import SpectralWeights, fit_spectral

pytestmark = pytest.mark.usefixtures("x64")
N, D = 60, 20
ITEMS = np.arange(N) // 3


@pytest.fixture(scope="module")
def case():
    pairs, labels, direction = planted(N, D, seed=0, strength=0.8, common=0.0)
    pairs = Pairs(*(np.asarray(sign, np.float64) for sign in pairs))
    weights = np.random.default_rng(4).uniform(0.5, 2, N) * (np.arange(N) % 4 != 1)
    return pairs, labels, direction, weights


def explicit(pairs: Pairs, weights: np.ndarray, items: np.ndarray | None = None):
    """V, K and J of the definition, the mean squares of w.m and w.d, and the normaliser."""
    with_weights = fit_normaliser(pairs, jnp.asarray(weights), fitted_on="rows")
    rows = normalise(with_weights, pairs)
    pos, neg = np.asarray(rows.pos), np.asarray(rows.neg)
    r = weights / weights.sum()
    J = np.zeros((D, D))
    if items is not None:
        means = []
        for X in (pos, neg):
            mean = np.zeros_like(X)
            for item in np.unique(items):
                of = items == item
                if r[of].sum() > 0:
                    mean[of] = r[of] @ X[of] / r[of].sum()
            J += (X - mean).T @ np.diag(r) @ (X - mean) / 2
            means.append(mean)
        pos, neg = means

    def covariance(A, B):
        return A.T @ np.diag(r) @ B

    V = (covariance(pos, pos) + covariance(neg, neg)) / 2
    K = (covariance(pos, neg) + covariance(neg, pos)) / 2
    C_m, C_d = covariance((pos + neg) / 2, (pos + neg) / 2), covariance(pos - neg, pos - neg)
    return V, K, J, C_m, C_d, with_weights


def alike(one, other, *, near=1e-6):
    """Unit vectors, up to their sign."""
    assert abs(float(np.dot(one, other))) == pytest.approx(1, abs=near)


@pytest.mark.parametrize("asked", [(0, 1, 0), (0, 0.5, 0.5), (2, 0.3, 1)])
@pytest.mark.parametrize("searched", [False, True])
def test_the_direction_is_scipys_eigenvector(case, asked, searched, monkeypatch):
    pairs, _, _, weights = case
    V, K, J, *_, normaliser = explicit(pairs, weights, ITEMS)
    a, g, b = asked
    values, vectors = eigh(a * V - g * K - b * J)
    if searched:  # as if so few dimensions were many
        monkeypatch.setattr(spectral.Shape, "of", lambda count: Shape(count, 6, 2, 12))
    probe, info = fit_spectral(
        pairs,
        normaliser,
        SpectralWeights(a, g, b),
        weights=jnp.asarray(weights),
        items=jnp.asarray(ITEMS),
    )
    assert (int(info.steps) > 0) == searched
    alike(probe.weight, vectors[:, -1])
    assert np.asarray(probe.weight)[np.abs(probe.weight).argmax()] > 0
    np.testing.assert_allclose(info.eigenvalue, values[-1], rtol=1e-8)
    np.testing.assert_allclose(info.second, values[-2], rtol=1e-3)
    assert float(info.residual) < 1e-9


def test_equal_weights_of_variance_and_negation_are_pca(case):
    pairs, _, _, weights = case
    V, K, _, _, C_d, normaliser = explicit(pairs, weights)
    np.testing.assert_allclose(2 * V - 2 * K, C_d, atol=1e-12)
    first, _ = fit_pca(pairs, normaliser, weights=jnp.asarray(weights))
    for scale in (1, 0.3):
        asked = SpectralWeights(scale, scale)
        probe, _ = fit_spectral(pairs, normaliser, asked, weights=jnp.asarray(weights))
        np.testing.assert_allclose(probe.weight, first.weight, atol=1e-8)


@pytest.mark.parametrize("h", [0.0, 0.5, 0.9, 1.0])
def test_midpoint_displacement_is_the_lowest_loss_of_its_paper(case, h):
    pairs, _, _, weights = case
    *_, C_m, C_d, normaliser = explicit(pairs, weights)
    probe, info = fit_spectral(pairs, normaliser, midpoint_weights(h), weights=jnp.asarray(weights))
    loss = h * C_m - (1 - h) * C_d
    w = np.asarray(probe.weight)
    np.testing.assert_allclose(w @ loss @ w, eigh(loss, eigvals_only=True)[0], rtol=1e-8)
    np.testing.assert_allclose(float(info.eigenvalue), -(w @ loss @ w), rtol=1e-8)


def test_one_wording_each_leaves_invariance_without_a_say(case):
    pairs, _, _, weights = case
    normaliser = explicit(pairs, weights)[-1]

    def fitted(invariance, items):
        asked = SpectralWeights(0.0, 0.5, invariance)
        return fit_spectral(pairs, normaliser, asked, weights=jnp.asarray(weights), items=items)[
            0
        ].weight

    plain = fitted(0.0, None)
    np.testing.assert_allclose(fitted(7.0, None), plain, atol=1e-9)
    np.testing.assert_allclose(fitted(7.0, jnp.arange(N)), plain, atol=1e-9)
    assert not np.allclose(fitted(7.0, jnp.asarray(ITEMS)), plain, atol=1e-2)


def test_clusters_lose_their_own_means(case):
    pairs, _, _, weights = case
    normaliser = explicit(pairs, weights)[-1]
    clusters = np.where(np.arange(N) % 7 == 0, -1, np.arange(N) % 3)
    rows = normalise(normaliser, pairs)
    difference = np.asarray(rows.pos) - np.asarray(rows.neg)
    r = weights / weights.sum()
    for cluster in range(3):
        of = clusters == cluster
        difference[of] -= r[of] @ difference[of] / r[of].sum()
    difference -= r @ difference
    wanted = eigh(difference.T @ np.diag(r) @ difference)[1][:, -1]
    probe, info = fit_spectral(
        pairs,
        normaliser,
        SpectralWeights(1.0, 1.0),
        weights=jnp.asarray(weights),
        clusters=jnp.asarray(clusters),
    )
    alike(probe.weight, wanted)
    assert float(info.residual) < 1e-9


@pytest.mark.parametrize("searched", [False, True])
def test_what_was_erased_is_never_the_answer(case, searched, monkeypatch):
    _, _, _, weights = case
    # Verdicts agree about everything: -K has no eigenvalue above the 0 of what was erased.
    pairs, _, _ = planted(N, D, seed=3, strength=0.0, common=2.0)
    pairs = Pairs(*(np.asarray(sign, np.float64) for sign in pairs))
    _, K, *_, normaliser = explicit(pairs, weights)
    erasure = fit_erasure(pairs, normaliser, weights=jnp.asarray(weights), shrinkage=0.1)
    P = np.asarray(erasure.apply(jnp.eye(D)))
    left = null_space(np.asarray(erasure.reader)[None])
    values, vectors = eigh(-left.T @ P @ K @ P.T @ left)
    assert values[-1] < 0
    if searched:
        monkeypatch.setattr(spectral.Shape, "of", lambda count: Shape(count, 6, 2, 12))
    probe, info = fit_spectral(
        pairs,
        normaliser,
        SpectralWeights(0.0, 1.0),
        weights=jnp.asarray(weights),
        erasure=erasure,
    )
    wanted = P.T @ left @ vectors[:, -1]
    found = np.asarray(probe.weight)
    np.testing.assert_allclose(np.sign(wanted @ found) * found, wanted, atol=1e-5)
    np.testing.assert_allclose(info.eigenvalue, values[-1], rtol=1e-6)
    assert float(info.residual) < 1e-6


@pytest.mark.parametrize("asked", [(0, 1), (0.2, 1), (2 - 2.5 * 0.9, 2 - 1.5 * 0.9)])
def test_the_planted_direction_is_found_and_the_verdicts_may_change_places(case, asked):
    _, _, direction, weights = case
    pairs, _, _ = planted(N, D, seed=0, strength=2.0, common=0.0)

    def fitted(pairs):
        normaliser = fit_normaliser(pairs, jnp.asarray(weights), fitted_on="rows")
        return fit_spectral(
            pairs, normaliser, SpectralWeights(*asked), weights=jnp.asarray(weights)
        )[0].weight

    found = fitted(pairs)
    assert abs(float(np.dot(found, direction))) > 0.8
    np.testing.assert_allclose(fitted(Pairs(pairs.neg, pairs.pos)), found, atol=1e-8)
