"""Language models: any causal one from the Hugging Face hub or a folder, or the pocket model."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import output_capturing

from extract import apple, dtype_trial, gguf_cache, gguf_file
from extract.adapters import CONFIG as ADAPTER_CONFIG
from extract.adapters import Adapter, apply_adapter, find_adapter, require_peft
from extract.chat import ChatTemplate, find_chat
from extract.digests import digest_of_contents, digest_of_files, digest_of_text, with_notes
from extract.load_errors import refuse_container, told
from extract.loaded import (
    check_states,
    check_weights,
    loader_notes,
    quiet,
    read_last_after_norm,
)
from extract.printable import first_line, printable
from extract.tokenizer_files import Loaded, check_vocabulary, describe_prefix, load_tokenizer

POCKET = Path(__file__).parent / "pocket"
"""Folder of the model that ships with the package."""

ONE_THREAD_BELOW = 30_000_000
"""Parameters below which a model runs in one CPU thread."""

_TOLD = ("adapter", "quantised", dtype_trial.CHECK, "output embeddings", "chat template")
"""Checks that a model's line repeats."""

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


class TextModel(Protocol):
    """What an extraction has to know of a model, whichever engine runs it."""

    @property
    def tokenizer(self) -> Any:
        """Its Hugging Face tokenizer."""
        ...

    @property
    def name(self) -> str:
        """Hub id, name of the folder, or "pocket"."""
        ...

    @property
    def revision(self) -> str:
        """Commit on the hub; "" for a folder."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 that pins weights, config and tokenizer."""
        ...

    @property
    def trained_length(self) -> int | None:
        """Longest text the model was trained on, if known."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0", ..."""
        ...

    @property
    def dtype(self) -> str:
        """Of weights and hidden states."""
        ...

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        ...

    @property
    def d_model(self) -> int:
        """Width of a hidden state."""
        ...

    @property
    def context(self) -> int | None:
        """Most tokens that it can read, or None where nothing says so."""
        ...

    @property
    def checks(self) -> Mapping[str, str]:
        """What was checked when it was loaded, and what came of it."""
        ...

    @property
    def chat(self) -> ChatTemplate | None:
        """The template that its prompts stand in; None = they are read as they are."""
        ...

    def describe(self) -> str:
        """One line about it."""
        ...


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model with its tokenizer, ready to run.

    Attributes:
        model: The Hugging Face model, in evaluation mode.
        tokenizer: Its tokenizer.
        name: Hub id, name of the folder, or "pocket".
        revision: Commit on the hub; "" for a folder.
        digest: SHA-256 that pins weights, config and tokenizer.
        device: Where token ids go: "cpu", "cuda:0", ...
        threads: CPU threads that torch uses.
        trained_length: Longest text the model was trained on, if its config says so
            (`trained_length`); longer prompts work but are out of its depth.
        checks: What was checked when it was loaded, one line each.
        chat: The template that its prompts stand in; None = they are read as they are.
        folder: Where its weights lie, for messages; None on the hub and in memory.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str
    digest: str
    device: str
    threads: int
    trained_length: int | None
    checks: Mapping[str, str] = field(default_factory=dict)
    chat: ChatTemplate | None = None
    folder: Path | None = None

    @property
    def config(self) -> Any:
        """The config of the text model (of the part that reads text, where there are several)."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def n_blocks(self) -> int:
        """Number of blocks; the model has n_blocks + 1 hidden states."""
        return self.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of a hidden state."""
        return self.config.hidden_size

    @property
    def dtype(self) -> str:
        """Dtype of weights and hidden states: "float32", "float16" or "bfloat16"."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context(self) -> int | None:
        """Most tokens that the model can read, or None where the config names no limit."""
        return getattr(self.config, "max_position_embeddings", None)

    def describe(self) -> str:
        """One line: what is loaded, where, and how many threads were chosen and why."""
        size, where = self.n_parameters, self.device
        if where == "cpu":
            why = "small" if size < ONE_THREAD_BELOW else "large"
            where += f", {self.threads} thread(s) ({why} model; --threads overrides)"
        revision = f" at {self.revision[:12]}" if self.revision else ""
        remarks = [f"; {name}: {self.checks[name]}" for name in _TOLD if name in self.checks]
        return printable(
            f"{self.name}{revision}: {size / 1e6:.1f} M parameters, {self.n_blocks} blocks, "
            f"width {self.d_model}, {self.dtype}, on {where}{''.join(remarks)}"
        )


def load(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    threads: int | None = None,
    chat: bool | None = False,
) -> LanguageModel:
    """Loads a causal language model and its tokenizer, and compares both with their files.

    Args:
        model: A Hugging Face id ("meta-llama/Llama-3.1-8B"), a folder in Hugging Face format, or
            "pocket", the model that ships with this package. A folder or id of an adapter alone
            (LoRA) is its base with the adapter applied; that needs peft. A GGUF file, or a folder
            with one, is turned into a folder first, which is kept (`extract.gguf_cache`); that
            needs gguf.
        revision: Branch, tag or commit on the hub; none for a folder.
        dtype: Of weights and hidden states; "auto" = as the weights were saved, and for a GGUF file
            as `gguf_cache.choose_dtype` says, which may try out the CPU. On "mps" float32 instead,
            where Metal lacks the dtype (`extract.apple`).
        device: A torch device; "auto" = a GPU if there is one, cuda (under `accelerate launch` the
            one of this process) or Apple's mps, else the CPU; "spread" = split over all GPUs, for a
            model that does not fit one.
        threads: CPU threads; None = `choose_threads`. Set for the whole process.
        chat: Put the model's own chat template around every prompt (`extract.chat`); None = where
            it has one.

    Raises:
        FileNotFoundError: If the folder is missing or incomplete, or the hub lacks the model.
        ImportError: If the model needs a package that is not installed.
        MemoryError: If the device has no room for it.
        ValueError: If it is no causal language model; if its files are damaged, lack a tensor that
            its config asks for or hold one that it does not ask for; if the ids of its tokenizer
            are not those of its own tokenizer.json, or lie beyond the embeddings; if it holds a
            whole model and an adapter; if a GGUF file cannot be turned into a model; if a chat
            template is asked for and there is none that will do; if revision, device or threads is
            not allowed. The message names the file or the tensors.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; allowed: 1 or more, or None")
    where = usable_device(device)
    apple.check_dtype(dtype, where)
    named = _named_gguf(str(model), revision, dtype, where) or _named(str(model), revision)
    parts = _parts(named)
    beside = parts.with_tokenizer
    with told(beside.folder, beside.source, beside.revision, part="the tokenizer of the model"):
        tokens = load_tokenizer(beside.source, beside.revision, trust_remote_code=False)
    read = _read(parts, tokens, dtype=dtype, where=where)
    lm = wrap(
        read.model,
        tokens.tokenizer,
        name=named.name,
        revision=read.commit,
        digest=read.digest,
        threads=threads,
        checks={**read.notes, "tokenizer": tokens.said, **named.checks},
        chat=chat,
    )
    return replace(lm, folder=parts.base.folder)


class _Named(NamedTuple):
    """A model as a user names it, and where it lies."""

    source: str
    folder: Path | None
    name: str
    revision: str | None
    digest: str | None = None
    """Of the file that the folder was made of."""
    checks: Mapping[str, str] = MappingProxyType({})


def _named_gguf(model: str, revision: str | None, dtype: Dtype, device: str) -> _Named | None:
    """A GGUF file's model, as the folder that it was turned into."""
    file = gguf_file.find_gguf(model)
    if file is None:
        return None
    if revision is not None:
        raise ValueError(
            f"revision is {revision!r}, but {file} is a file, and only models on the hub have "
            "revisions; leave it out"
        )
    made = gguf_cache.converted(file, dtype=dtype, device=device)
    checks = {"quantised": made.said, "tokenizer": made.tokenizer}
    if made.trial:
        checks[dtype_trial.CHECK] = made.trial
    name = gguf_file.name_of(model, file)
    return _Named(str(made.folder), made.folder, name, None, made.sha256, checks)


def _named(model: str, revision: str | None) -> _Named:
    folder = local_folder(model)
    if folder is None:
        return _Named(model, None, model, revision)
    if revision is not None:
        what = "the pocket model ships with the package" if model == "pocket" else "is a folder"
        raise ValueError(
            f"revision is {revision!r}, but {model}: {what}, and only models on the hub have "
            "revisions; leave it out"
        )
    name = "pocket" if model == "pocket" else folder_name(folder.resolve())
    return _Named(str(folder), folder, name, None)


class _Parts(NamedTuple):
    """Where the parts of a model lie."""

    named: _Named
    adapter: Adapter | None
    """What was named, where that is an adapter alone."""
    base: _Named
    """The whole model: the adapter's base, or what was named."""

    @property
    def with_tokenizer(self) -> _Named:
        """The part beside which the tokenizer lies: the adapter, if one is there."""
        own = self.adapter is not None and self.adapter.own_tokenizer
        return self.named if own else self.base


def _parts(named: _Named) -> _Parts:
    """Looks whether a model is an adapter alone, and for its base."""
    with told(named.folder, named.source, named.revision):
        adapter = find_adapter(named.folder, named.source, named.revision)
    return _Parts(named, adapter, named if adapter is None else _base(adapter))


def folder_name(folder: Path) -> str:
    """A folder's name, or its parent's where it is called "model", as those of trainings are."""
    return folder.parent.name if folder.name == "model" and folder.parent.name else folder.name


def _base(adapter: Adapter) -> _Named:
    """The model that an adapter changes."""
    require_peft(adapter)
    config = f"{adapter.source}/{ADAPTER_CONFIG} names as its base"
    try:
        base = _named(adapter.base, None)
        with told(base.folder, base.source, adapter.base_revision):
            another = find_adapter(base.folder, base.source, adapter.base_revision)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{config} {adapter.base!r}: {error}") from error
    if another is not None:
        raise ValueError(
            f"{config} {adapter.base!r}, which is an adapter itself; merge that one into its own "
            f"base ({another.base}) first, and name the merged model"
        )
    return base._replace(revision=None if base.folder else adapter.base_revision)


class _Read(NamedTuple):
    """A model that was read from its files, its adapter applied."""

    model: Any
    commit: str
    """On the hub; "" for a folder."""
    digest: str | None
    """Of its files, and of what was noted; None where neither a folder nor a commit pins them."""
    notes: dict[str, str]
    """What was compared, and what a loader made of the files beyond reading them."""


def _read(parts: _Parts, tokens: Loaded, *, dtype: Dtype, where: str) -> _Read:
    """Reads weights and adapter, and pins both; `tokens` is the tokenizer of the same model."""
    named, adapter, base = parts
    with told(base.folder, base.source, base.revision):
        loaded, weights = _weights(base, dtype=dtype, where=where)
    notes = loader_notes(loaded)
    remarks = [*(f"{name}: {text}" for name, text in notes.items()), *tokens.notes]
    digest = _pinned(base, loaded, tokens.tokenizer)
    commit = _commit(base, loaded)
    if adapter is not None:
        with told(named.folder, named.source, named.revision):
            loaded = apply_adapter(loaded, adapter)
        digest = _pinned_adapter(named, adapter, digest, tokens.tokenizer)
        commit = adapter.commit
        notes["adapter"] = f"of the base {adapter.base}, applied, not merged"
    if digest is not None:
        digest = with_notes(digest, remarks)
    return _Read(loaded, commit, digest, {"weights": weights, **notes})


def _weights(named: _Named, *, dtype: Dtype, where: str) -> tuple[Any, str]:
    """The model on its device, and one line on how its tensors were filled."""
    placing = {"device_map": "auto"} if where == "spread" else {}
    loader: Any = AutoModelForCausalLM
    with quiet():
        loaded, report = loader.from_pretrained(
            named.source,
            revision=named.revision,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,  # None would ask at the terminal
            ignore_mismatched_sizes=True,  # told by the report, and refused by it
            **placing,
        )
    said = check_weights(loaded, report, named.source)
    if where == "spread":
        return loaded, said
    return apple.computable(loaded, where).to(torch.device(where)), said


def _commit(named: _Named, loaded: Any) -> str:
    return "" if named.folder else getattr(loaded.config, "_commit_hash", None) or ""


def _pinned(named: _Named, loaded: Any, tokenizer: Any) -> str | None:
    """Digest of a model's files; None where neither a folder nor a commit pins them."""
    if named.digest:
        return named.digest
    if named.folder:
        return digest_of_files(named.folder, tokenizer)
    commit = _commit(named, loaded)
    return digest_of_text(f"hub {named.source} {commit}") if commit else None


def _pinned_adapter(
    named: _Named, adapter: Adapter, base: str | None, tokenizer: Any
) -> str | None:
    if base is None or not (named.folder or adapter.commit):
        return None
    own = (
        digest_of_files(named.folder, tokenizer)
        if named.folder
        else digest_of_text(f"hub {named.source} {adapter.commit}")
    )
    return digest_of_text(f"base {base} adapter {own}")


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    revision: str = "",
    digest: str | None = None,
    threads: int | None = None,
    checks: Mapping[str, str] | None = None,
    chat: bool | None = False,
) -> LanguageModel:
    """A model that is in memory already, as a `LanguageModel`; its states are checked.

    A config that asks for the last hidden state before the final norm
    (`tie_last_hidden_states: false`) is changed: the last state is the one after it here.

    Args:
        model: A Hugging Face causal language model, on its device.
        tokenizer: Its tokenizer.
        name: What stores and results call it.
        revision: Commit on the hub, if it has one.
        digest: Pins weights, config and tokenizer; None = computed from them.
        threads: CPU threads; None = `choose_threads`. Set for the whole process.
        checks: What was checked before, one line each.
        chat: Put its own chat template around every prompt; None = where it has one.

    Raises:
        ValueError: If the model does not read one text from left to right, its last hidden state
            is not the one after the final norm, a token has no embedding, or a chat template is
            asked for and there is none that will do.
    """
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder model; hidden states of contrast pairs need a causal "
            "(decoder-only) language model"
        )
    template = find_chat(tokenizer, name) if _wants_chat(chat, tokenizer) else None
    device = str(model.device)
    _set_threads(model, name, 1 if device == "cpu" else None)  # eight tokens are not worth two
    read_last_after_norm(model)
    own = {
        "vocabulary": check_vocabulary(tokenizer, model, name),
        "prompts begin with": describe_prefix(tokenizer),
        "hidden states": check_states(model.eval(), name),
    }
    if template is not None:
        own["chat template"] = template.describe()
    _set_threads(model, name, threads)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        digest=digest or digest_of_contents(model, tokenizer),
        device=device,
        threads=torch.get_num_threads(),
        trained_length=getattr(model.config, "trained_length", None),
        checks={**(checks or {}), **own},
        chat=template,
    )


def _wants_chat(chat: bool | None, tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None)) if chat is None else chat


def _set_threads(model: Any, name: str, threads: int | None) -> None:
    if model.device.type != "cpu":
        if threads is not None:
            warnings.warn(
                f"threads is {threads}, but {name} runs on {model.device}, not the CPU: it does "
                "nothing there",
                stacklevel=3,
            )
        return
    size = sum(parameter.numel() for parameter in model.parameters())
    torch.set_num_threads(choose_threads(size) if threads is None else threads)


def states_wanted(layers: Sequence[int]) -> list[int] | bool:
    """What a model is asked for as `output_hidden_states`: the layers, or all where it knows none.

    transformers before 5.20 or so reads a list of numbers as blocks, not as hidden-state indices,
    and would give states of one block further on.
    """
    return list(layers) if hasattr(output_capturing, "selected_hidden_states") else True


def choose_threads(n_parameters: int) -> int:
    """CPU threads for a model of this size: one below `ONE_THREAD_BELOW`, else one per core.

    The cores counted are those that this process may use (`taskset`, a cluster's scheduler).

    A small model's matrices are so small that handing work to a second thread costs more than the
    work. Measured on 2 cores that other programs used too: 1.6 M parameters, a prompt of 64 tokens:
    3.7 ms with one thread, 4.9 ms with two; 6 M: 13 ms and 300-700 ms. Where nothing else runs,
    long prompts gain from more: an ICM search over 28 facts takes the pocket model 48 s with one
    thread and 28 s with two; with another program on one of the two cores, 60 s and over 280 s.
    """
    return 1 if n_parameters < ONE_THREAD_BELOW else _cores()


def choose_token_budget(device: str) -> int:
    """Tokens of a pass, where nobody says otherwise: 2,048 on a CPU, 8,192 elsewhere.

    On a CPU the arrays of a larger pass fall out of the caches. Measured on 2 cores with 168 M
    parameters and prompts of 190 tokens: 4.2 items/s at 512 tokens, 4.8 at 2,048, 2.8 at 8,192. A
    GPU is busy from some thousand tokens on.
    """
    return 2048 if device == "cpu" else 8192


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_folder(model: str) -> Path | None:
    """The folder that `model` names, or None for a hub id.

    Raises:
        FileNotFoundError: If a folder was meant, but it holds no model.
        ValueError: If it is a file, or a folder of files, of another kind (ONNX, ...). GGUF is
            one, too: `load` looks for it before.
    """
    if model == "pocket":
        needed = ("config.json", "model.safetensors", "tokenizer.json")
        if missing := [name for name in needed if not (POCKET / name).is_file()]:
            raise FileNotFoundError(
                f"the pocket model is not in {POCKET} (no {', '.join(missing)}): reinstall the "
                "package, or train the model with "
                "`python experiments/pretrain_pocket.py --seeds 2 --ship extract/pocket`"
            )
        return POCKET
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file() or (folder / ADAPTER_CONFIG).is_file():
        return folder
    refuse_container(folder)
    # A hub id is "name" or "owner/name"; anything else was meant as a path.
    if folder.is_dir() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise FileNotFoundError(f"no model in the folder {folder}: it has no config.json")
    return None


def trained_length(model: str) -> int | None:
    """Longest text that a model was trained on, where a config on this machine says so.

    Args:
        model: As of `load`, which is not needed for this.
    """
    folder = POCKET if model == "pocket" else Path(model).expanduser()
    config, adapter = folder / "config.json", folder / ADAPTER_CONFIG
    if not config.is_file():
        if not adapter.is_file():
            return None
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        return trained_length(base) if base else None
    return json.loads(config.read_text(encoding="utf-8")).get("trained_length")


def usable_device(device: str) -> str:
    """The torch device that is meant: "auto" resolved, any other tried out.

    Raises:
        ValueError: If torch does not know it, or this machine does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return "mps" if apple.has_gpu() else "cpu"
    if device == "spread":
        return device
    try:
        known = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"device {device!r} is unknown to torch; give auto, spread, cpu, mps, cuda or cuda:1"
        ) from error
    if known.type == "meta":
        raise ValueError("device 'meta' holds no numbers; give auto, spread, cpu, mps or cuda")
    try:
        torch.empty(1, device=known).cpu()
    except Exception as error:  # of many classes, by device: AssertionError, RuntimeError, ...
        raise ValueError(
            f"device {device!r} is not to be had here ({first_line(error)}); this machine has "
            f"{_devices()}"
        ) from error
    return device


def _devices() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [f"cuda:{number}" for number in range(count)]
    return ", ".join(["cpu", *(["mps"] if apple.has_gpu() else []), *gpus])
