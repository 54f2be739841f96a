"""The safetensors layout: a file's pieces without copies, and the place of one tensor in it.

8 bytes: length of the header, little-endian. Header: JSON, {name: {dtype, shape, data_offsets}},
offsets counted from its end. Then the numbers. The safetensors library reads and writes local files
only (which it does here: `jelicit.activations.shards`): reading one layer of a remote file needs to
know where its bytes are. Its writer also leaves a temporary file of its own behind when it is
killed, hides the errors of the disk, and copies what it writes. Files are the same to the byte as
those that the library writes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jelicit.activations.spec import DTYPES

_DTYPE_OF = {"F32": DTYPES["float32"], "BF16": DTYPES["bfloat16"], "F16": DTYPES["float16"]}
_CODE_OF = {dtype: code for code, dtype in _DTYPE_OF.items()}
_ORDER = list(_CODE_OF)
PREFIX = 8
"""Bytes before the header: its length."""
MOST_HEADER = 100_000_000
"""Longer headers are refused, as the library does: they are damage."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its file: bytes start..stop."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    def decode(self, data: bytes | memoryview) -> np.ndarray:
        """The tensor, from its own bytes (read-only).

        Raises:
            ValueError: If they are not as many as they must be.
        """
        if len(data) != self.stop - self.start:
            raise ValueError(f"{len(data)} bytes of a tensor of {self.stop - self.start}")
        return np.frombuffer(data, dtype=self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """A file's header, read."""

    metadata: Mapping[str, str]
    places: Mapping[str, Place]


def pack(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> list[memoryview]:
    """The file that holds these tensors, in pieces; the tensors' own memory, not copies."""
    # The library's order: wide numbers first, so that all are aligned; then by name.
    names = sorted(tensors, key=lambda name: (_ORDER.index(tensors[name].dtype), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    pieces, end = [], 0
    for name in names:
        tensor = np.ascontiguousarray(tensors[name])
        header[name] = {
            "dtype": _CODE_OF[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
        # As bytes: the buffers of NumPy do not know bfloat16.
        pieces.append(tensor.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(struct.pack("<Q", len(text)) + text), *pieces]


def header_length(prefix: bytes) -> int:
    """Bytes of the header, from the first `PREFIX` bytes of a file.

    Raises:
        ValueError: If that cannot be.
    """
    if len(prefix) != PREFIX:
        raise ValueError("it ends before its header")
    (length,) = struct.unpack("<Q", prefix)
    if not 2 <= length <= MOST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    return length


def layout(header: bytes) -> Layout:
    """Where the tensors of a file are.

    Raises:
        ValueError: If the header cannot be read.
    """
    base = PREFIX + len(header)
    try:
        entries = json.loads(header)
        metadata = dict(entries.pop("__metadata__", {}))
        places = {}
        for name, entry in entries.items():
            start, stop = entry["data_offsets"]
            shape, dtype = tuple(entry["shape"]), _DTYPE_OF[entry["dtype"]]
            if start < 0 or min(shape) < 0 or stop - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} {shape} has the bytes {start}..{stop}")
            places[name] = Place(dtype, shape, base + start, base + stop)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    return Layout(metadata, places)


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and tensors of a whole file; the tensors are views of `data`.

    Raises:
        ValueError: If it is no such file.
    """
    end = PREFIX + header_length(data[:PREFIX])
    found = layout(data[PREFIX:end])
    view = memoryview(data)
    tensors = {
        name: place.decode(view[place.start : place.stop]) for name, place in found.places.items()
    }
    return dict(found.metadata), tensors
