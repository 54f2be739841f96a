"""Hidden states and log-probabilities against a plain loop without batching or cache."""

import dataclasses
import functools
import inspect
import os
import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tiny_models import (
    CONFIGS,
    CONTEXT,
    ROOT,
    make_items,
    random_weights,
    sentencepiece_like,
    tiny,
    tokenizer,
)
from tokenizers.normalizers import Lowercase
from transformers import AddedToken, GPTNeoConfig, LlamaConfig, T5Config, T5ForConditionalGeneration

from extract import digests, hidden_states, load_errors, models
from extract.hidden_states import extract, plan, resolve_layers
from extract.models import choose_threads, load, wrap
from extract.passes import Separate, Shared, can_share, longest, shared_prefix
from extract.verdicts import Encoded, bos, byte_share, encode
from jelicit.activations import ActivationStore
from jelicit.data.datasets import load_dataset
from jelicit.data.prompts import FORMATS, PromptFormat, get_format

CLAIM = FORMATS["claim"]
LONG_WORDS = PromptFormat(
    name="long", text=CLAIM.text, true_word=" surely so", false_word=" not at all, never"
)
SYSTEM = PromptFormat(name="system", text=CLAIM.text, system="Judge the claims.")
LAYERS = (0, 1, 3)
LLAMA = tiny("llama")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@torch.inference_mode()
def plain(lm, prompt, verdict):
    """One sequence, nothing padded, every state and logit kept: (states per layer, log P)."""
    outputs = lm.model(torch.tensor([[*prompt, *verdict]]), output_hidden_states=True)
    log_p = outputs.logits[0].float().log_softmax(-1)
    total = sum(log_p[len(prompt) - 1 + k, token].item() for k, token in enumerate(verdict))
    return {layer: outputs.hidden_states[layer][0, -1].float() for layer in LAYERS}, total


def random_batch(n):
    """Prompts of 1 to 40 tokens with verdicts of 1 to 3, mixed inside one batch."""
    rng = random.Random(0)
    verdicts = [((5,), (9,)), ((5, 6, 7), (9,)), ((5, 6), (9, 10))]
    return [
        Encoded(tuple(rng.randrange(2, 300) for _ in range(length)), rng.choice(verdicts))
        for length in [20, 1, 40, 3, 9, 8, 27, 7][:n]
    ]


def read(way, batch, layers=LAYERS):
    return way.read(way.arrange(batch), layers)


def assert_same(found, lm, batch):
    for row, item in enumerate(batch):
        for side, verdict in enumerate(item.verdicts):
            states, log_prob = plain(lm, item.prompt, verdict)
            for layer in LAYERS:
                got = found.states[layer][side][row].float()
                np.testing.assert_allclose(got, states[layer], atol=1e-4, rtol=0)
            assert found.log_probs[row, side].item() == pytest.approx(log_prob, abs=1e-4)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_pass_gives_the_numbers_of_a_plain_loop(kind, n):
    lm, batch = tiny(kind), random_batch(n)
    assert_same(read(Separate(lm), batch), lm, batch)
    assert_same(read(Separate(lm, padding="right"), batch), lm, batch)
    # Recurrent states cannot branch, and ALiBi is made from a mask of another form.
    assert can_share(lm) == (kind not in ("mamba", "bloom"))
    if can_share(lm):
        assert_same(read(Shared(lm), batch), lm, batch)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ("mamba", "bloom")])
def test_a_prefix_that_is_read_once_changes_no_number(kind):
    """Longer than the sliding windows, and not; with items that begin alike beyond it."""
    lm, prefix = tiny(kind), tuple(range(30, 60))
    batch = [Encoded(prefix + item.prompt, item.verdicts) for item in random_batch(8)]
    batch.append(Encoded((*batch[0].prompt[:-4], 7, 8), batch[0].verdicts))
    for length in (1, 20, 30):
        way = Shared(lm, prefix[:length])
        assert_same(read(way, batch[:2]), lm, batch[:2])  # reads the prefix
        assert_same(read(way, batch), lm, batch)  # finds it read


@pytest.mark.parametrize(
    ("name", "other"), [("cache", "past_key_values"), ("past_key_values", "cache")]
)
def test_a_cache_goes_by_the_name_that_the_model_has_for_it(name, other):
    """transformers 5.24 renamed it, and warns where the old name is used."""
    lm, prefix = tiny(), tuple(range(30, 60))
    forward, handed = lm.model.forward, []
    signature = inspect.signature(forward)
    own = "cache" if "cache" in signature.parameters else "past_key_values"

    def renamed(*texts, **given):
        assert other not in given
        cache = given.pop(name, None)
        handed.append(cache is not None)
        return forward(*texts, **given, **{own: cache})

    parameters = [
        p.replace(name=name) if p.name == own else p for p in signature.parameters.values()
    ]
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    lm.model.forward = renamed
    batch = [Encoded(prefix + item.prompt, item.verdicts) for item in random_batch(2)]
    assert_same(read(Shared(lm, prefix), batch), lm, batch)
    assert any(handed)


def test_attention_that_adds_its_mask_gives_the_same_numbers():
    lm, batch = tiny("llama"), random_batch(8)
    lm.model.set_attn_implementation("eager")
    assert can_share(lm)
    assert_same(read(Shared(lm), batch), lm, batch)


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_rounding_of_large_logits_in_half_precision_is_no_disagreement(kind):
    loud = tiny(kind, dtype=torch.bfloat16)
    with torch.no_grad():
        loud.model.get_output_embeddings().weight *= 100
    ids = tuple(range(1, 30))
    batch = [Encoded(ids, ((30,), (31,)))]
    # Logits of some tens are rounded to tenths.
    assert read(Separate(loud), batch).log_probs.abs().max() > 20
    assert can_share(loud) == (kind == "llama")


def test_a_model_that_takes_no_mask_of_ours_is_found_out():
    lm = tiny("llama")
    forward = lm.model.model.forward

    def ignores_it(*args, attention_mask=None, **kwargs):
        return forward(*args, attention_mask=None, **kwargs)

    lm.model.model.forward = ignores_it
    assert not can_share(lm)


def test_what_items_share_is_read_once(monkeypatch):
    lm = tiny("llama")
    question = tuple(range(40, 80))
    batch = [Encoded((*question, *range(n, n + 5)), ((5,), (9, 10))) for n in (100, 200, 300)]
    way = Shared(lm)
    (row,) = way.arrange(batch).rows
    assert len(row.ids) == 40 + 3 * (5 + 1 + 2)
    seen = []
    monkeypatch.setattr(lm.model, "forward", spy(lm.model.forward, seen))
    assert_same(read(way, batch), tiny("llama"), batch)
    assert [kwargs["input_ids"].shape for kwargs in seen] == [(1, len(row.ids))]
    way = Shared(lm, shared_prefix(batch))
    read(way, batch)
    read(way, batch[:1])
    shapes = [tuple(kwargs["input_ids"].shape) for kwargs in seen[1:]]
    assert shapes == [(1, 40), (3, 8), (1, 8)]  # the question only once


def spy(call, seen):
    """The same call, which notes its keyword arguments."""

    @functools.wraps(call)
    def noted(*args, **kwargs):
        seen.append(kwargs)
        return call(*args, **kwargs)

    return noted


def test_logits_are_computed_where_a_verdict_is_predicted_and_nowhere_else():
    lm, batch = tiny("llama"), random_batch(8)
    shapes = []
    lm.model.lm_head.register_forward_hook(lambda _m, _i, out: shapes.append(out.shape[:-1]))
    read(Shared(lm), batch)
    # The first token of both verdicts is predicted by the same column.
    tokens = [{v[:k] for v in item.verdicts for k in range(len(v))} for item in batch]
    assert shapes == [(1, sum(map(len, tokens)))]


def test_layer_indices_mean_embeddings_block_outputs_and_the_normed_end():
    lm, seen = tiny("llama"), {}
    item = random_batch(1)[0]
    inner = lm.model.model
    for number, block in enumerate(inner.layers, start=1):
        block.register_forward_hook(lambda _m, _i, out, number=number: seen.update({number: out}))
    lm.model(torch.tensor([item.prompt + item.verdicts[0]]))
    ends = {
        0: inner.embed_tokens(torch.tensor(item.verdicts[0][-1])),
        1: seen[1][0, -1],
        2: seen[2][0, -1],
        3: inner.norm(seen[3])[0, -1],
    }
    found = read(Shared(lm), [item], (0, 1, 2, 3)).states
    for layer, expected in ends.items():
        np.testing.assert_allclose(found[layer][0][0], expected.detach(), atol=1e-4)


# --- whole stores --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_bos", [True, False])
@pytest.mark.parametrize("format", [CLAIM, LONG_WORDS, SYSTEM, FORMATS["claim_icm"]])
def test_a_store_holds_the_plain_loops_numbers_in_item_order(tmp_path, format, with_bos):
    lm, items = tiny(bos=with_bos), make_items()
    store = extract(
        lm, items, format, tmp_path, layers=LAYERS, token_budget=300, shard_size=4, progress=False
    )
    assert max(len(batch) for shard in store.spec.batch_plan for batch in shard) > 1
    assert store.items == items
    for row, item in enumerate(items):
        text = format.text.format(question=item.question, choice=item.choice)
        ids = [0] if with_bos else []
        for segment in [*([format.system + "\n\n"] if format.system else []), text]:
            ids += lm.tokenizer(segment, add_special_tokens=False)["input_ids"]
        for side, word in enumerate((format.true_word, format.false_word)):
            verdict = lm.tokenizer(word, add_special_tokens=False)["input_ids"]
            states, log_prob = plain(lm, ids, verdict)
            for layer in LAYERS:
                got = store.pairs(layer)[side][row]
                np.testing.assert_allclose(got, states[layer], atol=1e-4, rtol=0)
            assert store.log_probs[row, side] == pytest.approx(log_prob, abs=1e-4)


def test_both_methods_and_any_batch_size_give_the_same_numbers(tmp_path):
    lm, items = tiny("gemma2"), make_items()
    stores = [
        extract(
            lm, items, CLAIM, tmp_path / f"{method}{budget}", token_budget=budget, method=method
        )
        for method in ("shared", "separate")
        for budget in (1, 10_000)
    ]
    for store in stores[1:]:
        np.testing.assert_allclose(store.log_probs, stores[0].log_probs, atol=1e-4)
        for layer in store.layers:
            for got, expected in zip(store.pairs(layer), stores[0].pairs(layer), strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-4)
    assert [store.spec.settings["method"] for store in stores] == ["shared"] * 2 + ["separate"] * 2


@pytest.mark.parametrize("method", ["shared", "separate"])
def test_bfloat16_models_are_stored_as_bfloat16_with_float32_log_probs(tmp_path, method):
    lm, items = tiny(dtype=torch.bfloat16), make_items(5)
    store = extract(lm, items, CLAIM, tmp_path, layers=LAYERS, token_budget=1, method=method)
    tensors = load_file(tmp_path / "shard-00000.safetensors")
    assert tensors["layer.1.pos"].dtype.name == "bfloat16"
    rows = hidden_states.encode_items(lm, items, CLAIM)
    way = {"shared": Shared, "separate": Separate}[method](lm)
    direct = [read(way, [row]) for row in rows]
    for layer in LAYERS:
        for side, got in enumerate(store.pairs(layer)):
            expected = torch.cat([found.states[layer][side] for found in direct])
            assert expected.dtype == torch.bfloat16
            np.testing.assert_array_equal(got, expected.float())
    with torch.inference_mode():
        ids = torch.tensor([rows[0].prompt])
        logits = lm.model(ids).logits[0, -1].double()
    exact = (logits - logits.logsumexp(0))[[v[0] for v in rows[0].verdicts]]
    # A bfloat16 log-softmax would be off by up to 2**-8 of its value, about 0.02 here.
    np.testing.assert_allclose(store.log_probs[0], exact, atol=0.02)
    assert store.log_probs.dtype == np.float32
    assert not np.array_equal(
        store.log_probs, torch.tensor(store.log_probs).bfloat16().float().numpy()
    )


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


KILLED = """
import functools, os, signal, sys
sys.path.insert(0, "tests")
from tiny_models import make_items
from extract.hidden_states import extract
from extract.models import load
from jelicit.data.prompts import FORMATS

folder, out, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
lm = load(folder, threads=1)
forward = lm.model.forward
@functools.wraps(forward)
def dying(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(*args, **kwargs)
lm.model.forward = dying
extract(lm, make_items(24), FORMATS["claim"], out, shard_size=2, token_budget=60, progress=False)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_same_bytes(tmp_path):
    """Killed at random passes, while the shards before are being written in the background."""
    lm, cut, whole = tiny(), tmp_path / "cut", tmp_path / "whole"
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    rng, missing = random.Random(5), 12
    for _ in range(2):
        passes = str(rng.randrange(4, 12))
        command = [sys.executable, "-c", KILLED, str(tmp_path / "model"), str(cut), passes]
        died = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        before, missing = missing, len(ActivationStore.open(cut).missing())
        assert 0 < missing < before
    begun = {name: content for name, content in files(cut).items() if name.endswith(".safetensors")}
    lm, items = load(tmp_path / "model", threads=1), make_items(24)
    for folder in (cut, whole):
        extract(lm, items, CLAIM, folder, shard_size=2, token_budget=60, progress=False)
    assert files(cut) == files(whole)
    assert len(begun) >= 12 - missing
    assert all(files(cut)[name] == content for name, content in begun.items() if name[0] != ".")


def short_of_memory(monkeypatch, lm, most):
    """The model's device runs out of memory in passes of more than `most` tokens."""
    assert can_share(lm)  # measured before
    forward = lm.model.forward

    @functools.wraps(forward)
    def limited(input_ids, **kwargs):
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("no memory")
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(lm.model, "forward", limited)


def test_out_of_memory_halves_the_batches_and_the_run_goes_on(tmp_path, monkeypatch):
    lm, items = tiny(), make_items(24)
    expected = extract(lm, items, CLAIM, tmp_path / "whole", shard_size=8)
    short_of_memory(monkeypatch, lm, 60)
    with pytest.warns(UserWarning, match="token budget") as warned:
        store = extract(lm, items, CLAIM, tmp_path / "small", shard_size=8)
    assert [str(warning.message) for warning in warned] == [
        "cpu ran out of memory on 8 items of up to 32 tokens; going on with a token budget of 64",
        "cpu ran out of memory on 4 items of up to 32 tokens; going on with a token budget of 32",
    ]
    assert store.complete
    np.testing.assert_allclose(store.log_probs, expected.log_probs, atol=1e-4)
    for layer in store.layers:
        for got, wanted in zip(store.pairs(layer), expected.pairs(layer), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-4)
    # Another run of the same command finds the store complete, by its own plan.
    monkeypatch.setattr(lm.model, "forward", None)
    again = extract(lm, items, CLAIM, tmp_path / "small", shard_size=8)
    assert again.spec.batch_plan == store.spec.batch_plan != expected.spec.batch_plan


def test_a_device_too_small_for_one_item_ends_the_run_with_all_that_was_written(
    tmp_path, monkeypatch
):
    lm = tiny()
    items = sorted(make_items(12), key=lambda item: len(item.choice))
    lengths = [longest(row) for row in hidden_states.encode_items(lm, items, CLAIM)]
    short_of_memory(monkeypatch, lm, lengths[-1] - 1)
    with pytest.raises(MemoryError, match=r"ran out of memory on 1 items .* fewer layers"):
        extract(lm, items, CLAIM, tmp_path, shard_size=2, token_budget=1)
    missing = ActivationStore.open(tmp_path).missing()
    assert missing
    assert 0 not in missing
    monkeypatch.undo()
    assert extract(lm, items, CLAIM, tmp_path, shard_size=2, token_budget=1).complete


def test_several_workers_do_not_plan_anew(tmp_path, monkeypatch):
    lm, items = tiny(), make_items(24)
    short_of_memory(monkeypatch, lm, 60)
    with pytest.raises(MemoryError, match="lower the token budget in all processes"):
        extract(lm, items, CLAIM, tmp_path, shard_size=8, worker=(0, 2))


def test_a_run_that_was_planned_smaller_is_never_planned_larger(tmp_path, monkeypatch):
    """Planned for 60 tokens a pass, interrupted, and then out of memory at 40."""
    lm, items = tiny(), make_items(24)
    sizes = []
    short_of_memory(monkeypatch, lm, 60)
    with pytest.warns(UserWarning, match="budget of 32"):
        extract(lm, items, CLAIM, tmp_path, shard_size=8)
    (tmp_path / "shard-00001.safetensors").unlink()
    monkeypatch.undo()
    short_of_memory(monkeypatch, lm, 40)
    forward = lm.model.forward

    @functools.wraps(forward)
    def noted(input_ids, **kwargs):
        sizes.append(input_ids.numel())
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(lm.model, "forward", noted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert extract(lm, items, CLAIM, tmp_path, shard_size=8).complete
    assert max(sizes) <= 60


def test_out_of_memory_on_a_cpu_is_recognised():
    said = (
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )
    assert hidden_states.is_out_of_memory(RuntimeError(said))
    assert hidden_states.is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert not hidden_states.is_out_of_memory(RuntimeError("shapes do not fit"))


def test_out_of_memory_inside_the_prefix_leaves_the_path_as_it_was():
    lm, prefix = tiny(), tuple(range(30, 60))
    batch = [Encoded((*prefix, *item.prompt), item.verdicts) for item in random_batch(2)]
    way = Shared(lm, prefix)
    block = lm.model.model.layers[1].mlp
    forward = block.forward

    def fails(*_):
        block.forward = forward
        raise torch.OutOfMemoryError("no memory")

    block.forward = fails
    with pytest.raises(torch.OutOfMemoryError):
        read(way, batch)
    assert_same(read(way, batch), lm, batch)


def test_log_probabilities_that_are_not_finite_are_an_error(tmp_path):
    lm = tiny()
    with torch.no_grad():
        lm.model.lm_head.weight[7] = float("nan")
    with pytest.raises(ValueError, match=r"item/0.*: log-probabilities of tiny-llama not finite"):
        extract(lm, make_items(1), CLAIM, tmp_path)


def test_the_prefix_leaves_every_prompt_its_last_token():
    prefix = tuple(range(40))
    items = [Encoded(prefix, ((5,), (6,))), Encoded((*prefix, 7), ((5,), (6,)))]
    assert shared_prefix(items) == prefix[:-1]
    assert shared_prefix(items[:1]) == ()
    lm = tiny()
    assert_same(read(Shared(lm, shared_prefix(items)), items), lm, items)


def test_models_that_mask_or_rotate_by_themselves_are_read_separately():
    """Their 24 first tokens are as everybody's; what comes later is not."""
    neo = GPTNeoConfig(
        vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=512,
        attention_types=[[["global", "local"], 1]], window_size=40,
    )  # fmt: skip
    stretched = LlamaConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=30,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    )  # fmt: skip
    rng = random.Random(0)
    ids = [rng.randrange(2, 300) for _ in range(150)]
    batch = [Encoded(tuple(ids[:n]), ((5,), (9,))) for n in (90, 20, 80)]
    for config in (neo, stretched):
        lm = wrap(random_weights(config), tokenizer(bos=True), name="odd", threads=1)
        assert not can_share(lm)
        way = Separate(lm)
        # One batch each where a text's numbers depend on its neighbours' lengths.
        for size, members in way.weigh(batch, 10_000):
            chosen = [batch[m] for m in members] if size >= 10_000 else batch
            found = way.read(way.arrange(chosen), (0, 1, 2))
            for row, item in enumerate(chosen):
                with torch.inference_mode():
                    out = lm.model(
                        torch.tensor([[*item.prompt, 5]]), output_hidden_states=True
                    ).hidden_states[2][0, -1]
                np.testing.assert_allclose(found.states[2][0][row], out, atol=1e-4)


def test_a_shard_that_cannot_be_written_ends_the_run_and_the_next_goes_on(tmp_path, monkeypatch):
    """The disk is full: the error arrives though another thread writes."""
    lm, items = tiny(), make_items(12)
    write = hidden_states.StoreWriter.write

    def full(self, shard, *tensors):
        if shard == 2:
            raise OSError(28, "No space left on device")
        write(self, shard, *tensors)

    monkeypatch.setattr(hidden_states.StoreWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        extract(lm, items, CLAIM, tmp_path, shard_size=2)
    assert ActivationStore.open(tmp_path).missing()[0] == 2
    with pytest.raises(OSError, match="No space left"):  # the last write counts, too
        extract(lm, items[:6], CLAIM, tmp_path / "last", shard_size=2)
    monkeypatch.undo()
    assert extract(lm, items, CLAIM, tmp_path, shard_size=2).complete


def test_two_workers_write_one_store(tmp_path):
    lm, items = tiny(), make_items()
    one = extract(lm, items, CLAIM, tmp_path / "one", shard_size=2)
    first = extract(lm, items, CLAIM, tmp_path / "two", shard_size=2, worker=(1, 2))
    assert first.missing() == [0, 2, 4]
    second = extract(lm, items, CLAIM, tmp_path / "two", shard_size=2, worker=(0, 2))
    assert one.complete
    assert second.complete
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_complete_store_is_not_computed_again(tmp_path, monkeypatch):
    lm, items = tiny(), make_items()
    extract(lm, items, CLAIM, tmp_path)
    monkeypatch.setattr(lm.model, "forward", None)
    assert extract(lm, items, CLAIM, tmp_path).complete


def test_the_bar_goes_when_done_and_there_is_none_where_nothing_is_missing(tmp_path, capsys):
    lm, items = tiny(), make_items()
    capsys.readouterr()
    extract(lm, items, CLAIM, tmp_path)
    shown = capsys.readouterr().err
    assert "tiny-llama" in shown
    assert shown.split("\r")[-2].strip() == shown.split("\r")[-1] == ""  # wiped, no new line
    extract(lm, items, CLAIM, tmp_path)
    assert capsys.readouterr().err == ""


def test_other_settings_are_refused_by_name(tmp_path):
    lm, items = tiny(), make_items()
    extract(lm, items, CLAIM, tmp_path, layers=(1,))
    with pytest.raises(ValueError, match=r"layers: stored \[1\], asked \[1, 2\]"):
        extract(lm, items, CLAIM, tmp_path, layers=(1, 2))
    with pytest.raises(ValueError, match=r"true_word: stored ' True', asked ' surely so'"):
        extract(lm, items, LONG_WORDS, tmp_path, layers=(1,))
    with pytest.raises(ValueError, match=r"settings.token_budget: stored 2048, asked 100"):
        extract(lm, items, CLAIM, tmp_path, layers=(1,), token_budget=100)
    other = wrap(random_weights(CONFIGS["llama"](), seed=1), lm.tokenizer, name=lm.name)
    with pytest.raises(ValueError, match=r"model_digest: stored"):
        extract(other, items, CLAIM, tmp_path, layers=(1,))


# --- refusals and warnings -----------------------------------------------------------------------


def test_a_prompt_beyond_the_context_is_an_error_naming_item_length_and_limit(tmp_path):
    lm, items = tiny(), make_items()
    long = dataclasses.replace(items[4], choice="so " * 200)
    items[4] = long
    row = encode(
        lm.tokenizer, [(CLAIM.text.format(question=long.question, choice=long.choice),)], [" True"]
    )
    length = len(row[0].prompt) + 1
    with pytest.raises(ValueError, match=rf"'item/4'.* {length} tokens.* at most {CONTEXT}"):
        extract(lm, items, CLAIM, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_context_is_filled_to_the_last_token(tmp_path):
    """A prompt and verdict of exactly the limit work, one token more does not."""
    lm = tiny()
    (row,) = encode(lm.tokenizer, [("so " * 10,)], [" True", " False"])
    assert len(row.verdicts[0]) == len(row.verdicts[1]) == 1
    pad = CONTEXT - len(row.prompt) - 1
    item = dataclasses.replace(make_items(1)[0], choice="x")
    base = encode(lm.tokenizer, [(CLAIM.text.format(question="q", choice=""),)], [" True"])[0]
    fits = CONTEXT - len(base.prompt) - 1
    assert pad > 0
    for size, works in ((fits, True), (fits + 1, False)):
        text = dataclasses.replace(item, question="q", choice="7" * size)
        if works:
            assert extract(lm, [text], CLAIM, tmp_path / "s").complete
        else:
            with pytest.raises(ValueError, match="tokens"):
                extract(lm, [text], CLAIM, tmp_path / "t")


def test_verdicts_of_the_same_tokens_are_an_error_naming_the_item(tmp_path):
    lm = tiny()
    lm.tokenizer.backend_tokenizer.normalizer = Lowercase()
    same = dataclasses.replace(CLAIM, name="same", true_word=" So", false_word=" so")
    with pytest.raises(ValueError, match=r"'item/0'.*' So' and ' so' have the same token"):
        extract(lm, make_items(), same, tmp_path)


def test_prompts_beyond_the_trained_length_are_counted_and_warned_of_once(tmp_path):
    lm, items = tiny(), make_items()
    lengths = [len(row.prompt) + 1 for row in hidden_states.encode_items(lm, items, CLAIM)]
    limit = sorted(lengths)[5]
    expected = sum(length > limit for length in lengths)
    assert 0 < expected < len(items)
    short = dataclasses.replace(lm, trained_length=limit)
    with pytest.warns(UserWarning, match=f"{expected} of 9 prompts.* {limit} tokens") as seen:
        store = extract(short, items, CLAIM, tmp_path / "a")
    assert len(seen) == 1
    assert store.spec.texts["beyond_trained_length"] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(dataclasses.replace(lm, trained_length=max(lengths)), items, CLAIM, tmp_path / "b")


def test_states_that_are_not_finite_are_an_error_naming_item_and_layer(tmp_path):
    lm = tiny()
    with torch.no_grad():
        lm.model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"'item/\d': layer 2 of tiny-llama not finite in float32"):
        extract(lm, make_items(), CLAIM, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (4,)}, r"layers \[4\]: the model has 3 blocks"),
        ({"layers": ()}, "is empty"),
        ({"token_budget": 0}, "token_budget 0"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"worker": (2, 2)}, r"worker is \(2, 2\)"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        extract(tiny(), make_items(), CLAIM, tmp_path, **options)


def test_no_items_and_no_shared_cache_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no items"):
        extract(tiny(), [], CLAIM, tmp_path)
    with pytest.raises(ValueError, match="cannot read shared beginnings once"):
        extract(tiny("mamba"), make_items(), CLAIM, tmp_path, method="shared")
    assert (
        extract(tiny("mamba"), make_items(2), CLAIM, tmp_path).spec.settings["method"] == "separate"
    )


def test_layers_count_from_both_ends():
    assert resolve_layers("all", n_blocks=3) == (0, 1, 2, 3)
    assert resolve_layers((-1, 1, 3), n_blocks=3) == (1, 3)
    assert resolve_layers((-4,), n_blocks=3) == (0,)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    shard_size=st.integers(1, 15),
    budget=st.integers(1, 400),
    shared=st.booleans(),
)
def test_a_plan_covers_every_row_once_within_the_budget(lengths, shard_size, budget, shared):
    rng = random.Random(0)
    items = [
        Encoded(tuple(rng.randrange(1, 3) for _ in range(length)), ((5,), (6, 7)))
        for length in lengths
    ]
    way = Shared(LLAMA) if shared else Separate(LLAMA)
    shards, batches = plan(way, items, shard_size=shard_size, token_budget=budget)
    assert [row for start, stop in shards for row in range(start, stop)] == list(
        range(len(lengths))
    )
    for (start, stop), shard in zip(shards, batches, strict=True):
        assert sorted(row for batch in shard for row in batch) == list(range(start, stop))
        assert stop - start <= shard_size
        for batch in shard:
            assert len(batch) == 1 or _tokens(way, [items[row] for row in batch]) <= budget
        ordered = [_tokens(way, [items[batch[0]]]) for batch in shard]
        assert shared or ordered == sorted(ordered, reverse=True)


def _tokens(way, batch):
    """Tokens that a batch computes, padding included."""
    if isinstance(way, Separate):
        return 2 * len(batch) * max(longest(item) for item in batch)
    rows = way.arrange(batch).rows
    return len(rows) * max(len(row.ids) for row in rows)


# --- tokens --------------------------------------------------------------------------------------


def test_segments_are_tokenised_apart_and_bos_comes_once():
    tok = tokenizer(bos=True)
    (row,) = encode(tok, [("the sum.\n\n", "\nis so", " is")], [" True", " so so"])
    parts = [
        tok(text, add_special_tokens=False)["input_ids"] for text in ("the sum.\n\n", "\nis so")
    ]
    whole = tok("the sum.\n\n\nis so is", add_special_tokens=False)["input_ids"]
    assert list(row.prompt) == [0, *parts[0], *parts[1], *tok.encode(" is")[1:]]
    assert tok.decode(list(row.prompt[1:])) == tok.decode(whole)
    assert tok.decode(list(row.verdicts[1])) == " so so"
    assert bos(tokenizer(bos=False)) == ()


CONTROL = ["<s>", "</s>", "<|bos|>"]


def with_control_tokens(kind):
    """A tokenizer with special tokens and with two words added as ordinary ones."""
    tok = tokenizer(bos=True) if kind == "bytes" else sentencepiece_like()
    tok.add_special_tokens({"eos_token": "</s>", "extra_special_tokens": ["<|bos|>"]})
    tok.add_tokens([AddedToken("    ", special=False), AddedToken("sum was", special=False)])
    return tok


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_control_tokens_spelled_out_in_a_text_are_its_characters(kind):
    tok = with_control_tokens(kind)
    text = "so </s><s>the <|bos|> sum"
    ids = {tok.get_vocab()[token] for token in CONTROL}
    assert ids <= set(tok(text)["input_ids"])  # what the tokenizer does if not told otherwise
    (row,) = encode(tok, [("<s>is\n\n", text)], [" <s>", " True</s>"])
    start = bos(tok)
    assert start == ((tok.bos_token_id,) if kind == "bytes" else ())
    body = row.prompt[len(start) :]
    assert not ids & {*body, *row.verdicts[0], *row.verdicts[1]}
    if kind == "bytes":
        assert tok.decode(list(body)) == "<s>is\n\n" + text
        assert tok.decode(list(row.verdicts[1])) == " True</s>"
    assert ids <= set(tok(text)["input_ids"])  # the tokenizer is left as it was


WORDS = st.sampled_from([*"<s>|bo/ \né", "claim", "    ", "sum was", "True"])


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@given(text=st.lists(WORDS, min_size=1).map("".join))
def test_ordinary_text_has_the_tokenizers_own_ids(kind, text):
    assume(not any(token in text for token in CONTROL))
    tok = TOKENIZERS[kind]
    expected = tok(text, add_special_tokens=False)["input_ids"]
    (row,) = encode(tok, [(text,)], [" True"])
    assert list(row.prompt[len(bos(tok)) :]) == expected


TOKENIZERS = {kind: with_control_tokens(kind) for kind in ("bytes", "pieces")}


def test_a_tokenizer_with_a_space_of_its_own_adds_none_to_the_verdict():
    tok = sentencepiece_like()
    text = "I think this claim is"
    alone = tok.convert_ids_to_tokens(tok(" True", add_special_tokens=False)["input_ids"])
    (row,) = encode(tok, [(text,)], [" True", " False"])
    assert alone[0] == "▁"  # the spurious space of the verdict alone
    assert tok.convert_ids_to_tokens(list(row.verdicts[0])) == ["▁True"]
    assert list(row.prompt + row.verdicts[1]) == tok(text + " False")["input_ids"]


def test_a_verdict_that_merges_into_the_text_is_tokenised_alone():
    """After "is " the tokens of "is True" are not those of "is " and more."""
    tok = tokenizer(bos=False)
    text, whole = (tok(t)["input_ids"] for t in ("claim is ", "claim is True"))
    assert whole[: len(text)] != text
    (row,) = encode(tok, [("claim is ",)], ["True", "False is so"])
    assert list(row.verdicts[0]) == tok("True")["input_ids"]
    assert list(row.verdicts[1]) == tok("False is so")["input_ids"]


def test_byte_share_is_the_share_of_letters_in_tokens_of_one_byte():
    known = tokenizer(bos=True)
    no_merges = tokenizer(bos=True, vocabulary=258)
    text = "I think, 1 + 1: this claim is True\n"
    assert byte_share(no_merges, [no_merges(text)["input_ids"]]) == 1
    # "I" is a word of one letter: 1 of 21 letters.
    assert byte_share(known, [known(text)["input_ids"]]) == pytest.approx(1 / 21)
    two_letters = known("is", add_special_tokens=False)["input_ids"]
    assert len(two_letters) == 1
    assert byte_share(known, [two_letters]) == 0
    # "é" is two bytes and "zq" two letters that never met: 4 spelled of 4 + 4 in "True".
    ids = known("zq é True")["input_ids"]
    assert byte_share(known, [ids]) == pytest.approx(4 / 8)
    pieces = sentencepiece_like([*TRAINED_ACCENTS])
    tokens = pieces("claim is ü")["input_ids"]
    assert "<0xC3>" in pieces.convert_ids_to_tokens(tokens)
    assert byte_share(pieces, [tokens]) == pytest.approx(2 / 9)
    assert byte_share(pieces, [pieces("claim é")["input_ids"]]) == 0


TRAINED_ACCENTS = ["claim is", "claim is", "claim é", "claim é"]


# --- loading -------------------------------------------------------------------------------------


def save(folder, *, seed=0, **config):
    settings = CONFIGS["llama"]().to_dict() | config
    random_weights(LlamaConfig(**settings), seed=seed).save_pretrained(folder)
    tokenizer(bos=True).save_pretrained(folder)


def test_a_folder_is_loaded_and_pinned_by_its_contents(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save(tmp_path / name, seed=seed, trained_length=352)
    a, b, c = (load(tmp_path / name, threads=1) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert (a.name, a.trained_length, a.dtype, a.context) == ("a", 352, "float32", CONTEXT)
    assert a.tokenizer("a True")["input_ids"] == tokenizer(bos=True)("a True")["input_ids"]
    assert load(tmp_path / "a", dtype="bfloat16").dtype == "bfloat16"
    batch = random_batch(2)
    same = wrap(random_weights(CONFIGS["llama"]()), a.tokenizer, name="m")
    expected = read(Separate(same), batch, (3,)).states[3][0]
    np.testing.assert_array_equal(read(Separate(a), batch, (3,)).states[3][0], expected)


def test_the_digest_of_a_model_in_memory_follows_weights_and_tokenizer():
    def made(seed=0, bos=True):
        return wrap(
            random_weights(CONFIGS["gpt2"](), seed=seed), tokenizer(bos=bos), name="m"
        ).digest

    assert made() == made() != made(seed=1)


def test_the_digest_of_a_model_in_memory_follows_the_tokenizers_rules():
    """Same words and same special tokens, but "So" becomes "so" first."""
    model, tok = random_weights(CONFIGS["gpt2"]()), tokenizer(bos=True)
    before = wrap(model, tok, name="m").digest
    tok("so so", truncation=True, max_length=1)  # how a batch was cut is no rule
    assert wrap(model, tok, name="m").digest == before
    tok.backend_tokenizer.normalizer = Lowercase()
    assert wrap(model, tok, name="m").digest != before


@pytest.mark.parametrize(
    "name",
    [
        "merges.txt",
        "vocab.txt",
        "vocab.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "tokenizer.json",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "of_this_class.dat",
    ],
)
def test_the_digest_of_a_folder_follows_every_file_that_decides(tmp_path, name):
    save(tmp_path)
    tok = tokenizer(bos=True)
    tok.vocab_files_names = {"rules": "of_this_class.dat"}
    before = digests.digest_of_files(tmp_path, tok)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n")
    assert digests.digest_of_files(tmp_path, tok) != before
    same = digests.digest_of_files(tmp_path, tok)
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "generation_config.json").write_text("{}")
    assert digests.digest_of_files(tmp_path, tok) == same


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_weights_that_were_cut_short_are_named(tmp_path, size):
    save(tmp_path)
    os.truncate(tmp_path / "model.safetensors", size)
    with pytest.raises(ValueError, match=r"damaged.*: model\.safetensors in .* download it again"):
        load(tmp_path)


def test_of_several_files_the_damaged_one_is_named(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    random_weights(CONFIGS["llama"]()).save_pretrained(tmp_path, max_shard_size="50KB")
    os.truncate(tmp_path / "model-00002-of-00004.safetensors", 5000)
    with pytest.raises(ValueError, match=r"short: model-00002-of-00004\.safetensors in "):
        load(tmp_path)


def test_a_tokenizer_that_was_cut_short_is_named(tmp_path):
    save(tmp_path)
    os.truncate(tmp_path / "tokenizer.json", 500)
    with pytest.raises(ValueError, match=r"short: tokenizer\.json in "):
        load(tmp_path)


def test_a_damaged_download_is_named_where_it_lies(tmp_path, monkeypatch):
    save(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 5000)

    def cut(*_args, **_options):
        raise SafetensorError("incomplete metadata")

    monkeypatch.setattr(models, "find_adapter", lambda *_: None)
    monkeypatch.setattr(models, "load_tokenizer", lambda *_, **__: None)
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", cut)
    monkeypatch.setattr(load_errors, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ValueError, match=rf"model\.safetensors in {tmp_path} .*delete it there"):
        load("some/model")

    def gone(*_args, **_options):
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(load_errors, "snapshot_download", gone)
    with pytest.raises(ValueError, match="a file of the model 'some/model'"):
        load("some/model")


def test_pocket_means_the_shipped_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "POCKET", tmp_path)
    ship = r"pretrain_pocket\.py --seeds 2 --ship extract/pocket`"
    with pytest.raises(FileNotFoundError, match=rf"pocket model is not in .*{ship}"):
        load("pocket")
    save(tmp_path)
    assert load("pocket").name == "pocket"
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=rf"no model\.safetensors\).*{ship}"):
        load("pocket")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model in the folder .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((FileNotFoundError, ValueError), match=tmp_path.name):
        load(tmp_path)


def test_an_encoder_decoder_model_is_refused():
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="encoder-decoder"):
        wrap(T5ForConditionalGeneration(config), tokenizer(bos=True), name="t5")


def test_small_models_run_in_one_thread_unless_told_otherwise():
    assert choose_threads(1_000_000) == 1
    made = random_weights(CONFIGS["llama"]())
    torch.set_num_threads(2)
    lm = wrap(made, tokenizer(bos=True), name="m")
    assert (lm.threads, torch.get_num_threads()) == (1, 1)
    assert "1 thread(s) (small model; --threads overrides)" in lm.describe()
    assert wrap(made, lm.tokenizer, name="m", threads=2).threads == torch.get_num_threads() == 2


def test_large_models_get_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3, 5, 6}, raising=False)
    assert choose_threads(1_000_000_000) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert choose_threads(1_000_000_000) == 64


def test_the_store_says_what_made_it(tmp_path):
    lm, items = tiny(), make_items()
    extract(lm, items, CLAIM, tmp_path)
    spec = ActivationStore.open(tmp_path).spec
    lengths = [len(row.prompt) for row in hidden_states.encode_items(lm, items, CLAIM)]
    assert spec.texts["prompt_tokens"]["total"] == sum(lengths)
    assert spec.texts["prompt_tokens"]["most"] == max(lengths)
    # torch itself also names its build ("2.13.0+cu130"), which the installed package may not.
    assert spec.versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert spec.machine == {"device": "cpu", "threads": 1}
    assert spec.prompt_format["true_word"] == " True"
    assert (spec.model, spec.model_digest, spec.n_blocks) == ("tiny-llama", lm.digest, 3)


def test_a_library_that_knows_no_hidden_state_indices_gives_the_same_states(tmp_path, monkeypatch):
    """transformers before 5.20 reads a list of layers as blocks: there all states are asked for."""
    lm = models.load("pocket", device="cpu")
    items = load_dataset("pocket/arithmetic", max_train=8).train
    known = extract(lm, items, get_format("claim"), tmp_path / "known", layers=(2, 6))
    monkeypatch.setattr(models, "output_capturing", object())
    assert models.states_wanted((2, 6)) is True
    other = extract(lm, items, get_format("claim"), tmp_path / "other", layers=(2, 6))
    for layer in (2, 6):
        for one, two in zip(known.pairs(layer), other.pairs(layer), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_bar_counts_tokens_since_the_longest_items_are_read_first(tmp_path, monkeypatch):
    lm, items = tiny(), make_items()
    lengths = [longest(row) for row in hidden_states.encode_items(lm, items, CLAIM)]
    assert len(set(lengths)) > 1
    steps = []

    class Bar(hidden_states.tqdm):
        def update(self, n=1):
            steps.append(n)
            assert self.total == sum(lengths)
            return super().update(n)

    monkeypatch.setattr("extract.hidden_states.tqdm", Bar)
    extract(lm, items, CLAIM, tmp_path, token_budget=max(lengths))  # a pass or so per item
    assert sum(steps) == sum(lengths)
    assert len(steps) > 1
