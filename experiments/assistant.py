"""Assistants without labels (Wen et al. 2025, section 4.4, Figure 7).

A policy is optimised against the reward model of ICM's labels, others against those of golden
labels or of one annotator's; a third reward model judges their answers to held-out questions.
Beside win rates: true answers, the reward itself, the divergence from the start, and length.

    python experiments/assistant.py
    python experiments/assistant.py --beta 0.5
    python experiments/assistant.py --dataset alpaca --model HuggingFaceTB/SmolLM2-135M-Instruct

Prints tables, writes result rows (Parquet), labels, reward models and policies (folders that
transformers and the other commands load), figures and a report. The same command after a crash goes
on.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start
    from training import OPENER

    from jelicit.studies import assistant

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(assistant.Settings):
    """Optimise policies against reward models of several labels, and have a third one judge.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/assistant")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(assistant.STUDY, settings.run_on.open(opener=OPENER), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
