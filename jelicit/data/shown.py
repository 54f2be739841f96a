"""Values in messages: enough of them to be found, nothing that a terminal obeys."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 80
"""Characters of a value that a message repeats."""


def shown(value: object) -> str:
    """The value as Python writes it, cut to about `MOST` characters; what was cut is counted.

    Long texts are cut before they are written out: a field of megabytes costs nothing.
    """
    if isinstance(value, str | bytes):
        if len(value) <= MOST:
            return _cut(repr(value))
        return f"{_cut(repr(value[:MOST]))}... ({len(value):,} characters)"
    return _cut(repr(value))


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, long ones cut, and at most twenty of them."""
    words = [name if len(name) <= MOST else shown(name) for name in names]
    return ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")


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


def _cut(text: str) -> str:
    # Escapes make a text longer, up to ten times: a second look at the length.
    return text if len(text) <= MOST + 20 else f"{text[:MOST]}..."
