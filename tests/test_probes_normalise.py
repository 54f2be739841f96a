import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import planted
from sklearn.linear_model import LogisticRegression

from jelicit.pairs import Pairs, check_finite, check_shapes
from jelicit.probes.normalise import (
    compose,
    denormalise,
    fit_normaliser,
    identity_normaliser,
    normalise,
)

FACTORS = {"paper": 8.0, "norm": 1.0, "burns": 1 / 8}  # d = 64


def by_the_book(pairs: Pairs, factor: float) -> Pairs:
    def one(phi):
        centred = phi.astype(np.float64) - phi.astype(np.float64).mean(0)
        return centred / (np.linalg.norm(centred, axis=1).mean() * factor)

    return Pairs(one(pairs.pos), one(pairs.neg))


@pytest.mark.parametrize("divisor", ["paper", "norm", "burns"])
def test_equals_the_definition_on_the_weighted_rows(divisor):
    pairs, _, _ = planted(200, 64, seed=0)
    chosen = np.random.default_rng(0).random(200) < 0.3
    normaliser = fit_normaliser(
        pairs, jnp.asarray(chosen, jnp.float32), fitted_on="some", divisor=divisor
    )
    found = normalise(normaliser, pairs.take(chosen))
    expected = by_the_book(pairs.take(chosen), FACTORS[divisor])
    # float32 statistics of entries of size 5 against a spread of 1: relative error about 1e-6.
    scale = np.abs(expected.pos).max()
    np.testing.assert_allclose(found.pos / scale, expected.pos / scale, atol=5e-6)
    np.testing.assert_allclose(found.neg / scale, expected.neg / scale, atol=5e-6)
    assert normaliser.fitted_on == "some"


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("divisor", ["paper", "std"])
def test_statistics_of_any_precision_are_those_of_float32(dtype, divisor):
    pairs, _, _ = planted(200, 64, seed=0)
    short = jax.tree.map(lambda phi: jnp.asarray(100 * phi).astype(dtype), pairs)
    full = jax.tree.map(lambda phi: phi.astype(jnp.float32), short)
    found, expected = (
        fit_normaliser(these, fitted_on="all", divisor=divisor) for these in (short, full)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_double_precision_stays_in_double_precision(x64):
    pairs = jax.tree.map(lambda phi: phi.astype(np.float64), planted(50, 8, seed=0)[0])
    found = fit_normaliser(pairs, fitted_on="all")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found.mean_pos, pairs.pos.mean(0), rtol=1e-12)


def test_std_gives_every_dimension_of_each_sign_mean_0_and_deviation_1():
    pairs, _, _ = planted(200, 64, seed=0)
    pairs = Pairs(pairs.pos * np.arange(1, 65, dtype="f4"), pairs.neg)
    pairs.pos[:, 7] = 3.5  # never varies
    chosen = np.random.default_rng(0).random(200) < 0.3
    normaliser = fit_normaliser(
        pairs, jnp.asarray(chosen, jnp.float32), fitted_on="some", divisor="std"
    )
    found = normalise(normaliser, pairs.take(chosen))
    for sign, flat in (("pos", 7), ("neg", None)):
        values = np.asarray(getattr(found, sign), np.float64)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
        expected = np.ones(64)
        if flat is not None:
            expected[flat] = 0
        np.testing.assert_allclose(values.std(axis=0), expected, atol=1e-4)


@pytest.mark.parametrize("divisor", ["norm", "std"])
def test_no_linear_reader_tells_the_signs_apart_any_more(divisor):
    pairs, _, _ = planted(300, 20, seed=2, common=20.0)

    def weight(phi: Pairs) -> float:
        rows, sign = np.concatenate([phi.pos, phi.neg]), np.repeat([1, 0], 300)
        return float(np.abs(LogisticRegression(max_iter=1000).fit(rows, sign).coef_).max())

    phi = normalise(fit_normaliser(pairs, fitted_on="all", divisor=divisor), pairs)
    assert weight(pairs) > 0.05
    assert weight(phi) < 1e-4


def test_a_huge_common_mean_does_not_cancel_the_spread():
    pairs, _, _ = planted(100, 64, seed=1)
    shifted = Pairs(pairs.pos + np.float32(4096), pairs.neg - np.float32(4096))
    normaliser = fit_normaliser(shifted, fitted_on="all")
    # The book sees the same rounded float32 input. The spread's squares are 64 and the mean's 1e9:
    # without centring first, float32 would lose all of the spread.
    expected = np.linalg.norm(shifted.pos - shifted.pos.astype(np.float64).mean(0), axis=1).mean()
    np.testing.assert_allclose(normaliser.scale_pos, expected * 8, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.floats(0.01, 100),
    shift=st.floats(-3, 3),
)
def test_normalised_pairs_do_not_see_scale_or_shift(seed, factor, shift):
    pairs, _, _ = planted(30, 8, seed=seed, common=1.0)
    moved = Pairs(
        (pairs.pos * factor + shift).astype(np.float32), (pairs.neg * factor).astype(np.float32)
    )
    one = normalise(fit_normaliser(pairs, fitted_on="all"), pairs)
    other = normalise(fit_normaliser(moved, fitted_on="all"), moved)
    # Entries are about 1/8. A shift of 3 on a spread of 0.01 costs float32 3e-5 of the spread.
    np.testing.assert_allclose(other.pos, one.pos, atol=1e-4)
    np.testing.assert_allclose(other.neg, one.neg, atol=1e-4)


def test_compose_is_one_after_the_other():
    pairs, _, _ = planted(60, 16, seed=2)
    chosen = jnp.asarray(np.arange(60) < 20, jnp.float32)
    outer = fit_normaliser(pairs, fitted_on="pool")
    inner = fit_normaliser(normalise(outer, pairs), chosen, fitted_on="run")
    both = compose(outer, inner)
    direct = fit_normaliser(pairs, chosen, fitted_on="run")
    assert both.fitted_on == "run"
    # Statistics of the subset do not depend on the coordinates they were found in.
    for found, expected in zip(jax.tree.leaves(both), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    divisor=st.sampled_from(["paper", "norm", "burns", "std"]),
    common=st.floats(0, 20),
)
def test_denormalise_is_the_inverse_of_normalise(seed, divisor, common):
    pairs, _, _ = planted(30, 8, seed=seed, common=common)
    normaliser = fit_normaliser(pairs, fitted_on="all", divisor=divisor)
    other, _, _ = planted(30, 8, seed=seed + 1, common=3.0)  # not the rows it was fitted on
    back = denormalise(normaliser, normalise(normaliser, other))
    forth = normalise(normaliser, denormalise(normaliser, other))
    # float32 keeps seven digits of the mean, which is up to 60 times the entries.
    np.testing.assert_allclose(back, other, atol=2e-4)
    np.testing.assert_allclose(forth, other, rtol=1e-4, atol=2e-3)


def test_denormalised_rows_have_the_normalisers_mean_and_scale():
    pairs, _, _ = planted(40, 8, seed=0)
    target, _, _ = planted(40, 8, seed=5, common=9.0)
    own = normalise(fit_normaliser(pairs, fitted_on="own"), pairs)
    wanted = fit_normaliser(target, fitted_on="target")
    found = fit_normaliser(denormalise(wanted, own), fitted_on="target")
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_rows_that_are_all_the_same_become_zero():
    pairs = Pairs(np.full((5, 3), 2.0, np.float32), np.full((5, 3), -1.0, np.float32))
    found = normalise(fit_normaliser(pairs, fitted_on="all"), pairs)
    np.testing.assert_array_equal(found.pos, 0)


def test_identity_changes_nothing():
    pairs, _, _ = planted(5, 4, seed=0)
    np.testing.assert_array_equal(normalise(identity_normaliser(4), pairs).neg, pairs.neg)


def test_bad_input_is_named():
    pairs, _, _ = planted(5, 4, seed=0)
    with pytest.raises(ValueError, match=r"pos has shape \(5, 4\) and neg \(4, 4\)"):
        check_shapes(Pairs(pairs.pos, pairs.neg[:4]))
    with pytest.raises(ValueError, match="no hidden state"):
        check_shapes(Pairs(pairs.pos[:0], pairs.neg[:0]))


@pytest.mark.parametrize("value", [1e30, -1e17])
def test_a_state_whose_square_overflows_is_refused(value):
    """It is finite, and so are all scores by a scale that it made infinite: zero."""
    pairs, _, _ = planted(5, 4, seed=0)
    pairs.pos[2, 1] = value
    message = r"'pos' of layer 7, row 2 \(item 'c'\), has the value 1e\+\d+, and 1 of 5 rows"
    with pytest.raises(ValueError, match=message):
        check_finite(pairs, list("abcde"), 7)
    pairs.pos[2, 1] = 1e6
    check_finite(pairs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_check_finite_names_item_layer_and_sign(value):
    pairs, _, _ = planted(5, 4, seed=0)
    check_finite(pairs)
    pairs.neg[3, 1] = value
    message = r"'neg' of layer 7, row 3 \(item 'd'\), is not finite \(1 of 5"
    with pytest.raises(ValueError, match=message):
        check_finite(pairs, list("abcde"), 7)
