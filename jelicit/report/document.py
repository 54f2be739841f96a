"""One HTML file from a template: style, script and data inlined, everything else forbidden."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path

from jelicit.disk import write_text
from jelicit.report.html import escape
from jelicit.version import __version__

SCRIPTS = (
    "tools.js",
    "data.js",
    "filters.js",
    "rows.js",
    "chart.js",
    "items.js",
    "detail.js",
    "start.js",
)


def document(*, title: str, navigation: dict[str, str], body: str, data: str) -> str:
    """A complete page.

    Its policy allows this very style and script, by their hashes, and images that stand in the page
    itself; no other script, no form, no request. So even text that got past every escape could not
    run.

    Args:
        title: Head of the page, as plain text.
        navigation: Section id -> its name in the navigation.
        body: HTML.
        data: From `packing.pack`.
    """
    style, script = part("report.css"), scripts()
    links = "".join(f'<a href="#{name}">{escape(n)}</a>' for name, n in navigation.items())
    filled = {
        "policy": policy(style, script),
        "title": escape(title),
        "style": style,
        "navigation": links,
        "body": body,
        "version": escape(__version__),
        "data": data,
        "script": script,
    }
    # In one pass: what is filled in is never looked through for places to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], part("report.html"))


def save(page: str, path: Path) -> Path:
    """Writes a page, whole or not at all."""
    write_text(path, page)
    return path


def policy(style: str, script: str) -> str:
    """The content security policy of a page with this style and this script."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """The hash by which a policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def part(name: str) -> str:
    """A file of the template."""
    path = resources.files("jelicit.report") / "page" / name
    return path.read_text(encoding="utf-8")


@cache
def scripts() -> str:
    """All scripts as one, in a scope of its own."""
    body = "\n".join(part(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();'
