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

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro
from common import (
    EasySet,
    Extractor,
    FitSettings,
    ModelSettings,
    Stores,
    choose_layer,
    console,
    easy_set,
    extract_stores,
    identity,
    layer_problems,
    refuse,
    same_names,
    say,
    slug,
    start,
    too_small,
    unknown,
)

from jelicit import __version__, evaluation, figures
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.features import FEATURES, add_feature
from jelicit.data.items import Item, digest, labels, with_target
from jelicit.data.prompts import get_format
from jelicit.data.subsets import balanced_runs
from jelicit.metrics import group_bootstrap
from jelicit.probes.methods import ALL_METHODS, METHODS, NEEDS_EASY
from jelicit.probes.sweep import SweepData, check_config, sweep
from jelicit.results import Results, print_table, run_id

DEFAULT_SETS = ("pocket/arithmetic", "pocket/larger_than", "pocket/facts", "pocket/comments")
FEATURE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure every method on truth and on a spurious feature.

    Attributes:
        run_on: Which language model, and how it runs.
        dataset: Sets by name (pocket/arithmetic, gsm8k, liar, ...), or folders with train.jsonl and
            test.jsonl.
        features: Features to add: none, sycophancy, punctuation, tense. Sets with two labels of
            their own (facts and party, comments and topic, LIAR) bring their feature with them:
            there each label is asked for in turn and the other one is spurious.
        layers: Hidden-state indices, or "best": the layer with the best CCS AUROC on the train rows
            without an added feature (an oracle: it looks at train labels).
        methods: Which probes; zero-shot is always there. Beside paper A's ten: mean_difference and
            lda, which learn from the labels as "supervised" does.
        seeds: Number of runs; each draws its own start and its own balanced train rows.
        train_size: Train rows of a run, a multiple of 4; None = 80 % of the largest balanced
            subset.
        max_rows: Most rows per split that are extracted. Sets of one size share compiled code.
        easy: The easy labelled set of easy-to-hard methods; None = the set's own choice, "none" =
            do without.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows and figures.
        fit: How probes are fitted.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    dataset: tuple[str, ...] = DEFAULT_SETS
    features: tuple[str, ...] = ("none", *FEATURES)
    layers: tuple[str, ...] = ("best",)
    methods: tuple[str, ...] = METHODS
    seeds: int = 8
    train_size: int | None = None
    max_rows: int = 800
    easy: str | None = None
    boot: int = 1000
    out: Path = Path("runs/salience")

    @property
    def fixed_layers(self) -> tuple[int, ...] | None:
        """The layers asked for by number; None where the best is to be found."""
        return None if self.layers == ("best",) else tuple(int(layer) for layer in self.layers)


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = unknown("--features", settings.features, ["none", *FEATURES])
    problems += unknown("--methods", settings.methods, ALL_METHODS)
    if len(set(settings.dataset)) < len(settings.dataset) or not settings.dataset:
        problems.append(f"--dataset {' '.join(settings.dataset)}: name at least one, each once")
    problems += layer_problems(settings.layers)
    problems += too_small(
        [
            ("--seeds", settings.seeds, 1),
            ("--boot", settings.boot, 1),
            ("--max-rows", settings.max_rows, 8),
            ("--restarts", settings.fit.restarts, 1),
        ]
    )
    size = settings.train_size
    if size is not None and (size < 4 or size % 4):
        problems.append(f"--train-size {size}: allowed are multiples of 4, from 4")
    if "://" in str(settings.out):
        problems.append(f"--out {settings.out}: figures are written to a local folder only")
    refuse(problems)
    check_config(settings.fit.config(settings.methods))


# --- what is measured ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One panel: a set whose prompt asks for `target` while `spurious` is in the data.

    Labels go by the names of `Item`: "label" is the set's own, called "truth" in rows.
    """

    dataset: str
    feature: str
    format: str
    target: str
    spurious: str | None
    train: tuple[Item, ...]
    test: tuple[Item, ...]

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.dataset}, {self.feature}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All panels of one set.

    Attributes:
        dataset: The set.
        plain: Its claims as they are: what layers are chosen on.
        panels: What is measured.
        easy: The easy set, if any.
    """

    dataset: Dataset
    plain: Condition
    panels: tuple[Condition, ...]
    easy: EasySet | None


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
    return Plan(dataset=dataset, plain=plain, panels=panels, easy=easy)


def _independent(dataset: Dataset, other: str) -> bool:
    """Whether all four cells of label and other label are there, in train and in test."""
    cells = [
        {(item.label, item.alt_labels[other]) for item in with_target(items, other)}
        for items in (dataset.train, dataset.test)
    ]
    return all(len({c for c in found if c[0] is not None}) == 4 for found in cells)


def _asked_in_turn(name: str, other: str, settings: Settings) -> tuple[Condition, ...]:
    dataset = load_dataset(
        name, max_train=settings.max_rows, max_test=settings.max_rows, balance=other
    )
    return tuple(
        Condition(
            dataset=dataset.name,
            feature=f"{_named(spurious)}, asked for {_named(target)}",
            format=dataset.formats[target],
            target=target,
            spurious=spurious,
            train=dataset.train,
            test=dataset.test,
        )
        for target, spurious in (("label", other), (other, "label"))
    )


def _plain(dataset: Dataset) -> Condition:
    target = dataset.targets[0]
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        raise ValueError(
            f"{dataset.name}: no item of {'train' if not train else 'test'} has a truth value, so "
            "there is no truth to find; use a set with labels"
        )
    return Condition(
        dataset=dataset.name,
        feature="none",
        format=dataset.formats[target],
        target=target,
        spurious=None,
        train=train,
        test=test,
    )


def _with_features(plain: Condition, features: Sequence[str]) -> tuple[Condition, ...]:
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


def _misfit(plain: Condition, feature: str) -> str:
    """Why a feature cannot be added to these prompts; "" if it can."""
    shown = get_format(plain.format).fields
    if "choice_2" in shown or any("\n" in item.choice for item in plain.train):
        return "its texts are no single claims"
    if feature == "sycophancy" and "question" not in shown:
        return "its prompt shows no question"
    return ""


def _named(label: str) -> str:
    return "truth" if label == "label" else label


# --- one condition -------------------------------------------------------------------------------


def runs_of(panel: Condition, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The train rows of each run, bool [R, N], balanced over label and feature, and the seeds."""
    label = labels(panel.train, panel.target)
    other = None if panel.spurious is None else labels(panel.train, panel.spurious)
    subsets = balanced_runs(label, other, runs=settings.seeds, size=settings.train_size)
    return subsets, np.arange(settings.seeds)


def targets_of(panel: Condition) -> tuple[evaluation.Target, ...]:
    """The asked-for label and, where there is one, the spurious one."""
    return tuple(
        evaluation.Target(
            name=_named(name),
            role=role,
            train=labels(panel.train, name),
            test=labels(panel.test, name),
        )
        for name, role in ((panel.target, "truth"), (panel.spurious, "spurious"))
        if name is not None
    )


def measure(
    panel: Condition, stores: Stores, layers: Sequence[int], settings: Settings
) -> list[dict[str, Any]]:
    """All rows of a panel."""
    subsets, seeds = runs_of(panel, settings)
    boot = group_bootstrap(jax.random.key(0), [i.group for i in panel.test], settings.boot)
    targets = targets_of(panel)
    easy_labels = None if stores.easy is None else labels(stores.easy.items)
    methods = tuple(m for m in settings.methods if stores.easy or m not in NEEDS_EASY)
    data = SweepData(
        hard=stores.train.pairs,
        layers=tuple(layers),
        subsets=subsets,
        seeds=seeds,
        hard_targets=labels(panel.train, panel.target),
        easy=None if stores.easy is None else stores.easy.pairs,
        easy_labels=easy_labels,
        hard_ids=[item.id for item in panel.train],
        easy_ids=None if stores.easy is None else [item.id for item in stores.easy.items],
        rows_name=f"{panel.dataset} train rows",
    )
    result = sweep(data, settings.fit.config(methods)) if methods else None
    rows = []
    for layer in layers:
        bench = evaluation.Bench(
            hard=stores.train.pairs(layer),
            test=stores.test.pairs(layer),
            easy=None if stores.easy is None else stores.easy.pairs(layer),
            easy_labels=easy_labels,
            targets=targets,
            boot=boot,
        )
        salience = {t.role: evaluation.salience_of(bench.hard, t.train) for t in targets}
        found = evaluation.zero_shot_rows(stores.test.log_probs, targets, boot)
        if result is not None:
            found += evaluation.method_rows(
                result,
                layer,
                bench,
                subsets=subsets,
                runs=[{"seed": seed} for seed in seeds.tolist()],
            )
        rows += [
            {
                "dataset": panel.dataset,
                "feature": panel.feature,
                "asked": _named(panel.target),
                "model": stores.train.spec.model,
                "n_test": len(panel.test),
                "salience_truth": salience["truth"],
                "salience_feature": salience.get("spurious", float("nan")),
                **row,
                "layer": layer,
            }
            for row in found
        ]
    return rows


# --- the whole -----------------------------------------------------------------------------------


def run_panel(
    panel: Condition,
    easy: EasySet | None,
    layers: Sequence[int],
    settings: Settings,
    extractor: Extractor,
    results: Results,
) -> str:
    """Extract, fit and measure one panel unless its rows are there; returns its run id."""
    stores = extract_stores(
        extractor,
        f"{panel.dataset}-{panel.feature}",
        panel.train,
        panel.test,
        easy,
        format=panel.format,
        layers=layers,
    )
    chosen = {
        "experiment": "salience",
        "dataset": panel.dataset,
        "feature": panel.feature,
        "feature_seed": FEATURE_SEED,
        "asked": _named(panel.target),
        "layers": list(stores.train.spec.layers),
        "layer_choice": "given" if settings.fixed_layers else "best CCS on train rows (oracle)",
        "extraction": stores.identity(),
        "seeds": settings.seeds,
        "train_size": settings.train_size,
        "max_rows": settings.max_rows,
        "boot": settings.boot,
        "sweep": identity(settings.fit.config(settings.methods)),
    }
    name = run_id(chosen, digest([*panel.train, *panel.test]), __version__)
    spelled = f"{stores.train.spec.texts['byte_share']:.0%} of its letters spelled one by one"
    if results.has(name):
        say(f"{panel.title}: reused (run {name}, same settings); {spelled}")
        return name
    started = time.perf_counter()
    results.write(name, measure(panel, stores, stores.train.spec.layers, settings), chosen)
    seconds = time.perf_counter() - started
    say(f"{panel.title}: fitted and measured in {seconds:.1f} s (run {name}); {spelled}")
    return name


def run_set(plan: Plan, settings: Settings, extractor: Extractor, results: Results) -> list[str]:
    """All panels of one set; their run ids."""
    features = [p.spurious for p in plan.panels if p.spurious in FEATURES]
    shown = describe(plan.dataset)
    for feature in features:
        rows = describe(replace(plan.dataset, train=plan.plain.train), features=[str(feature)])
        shown += [row for row in rows if row["target"] == feature]
    console.print(table(shown))
    if plan.easy is None:
        say(f"{plan.dataset.name}: no easy set, so no {', '.join(sorted(NEEDS_EASY))}")
    layers = settings.fixed_layers
    if layers is None:
        layers = (best_layer(plan, settings, extractor),)
    return [
        run_panel(panel, plan.easy, layers, settings, extractor, results) for panel in plan.panels
    ]


def best_layer(plan: Plan, settings: Settings, extractor: Extractor) -> int:
    """The layer of the best CCS AUROC on a set's plain train rows."""
    plain = plan.plain
    subsets, seeds = runs_of(plain, settings)
    return choose_layer(
        extractor.store(f"{plain.dataset}-none-train", plain.train, plain.format, None),
        labels(plain.train, plain.target),
        subsets=subsets,
        seeds=seeds,
        fit=settings.fit,
        results=Results(results_folder(settings, "layers")),
        name=plain.dataset,
    )


def results_folder(settings: Settings, name: str) -> Path:
    """Where rows of one sort are kept."""
    return settings.out / name


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
    extractor = Extractor(settings.run_on)
    results = Results(results_folder(settings, "rows"))
    names = [name for p in plans for name in run_set(p, settings, extractor, results)]
    rows = pd.concat([results.read(name) for name in names], ignore_index=True)
    for place, panel in rows.groupby(rows["dataset"] + ", layer " + rows["layer"].astype(str)):
        print_table(panel, title=f"AUROC: {place}")
    made = draw(rows, settings.out)
    say(f"rows: {results_folder(settings, 'rows')} ({len(rows)} of this command)")
    for path in made:
        say(f"figure: {path}")


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
