"""A model on a server, as studies ask for one: it can be asked, not looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.server_chat import ChatScorer
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
        raise _explained(error, f"--scorer {url}") from error
    return ServedModel(ServerScorer(url, **options))


def open_chat(url: str, **options: Any) -> ServedChat:
    """The chat model at a URL: a baseline for `jelicit.studies.icm`.

    Args:
        url: Of an API with chat completions, such as https://api.example.com/v1.
        options: Of `extract.server_chat.ChatScorer`.

    Raises:
        ValueError: The `openai` package is missing; or see `ChatScorer`.
    """
    try:
        from extract.server_chat import ChatScorer
    except ModuleNotFoundError as error:
        raise _explained(error, f"--chat-scorer {url}") from error
    return ServedChat(ChatScorer(url, **options))


def _explained(error: ModuleNotFoundError, option: str) -> Exception:
    if error.name != "openai":
        return error
    return ValueError(
        f"{option} needs the openai package: pip install -c constraints.txt -e '.[extract,server]'"
    )


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


class ServedChat:
    """A chat model on a server."""

    trained_length = None
    """Nothing says how long the texts were that it was trained on."""

    def __init__(self, scorer: ChatScorer):
        self._scorer = scorer

    @property
    def name(self) -> str:
        """What the server calls it."""
        return self._scorer.server.model

    @property
    def sent(self) -> str:
        """One line on what was sent so far, for whoever pays for it."""
        scorer, limit = self._scorer, self._scorer.limit
        most = "" if limit.most is None else f" of --max-tokens-total {limit.most:,}"
        return (
            f"sent to the chat server: {scorer.requests:,} requests; {limit.spent:,} tokens{most} "
            "so far, with earlier runs"
        )

    def scorer(self, *, progress: bool = False) -> ChatScorer:
        """Its scorer, which shows no bar of its own."""
        return self._scorer
