"""Challenge 2 of Canavan et al. 2026: what if nearly all, or all, train claims are true or false?

Every method is fitted at several shares of true claims among the train rows; the test rows stay the
same. A method that finds the truth by its contrast loses it where there is no contrast.

    python experiments/imbalance.py
    python experiments/imbalance.py --dataset pocket/arithmetic --prompting none
    python experiments/imbalance.py --model meta-llama/Llama-3.1-8B --dataset gsm8k --layers 18

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

    from jelicit.studies import imbalance

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(imbalance.Settings):
    """Measure every method at several shares of true claims in the train set.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/imbalance")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(imbalance.STUDY, settings.run_on.open(), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
