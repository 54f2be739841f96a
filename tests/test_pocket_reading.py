"""Reading labels: batches say what is to be worked out, and the model below is not touched."""

import dataclasses
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pocket_words import decode, encoder

from jelicit.pocket import curriculum as curriculum_module
from jelicit.pocket import reading
from jelicit.pocket.corpus import fill_row
from jelicit.pocket.curriculum import Phase
from jelicit.pocket.evaluate import RIVALS, label_reading
from jelicit.pocket.model import PocketConfig, PocketLM, build, deepened, params_of, run_blocks
from jelicit.pocket.reading import (
    BLOCKS,
    ReadingConfig,
    init_reader,
    learn_to_read,
    measure_reading,
    reading_config,
    reading_loss,
    reading_model,
    weights_digest,
)
from jelicit.pocket.reading_corpus import UNKNOWN, ReadingBatch, ReadingCorpus
from jelicit.pocket.train import Batch, last_token_logits, loss
from jelicit.pocket.world.documents import TEXT, VERDICT, documents
from jelicit.pocket.world.torn import ATTRIBUTES, RULES, torn_documents

TINY = PocketConfig(vocab_size=1024, d_model=32, n_layers=2, n_heads=1, d_ff=16, max_positions=1024)
CORPUS = ReadingCorpus(name="read", length=256, rows=4, usual=1)
ASKED = ATTRIBUTES.index("asked")


@pytest.fixture(scope="module")
def base() -> PocketLM:
    return PocketLM(TINY, rngs=nnx.Rngs(params=1))


@pytest.fixture(scope="module")
def batch() -> ReadingBatch:
    return CORPUS.batch(encoder(), 3, 5)


def config_of(base: PocketLM, *, steps: int = 4, **settings: Any) -> ReadingConfig:
    tokens = steps * CORPUS.length * CORPUS.rows / 1e6
    chosen = {"phases": (Phase(corpus=CORPUS, tokens=tokens),), "stack": 2, "measure_every": 2}
    return dataclasses.replace(reading_config(base), **chosen | settings)


# --- batches -------------------------------------------------------------------------------------


def test_usual_rows_are_those_of_the_usual_corpus_and_teach_nothing_else(batch):
    usual = documents(CORPUS.mix, "3/read/5")
    tokens, weights, segments = fill_row(usual, encoder(), CORPUS.length)
    np.testing.assert_array_equal(batch.tokens[0], tokens[:-1])
    np.testing.assert_array_equal(batch.targets[0], tokens[1:])
    same = segments[1:] == segments[:-1]
    np.testing.assert_allclose(batch.weights[0], np.where(same, weights[1:], 0))
    for name in ("slot_values", "verdict_values", "agrees", "rules"):
        assert (getattr(batch, name)[0] == UNKNOWN).all()
    assert not batch.first[0].any()


def test_torn_rows_are_torn_documents_laid_end_to_end(batch):
    source = torn_documents(CORPUS.torn, "3/read/5")
    for row in range(CORPUS.usual, CORPUS.rows):
        for number in itertools.count(1):
            document = next(source)
            inside = batch.segments[row] == number
            shown = decode(batch.tokens[row][inside][1:])  # BOS aside
            whole = "".join(e.prompt + e.word + "\n\n" for e in document.examples)
            assert whole.startswith(shown)
            rules = batch.rules[row][inside]
            assert set(rules[rules != UNKNOWN]) <= {document.rule}
            if shown != whole:  # cut: the row is full, after a whole example
                assert shown.endswith("\n\n") or not shown or inside[-1]
                break
        assert np.mean(batch.segments[row] != 0) > 0.7


def test_what_is_asked_at_a_verdict_is_true_of_it(batch):
    slots = np.argwhere(batch.slot_values[..., ASKED] != UNKNOWN)
    assert len(slots) > 10
    for row, at in slots:
        if at + 1 == CORPUS.length:
            continue
        said = bool(batch.slot_values[row, at, ASKED])
        np.testing.assert_array_equal(batch.slot_values[row, at], batch.verdict_values[row, at + 1])
        word = decode(batch.tokens[row, at + 1 : at + 2])
        assert word in (" True", " False", " Yes", " No")
        verdict = word in (" True", " Yes")
        assert batch.targets[row, at] == batch.tokens[row, at + 1]
        assert bool(batch.agrees[row, at + 1, ASKED]) == (said == verdict)


def test_verdicts_count_from_the_fourth_example_on(batch):
    for row, number in itertools.product(range(1, CORPUS.rows), range(1, 4)):
        inside = batch.segments[row] == number
        weights, first = batch.weights[row][inside], batch.first[row][inside]
        slots = np.flatnonzero((batch.slot_values[row][inside] != UNKNOWN).any(axis=1))
        if len(slots) == 0:
            continue
        assert weights[slots].tolist() == [0.0] * min(3, len(slots)) + [VERDICT] * (len(slots) - 3)
        assert np.flatnonzero(first).tolist() == [slots[0]]
        rules = batch.rules[row][inside]
        assert np.flatnonzero(rules != UNKNOWN).tolist() == slots[3:].tolist()
        assert set(weights[: slots[0]].tolist()) == {np.float32(TEXT)}


def test_a_batch_has_no_more_usual_rows_than_rows():
    with pytest.raises(ValueError, match="usual=5; of 4 rows"):
        ReadingCorpus(name="read", length=64, rows=4, usual=5)


# --- model ---------------------------------------------------------------------------------------


def test_blocks_run_in_two_parts_are_the_whole_model(base, batch):
    params = params_of(base)
    parts = [jax.tree.map(lambda w, at=at: w[at : at + 1], params["blocks"]) for at in (0, 1)]
    x = params["embed"][batch.tokens.reshape(-1)]
    for part in parts:
        x, after = run_blocks(TINY, part, x, length=CORPUS.length, segments=batch.segments)
        np.testing.assert_array_equal(after[-1], x)
    np.testing.assert_allclose(x, base.stream(batch.tokens, batch.segments), atol=1e-6)


def test_blocks_that_write_nothing_leave_the_model_as_it_is(base, batch):
    config = config_of(base)
    state = init_reader(config, base)
    silent = {name: 0 * state.params["blocks"][name] for name in ("o", "down")}
    params = deepened(params_of(base), state.params["blocks"] | silent, state.params["final_norm"])
    deep = build(config.model, params)
    assert params["blocks"]["q"].shape[0] == TINY.n_layers + BLOCKS
    np.testing.assert_allclose(
        deep(batch.tokens, batch.segments), base(batch.tokens, batch.segments), atol=1e-5
    )


# --- loss ----------------------------------------------------------------------------------------


def changed(base: PocketLM, seed: int = 0) -> tuple[ReadingConfig, Any]:
    """Weights of a reader that has moved away from the base."""
    config = config_of(base, seed=seed)
    state = init_reader(config, base)
    moved = {name: 200 * state.params["blocks"][name] for name in ("o", "down")}
    params = state.params | {"blocks": state.params["blocks"] | moved}
    return config, dataclasses.replace(state, params=params)


def test_without_guides_and_first_verdicts_it_is_the_loss_of_the_deepened_model(base, batch):
    _, state = changed(base)
    plain = batch._replace(first=np.zeros_like(batch.first))
    expected = loss(
        reading_model(state, base),
        Batch(batch.tokens, batch.targets, batch.weights, batch.segments),
    )
    assert float(reading_loss(base, state.params, plain, 0.0)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_first_verdicts_are_held_to_the_model_below(base, batch):
    _, state = changed(base)
    said = jax.nn.log_softmax(base(batch.tokens, batch.segments))
    says = jax.nn.log_softmax(reading_model(state, base)(batch.tokens, batch.segments))
    apart = np.sum(np.exp(said) * (said - says), axis=-1)[batch.first == 1].mean()
    silent = batch._replace(first=np.zeros_like(batch.first))
    more = [float(reading_loss(base, state.params, each, 0.0)) for each in (batch, silent)]
    assert apart > 0.005
    assert more[0] - more[1] == pytest.approx(float(apart), rel=1e-3)


def test_guides_are_cross_entropies_of_linear_readouts(base, batch):
    _, state = changed(base)
    x = base.stream(batch.tokens, batch.segments)
    _, after = run_blocks(
        TINY, state.params["blocks"], x, length=CORPUS.length, segments=batch.segments
    )
    after = np.asarray(after, np.float64)
    after /= np.sqrt(np.mean(after**2, axis=-1, keepdims=True) + 1e-5)
    total = 0.0
    for name, block in (("slot_values", 0), ("verdict_values", 0), ("agrees", 1)):
        logits = after[block] @ np.asarray(state.params[f"guide_{name}"], np.float64)
        wanted = getattr(batch, name).reshape(-1, len(ATTRIBUTES))
        known = wanted != UNKNOWN
        chance = 1 / (1 + np.exp(-logits))
        total += -np.log(np.where(wanted == 1, chance, 1 - chance))[known].mean()
    logits = after[2] @ np.asarray(state.params["guide_rules"], np.float64)
    wanted = batch.rules.reshape(-1)
    known = wanted != UNKNOWN
    normal = np.log(np.exp(logits).sum(axis=1))
    total += (normal - logits[np.arange(len(logits)), wanted])[known].mean()
    with_guides, without = (
        float(reading_loss(base, state.params, batch, guides)) for guides in (0.7, 0.0)
    )
    assert (with_guides - without) / 0.7 == pytest.approx(float(total), rel=1e-3)
    assert len(RULES) == state.params["guide_rules"].shape[1]


# --- the run -------------------------------------------------------------------------------------


def test_the_base_is_left_as_it_is_and_what_is_new_learns(base, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "measure_reading", lambda model, encode: {})
    below = jax.tree.map(np.array, params_of(base))
    config = config_of(base, steps=30, stack=10, measure_every=10)
    model, progress = learn_to_read(config, base, encoder(), tmp_path)
    for ours, theirs in zip(
        jax.tree.leaves(below["blocks"]), jax.tree.leaves(params_of(model)["blocks"]), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs[: TINY.n_layers])
        assert len(theirs) == TINY.n_layers + BLOCKS
    np.testing.assert_array_equal(below["embed"], params_of(model)["embed"])
    losses = [value for _, value in progress.losses]
    assert losses[-1] < losses[0]


def test_a_stopped_run_ends_as_an_undisturbed_one(base, tmp_path, monkeypatch):
    monkeypatch.setattr(
        reading,
        "measure_reading",
        lambda model, encode: {"some": float(jnp.sum(jnp.abs(params_of(model)["final_norm"])))},
    )
    config = config_of(base, steps=6)
    model, progress = learn_to_read(config, base, encoder(), tmp_path / "undisturbed")

    def stop(progress: Any, config: Any) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_to_read(config, base, encoder(), tmp_path / "stopped", report=stop)
    again, history = learn_to_read(config, base, encoder(), tmp_path / "stopped")
    for ours, theirs in zip(
        jax.tree.leaves(params_of(model)), jax.tree.leaves(params_of(again)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert dataclasses.replace(history, seconds=0) == dataclasses.replace(progress, seconds=0)


def test_a_run_of_another_base_is_refused(base, tmp_path):
    other = PocketLM(TINY, rngs=nnx.Rngs(params=2))
    assert weights_digest(base) != weights_digest(other)
    with pytest.raises(ValueError, match="make its settings with reading_config of this model"):
        learn_to_read(config_of(base), other, encoder(), tmp_path)


def test_measures_are_the_models_own_at_sixteen_examples(base):
    found = measure_reading(base, encoder(), n=6)
    logits = partial(last_token_logits, base)
    for rival in RIVALS:
        alone = label_reading(logits, encoder(), rival, shots=16, n=6)
        assert found[f"label_reading/{rival}"] == alone
    assert "zero_shot/facts" in found
    assert set(curriculum_module.measure(logits, encoder(), few_shot=False)) < set(found)
