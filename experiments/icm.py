"""ICM (Wen et al. 2025): can a model's own coherence replace labels?

Labels of a few train items are searched for by how well the model predicts each from all others,
and test items are judged after all items with those labels. Beside it: zero-shot, random and golden
many-shot prompts, bootstrapping, and the paper's ablations.

    python experiments/icm.py
    python experiments/icm.py --dataset pocket/arithmetic pocket/pairs pocket/poems --seeds 1
    python experiments/icm.py --scorer http://localhost:8000/v1 --dataset truthfulqa --n 256

Prints tables, writes result rows (Parquet), the labels (JSONL), figures (PNG, SVG) and a report,
and ends with their paths. Every step of a search is kept: the same command after a crash goes on.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, say, start
    from servers import ServerSettings

    from extract import open_chat, open_server
    from extract.served import ServedChat, ServedModel
    from jelicit.studies import icm
    from jelicit.studies.checks import given
    from jelicit.studies.model import Prompted

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(icm.Settings):
    """Search labels, and compare prompts that show them.

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
    out: Path = Path("runs/icm")

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if self.scorer != "local" and "://" not in self.scorer:
            problems.append(f"--scorer {self.scorer}: give local, or a URL such as http://host/v1")
        if self.chat_scorer is not None and "://" not in self.chat_scorer:
            problems.append(f"--chat-scorer {self.chat_scorer}: give a URL such as https://host/v1")
        chats = [option for option in (self.chat_model, self.chat_scorer) if option is not None]
        if len(chats) != (icm.CHAT in self.methods):
            problems.append(
                f"--methods {icm.CHAT} goes together with --chat-model or --chat-scorer: give it "
                "and one of them, or none"
            )
        return problems + self.at_server.problems()

    def idle(self) -> list[str]:
        """Problems of options that would do nothing: of searches, a server, or a model here."""
        problems = super().idle()
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


OF_THE_MODEL = ("model", "stores", "chat")
OF_ANY_SERVER = ("max_tokens_total", "patience")
OF_MODELS_HERE = ("dtype", "device", "threads", "token_budget")


def model(settings: Settings) -> Prompted:
    """The model that labels: here, or on its server."""
    if settings.scorer == "local":
        return settings.run_on.open()
    journal = settings.out / "answers.jsonl"
    return open_server(settings.scorer, journal=journal, **settings.at_server.options())


def chat(settings: Settings) -> Prompted | None:
    """The model of zero_shot_chat: here, or on its server; None where it is not asked for."""
    if settings.chat_model is not None:
        return settings.run_on.open(model=settings.chat_model, chat=None)
    if settings.chat_scorer is None:
        return None
    options = {name: getattr(settings.at_server, name) for name in OF_ANY_SERVER}
    return open_chat(
        settings.chat_scorer,
        model=settings.chat_served,
        journal=settings.out / "chat-answers.jsonl",
        **{name: value for name, value in options.items() if value is not None},
    )


def main(settings: Settings) -> None:
    """Run the study."""
    settings.check()  # before a server is asked
    models = icm.Scorers(model(settings), chat(settings))
    ask(icm.STUDY, models, settings)
    for served in (models.model, models.chat):
        if isinstance(served, ServedModel | ServedChat):
            say(served.sent)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
