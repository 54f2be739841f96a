"""Challenge 1 of Canavan et al. 2026: do methods find the truth, or whatever is more salient?

A feature that has nothing to do with the truth is added to the claims (or is there from the start:
who says it, what it is about), and every method is measured on the label that the prompt asks for
AND on the feature. A method that follows the feature scores high on the wrong column.

    python experiments/salience.py
    python experiments/salience.py --dataset pocket/arithmetic --features none sycophancy --layers 3
    python experiments/salience.py --model meta-llama/Llama-3.1-8B --dataset gsm8k --layers 18

Prints tables, writes result rows (Parquet), figures (PNG, SVG) and a report, and ends with their
paths. Runs with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start

    from jelicit.studies import salience

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(salience.Settings):
    """Measure every method on truth and on a spurious feature.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/salience")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(salience.STUDY, settings.run_on.open(), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
