"""ICM (Wen et al. 2025): can a model's own coherence replace labels?

Labels of a few train items are searched for by how well the model predicts each from all others,
and test items are judged after all items with those labels. Beside it: zero-shot, random and golden
many-shot prompts, bootstrapping, and the paper's ablations.

    python experiments/icm.py
    python experiments/icm.py --dataset pocket/arithmetic pocket/pairs pocket/poems --seeds 1
    python experiments/icm.py --n 96 --batch 16 --finetune --methods icm
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
    from asked import AskedSettings
    from common import ask, console, say, start
    from training import Training

    from extract.served import ServedChat, ServedModel
    from jelicit.studies import icm

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(icm.Settings):
    """Search labels, and compare prompts that show them.

    Attributes:
        asked: Which models, here or on servers.
        training: How the model is trained, with --finetune.
    """

    asked: tyro.conf.OmitArgPrefixes[AskedSettings] = field(default_factory=AskedSettings)
    training: tyro.conf.OmitArgPrefixes[Training] = field(default_factory=Training)
    out: Path = Path("runs/icm")

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + self.asked.problems()
        chats = [option for option in self.asked.chats if option is not None]
        if len(chats) != (icm.CHAT in self.methods):
            problems.append(
                f"--methods {icm.CHAT} goes together with --chat-model or --chat-scorer: give it "
                "and one of them, or none"
            )
        if self.finetune and self.asked.scorer != "local":
            problems.append("--finetune trains a model here: leave out --scorer")
        return problems

    def idle(self) -> list[str]:
        """Problems of options that would do nothing: of searches, a server, or a model here."""
        training = [] if self.finetune else self.training.idle()
        return super().idle() + self.asked.idle() + training


def main(settings: Settings) -> None:
    """Run the study."""
    settings.check()  # before a server is asked
    asked = settings.asked
    model = settings.training.open(asked.run_on) if settings.finetune else asked.model(settings.out)
    models = icm.Scorers(model, asked.chat(settings.out))
    ask(icm.STUDY, models, settings)
    for served in (models.model, models.chat):
        if isinstance(served, ServedModel | ServedChat):
            say(served.sent)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
