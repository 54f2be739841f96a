"""What a model server has answered, a line of JSON each, so that a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

Values = Sequence[tuple[float, bool]]
"""Log-probabilities, and whether each is only a bound."""


class Journal:
    """Answers in a file of {"key": ..., "log_p": [...], "bound": [...]} lines.

    A key names everything that decides an answer (model, prompt, tokens wanted), so one file may
    hold the answers of many runs. A last line without its end was torn by a kill: it is cut off.
    """

    def __init__(self, path: Path | None) -> None:
        """Reads what was answered.

        Args:
            path: The file; made on the first `put`. None: nothing is kept.

        Raises:
            ValueError: If a whole line is no answer; the message names file and line.
        """
        self._path = path
        self._found: dict[str, Values] = {}
        if path is None or not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                values = zip(entry["log_p"], entry["bound"], strict=True)
                self._found[entry["key"]] = [(float(log_p), bool(bound)) for log_p, bound in values]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} is no answer of a server ({error!r}); delete the file, "
                    "or name another one as journal"
                ) from error
        if len(whole) < len(content):  # the next line must not be glued to the torn one
            os.truncate(path, len(whole))

    def get(self, key: str) -> Values | None:
        """What was answered, or None."""
        return self._found.get(key)

    def put(self, key: str, values: Values) -> None:
        """Adds an answer; on disk when this returns."""
        if self._path is None:
            return
        self._found[key] = values
        line = {"key": key, "log_p": [p for p, _ in values], "bound": [b for _, b in values]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
