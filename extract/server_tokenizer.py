"""The tokenizer of a model on a server: prompts are sent as token ids, so it is needed here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from extract import gguf_cache, gguf_file
from extract.models import POCKET
from extract.printable import first_line
from extract.server_client import Server


def tokenizer_for(given: Any, server: Server) -> Any:
    """The tokenizer itself, loaded where only its name is known.

    Args:
        given: A tokenizer; a hub id, a folder or a GGUF file; None = what the server calls the
            model.
        server: The server.

    Raises:
        ImportError: If a GGUF file is given and the package `gguf` is missing.
        ValueError: If there is none; the message says what was tried.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        return given
    reasons = []
    for name in server.origins if given is None else (os.fspath(given),):
        try:
            return _load(name)
        except (OSError, ValueError) as error:
            reasons.append(f"{name} ({first_line(error)})")
    raise ValueError(
        f"no tokenizer for {server.model} of {server}; give the hub id, folder or GGUF file of the "
        f"model that it serves: --tokenizer (tokenizer=). Tried: {'; '.join(reasons)}"
    )


def _load(name: str) -> Any:
    """The tokenizer of a hub id, a folder or a GGUF file.

    Raises:
        OSError: If there is none, or the hub does not answer.
        ValueError: If it cannot be used.
    """
    from transformers import AutoTokenizer

    source = POCKET if name == "pocket" else Path(name).expanduser()
    if (file := gguf_file.find_gguf(str(source))) is not None:
        return gguf_cache.tokenizer_of(file)
    if source.suffix.lower() == ".gguf":
        raise FileNotFoundError("there is no such file")
    if source.is_dir():
        return AutoTokenizer.from_pretrained(source)
    _ask_hub(name)
    return AutoTokenizer.from_pretrained(name)


def _ask_hub(name: str) -> None:
    """Fails soon where the hub has no such model or cannot be asked.

    A tokenizer's own loading repeats that for a minute or two, and an alias is no model of the hub.

    Raises:
        OSError: If it has none, or does not answer.
        ValueError: If this is no name of a model.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    known = ("tokenizer.json", "tokenizer_config.json", "config.json")
    if any(isinstance(try_to_load_from_cache(name, file), str) for file in known):
        return
    try:
        HfApi().model_info(name, timeout=10)
    except (OSError, ValueError):
        raise
    except Exception as error:  # of whichever HTTP library it uses
        raise OSError(f"the hub does not answer: {error}") from error
