"""The manifest: a store's spec and its shards' checksums; and the names of a store's files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from jelicit.activations.files import Folder, Stamp
from jelicit.activations.spec import StoreSpec

MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
KIND = "jelicit activation store"
VERSION = 1


def shard_name(shard: int) -> str:
    """The file that holds a shard."""
    return f"shard-{shard:05d}.safetensors"


def stamp_name(shard: int) -> str:
    """The file that holds a shard's checksum, until the store is complete."""
    return f"shard-{shard:05d}.json"


def to_bytes(value: object) -> bytes:
    """JSON as the store's small files have it."""
    return (json.dumps(value, indent=1) + "\n").encode()


def spec_digest(spec: StoreSpec) -> str:
    """SHA-256 (hex) of all that two writers of one store must agree on, so not its batches."""
    values = {name: value for name, value in spec.to_json().items() if name != "batch_plan"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and checksum and size of each shard; None where it is missing."""

    spec: StoreSpec
    stamps: list[Stamp | None]

    @property
    def finished(self) -> bool:
        """Whether it has the checksum of every shard."""
        return None not in self.stamps

    def write(self, folder: Folder, *, replace: bool = True) -> None:
        """Writes it into the folder; with `replace=False` only if there is none."""
        body = {"kind": KIND, "version": VERSION, "spec": self.spec.to_json()}
        folder.write(MANIFEST, [to_bytes({**body, "shards": self.stamps})], replace=replace)

    @staticmethod
    def read(folder: Folder) -> Manifest:
        """The manifest as it is on disk.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it cannot be read.
        """
        path = folder.path(MANIFEST)
        try:
            content = folder.read(MANIFEST)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(
                f"{folder.location} is no activation store: it has no {MANIFEST}; "
                "`python -m extract run` writes stores"
            ) from error
        try:
            values = json.loads(content)
            if (values["kind"], values["version"]) != (KIND, VERSION):
                raise ValueError(f"it is {values['kind']!r} version {values['version']!r}")
            manifest = Manifest(StoreSpec.from_json(values["spec"]), values["shards"])
            if len(manifest.stamps) != len(manifest.spec.shards):
                raise ValueError(f"it has {len(manifest.stamps)} checksums")
            if not all(stamp is None or _is_stamp(stamp) for stamp in manifest.stamps):
                raise ValueError("its shards are not checksums and sizes")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} cannot be read as {KIND} version {VERSION}: {error}"
            ) from error
        return manifest

    @staticmethod
    def current(folder: Folder) -> Manifest:
        """The manifest with the checksums that are still in files of their own."""
        # In this order: whoever finishes the store writes the manifest before deleting these.
        names = [name for name in folder.listing() if re.fullmatch(r"shard-\d+\.json", name)]
        own = {name: _read_stamp(folder, name) for name in names}
        manifest = Manifest.read(folder)
        # Where manifests can overwrite each other (URLs), a shard may be of another spec.
        spec = spec_digest(manifest.spec) if own else ""
        own = {
            name: {"sha256": stamp["sha256"], "bytes": stamp["bytes"]}
            for name, stamp in own.items()
            if stamp and stamp.get("spec", spec) == spec
        }
        return Manifest(
            manifest.spec,
            [own.get(stamp_name(n)) or stamp for n, stamp in enumerate(manifest.stamps)],
        )

    def missing(self, folder: Folder) -> dict[int, str]:
        """Shards that cannot be read, with the reason."""
        sizes, reasons = folder.listing(), {}
        for shard, stamp in enumerate(self.stamps):
            name = shard_name(shard)
            size = sizes.get(name)
            if size is None or stamp is None:
                reasons[shard] = f"{name} is missing"
            elif size != stamp["bytes"]:
                reasons[shard] = f"{name} has {size} of {stamp['bytes']} bytes"
        return reasons


def _read_stamp(folder: Folder, name: str) -> Stamp | None:
    try:
        stamp = json.loads(folder.read(name))
    except FileNotFoundError:  # it has gone into the manifest meanwhile
        return None
    except ValueError:  # damaged: its shard counts as missing and is written again
        return None
    return stamp if _is_stamp(stamp) else None


def _is_stamp(stamp: object) -> bool:
    return (
        isinstance(stamp, dict)
        and isinstance(stamp.get("sha256"), str)
        and isinstance(stamp.get("bytes"), int)
    )
