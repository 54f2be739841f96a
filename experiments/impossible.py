"""Challenge 3 of Canavan et al. 2026: what is said of claims that are neither true nor false?

The train set mixes claims that have a truth value with claims that have none (opinions). Measured
are AUROC on the claims that have one, and how much of the scores' variance comes from those: a
method that knew what it cannot know would score all others alike.

    python experiments/impossible.py
    python experiments/impossible.py --dataset pocket/larger_than --prompting none
    python experiments/impossible.py --model meta-llama/Llama-3.1-8B --dataset gsm8k \
        --impossible political_normative --layers 18 --max-rows 2000

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

    from jelicit.studies import impossible

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(impossible.Settings):
    """Measure every method on a mixture of claims with and without a truth value.

    Golden examples of claims without a truth value are shown as Indeterminate.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/impossible")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(impossible.STUDY, settings.run_on.open(), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
