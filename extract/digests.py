"""Digests that pin a model: two different models never share one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "config.json", "adapter_config.json")
_TOKENISATION = (
    "tokenizer*.json",  # tokenizer_config.json among them
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "vocab*.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "tekken.json",
)


def digest_of_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_files(folder: Path, tokenizer: Any) -> str:
    """Digest over names and contents of a folder's weights, config and tokenizer."""
    return digest_of_paths(files_of(folder, *tokenizer.vocab_files_names.values()))


def files_of(folder: Path, *also: str) -> list[Path]:
    """A folder's weights, config and tokenizer, by name.

    Args:
        folder: In Hugging Face format.
        also: Names of further files of its tokenizer.
    """
    patterns = {*_WEIGHTS, *_TOKENISATION, *also}
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def digest_of_paths(paths: Sequence[Path]) -> str:
    """Digest over names and contents of files.

    They are hashed side by side, since hashing lets other threads run.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "digest") as pool:
        each = list(pool.map(_digest_of_file, paths))
    lines = (f"{path.name} {digest}\n" for path, digest in zip(paths, each, strict=True))
    return digest_of_text("".join(lines))


def with_notes(digest: str, notes: Sequence[str]) -> str:
    """A digest of files, and of what a loader made of them beyond reading them."""
    return digest_of_text("\n".join([digest, *notes])) if notes else digest


def digest_of_contents(model: Any, tokenizer: Any) -> str:
    """Digest over a model in memory: its class, config, adapters, tokenizer and every tensor."""
    sha = hashlib.sha256()
    for part in _parts(model, tokenizer):
        sha.update(part)
    return sha.hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(model: Any, tokenizer: Any) -> Iterator[bytes]:
    yield type(model).__name__.encode()
    yield model.config.to_json_string().encode()
    yield from _adapters(model)
    yield str(sorted(tokenizer.get_vocab().items())).encode()
    yield str(sorted(tokenizer.special_tokens_map.items())).encode()
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # Merges, normaliser, added tokens and so on; how a batch was last cut and padded is none.
        yield json.dumps(rules | {"truncation": None, "padding": None}).encode()
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _adapters(model: Any) -> Iterator[bytes]:
    """What decides how much an adapter's tensors count for: none of it is a tensor."""
    for name, module in model.named_modules():
        if hasattr(module, "scaling") and hasattr(module, "active_adapters"):
            state = (module.active_adapters, module.scaling, getattr(module, "merged", None))
            yield f"{name} {state} {getattr(module, 'disable_adapters', None)}".encode()
