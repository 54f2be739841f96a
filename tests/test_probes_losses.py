import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jelicit.probes.losses import bce_loss, ccs_loss, weighted_mean

RNG = np.random.default_rng(0)
POS, NEG = 3 * RNG.normal(size=40), 3 * RNG.normal(size=40)
POS[:5] = NEG[:5]  # p+ = p-: the kink of the minimum
TARGETS = RNG.choice([0.0, 0.5, 1.0], size=40)
CHOSEN = RNG.random(40) < 0.6


def torch_ccs(pos, neg):
    p, q = torch.sigmoid(pos), torch.sigmoid(neg)
    return ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()


def torch_bce(pos, neg, targets):
    logits, targets = torch.cat([pos, neg]), torch.cat([targets, 1 - targets])
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)


def torch_value_and_gradients(loss, *args):
    pos, neg = (torch.tensor(x[CHOSEN], requires_grad=True) for x in (POS, NEG))
    value = loss(pos, neg, *(torch.tensor(x[CHOSEN]) for x in args))
    value.backward()
    assert pos.grad is not None
    assert neg.grad is not None
    return value.item(), pos.grad.numpy(), neg.grad.numpy()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("ours", "theirs", "args"), [(ccs_loss, torch_ccs, ()), (bce_loss, torch_bce, (TARGETS,))]
)
def test_losses_and_gradients_equal_torch_on_the_chosen_rows(ours, theirs, args):
    weights = jnp.asarray(CHOSEN, float)
    value, gradients = jax.value_and_grad(ours, argnums=(0, 1))(
        jnp.asarray(POS), jnp.asarray(NEG), *map(jnp.asarray, args), weights
    )
    expected = torch_value_and_gradients(theirs, *args)
    # Double precision on both sides: only the order of summation differs.
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    for found, wanted in zip(gradients, expected[1:], strict=True):
        np.testing.assert_allclose(found[CHOSEN], wanted, rtol=1e-10, atol=1e-15)
        np.testing.assert_array_equal(found[~CHOSEN], 0)


def test_ccs_of_an_undecided_probe():
    # p+ = p- = 1/2: consistent, but (1/2)^2 for not being sure.
    assert ccs_loss(jnp.zeros(3), jnp.zeros(3), jnp.ones(3)) == 0.25


def test_ccs_is_zero_where_claim_and_denial_are_sure_and_opposite():
    big = jnp.asarray([60.0, -60.0])
    assert ccs_loss(big, -big, jnp.ones(2)) < 1e-20


def test_bce_stays_finite_and_right_for_huge_logits():
    # A sure mistake costs its logit: -log sigmoid(-500) = 500; the other row costs 0.
    pos, neg = jnp.asarray([-500.0]), jnp.asarray([-500.0])
    assert bce_loss(pos, neg, jnp.ones(1), jnp.ones(1)) == pytest.approx(250.0)


def test_target_one_half_pulls_logits_to_zero():
    def loss(logit):
        return bce_loss(logit[None], -logit[None], jnp.full(1, 0.5), jnp.ones(1))

    assert jax.grad(loss)(jnp.asarray(0.0)) == 0
    assert jax.grad(loss)(jnp.asarray(1.0)) > 0 > jax.grad(loss)(jnp.asarray(-1.0))


def test_weighted_mean_by_hand():
    # (1 * 10 + 3 * 20) / 4
    assert weighted_mean(jnp.asarray([10.0, 20.0]), jnp.asarray([1.0, 3.0])) == 17.5
