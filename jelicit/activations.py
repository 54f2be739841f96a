"""The activation store: contrast pairs' hidden states on disk, between `extract` and the probes.

One folder per (items, model, prompt format)::

    manifest.json            the `StoreSpec`, and SHA-256 and size of every shard once complete
    items.jsonl              the items, in row order
    shard-00000.safetensors  rows start..stop: "layer.<l>.pos" and "layer.<l>.neg" [n, D] in the
                             model's dtype, "log_probs" [n, 2] float32
    shard-00000.json         the shard's checksum; only until the store is complete

No other module knows these names, and names are made from shard numbers alone: a manifest from
elsewhere cannot point outside its folder. Everything is written whole or not at all, so that a
killed run leaves whole shards and goes on with the missing ones. Several processes may share a
folder: the manifest is created by one of them alone, and a checksum leaves its file only when the
manifest on disk has it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jelicit.data.items import Item, digest, load_items, save_items
from jelicit.pairs import Pairs

MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
KIND = "jelicit activation store"
VERSION = 1
DTYPES: dict[str, Any] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""The dtypes of hidden states on disk, by name."""

STALE_AFTER = 24 * 3600
"""Seconds after which a temporary file of an unknown process is taken for a leftover."""


# --- what is stored ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Everything that decides what a store holds. Two stores with equal specs hold equal numbers.

    Attributes:
        model: Name of the model: a Hugging Face id, a folder's name, or "pocket".
        revision: Commit of the model on the hub; "" for a folder.
        model_digest: SHA-256 over weights, config and tokenizer.
        dtype: Of the hidden states: a key of `DTYPES`.
        prompt_format: All fields of the prompt format.
        layers: Hidden-state indices that are stored: 0 = embeddings, l = output of block l, the
            last index is after the final norm.
        n_items: Number of rows.
        item_digest: `jelicit.data.items.digest` of the items.
        d_model: Width D of a hidden state.
        shards: (start, stop) rows of each shard; together 0..n_items without a gap.
        batch_plan: Per shard, the row numbers of each batch, fixed before computing. Batches never
            cross shards, so a resumed run computes the same batches.
        n_blocks: Blocks of the model, so that index n_blocks is the last; None if unknown.
        settings: How the batches are computed (method, token budget, ...).
        texts: Facts about the tokenised prompts (lengths, `byte_share`, ...).
        machine: Device and threads. Matters only while shards are missing.
        versions: Library versions. Matters only while shards are missing.

    Raises:
        ValueError: If a field contradicts another; the message names it.
    """

    model: str
    revision: str
    model_digest: str
    dtype: str
    prompt_format: Mapping[str, Any]
    layers: tuple[int, ...]
    n_items: int
    item_digest: str
    d_model: int
    shards: tuple[tuple[int, int], ...]
    batch_plan: tuple[tuple[tuple[int, ...], ...], ...]
    n_blocks: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prompt_format", "settings", "texts", "machine", "versions"):
            # As it will read from disk: a tuple in a mapping must not differ from its own copy.
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))
        _check_spec(self)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreSpec:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: If a field is missing or unknown, or its value is not allowed.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(f"spec has unknown fields {unknown}; known: {sorted(names)}")
        values = dict(values)
        try:
            values["layers"] = tuple(values["layers"])
            values["shards"] = tuple((start, stop) for start, stop in values["shards"])
            values["batch_plan"] = tuple(
                tuple(tuple(batch) for batch in shard) for shard in values["batch_plan"]
            )
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"spec has a field missing or of the wrong type: {error}") from error


def _check_spec(spec: StoreSpec) -> None:
    if spec.dtype not in DTYPES:
        raise ValueError(f"dtype is {spec.dtype!r}; allowed: {', '.join(DTYPES)}")
    whole = all(isinstance(layer, int) and layer >= 0 for layer in spec.layers)
    if not spec.layers or not whole or list(spec.layers) != sorted(set(spec.layers)):
        raise ValueError(
            f"layers are {spec.layers}; allowed: rising whole numbers from 0, not none"
        )
    edges = [0, *(stop for _, stop in spec.shards)]
    starts = [start for start, _ in spec.shards]
    if starts != edges[:-1] or edges[-1] != spec.n_items or edges != sorted(set(edges)):
        raise ValueError(f"shards {spec.shards} do not cover the rows 0..{spec.n_items} in order")
    if len(spec.batch_plan) != len(spec.shards):
        raise ValueError(f"batch_plan has {len(spec.batch_plan)} shards, not {len(spec.shards)}")
    for number, ((start, stop), batches) in enumerate(
        zip(spec.shards, spec.batch_plan, strict=True)
    ):
        if sorted(row for batch in batches for row in batch) != list(range(start, stop)):
            raise ValueError(f"batch_plan of shard {number} is not rows {start}..{stop}, each once")


def differences(stored: StoreSpec, asked: StoreSpec, *, ignore: Sequence[str] = ()) -> list[str]:
    """One line "field: stored X, asked Y" per field (or key of a field) that differs."""
    a, b = _flat(stored.to_json()), _flat(asked.to_json())
    return [
        f"{key}: stored {_short(a.get(key, 'nothing'))}, asked {_short(b.get(key, 'nothing'))}"
        for key in dict.fromkeys([*a, *b])
        if key.split(".")[0] not in ignore and a.get(key) != b.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def _short(value: object, limit: int = 70) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# --- files ---------------------------------------------------------------------------------------


def _shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.safetensors"


def _stamp_name(shard: int) -> str:
    return f"shard-{shard:05d}.json"


def _temporary(path: Path) -> Path:
    # Machine and process number: several workers may write one store at the same time.
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.tmp")


def _machine() -> str:
    """Eight hex digits: two processes that share them do not share a process number."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path: "pid:[number]"
    except OSError:  # no Linux, so no containers of one name
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _is_leftover(temporary: Path) -> bool:
    """Whether nobody is writing this temporary file any more: it is ours, or its process ended."""
    writer = re.search(r"\.([0-9a-f]{8})\.([0-9]{1,9})\.tmp", temporary.name)
    if writer and writer[1] == _machine():
        return int(writer[2]) == os.getpid() or not _is_running(int(writer[2]))
    try:
        return time.time() - temporary.stat().st_mtime > STALE_AFTER
    except FileNotFoundError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _publish(temporary: Path, path: Path) -> None:
    """Gives a finished file its name; after a crash it is there whole or not at all."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _publish_first(temporary: Path, path: Path) -> None:
    """As `_publish`, but a file that has the name already keeps it."""
    _sync(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            temporary.replace(path)
    temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file's (or a folder's) content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_json(path: Path, value: object, *, replace: bool = True) -> None:
    temporary = _temporary(path)
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    publish = _publish if replace else _publish_first
    publish(temporary, path)


def _stamp(path: Path) -> dict[str, Any]:
    """Checksum and size of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": _size(path)}


def _read_stamp(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # it has gone into the manifest meanwhile
        return None


def _size(path: Path) -> int:
    return path.stat().st_size


@dataclass(frozen=True)
class _Manifest:
    spec: StoreSpec
    stamps: list[dict[str, Any] | None]

    @property
    def finished(self) -> bool:
        """Whether it has the checksum of every shard."""
        return None not in self.stamps

    def write(self, folder: Path, *, replace: bool = True) -> None:
        body = {"kind": KIND, "version": VERSION, "spec": self.spec.to_json()}
        _write_json(folder / MANIFEST, {**body, "shards": self.stamps}, replace=replace)

    @staticmethod
    def read(folder: Path) -> _Manifest:
        path = folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is no activation store: it has no {MANIFEST}; "
                "`python -m extract run` writes stores"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (values["kind"], values["version"]) != (KIND, VERSION):
                raise ValueError(f"it is {values['kind']!r} version {values['version']!r}")
            manifest = _Manifest(StoreSpec.from_json(values["spec"]), values["shards"])
            if len(manifest.stamps) != len(manifest.spec.shards):
                raise ValueError(f"it has {len(manifest.stamps)} checksums")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} cannot be read as {KIND} version {VERSION}: {error}"
            ) from error
        return manifest

    @staticmethod
    def current(folder: Path) -> _Manifest:
        """The manifest with the checksums that are still in files of their own."""
        # In this order: whoever finishes the store writes the manifest before deleting these.
        own = {path.name: _read_stamp(path) for path in folder.glob("shard-*.json")}
        manifest = _Manifest.read(folder)
        return _Manifest(
            manifest.spec,
            [own.get(_stamp_name(n)) or stamp for n, stamp in enumerate(manifest.stamps)],
        )

    def missing(self, folder: Path) -> dict[int, str]:
        """Shards that cannot be read, with the reason."""
        reasons = {}
        for shard, stamp in enumerate(self.stamps):
            path = folder / _shard_name(shard)
            if not path.is_file() or stamp is None:
                reasons[shard] = f"{path.name} is missing"
            elif _size(path) != stamp["bytes"]:
                reasons[shard] = f"{path.name} has {_size(path)} of {stamp['bytes']} bytes"
        return reasons


# --- writing -------------------------------------------------------------------------------------


class StoreWriter:
    """Fills a store, shard by shard, in any order; several processes may share one folder.

    Use `StoreWriter.open`, then `write` every shard of `missing`, then `finish`.
    """

    def __init__(self, folder: Path, manifest: _Manifest) -> None:
        self.folder, self._manifest = folder, manifest

    @property
    def spec(self) -> StoreSpec:
        """What the store holds."""
        return self._manifest.spec

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], spec: StoreSpec, items: Sequence[Item]
    ) -> StoreWriter:
        """Creates the store, or goes on with one of the same spec.

        Raises:
            ValueError: If `items` are not those of the spec; if the folder holds a store of another
                spec (the message names every differing field with both values; machine and versions
                count only while shards are missing); or if it holds other files.
        """
        folder = Path(folder)
        if len(items) != spec.n_items or digest(items) != spec.item_digest:
            raise ValueError(
                f"the {len(items)} items are not the {spec.n_items} items of the spec "
                f"(digest {digest(items)[:12]}, spec {spec.item_digest[:12]})"
            )
        if not (folder / MANIFEST).exists():
            cls._create(folder, spec)
        manifest = _Manifest.current(folder)
        missing = manifest.missing(folder)
        ignore = () if missing else ("machine", "versions")
        if found := differences(manifest.spec, spec, ignore=ignore):
            raise ValueError(
                f"{folder} holds a store made with other settings:\n  "
                + "\n  ".join(found)
                + "\nUse the stored settings, choose another folder, or delete this one."
            )
        if missing or not (folder / ITEMS).exists():
            # After the manifest, which decided whose items these are.
            temporary = _temporary(folder / ITEMS)
            save_items(temporary, items)
            _publish(temporary, folder / ITEMS)
        return cls(folder, manifest)

    @staticmethod
    def _create(folder: Path, spec: StoreSpec) -> None:
        """Writes the manifest, unless another process is faster."""
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(p.name for p in folder.iterdir() if not p.name.startswith((ITEMS, ".")))
        # Looked for once more: the others may be the manifest, and the first shards.
        if others and not (folder / MANIFEST).exists():
            raise ValueError(
                f"{folder} holds other files ({', '.join(others[:3])}) and no {MANIFEST}, so it is "
                "no activation store; choose another folder"
            )
        _Manifest(spec, [None] * len(spec.shards)).write(folder, replace=False)

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be written, by any process."""
        return list(_Manifest.current(self.folder).missing(self.folder))

    def write(
        self,
        shard: int,
        states: Mapping[int, tuple[np.ndarray, np.ndarray]],
        log_probs: np.ndarray,
    ) -> None:
        """Writes one shard.

        Args:
            shard: Its number; its rows are `spec.shards[shard]`.
            states: Per layer of the spec, (pos, neg), each [n, D] in the spec's dtype.
            log_probs: [n, 2] float32: log P(true verdict | prompt), log P(false verdict | prompt).

        Raises:
            ValueError: If layers, shapes or dtypes are not those of the spec.
        """
        tensors = self._tensors(shard, states, log_probs)
        path = self.folder / _shard_name(shard)
        temporary = _temporary(path)
        # One key only: the file's bytes must not depend on the order of a hash map.
        save_file(tensors, temporary, metadata={"shard": str(shard)})
        stamp = _stamp(temporary)
        _publish(temporary, path)
        _write_json(self.folder / _stamp_name(shard), stamp)

    def _tensors(
        self,
        shard: int,
        states: Mapping[int, tuple[np.ndarray, np.ndarray]],
        log_probs: np.ndarray,
    ) -> dict[str, np.ndarray]:
        spec = self.spec
        if not 0 <= shard < len(spec.shards):
            raise ValueError(f"shard is {shard}; allowed: 0..{len(spec.shards) - 1}")
        if sorted(states) != list(spec.layers):
            raise ValueError(f"shard {shard} has the layers {sorted(states)}, not {spec.layers}")
        start, stop = spec.shards[shard]
        tensors = {"log_probs": log_probs}
        for layer, (pos, neg) in states.items():
            tensors[f"layer.{layer}.pos"], tensors[f"layer.{layer}.neg"] = pos, neg
        for name, tensor in tensors.items():
            last = name == "log_probs"
            shape = (stop - start, 2 if last else spec.d_model)
            dtype = DTYPES["float32" if last else spec.dtype]
            if tensor.shape != shape or tensor.dtype != dtype:
                raise ValueError(
                    f"shard {shard}: {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}"
                )
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def finish(self) -> ActivationStore:
        """Moves the checksums into the manifest: the store is complete.

        Raises:
            ValueError: If shards are missing; the message lists them.
        """
        manifest = _Manifest.current(self.folder)
        if missing := list(manifest.missing(self.folder)):
            raise ValueError(f"{self.folder} cannot be finished: shards {missing} are missing")
        manifest.write(self.folder)
        for shard in range(len(self.spec.shards)):
            (self.folder / _stamp_name(shard)).unlink(missing_ok=True)
        for temporary in self.folder.glob(".*.tmp*"):
            if _is_leftover(temporary):
                temporary.unlink(missing_ok=True)
        return ActivationStore(self.folder, manifest)


# --- reading -------------------------------------------------------------------------------------


class ActivationStore:
    """A store, opened for reading. `pairs(layer)` reads the bytes of that layer and no others."""

    def __init__(self, folder: Path, manifest: _Manifest) -> None:
        self.folder, self._manifest = folder, manifest

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ActivationStore:
        """Opens a store.

        An incomplete one can be opened and inspected, but `pairs` and `log_probs` refuse it.

        Raises:
            FileNotFoundError: If the folder is no activation store.
            ValueError: If its manifest cannot be read.
        """
        folder = Path(folder)
        return cls(folder, _Manifest.read(folder))

    @property
    def spec(self) -> StoreSpec:
        """What the store holds."""
        return self._manifest.spec

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden-state indices that are stored."""
        return self.spec.layers

    def __len__(self) -> int:
        return self.spec.n_items

    def missing(self) -> list[int]:
        """Numbers of the shards that are missing or not of their recorded size."""
        return list(self._missing())

    def _missing(self) -> dict[int, str]:
        # Of a store that others still write, the manifest that was opened says too little.
        manifest = self._manifest if self._manifest.finished else _Manifest.current(self.folder)
        return manifest.missing(self.folder)

    @property
    def complete(self) -> bool:
        """Whether every shard is there and its checksum was in the manifest when it was opened."""
        return self._manifest.finished and not self.missing()

    @property
    def size(self) -> int:
        """Bytes of the shards that are there."""
        paths = (self.folder / _shard_name(shard) for shard in range(len(self.spec.shards)))
        return sum(_size(path) for path in paths if path.is_file())

    @cached_property
    def items(self) -> list[Item]:
        """The items, in row order.

        Raises:
            ValueError: If they are not the items that were written.
        """
        items = load_items(self.folder / ITEMS)
        if digest(items) != self.spec.item_digest:
            raise ValueError(
                f"{self.folder / ITEMS} was changed: its digest is {digest(items)[:12]}, "
                f"the manifest says {self.spec.item_digest[:12]}"
            )
        return items

    @cached_property
    def log_probs(self) -> np.ndarray:
        """[n, 2] float32: log P(true verdict | prompt) and log P(false verdict | prompt).

        Raises:
            ValueError: If the store is incomplete or a shard is damaged.
        """
        return self._read("log_probs", width=2, rows=None)

    def pairs(self, layer: int, rows: Sequence[int] | np.ndarray | None = None) -> Pairs:
        """The contrast pairs of one layer, float32 [n, D] per sign.

        Args:
            layer: Hidden-state index; negative counts from the model's last one.
            rows: Row numbers, in the order wanted, or a mask [n]; None = all rows.

        Raises:
            ValueError: If the layer is not stored, rows are out of range, the store is incomplete,
                or a shard is damaged.
        """
        layer = self._layer(layer)
        width, wanted = self.spec.d_model, self._rows(rows)
        pos = self._read(f"layer.{layer}.pos", width=width, rows=wanted)
        return Pairs(pos, self._read(f"layer.{layer}.neg", width=width, rows=wanted))

    def verify(self) -> None:
        """Reads every byte and compares the checksums.

        Raises:
            ValueError: If shards are missing or changed, or the items are; the message lists them.
        """
        self._check_complete()
        _ = self.items
        bad = [
            _shard_name(shard)
            for shard, stamp in enumerate(self._manifest.stamps)
            if _stamp(self.folder / _shard_name(shard)) != stamp
        ]
        if bad:
            raise ValueError(
                f"{self.folder}: the checksum of {', '.join(bad)} is not the manifest's; delete "
                "these files and run `python -m extract run` again with the same settings"
            )

    def _layer(self, layer: int) -> int:
        if layer < 0 and self.spec.n_blocks is not None:
            layer += self.spec.n_blocks + 1
        if layer not in self.spec.layers:
            raise ValueError(f"{self.folder} has no layer {layer}; it has {self.spec.layers}")
        return layer

    def _rows(self, rows: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
        if rows is None:
            return None
        chosen, n = np.asarray(rows), len(self)
        if chosen.dtype == bool and chosen.shape == (n,):
            return np.flatnonzero(chosen)
        if chosen.size == 0:
            return np.zeros(0, dtype=np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"rows are {chosen.dtype} {chosen.shape}; allowed: integers or mask [{n}]"
            )
        if chosen.min() < 0 or chosen.max() >= n:
            raise ValueError(
                f"rows reach from {chosen.min()} to {chosen.max()}; allowed: 0..{n - 1}"
            )
        return chosen

    def _check_complete(self) -> None:
        if self.complete:
            return
        reasons = list(self._missing().values())
        shown = "; ".join(reasons[:5]) or "all shards are there, but it was not finished"
        more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise ValueError(
            f"{self.folder} is incomplete: {shown}{more} (of {len(self.spec.shards)} shards). "
            "Run `python -m extract run` again with the same settings: it goes on there"
        )

    def _read(self, key: str, *, width: int, rows: np.ndarray | None) -> np.ndarray:
        self._check_complete()
        out = np.empty((len(self) if rows is None else len(rows), width), dtype=np.float32)
        for shard, (start, stop) in enumerate(self.spec.shards):
            if rows is None:
                out[start:stop] = self._tensor(shard, key, (stop - start, width))
                continue
            here = np.flatnonzero((rows >= start) & (rows < stop))
            if here.size:
                out[here] = self._tensor(shard, key, (stop - start, width))[rows[here] - start]
        return out

    def _tensor(self, shard: int, key: str, shape: tuple[int, int]) -> np.ndarray:
        """One tensor of one shard, through a memory map."""
        path = self.folder / _shard_name(shard)
        try:
            with safe_open(path, framework="np") as file:
                number = (file.metadata() or {}).get("shard")
                tensor = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and extract again") from error
        if tensor.shape != shape or number != str(shard):
            raise ValueError(
                f"{path} is damaged: it says shard {number} with {key} {tensor.shape}, expected "
                f"shard {shard} with {shape}; delete it and extract again"
            )
        return tensor
