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

    from extract import open_server
    from extract.served import ServedModel
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
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    scorer: str = "local"
    at_server: tyro.conf.OmitArgPrefixes[ServerSettings] = field(default_factory=ServerSettings)
    chat_model: str | None = None
    out: Path = Path("runs/icm")

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if self.scorer != "local" and "://" not in self.scorer:
            problems.append(f"--scorer {self.scorer}: give local, or a URL such as http://host/v1")
        if (icm.CHAT in self.methods) != (self.chat_model is not None):
            both = f"--chat-model and --methods {icm.CHAT}"
            problems.append(f"{both} go together: give both or neither")
        return problems + self.at_server.problems()

    def idle(self) -> list[str]:
        """Problems of options that would do nothing: of searches, a server, or a model here."""
        problems = super().idle()
        if self.scorer == "local":
            options = given(self.at_server, vars(self.at_server))
            return problems + [f"{option} does nothing without --scorer URL" for option in options]
        options = given(self.run_on, OF_THE_MODEL)
        options += [] if self.chat_model is not None else given(self.run_on, OF_MODELS_HERE)
        said = f"does nothing with --scorer {self.scorer}"
        return problems + [f"{option} {said}" for option in options]


OF_THE_MODEL = ("model", "stores", "chat")
OF_MODELS_HERE = ("dtype", "device", "threads", "token_budget")


def model(settings: Settings) -> Prompted:
    """The model that labels: here, or on its server."""
    if settings.scorer == "local":
        return settings.run_on.open()
    journal = settings.out / "answers.jsonl"
    return open_server(settings.scorer, journal=journal, **settings.at_server.options())


def main(settings: Settings) -> None:
    """Run the study."""
    settings.check()  # before a server is asked
    name = settings.chat_model
    chat = None if name is None else settings.run_on.open(model=name, chat=None)
    asked = model(settings)
    ask(icm.STUDY, icm.Scorers(asked, chat), settings)
    if isinstance(asked, ServedModel):
        say(asked.sent)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
