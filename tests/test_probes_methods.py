import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jelicit.pairs import Pairs
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.joint import fit_joint
from jelicit.probes.lda import fit_lda
from jelicit.probes.linear import score
from jelicit.probes.mean_difference import fit_mean_difference
from jelicit.probes.normalise import fit_normaliser, identity_normaliser, normalise
from jelicit.probes.pca import fit_components, fit_pca
from jelicit.probes.random_probe import random_probe
from jelicit.probes.supervised import fit_supervised
from jelicit.probes.training import Descent

KEY = jax.random.key(0)


def pool_of(pairs: Pairs) -> Pairs:
    return normalise(fit_normaliser(pairs, fitted_on="pool"), pairs)


def spread_pairs(n: int, d: int) -> Pairs:
    """Pairs whose differences have the eigenvalues 1, 1/2, 1/4, ..., well apart."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    difference = np.linalg.qr(rng.normal(size=(n, min(n, d))))[0] @ (
        2.0 ** (-0.5 * np.arange(min(n, d)))[:, None] * basis[: min(n, d)]
    )
    content = 0.1 * rng.normal(size=(n, d))
    return Pairs((content + difference).astype(np.float32), (content - difference).astype("f4"))


# Both ways to the components: through the hidden states (d < 3n/4) and through Gram blocks.
@pytest.mark.parametrize(("n", "d"), [(120, 20), (40, 90)])
@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("divisor", ["paper", "std"])
def test_components_are_those_of_sklearn(n, d, subset, divisor):
    pool = pool_of(spread_pairs(n, d))
    chosen = np.random.default_rng(2).random(n) < (0.7 if subset else 2.0)
    weights = jnp.asarray(chosen, jnp.float32)
    normaliser = fit_normaliser(pool, weights, fitted_on="chosen", divisor=divisor)
    probes, info = fit_components(pool, normaliser, weights=weights, count=4)
    phi = normalise(normaliser, pool.take(chosen))
    difference = np.asarray(phi.pos, np.float64) - np.asarray(phi.neg)
    sklearn = PCA(4, svd_solver="full").fit(difference)
    np.testing.assert_allclose(info.explained, sklearn.explained_variance_ratio_, rtol=1e-4)
    # Neighbouring eigenvalues differ by a factor near 2: residuals of 1e-6 turn the first four
    # vectors by at most some 1e-5.
    cosines = np.sum(np.asarray(probes.weight) * sklearn.components_, axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(probes.weight, axis=1), 1, rtol=1e-5)
    for m in range(4):
        w = np.asarray(probes.weight[m])
        assert w[np.abs(w).argmax()] > 0
        member = jax.tree.map(lambda leaf, m=m: leaf[m], probes)
        found = score(member, normaliser, pool.take(chosen))
        expected = np.sign(cosines[m]) * sklearn.transform(difference)[:, m]
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


# Sizes at which the Krylov space is a small part of the whole, through either operator.
@pytest.mark.parametrize(("n", "d"), [(900, 400), (400, 900)])
def test_many_components_of_a_flat_spectrum_hold_as_much_variance_as_the_best(n, d):
    rng = np.random.default_rng(0)
    pos, neg = rng.normal(size=(2, n, d)).astype(np.float32)
    pos[:, :3] *= [9, 7, 5]  # three directions stand out, the others are noise
    pool = pool_of(Pairs(pos, neg))
    difference = np.asarray(pool.pos, np.float64) - np.asarray(pool.neg)
    difference -= difference.mean(axis=0)
    values, vectors = np.linalg.eigh(difference.T @ difference / n)
    best = values[::-1][:40]

    def held(components: np.ndarray) -> np.ndarray:
        return np.sum((difference @ components.T) ** 2, axis=0) / n

    probes, info = fit_components(pool, identity_normaliser(d), count=40)
    found = np.asarray(probes.weight, np.float64)
    np.testing.assert_allclose(found @ found.T, np.eye(40), atol=1e-4)
    theirs = PCA(40, svd_solver="randomized", random_state=0).fit(difference).components_
    assert theirs is not None
    assert held(theirs).sum() < held(found).sum() <= best.sum() * (1 + 1e-6)
    total = np.trace(difference.T @ difference) / n
    np.testing.assert_allclose(info.explained * total, held(found), rtol=1e-3)
    # Further steps lead to the very best.
    longer, _ = fit_components(pool, identity_normaliser(d), count=40, max_steps=60)
    np.testing.assert_allclose(held(np.asarray(longer.weight, np.float64)), best, rtol=2e-3)
    # Those that stand out are found to rounding.
    for place in range(3):
        cosine = found[place] @ vectors[:, ::-1][:, place]
        assert abs(cosine) == pytest.approx(1, abs=1e-5)


def test_scores_are_centred_on_the_weighted_rows_whatever_the_normaliser():
    pool = pool_of(planted(100, 20, seed=3)[0])
    weights = jnp.asarray(np.arange(100) < 30, jnp.float32)
    elsewhere = fit_normaliser(pool, 1 - weights, fitted_on="the other rows")
    probe, _ = fit_pca(pool, elsewhere, weights=weights)
    scores = np.asarray(score(probe, elsewhere, pool))
    assert abs(scores[:30].mean()) < 1e-5 * scores.std()
    assert abs(scores[30:].mean()) > 1e-3 * scores.std()


def test_components_that_the_rows_do_not_span_are_zero():
    pool = pool_of(planted(50, 20, seed=3)[0])
    weights = jnp.asarray(np.arange(50) < 4, jnp.float32)
    probes, info = fit_components(pool, identity_normaliser(20), weights=weights, count=6)
    # Four centred rows span three dimensions.
    assert (np.linalg.norm(probes.weight, axis=1) > 0.5).tolist() == [True] * 3 + [False] * 3
    assert info.finite
    with pytest.raises(ValueError, match="count=21"):
        fit_components(pool, identity_normaliser(20), count=21)


def auroc_after_orientation(probe, normaliser, pairs, labels) -> float:
    area = roc_auc_score(labels, np.asarray(score(probe, normaliser, pairs)))
    return max(area, 1 - area)


@pytest.mark.parametrize("method", ["ccs", "pca", "supervised", "e2h"])
def test_a_planted_direction_is_found(method):
    train, labels, _ = planted(300, 40, seed=4)
    test, test_labels, _ = planted(300, 40, seed=5)
    # The easy set carries the same direction under another verdict shift, half as strong.
    easy, easy_labels, _ = planted(300, 40, seed=6, strength=1.0, common=1.0)
    own = fit_normaliser(train, fitted_on="train")
    phi, nothing = normalise(own, train), identity_normaliser(40)
    if method == "ccs":
        probe = fit_ccs(KEY, phi, nothing)[0]
    elif method == "pca":
        probe = fit_pca(phi, nothing)[0]
    elif method == "supervised":
        probe = fit_supervised(KEY, phi, nothing, jnp.asarray(labels, jnp.float32))[0]
    else:
        phi = normalise(fit_normaliser(easy, fitted_on="easy"), easy)
        probe = fit_supervised(KEY, phi, nothing, jnp.asarray(easy_labels, jnp.float32))[0]
    # True and false differ by 8 along the direction, against a spread of sqrt(1/2).
    assert auroc_after_orientation(probe, own, test, test_labels) > 0.99
    areas = [
        auroc_after_orientation(random_probe(key, 40), own, test, test_labels)
        for key in jax.random.split(KEY, 9)
    ]
    assert np.median(areas) < 0.95


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("method", ["ccs", "pca", "supervised", "joint", "mean_difference", "lda"])
def test_half_precision_is_fitted_as_float32(method, dtype):
    pairs, labels, _ = planted(60, 16, seed=0)
    half = jax.tree.map(lambda phi: jnp.asarray(100 * phi, dtype), pairs)
    full = jax.tree.map(lambda phi: phi.astype(jnp.float32), half)
    normaliser, targets = fit_normaliser(full, fitted_on="pool"), jnp.asarray(labels)
    few = Descent(learning_rate=0.01, steps=5)
    fits = {
        "ccs": lambda of: fit_ccs(KEY, of, normaliser, descent=few),
        "pca": lambda of: fit_pca(of, normaliser),
        "supervised": lambda of: fit_supervised(KEY, of, normaliser, targets, descent=few),
        "joint": lambda of: fit_joint(KEY, of, normaliser, of, normaliser, targets, descent=few),
        "mean_difference": lambda of: fit_mean_difference(of, normaliser, targets),
        "lda": lambda of: fit_lda(of, normaliser, targets),
    }
    found, expected = fits[method](half)[0], fits[method](full)[0]
    np.testing.assert_array_equal(found.weight, expected.weight)
    assert found.weight.dtype == jnp.float32


def test_supervised_is_as_good_as_logistic_regression():
    train, labels, _ = planted(600, 30, seed=7, strength=0.25)
    test, test_labels, _ = planted(2000, 30, seed=8, strength=0.25)
    normaliser = fit_normaliser(train, fitted_on="train")
    phi, phi_test = normalise(normaliser, train), normalise(normaliser, test)
    targets = jnp.asarray(labels, jnp.float32)
    probe, _ = fit_supervised(KEY, phi, identity_normaliser(30), targets)
    rows = np.concatenate([phi.pos, phi.neg]) / np.std(phi.pos)
    regression = LogisticRegression(max_iter=2000).fit(rows, np.concatenate([labels, 1 - labels]))
    direction = regression.coef_[0]
    area = roc_auc_score(test_labels, (phi_test.pos - phi_test.neg) @ direction)
    assert 0.6 < area < 0.99
    # Fewer rows (20 % are held out) and an early stop instead of a penalty.
    found = roc_auc_score(test_labels, np.asarray(score(probe, identity_normaliser(30), phi_test)))
    assert found == pytest.approx(area, abs=0.01)


def test_items_with_target_one_half_are_scored_near_zero():
    pairs, labels, direction = planted(300, 30, seed=9)
    # The last 100 items have no truth value, but all of them lie far along another direction.
    other = np.roll(direction, 1) - np.roll(direction, 1) @ direction * direction
    along = 4 * other / np.linalg.norm(other) - np.outer(2 * labels[200:] - 1, 2 * direction)
    pairs.pos[200:] += along.astype(np.float32)
    pairs.neg[200:] -= along.astype(np.float32)
    targets = np.where(np.arange(300) < 200, labels, 0.5)
    normaliser = fit_normaliser(pairs, fitted_on="all")
    phi = normalise(normaliser, pairs)
    probe, _ = fit_supervised(KEY, phi, identity_normaliser(30), jnp.asarray(targets, jnp.float32))
    scores = np.asarray(score(probe, normaliser, pairs))
    # What is left is noise, sqrt(1/2) along any direction against +-4 along the truth: 0.18.
    assert np.std(scores[200:]) < 0.25 * np.std(scores[:200])
    assert abs(scores[200:].mean()) < 0.1 * np.std(scores[:200])
    # Counted as True, the same items are told by the other direction.
    targets = jnp.asarray(np.where(targets == 0.5, 1, targets), jnp.float32)
    wrong = fit_supervised(KEY, phi, identity_normaliser(30), targets)[0]
    wrong_scores = np.asarray(score(wrong, normaliser, pairs))
    assert wrong_scores[200:].mean() > 0.5 * np.std(wrong_scores[:200])
