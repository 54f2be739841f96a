"""How facts came to be judged while the first part of the pocket model was trained, by recipe.

    python docs/pocket_curves.py                                # draws the figure from its rows
    python docs/pocket_curves.py --take runs/pocket --recipe "after sums, and seldom"

The second takes the histories that `experiments/pretrain_pocket.py` left in a run folder (one
`training.json` per seed) into docs/results/rows/pocket-facts.parquet first, in place of what is
there of that recipe.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from jelicit.figures.parts import LINES, MARKERS, new_figure, save, style
from jelicit.studies.checks import refuse

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs/results/rows/pocket-facts.parquet"
FIGURE = ROOT / "docs/figures/pocket-facts.svg"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Draw how facts came to be judged.

    Attributes:
        take: Run folder whose histories are taken first.
        recipe: What its recipe is called in the figure: when facts are judged.
    """

    take: Path | None = None
    recipe: str = ""


def histories(folder: Path, recipe: str) -> pd.DataFrame:
    """One row per measurement of every first part in a run folder.

    Args:
        folder: As `experiments/pretrain_pocket.py --out` wrote it.
        recipe: What the rows call its recipe.

    Returns:
        recipe, seed, phase, tokens (millions) and the accuracies of lines about held-out sums and
        facts ("right?"), arithmetic and facts.

    Raises:
        ValueError: The folder has no such history, or the recipe no name.
    """
    found = sorted(folder.glob("*/training.json"))
    problems = [] if recipe else ["--recipe is empty; name what the figure shall call it"]
    if not found:
        problems.append(f"{folder} has no */training.json; name the --out of a pretraining run")
    refuse(problems)
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    rows = [
        {
            "recipe": recipe,
            "seed": run["settings"]["seed"],
            "phase": at["phase"],
            "tokens": at["tokens"] / 1e6,
            "arithmetic": at["checked/arithmetic"],
            "facts": at["checked/facts"],
        }
        for run in runs
        for at in run["progress"]["measures"]
    ]
    return pd.DataFrame(rows)


def facts_figure(rows: pd.DataFrame) -> Figure:
    """Accuracy on held-out facts over tokens: a panel for each recipe, a line for each seed.

    Args:
        rows: As of `histories`, of any number of recipes.
    """
    with style():
        figure = new_figure(height=2.6)
        recipes = list(rows["recipe"].unique())
        panels = np.asarray(figure.subplots(1, len(recipes), sharex=True, sharey=True)).reshape(-1)
        for axes, recipe in zip(panels, recipes, strict=True):
            for number, (seed, run) in enumerate(rows[rows["recipe"] == recipe].groupby("seed")):
                axes.plot(
                    run["tokens"],
                    run["facts"],
                    marker=MARKERS[number],
                    ms=3,
                    lw=0.9,
                    color=LINES[number % len(LINES)],
                    label=f"seed {seed}",
                )
            axes.set(title=f"Facts judged {recipe}", xlabel="million tokens", ylim=(0.4, 1.02))
            axes.legend(loc="lower right")
        panels[0].set_ylabel("accuracy on held-out facts")
    return figure


def main(settings: Settings) -> None:
    """Takes histories if asked to, then draws."""
    rows: Any = pd.read_parquet(ROWS) if ROWS.is_file() else pd.DataFrame()
    if settings.take is not None:
        taken = histories(settings.take, settings.recipe)
        kept = rows[rows["recipe"] != settings.recipe] if len(rows) else rows
        rows = pd.concat([kept, taken], ignore_index=True)
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        _, svg = save(facts_figure(rows), Path(folder) / FIGURE.stem)
        shutil.copyfile(svg, FIGURE)


if __name__ == "__main__":
    main(tyro.cli(Settings))
