"""Does a probe that was trained on one set find the truth of another?

Every probe is trained on each set and tested on all of them. The hidden states of a set are
normalised by that set's own train rows (no labels needed); signs are picked where the probe was
trained.

    python experiments/transfer.py
    python experiments/transfer.py --dataset pocket/arithmetic pocket/facts --methods ccs supervised
    python experiments/transfer.py --model meta-llama/Llama-3.1-8B --layers 18 \
        --dataset gsm8k larger_than liar truthfulqa

Prints a table, writes result rows (Parquet), a figure (PNG, SVG) and a report, and ends with their
paths. Runs with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from common import console, fit_folder, forget, refuse, same_names, start
from panels import (
    Measured,
    Panel,
    Runs,
    balanced,
    bench_at,
    by_setting,
    fitted,
    layers_of,
    without_training,
)
from run_folder import RunFolder
from stores import Extractor, Stores, easy_set, extract_stores
from study_settings import StudySettings

from jelicit import figures
from jelicit.data.datasets import load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.items import digest, labels, with_target
from jelicit.pairs import Pairs
from jelicit.probes.methods import ALL_METHODS, NEEDS_EASY
from jelicit.probes.normalise import denormalise, fit_normaliser, normalise
from jelicit.probes.sweep import SweepResult, check_config
from jelicit.results import asked_for, print_table
from jelicit.studies import evaluation

METHODS = ("random", "ccs", "pca", "random_ensemble_consensus", "pca_ensemble_consensus")
LABELLED = ("supervised", "mean_difference", "lda")
LEAD = (
    "Does a probe that was trained on one set find the truth of another? Every probe is trained on "
    "each set and tested on all of them. Hidden states are normalised by the statistics of the "
    "tested set's own train rows; the sign of an unlabelled direction is picked on the set where "
    "the probe was trained."
)


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Train on one set, test on every other one.

    Attributes:
        dataset: Sets by name, or folders; each is trained on and tested on.
        layers: Hidden-state indices, or "best": of the set that is trained on.
        methods: Which probes; those that learn from an easy set (e2h and its kin) learn from a
            set of their own already and are left out unless named.
    """

    dataset: tuple[str, ...] = (
        "pocket/arithmetic",
        "pocket/larger_than",
        "pocket/facts",
        "pocket/comments",
        "pocket/commands",
        "pocket/pairs",
    )
    methods: tuple[str, ...] = (*METHODS, *LABELLED)
    out: Path = Path("runs/transfer")


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = settings.problems()
    rebalanced = [name for name in settings.methods if name not in ALL_METHODS]
    if rebalanced and not problems:
        problems.append(f"--methods {' '.join(rebalanced)}: train rows are balanced here already")
    if len(settings.dataset) < 2:
        problems.append("--dataset: name at least two sets")
    if settings.fixed_layers is not None and len(settings.fixed_layers) > 1 and not problems:
        problems.append(f"--layers {' '.join(settings.layers)}: give one, or best")
    refuse(problems)
    check_config(settings.fit.config(settings.probes))


def plan(name: str, settings: Settings) -> Panel:
    """One set, with all text loaded and nothing extracted.

    Raises:
        ValueError: No item has a truth value.
    """
    dataset = load_dataset(name, max_train=settings.max_rows, max_test=settings.max_rows)
    console.print(table(describe(dataset)))
    target = dataset.targets[0]
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        raise ValueError(f"{name}: no item has a truth value; use a set with labels")
    needs_easy = any(name in NEEDS_EASY for name in settings.methods)
    wanted = settings.easy or dataset.easy if needs_easy else None
    return Panel(
        dataset=dataset.name,
        format=dataset.formats[target],
        target=target,
        train=train,
        test=test,
        easy=easy_set(wanted, task=dataset.name, max_rows=settings.max_rows),
    )


@dataclass(frozen=True)
class Trained:
    """The probes of one set."""

    panel: Panel
    stores: Stores
    layer: int
    runs: Runs
    result: SweepResult


def train(
    panel: Panel, stores: Stores, layer: int, settings: Settings, *, keep: Path | None = None
) -> Trained:
    """Fits the probes of one set at one layer; finished fits are kept in `keep`."""
    runs = balanced(panel, settings.seeds)
    usable = tuple(m for m in settings.methods if panel.easy is not None or m not in NEEDS_EASY)
    result = fitted(panel, runs, stores, usable, settings.fit, layers=(layer,), keep=keep)
    return Trained(panel, stores, layer, runs, result)


def measure_on(source: Trained, panel: Panel, stores: Stores, settings: Settings) -> Measured:
    """Rows and scores of one set's test items by the probes of another set, or by its own."""
    layer, weights = source.layer, panel.boot(settings.boot)
    found = Measured()
    if panel.dataset == source.panel.dataset:
        found += without_training(panel, stores, weights)
        found.rows = [{**row, "train": "none"} for row in found.rows]
    home = bench_at(source.panel, source.stores, layer, weights)
    target = replace(home.targets[0], test=labels(panel.test, panel.target))
    there = _at_home(stores, home.hard, layer, settings)
    bench = replace(home, test=there, targets=(target,))
    subsets = source.runs.subsets
    found.rows += evaluation.method_rows(
        source.result, layer, bench, subsets=subsets, runs=source.runs.about
    )
    signed = evaluation.signed_scores(source.result, layer, bench, target, subsets=subsets)
    for (method, orientation), scores in signed.items():
        about = {"method": method, "orientation": orientation, "layer": layer}
        found.scores += by_setting(about, source.runs, np.asarray(scores))
    return found


def _at_home(stores: Stores, home: Pairs, layer: int, settings: Settings) -> Pairs:
    """A set's test pairs with their own mean and scale exchanged for those of the home set."""
    divisor = settings.fit.divisor
    own = fit_normaliser(stores.train.pairs(layer), fitted_on="tested set", divisor=divisor)
    theirs = fit_normaliser(home, fitted_on="home set", divisor=divisor)
    return denormalise(theirs, normalise(own, stores.test.pairs(layer)))


# --- the whole -----------------------------------------------------------------------------------


def run_source(
    source: Panel,
    layer: int,
    panels: Sequence[tuple[Panel, Stores]],
    settings: Settings,
    folder: RunFolder,
) -> None:
    """Probes of one set on every set, unless their rows are there; fitted once, when needed."""
    own = next(stores for panel, stores in panels if panel.dataset == source.dataset)
    keep = fit_folder(settings.out, f"from-{source.dataset}")
    trained = cache(lambda: train(source, own, layer, settings, keep=keep))
    for panel, stores in panels:
        chosen = {
            "train": source.dataset,
            "train_items": digest(source.train),
            "dataset": panel.dataset,
            "layer": layer,
            "extraction": {"home": own.identity(), "there": stores.identity()},
            **settings.identity(),
        }
        about = {**panel.about(stores.train.spec.model), "train": source.dataset}
        measure = partial(_measured, trained, panel, stores, settings)
        folder.run(panel, chosen, about, measure, note=f"probes of {source.dataset}")
    forget(keep)


def _measured(
    trained: Callable[[], Trained], panel: Panel, stores: Stores, settings: Settings
) -> Measured:
    return measure_on(trained(), panel, stores, settings)


def main(settings: Settings) -> None:
    check(settings)
    panels = [plan(name, settings) for name in settings.dataset]
    refuse(same_names([panel.dataset for panel in panels]))
    extractor, folder = Extractor(settings.run_on), RunFolder("transfer", settings.out)
    layers = [
        layers_of(p, balanced(p, settings.seeds), extractor, settings, folder.layers)[0]
        for p in panels
    ]
    found = []
    for panel in panels:
        stores = extract_stores(
            extractor,
            f"{panel.dataset}-none",
            panel.train,
            panel.test,
            panel.easy,
            format=panel.format,
            layers=sorted(set(layers)),
        )
        found.append((panel, stores))
    for panel, layer in zip(panels, layers, strict=True):
        run_source(panel, layer, found, settings, folder)
    rows = folder.rows()
    show(rows)
    made = figures.save(figures.transfer_figure(rows), settings.out / "transfer")
    folder.finish(
        title="Probes on sets that they were not trained on",
        lead=LEAD,
        settings=settings,
        figures=made,
        findings=(),
    )


def show(rows: pd.DataFrame) -> None:
    """Mean AUROC at home and away, per method; the matrices are in the figure."""
    home = rows["train"] == rows["dataset"]
    where = np.where(home, "home", np.where(rows["train"] == "none", "", "away"))
    probes = rows.assign(where=where).loc[lambda found: found["where"] != ""]
    point = ["method", "orientation", "seed", "where"]
    means = probes.groupby(point, sort=False)["auroc"].mean().reset_index()
    shown = means.assign(
        dataset="Mean over sets", feature=means["where"], role="truth", target=asked_for(probes)
    )
    print_table(shown, title="AUROC of probes on their own set and on others", console=console)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
