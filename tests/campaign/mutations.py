"""Changes of a file's bytes or of the JSON in it, drawn by Hypothesis so that they shrink."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from hypothesis import strategies as st

VALUES = (
    *(None, True, False, 0, -1, 1, 7, 1.5, 10**30, -0.5, float("nan"), float("inf")),
    *("", "x", "0", "true", "a\u2028b", [], {}, [[]], [None], {"a": 1}, ["x"], [1, 2]),
)
"""What may stand in a field's place."""


class Mutation(Protocol):
    """Makes other bytes of a file's bytes."""

    def of(self, content: bytes) -> bytes:
        """The changed content; the same where there is nothing to change."""
        ...


@dataclass(frozen=True)
class Flip:
    """Another bit at a place (0 = the first byte, 1 = behind the last)."""

    place: float
    bit: int

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        changed = bytearray(content)
        if changed:
            changed[int(self.place * len(changed))] ^= 1 << self.bit
        return bytes(changed)


@dataclass(frozen=True)
class Cut:
    """Nothing from a place on."""

    place: float

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        return content[: int(self.place * len(content))]


@dataclass(frozen=True)
class Put:
    """Bytes in between, or over what was there."""

    place: float
    what: bytes
    over: bool

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        at = int(self.place * len(content))
        return content[:at] + self.what + content[at + len(self.what) * self.over :]


@dataclass(frozen=True)
class Whole:
    """Something else in the file's place."""

    content: bytes

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        return self.content


@dataclass(frozen=True)
class Field:
    """A field of the JSON gets another value, another name, or goes; or two swap values.

    Attributes:
        pick: Which field, of all of them in order (0 = the first, 1 = behind the last).
        how: "set", "drop", "rename" or "swap" (with the next one).
        value: What it is set to.
        line: Which line, of a file of lines of JSON; None: the file is one JSON value.
    """

    pick: float
    how: str
    value: Any = None
    line: float | None = None

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        if self.line is None:
            return self._changed(content)
        lines = content.splitlines(keepends=True)
        at = int(self.line * len(lines))
        lines[at] = self._changed(lines[at]).rstrip() + b"\n"
        return b"".join(lines)

    def _changed(self, content: bytes) -> bytes:
        value = json.loads(content)
        places = list(_places(value))
        holder, key = places[int(self.pick * len(places))]
        following = places[(int(self.pick * len(places)) + 1) % len(places)]
        if self.how == "set":
            holder[key] = self.value
        elif self.how == "drop":
            del holder[key]
        elif self.how == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif self.how == "swap":
            other, name = following
            holder[key], other[name] = other[name], holder[key]
        try:
            return json.dumps(value).encode()
        except (ValueError, RecursionError):  # a value that was swapped into itself
            return content


@dataclass(frozen=True)
class Header:
    """A change of a safetensors file's header, whose length is made to fit."""

    change: Field

    def of(self, content: bytes) -> bytes:
        """See `Mutation`."""
        (length,) = struct.unpack("<Q", content[:8])
        header = self.change.of(content[8 : 8 + length])
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _places(value: Any):
    """Every (holder, key) of a JSON value, outermost first."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
    for key in keys:
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


# --- strategies ----------------------------------------------------------------------------------

_place = st.floats(0, 1, exclude_max=True)


def damage() -> st.SearchStrategy[Mutation]:
    """Changes of bytes."""
    return st.one_of(
        st.builds(Flip, _place, st.integers(0, 7)),
        st.builds(Cut, _place),
        st.builds(Put, _place, st.binary(min_size=1, max_size=9), st.booleans()),
        st.builds(
            Whole, st.sampled_from([b"", b"\n", b"{}", b"[]", b"null", b"[" * 5000, b"\0" * 99])
        ),
    )


def fields(*, lines: bool = False) -> st.SearchStrategy[Field]:
    """Changes of a JSON value's fields, or of those of one line of JSON."""
    line = _place if lines else st.none()
    return st.one_of(
        st.builds(Field, _place, st.just("set"), st.sampled_from(VALUES), line),
        st.builds(Field, _place, st.sampled_from(["drop", "rename", "swap"]), st.none(), line),
    )


def headers() -> st.SearchStrategy[Header]:
    """Changes of a safetensors header."""
    return st.builds(Header, fields())
