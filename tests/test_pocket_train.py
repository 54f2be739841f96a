"""Training the pocket model: its loss, its optimiser, its checkpoints."""

import dataclasses
import shutil
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jelicit.pocket.model import PocketConfig, build
from jelicit.pocket.train import (
    Batch,
    OptimiserConfig,
    init_state,
    last_token_logits,
    loss,
    restore_checkpoint,
    save_checkpoint,
    train_steps,
)

TINY = PocketConfig(vocab_size=50, d_model=64, n_layers=2, n_heads=2, d_ff=48, max_positions=256)
PLAIN = OptimiserConfig(warmup_steps=0)


def _batches(k=3, b=4, t=24, seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TINY.vocab_size, (k, b, t + 1)).astype(np.int32)
    segments = np.broadcast_to(np.repeat([1, 2, 0], t // 3), (k, b, t)).astype(np.int32)
    weights = rng.choice([0.0, 0.1, 1.0], (k, b, t)).astype(np.float32) * (segments > 0)
    return Batch(tokens[..., :-1], tokens[..., 1:], weights, segments)


def _first(batches: Batch) -> Batch:
    return Batch(*(field[0] for field in batches))


def _equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)  # train_steps takes the buffers of its argument


def _moved(optimiser: OptimiserConfig) -> dict[str, float]:
    """Largest change of each weight in one step, by name."""
    state = init_state(TINY, optimiser, seed=0)
    before = jax.tree.map(np.array, state.params)
    after, _ = train_steps(state, _batches(k=1), jnp.ones(1))
    change = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), before, dict(after.params))
    return {**change.pop("blocks"), **change}


# ------------------------------------------------------------- loss


def test_loss_is_the_weighted_cross_entropy_of_torch():
    torch = pytest.importorskip("torch", reason="torch comes with the extract extra")
    state, batch = init_state(TINY, PLAIN, seed=0), _first(_batches())
    params = jax.tree.map(lambda x: 5 * x, state.params)  # away from uniform predictions
    model = build(TINY, params)
    logits = np.array(model(batch.tokens, batch.segments)).reshape(-1, TINY.vocab_size)
    nll = torch.nn.functional.cross_entropy(
        torch.tensor(logits, dtype=torch.float64),
        torch.tensor(batch.targets.reshape(-1), dtype=torch.long),
        reduction="none",
    ).numpy()
    expected = (nll * batch.weights.reshape(-1)).sum() / batch.weights.sum()
    np.testing.assert_allclose(loss(model, batch), expected, rtol=1e-5)


def test_loss_of_uniform_predictions_is_log_vocabulary_whatever_the_weights():
    state = init_state(TINY, PLAIN, seed=0)
    params = {**state.params, "embed": jnp.zeros_like(state.params["embed"])}
    for scale in (1.0, 7.0):
        batch = _first(_batches())
        batch = batch._replace(weights=scale * batch.weights)
        np.testing.assert_allclose(loss(build(TINY, params), batch), np.log(50), rtol=1e-6)
    nothing = batch._replace(weights=0 * batch.weights)
    assert loss(build(TINY, params), nothing) == 0


def test_ignored_targets_and_padding_have_no_influence_on_the_gradient():
    params, batch = init_state(TINY, PLAIN, seed=0).params, _first(_batches())

    @jax.jit
    def gradient(batch):
        return jax.grad(lambda p: loss(build(TINY, p), batch))(params)

    ignored, padding = batch.weights == 0, batch.segments == 0
    other = batch._replace(
        targets=np.where(ignored, (batch.targets + 1) % 50, batch.targets),
        tokens=np.where(padding, (batch.tokens + 1) % 50, batch.tokens),
    )
    reference = gradient(batch)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), reference, gradient(other)
    )
    counted = batch._replace(targets=np.where(ignored, batch.targets, (batch.targets + 1) % 50))
    assert np.abs(reference["embed"] - gradient(counted)["embed"]).max() > 1e-4


# ------------------------------------------------------------- optimiser


def test_muon_moves_the_matrices_and_adamw_the_rest():
    rest = {"embed", "final_norm", "attn_norm", "mlp_norm"}
    without_muon = _moved(dataclasses.replace(PLAIN, muon_lr=0.0))
    assert {name for name, change in without_muon.items() if change} == rest
    without_adam = _moved(dataclasses.replace(PLAIN, adam_lr=0.0))
    kernels = {"q", "k", "v", "o", "gate", "up", "down"}
    assert {name for name, change in without_adam.items() if change} == kernels


def test_muon_orthogonalises_each_layer_by_itself():
    state = init_state(TINY, PLAIN, seed=0)
    before = jax.tree.map(np.array, state.params["blocks"])
    after, _ = train_steps(state, _batches(k=1), jnp.ones(1))
    for name in ("v", "o", "up", "down"):
        update = (np.array(after.params["blocks"][name]) - before[name]) / PLAIN.muon_lr
        fan_in, fan_out = update.shape[1:]
        values = np.linalg.svd(update, compute_uv=False) / max(1, fan_out / fan_in) ** 0.5
        # Five Newton-Schulz steps leave singular values near 1 (Jordan 2024: 0.7 to 1.2). Two
        # documents of 8 tokens in 4 rows cannot fill every direction: look at the large half.
        large = values[:, : values.shape[1] // 2]
        assert large.shape[0] == TINY.n_layers
        assert (large > 0.6).all()
        assert (large < 1.3).all()


def test_rate_factor_and_warm_up_scale_the_update():
    def update(factor, warmup):
        state = init_state(TINY, dataclasses.replace(PLAIN, warmup_steps=warmup), seed=0)
        before = jax.tree.map(np.array, state.params)
        after, _ = train_steps(state, _batches(k=1), jnp.full(1, factor))
        return jax.tree.map(lambda x, y: np.array(y) - x, before, dict(after.params))

    def assert_scaled(found, factor):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, factor * y, atol=2e-7), found, whole
        )

    whole = update(1.0, 0)
    assert_scaled(update(0.25, 0), 0.25)
    assert_scaled(update(0.0, 0), 0.0)
    assert_scaled(update(1.0, 10), 0.1)


def test_weight_decay_shrinks_matrices_only():
    def params_after(decay):
        state = init_state(TINY, dataclasses.replace(PLAIN, weight_decay=decay), seed=0)
        return train_steps(state, _batches(k=1), jnp.ones(1))[0].params

    start, plain, decayed = init_state(TINY, PLAIN, 0).params, params_after(0.0), params_after(0.5)
    expected = plain["blocks"]["q"] - PLAIN.muon_lr * 0.5 * start["blocks"]["q"]
    np.testing.assert_allclose(decayed["blocks"]["q"], expected, atol=1e-7)
    np.testing.assert_array_equal(decayed["embed"], plain["embed"])
    np.testing.assert_array_equal(decayed["blocks"]["mlp_norm"], plain["blocks"]["mlp_norm"])


# ------------------------------------------------------------- steps


def test_stacked_steps_are_single_steps_and_any_schedule_is_one_program():
    batches, factors = _batches(k=3), np.array([1.0, 0.5, 0.25], np.float32)
    together, losses = train_steps(init_state(TINY, PLAIN, 0), batches, factors)
    state, singles = init_state(TINY, PLAIN, 0), []
    for n in range(3):
        one = Batch(*(field[n : n + 1] for field in batches))
        state, value = train_steps(state, one, factors[n : n + 1])
        singles.append(float(value[0]))
    np.testing.assert_allclose(losses, singles, rtol=1e-5)
    assert int(state.step) == int(together.step) == 3
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), state.params, together.params
    )
    programs = cast(Any, train_steps)._cache_size()
    train_steps(init_state(TINY, PLAIN, 1), batches, factors[::-1].copy())
    assert cast(Any, train_steps)._cache_size() == programs


def test_a_seed_decides_the_weights():
    assert _equal(init_state(TINY, PLAIN, 3).params, init_state(TINY, PLAIN, 3).params)
    assert not _equal(init_state(TINY, PLAIN, 3).params, init_state(TINY, PLAIN, 4).params)


def test_a_tiny_corpus_is_learned_by_heart():
    batches = _batches(k=1, b=2)
    everything = batches._replace(weights=(batches.segments > 0).astype(np.float32))
    repeated = Batch(*(np.repeat(field, 80, axis=0) for field in everything))
    _, losses = train_steps(init_state(TINY, PLAIN, 0), repeated, np.linspace(1, 0.1, 80))
    assert losses[0] > 3.5
    # The first token of a document says little about the second; all others are determined.
    assert losses[-1] < 0.3


# ------------------------------------------------------------- evaluation


def test_last_token_logits_are_those_at_the_last_token():
    state = init_state(TINY, PLAIN, 0)
    tokens = np.random.default_rng(0).integers(0, 50, (3, 70))
    lengths = np.array([1, 70, 64])
    found = last_token_logits(state, tokens, lengths, batch_tokens=300, precision="highest")
    with jax.default_matmul_precision("highest"):
        for row, length, logits in zip(tokens, lengths, found, strict=True):
            expected = state.model()(jnp.asarray(row[None, :length]))[0, -1]
            np.testing.assert_allclose(logits, expected, atol=1e-5)
    again = last_token_logits(state.model(), tokens, lengths)
    np.testing.assert_allclose(found, again, atol=1e-2)


@pytest.mark.parametrize("length", [0, 6])
def test_lengths_outside_the_prompt_are_refused(length):
    state = init_state(TINY, PLAIN, 0)
    with pytest.raises(ValueError, match="need lengths from 1"):
        last_token_logits(state, np.zeros((1, 5)), [length])


# ------------------------------------------------------------- checkpoints


def test_a_resumed_run_is_bitwise_the_undisturbed_one(tmp_path):
    rounds = [_batches(seed=n) for n in range(4)]
    factors = np.array([1.0, 0.7, 0.4], np.float32)
    state = init_state(TINY, OptimiserConfig(), 0)
    for n, batches in enumerate(rounds):
        state, _ = train_steps(state, batches, factors)
        if n == 1:
            save_checkpoint(tmp_path, state, {"round": n})
    resumed = restore_checkpoint(tmp_path, init_state(TINY, OptimiserConfig(), 99))
    assert resumed is not None
    other, progress = resumed
    assert progress == {"round": 1}
    for batches in rounds[2:]:
        other, _ = train_steps(other, batches, factors)
    chex.assert_trees_all_equal(state, other)


def _run_with_checkpoints(folder, rounds=4):
    state, states = init_state(TINY, PLAIN, 0), {}
    for n in range(rounds):
        state, _ = train_steps(state, _batches(seed=n), np.ones(3))
        save_checkpoint(folder, state, {"round": n})
        states[n] = _copy(state)
    return states


def test_the_newest_two_checkpoints_stay(tmp_path):
    _run_with_checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["12", "9"]


def test_a_damaged_checkpoint_is_skipped_and_replaced(tmp_path):
    states = _run_with_checkpoints(tmp_path)
    for file in (tmp_path / "12" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[:50])
    restored = restore_checkpoint(tmp_path, init_state(TINY, PLAIN, 1))
    assert restored is not None
    assert restored[1] == {"round": 2}
    assert _equal(restored[0], states[2])
    # The run goes on over the damaged one.
    save_checkpoint(tmp_path, states[3], {"round": 33})
    again = restore_checkpoint(tmp_path, init_state(TINY, PLAIN, 1))
    assert again is not None
    assert again[1] == {"round": 33}
    assert _equal(again[0], states[3])


def test_an_interrupted_write_is_not_a_checkpoint(tmp_path):
    states = _run_with_checkpoints(tmp_path)
    half = tmp_path / "15.orbax-checkpoint-tmp"  # the name a write has until it is complete
    shutil.copytree(tmp_path / "12", half)
    restored = restore_checkpoint(tmp_path, init_state(TINY, PLAIN, 1))
    assert restored is not None
    assert _equal(restored[0], states[3])


def test_no_checkpoint_is_none(tmp_path):
    state = init_state(TINY, PLAIN, 0)
    assert restore_checkpoint(tmp_path / "absent", state) is None
    assert restore_checkpoint(tmp_path, state) is None


def test_a_checkpoint_of_other_settings_is_refused_naming_them(tmp_path):
    _run_with_checkpoints(tmp_path, rounds=1)
    wider = init_state(dataclasses.replace(TINY, d_ff=64), PLAIN, 0)
    with pytest.raises(ValueError, match=r"config\.d_ff: 48 in the checkpoint, 64 asked for"):
        restore_checkpoint(tmp_path, wider)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"muon_lr": -1.0}, "muon_lr is -1"),
        ({"adam_b2": 1.0}, "adam_b2 is 1"),
        ({"clip": 0.0}, "clip"),
    ],
)
def test_impossible_optimiser_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimiserConfig(**settings)
