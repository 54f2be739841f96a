"""Models of GGUF files as folders in Hugging Face format, kept so that they load in seconds.

A folder is named after the file's SHA-256, what converted it and the dtype; it appears whole or not
at all, and is read only where every file in it is as it was written.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import xxhash
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from extract import dtype_trial, gguf_file
from extract.gguf_file import Header
from extract.load_errors import RefusedModelError
from extract.loaded import check_weights, quiet
from extract.printable import first_line
from jelicit.disk import whole_folder

VARIABLE = "JELICIT_CACHE"
"""Names another folder than ~/.cache/jelicit; the models lie in its folder gguf."""

CACHE_BYTES = 20 * 10**9
"""Most bytes that are kept; what was used longest ago goes first."""

LARGE = 30_000_000
"""Parameters from which "auto" is bfloat16, where that is fast: smaller ones are fast anyway."""

LAYOUT = 1
"""Raised whenever the same file would be converted to another folder."""

_NOTE = "jelicit_gguf.json"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A GGUF file's model as a folder.

    Attributes:
        folder: In Hugging Face format.
        sha256: Of the GGUF file.
        said: One line: types in the file, dtype and why.
        tokenizer: One line on its tokenizer.
        trial: One line on the trial that chose the dtype; "" = there was none.
    """

    folder: Path
    sha256: str
    said: str
    tokenizer: str
    trial: str = ""


class Size(NamedTuple):
    """A model's parameters, and the widths of its hidden states and feed-forward layers."""

    parameters: int
    width: int
    inner: int


COMMON = Size(1_000_000_000, 2048, 8192)
"""Widths for a trial where a file names none."""


class Choice(NamedTuple):
    """A dtype, why, in parentheses, and the trial that decided; "" = none did."""

    dtype: str
    why: str
    trial: str = ""


def cache_folder() -> Path:
    """Where converted models are kept."""
    named = os.environ.get(VARIABLE)
    return (Path(named).expanduser() if named else Path.home() / ".cache" / "jelicit") / "gguf"


def converted(file: Path, *, dtype: str = "auto", device: str = "cpu") -> Converted:
    """The folder of a GGUF file's model: made now, or found as it was made before.

    Args:
        file: The GGUF file.
        dtype: "float32", "float16" or "bfloat16"; "auto" = `choose_dtype`.
        device: Where the model is to run, for "auto".

    Raises:
        ImportError: If the package `gguf` is missing and the file is not converted yet.
        OSError: If the cache folder cannot be written.
        ValueError: If the file cannot be converted; the message says why.
    """
    root, sha256 = cache_folder(), gguf_file.sha256_of(file)
    header = None
    choice = Choice(dtype, "")
    if dtype == "auto":
        size = _known_size(root, sha256)
        if size is None:
            header = gguf_file.read_header(file)
            size = Size(header.parameters, header.width, header.inner)
        choice = choose_dtype(size, device)
    folder = _folder(root, sha256, choice.dtype)
    note = _whole_note(folder)
    if note is None:
        note = _make(file, folder, header or gguf_file.read_header(file), choice.dtype)
    _used(folder)
    return Converted(
        folder=folder,
        sha256=sha256,
        said=f"{note['types']} (GGUF), turned into {choice.dtype}{choice.why}",
        tokenizer=note["tokenizer"],
        trial=choice.trial,
    )


def tokenizer_of(file: Path) -> Any:
    """The tokenizer of a GGUF file, without its weights; kept as models are, where it can be.

    Raises:
        ImportError: If the package `gguf` is missing and the tokenizer is not kept yet.
        ValueError: If the file has none, or one whose ids would be others; the message says why.
    """
    folder = _folder(cache_folder(), gguf_file.sha256_of(file), "tokenizer")
    if _whole_note(folder) is None:
        header = gguf_file.read_header(file)
        if not header.tokens:
            raise RefusedModelError(f"{file} holds no vocabulary (tokenizer.ggml.tokens)")
        with _refusing(file, header):
            tokenizer = _rebuilt(file, header)
        note = _note_of(file, header, gguf_file.check_tokenizer(file, header, tokenizer))
        try:
            _keep(folder, note, tokenizer)
        except OSError:  # it costs seconds to make again
            return tokenizer
    _used(folder)
    return AutoTokenizer.from_pretrained(folder)


def choose_dtype(size: Size, device: str) -> Choice:
    """The dtype of a model whose file has none of its own.

    float32 below `LARGE` parameters; from there bfloat16 on a GPU, and on CPUs with instructions
    for it (AVX512_BF16, AMX) where a trial on the model's shape shows it faster
    (`extract.dtype_trial`). Without them it is slower than float32, and nothing is tried.
    """
    large = f"{LARGE / 1e6:g} M parameters"
    if size.parameters < LARGE:
        return Choice("float32", f" (auto: fewer than {large})")
    if device != "cpu":
        return Choice("bfloat16", f" (auto: {large} or more)")
    if not dtype_trial.computes_bfloat16():
        return Choice("float32", " (auto: this CPU has no bfloat16)")
    trial = dtype_trial.trial(size.width or COMMON.width, size.inner or COMMON.inner)
    # Without the times: resumed runs compare this line with the one that began the store.
    if trial.faster:
        why = f" (auto: {large} or more, and bfloat16 faster in a trial)"
        return Choice("bfloat16", why, trial.describe())
    return Choice("float32", " (auto: bfloat16 no faster in a trial)", trial.describe())


def trim(root: Path, limit: int, *, keep: Path) -> None:
    """Deletes models, the one used longest ago first, until `limit` bytes are left at most.

    Args:
        root: Of the models.
        limit: Bytes.
        keep: This one stays.
    """
    sizes = {folder: _size(folder) for folder in root.iterdir() if (folder / _NOTE).is_file()}
    for folder in sorted(sizes, key=lambda folder: (folder / _NOTE).stat().st_mtime):
        if sum(sizes.values()) <= limit:
            return
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            del sizes[folder]


# --- what is kept --------------------------------------------------------------------------------


def _folder(root: Path, sha256: str, what: str) -> Path:
    """Where what was made of a file is kept: its model in a dtype, or its tokenizer alone."""
    return root / f"{sha256}-{transformers.__version__}-{LAYOUT}-{what}"


def _used(folder: Path) -> None:
    with suppress(OSError):  # a cache that cannot be written is read all the same
        os.utime(folder / _NOTE)


def _known_size(root: Path, sha256: str) -> Size | None:
    """Size of a file that was converted before: its header takes seconds to read."""
    for path in root.glob(f"{sha256}-*/{_NOTE}"):
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(path.read_text(encoding="utf-8"))
            return Size(int(note["parameters"]), *map(int, note["widths"]))
    return None


def _whole_note(folder: Path) -> Mapping[str, Any] | None:
    """What was noted of a folder whose files are as they were written; None for any other.

    A damaged folder is deleted.
    """
    if not folder.exists():
        return None
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        if note["files"] == _digests(folder) and {"types", "tokenizer"} <= set(note):
            return note
    except (OSError, ValueError, KeyError):
        pass
    warnings.warn(
        f"{folder} is not as it was written (damaged, or changed); it is deleted and made again",
        stacklevel=3,
    )
    shutil.rmtree(folder)
    return None


def _digests(folder: Path) -> dict[str, str]:
    """XXH3 of every file but the note: it tells damage, and reads as fast as the disk."""
    return {p.name: _digest(p) for p in sorted(folder.iterdir()) if p.name != _NOTE}


def _digest(path: Path) -> str:
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            state.update(piece)
    return state.hexdigest()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# --- conversion ----------------------------------------------------------------------------------


def _make(file: Path, folder: Path, header: Header, dtype: str) -> Mapping[str, Any]:
    """Converts, and keeps the result."""
    gguf_file.check_readable(file, header)
    with _refusing(file, header):
        model = _dequantised(file, header, dtype)
        tokenizer = _rebuilt(file, header)
    note = _note_of(file, header, gguf_file.check_tokenizer(file, header, tokenizer))
    _keep(folder, note, model, tokenizer)
    return note


def _note_of(file: Path, header: Header, tokenizer: str) -> dict[str, Any]:
    return {
        "file": file.name,
        "model": header.name,
        "types": header.types(),
        "parameters": header.parameters,
        "widths": [header.width, header.inner],
        "tokenizer": tokenizer,
        "gguf": version("gguf"),
    }


def _keep(folder: Path, note: dict[str, Any], *parts: Any) -> None:
    """Writes what was made of a file, with its note, and makes room for it."""
    try:
        with whole_folder(folder) as made:
            for part in parts:
                part.save_pretrained(made)
            note["files"] = _digests(made)
            (made / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
    except FileExistsError:
        pass  # another process was faster with the same
    trim(folder.parent, CACHE_BYTES, keep=folder)


def _rebuilt(file: Path, header: Header) -> Any:
    """The file's tokenizer; a GGUF file does not say that a text is normalised before it is cut."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    if header.pre_tokenizer == "qwen2":  # Qwen2's own tokenizer composes characters
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _dequantised(file: Path, header: Header, dtype: str) -> Any:
    """The model, as plain as if it had never been quantised."""
    loader: Any = AutoModelForCausalLM
    kind: Any = getattr(torch, dtype)
    # Newer versions of transformers would keep some kinds of models in blocks.
    options = getattr(transformers, "GgufConfig", None)
    asked = {} if options is None else {"quantization_config": options(dequantize=True)}
    with quiet():
        loaded, report = loader.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=kind,
            output_loading_info=True,
            trust_remote_code=False,
            **asked,
        )
    check_weights(loaded, report, str(file))
    gguf_file.check_filled(file, header, loaded)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # with it, saving is refused and loading looks for blocks
    config.dtype = kind
    with torch.device("meta"):
        plain = loader.from_config(config, dtype=kind)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    return plain


@contextmanager
def _refusing(file: Path, header: Header) -> Iterator[None]:
    """Turns what transformers raises of a file that it cannot convert into one line."""
    try:
        yield
    except (RefusedModelError, MemoryError, ImportError):
        raise
    except Exception as error:  # of many classes: ValueError, NotImplementedError, KeyError, ...
        raise RefusedModelError(
            f"{file} (architecture {header.architecture!r}, {header.types()}) cannot be turned "
            f"into a model: {first_line(error)}; give the model's folder in Hugging Face format, "
            "or its id"
        ) from error
