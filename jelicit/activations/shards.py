"""Tensors of shards, one by one, each compared with its own checksum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from jelicit.activations import tensors
from jelicit.disk import Folder


def tensor_sum(tensor: np.ndarray) -> str:
    """XXH3 (64 bits, hex) of a tensor's bytes.

    It tells damage, not malice, which the manifest could not stop either. At memory speed, so that
    every read can afford it; the whole file's SHA-256 is ten times slower and would need the bytes
    of all layers.
    """
    # As bytes: the buffers of NumPy do not know bfloat16.
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)


def tensor_sums(named: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The checksum of every tensor, by name."""
    return {name: tensor_sum(tensor) for name, tensor in sorted(named.items())}


def in_words(key: str) -> str:
    """What a tensor is: "layer.3.pos" is "layer 3 (pos)"."""
    _, _, layer = key.partition("layer.")
    number, _, sign = layer.partition(".")
    return f"layer {number} ({sign})" if layer else key


def damaged(path: str, reason: object) -> ValueError:
    """The error for a shard that is not what was written, with the way out."""
    return ValueError(
        f"{path} is damaged: {reason}; delete this file and run `python -m extract run` again with "
        "the same settings"
    )


class ShardReader:
    """Reads single tensors of the shards of one folder; other tensors' bytes are not read."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._layouts: dict[str, tensors.Layout] = {}

    def tensor(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        """(shard number in the metadata, one tensor).

        Raises:
            ValueError: If the file is damaged.
        """
        # The library maps local files, so it reads them. It cannot read a part of a remote one: for
        # those the place of a tensor is found in the header here.
        read = self._remote if self._folder.local is None else self._local
        try:
            return read(name, key)
        except PermissionError:  # no damage
            raise
        except FileNotFoundError as error:
            raise damaged(self._folder.path(name), "it is gone") from error
        except (SafetensorError, ValueError, KeyError) as error:
            reason = f"{in_words(key)} cannot be read ({str(error)[:200]})"
            raise damaged(self._folder.path(name), reason) from error

    def _local(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        with safe_open(self._folder.path(name), framework="np") as file:
            return (file.metadata() or {}).get("shard"), file.get_tensor(key)

    def _remote(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        layout = self._layout(name)
        place = layout.places.get(key)
        if place is None:
            raise ValueError(f"it has no {key}")
        content = self._folder.read_range(name, place.start, place.stop)
        return layout.metadata.get("shard"), place.decode(content)

    def _layout(self, name: str) -> tensors.Layout:
        """A shard's header; kept, since a shard that is written again has the same."""
        if name not in self._layouts:
            start = tensors.PREFIX
            stop = start + tensors.header_length(self._folder.read_range(name, 0, start))
            self._layouts[name] = tensors.layout(self._folder.read_range(name, start, stop))
        return self._layouts[name]
