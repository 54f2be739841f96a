"""Challenge 2 of Canavan et al. 2026: what if nearly all, or all, train claims are true or false?

Every method is fitted at several shares of true claims among the train rows; the test rows stay the
same. A method that finds the truth by its contrast loses it where there is no contrast.

    python experiments/imbalance.py
    python experiments/imbalance.py --dataset pocket/arithmetic --prompting none
    python experiments/imbalance.py --model meta-llama/Llama-3.1-8B --dataset gsm8k --layers 18

Prints a table, writes result rows (Parquet) and figures (PNG, SVG), and ends with their paths. Runs
with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import console, named, refuse, same_names, slug, start
from panels import Measured, Panel, Runs, balanced, layers_of, measure_all
from run_folder import RunFolder
from stores import Extractor, Stores, easy_set, extract_stores
from study_settings import REBALANCED, PromptedStudySettings

from jelicit import figures
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.items import labels, with_target
from jelicit.probes.methods import METHODS
from jelicit.probes.sweep import check_config
from jelicit.results import print_sweep
from jelicit.studies.findings import imbalance_findings
from jelicit.studies.grid import Grid

DEFAULT_SETS = ("pocket/arithmetic", "pocket/commands")
SHARES = (0.0, 0.01, *(round(0.1 * k, 1) for k in range(1, 10)), 0.99, 1.0)
"""Paper A's, for claims."""

SAFE_SHARES = (0.5, 0.99, 1.0)
"""Paper A's, for sequences of commands: suspicious ones are rare in the field."""

COMMANDS = ("pocket/commands", "ctrl_z")
LAYER_RUNS = 3
LEAD = (
    "What if nearly all, or all, train claims are true or false? Every method is fitted at several "
    "shares of true claims among the train rows (of command sequences: of safe ones); the test "
    "rows stay the same. A method that finds the truth by its contrast loses it where there is "
    "none."
)


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method at several shares of true claims in the train set.

    Attributes:
        shares: Shares of true claims; default: paper A's 13, of command sequences 0.5, 0.99 and 1
            safe.
        prompt_shares: Shares at which prompting methods are measured; default: all. Every one of
            their prompts is a pass through the model, so they cost more than all probes.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    methods: tuple[str, ...] = (*METHODS, *REBALANCED)
    shares: tuple[float, ...] | None = None
    prompt_shares: tuple[float, ...] | None = None
    out: Path = Path("runs/imbalance")


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = settings.problems()
    for option, shares in (
        ("--shares", settings.shares),
        ("--prompt-shares", settings.prompt_shares),
    ):
        wrong = [share for share in shares or () if not 0 <= share <= 1]
        if wrong or len(set(shares or ())) < len(shares or ()):
            problems.append(f"{option} {shares}: allowed are numbers from 0 to 1, each once")
    refuse(problems)
    check_config(settings.fit.config(settings.probes))


# --- one set -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One set: what is measured on it, and at which shares of the asked-for label.

    Attributes:
        dataset: The set.
        panel: Its labelled items.
        shares: Shares of the asked-for label among the train rows.
    """

    dataset: Dataset
    panel: Panel
    shares: tuple[float, ...]


def plan(name: str, settings: Settings) -> Plan:
    """What is measured on one set, with all text loaded and nothing extracted.

    Raises:
        ValueError: A class is empty in train or test.
    """
    dataset = load_dataset(name, max_train=settings.max_rows, max_test=settings.max_rows)
    # Of command sequences the share is that of safe ones, so that is what is asked for.
    target = "safe" if "safe" in dataset.targets else dataset.targets[0]
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    for split, items in (("train", train), ("test", test)):
        if len(set(labels(items, target).tolist())) < 2:
            raise ValueError(
                f"{dataset.name}: its {split} items do not have both values of {target!r}, so "
                "there are no shares to draw; use a set with both"
            )
    panel = Panel(
        dataset=dataset.name,
        format=dataset.formats[target],
        target=target,
        train=train,
        test=test,
        easy=easy_set(settings.easy or dataset.easy, task=dataset.name, max_rows=settings.max_rows),
    )
    shares = settings.shares or (SAFE_SHARES if dataset.name in COMMANDS else SHARES)
    return Plan(dataset=dataset, panel=panel, shares=shares)


def runs_of(panel: Panel, shares: tuple[float, ...], seeds: int) -> Runs:
    """A run for every share and seed."""
    grid = Grid(seeds=range(seeds), class_shares=shares)
    return Runs(about=tuple(grid.runs()), subsets=grid.subsets(labels(panel.train, panel.target)))


def prompted_shares(plan: Plan, settings: Settings) -> tuple[float, ...]:
    """The shares of a set at which prompting methods are measured."""
    asked = plan.shares if settings.prompt_shares is None else settings.prompt_shares
    return tuple(share for share in asked if share in plan.shares)


def measure_set(plan: Plan, stores: Stores, settings: Settings, extractor: Extractor) -> Measured:
    """All rows of a set."""
    panel = plan.panel
    shares = prompted_shares(plan, settings)
    none = Runs(about=(), subsets=np.zeros((0, len(panel.train)), bool))
    return measure_all(
        panel,
        runs_of(panel, plan.shares, settings.seeds),
        runs_of(panel, shares, settings.fitting_prompts().runs) if shares else none,
        stores,
        extractor,
        settings,
    )


def run_set(plan: Plan, settings: Settings, extractor: Extractor, folder: RunFolder) -> None:
    """Extract, fit and measure one set unless its rows are there."""
    console.print(table(describe(plan.dataset)))
    panel = plan.panel
    stores = extract_stores(
        extractor,
        f"{panel.dataset}-none",
        panel.train,
        panel.test,
        panel.easy,
        format=panel.format,
        layers=layers_of(panel, balanced(panel, LAYER_RUNS), extractor, settings, folder.layers),
    )
    spec = stores.train.spec
    chosen = {
        "dataset": panel.dataset,
        "asked": named(panel.target),
        "shares": list(plan.shares),
        "layers": list(spec.layers),
        "extraction": stores.identity(),
        **settings.identity(),
        "prompt_shares": list(prompted_shares(plan, settings)),
    }
    folder.run(
        panel,
        chosen,
        panel.about(spec.model),
        lambda: measure_set(plan, stores, settings, extractor),
    )


# --- the whole -----------------------------------------------------------------------------------


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """One figure per set and layer."""
    made = []
    for dataset, panel in rows.groupby("dataset", sort=False):
        layers = panel["layer"].dropna().unique()
        for layer in layers:
            suffix = f"-layer{int(layer)}" if len(layers) > 1 else ""
            here = panel[(panel["layer"] == layer) | panel["layer"].isna()]
            figure = figures.shares_figure(here, str(dataset))
            made += figures.save(figure, folder / f"imbalance-{slug(str(dataset))}{suffix}")
    return made


def main(settings: Settings) -> None:
    check(settings)
    plans = [plan(name, settings) for name in settings.dataset]
    refuse(same_names([p.dataset.name for p in plans]))
    extractor, folder = Extractor(settings.run_on), RunFolder("imbalance", settings.out)
    for p in plans:
        run_set(p, settings, extractor, folder)
    rows = folder.rows()
    for dataset, of_set in rows.groupby("dataset", sort=False):
        for layer in of_set["layer"].dropna().unique():
            here = of_set[(of_set["layer"] == layer) | of_set["layer"].isna()]
            (asked,) = set(here["asked"])
            asked = "true claims" if asked == "truth" else asked
            title = f"AUROC of {dataset}, layer {layer:g}, by share of {asked} in train"
            print_sweep(here, across="class_share", title=title, console=console)
    folder.finish(
        title="Imbalanced train sets",
        lead=LEAD,
        settings=settings,
        figures=draw(rows, settings.out),
        findings=imbalance_findings(rows),
    )


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
