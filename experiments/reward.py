"""Reward models without labels (Wen et al. 2025, section 4.4).

ICM labels a few pairs, a reward model trained on them labels the rest, a second one learns from
all. Beside it: golden labels, one annotator's, golden ones with as many errors as ICM's.

    python experiments/reward.py
    python experiments/reward.py --dataset alpaca --model HuggingFaceTB/SmolLM2-135M-Instruct
    python experiments/reward.py --bench allenai/reward-bench

Prints tables, writes result rows (Parquet), labels, the reward models (folders that transformers
loads), a figure and a report. The same command after a crash goes on.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start
    from training import OPENER

    from jelicit.studies import reward

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(reward.Settings):
    """Train reward models on labels of several sources, and test them on held-out pairs.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/reward")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(reward.STUDY, settings.run_on.open(opener=OPENER), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
