"""Adapters (LoRA and its kin): a folder with an adapter is a model, whose base it names."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode
from safetensors import safe_open
from transformers.utils.hub import cached_file, extract_commit_hash

from extract.load_errors import RefusedModelError
from extract.printable import listed

CONFIG = "adapter_config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_APPLIED = "adapter_applied"
"""Attribute of a base model: peft's model around it."""
_WHOLE = ("model*.safetensors", "pytorch_model*.bin", "*.index.json")


@dataclass(frozen=True)
class Adapter:
    """An adapter that is not applied yet.

    Attributes:
        source: Its folder, or its id on the hub.
        revision: Branch, tag or commit on the hub.
        commit: Commit on the hub; "" for a folder.
        base: The model that it changes: a folder or an id, as its config names it.
        base_revision: The base's revision, if the config pins one.
        own_tokenizer: Whether a tokenizer lies beside it.
    """

    source: str
    revision: str | None
    commit: str
    base: str
    base_revision: str | None
    own_tokenizer: bool


def find_adapter(folder: Path | None, source: str, revision: str | None) -> Adapter | None:
    """The adapter that a folder or a repository of the hub holds, or None.

    Raises:
        ValueError: If there is a whole model beside it (which of the two is meant?), or its config
            names no base.
        OSError: If the hub cannot be asked.
    """
    path = folder / CONFIG if folder else _of_the_hub(source, CONFIG, revision)
    if path is None or not path.is_file():
        return None
    if _whole_model(folder, source, revision):
        raise RefusedModelError(
            f"{source} holds a whole model and an adapter ({CONFIG}), so it does not say which is "
            "meant: move the adapter's files to a folder of their own and give that one (its "
            f"{CONFIG} names the base), or take {CONFIG} away to load the model alone"
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise RefusedModelError(
            f"{path}: base_model_name_or_path is {base!r}; give the id or the folder of the model "
            "that the adapter was trained on"
        )
    return Adapter(
        source=source,
        revision=revision,
        commit="" if folder else extract_commit_hash(str(path), None) or "",
        base=base,
        base_revision=config.get("revision"),
        own_tokenizer=any((path.parent / name).is_file() for name in _TOKENIZER),
    )


def _whole_model(folder: Path | None, source: str, revision: str | None) -> bool:
    if folder:
        return any(True for pattern in _WHOLE for _ in folder.glob(pattern))
    return _of_the_hub(source, "config.json", revision) is not None


def _of_the_hub(source: str, name: str, revision: str | None) -> Path | None:
    """A file of the hub, None where the repository has none, or (off line) the cache."""
    lenient: dict[str, Any] = {
        "_raise_exceptions_for_gated_repo": False,
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    cached = cached_file(source, "config.json", revision=revision, local_files_only=True, **lenient)
    # Where nothing is cached, a hub that does not answer is asked once, not file by file.
    lenient["_raise_exceptions_for_connection_errors"] = cached is None and not is_offline_mode()
    path = cached_file(source, name, revision=revision, **lenient)
    return None if path is None else Path(path)


def require_peft(adapter: Adapter) -> Any:
    """The module `peft`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            f"{adapter.source} is an adapter of {adapter.base}, and adapters need peft: "
            "`pip install peft`"
        ) from error
    return peft


def apply_adapter(model: Any, adapter: Adapter) -> Any:
    """The base model with the adapter's weights in its layers, not merged into its own.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If the adapter is no change of weights (prompt tuning), or its tensors are not
            those that its config asks for; the message names them.
    """
    peft = require_peft(adapter)
    config = peft.PeftConfig.from_pretrained(adapter.source, revision=adapter.revision)
    if config.is_prompt_learning:
        raise RefusedModelError(
            f"{adapter.source} is an adapter of the kind {config.peft_type}, which puts vectors "
            "before a prompt: the prompt would not be what its text says; give a LoRA-like one"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensors that are missing are told below
        applied = peft.PeftModel.from_pretrained(model, adapter.source, revision=adapter.revision)
    _check_tensors(peft, applied, adapter)
    base = applied.get_base_model()
    object.__setattr__(base, _APPLIED, applied)  # no submodule, which would hold itself
    return base


def merged(model: Any) -> Any:
    """A copy of a model of `apply_adapter` whose own weights have the adapter's change."""
    return getattr(copy.deepcopy(model), _APPLIED).merge_and_unload()


def _check_tensors(peft: Any, applied: Any, adapter: Adapter) -> None:
    asked = set(peft.get_peft_model_state_dict(applied))
    held = _tensors(adapter)
    if held is None:
        return
    for what, names in (("lacks", asked - held), ("holds, beyond what it asks for,", held - asked)):
        if names:
            raise RefusedModelError(
                f"the adapter {adapter.source} {what} the tensors {listed(sorted(names))}: its "
                f"weights do not fit its {CONFIG}, or the model {adapter.base}"
            )


def _tensors(adapter: Adapter) -> set[str] | None:
    """Names of the adapter's tensors; None where they are not in a safetensors file."""
    name = "adapter_model.safetensors"
    folder = Path(adapter.source)
    path = folder / name if folder.is_dir() else _of_the_hub(adapter.source, name, adapter.revision)
    if path is None or not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        return set(file.keys())
