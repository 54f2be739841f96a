"""Journals: finished parts of long runs, a line of JSON each, so that a killed run goes on.

One file may hold many runs. A run's key names everything that decides its numbers, so what was
written under other settings is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jelicit.prompting.consistency import RULES, Rule


def run_key(scorer: object, rule: Rule, *decides: Any) -> str:
    """SHA-256 (hex) of what decides a run: the scorer's name, the rule's, and JSON values.

    Args:
        scorer: Must have a `name` that pins its model.
        rule: One of `RULES`: two rules of one's own may share a name.
        *decides: Everything else, as JSON values.

    Raises:
        ValueError: If the key could not tell this run from another.
    """
    name = getattr(scorer, "name", "")
    if not name:
        raise ValueError(
            "a journal needs a scorer with a name, which pins its model: else what one model said "
            "could be read back as another's"
        )
    if RULES.get(rule.name) is not rule:
        raise ValueError(f"a journal cannot tell the rule {rule.name!r} from another of that name")
    text = json.dumps([name, rule.name, *decides], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Finished parts of one run in a file of {"run": key, <part>: number, ...} lines.

    A last line without its end was torn by a kill: it is no part, and is cut off.
    """

    def __init__(self, path: Path | None, key: str, *, part: str) -> None:
        """Reads what the run has finished.

        Args:
            path: The file; made on the first `put`. None: nothing is kept.
            key: The run's key (`run_key`).
            part: What the run consists of: "round", "step".

        Raises:
            ValueError: If a whole line is no such part; the message names file and line.
        """
        self._path, self._key, self._part = path, key, part
        self._found: dict[int, dict[str, Any]] = {}
        if path is None or not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.decode().split("\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                run, place = entry["run"], int(entry[part])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} is no {part} of a run ({error!r}); delete the file, or "
                    "give each kind of run a journal of its own"
                ) from error
            if run == key:
                self._found[place] = entry
        if len(whole) < len(content):  # the next line must not be glued to the torn one
            os.truncate(path, len(whole))

    def get(self, number: int) -> dict[str, Any] | None:
        """A finished part as it was put, or None."""
        return self._found.get(number)

    def put(self, number: int, **found: Any) -> None:
        """Adds a finished part; values must be JSON."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"run": self._key, self._part: number, **found}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
