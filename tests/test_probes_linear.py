import jax
import jax.numpy as jnp
import numpy as np
from planted import planted

from jelicit.probes.linear import LinearProbe, combine, score, score_folded, unfold
from jelicit.probes.normalise import fit_normaliser, normalise

PAIRS, _, _ = planted(50, 16, seed=0)
NORMALISER = fit_normaliser(PAIRS.take(slice(20)), fitted_on="first 20")
MEMBERS = LinearProbe(
    weight=jax.random.normal(jax.random.key(0), (3, 16)),
    bias=jnp.asarray([0.1, -0.2, 0.3]),
    offset=jnp.asarray([0.01, 0.02, -0.03]),
)


def member(m: int) -> LinearProbe:
    return jax.tree.map(lambda leaf: leaf[m], MEMBERS)


def test_score_is_the_difference_of_the_signs_less_the_offset():
    phi, probe = normalise(NORMALISER, PAIRS), member(0)
    pos = np.asarray(phi.pos, np.float64) @ np.asarray(probe.weight) + 0.1
    neg = np.asarray(phi.neg, np.float64) @ np.asarray(probe.weight) + 0.1
    # Scores are about 0.3; float32 sums of 16 terms.
    np.testing.assert_allclose(score(probe, NORMALISER, PAIRS), pos - neg - 0.01, atol=1e-6)


def test_folded_and_unfolded_scores_are_the_scores():
    probe = member(1)
    expected = score(probe, NORMALISER, PAIRS)
    # Raw states are 5 where the spread is 1, hence an error some ten times that of `score`.
    np.testing.assert_allclose(score_folded(probe, NORMALISER, PAIRS), expected, atol=1e-5)
    raw = unfold(probe, NORMALISER)
    found = PAIRS.pos @ raw.pos - PAIRS.neg @ raw.neg + raw.constant
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_combination_scores_as_the_members_combined():
    weights = jnp.asarray([0.5, -1.0, 2.0])
    each = jnp.stack([score(member(m), NORMALISER, PAIRS) for m in range(3)])
    combined = score(combine(MEMBERS, weights), NORMALISER, PAIRS)
    np.testing.assert_allclose(combined, weights @ each, atol=1e-5)
