"""Challenge 3 of Canavan et al. 2026: what is said of claims that are neither true nor false?

The train set mixes claims that have a truth value with claims that have none (opinions). Measured
are AUROC on the claims that have one, and how much of the scores' variance comes from those: a
method that knew what it cannot know would score all others alike.

    python experiments/impossible.py
    python experiments/impossible.py --dataset pocket/larger_than --prompting none
    python experiments/impossible.py --model meta-llama/Llama-3.1-8B --dataset gsm8k \
        --impossible political_normative --layers 18 --max-rows 2000

Prints a table, writes result rows (Parquet), figures (PNG, SVG) and a report, and ends with their
paths. Runs with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import console, refuse, same_names, slug, start
from panels import Measured, Panel, Runs, balanced, layers_of, measure_all
from run_folder import RunFolder
from stores import Extractor, Stores, easy_set, extract_stores
from study_settings import PromptedStudySettings

from jelicit import figures
from jelicit.data.datasets import load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.items import Item, with_target
from jelicit.probes.sweep import check_config
from jelicit.results import print_table
from jelicit.studies.findings import impossible_findings

LAYER_RUNS = 3
LEAD = (
    "What do methods say of claims that are neither true nor false? The train rows mix claims that "
    "have a truth value with opinions, which have none. AUROC is measured on the first; the share "
    "of variance says how much of what sets scores apart comes from them. At the share of those "
    "claims among all (one half), a method is as sure of opinions as of facts; at 1 it knows what "
    "it cannot know."
)


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method on a mixture of claims with and without a truth value.

    Golden examples of claims without a truth value are shown as Indeterminate.

    Attributes:
        dataset: Sets with a truth value, each mixed with the other one in turn.
        impossible: The set without: pocket/opinions, political_normative, or a folder.
        max_rows: Most rows of either set per split.
    """

    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/larger_than")
    impossible: str = "pocket/opinions"
    max_rows: int = 400
    out: Path = Path("runs/impossible")


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = settings.problems()
    if settings.impossible in settings.dataset:
        problems.append(f"--impossible {settings.impossible} is among --dataset, too")
    refuse(problems)
    check_config(settings.fit.config(settings.probes))


def plan(name: str, settings: Settings) -> Panel:
    """Both sets mixed, as many rows of each, with all text loaded and nothing extracted.

    Raises:
        ValueError: One set has no claim with a truth value, the other has one, or their prompts
            are not alike.
    """
    rows = settings.max_rows
    possible = load_dataset(name, max_train=rows, max_test=rows)
    other = load_dataset(settings.impossible, max_train=rows, max_test=rows)
    target = possible.targets[0]
    if target != "label":
        raise ValueError(f"{name}: its first target is {target!r}; use a set with a truth value")
    console.print(table([*describe(possible), *describe(other)]))
    mixed = []
    for split in ("train", "test"):
        known = with_target(getattr(possible, split), target)
        unknown = [replace(item, label=None) for item in getattr(other, split)]
        if not known or any(item.label is not None for item in getattr(other, split)):
            wrong = name if not known else settings.impossible
            has = "no item with" if not known else "items with"
            raise ValueError(f"{wrong}: {split} has {has} a truth value; exchange the sets")
        mixed.append(_mixed(known, unknown))
    format = possible.formats[target]
    if format not in other.formats.values():
        # One prompt for both, or the prompt would tell them apart.
        format = _shared_format([*mixed[0], *mixed[1]])
    return Panel(
        dataset=f"{possible.name} + {other.name}",
        format=format,
        train=mixed[0],
        test=mixed[1],
        easy=easy_set(settings.easy or possible.easy, task=possible.name, max_rows=rows),
    )


def _mixed(known: list[Item], unknown: list[Item]) -> tuple[Item, ...]:
    """As many of each, since the share of variance depends on how many there are."""
    each = min(len(known), len(unknown))
    return (*known[:each], *unknown[:each])


def _shared_format(items: list[Item]) -> str:
    return "claim" if all(item.question for item in items) else "statement"


def runs_of(panel: Panel, seeds: int) -> Runs:
    """All train rows in every run, as in paper A; seeds differ in where the fits start."""
    return Runs(
        about=tuple({"seed": seed} for seed in range(seeds)),
        subsets=np.ones((seeds, len(panel.train)), bool),
    )


def measure_panel(
    panel: Panel, stores: Stores, settings: Settings, extractor: Extractor
) -> Measured:
    """All rows of a mixture."""
    return measure_all(
        panel,
        runs_of(panel, settings.seeds),
        runs_of(panel, settings.fitting_prompts().runs),
        stores,
        extractor,
        settings,
    )


def run_set(panel: Panel, settings: Settings, extractor: Extractor, folder: RunFolder) -> None:
    """Extract, fit and measure one mixture unless its rows are there."""
    known = replace(panel, train=tuple(with_target(panel.train, panel.target)))
    stores = extract_stores(
        extractor,
        f"{panel.dataset}-mixed",
        panel.train,
        panel.test,
        panel.easy,
        format=panel.format,
        layers=layers_of(
            *(known, balanced(known, LAYER_RUNS), extractor, settings, folder.layers), name="known"
        ),
    )
    spec = stores.train.spec
    chosen = {
        "dataset": panel.dataset,
        "layers": list(spec.layers),
        "extraction": stores.identity(),
        **settings.identity(),
    }
    folder.run(
        panel,
        chosen,
        panel.about(spec.model),
        lambda: measure_panel(panel, stores, settings, extractor),
    )


def draw(rows: pd.DataFrame, folder: RunFolder) -> list[Path]:
    """Per mixture and layer: truth against share of variance, and the scores by source."""
    made = []
    for run in folder.runs:
        found = folder.items.read(run)
        of_set = rows.loc[rows["run_id"] == run]
        dataset = str(of_set["dataset"].iloc[0])
        layers = of_set["layer"].dropna().unique()
        for layer in layers:
            here = of_set.loc[(of_set["layer"] == layer) | of_set["layer"].isna()]
            stem = f"{slug(dataset)}-layer{int(layer)}" if len(layers) > 1 else slug(dataset)
            figure = figures.variance_figure(here, dataset)
            made += figures.save(figure, folder.folder / f"impossible-{stem}")
            figure = figures.histograms_figure(found, layer=int(layer))
            made += figures.save(figure, folder.folder / f"scores-{stem}")
    return made


def main(settings: Settings) -> None:
    check(settings)
    panels = [plan(name, settings) for name in settings.dataset]
    refuse(same_names([panel.dataset for panel in panels]))
    extractor, folder = Extractor(settings.run_on), RunFolder("impossible", settings.out)
    for panel in panels:
        run_set(panel, settings, extractor, folder)
    rows = folder.rows()
    for (dataset, layer), of_set in rows.dropna(subset="layer").groupby(["dataset", "layer"]):  # type: ignore[misc]
        here = pd.concat([of_set, rows[(rows["dataset"] == dataset) & rows["layer"].isna()]])
        for value, said in (("auroc", "AUROC"), ("variance_share", "share of variance")):
            title = f"{said} of claims with a truth value: {dataset}, layer {layer:g}"
            print_table(here, value=value, title=title, console=console)
    folder.finish(
        title="Claims that are neither true nor false",
        lead=LEAD,
        settings=settings,
        figures=draw(rows, folder),
        findings=impossible_findings(rows),
    )


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
