"""Which models icm asks: one here or on a server, and one that is tuned for chat, as a baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from common import ModelSettings
from servers import ServerSettings

from extract import open_chat, open_server
from jelicit.studies.checks import given
from jelicit.studies.model import Prompted

OF_THE_MODEL = ("model", "stores", "chat")
OF_ANY_SERVER = ("max_tokens_total", "patience", "requests_at_once")
OF_MODELS_HERE = ("dtype", "device", "threads", "token_budget")


@dataclass(frozen=True, kw_only=True)
class AskedSettings:
    """Which models are asked, and where.

    Attributes:
        run_on: Which language model, and how it runs.
        scorer: local, or the URL of an OpenAI-compatible server (vLLM: http://localhost:8000/v1).
        at_server: Which model of the server, and how it is asked.
        chat_model: Another model for zero_shot_chat: an id or folder. It is asked in its own chat
            template where it has one.
        chat_scorer: The URL of a service for zero_shot_chat: an API with chat completions, which
            puts its own chat template around prompts.
        chat_served: Name of the chat model there; None = the only one that is served.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    scorer: str = "local"
    at_server: tyro.conf.OmitArgPrefixes[ServerSettings] = field(default_factory=ServerSettings)
    chat_model: str | None = None
    chat_scorer: str | None = None
    chat_served: str | None = None

    @property
    def chats(self) -> tuple[str | None, str | None]:
        """The two ways to name a chat model."""
        return self.chat_model, self.chat_scorer

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = []
        if self.scorer != "local" and "://" not in self.scorer:
            problems.append(f"--scorer {self.scorer}: give local, or a URL such as http://host/v1")
        if self.chat_scorer is not None and "://" not in self.chat_scorer:
            problems.append(f"--chat-scorer {self.chat_scorer}: give a URL such as https://host/v1")
        return problems + self.at_server.problems()

    def idle(self) -> list[str]:
        """Problems of options that would do nothing: of a server, or of a model here."""
        problems = []
        if self.chat_scorer is None and self.chat_served is not None:
            problems.append("--chat-served does nothing without --chat-scorer URL")
        if self.scorer == "local":
            useful = () if self.chat_scorer is None else OF_ANY_SERVER
            options = given(self.at_server, [n for n in vars(self.at_server) if n not in useful])
            return problems + [f"{option} does nothing without --scorer URL" for option in options]
        options = given(self.run_on, OF_THE_MODEL)
        options += [] if self.chat_model is not None else given(self.run_on, OF_MODELS_HERE)
        said = f"does nothing with --scorer {self.scorer}"
        return problems + [f"{option} {said}" for option in options]

    def model(self, out: Path) -> Prompted:
        """The model that labels: here, or on its server, with a journal in a run's folder."""
        if self.scorer == "local":
            return self.run_on.open()
        return open_server(self.scorer, journal=out / "answers.jsonl", **self.at_server.options())

    def chat(self, out: Path) -> Prompted | None:
        """The model of zero_shot_chat: here, or on its server; None where it is not asked for."""
        if self.chat_model is not None:
            return self.run_on.open(model=self.chat_model, chat=None)
        if self.chat_scorer is None:
            return None
        return open_chat(
            self.chat_scorer,
            model=self.chat_served,
            journal=out / "chat-answers.jsonl",
            **self.at_server.options(OF_ANY_SERVER),
        )
