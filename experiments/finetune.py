"""Are labels that a model found itself as good to train on as golden ones?

Wen et al. 2025, Figures 1 and 3. A model is fine-tuned on labels that ICM found, on golden labels,
on its own answers, and on golden labels with as many errors as ICM's, at random; then it is asked
about items that it never saw. Beside it: the model as it is, and the same labels in a prompt.

    python experiments/finetune.py
    python experiments/finetune.py --dataset pocket/arithmetic pocket/pairs --seeds 1
    git clone https://github.com/saprmarks/geometry-of-truth
    python experiments/finetune.py --model Qwen/Qwen2.5-Coder-0.5B --dataset cities \
        --hub-root geometry-of-truth --n 256

Prints tables, writes result rows (Parquet), the labels (JSONL), the trained models, a figure (PNG,
SVG) and a report, and ends with their paths. The same command after a crash goes on.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start
    from training import Training

    from jelicit.studies import finetune, icm

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(finetune.Settings):
    """Fine-tune a model on labels of several sources, and test it on items it never saw.

    Attributes:
        run_on: Which language model, and how it runs.
        training: How models are trained.
        chat_model: Another model for zero_shot_chat: an id or folder. It is asked in its own chat
            template where it has one.
        finetune: Not asked here: of icm.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    training: tyro.conf.OmitArgPrefixes[Training] = field(default_factory=Training)
    chat_model: str | None = None
    finetune: tyro.conf.Suppress[bool] = False
    out: Path = Path("runs/finetune")

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if (self.chat_model is not None) != (icm.CHAT in self.methods):
            problems.append(
                f"--methods {icm.CHAT} goes together with --chat-model: give both, or none"
            )
        return problems


def main(settings: Settings) -> None:
    """Run the study."""
    settings.check()  # before libraries are loaded
    run_on, chat = settings.run_on, settings.chat_model
    model = settings.training.open(run_on)
    other = None if chat is None else run_on.open(model=chat, chat=None)
    ask(finetune.STUDY, icm.Scorers(model, other), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
