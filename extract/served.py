"""A model on a server, as studies ask for one: it can be asked, not looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.server_scorer import ServerScorer


def open_server(url: str, **options: Any) -> ServedModel:
    """The model at a URL, for `jelicit.studies.icm`.

    Args:
        url: Of an OpenAI-compatible API, such as http://localhost:8000/v1.
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
    return ServedModel(ServerScorer(url, **options))


class ServedModel:
    """A model on a server."""

    def __init__(self, scorer: ServerScorer):
        self._scorer = scorer

    @property
    def name(self) -> str:
        """What the server calls it."""
        return self._scorer.server.model

    @property
    def trained_length(self) -> int | None:
        """Longest text that it was trained on, in tokens, where something says so."""
        return self._scorer.trained_length

    @property
    def sent(self) -> str:
        """One line on what was sent so far, for whoever pays for it."""
        scorer, limit = self._scorer, self._scorer.limit
        said = f"sent to the server: {scorer.requests:,} requests, {scorer.prompt_tokens:,} tokens"
        if scorer.cached_tokens:
            said += f" ({scorer.cached_tokens:,} in its cache)"
        if limit.most is not None:
            said += f"; {limit.spent:,} of --max-tokens-total {limit.most:,} are spent"
        return said

    def scorer(self, *, progress: bool = False) -> ServerScorer:
        """Its scorer, which shows no bar of its own."""
        return self._scorer
