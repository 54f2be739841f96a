"""Writing a store, shard by shard."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jelicit.activations import tensors
from jelicit.activations.manifest import (
    ITEMS,
    MANIFEST,
    Manifest,
    shard_name,
    spec_digest,
    stamp_name,
    to_bytes,
)
from jelicit.activations.reader import ActivationStore
from jelicit.activations.shards import tensor_sums
from jelicit.activations.spec import DTYPES, MAY_DIFFER, StoreSpec, differences
from jelicit.data.items import Item, digest, to_jsonl
from jelicit.disk import Folder, open_folder


class StoreWriter:
    """Fills a store, shard by shard, in any order; several processes may share one folder.

    Use `StoreWriter.open`, then `write` every shard of `missing`, then `finish`.

    A file that cannot be written raises OSError: nothing has changed then, what was written before
    is whole, and the same run goes on later.
    """

    def __init__(self, files: Folder, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest

    @property
    def folder(self) -> Path | str:
        """The store's folder, or its URL."""
        return self._files.location

    @property
    def spec(self) -> StoreSpec:
        """What the store holds."""
        return self._manifest.spec

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], spec: StoreSpec, items: Sequence[Item]
    ) -> StoreWriter:
        """Creates the store, or goes on with one of the same spec.

        Of a store that is there, the stored batch plan wins: it may have been replanned. One
        without any shard is replaced where its spec is another: nothing is lost, and whoever
        started it and still computes is refused at `finish`.

        Under a URL nothing stops two workers from creating the manifest at the same instant: the
        later one's stays. If both ask for the same, shards are computed twice at worst. If not, the
        other's shards count as missing and its `finish` refuses. Let one worker open the store
        first where that matters.

        Args:
            folder: A local folder, or an fsspec URL such as "s3://bucket/folder".
            spec: What the store is to hold.
            items: The items of its rows.

        Raises:
            ValueError: If `items` are not those of the spec; if the folder holds a store of another
                spec (the message names every differing field with both values; machine and versions
                count only while shards are missing); if it holds other files; or if the URL's
                protocol needs a package that is not installed.
            OSError: If the folder cannot be written.
        """
        if len(items) != spec.n_items or digest(items) != spec.item_digest:
            raise ValueError(
                f"the {len(items)} items are not the {spec.n_items} items of the spec "
                f"(digest {digest(items)[:12]}, spec {spec.item_digest[:12]})"
            )
        files = open_folder(folder)
        if not files.exists(MANIFEST):
            cls._create(files, spec)
        manifest = Manifest.current(files)
        # Not for another machine: several may have begun one run, and would unseat each other.
        other = differences(manifest.spec, spec, ignore=(*MAY_DIFFER, "machine", "versions"))
        if other and _is_empty(files):
            # A run that failed before its first shard must not block the same with another dtype.
            manifest = Manifest(spec, [None] * len(spec.shards))
            manifest.write(files)
        missing = manifest.missing(files)
        ignore = MAY_DIFFER if missing else (*MAY_DIFFER, "machine", "versions")
        if found := differences(manifest.spec, spec, ignore=ignore):
            raise ValueError(
                f"{folder} holds a store made with other settings:\n  "
                + "\n  ".join(found)
                + "\nUse the stored settings, choose another folder, or delete this one."
            )
        if missing or not files.exists(ITEMS):
            # After the manifest, which decided whose items these are.
            files.write(ITEMS, [to_jsonl(items).encode()])
        return cls(files, manifest)

    @staticmethod
    def _create(files: Folder, spec: StoreSpec) -> None:
        """Writes the manifest, unless another process is faster."""
        files.create()
        others = sorted(name for name in files.listing() if not name.startswith((ITEMS, ".")))
        # Looked for once more: the others may be the manifest, and the first shards.
        if others and not files.exists(MANIFEST):
            raise ValueError(
                f"{files.location} holds other files ({', '.join(others[:3])}) and no {MANIFEST}, "
                "so it is no activation store; choose another folder"
            )
        Manifest(spec, [None] * len(spec.shards)).write(files, replace=False)

    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be written, by any process."""
        return list(Manifest.current(self._files).missing(self._files))

    def replan(self, batch_plan: Sequence[Sequence[Sequence[int]]]) -> None:
        """Changes the batches of shards that are still missing, say to smaller ones.

        Shards that are written keep theirs, and all shards keep their rows. A shard whose batches
        are given as they are in `spec` is left as the manifest on disk has it: another worker may
        have replanned it. Two workers should not replan at the same instant.

        Args:
            batch_plan: Per shard of the store, the row numbers of each batch; what it says about
                shards that are written is not looked at.

        Raises:
            ValueError: If it has not one entry per shard, or one does not hold each row once.
            OSError: If the manifest cannot be written; then the old plan stays.
        """
        manifest = self._current()
        plan = list(manifest.spec.batch_plan)
        if len(batch_plan) != len(plan):
            raise ValueError(f"batch_plan has {len(batch_plan)} shards, not {len(plan)}")
        for shard in manifest.missing(self._files):
            asked = tuple(tuple(batch) for batch in batch_plan[shard])
            if asked != self.spec.batch_plan[shard]:
                plan[shard] = asked
        spec = dataclasses.replace(manifest.spec, batch_plan=tuple(plan))
        replanned = Manifest(spec, manifest.stamps)
        replanned.write(self._files)
        self._manifest = replanned

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
            OSError: If it cannot be written, for example because the disk is full.
        """
        named = self._tensors(shard, states, log_probs)
        # One key only: the file's bytes must not depend on the order of a hash map.
        stamp = self._files.write(shard_name(shard), tensors.pack(named, {"shard": str(shard)}))
        about = {**stamp, "tensors": tensor_sums(named), "spec": spec_digest(self.spec)}
        self._files.write(stamp_name(shard), [to_bytes(about)])

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
        named = {"log_probs": log_probs}
        for layer, (pos, neg) in states.items():
            named[f"layer.{layer}.pos"], named[f"layer.{layer}.neg"] = pos, neg
        for name, tensor in named.items():
            last = name == "log_probs"
            shape = (stop - start, 2 if last else spec.d_model)
            dtype = DTYPES["float32" if last else spec.dtype]
            if tensor.shape != shape or tensor.dtype != dtype:
                raise ValueError(
                    f"shard {shard}: {name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}"
                )
        return named

    def finish(self) -> ActivationStore:
        """Moves the checksums into the manifest: the store is complete.

        Raises:
            ValueError: If shards are missing (the message lists them), or the folder has become
                another store meanwhile.
        """
        manifest = self._current()
        if missing := list(manifest.missing(self._files)):
            raise ValueError(f"{self.folder} cannot be finished: shards {missing} are missing")
        manifest.write(self._files)
        there = self._files.listing()
        for name in map(stamp_name, range(len(self.spec.shards))):
            if name in there:
                self._files.remove(name)
        self._files.sweep()
        return ActivationStore(self._files, manifest)

    def _current(self) -> Manifest:
        """The manifest on disk, which must still be about the store that was opened."""
        manifest = Manifest.current(self._files)
        if found := differences(manifest.spec, self.spec, ignore=MAY_DIFFER):
            raise ValueError(
                f"{self.folder} has become another store since it was opened:\n  "
                + "\n  ".join(found)
                + "\nChoose another folder for one of the two."
            )
        return manifest


def _is_empty(files: Folder) -> bool:
    """Whether a store's folder has no shard yet, nor a part of one."""
    files.sweep()
    return not any(re.match(r"\.?shard-", name) for name in files.listing())
