"""At which layer is the truth, and who would have chosen that layer?

Every method at every layer, on the truth and on a spurious feature. Paper A reports one layer, the
one with the best CCS AUROC on plain train claims (an oracle); this shows what the choice decides.

    python experiments/layers.py
    python experiments/layers.py --dataset pocket/facts --methods ccs pca supervised
    python experiments/layers.py --model meta-llama/Llama-3.1-8B --dataset gsm8k

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

    from jelicit.studies import layers

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(layers.Settings):
    """Measure every method at every layer.

    Attributes:
        run_on: Which language model, and how it runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/layers")


def main(settings: Settings) -> None:
    """Run the study."""
    ask(layers.STUDY, settings.run_on.open(), settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
