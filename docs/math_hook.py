"""Equations become MathML while the manual is built: the reader needs no script and no font."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(page_html: str, **_: Any) -> str:
    """Called by MkDocs with every page: what arithmatex marked as an equation is converted.

    Raises:
        ValueError: An equation that cannot be read as LaTeX; the build stops.
    """

    def mathml(match: re.Match[str]) -> str:
        tex = html.unescape(match["tex"]).strip()
        display = "block" if match["tag"] == "div" else "inline"
        try:
            return convert(tex, display=display)
        except Exception as error:  # whatever the converter stumbles over names the equation here
            raise ValueError(f"the equation {tex!r} cannot be read: {error}") from error

    return EQUATION.sub(mathml, page_html)
