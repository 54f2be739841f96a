"""Finished parts of long runs in a journal: which run they are of, and where it goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jelicit.disk import Journal
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


class RunJournal:
    """Finished parts of one run: lines {"run": key, <part>: number, ...} of a journal.

    What was written under another key, so by a run of other settings, is left alone.
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
        self._key = key
        self._journal = Journal(path, keys=("run", part), what=f"{part} of a run", read=dict)

    def get(self, number: int) -> dict[str, Any] | None:
        """A finished part as it was put, or None."""
        return self._journal.get(self._key, number)

    def put(self, number: int, **fields: Any) -> None:
        """Adds a finished part; values must be JSON.

        Raises:
            OSError: If it cannot be written; the message names the file.
        """
        self._journal.put(self._key, number, **fields)
