"""Contrast pairs through vLLM: models over several GPUs, batched without padding.

vLLM (offline `LLM`) saves hidden states itself: its speculative method "extract_hidden_states"
keeps the chosen layers in a cache, and ExampleHiddenStatesConnector writes one safetensors file per
request: "hidden_states" [tokens, layers, D] and "token_ids" [tokens]. Written from the sources of
vLLM 0.32 and tested against a stand-in that follows them. Tried once on a real engine: that of the
CPU build, with stand-ins for the two CUDA calls of the connector that it lacks. Every layer of the
pocket model agreed with transformers to 2e-6 of the largest value, log-probabilities to 3e-5. Not
yet run on a GPU. (0.22 and older need `enable_chunked_prefill=False` besides.) From the sources:

Layers. vLLM's layer id l is what enters block l: the embeddings for 0, the output of block l after
it, as here. Its id n_blocks is the last block's output *before* the final norm, ours is after it,
so that one is refused. The ids are fixed when the engine starts, and saved in rising order.

Log-probabilities. `prompt_logprobs=0` gives that of every token of a sequence as it stands, from
a float32 log-softmax over the whole vocabulary: exact for verdicts of any length, with two requests
per item. Asking for the next token's instead (`logprob_token_ids`) would take one more request per
item and verdict token, and vLLM would write all the prompt's states once more for each.

No prefix caching. vLLM never reads the prefix cache for a request with prompt log-probabilities,
since they would be missing for the cached tokens; and releases that write during the pass (0.22,
issue 44485) leave the cached tokens out of the file.

Waiting. `generate` returns before the files are written. The writer holds an exclusive lock on
`<file>.lock` from before the path is known until the file is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from extract import models
from extract.adapters import find_adapter
from extract.chat import ChatTemplate, find_chat
from extract.digests import digest_of_files, digest_of_text, with_notes
from extract.hidden_states import CURES, resolve_layers
from extract.load_errors import RefusedModelError, told
from extract.models import Dtype
from extract.passes import PairStates, longest
from extract.printable import printable
from extract.tokenizer_files import describe_prefix, load_tokenizer
from extract.verdicts import Encoded


@dataclass(frozen=True, kw_only=True)
class VllmModel:
    """A language model inside a vLLM engine, with the facts of a `LanguageModel`.

    Attributes:
        llm: The `vllm.LLM`.
        sampling: The `vllm.SamplingParams` of every request.
        tokenizer: The Hugging Face tokenizer.
        name: Hub id, name of the folder, or "pocket".
        revision: Commit on the hub; "" for a folder.
        digest: SHA-256 that pins weights, config and tokenizer, as `extract.models` computes it.
        config: The config of the part that reads text.
        trained_length: Longest text the model was trained on, if its config says so.
        checks: What was checked of the model's files, one line each.
        layers: Hidden-state indices that this engine saves, rising.
        settings: What the numbers depend on: vLLM's version and the engine's options.
        scratch: Private folder of the files under way; goes with `close`, or with the object.
        time_limit: Seconds to wait for one file.
        chat: The template that its prompts stand in; None = they are read as they are.
    """

    llm: Any
    sampling: Any
    tokenizer: Any
    name: str
    revision: str
    digest: str
    config: Any
    trained_length: int | None
    checks: Mapping[str, str]
    layers: tuple[int, ...]
    settings: dict[str, Any]
    scratch: TemporaryDirectory[str]
    time_limit: float
    chat: ChatTemplate | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        layers: Literal["all"] | Sequence[int],
        revision: str | None = None,
        dtype: Dtype = "auto",
        tensor_parallel: int = 1,
        scratch: str | os.PathLike[str] | None = None,
        time_limit: float = 120.0,
        chat: bool = False,
        **engine_options: Any,
    ) -> VllmModel:
        """Starts a vLLM engine that saves these layers. Needs a GPU.

        Args:
            model: A Hugging Face id, a folder in Hugging Face format, or "pocket".
            layers: Hidden-state indices, 0 (embeddings) to n_blocks - 1; negative ones count from
                the end. "all" = all of those. Each takes D numbers per token of the GPU's cache and
                of each file.
            revision: Branch, tag or commit on the hub.
            dtype: Of weights and hidden states; "auto" = as the config says (vLLM's own "auto"
                would turn float32 into 16 bits).
            tensor_parallel: GPUs that the model is split over.
            scratch: Where a private folder for the files under way is made; None = the system's
                temporary folder. A file system in memory (/dev/shm) is fastest; a batch of T tokens
                takes T * layers * D numbers.
            time_limit: Seconds to wait for one file.
            chat: Put the model's own chat template around every prompt (`extract.chat`).
            **engine_options: More options of `vllm.LLM`, for example `max_model_len`.

        Raises:
            ImportError: If vLLM is not installed.
            FileNotFoundError: If the folder is missing or incomplete, or the hub lacks the model.
            ValueError: If a layer is not to be had, an option is not the caller's to set, there is
                no chat template that will do, or vLLM is a build for CPUs or was told to run in
                this process.
        """
        vllm = _vllm()
        source = _source(model, revision, engine_options)
        template = find_chat(source.tokenizer, source.name) if chat else None
        chosen = _possible(layers, n_blocks=source.config.num_hidden_layers)
        folder = _scratch(scratch)
        fixed = _fixed_options(
            source, chosen, folder=folder.name, dtype=dtype, tensor_parallel=tensor_parallel
        )
        with _removed_on_failure(folder):
            _check_options(fixed, engine_options)
            llm = vllm.LLM(**fixed, **engine_options)
        return cls(
            llm=llm,
            sampling=_sampling(vllm),
            tokenizer=source.tokenizer,
            name=source.name,
            revision=source.commit,
            digest=source.digest,
            config=source.config,
            trained_length=source.trained_length,
            checks=source.checks,
            layers=chosen,
            settings=_settings(vllm, tensor_parallel, engine_options),
            scratch=folder,
            time_limit=time_limit,
            chat=template,
        )

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of a hidden state."""
        return self.config.hidden_size

    @property
    def dtype(self) -> str:
        """Dtype of weights and hidden states: "float32", "float16" or "bfloat16"."""
        return str(self.llm.llm_engine.model_config.dtype).removeprefix("torch.")

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its verdict: one less than vLLM's, which must make one."""
        return self.llm.llm_engine.model_config.max_model_len - 1

    @property
    def device(self) -> str:
        """Kind of device that vLLM runs on ("cuda")."""
        return self.llm.llm_engine.vllm_config.device_config.device_type

    def describe(self) -> str:
        """One line: what is loaded, where, and which layers can be asked for."""
        revision = f" at {self.revision[:12]}" if self.revision else ""
        return printable(
            f"{self.name}{revision}: {self.n_blocks} blocks, width {self.d_model}, {self.dtype}, "
            f"in vLLM {self.settings['vllm']} on {self.settings['tensor_parallel']} x "
            f"{self.device}, layers {', '.join(map(str, self.layers))}"
        )

    def pairs(self, batch: Sequence[Encoded], layers: Sequence[int]) -> PairStates:
        """Hidden states and log-probabilities from 2n sequences.

        Args:
            batch: n prompts, each with two verdicts.
            layers: Hidden-state indices, among those that the engine was started with.

        Returns:
            Per layer two tensors [n, D] in the model's dtype, and log-probabilities [n, 2].

        Raises:
            ValueError: If a layer was not asked for at the start, or what vLLM gave back is damaged
                or does not fit the request; the message names item, verdict and file.
            FileNotFoundError: If vLLM gave up writing a file.
            TimeoutError: If a file was not there within the time limit.
        """
        if missing := [layer for layer in layers if layer not in self.layers]:
            raise ValueError(
                f"layers {missing}: this vLLM engine was started for the layers "
                f"{list(self.layers)} and saves no others; load the model with all that you need"
            )
        requests = [
            _Request(
                f"item {row} of the batch, verdict {side}",
                item.prompt,
                item.verdicts[side],
                item.branches[side],
            )
            for row, item in enumerate(batch)
            for side in (0, 1)
        ]
        outputs = self.llm.generate(
            [{"prompt_token_ids": request.ids} for request in requests],
            self.sampling,
            use_tqdm=False,
        )
        try:
            answers = list(zip(requests, outputs, strict=True))
            sums = torch.tensor([_log_prob(*answer) for answer in answers], dtype=torch.float32)
            states = torch.stack([self._last_state(*answer) for answer in answers])
        finally:
            for output in outputs:
                _delete(output)
        by_layer = states.reshape(len(batch), 2, *states.shape[1:]).permute(2, 1, 0, 3)
        found = {layer: by_layer[self.layers.index(layer)].contiguous() for layer in layers}
        return PairStates(
            {layer: (pair[0], pair[1]) for layer, pair in found.items()}, sums.reshape(-1, 2)
        )

    def close(self) -> None:
        """Removes the scratch folder; the engine ends when `llm` is no longer referred to."""
        self.scratch.cleanup()

    def __enter__(self) -> VllmModel:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _last_state(self, request: _Request, output: Any) -> torch.Tensor:
        """States of the request's last token [layers, D]; its file is deleted."""
        path = _saved_path(output)
        if path is None:
            raise ValueError(f"{request.what}: vLLM named no file of hidden states")
        what = f"{request.what}, {path}"
        _wait(path, what, time_limit=self.time_limit)
        shape = [len(request.ids), len(self.layers), self.d_model]
        row = _read_last(path, what, ids=request.ids, shape=shape)
        if str(row.dtype) != f"torch.{self.dtype}":
            raise ValueError(f"{what}: hidden states in {row.dtype}, but the model is {self.dtype}")
        if not row.isfinite().all():
            raise ValueError(
                f"{what}: hidden states not finite in {self.dtype}; {CURES[self.dtype]}"
            )
        # Every row of a cache that was not written to is zero; no state is.
        if not row.any(-1).all():
            raise ValueError(f"{what}: vLLM saved a hidden state of zeros, so it left it out")
        _delete(output)
        return row


class VllmPass:
    """`VllmModel.pairs` as a way to compute contrast pairs (`extract.passes.Pass`)."""

    name = "vllm"

    def __init__(self, lm: VllmModel) -> None:
        self.lm, self.settings = lm, lm.settings

    def weigh(self, items: Sequence[Encoded], budget: int) -> list[tuple[int, list[int]]]:
        """Every item for itself, twice: vLLM makes its own batches out of ours."""
        return [(2 * longest(item), [place]) for place, item in enumerate(items)]

    def stays(self, groups: Sequence[Sequence[Encoded]]) -> bool:
        """Items are always computed one by one."""
        return True

    def arrange(self, batch: Sequence[Encoded]) -> Sequence[Encoded]:
        """The batch itself."""
        return batch

    def read(self, arranged: Sequence[Encoded], layers: Sequence[int]) -> PairStates:
        """See `VllmModel.pairs`."""
        return self.lm.pairs(arranged, layers)


class _Request(NamedTuple):
    """One sequence: a prompt and one of its verdicts, with what follows that."""

    what: str
    prompt: tuple[int, ...]
    verdict: tuple[int, ...]
    branch: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.branch]


class _Source(NamedTuple):
    """A model's files, and what they say."""

    path: str
    name: str
    commit: str
    digest: str
    config: Any
    saved_dtype: str
    trained_length: int | None
    tokenizer: Any
    checks: Mapping[str, str]


# --- before the engine starts --------------------------------------------------------------------


def _vllm() -> ModuleType:
    """The module, imported only here: it is no dependency, and it takes hold of the GPU."""
    try:
        import vllm  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise ImportError(
            "vLLM is not installed. It pins its own torch, so it is none of jelicit's extras: "
            "`pip install vllm` in an environment of its own, then jelicit there. Meanwhile use "
            "the Hugging Face back end (`extract.models.load`), which needs nothing more"
        ) from error
    if import_module("vllm.platforms").current_platform.is_cpu():
        # Known before the engine has started; it would die with the first request.
        raise ValueError(
            "this vLLM is a build for CPUs, and those cannot save hidden states (0.32 copies them "
            "through pinned memory, which takes a GPU); use the Hugging Face back end "
            "(`extract.models.load`, `--backend transformers`)"
        )
    return vllm


def _source(
    model: str | os.PathLike[str], revision: str | None, engine_options: Mapping[str, Any]
) -> _Source:
    """Reads config and tokenizer, and pins the commit, so that vLLM loads the same."""
    folder = models.local_folder(str(model))
    path = str(folder or model)
    if folder and revision is not None:
        raise ValueError(f"revision is {revision!r}, but {model} is a folder; leave it out")
    options = {
        "revision": revision,
        "trust_remote_code": bool(engine_options.get("trust_remote_code", False)),
    }
    with told(folder, path, revision):
        if find_adapter(folder, path, revision) is not None:
            raise RefusedModelError(
                f"{path} is an adapter, which is not applied in vLLM here: merge it into its base "
                "first (peft's `merge_and_unload`), or use `--backend transformers`"
            )
        config = AutoConfig.from_pretrained(path, **options)
        tokens = load_tokenizer(path, **options)
    tokenizer = tokens.tokenizer
    if config.is_encoder_decoder:
        raise ValueError(f"{path} is an encoder-decoder model; contrast pairs need a causal one")
    commit = "" if folder else getattr(config, "_commit_hash", None) or ""
    text = config.get_text_config(decoder=True)
    saved = getattr(text, "dtype", None) or getattr(config, "dtype", None) or "auto"
    return _Source(
        path=path,
        name=str(model) if folder is None or str(model) == "pocket" else folder.resolve().name,
        commit=commit,
        digest=with_notes(
            digest_of_files(folder, tokenizer)
            if folder
            else digest_of_text(f"hub {path} {commit}"),
            tokens.notes,
        ),
        config=text,
        saved_dtype=str(saved).removeprefix("torch."),
        trained_length=getattr(config, "trained_length", None),
        tokenizer=tokenizer,
        checks={
            "weights": "loaded by vLLM, not compared with the config",
            "tokenizer": tokens.said,
            "prompts begin with": describe_prefix(tokenizer),
        },
    )


def _possible(layers: Literal["all"] | Sequence[int], *, n_blocks: int) -> tuple[int, ...]:
    """Hidden-state indices that vLLM can give, in rising order."""
    if layers == "all":
        return tuple(range(n_blocks))
    chosen = resolve_layers(layers, n_blocks=n_blocks)
    if n_blocks in chosen:
        raise ValueError(
            f"layer {n_blocks} (after the final norm) is not to be had from vLLM, which saves that "
            f"state before the norm; possible: 0 (embeddings) to {n_blocks - 1}, or -{n_blocks + 1}"
            " to -2"
        )
    return chosen


def _scratch(parent: str | os.PathLike[str] | None) -> TemporaryDirectory[str]:
    if parent is not None:
        Path(parent).mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(prefix="jelicit-vllm-", dir=parent, ignore_cleanup_errors=True)


def _fixed_options(
    source: _Source,
    layers: Sequence[int],
    *,
    folder: str,
    dtype: Dtype,
    tensor_parallel: int,
) -> dict[str, Any]:
    """The options of `vllm.LLM` that the numbers depend on."""
    commit = source.commit or None
    return {
        "model": source.path,
        "revision": commit,
        "tokenizer_revision": commit,
        "dtype": source.saved_dtype if dtype == "auto" else dtype,
        "tensor_parallel_size": tensor_parallel,
        "enable_prefix_caching": False,
        "logprobs_mode": "raw_logprobs",
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {
                "hf_config": {"eagle_aux_hidden_state_layer_ids": list(layers)},
            },
        },
        "kv_transfer_config": {
            "kv_connector": "ExampleHiddenStatesConnector",
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {
                "shared_storage_path": folder,
                "use_synchronization_lock": True,
            },
        },
    }


def _check_options(fixed: Mapping[str, Any], engine_options: Mapping[str, Any]) -> None:
    if clash := sorted(fixed.keys() & engine_options.keys()):
        raise ValueError(
            f"engine options {', '.join(clash)} are set here, for hidden states to be right; use "
            "the arguments of VllmModel.load where there is one"
        )
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0":
        # A request's file is written in the step after its last one; in this process, none follows.
        raise ValueError(
            "VLLM_ENABLE_V1_MULTIPROCESSING is 0: inside this process vLLM never writes the last "
            "hidden states; unset it"
        )


@contextmanager
def _removed_on_failure(folder: TemporaryDirectory[str]) -> Iterator[None]:
    """Where no engine comes up, nobody will close the model and remove its scratch folder."""
    try:
        yield
    except BaseException:
        folder.cleanup()
        raise


def _sampling(vllm: ModuleType) -> Any:
    """Greedy, one token (vLLM must make one), with the log-probabilities of the prompt's own."""
    return vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)


def _settings(
    vllm: ModuleType, tensor_parallel: int, engine_options: Mapping[str, Any]
) -> dict[str, Any]:
    """What the numbers depend on, as stores record it."""
    return {
        "vllm": vllm.__version__,
        "tensor_parallel": tensor_parallel,
        # Options can be vLLM's own objects; a store's settings are JSON.
        "engine": json.loads(json.dumps(engine_options, default=repr)),
    }


# --- reading what vLLM gave back -----------------------------------------------------------------


def _log_prob(request: _Request, output: Any) -> float:
    """Log-probability of the verdict, summed over its tokens."""
    ids, scored = request.ids, output.prompt_logprobs
    if list(output.prompt_token_ids) != ids or scored is None or len(scored) != len(ids):
        raise ValueError(
            f"{request.what}: vLLM gave back {len(scored or ())} log-probabilities for "
            f"{len(output.prompt_token_ids)} tokens, not those of the {len(ids)} tokens it was sent"
        )
    total = 0.0
    start = len(request.prompt)
    for place in range(start, start + len(request.verdict)):
        if ids[place] not in scored[place]:
            raise ValueError(
                f"{request.what}: vLLM gave no log-probability of the verdict's token {ids[place]}"
            )
        total += scored[place][ids[place]].logprob
    return total


def _saved_path(output: Any) -> Path | None:
    path = (output.kv_transfer_params or {}).get("hidden_states_path")
    return None if path is None else Path(path)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _wait(path: Path, what: str, *, time_limit: float) -> None:
    """Returns when the file is whole."""
    deadline, pause = time.monotonic() + time_limit, 0.001
    while not _released(_lock_of(path)):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{what}: not written within {time_limit:g} s; see vLLM's log, or raise the time "
                "limit where the disk is slow"
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    if not path.exists():
        raise FileNotFoundError(
            f"{what}: vLLM gave up writing it; see its log, and whether {path.parent} is full"
        )


def _released(lock: Path) -> bool:
    """Whether the writer has let go of its lock; asked, not waited for, so that time can run out.

    No lock file is no release: vLLM makes it before it names the file.
    """
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _read_last(path: Path, what: str, *, ids: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """The last token's states [layers, D]; the other tokens' bytes are not read."""
    try:
        with safe_open(path, framework="pt") as file:
            saved_ids = file.get_tensor("token_ids").tolist()
            states = file.get_slice("hidden_states")
            if list(states.get_shape()) != list(shape):
                raise ValueError(
                    f"{what}: hidden states of shape {states.get_shape()}; expected {list(shape)} "
                    "(tokens, layers, width)"
                )
            last = states[len(ids) - 1 :][0].clone()
    except SafetensorError as error:
        raise ValueError(f"{what}: damaged ({error}); is there space left?") from error
    if saved_ids != list(ids):
        raise ValueError(f"{what}: holds the states of other tokens than it was sent")
    return last


def _delete(output: Any) -> None:
    path = _saved_path(output)
    if path is not None:
        path.unlink(missing_ok=True)
        _lock_of(path).unlink(missing_ok=True)
