"""The vLLM back end against a stand-in for vLLM, which is not installed here.

The stand-in runs a tiny Llama and has no more than what these facts of vLLM 0.32's sources give it:

- model_executor/models/llama.py, interfaces.py (EagleModelMixin): id l is the residual stream that
  enters block l; id n_blocks is the last block's output before the final norm; ids are sorted.
- distributed/kv_transfer/kv_connector/v1/example_hidden_states_connector.py: one file
  `<shared_storage_path>/<request id>.safetensors` per request, "hidden_states" [tokens, layers, D]
  in the model's dtype and "token_ids" [tokens] int64, of the prompt only; its path is in
  RequestOutput.kv_transfer_params["hidden_states_path"]; threads write it after `generate` has
  returned; `<path>.lock` exists with an exclusive flock before that, released when the file is
  written or the writer fails.
- sampling_params.py, v1/worker/gpu/sample/prompt_logprob.py, v1/engine/logprobs.py: with
  prompt_logprobs=0, RequestOutput.prompt_logprobs is [None, {token: Logprob}, ...], one entry per
  prompt token, holding that token, from a float32 log-softmax.
- v1/engine/input_processor.py: a prompt must be shorter than max_model_len.
- platforms/__init__.py, interface.py: `current_platform.is_cpu()`.
- entrypoints/llm.py, v1/engine/llm_engine.py: outputs in the order of the prompts;
  `llm.llm_engine.model_config` and `.vllm_config.device_config`.
"""

import fcntl
import os
import random
import shutil
import stat
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import CONTEXT, make_items, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, T5Config

from extract import models, passes
from extract.prompt_ids import encode_items
from extract.verdicts import Encoded
from extract.vllm_states import VllmModel, VllmPass
from jelicit.data.prompts import FORMATS

LAYERS = (0, 1, 2)


# --- the stand-in --------------------------------------------------------------------------------


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True


@dataclass
class Faults:
    """What a test makes the stand-in do wrong."""

    tensors: Callable[[Any], Any] = lambda tensors: tensors
    after_write: Callable[[Path], None] = lambda path: None
    outputs: Callable[[Any], Any] = lambda outputs: outputs
    delay: float = 0.0
    started: list[dict[str, Any]] = field(default_factory=list)
    refuse: bool = False
    cpu: bool = False


class StandIn:
    """`vllm.LLM`, as far as the module's docstring says."""

    faults: Faults

    def __init__(
        self,
        model: str,
        *,
        tokenizer_revision: str | None = None,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        gpu_memory_utilization: float = 0.92,
        enable_prefix_caching: bool | None = None,
        logprobs_mode: str = "raw_logprobs",
        max_model_len: int | None = None,
        speculative_config: dict[str, Any] | None = None,
        kv_transfer_config: dict[str, Any] | None = None,
    ) -> None:
        self.faults.started.append({k: v for k, v in locals().items() if k != "self"})
        if self.faults.refuse:
            raise RuntimeError("no GPU")
        assert speculative_config
        assert kv_transfer_config
        assert speculative_config["method"] == "extract_hidden_states"
        assert speculative_config["num_speculative_tokens"] == 1
        assert kv_transfer_config["kv_connector"] == "ExampleHiddenStatesConnector"
        assert kv_transfer_config["kv_role"] == "kv_producer"
        hf_config = speculative_config["draft_model_config"]["hf_config"]
        self.ids = sorted(set(hf_config["eagle_aux_hidden_state_layer_ids"]))
        extra = kv_transfer_config["kv_connector_extra_config"]
        self.folder = extra["shared_storage_path"]
        assert extra.get("use_synchronization_lock", True)
        # vLLM's "auto" makes 16 bits of float32.
        wanted = torch.float16 if dtype == "auto" else getattr(torch, dtype)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=wanted).eval()
        self.llm_engine = Namespace(
            model_config=Namespace(
                dtype=wanted,
                max_model_len=max_model_len or self.model.config.max_position_embeddings,
            ),
            vllm_config=Namespace(device_config=Namespace(device_type="cuda")),
        )
        self.writers = ThreadPoolExecutor(2)
        self.count = 0

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        assert sampling_params.max_tokens == 1
        return self.faults.outputs(
            [self.request(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]
        )

    @torch.inference_mode()
    def request(self, ids, params):
        limit = self.llm_engine.model_config.max_model_len
        if len(ids) >= limit:
            raise ValueError(f"prompt of {len(ids)} tokens, max_model_len {limit}")
        path = f"{self.folder}/{self.count}-0a1b.safetensors"
        self.count += 1
        seen, hooks = {}, []
        for number, block in enumerate(self.model.model.layers):
            hooks += [
                block.register_forward_pre_hook(lambda _m, i, n=number: seen.update({n: i[0][0]})),
                block.register_forward_hook(lambda _m, _i, o, n=number: seen.update({n + 1: o[0]})),
            ]
        logits = self.model(torch.tensor([ids])).logits[0]
        for hook in hooks:
            hook.remove()
        scores = logits.float().log_softmax(-1)
        lock = os.open(path + ".lock", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        tensors = {
            "hidden_states": torch.stack([seen[number] for number in self.ids], 1),
            "token_ids": torch.tensor(ids),
        }
        self.writers.submit(self.write, tensors, path, lock)
        return Namespace(
            prompt_token_ids=list(ids),
            prompt_logprobs=[None]
            + [{t: Logprob(scores[k, t].item(), 1)} for k, t in enumerate(ids[1:])],
            kv_transfer_params={"hidden_states_path": path},
        )

    def write(self, tensors, path, lock):
        try:
            time.sleep(self.faults.delay)
            copies = {name: tensor.clone() for name, tensor in tensors.items()}
            save_file(self.faults.tensors(copies), path)
            self.faults.after_write(Path(path))
        finally:
            os.close(lock)


@pytest.fixture
def faults(monkeypatch):
    made = Faults()
    module: Any = types.ModuleType("vllm")
    module.LLM = type("LLM", (StandIn,), {"faults": made})
    module.SamplingParams = SamplingParams
    module.__version__ = "0.32.0"
    platforms: Any = types.ModuleType("vllm.platforms")
    platforms.current_platform = Namespace(is_cpu=lambda: made.cpu)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama of 3 blocks and width 32, in float32."""
    torch.set_num_threads(1)
    lm, path = tiny("llama"), tmp_path_factory.mktemp("tiny")
    lm.model.config.trained_length = 99
    lm.model.save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    return path


def load(folder, tmp_path, *, layers=LAYERS, **options):
    return VllmModel.load(folder, layers=layers, scratch=tmp_path / "scratch", **options)


def in_transformers(folder, items, *, dtype: models.Dtype = "float32"):
    lm = models.load(folder, dtype=dtype, device="cpu", threads=1)
    return passes.Separate(lm).read(items, LAYERS)


def batch(n=6):
    """Prompts of 1 to 40 tokens with verdicts of 1 to 3, mixed inside one batch."""
    rng = random.Random(0)
    verdicts = [((5,), (9,)), ((5, 6, 7), (9,)), ((5, 6), (5, 10))]
    return [
        Encoded(tuple(rng.randrange(2, 300) for _ in range(length)), verdicts[row % 3])
        for row, length in enumerate([20, 1, 40, 3, 9, 8][:n])
    ]


def assert_same(found, expected, layers, *, tolerance=1e-5):
    for layer in layers:
        for got, wanted in zip(found.states[layer], expected.states[layer], strict=True):
            torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.log_probs, expected.log_probs, atol=tolerance, rtol=tolerance)


# --- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 6])
def test_the_numbers_are_those_of_transformers(faults, folder, tmp_path, n):
    expected = in_transformers(folder, batch(n))
    with load(folder, tmp_path) as lm:
        found = lm.pairs(batch(n), LAYERS)
        assert set(found.states) == set(LAYERS)
        assert_same(found, expected, LAYERS)
        assert_same(lm.pairs(batch(n), (2, 0)), expected, (2, 0))


def test_a_text_after_the_verdict_is_read_to_its_end_and_not_scored(faults, folder, tmp_path):
    after = [row._replace(after=((11, 12), (11, 12))) for row in batch(3)]
    expected = in_transformers(folder, after)
    with load(folder, tmp_path) as lm:
        assert_same(lm.pairs(after, LAYERS), expected, LAYERS)
    verdicts = in_transformers(folder, batch(3))
    torch.testing.assert_close(expected.log_probs, verdicts.log_probs, atol=1e-5, rtol=1e-5)
    assert (expected.states[1][0] - verdicts.states[1][0]).abs().amax(1).min() > 0.1


def test_prompts_in_a_chat_template_are_those_of_transformers(faults, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<s>' if m.role == 'user' }}{{ m.content }}</s>{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    items, form = make_items(3), FORMATS["claim"]
    own = models.load(tmp_path / "chat", device="cpu", threads=1, chat=True)
    with load(tmp_path / "chat", tmp_path, chat=True) as lm:
        rows = encode_items(lm, items, form)
        assert rows == encode_items(own, items, form)
        assert rows != encode_items(models.wrap(own.model, own.tokenizer, name="m"), items, form)
        assert lm.chat == own.chat


def test_layers_may_be_given_in_any_order_and_asked_for_in_part(faults, folder, tmp_path):
    """vLLM saves them in rising order, whatever the order of the ids."""
    expected = in_transformers(folder, batch(2))
    with load(folder, tmp_path, layers=(-2, 0)) as lm:
        assert lm.layers == (0, 2)
        found = lm.pairs(batch(2), (2,))
    assert set(found.states) == {2}
    assert_same(found, expected, (2,))


def test_states_keep_the_models_dtype_and_log_probabilities_are_float32(faults, folder, tmp_path):
    with load(folder, tmp_path, dtype="bfloat16") as lm:
        found = lm.pairs(batch(1), (1,))
    expected = in_transformers(folder, batch(1), dtype="bfloat16")
    assert (lm.dtype, found.log_probs.dtype) == ("bfloat16", torch.float32)
    assert found.states[1][0].dtype == torch.bfloat16
    assert_same(found, expected, (1,), tolerance=0.02)


def test_auto_keeps_float32(faults, folder, tmp_path):
    with load(folder, tmp_path) as lm:
        assert lm.dtype == "float32"


def test_a_file_that_appears_late_is_waited_for(faults, folder, tmp_path):
    expected = in_transformers(folder, batch(1))
    faults.delay = 0.3
    with load(folder, tmp_path) as lm:
        assert_same(lm.pairs(batch(1), LAYERS), expected, LAYERS)


def test_only_the_last_tokens_states_are_looked_at(faults, folder, tmp_path):
    def spoil(tensors):
        tensors["hidden_states"][:-1] = torch.nan
        return tensors

    expected = in_transformers(folder, batch(1))
    faults.tensors = spoil
    with load(folder, tmp_path) as lm:
        assert_same(lm.pairs(batch(1), LAYERS), expected, LAYERS)


def test_the_longest_sequence_is_one_token_less_than_vllms(faults, folder, tmp_path):
    with load(folder, tmp_path, max_model_len=12) as lm:
        assert lm.context == 11
        lm.pairs([Encoded((7,) * 10, ((5,), (9,)))], LAYERS)
        with pytest.raises(ValueError, match="prompt of 12 tokens"):
            lm.pairs([Encoded((7,) * 11, ((5,), (9,)))], LAYERS)


def test_as_a_pass_it_reads_whole_batches(faults, folder, tmp_path):
    items = batch()
    with load(folder, tmp_path) as lm:
        way: passes.Pass = VllmPass(lm)
        found = way.read(way.arrange(items), LAYERS)
        assert (way.name, way.settings) == ("vllm", lm.settings)
    assert_same(found, in_transformers(folder, items), LAYERS)
    # Both sequences of each item, none together with another's.
    longest = [2 * (len(item.prompt) + max(map(len, item.verdicts))) for item in items]
    assert way.weigh(items, 1000) == [(tokens, [row]) for row, tokens in enumerate(longest)]


# --- the engine ----------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_same_model_in_transformers(faults, folder, tmp_path):
    plain = models.load(folder, threads=1)
    with load(folder, tmp_path, tensor_parallel=2, gpu_memory_utilization=0.5) as lm:
        names = ("name", "revision", "digest", "n_blocks", "d_model", "dtype", "trained_length")
        assert [getattr(lm, n) for n in names] == [getattr(plain, n) for n in names]
        assert (lm.trained_length, lm.context, lm.device) == (99, CONTEXT - 1, "cuda")
        assert lm.tokenizer("a True")["input_ids"] == plain.tokenizer("a True")["input_ids"]
        assert lm.describe() == (
            f"{folder.name}: 3 blocks, width 32, float32, in vLLM 0.32.0 on 2 x cuda, "
            "layers 0, 1, 2"
        )
        assert lm.settings == {
            "vllm": "0.32.0",
            "tensor_parallel": 2,
            "engine": {"gpu_memory_utilization": 0.5},
        }
    (started,) = faults.started
    assert started["tensor_parallel_size"] == 2
    # Files written during the pass (vLLM 0.22) lack the tokens found in the cache.
    assert started["enable_prefix_caching"] is False


def test_all_is_every_layer_that_vllm_can_give(faults, folder, tmp_path):
    with load(folder, tmp_path, layers="all") as lm:
        assert lm.layers == (0, 1, 2)


@pytest.mark.parametrize("layers", [(1, 3), (-1,)])
def test_the_state_after_the_final_norm_is_refused(faults, folder, tmp_path, layers):
    with pytest.raises(ValueError, match=r"layer 3 \(after the final norm\).*possible: 0 .*to 2"):
        load(folder, tmp_path, layers=layers)
    assert not faults.started


def test_a_layer_that_the_model_lacks_is_refused(faults, folder, tmp_path):
    with pytest.raises(ValueError, match=r"layers \[4\].*3 blocks"):
        load(folder, tmp_path, layers=(4,))


def test_a_layer_that_was_not_asked_for_at_the_start_is_refused(faults, folder, tmp_path):
    with (
        load(folder, tmp_path, layers=(1,)) as lm,
        pytest.raises(ValueError, match=r"layers \[0, 3\]: .* started for the layers \[1\]"),
    ):
        lm.pairs(batch(1), (0, 1, 3))


def test_without_vllm_the_message_says_how_to_get_it(monkeypatch, folder, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"`pip install vllm` in an environment of its own.*load"):
        load(folder, tmp_path)


def test_a_vllm_that_lacks_something_says_so_itself(monkeypatch, folder, tmp_path):
    (tmp_path / "vllm.py").write_text("import a_library_that_is_not_there")
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        load(folder, tmp_path)


def test_a_build_for_cpus_is_refused_before_it_starts(faults, folder, tmp_path):
    faults.cpu = True
    with pytest.raises(ValueError, match=r"build for CPUs, .* cannot save hidden states.*backend"):
        load(folder, tmp_path)
    assert not faults.started


def test_options_that_the_numbers_depend_on_are_refused(faults, folder, tmp_path):
    with pytest.raises(ValueError, match="options enable_prefix_caching, kv_transfer_config are"):
        load(folder, tmp_path, kv_transfer_config={}, enable_prefix_caching=True)


def test_vllm_inside_this_process_is_refused(faults, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    with pytest.raises(ValueError, match=r"VLLM_ENABLE_V1_MULTIPROCESSING is 0.*unset"):
        load(folder, tmp_path)


def test_a_folder_without_a_model_is_named(faults, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere", tmp_path)


def test_an_encoder_decoder_model_is_refused(faults, folder, tmp_path):
    T5Config().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match="encoder-decoder"):
        load(tmp_path, tmp_path)


# --- files ---------------------------------------------------------------------------------------


def test_files_lie_in_a_private_folder_and_go_when_read(faults, folder, tmp_path):
    lm = load(folder, tmp_path)
    (private,) = (tmp_path / "scratch").iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    lm.pairs(batch(), LAYERS)
    assert list(private.iterdir()) == []
    assert lm.llm.count == 12
    lm.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_folder_goes_when_the_engine_does_not_start(faults, folder, tmp_path):
    faults.refuse = True
    with pytest.raises(RuntimeError, match="no GPU") as error:
        load(folder, tmp_path)
    assert error.tb is not None  # whose frames keep everything alive
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_file_that_never_comes_is_waited_for_no_longer_than_the_limit(faults, folder, tmp_path):
    faults.delay = 0.5
    with (
        load(folder, tmp_path, time_limit=0.05) as lm,
        pytest.raises(TimeoutError, match=r"item 0 .*, verdict 0, .*tensors: not written within"),
    ):
        lm.pairs(batch(1), LAYERS)


def change(name, function):
    return lambda tensors: tensors | {name: function(tensors[name]).contiguous()}


def nan_at_the_end(states):
    states[-1, 1, 3] = torch.nan
    return states


def zeros_at_the_end(states):
    states[-1, 1] = 0
    return states


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (change("token_ids", lambda ids: ids + 1), "other tokens"),
        (change("token_ids", lambda ids: ids[1:]), "other tokens"),
        (change("hidden_states", lambda s: s[4:]), r"shape \[17, 3, 32\]; expected \[21, 3, 32\]"),
        (change("hidden_states", lambda s: s[:, :2]), r"shape \[21, 2, 32\]; expected"),
        (change("hidden_states", torch.Tensor.half), r"torch\.float16, but the model is float32"),
        (change("hidden_states", nan_at_the_end), "not finite in float32"),
        (change("hidden_states", zeros_at_the_end), "a hidden state of zeros"),
        (lambda tensors: {"hidden_states": tensors["hidden_states"]}, "damaged .*token_ids"),
    ],
)
def test_wrong_contents_are_named_with_item_and_file(faults, folder, tmp_path, fault, message):
    """Only the files of item 1 are wrong: those of 21 tokens."""
    faults.tensors = lambda tensors: fault(tensors) if len(tensors["token_ids"]) == 21 else tensors
    pattern = rf"item 1 .*verdict 0, .*/2-0a1b\.safetensors: .*{message}"
    with load(folder, tmp_path) as lm, pytest.raises(ValueError, match=pattern):
        lm.pairs(batch(2)[::-1], LAYERS)


@pytest.mark.parametrize("size", [0, 5, 200, 1000])
def test_a_file_that_was_cut_short_is_named(faults, folder, tmp_path, size):
    faults.after_write = lambda path: os.truncate(path, size)
    with load(folder, tmp_path) as lm:
        with pytest.raises(ValueError, match=r"item 0 .*0-0a1b\.safetensors: damaged"):
            lm.pairs(batch(1), LAYERS)
        lm.llm.writers.shutdown()
        assert not (Path(lm.scratch.name) / "0-0a1b.safetensors").exists()


def test_a_writer_that_fails_is_noticed_at_once(faults, folder, tmp_path):
    def full(tensors):
        raise OSError("no space left on device")

    faults.tensors = full
    with (
        load(folder, tmp_path, time_limit=60) as lm,
        pytest.raises(FileNotFoundError, match=r"item 0 .*safetensors: vLLM gave up writing"),
    ):
        lm.pairs(batch(1), LAYERS)


# --- log-probabilities ---------------------------------------------------------------------------


def without_the_verdict(outputs):
    outputs[1].prompt_logprobs[-1] = {3: Logprob(-1.0)}
    return outputs


def swapped(outputs):
    return outputs[::-1]


def without_any(outputs):
    for output in outputs:
        output.prompt_logprobs = None
    return outputs


def without_a_file(outputs):
    outputs[1].kv_transfer_params = None
    return outputs


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_the_verdict, "verdict 1: vLLM gave no log-probability of the verdict's token 9"),
        (swapped, "not those of the 21 tokens it was sent"),
        (without_any, "gave back 0 log-probabilities for 21 tokens"),
        (without_a_file, "verdict 1: vLLM named no file"),
    ],
)
def test_outputs_that_do_not_fit_the_request_are_refused(faults, folder, tmp_path, fault, message):
    faults.outputs = fault
    with load(folder, tmp_path) as lm, pytest.raises(ValueError, match=message):
        lm.pairs(batch(1), LAYERS)
