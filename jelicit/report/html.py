"""The parts of a page that are text: escaped, so that no data can become markup."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from jelicit.results import Finding, TextTable

# Characters that hide, reorder or cut text: controls, line separators, bidirectional overrides and
# isolates, zero-width spaces, halves of surrogate pairs. The page shows them by number.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\ufffe\uffff]"
)

MARKS = {True: ("yes", "✓", "appears"), False: ("no", "✕", "does not appear")}
UNKNOWN = ("unknown", "?", "cannot tell")


def escape(value: Any) -> str:
    """Text that is safe between tags and in quoted attributes; hidden characters are shown."""
    shown = _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", str(value))
    return html.escape(shown, quote=True)


def paragraphs(text: str) -> str:
    """Paragraphs, cut at blank lines."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "\n".join(f"<p>{escape(block)}</p>" for block in blocks)


def minutes(seconds: float) -> str:
    """A duration in words: "14 seconds", "2.5 minutes", "1.2 hours"."""
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours"


def pairs(entries: Mapping[str, Any]) -> str:
    """A table of names and values; nested mappings as dotted names."""
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in flat(entries)
    ]
    return f'<table class="pairs"><tbody>{"".join(lines)}</tbody></table>'


def grid(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of texts; the first cell of a line is its head."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in lines
    )
    return (
        f'<div class="wide"><table class="grid"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def text_table(table: TextTable) -> str:
    """A table of a record, under its title and above its note."""
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f"<p>{escape(table.title)}</p>{grid(table.heads, table.lines)}{note}"


def flat(entries: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """(dotted name, value as text) of nested settings."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value)) or "(none)"
        else:
            yield prefix + name, "(none)" if value is None or value == "" else str(value)


NEEDS_SCRIPT = "<noscript><p>This part needs JavaScript; it asks for no network.</p></noscript>"


def section(name: str, title: str, body: str = NEEDS_SCRIPT) -> str:
    """A part of the page that the navigation can point to; what has no body is drawn by script."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def folded(title: str, body: str) -> str:
    """A part that opens on demand."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def mark(appears: bool | None) -> str:
    """A three-state mark: a sign and words, and a colour that only repeats them."""
    state, sign, words = UNKNOWN if appears is None else MARKS[appears]
    return (
        f'<span class="mark {state}"><span class="sign" aria-hidden="true">{sign}</span>'
        f"{words}</span>"
    )


def tally(findings: Sequence[Finding]) -> str:
    """How many findings appear, do not, or cannot be told, in a sentence."""
    counts = [sum(f.appears is state for f in findings) for state in (True, False, None)]
    words = (("appears here", "appear here"), ("does not", "do not"), ("cannot be told",) * 2)
    said = [f"{n} {word[n > 1]}" for n, word in zip(counts, words, strict=True) if n]
    total = len(findings)
    return f"Of {total} finding{'s' if total > 1 else ''}, {', '.join(said)}."


def findings(found: Sequence[Finding]) -> str:
    """Claim, what was measured, and whether they agree."""
    entries = [
        f'<li class="finding">{mark(each.appears)}<div><p class="claim">{escape(each.claim)}</p>'
        f'<p class="measured">{escape(each.measured)}</p></div></li>'
        for each in found
    ]
    return f'<p>{tally(found)}</p><ol class="findings">{"".join(entries)}</ol>'


def lines(texts: Iterable[str]) -> str:
    """A list of short texts."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def figure(name: str, svg: bytes) -> str:
    """A figure as an image: scripts inside an image never run, and its ids clash with no others."""
    source = base64.b64encode(svg).decode()
    stem = name.removesuffix(".svg")
    return (
        f'<figure><div class="sheet"><img alt="{escape(described(stem, svg))}" '
        f'src="data:image/svg+xml;base64,{source}"></div>'
        f"<figcaption>{escape(stem)}</figcaption></figure>"
    )


def described(stem: str, svg: bytes) -> str:
    """What a figure says to those who cannot see it: the words that stand in it."""
    try:
        texts = [
            "".join(node.itertext()).strip()
            for node in ElementTree.fromstring(svg).iter()
            if node.tag.rpartition("}")[2] == "text"
        ]
    except ElementTree.ParseError:
        texts = []
    words = [text for text in dict.fromkeys(texts) if re.search(r"[^\W\d_]{2}", text)]
    said = "; ".join(words)
    said = said if len(said) <= 400 else said[:400].rsplit("; ", 1)[0] + "; ..."
    return f"Figure {stem}. In it: {said}. Its numbers stand in the table of rows."
