"""What commands say: lines that a terminal obeys nothing of, warnings apart from results."""

from __future__ import annotations

import sys

from jelicit.data.shown import printable


def say(line: str) -> None:
    """One line (or several) of results, on stdout."""
    print(printable(line))


def warn(line: str) -> None:
    """One line that a reader of the results has to know, on stderr."""
    print(f"warning: {printable(line)}", file=sys.stderr)
