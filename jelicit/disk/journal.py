"""Journals: what a long run has finished, a line of JSON each, so that a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from jelicit.disk.errors import writing

T = TypeVar("T")
_WRONG = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Journal(Generic[T]):
    """A file of lines {<key fields>, <other fields>}: a mapping that grows and outlives a kill.

    The key fields name everything that decides the rest, so one file may hold what many runs
    found. Of lines with one key the last counts. A last line without its end was torn by a kill:
    it is cut off. Lines are not flushed to the disk one by one: a machine that stops may lose the
    last ones, which are then computed again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        keys: tuple[str, ...],
        what: str,
        read: Callable[[Mapping[str, Any]], T],
    ) -> None:
        """Reads what is there.

        Args:
            path: The file; made on the first `put`. None: nothing is kept.
            keys: Names of the key fields.
            what: What a line is, for messages: "round of a run".
            read: A line's fields -> what `get` returns. Raises ValueError, KeyError or TypeError
                where they are no such thing.

        Raises:
            ValueError: If a whole line is no such thing; the message names file and line.
        """
        self._path, self._keys, self._read = None if path is None else Path(path), keys, read
        self._entries: dict[tuple[str | int, ...], T] = {}
        if self._path is not None and self._path.exists():
            self._load(self._path, what)

    def _load(self, path: Path, what: str) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                fields = json.loads(line)
                key = tuple(_scalar(fields[name]) for name in self._keys)
                self._entries[key] = self._read(fields)
            except _WRONG as error:
                raise ValueError(
                    f"{path}, line {number} is no {what} ({error!r}); delete the file, or give "
                    "each kind of run a journal of its own"
                ) from error
        if len(whole) < len(content):  # the next line must not be glued to the torn one
            with writing(path):
                os.truncate(path, len(whole))

    def get(self, *key: str | int) -> T | None:
        """What was put under a key, or None."""
        return self._entries.get(key)

    def put(self, *key: str | int, **fields: Any) -> None:
        """Adds a line; fields must be JSON values.

        Raises:
            OSError: If it cannot be written; the message names the file. The journal is whole then.
        """
        if self._path is None:
            return
        entry = {**dict(zip(self._keys, key, strict=True)), **fields}
        line = (json.dumps(entry) + "\n").encode()
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                _append(file, line)
        self._entries[key] = self._read(entry)


def _append(file: FileIO, line: bytes) -> None:
    """Adds a line whole or not at all; in one call where the disk allows: others may add, too."""
    begin, written = file.tell(), 0
    try:
        while written < len(line):  # a disk that is filling up takes a part, then nothing
            written += file.write(line[written:])
    except OSError:
        if file.seek(0, os.SEEK_END) == begin + written:
            file.truncate(begin)
        raise


def _scalar(value: Any) -> str | int:
    if not isinstance(value, str | int):
        raise TypeError(f"a key is {value!r}")
    return value
