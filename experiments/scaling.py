"""Does what a method finds grow with the model?

Figure 4 of Wen et al. 2025, and probes beside it. The same claims are asked of several models: the
model's own answer, probes on its hidden states, and prompts with golden, random and turned-round
labels, and with ICM's.

    python experiments/pretrain_pocket.py --sizes small
    python experiments/scaling.py --models runs/pocket/small-seed0/model pocket
    git clone https://github.com/saprmarks/geometry-of-truth
    python experiments/scaling.py --models small.gguf large.gguf --dataset cities \
        --hub-root geometry-of-truth

Models are loaded one after another. Prints tables, writes result rows (Parquet), a figure (PNG,
SVG) and a report, and ends with their paths. What was run before is read back.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start

    from jelicit.studies import scaling
    from jelicit.studies.checks import repeated
    from jelicit.studies.models import Models

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class RunSettings(ModelSettings):
    """How every model runs.

    Attributes:
        model: Not asked here: `Settings.models` are.
    """

    model: tyro.conf.Suppress[str] = "pocket"


@dataclass(frozen=True, kw_only=True)
class Settings(scaling.Settings):
    """Measure methods on models of several sizes.

    Attributes:
        models: Two or more: "pocket", Hugging Face ids, folders, or GGUF files.
        run_on: How every model runs.
    """

    models: tuple[str, ...]
    run_on: tyro.conf.OmitArgPrefixes[RunSettings] = field(default_factory=RunSettings)
    out: Path = Path("runs/scaling")

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + repeated("--models", self.models)
        if len(self.models) < 2:
            problems.append(f"--models {' '.join(self.models)}: give two or more to compare")
        return problems


def main(settings: Settings) -> None:
    """Run the study."""
    models = Models([settings.run_on.open(model=model) for model in settings.models])
    ask(scaling.STUDY, models, settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
