"""Platt scaling and calibration error: against SciPy, scikit-learn and hand-made numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from jelicit.calibration import Platt, brier_score, calibration_error, fit_platt


def _case(seed: int, slope: float, n: int = 400, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-(slope * scores - 0.4)))).astype(float)
    return (scale * scores).astype(np.float32), labels


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_platt_is_the_optimum_that_scipy_finds(scale):
    scores, labels = _case(0, 1.7, scale=scale)
    true = labels.sum()
    soft = np.where(labels == 1, (true + 1) / (true + 2), 1 / (len(labels) - true + 2))
    unit = scores.astype(float) / scale

    def loss(p):
        z = p[0] * unit + p[1]
        return np.mean(np.logaddexp(0, z) - soft * z)

    wanted = minimize(loss, np.zeros(2), tol=1e-12).x
    found = fit_platt(scores, labels)
    assert float(found.slope) * scale == pytest.approx(wanted[0], rel=1e-3)
    assert float(found.intercept) == pytest.approx(wanted[1], abs=1e-3)


def test_platt_is_scikit_learns_sigmoid_calibration():
    scores, labels = _case(1, 0.9)
    model = LogisticRegression(C=1e6).fit(scores[:, None], labels)
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="sigmoid")
    theirs.fit(scores[:, None], labels)
    decision = model.decision_function(scores[:, None]).astype(np.float32)
    ours = fit_platt(decision, labels).probability(decision)
    np.testing.assert_allclose(ours, theirs.predict_proba(scores[:, None])[:, 1], atol=2e-3)


def test_runs_are_fitted_on_their_own_and_rows_without_truth_have_no_say():
    (one, labels), (two, _) = _case(2, 1.0), _case(3, 3.0)
    both = fit_platt(np.stack([one, two]), labels)
    assert float(both.slope[0]) == pytest.approx(float(fit_platt(one, labels).slope), rel=1e-4)
    assert abs(float(both.slope[1])) < 0.3  # the labels are not those of the second run
    extended = np.append(labels, [np.nan] * 5)
    padded = np.append(one, [1e4] * 5).astype(np.float32)
    assert float(fit_platt(padded, extended).slope) == pytest.approx(float(both.slope[0]), rel=1e-4)


def test_a_run_is_scaled_on_its_own_rows():
    (one, labels), (two, _) = _case(2, 1.0), _case(3, 3.0)
    rows = np.stack([np.arange(400) < 250, np.arange(400) >= 100])
    both = fit_platt(np.stack([one, two]), labels, rows=rows)
    for run, scores in enumerate((one, two)):
        alone = fit_platt(scores[rows[run]], labels[rows[run]])
        assert float(both.slope[run]) == pytest.approx(float(alone.slope), rel=1e-3)
        assert float(both.intercept[run]) == pytest.approx(float(alone.intercept), abs=1e-3)
    # What does not count may hold anything.
    spoilt = fit_platt(np.where(rows[0], one, np.nan), labels, rows=rows[0])
    assert float(spoilt.slope) == pytest.approx(float(both.slope[0]), rel=1e-4)
    assert np.isnan(fit_platt(one, labels, rows=labels == 1).slope)


def test_separable_scores_stay_finite_and_one_class_is_nan():
    scores = np.linspace(-1, 1, 40, dtype=np.float32)
    found = fit_platt(scores, scores > 0)
    assert np.isfinite(found.slope)
    # At the optimum the mean probability is the mean softened label: (21 / 22 + 1 / 22) / 2.
    assert float(found.probability(scores).mean()) == pytest.approx(0.5, abs=1e-4)
    assert float(found.probability(scores)[-1]) > 0.9
    assert np.isnan(fit_platt(scores, np.ones(40)).slope)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_leaves_its_run_without_a_scale(bad):
    scores, labels = _case(3, 1.0, n=50)
    both = fit_platt(np.stack([np.where(np.arange(50) == 7, bad, scores), scores]), labels)
    for found in both:
        assert np.isnan(found).tolist() == [True, False]
    unknown = np.where(np.arange(50) == 7, np.nan, labels)
    assert np.isfinite(fit_platt(np.where(np.arange(50) == 7, bad, scores), unknown).slope)


def test_scaled_probabilities_are_calibrated_and_raw_ones_are_not():
    scores, labels = _case(4, 0.5, n=20_000, scale=10.0)
    raw = Platt(jnp.ones(()), jnp.zeros(())).probability(scores)
    scaled = fit_platt(scores, labels).probability(scores)
    assert float(calibration_error(raw, labels)) > 0.2
    assert float(calibration_error(scaled, labels)) < 0.02


def test_calibration_error_by_hand():
    # Bins (0, .5] and (.5, 1]: shares 1/2 and 1, means .3 and .9.
    probabilities = np.array([0.2, 0.4, 0.8, 1.0], np.float32)
    labels = np.array([1, 0, 1, 1])
    assert float(calibration_error(probabilities, labels, bins=2)) == pytest.approx(
        0.5 * 0.2 + 0.5 * 0.1
    )
    perfect = np.array([0.0, 0.0, 1.0, 1.0], np.float32)
    assert float(calibration_error(perfect, np.array([0, 0, 1, 1]))) == 0
    stacked = calibration_error(np.stack([probabilities, perfect]), labels, bins=2)
    assert stacked.shape == (2,)


def test_brier_score_is_scikit_learns():
    rng = np.random.default_rng(5)
    probabilities, labels = rng.random(50).astype(np.float32), rng.random(50) < 0.5
    assert float(brier_score(probabilities, labels)) == pytest.approx(
        brier_score_loss(labels, probabilities), abs=1e-6
    )


@pytest.mark.parametrize("function", [fit_platt, calibration_error, brier_score])
def test_wrong_labels_are_refused(function):
    scores = np.full(3, 0.5, np.float32)
    with pytest.raises(ValueError, match="one label per item of scores"):
        function(scores, np.array([1, 0]))
    with pytest.raises(ValueError, match="labels holds 2"):
        function(scores, np.array([1, 0, 2]))


def test_scores_are_no_probabilities():
    with pytest.raises(ValueError, match="outside"):
        calibration_error(np.array([0.5, 1.5], np.float32), np.array([0, 1]))
    with pytest.raises(ValueError, match="bins is 0"):
        calibration_error(np.array([0.5, 0.5], np.float32), np.array([0, 1]), bins=0)
