"""Challenge 1 of Canavan et al. 2026: do methods find the truth, or whatever is more salient?

A feature that has nothing to do with the truth is added to the claims (or is there from the start:
who says it, what it is about), and every method is measured on the label that the prompt asks for
AND on the feature. A method that follows the feature scores high on the wrong column.

    python experiments/salience.py
    python experiments/salience.py --dataset pocket/arithmetic --features none sycophancy --layers 3
    python experiments/salience.py --model meta-llama/Llama-3.1-8B --dataset gsm8k --layers 18

Prints a table, writes result rows (Parquet) and figures (PNG, SVG), and ends with their paths. Runs
with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import console, fit_folder, named, refuse, same_names, say, slug, start, unknown
from panels import Measured, Panel, Runs, layers_of, measure_all, measure_with_labels
from run_folder import RunFolder
from stores import Extractor, Stores, easy_set, extract_stores
from study_settings import PromptedStudySettings

from jelicit import figures
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.features import FEATURES, add_feature, plain_id
from jelicit.data.items import digest, labels, load_items, with_target
from jelicit.data.prompts import get_format
from jelicit.data.subsets import balanced_runs
from jelicit.probes.sweep import check_config
from jelicit.results import print_table
from jelicit.studies import evaluation
from jelicit.studies.findings import salience_findings

DEFAULT_SETS = ("pocket/arithmetic", "pocket/larger_than", "pocket/facts", "pocket/comments")
FEATURE_SEED = 0
LEAD = (
    "Do methods find the truth, or whatever is more salient? A feature that has nothing to do with "
    "the truth is in the claims, and every method is measured on the label that the prompt asks "
    "for (truth) and on the feature (spurious). A method that follows the feature is high on the "
    "spurious label and near 0.75 or below on the truth."
)


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method on truth and on a spurious feature.

    Attributes:
        features: Features to add: none, sycophancy, punctuation, tense. Sets with two labels of
            their own (facts and party, comments and topic, LIAR) bring their feature with them:
            there each label is asked for in turn and the other one is spurious.
        train_size: Train rows of a run, a multiple of 4; None = 80 % of the largest balanced
            subset.
        labels: Files of labelled items, as icm.py writes them: the supervised probe learns from
            those labels, too ("Supervised by ICM's labels"), on panels that have these items.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    features: tuple[str, ...] = ("none", *FEATURES)
    seeds: int = 8
    train_size: int | None = None
    labels: tuple[Path, ...] = ()
    out: Path = Path("runs/salience")


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = settings.problems()
    problems += unknown("--features", settings.features, ["none", *FEATURES])
    size = settings.train_size
    if size is not None and (size < 4 or size % 4):
        problems.append(f"--train-size {size}: allowed are multiples of 4, from 4")
    refuse(problems)
    check_config(settings.fit.config(settings.probes))


# --- what is measured ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All panels of one set.

    Attributes:
        dataset: The set.
        plain: Its claims as they are: what layers are chosen on.
        panels: What is measured.
    """

    dataset: Dataset
    plain: Panel
    panels: tuple[Panel, ...]


def plan(name: str, settings: Settings) -> Plan:
    """The panels of one set, with all text loaded and nothing extracted.

    Raises:
        ValueError: No item has a truth value, or no feature fits the set.
    """
    dataset = load_dataset(name, max_train=settings.max_rows, max_test=settings.max_rows)
    other = next((t for t in dataset.targets if t != "label"), None)
    if other is not None and _independent(dataset, other):
        panels = _asked_in_turn(name, other, settings)
        plain = replace(panels[0], feature="none", spurious=None)
    else:
        if other is not None:
            say(f"{name}: {other!r} cannot be told apart from the label; left out")
        plain = _plain(dataset)
        panels = _with_features(plain, settings.features)
    wanted = settings.easy or dataset.easy
    easy = easy_set(wanted, task=dataset.name, max_rows=settings.max_rows)
    return Plan(
        dataset=dataset,
        plain=replace(plain, easy=easy),
        panels=tuple(replace(panel, easy=easy) for panel in panels),
    )


def _independent(dataset: Dataset, other: str) -> bool:
    """Whether all four cells of label and other label are there, in train and in test."""
    cells = [
        {(item.label, item.alt_labels[other]) for item in with_target(items, other)}
        for items in (dataset.train, dataset.test)
    ]
    return all(len({c for c in found if c[0] is not None}) == 4 for found in cells)


def _asked_in_turn(name: str, other: str, settings: Settings) -> tuple[Panel, ...]:
    dataset = load_dataset(
        name, max_train=settings.max_rows, max_test=settings.max_rows, balance=other
    )
    return tuple(
        Panel(
            dataset=dataset.name,
            feature=f"{named(spurious)}, asked for {named(target)}",
            format=dataset.formats[target],
            target=target,
            spurious=spurious,
            train=dataset.train,
            test=dataset.test,
            easy=None,
        )
        for target, spurious in (("label", other), (other, "label"))
    )


def _plain(dataset: Dataset) -> Panel:
    target = dataset.targets[0]
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        raise ValueError(
            f"{dataset.name}: no item of {'train' if not train else 'test'} has a truth value, so "
            "there is no truth to find; use a set with labels"
        )
    return Panel(
        dataset=dataset.name,
        feature="none",
        format=dataset.formats[target],
        target=target,
        spurious=None,
        train=train,
        test=test,
        easy=None,
    )


def _with_features(plain: Panel, features: Sequence[str]) -> tuple[Panel, ...]:
    panels = []
    for feature in features:
        if feature == "none":
            panels.append(plain)
        elif reason := _misfit(plain, feature):
            say(f"{plain.dataset}: {feature} left out, {reason}")
        else:
            train, test = (
                tuple(add_feature(items, feature, seed=FEATURE_SEED))
                for items in (plain.train, plain.test)
            )
            panels.append(replace(plain, feature=feature, spurious=feature, train=train, test=test))
    if not panels:
        raise ValueError(f"{plain.dataset}: no feature of {', '.join(features)} fits; add none")
    return tuple(panels)


def _misfit(plain: Panel, feature: str) -> str:
    """Why a feature cannot be added to these prompts; "" if it can."""
    shown = get_format(plain.format).fields
    if "choice_2" in shown or any("\n" in item.choice for item in plain.train):
        return "its texts are no single claims"
    if feature == "sycophancy" and "question" not in shown:
        return "its prompt shows no question"
    return ""


# --- one panel -----------------------------------------------------------------------------------


def runs_of(panel: Panel, seeds: int, size: int | None = None) -> Runs:
    """The runs of a panel, their train rows balanced over label and feature."""
    label = labels(panel.train, panel.target)
    other = None if panel.spurious is None else labels(panel.train, panel.spurious)
    return Runs(
        about=tuple({"seed": seed} for seed in range(seeds)),
        subsets=balanced_runs(label, other, runs=seeds, size=size),
    )


def measure_panel(
    panel: Panel, stores: Stores, settings: Settings, extractor: Extractor
) -> Measured:
    """All rows of a panel, with the salience of both labels at every layer."""
    found = measure_all(
        panel,
        runs_of(panel, settings.seeds, settings.train_size),
        runs_of(panel, settings.fitting_prompts().runs),
        stores,
        extractor,
        settings,
    )
    given = labels_given(panel, settings.labels)
    if given is not None:
        found += measure_with_labels(
            panel,
            given,
            stores,
            seeds=settings.seeds,
            fit=settings.fit,
            boot=settings.boot,
            keep=fit_folder(settings.out, panel.title),
        )
    rows = []
    for layer in stores.train.spec.layers:
        pairs = stores.train.pairs(layer)
        salience = {t.role: evaluation.salience_of(pairs, t.train) for t in panel.targets()}
        columns = {
            "salience_truth": salience["truth"],
            "salience_feature": salience.get("spurious", float("nan")),
        }
        # What has no layer (prompts, controls) stands beside the probes of each.
        here = [row for row in found.rows if np.isnan(row["layer"]) or row["layer"] == layer]
        rows += [{**row, **columns, "layer": layer} for row in here]
    found.rows = rows
    return found


def labels_given(panel: Panel, paths: Sequence[Path]) -> np.ndarray | None:
    """Labels [N] of the panel's train rows in these files, nan where they have none.

    None without files, where the prompt asks for another label than the files are about, or where
    they do not have both labels among the panel's rows.
    """
    if not paths or panel.target != "label":
        return None
    # A claim keeps its label whatever is said beside it.
    known = {plain_id(item): item.label for path in paths for item in load_items(path)}
    found = [known.get(plain_id(item)) for item in panel.train]
    given = np.array([np.nan if label is None else float(label) for label in found])
    if {0.0, 1.0} <= set(given.tolist()):
        return given
    say(f"{panel.title}: the files of --labels do not have both labels of its train rows; left out")
    return None


# --- the whole -----------------------------------------------------------------------------------


def run_set(plan: Plan, settings: Settings, extractor: Extractor, folder: RunFolder) -> None:
    """Extract, fit and measure all panels of one set."""
    _show(plan)
    layers = chosen_layers(plan, settings, extractor, folder)
    for panel in plan.panels:
        run_panel(panel, layers, settings, extractor, folder)


def _show(plan: Plan) -> None:
    shown = describe(plan.dataset)
    for feature in [str(p.spurious) for p in plan.panels if p.spurious in FEATURES]:
        rows = describe(replace(plan.dataset, train=plan.plain.train), features=[feature])
        shown += [row for row in rows if row["target"] == feature]
    console.print(table(shown))


def run_panel(
    panel: Panel,
    layers: Sequence[int],
    settings: Settings,
    extractor: Extractor,
    folder: RunFolder,
) -> None:
    """Extract, fit and measure one panel unless its rows are there."""
    stores = extract_stores(
        extractor,
        f"{panel.dataset}-{panel.feature}",
        panel.train,
        panel.test,
        panel.easy,
        format=panel.format,
        layers=layers,
    )
    spec = stores.train.spec
    chosen = {
        "dataset": panel.dataset,
        "feature": panel.feature,
        "feature_seed": FEATURE_SEED,
        "asked": named(panel.target),
        "layers": list(spec.layers),
        "extraction": stores.identity(),
        "train_size": settings.train_size,
        "labels": [digest(load_items(path)) for path in settings.labels],
        **settings.identity(),
    }
    folder.run(
        panel,
        chosen,
        panel.about(spec.model),
        lambda: measure_panel(panel, stores, settings, extractor),
        note=f"{spec.texts['byte_share']:.0%} of its letters spelled one by one",
    )


def chosen_layers(
    plan: Plan, settings: Settings, extractor: Extractor, folder: RunFolder
) -> tuple[int, ...]:
    """The layers asked for, or the best one for CCS on a set's plain train rows."""
    runs = runs_of(plan.plain, settings.seeds, settings.train_size)
    return layers_of(plan.plain, runs, extractor, settings, folder.layers)


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Per layer: one figure per set, and one that orders all features by salience."""
    made = []
    per_set = rows.groupby("dataset", sort=False)["layer"].unique()
    for dataset, layers in per_set.items():
        for layer in layers:
            suffix = f"-layer{layer}" if len(layers) > 1 else ""
            panel = rows[(rows["dataset"] == dataset) & (rows["layer"] == layer)]
            figure = figures.salience_figure(panel, str(dataset))
            made += figures.save(figure, folder / f"salience-{slug(str(dataset))}{suffix}")
    if per_set.map(len).max() == 1 and bool(rows["salience_feature"].notna().to_numpy().any()):
        made += figures.save(figures.salience_scatter(rows), folder / "salience-all")
    return made


def main(settings: Settings) -> None:
    check(settings)
    plans = [plan(name, settings) for name in settings.dataset]
    refuse(same_names([p.dataset.name for p in plans]))
    extractor, folder = Extractor(settings.run_on), RunFolder("salience", settings.out)
    for p in plans:
        run_set(p, settings, extractor, folder)
    rows = folder.rows()
    for place, panel in rows.groupby(rows["dataset"] + ", layer " + rows["layer"].astype(str)):
        print_table(panel, title=f"AUROC: {place}", console=console)
    folder.finish(
        title="Salient features that are not the truth",
        lead=LEAD,
        settings=settings,
        figures=draw(rows, settings.out),
        findings=salience_findings(rows),
    )


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
