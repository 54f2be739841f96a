import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.probes.ensembles import (
    Members,
    consensus_weights,
    e2h_weights,
    member_scores,
    present_members,
    scale_by_variance,
    weighted_ensemble,
)
from jelicit.probes.linear import LinearProbe, score
from jelicit.probes.normalise import fit_normaliser

ALL = jnp.ones(4)


def test_consensus_flips_by_the_running_mean():
    scores = jnp.asarray(
        [
            [1.0, 1.0, -1.0, -1.0],  # first: +1. Running sum [1, 1, -1, -1].
            [-2.0, -2.0, 3.0, -1.0],  # agrees on the last row only, 1/4: -1. Sum [3, 3, -4, 0].
            [1.0, -1.0, 1.0, -1.0],  # row 1 agrees; a sum of 0 counts as negative, so does row 4:
            #                          2/4, not fewer than half: +1. Sum [4, 2, -3, -1].
            [-1.0, -1.0, 1.0, 5.0],  # agrees nowhere: -1. Sum [5, 3, -4, -6].
            [9.0, 9.0, 9.0, -9.0],  # agrees on 3/4: +1.
        ]
    )
    np.testing.assert_allclose(consensus_weights(scores, ALL), np.array([1, -1, 1, -1, 1]) / 5)


def test_consensus_goes_by_the_mean_and_not_by_a_vote_or_the_first_member():
    scores = jnp.asarray(
        [
            [1.0, 1.0, 1.0, 1.0],  # +1
            [-5.0, -5.0, 1.0, 1.0],  # agrees on 2/4: +1. Sum [-4, -4, 2, 2].
            [1.0, 1.0, -1.0, 1.0],  # agrees with the sum on 1/4 (with the first on 3/4): -1.
        ]
    )
    np.testing.assert_allclose(consensus_weights(scores, ALL), np.array([1, 1, -1]) / 3)


def test_consensus_looks_at_the_chosen_rows_alone():
    scores = jnp.asarray([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, 1.0]])
    assert consensus_weights(scores, ALL)[1] == -0.5
    # On the last row the two agree.
    assert consensus_weights(scores, jnp.asarray([0.0, 0.0, 0.0, 1.0]))[1] == 0.5


def test_absent_members_are_left_out_of_both_weightings():
    scores = jnp.asarray([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])
    present = jnp.asarray([False, True, True])
    np.testing.assert_allclose(consensus_weights(scores, ALL, present), [0, 0.5, -0.5])
    weights = e2h_weights(jnp.asarray([0.5, 0.7, 0.7]), present=present)
    np.testing.assert_allclose(weights, [0, 0.5, 0.5])
    members = LinearProbe(
        weight=jnp.asarray([[0.0, 0.0], [0.0, 1.0]]), bias=jnp.zeros(2), offset=jnp.zeros(2)
    )
    assert present_members(members).tolist() == [False, True]


def test_e2h_weights_by_hand():
    # (AUROC - 0.5) / T = 0, 1, 2 at T = 0.1: weights 1, e, e^2 over 1 + e + e^2.
    found = e2h_weights(jnp.asarray([0.5, 0.6, 0.7]))
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # At T = 0.2 the exponents are 0, 1/2, 1.
    expected = np.exp([0, 0.5, 1]) / np.exp([0, 0.5, 1]).sum()
    found = e2h_weights(jnp.asarray([0.5, 0.6, 0.7]), temperature=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def members_and_pairs():
    pairs, _, _ = planted(40, 8, seed=0, common=0.0)
    normaliser = fit_normaliser(pairs, fitted_on="all")
    members = LinearProbe(
        weight=jax.random.normal(jax.random.key(0), (3, 8)),
        bias=jnp.asarray([1.0, 2.0, 3.0]),
        offset=jnp.asarray([0.1, 0.2, 0.3]),
    )
    return members, normaliser, pairs


def test_the_ensemble_scores_as_its_weighted_members():
    members, normaliser, pairs = members_and_pairs()
    scores = member_scores(members, normaliser, pairs)
    weights = jnp.asarray([0.2, -0.3, 0.5])
    probe, info = weighted_ensemble(members, weights)
    # Scores are about 0.5, in float32.
    np.testing.assert_allclose(score(probe, normaliser, pairs), weights @ scores, atol=1e-6)
    assert info.finite


def test_scaled_members_have_deviation_one_on_the_chosen_rows():
    members, normaliser, pairs = members_and_pairs()
    rows = jnp.asarray(np.arange(40) < 25, jnp.float32)
    scores = member_scores(members, normaliser, pairs)
    scaled = member_scores(
        scale_by_variance(Members(members, scores, rows)).probes, normaliser, pairs
    )
    np.testing.assert_allclose(np.std(scaled[:, :25], axis=1), 1, rtol=1e-5)
    # Only the scale changes.
    ratio = np.asarray(scaled / scores)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-3)


def test_a_member_without_variance_stays_as_it_is():
    members = LinearProbe(weight=jnp.ones((1, 2)), bias=jnp.ones(1), offset=jnp.ones(1))
    kept = scale_by_variance(Members(members, jnp.zeros((1, 4)), ALL)).probes
    assert kept.weight[0, 0] == pytest.approx(1.0)
