"""LEACE of the verdict: against the formula of its paper, and least squares that find nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.pairs import Pairs
from jelicit.probes.erasure import fit_erasure
from jelicit.probes.normalise import fit_normaliser, normalise

pytestmark = pytest.mark.usefixtures("x64")
N, D = 60, 12


@pytest.fixture(scope="module")
def case():
    pairs, *_ = planted(N, D, seed=0, strength=0.8, common=3.0)
    return Pairs(*(np.asarray(sign, np.float64) for sign in pairs)), np.arange(N) % 3 != 0


def erased(pairs: Pairs, chosen: np.ndarray, **options) -> Pairs:
    """Normalised rows after the erasure that was fitted on the chosen ones."""
    weights = jnp.asarray(chosen, float)
    normaliser = fit_normaliser(pairs, weights, fitted_on="chosen")
    erasure = fit_erasure(pairs, normaliser, weights=weights, **options)
    return Pairs(
        *(np.asarray(erasure.apply(jnp.asarray(sign).T)).T for sign in normalise(normaliser, pairs))
    )


def papers_leace(X: np.ndarray, z: np.ndarray, new: np.ndarray) -> np.ndarray:
    """x' = x - W^+ U U^T W (x - mean), with W = S_xx^-1/2 and U an orthonormal basis of W S_xz."""
    mean = X.mean(axis=0)
    values, vectors = np.linalg.eigh((X - mean).T @ (X - mean) / len(X))
    W, back = (vectors @ np.diag(values**power) @ vectors.T for power in (-0.5, 0.5))
    U = W @ ((X - mean).T @ (z - z.mean()))[:, None]
    U /= np.linalg.norm(U)
    return new - (new - mean) @ (back @ U @ U.T @ W).T


def test_the_rows_are_those_of_the_papers_formula(case):
    pairs, chosen = case
    normaliser = fit_normaliser(pairs.take(chosen), fitted_on="chosen")
    # Each sign has a scale of its own, about the middle of both; else rows are as they were made.
    middle = (normaliser.mean_pos + normaliser.mean_neg) / 2
    scales = (normaliser.scale_pos, normaliser.scale_neg)
    raw = [np.asarray((sign - middle[None]) / own) for sign, own in zip(pairs, scales, strict=True)]
    X = np.concatenate([sign[chosen] for sign in raw])
    z = np.repeat([1.0, 0.0], chosen.sum())
    mean = X.mean(axis=0)
    for mine, sign in zip(erased(pairs, chosen), raw, strict=True):
        np.testing.assert_allclose(mine, papers_leace(X, z, sign) - mean, atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_least_squares_find_nothing_of_the_verdict(case, shrinkage):
    pairs, chosen = case
    rows = np.concatenate([sign[chosen] for sign in erased(pairs, chosen, shrinkage=shrinkage)])
    z = np.repeat([1.0, -1.0], chosen.sum())
    design = np.column_stack([rows, np.ones(len(rows))])
    found = np.linalg.lstsq(design, z, rcond=1e-9)[0]
    np.testing.assert_allclose(design @ found, 0, atol=1e-8)
    # As the model made them, one least square reads them all.
    design = np.column_stack([np.concatenate([s[chosen] for s in pairs]), np.ones(len(rows))])
    read = design @ np.linalg.lstsq(design, z, rcond=None)[0]
    assert (np.sign(read) == z).all()


def test_one_dimension_is_gone_and_no_more(case):
    pairs, chosen = case
    rows = np.concatenate(erased(pairs, chosen))
    values = np.linalg.svd(rows, compute_uv=False)
    assert values[-1] < 1e-9 * values[0]
    assert values[-2] > 1e-3 * values[0]


def test_what_weights_read_of_erased_rows_folded_ones_read_of_the_rows(case):
    pairs, chosen = case
    weights = jnp.asarray(chosen, float)
    normaliser = fit_normaliser(pairs, weights, fitted_on="chosen")
    erasure = fit_erasure(pairs, normaliser, weights=weights)
    V = np.random.default_rng(0).normal(size=(D, 3))
    rows = np.asarray(normalise(normaliser, pairs).pos)
    folded = rows @ np.asarray(erasure.fold(jnp.asarray(V)))
    np.testing.assert_allclose(folded, np.asarray(erasure.apply(jnp.asarray(rows.T))).T @ V)


def test_a_pool_that_took_the_verdict_away_gives_it_back(case):
    pairs, chosen = case
    weights = jnp.asarray(chosen, float)
    alone = fit_erasure(
        pairs, fit_normaliser(pairs, weights, fitted_on="chosen"), weights=weights, shrinkage=0.1
    )
    pool = fit_normaliser(pairs, fitted_on="pool")
    inside = normalise(pool, pairs)
    within = fit_normaliser(inside, weights, fitted_on="chosen")
    pooled = fit_erasure(inside, within, pool, weights=weights, shrinkage=0.1)
    for mine, theirs in zip(pooled, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
