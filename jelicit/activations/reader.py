"""Reading a store."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from jelicit.activations import tensors
from jelicit.activations.manifest import ITEMS, Manifest, shard_name
from jelicit.activations.shards import ShardReader, damaged, in_words, tensor_sum
from jelicit.activations.spec import DTYPES, StoreSpec
from jelicit.data.items import Item, digest, from_jsonl
from jelicit.disk import Folder, open_folder
from jelicit.pairs import Pairs


class ActivationStore:
    """A store, opened for reading. `pairs(layer)` reads the bytes of that layer and no others."""

    def __init__(self, files: Folder, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._shards = ShardReader(files)
        self._whole: set[int] = set()
        """Shards without checksums of their tensors whose file was compared."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> ActivationStore:
        """Opens a store.

        An incomplete one can be opened and inspected, but `pairs` and `log_probs` refuse it.

        Args:
            folder: A local folder, or an fsspec URL such as "s3://bucket/folder".

        Raises:
            FileNotFoundError: If the folder is no activation store.
            ValueError: If its manifest cannot be read, or the URL's protocol needs a package that
                is not installed.
        """
        files = open_folder(folder)
        return cls(files, Manifest.read(files))

    @property
    def folder(self) -> Path | str:
        """The store's folder, or its URL."""
        return self._files.location

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
        return self._current().missing(self._files)

    def _current(self) -> Manifest:
        # Of a store that others still write, the manifest that was opened says too little.
        return self._manifest if self._manifest.finished else Manifest.current(self._files)

    @property
    def complete(self) -> bool:
        """Whether every shard is there and its checksum was in the manifest when it was opened."""
        return self._manifest.finished and not self.missing()

    @property
    def size(self) -> int:
        """Bytes of the shards that are there."""
        sizes = self._files.listing()
        return sum(sizes.get(shard_name(shard)) or 0 for shard in range(len(self.spec.shards)))

    @cached_property
    def items(self) -> list[Item]:
        """The items, in row order.

        Raises:
            FileNotFoundError: If their file is missing.
            ValueError: If they are not the items that were written.
        """
        path = self._files.path(ITEMS)
        try:
            content = self._files.read(ITEMS)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path} is missing; run `python -m extract run` again with the same settings"
            ) from error
        # As a text file: only line ends that JSON does not leave bare inside a string count.
        lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        try:
            items = from_jsonl(lines, source=path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} was changed: it is no text in UTF-8 ({error})") from error
        if digest(items) != self.spec.item_digest:
            raise ValueError(
                f"{path} was changed: its digest is {digest(items)[:12]}, "
                f"the manifest says {self.spec.item_digest[:12]}"
            )
        return items

    @cached_property
    def log_probs(self) -> np.ndarray:
        """[n, 2] float32: log P(true verdict | prompt) and log P(false verdict | prompt).

        Raises:
            ValueError: If the store is incomplete or a shard is damaged.
        """
        self.check_complete()
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
        self.check_complete()
        width, wanted = self.spec.d_model, self._rows(rows)
        pos = self._read(f"layer.{layer}.pos", width=width, rows=wanted)
        return Pairs(pos, self._read(f"layer.{layer}.neg", width=width, rows=wanted))

    def verify(self) -> None:
        """Reads every byte and compares the checksums.

        Raises:
            ValueError: If shards are missing or changed, or the items are; the message lists them.
        """
        self.check_complete()
        _ = self.items
        bad = []
        for shard, stamp in enumerate(self._manifest.stamps):
            found = self._files.stamp(shard_name(shard))
            if stamp is None or found["sha256"] != stamp["sha256"]:
                bad.append(shard_name(shard))
        if bad:
            raise ValueError(
                f"{self.folder}: the checksum of {', '.join(bad)} is not the manifest's; delete "
                "these files and run `python -m extract run` again with the same settings"
            )

    def shard(self, shard: int) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """One whole shard as `StoreWriter.write` takes it, its checksum compared.

        Args:
            shard: Its number; it must be there, the others need not.

        Returns:
            (per layer (pos, neg), each [n, D] in the store's dtype; log-probabilities [n, 2]).

        Raises:
            ValueError: If it is missing or damaged.
        """
        manifest = self._current()
        if reason := manifest.missing(self._files).get(shard):
            raise ValueError(f"{self.folder}: {reason}")
        name, stamp = shard_name(shard), manifest.stamps[shard]
        data = self._files.read(name)
        if stamp is None or hashlib.sha256(data).hexdigest() != stamp["sha256"]:
            raise ValueError(
                f"{self._files.path(name)} was changed: its checksum is not the recorded one; "
                "delete this file and run `python -m extract run` again with the same settings"
            )
        try:
            named = tensors.unpack(data)[1]
            signs = {
                layer: (named[f"layer.{layer}.pos"], named[f"layer.{layer}.neg"])
                for layer in self.layers
            }
            return signs, named["log_probs"]
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self._files.path(name)} is no shard of this store: {error}"
            ) from error

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

    def check_complete(self) -> None:
        """Nothing, if the store is complete.

        Raises:
            ValueError: If not; the message says which shards are missing, and what to do.
        """
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
        """One tensor of one shard, compared with its checksum."""
        name = shard_name(shard)
        path = self._files.path(name)
        number, tensor = self._shards.tensor(name, key)
        dtype = DTYPES["float32" if key == "log_probs" else self.spec.dtype]
        if (tensor.shape, tensor.dtype, number) != (shape, dtype, str(shard)):
            raise damaged(
                path,
                f"it says shard {number} with {in_words(key)} {tensor.dtype} {tensor.shape}, "
                f"expected shard {shard} with {dtype} {shape}",
            )
        stamp = self._manifest.stamps[shard]
        assert stamp is not None  # the store is complete
        if "tensors" not in stamp:
            self._check_file(shard, stamp["sha256"])
        elif stamp["tensors"].get(key) != tensor_sum(tensor):
            raise damaged(path, f"{in_words(key)} has another checksum than when it was written")
        return tensor

    def _check_file(self, shard: int, expected: str) -> None:
        """Compares the whole file of a shard that was written before tensors had checksums."""
        if shard in self._whole:
            return
        if self._files.local is None:  # all layers' bytes through the net, for one of them
            if not self._whole:
                warnings.warn(
                    f"{self.folder} has no checksums per layer, so what is read is not checked; "
                    f"`python -m extract verify {self.folder}` reads and checks all of it",
                    stacklevel=2,
                )
        elif self._files.stamp(shard_name(shard))["sha256"] != expected:
            raise damaged(self._files.path(shard_name(shard)), "its checksum is not the manifest's")
        self._whole.add(shard)
