"""Difference of means and LDA: against explicit rows, NumPy and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from jelicit.pairs import Pairs
from jelicit.probes.lda import fit_lda
from jelicit.probes.linear import score
from jelicit.probes.mean_difference import fit_mean_difference
from jelicit.probes.normalise import fit_normaliser, normalise


def _explicit(pairs: Pairs, chosen: np.ndarray, labels: np.ndarray):
    """The 2n normalised rows of a subset and their classes, and the normaliser."""
    subset = Pairs(pairs.pos[chosen], pairs.neg[chosen])
    normaliser = fit_normaliser(subset, fitted_on="subset")
    rows = normalise(normaliser, subset)
    X = np.concatenate([np.asarray(rows.pos, float), np.asarray(rows.neg, float)])
    return X, np.concatenate([labels[chosen], 1 - labels[chosen]]), normaliser


@pytest.fixture(scope="module")
def case():
    pairs, labels, direction = planted(120, 15, seed=0, common=0.0)
    chosen = np.arange(120) % 3 != 0
    return pairs, labels.astype(np.float32), direction, chosen


def test_difference_of_means_is_that_of_the_chosen_rows(case):
    pairs, labels, _, chosen = case
    X, y, normaliser = _explicit(pairs, chosen, labels)
    probe, info = fit_mean_difference(
        pairs, normaliser, jnp.asarray(labels), weights=jnp.asarray(chosen, jnp.float32)
    )
    np.testing.assert_allclose(
        probe.weight, X[y == 1].mean(0) - X[y == 0].mean(0), rtol=1e-4, atol=1e-6
    )
    assert bool(info.finite)


@pytest.mark.parametrize("shrinkage", [0.02, 0.1, 0.7])
def test_lda_is_scikit_learns(case, shrinkage):
    pairs, labels, _, chosen = case
    X, y, normaliser = _explicit(pairs, chosen, labels)
    # scikit-learn standardises before it shrinks unless given the covariance: rows of one scale.
    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=_Shrunk(shrinkage))
    wanted = theirs.fit(X, y).coef_[0]
    probe, info = fit_lda(
        pairs,
        normaliser,
        jnp.asarray(labels),
        weights=jnp.asarray(chosen, jnp.float32),
        shrinkage=shrinkage,
    )
    assert float(info.residual) < 1e-4
    np.testing.assert_allclose(probe.weight, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


class _Shrunk:
    """A covariance estimator in scikit-learn's sense: (1 - g) S + g trace(S) / d I."""

    def __init__(self, shrinkage: float):
        self.shrinkage = shrinkage

    def fit(self, X):
        S = np.cov(X.T, bias=True)
        ridge = np.trace(S) / len(S) * np.eye(len(S))
        self.covariance_ = (1 - self.shrinkage) * S + self.shrinkage * ridge
        return self


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_lda])
def test_the_planted_direction_is_found(case, fit):
    pairs, labels, _, chosen = case
    normaliser = fit_normaliser(pairs, jnp.asarray(chosen, jnp.float32), fitted_on="chosen")
    weights = jnp.asarray(chosen, jnp.float32)
    probe, _ = fit(pairs, normaliser, jnp.asarray(labels), weights=weights)
    scores = np.asarray(score(probe, normaliser, pairs))[~chosen]
    assert np.mean((scores > 0) == (labels[~chosen] == 1)) > 0.95


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_lda])
def test_rows_of_no_weight_and_labels_of_no_truth_have_no_say(case, fit):
    pairs, labels, _, chosen = case
    weights = jnp.asarray(chosen, jnp.float32)
    normaliser = fit_normaliser(pairs, weights, fitted_on="chosen")
    other = np.where(chosen, labels, 1 - labels).astype(np.float32)
    found = [fit(pairs, normaliser, jnp.asarray(y), weights=weights)[0] for y in (labels, other)]
    np.testing.assert_array_equal(found[0].weight, found[1].weight)
    nobody, _ = fit_mean_difference(pairs, normaliser, jnp.full(len(labels), 0.5), weights=weights)
    np.testing.assert_allclose(nobody.weight, 0, atol=1e-7)


@pytest.mark.parametrize("fit", [fit_mean_difference, fit_lda])
@pytest.mark.parametrize("only", [0, 1])
def test_rows_of_one_class_have_no_direction_and_betray_nothing_of_the_others(case, fit, only):
    pairs, labels, _, _ = case
    weights = jnp.asarray(labels == only, jnp.float32)
    normaliser = fit_normaliser(pairs, weights, fitted_on="one class")
    probe, info = fit(pairs, normaliser, jnp.asarray(labels), weights=weights)
    np.testing.assert_array_equal(probe.weight, 0)
    assert float(info.residual) == 0
    assert bool(info.finite)
