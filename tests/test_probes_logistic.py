"""Logistic regression along a path of penalties: against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from jelicit.pairs import Pairs
from jelicit.probes.lda import fit_lda
from jelicit.probes.logistic import fit_logistic, fit_logistic_path, penalties
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.supervised import validation_rows

pytestmark = pytest.mark.usefixtures("x64")
N, D = 100, 8


@pytest.fixture(scope="module")
def case():
    pairs, labels, _ = planted(N, D, seed=0, strength=0.4, common=0.0)
    pairs = Pairs(*(np.asarray(sign, np.float64) for sign in pairs))
    chosen = np.arange(N) % 4 != 0
    normaliser = fit_normaliser(pairs.take(chosen), fitted_on="chosen")
    return pairs, labels, chosen, normaliser


def explicit(case, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of both signs of some items, and their classes."""
    pairs, labels, _, normaliser = case
    rows = normalise(normaliser, pairs)
    X = np.concatenate([np.asarray(rows.pos)[of], np.asarray(rows.neg)[of]])
    return X, np.concatenate([labels[of], 1 - labels[of]])


def theirs(case, of: np.ndarray, penalty: float) -> LogisticRegression:
    X, y = explicit(case, of)
    variance = np.square(X).sum(axis=1).mean() / D
    model = LogisticRegression(
        C=1 / (len(X) * penalty * variance), fit_intercept=False, tol=1e-10, max_iter=5000
    )
    return model.fit(X, y)


@pytest.mark.parametrize("penalty", [10.0, 0.1, 1e-3])
def test_a_fit_is_scikit_learns(case, penalty):
    pairs, labels, chosen, normaliser = case
    params = fit_logistic(
        pairs, normaliser, jnp.asarray(labels), penalty, weights=jnp.asarray(chosen, float)
    )
    wanted = theirs(case, chosen, penalty).coef_[0]
    np.testing.assert_allclose(params.weight, wanted, atol=2e-3 * np.abs(wanted).max())
    assert float(params.bias) == 0


def test_the_penalty_is_that_of_the_lowest_held_out_loss(case):
    pairs, labels, chosen, normaliser = case
    path, key = penalties(1e-4, 10.0, 6), jax.random.key(3)
    np.testing.assert_allclose(path, np.geomspace(10, 1e-4, 6))
    weights = jnp.asarray(chosen, float)
    probe, info = fit_logistic_path(
        key, pairs, normaliser, jnp.asarray(labels), path, weights=weights, steps=200
    )
    held = np.asarray(validation_rows(key, weights))
    losses = []
    for penalty in np.asarray(path):
        # The variance of the penalty is that of the rows that are trained on.
        X, y = explicit(case, held)
        model = theirs(case, chosen & ~held, penalty)
        losses.append(log_loss(y, model.predict_proba(X)))
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1  # neither end of the path
    assert float(info.penalty) == float(path[best])
    np.testing.assert_allclose(float(info.validation_loss), losses[best], rtol=1e-3)
    wanted = theirs(case, chosen, float(path[best])).coef_[0]
    np.testing.assert_allclose(probe.weight, wanted, atol=2e-3 * np.abs(wanted).max())


def test_lda_without_shrinkage_is_mass_mean_with_covariance(case):
    # Marks & Tegmark 2023: S^+ theta, theta the difference of the class means and S the covariance
    # within the classes.
    pairs, labels, chosen, normaliser = case
    X, y = explicit(case, chosen)
    means = {c: X[y == c].mean(axis=0) for c in (0, 1)}
    within = X - np.where(y[:, None] == 1, means[1], means[0])
    wanted = np.linalg.pinv(within.T @ within / len(X)) @ (means[1] - means[0])
    probe, _ = fit_lda(
        pairs,
        normaliser,
        jnp.asarray(labels),
        weights=jnp.asarray(chosen, float),
        shrinkage=1e-9,
    )
    np.testing.assert_allclose(probe.weight, wanted, rtol=1e-4)
