"""Tables as bytes that a browser reads fast: one gzip of columns, base64 around it.

Layout before compression, numbers little-endian: the length of the header (uint32), the header
(JSON in UTF-8, padded with spaces), then the arrays that the header points to, each at a multiple
of 8 bytes. The header is {"about": anything, "tables": {name: {"length": n, "columns": [column,
...]}}}; a column has a name and a kind:

- "same": `value`, in every row;
- "codes": `values` (numbers, texts, true, false, null) and an array of places in it;
- "fixed": an array of int16, the value times `per_unit`; -32768 is missing;
- "float": an array of float32 or float64; nan is missing.

`unpack` is the twin of the reader in `page/data.js`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 4
"""Digits after the point of measured numbers: AUROCs, accuracies, their intervals."""

MOST_EXACT = 256
"""A number column with more different values than this is rounded (`DIGITS`)."""

MISSING = -(2**15)
LARGEST = 2**15 - 1
_ALIGNMENT = 8
_TYPES = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32}
_TYPES |= {"i2": np.int16, "f4": np.float32, "f8": np.float64}
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Fixed:
    """Numbers to be kept as multiples of 1 / per_unit, clipped to +-32767 / per_unit.

    Attributes:
        values: [n]; nan is missing.
        per_unit: How many steps make 1.
    """

    values: np.ndarray
    per_unit: int

    def __len__(self) -> int:
        return len(self.values)


Columns = Mapping[str, "Fixed | pd.Series"]


def columns_of(frame: pd.DataFrame) -> dict[str, Fixed | pd.Series]:
    """A data frame's columns by name."""
    return {str(name): pd.Series(frame[name]) for name in frame}


def pack(about: Mapping[str, Any], tables: Mapping[str, Columns]) -> str:
    """Tables and what a page must know of them, as base64 of a gzip.

    The same input gives the same text. A text keeps every character but halves of surrogate pairs,
    which no UTF-8 can hold: they become U+FFFD.

    Args:
        about: JSON values.
        tables: Columns by name; numbers, texts, booleans and missing values (None, nan).

    Raises:
        ValueError: If the columns of a table differ in length.
    """
    body = _Body()
    described = {}
    for name, columns in tables.items():
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"table {name}: columns of {sorted(lengths)} rows; one length needed")
        described[name] = {
            "length": max(lengths, default=0),
            "columns": [{"name": key, **_encoded(c, body)} for key, c in columns.items()],
        }
    header = as_json({"about": about, "tables": described}).encode()
    header += b" " * (-(len(header) + 4) % _ALIGNMENT)
    raw = len(header).to_bytes(4, "little") + header + body.bytes()
    return base64.b64encode(gzip.compress(raw, compresslevel=9, mtime=0)).decode()


def unpack(text: str) -> tuple[dict[str, Any], dict[str, dict[str, list[Any]]]]:
    """What the browser sees: about, and per table and column the values (None: missing).

    Raises:
        ValueError: If the text was not made by `pack`.
    """
    try:
        raw = gzip.decompress(base64.b64decode(text, validate=True))
        start = 4 + int.from_bytes(raw[:4], "little")
        header = json.loads(raw[4:start])
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"these are no packed tables ({error})") from error
    tables = {
        name: {c["name"]: _decoded(c, table["length"], raw[start:]) for c in table["columns"]}
        for name, table in header["tables"].items()
    }
    return header["about"], tables


def as_json(value: Any) -> str:
    """Compact JSON, without what UTF-8 or JavaScript cannot read."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _SURROGATES.sub("\ufffd", text)


class _Body:
    """Arrays one after the other, each at a multiple of 8 bytes."""

    def __init__(self):
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, array: np.ndarray, kind: str) -> dict[str, Any]:
        data = array.astype(np.dtype(_TYPES[kind]).newbyteorder("<")).tobytes()
        place = {"type": kind, "start": self.size}
        data += b"\0" * (-len(data) % _ALIGNMENT)
        self.parts.append(data)
        self.size += len(data)
        return place

    def bytes(self) -> bytes:
        return b"".join(self.parts)


def _encoded(column: Fixed | pd.Series, body: _Body) -> dict[str, Any]:
    if isinstance(column, Fixed):
        return _fixed(column, body)
    codes, found = pd.factorize(column, use_na_sentinel=True)
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numbers and len(found) > MOST_EXACT:
        return _many_numbers(column.to_numpy(float, na_value=np.nan), body)
    values = [_scalar(value) for value in found]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(values), codes)
        values.append(None)
    if len(values) == 1:
        return {"kind": "same", "value": values[0]}
    kind = "u1" if len(values) <= 2**8 else "u2" if len(values) <= 2**16 else "u4"
    return {"kind": "codes", "values": values, **body.add(codes, kind)}


def _many_numbers(numbers: np.ndarray, body: _Body) -> dict[str, Any]:
    known = numbers[~np.isnan(numbers)]
    if (known == np.round(known)).all():
        return {"kind": "float", **body.add(numbers, "f8")}
    per_unit = 10**DIGITS
    if np.abs(known).max() * per_unit < LARGEST:
        return _fixed(Fixed(numbers, per_unit), body)
    return {"kind": "float", **body.add(numbers, "f4")}


def _fixed(column: Fixed, body: _Body) -> dict[str, Any]:
    steps = np.clip(np.round(column.values * float(column.per_unit)), -LARGEST, LARGEST)
    steps = np.where(np.isnan(steps), MISSING, steps)
    return {"kind": "fixed", "per_unit": column.per_unit, **body.add(steps, "i2")}


def _scalar(value: Any) -> Any:
    """A cell as JSON says it; an infinite number, which JSON lacks, as text."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _decoded(column: Mapping[str, Any], length: int, body: bytes) -> list[Any]:
    if column["kind"] == "same":
        return [column["value"]] * length
    kind = np.dtype(_TYPES[column["type"]]).newbyteorder("<")
    array = np.frombuffer(body, kind, length, column["start"])
    if column["kind"] == "codes":
        return [column["values"][code] for code in array]
    if column["kind"] == "fixed":
        return [None if x == MISSING else x / column["per_unit"] for x in array.tolist()]
    return [None if np.isnan(x) else x for x in array.tolist()]
