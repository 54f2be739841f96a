"""Texts of others, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with every control character but "\n" spelled out: a terminal obeys none of it.

    Also those that hide or reorder what stands beside them (zero width, right to left).
    """
    return "".join(
        char
        if char.isprintable() or char == "\n"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def first_line(error: object, *, limit: int = 300) -> str:
    """An error's first line that says something, shortened: libraries write pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return printable(line if len(line) <= limit else f"{line[:limit]}...")


def listed(names: list[str], *, limit: int = 4) -> str:
    """Names in one line, the first few of many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
