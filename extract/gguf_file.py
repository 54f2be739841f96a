"""GGUF files (llama.cpp): what one says of itself, and what of it is not read here.

The reader is llama.cpp's own (package `gguf`). transformers, which turns the weights back into
numbers, leaves out what it does not know without a word; what that would change is refused here.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from extract.load_errors import RefusedModelError
from extract.printable import first_line, listed
from extract.tokenizer_files import PROBES

MAGIC = b"GGUF"
SPLITS = frozenset({"default", "gpt-2", "gpt2", "smollm", "llama-bpe", "llama3", "qwen2", "tekken"})
"""Pre-tokenisers (`tokenizer.ggml.pre`) of byte-level vocabularies that transformers rebuilds."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        architecture: "llama", "qwen2", "gemma3", ...
        quantisation: Tensors per type ("Q4_K", "F32", ...), the most frequent first.
        parameters: Numbers in all tensors.
        width: Of a hidden state; 0 = not said.
        inner: Of a feed-forward layer, the widest where they differ; 0 = not said.
        context: Tokens that the model was trained on, if the file says so.
        name: What its makers call it, or "".
        pre_tokenizer: How a text is split before merges ("qwen2"), or "".
        parts: Files that the model is split into.
        rope_scaling: How rotations are stretched ("yarn"), or "".
        tokens: The vocabulary by id.
        tensors: Names of all tensors.
    """

    architecture: str
    quantisation: Mapping[str, int]
    parameters: int
    width: int
    inner: int
    context: int | None
    name: str
    pre_tokenizer: str
    parts: int
    rope_scaling: str
    tokens: Sequence[str]
    tensors: Sequence[str]

    def types(self) -> str:
        """Types and numbers of tensors in one line: "Q4_K 169, F32 141"."""
        return ", ".join(f"{name} {count}" for name, count in self.quantisation.items())


def find_gguf(model: str) -> Path | None:
    """The GGUF file that `model` names: the file, or the only one of a folder without a config.

    Raises:
        ValueError: If the folder holds several; the message lists them.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return path if path.suffix.lower() == ".gguf" or _has_magic(path) else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    held = sorted(one for one in path.iterdir() if one.suffix.lower() == ".gguf")
    if len(held) > 1:
        names = listed([one.name for one in held], limit=12)
        raise ValueError(f"{path} holds {len(held)} GGUF files ({names}); name one of them")
    return held[0] if held else None


def name_of(model: str, file: Path) -> str:
    """What stores and results call a GGUF model: its file's name, its folder's where that is none.

    A folder is named as itself; so is the folder of a file called "model.gguf".
    """
    if Path(model).expanduser().is_dir() or file.stem.lower() in ("model", "ggml-model"):
        return file.resolve().parent.name
    return file.stem


def sha256_of(file: Path) -> str:
    """The file's SHA-256, as `sha256sum` prints it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_header(file: Path) -> Header:
    """Reads everything but the weights, whose extent is compared with the file's.

    Raises:
        ImportError: If the package `gguf` is missing.
        ValueError: If it is no GGUF file, is cut short, or holds a type that is unknown.
    """
    if not _has_magic(file):
        raise RefusedModelError(
            f"{file} does not begin with the bytes {MAGIC.decode()!r}: it is no GGUF file, or a "
            "damaged one; download it again (in a git clone: `git lfs pull`)"
        )
    reader = _reader(file)
    architecture = str(_value(reader, "general.architecture", ""))
    context = _value(reader, f"{architecture}.context_length", None)
    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return Header(
        architecture=architecture,
        quantisation=dict(kinds.most_common()),
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        width=int(_value(reader, f"{architecture}.embedding_length", 0)),
        inner=_widest(_value(reader, f"{architecture}.feed_forward_length", 0)),
        context=None if context is None else int(context),
        name=str(_value(reader, "general.name", "")),
        pre_tokenizer=str(_value(reader, "tokenizer.ggml.pre", "")),
        parts=int(_value(reader, "split.count", 1)),
        rope_scaling=str(_value(reader, f"{architecture}.rope.scaling.type", "none")),
        tokens=_value(reader, "tokenizer.ggml.tokens", []),
        tensors=[tensor.name for tensor in reader.tensors],
    )


def describe(file: Path) -> str:
    """What a GGUF file holds, a line each."""
    header = read_header(file)
    split = f", split by {header.pre_tokenizer}" if header.pre_tokenizer else ""
    rows = {
        "model": header.name or "not named",
        "architecture": header.architecture or "not named",
        "parameters": f"{header.parameters / 1e6:.1f} M",
        "types of tensors": header.types(),
        "output embeddings": "their own" if "output.weight" in header.tensors else "tied",
        "context": f"{header.context} tokens" if header.context else "not said",
        "tokenizer": f"{len(header.tokens)} tokens{split}",
        "size": f"{file.stat().st_size / 1e6:.1f} MB",
        "SHA-256": sha256_of(file),
    }
    return "\n".join([str(file), *(f"  {key:<18}{value}" for key, value in rows.items())])


def check_readable(file: Path, header: Header) -> None:
    """Refuses what transformers would leave out, and whose numbers would be another model's.

    Raises:
        ValueError: If the file stretches rotations; if it is a part of several.
    """
    if header.parts > 1:
        raise RefusedModelError(
            f"{file} is one of {header.parts} files of a model; join them first "
            "(`llama-gguf-split --merge FIRST OUT`)"
        )
    stretched = [name for name in header.tensors if name.startswith("rope_")]
    if stretched or header.rope_scaling not in ("none", ""):
        what = listed(stretched) if stretched else f"rope scaling {header.rope_scaling!r}"
        raise RefusedModelError(
            f"{file} stretches the rotation of positions ({what}), which transformers does not "
            "read from a GGUF file, so its states would be another model's; give the model's "
            "folder in Hugging Face format, or its id"
        )
    if not header.tokens:
        raise RefusedModelError(f"{file} holds no vocabulary (tokenizer.ggml.tokens)")


def check_filled(file: Path, header: Header, model: Any) -> None:
    """Compares the number of weights of a converted model with that in the file.

    Raises:
        ValueError: If they differ: tensors were left out, or are random.
    """
    parameters = {id(one): one.numel() for one in model.parameters()}
    if (count := sum(parameters.values())) != header.parameters:
        raise RefusedModelError(
            f"{file} holds {header.parameters} weights, but the {type(model).__name__} made of it "
            f"has {count}: transformers left tensors out, or made some up; give the model's folder "
            "in Hugging Face format, or its id"
        )


def check_tokenizer(file: Path, header: Header, tokenizer: Any) -> str:
    """One line on a tokenizer rebuilt from the file: its ids are the file's, and no text is lost.

    Warns where the file splits texts in a way that transformers does not know by name.

    Raises:
        ValueError: If an id has another token than in the file, or a probe text does not come back.
    """
    vocabulary = tokenizer.get_vocab()
    # Tokens that transformers respells (Gemma's runs of spaces) are under no name of the file's.
    changed = [token for at, token in enumerate(header.tokens) if vocabulary.get(token, at) != at]
    if changed:
        raise RefusedModelError(
            f"{file}: {len(changed)} tokens have other ids in the tokenizer that transformers "
            f"makes of it ({listed([ascii(token) for token in changed])})"
        )
    for text in PROBES:
        ids = tokenizer.encode(text, add_special_tokens=False)
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if normalize("NFKC", back).removeprefix(" ") != normalize("NFKC", text).removeprefix(" "):
            raise RefusedModelError(
                f"{file}: the tokenizer that transformers makes of it loses text: {text!a} "
                f"comes back as {back!a}"
            )
    if header.pre_tokenizer and header.pre_tokenizer not in SPLITS:
        warnings.warn(
            f"{file}: texts are split by the rules {header.pre_tokenizer!r} (tokenizer.ggml.pre), "
            "which are not known here; compare a few ids with the model's own tokenizer",
            stacklevel=3,
        )
    return f"from the GGUF file: its ids, and no text lost, on {len(PROBES)} probe texts"


def _reader(file: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError(
            f"{file} is a GGUF file, which needs the package gguf: `pip install 'jelicit[gguf]'`"
        ) from error
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        if "is not a valid GGMLQuantizationType" in str(error):
            number = re.sub(r"\D", "", first_line(error).partition(" is not")[0].rpartition("(")[2])
            raise RefusedModelError(
                f"{file} holds tensors of the quantisation type {number}, which the package gguf "
                "does not know; update it, or give a file of a usual type (Q4_K_M, Q8_0, F16)"
            ) from error
        raise RefusedModelError(
            f"{file} is cut short or damaged ({first_line(error, limit=120)}); copy or download it "
            "again"
        ) from error


def _value(reader: Any, key: str, default: Any) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _widest(lengths: int | Sequence[int]) -> int:
    """Of a length, or of one per block."""
    return max(map(int, lengths), default=0) if isinstance(lengths, Sequence) else int(lengths)


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
