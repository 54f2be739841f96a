"""Does a probe that was trained on one set find the truth of another?

Every probe is trained on each set and tested on all of them. The hidden states of a set are
normalised by that set's own train rows (no labels needed); signs are picked where the probe was
trained.

    python experiments/transfer.py
    python experiments/transfer.py --dataset pocket/arithmetic pocket/facts --methods ccs supervised
    python experiments/transfer.py --model meta-llama/Llama-3.1-8B --layers 18 \
        --dataset gsm8k larger_than liar truthfulqa

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

    from jelicit.studies import transfer

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(transfer.Settings):
    """Train on one set, test on every other one.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/transfer")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(transfer.STUDY, settings.run_on.open(), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
