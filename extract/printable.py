"""Texts of others, made fit for a terminal."""

from __future__ import annotations

from jelicit.data.shown import printable

__all__ = ["first_line", "listed", "printable"]


def first_line(error: object, *, limit: int = 300) -> str:
    """An error's first line that says something, shortened: libraries write pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return printable(line if len(line) <= limit else f"{line[:limit]}...")


def listed(names: list[str], *, limit: int = 4) -> str:
    """Names in one line, the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
