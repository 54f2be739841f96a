"""What goes wrong when a model is loaded, in one line: libraries raise many classes and pages."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from safetensors import SafetensorError, safe_open

from extract.printable import first_line, listed

_CONTAINERS = {
    ".gguf": "a GGUF container (llama.cpp)",
    ".ggml": "a GGML container (llama.cpp)",
    ".onnx": "an ONNX graph",
    ".h5": "TensorFlow weights",
    ".msgpack": "Flax weights",
    ".pth": "weights in the format of their authors",
    ".tflite": "a TensorFlow Lite graph",
    ".mlmodel": "a Core ML model",
    ".llamafile": "a llamafile",
    ".safetensors": "a file of tensors",
    ".bin": "a file of tensors",
    ".pt": "a file of tensors",
}
_NEEDED = "give a folder in Hugging Face format (config.json, *.safetensors, tokenizer.json)"


class RefusedModelError(ValueError):
    """A model that was looked at and is not what its files say; the message says all."""


def refuse_container(path: Path) -> None:
    """Refuses a file, or a folder without a config, that holds a model of another kind.

    Raises:
        ValueError: If it does; the message names the file and its kind.
    """
    suffix = path.suffix.lower()
    if suffix == ".gguf" and not path.exists():  # one that exists is read (`extract.gguf_file`)
        raise ValueError(f"{path} is {_CONTAINERS[suffix]}, and there is no such file")
    if suffix in _CONTAINERS and not path.is_dir():
        cure = f"; {_NEEDED}" if path.is_file() else ", and there is no such file"
        raise ValueError(f"{path} is {_CONTAINERS[suffix]}, which is not read here{cure}")
    if path.is_file():
        raise ValueError(f"{path} is a file; {_NEEDED}")
    if not path.is_dir():
        return
    if others := sorted(one.name for one in path.iterdir() if one.suffix.lower() in _CONTAINERS):
        kind = _CONTAINERS[Path(others[0]).suffix.lower()]
        raise ValueError(
            f"{path} has no config.json; it holds {listed(others)} ({kind}), which alone is not "
            f"read here; {_NEEDED}"
        )


@contextmanager
def told(
    folder: Path | None, source: str, revision: str | None, *, part: str = "the model"
) -> Iterator[None]:
    """Turns what libraries raise into one line that names model, file and cure.

    Raises:
        FileNotFoundError: If a file is missing, here or on the hub.
        ImportError: If a package is missing.
        MemoryError: If there is no room.
        ValueError: If a file is damaged, or the model is no causal language model.
    """
    try:
        yield
    except RefusedModelError:
        raise
    except (SafetensorError, json.JSONDecodeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(_damage(folder, source, revision, error)) from error
    except ImportError as error:
        raise ImportError(
            f"the model {source!r} needs a package that is not installed: {first_line(error)}"
        ) from error
    except OSError as error:
        if folder and _bad_files(folder, source, revision):
            raise ValueError(_damage(folder, source, revision, error)) from error
        raise FileNotFoundError(_missing(folder, source, error)) from error
    except torch.OutOfMemoryError as error:
        raise MemoryError(f"no room for the model {source!r}: {first_line(error)}") from error
    except MemoryError:
        raise
    except ValueError as error:
        raise ValueError(_unfit(source, part, error)) from error
    except Exception as error:  # RuntimeError, KeyError, AttributeError, ...: no library says which
        if _bad_files(folder, source, revision):
            raise ValueError(_damage(folder, source, revision, error)) from error
        raise ValueError(
            f"cannot load {part} {source!r}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _missing(folder: Path | None, source: str, error: OSError) -> str:
    if folder:
        return f"cannot load the model {source!r}: {first_line(error)}"
    if is_offline_mode():
        return (
            f"cannot load the model {source!r}: no such folder here, and HF_HUB_OFFLINE is set, so "
            "only the cache was looked in, which does not hold it; unset HF_HUB_OFFLINE, or "
            f"download it first (`hf download {source}`)"
        )
    return (
        f"cannot load the model {source!r} (no such folder here, so the hub was asked; gated "
        f"models need a login): {first_line(error)}"
    )


def _unfit(source: str, part: str, error: ValueError) -> str:
    """The message about a model that cannot be one, without the names of all that could."""
    text = first_line(error)
    if "Unrecognized configuration class" in text:
        kind = text.partition("configuration class ")[2].partition(" for this kind")[0]
        kind = kind.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        return (
            f"{source!r} is no causal language model: its config is a {kind}, and transformers "
            "has no causal language model of that kind; give a model that reads and writes text"
        )
    if "trust_remote_code" in str(error):
        return (
            f"cannot load {part} {source!r}: it needs code of its own (trust_remote_code), which "
            "is not run here; give a model that transformers itself knows"
        )
    return f"cannot load {part} {source!r}: {text}"


# --- damaged files -------------------------------------------------------------------------------


def _damage(folder: Path | None, source: str, revision: str | None, error: Exception) -> str:
    """The message about a file that cannot be read; the error itself does not name it."""
    where = folder or _cached(source, revision)
    bad = _bad_files(folder, source, revision)
    named = f"{', '.join(bad)} in {where}" if bad else f"a file of the model {source!r}"
    cure = "copy or download it again" if folder else "delete it there, and it is downloaded again"
    return (
        f"damaged, perhaps cut short: {named} ({first_line(error)}); {cure} (in a git clone: "
        "`git lfs pull`)"
    )


def _bad_files(folder: Path | None, source: str, revision: str | None) -> list[str]:
    where = folder or _cached(source, revision)
    return [] if where is None else [p.name for p in sorted(where.iterdir()) if _broken(p)]


def _cached(model: str, revision: str | None) -> Path | None:
    """Where the hub's files of a model lie."""
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None


def _broken(path: Path) -> bool:
    """Whether a file of tensors or of JSON cannot be opened as such."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".bin" and "model" in path.name:
            torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError):
        return True
    return False
