"""Scoring through a model server, which needs a package of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.server_scorer import ServerScorer


def connect(url: str, **options: Any) -> ServerScorer:
    """A scorer of the server at a URL.

    Args:
        url: Of an OpenAI-compatible API.
        options: Of `extract.server_scorer.ServerScorer`.

    Raises:
        ValueError: The `openai` package is missing; or see `ServerScorer`.
    """
    try:
        from extract.server_scorer import ServerScorer
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise ValueError(
            f"--scorer {url} needs the openai package: pip install -c constraints.txt -e "
            "'.[extract,server]'"
        ) from error
    return ServerScorer(url, **options)
