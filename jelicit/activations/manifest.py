"""The manifest: a store's spec and its shards' checksums; and the names of a store's files.

Version 2 has a checksum of itself, and one for every tensor of a shard. Version 1 had neither: such
stores are read all the same, and checked by the checksums of their whole files.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from jelicit.activations.spec import MAY_DIFFER, StoreSpec
from jelicit.disk import Folder, Stamp

MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
KIND = "jelicit activation store"
VERSION = 2
_WITHOUT_CHECKSUM = 1


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
    """SHA-256 (hex) of all that two writers of one store must agree on, so not `MAY_DIFFER`."""
    values = spec.to_json()
    for field in MAY_DIFFER:
        outer, _, key = field.rpartition(".")
        (values[outer] if outer else values).pop(key, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and the checksums and size of each shard; None where it is missing.

    A stamp is {"sha256": of the file, "bytes": its size, "tensors": {name: `tensor_sum`}}.
    """

    spec: StoreSpec
    stamps: list[Stamp | None]

    @property
    def finished(self) -> bool:
        """Whether it has the checksum of every shard."""
        return None not in self.stamps

    def write(self, folder: Folder, *, replace: bool = True) -> None:
        """Writes it into the folder; with `replace=False` only if there is none."""
        body = {"spec": self.spec.to_json(), "shards": self.stamps}
        head = {"kind": KIND, "version": VERSION, "sha256": _checksum(body)}
        folder.write(MANIFEST, [to_bytes({**head, **body})], replace=replace)

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
            return Manifest._of(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} cannot be read as {KIND}: {reason}") from error

    @staticmethod
    def _of(values: dict[str, Any]) -> Manifest:
        """The manifest that these JSON values are; raises whatever tells that they are none."""
        kind, version = values["kind"], values["version"]
        if kind != KIND or version not in (_WITHOUT_CHECKSUM, VERSION):
            raise ValueError(
                f"it is {kind!r} version {version!r}; this version reads {_WITHOUT_CHECKSUM} and "
                f"{VERSION}"
            )
        body = {"spec": values["spec"], "shards": values["shards"]}
        if version == VERSION and values["sha256"] != _checksum(body):
            # What is wrong in the spec is the better message.
            StoreSpec.from_json(values["spec"])
            raise ValueError(
                "it was changed since it was written: its own checksum does not fit; put the "
                "original back, or extract again into another folder"
            )
        manifest = Manifest(StoreSpec.from_json(values["spec"]), values["shards"])
        if len(manifest.stamps) != len(manifest.spec.shards):
            raise ValueError(f"it has {len(manifest.stamps)} checksums")
        if not all(stamp is None or _is_stamp(stamp) for stamp in manifest.stamps):
            raise ValueError("its shards are not checksums and sizes")
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
            name: {key: value for key, value in stamp.items() if key != "spec"}
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
    except (
        ValueError,
        RecursionError,
    ):  # damaged: its shard counts as missing and is written again
        return None
    return stamp if _is_stamp(stamp) else None


def _is_stamp(stamp: object) -> bool:
    if not isinstance(stamp, dict):
        return False
    sums = stamp.get("tensors", {})
    return (
        isinstance(stamp.get("sha256"), str)
        and type(stamp.get("bytes")) is int
        and isinstance(sums, dict)
        and all(isinstance(value, str) for value in sums.values())
    )


def _checksum(body: dict[str, Any]) -> str:
    """SHA-256 (hex) of the manifest's own fields, however they are laid out in the file."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
