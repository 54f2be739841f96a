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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro
from common import Extractor, ModelSettings, console, prepare

from jelicit import __version__, evaluation, figures
from jelicit.activations import ActivationStore
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.features import FEATURES, add_feature
from jelicit.data.items import Item, digest, labels, with_target
from jelicit.data.subsets import balanced_rows
from jelicit.metrics import group_bootstrap
from jelicit.probes.methods import METHODS, NEEDS_EASY
from jelicit.probes.sweep import SweepConfig, SweepData, sweep
from jelicit.results import Results, print_table, run_id

DEFAULT_SETS = ("pocket/arithmetic", "pocket/larger_than", "pocket/facts", "pocket/comments")
DEPENDENT = 0.5
"""Two labels whose correlation exceeds this in size cannot be told apart by a probe."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure every method on truth and on a spurious feature.

    Attributes:
        run_on: Which language model, and how it runs.
        dataset: Sets by name (pocket/arithmetic, gsm8k, liar, ...), or folders with train.jsonl and
            test.jsonl.
        features: Features to add to claims: none, sycophancy, punctuation, tense. Sets with two
            labels of their own (facts and party, comments and topic, LIAR) bring their feature with
            them: there each label is asked for in turn and the other one is spurious.
        layers: Hidden-state indices, or "best": the layer with the best CCS AUROC on the train rows
            without an added feature (an oracle: it looks at train labels).
        methods: Which methods; see README.
        seeds: Number of runs; each draws its own start and its own balanced train rows.
        train_size: Train rows of a run; None = 80 % of the largest balanced subset.
        max_rows: Most rows per split that are extracted. Sets of the same size share compiled code.
        easy: The easy labelled set of easy-to-hard methods; None = the set's own choice.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows and figures.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
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


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One panel: a set whose prompt asks for `target` while `spurious` is in the data.

    Labels go by the names of `Item`: "label" is the set's own, called "truth" in rows.
    """

    dataset: Dataset
    feature: str
    format: str
    target: str
    spurious: str | None
    train: tuple[Item, ...]
    test: tuple[Item, ...]


# --- what is measured ----------------------------------------------------------------------------


def conditions(name: str, settings: Settings) -> list[Condition]:
    """The panels of one set."""
    dataset = load_dataset(name, max_train=settings.max_rows, max_test=settings.max_rows)
    others = [target for target in dataset.targets if target != "label"]
    if others and _phi(dataset, others[0]) < DEPENDENT:
        return _asked_in_turn(name, others[0], settings)
    if others and others[0] in dict(dataset.formats) and "claim" not in dataset.formats.values():
        console.print(
            f"[yellow]{name}: {others[0]!r} cannot be told apart from the label "
            f"(correlation {_phi(dataset, others[0]):.2f}); it is measured without it.[/]"
        )
    default = dataset.targets[0]
    plain = {s: tuple(with_target(i, default)) for s, i in dataset.splits.items()}
    made = []
    for feature in settings.features:
        if feature != "none" and dataset.formats[default] != "claim":
            continue
        splits = {
            s: tuple(items if feature == "none" else add_feature(items, feature, seed=0))
            for s, items in plain.items()
        }
        made.append(
            Condition(
                dataset=dataset,
                feature=feature,
                format=dataset.formats[default],
                target=default,
                spurious=None if feature == "none" else feature,
                train=splits["train"],
                test=splits["test"],
            )
        )
    return made


def _phi(dataset: Dataset, other: str) -> float:
    """Size of the correlation between the label and another one, where both can vary."""
    rows = describe(dataset)
    found = [r["phi"] for r in rows if r["target"] == other and r["split"] == "train"]
    return abs(float(np.nan_to_num(found[0], nan=1.0))) if found else 1.0


def _asked_in_turn(name: str, other: str, settings: Settings) -> list[Condition]:
    dataset = load_dataset(
        name, max_train=settings.max_rows, max_test=settings.max_rows, balance=other
    )
    return [
        Condition(
            dataset=dataset,
            feature=f"{_named(spurious)}, asked for {_named(target)}",
            format=dataset.formats[target],
            target=target,
            spurious=spurious,
            train=dataset.train,
            test=dataset.test,
        )
        for target, spurious in (("label", other), (other, "label"))
    ]


def _named(label: str) -> str:
    return "truth" if label == "label" else label


# --- one condition -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stores:
    """The activations of one condition; `easy` is None where the set has no easy set."""

    train: ActivationStore
    test: ActivationStore
    easy: ActivationStore | None


def extract_all(condition: Condition, settings: Settings, extractor: Extractor) -> Stores:
    """Activations of train, test and easy rows, at all layers."""
    layers = "all" if settings.layers == ("best",) else settings.layers
    name = f"{condition.dataset.name}-{condition.feature}"

    def store(split: str, items: Sequence[Item]) -> ActivationStore:
        return extractor.store(f"{name}-{split}", items, condition.format, layers)

    train, test = store("train", condition.train), store("test", condition.test)
    easy_name = settings.easy or condition.dataset.easy
    if easy_name is None:
        return Stores(train, test, None)
    easy = load_dataset(easy_name, max_train=settings.max_rows)
    rows = with_target(easy.train, easy.targets[0])
    default = easy.formats[easy.targets[0]]
    return Stores(train, test, extractor.store(f"easy-{easy.name}", rows, default, layers))


def runs_of(condition: Condition, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The train rows of each run, bool [R, N], balanced over label and feature, and the seeds."""
    label = labels(condition.train, condition.target)
    other = None if condition.spurious is None else labels(condition.train, condition.spurious)
    cells = 2 if other is None else 4
    largest = len(balanced_rows(label, other, seed=0))
    size = settings.train_size or max(cells, int(0.8 * largest) // cells * cells)
    subsets = np.zeros((settings.seeds, len(label)), bool)
    for seed in range(settings.seeds):
        subsets[seed, balanced_rows(label, other, size=size, seed=seed)] = True
    return subsets, np.arange(settings.seeds)


def measure(
    condition: Condition, stores: Stores, layers: Sequence[int], settings: Settings
) -> list[dict[str, Any]]:
    """All rows of a condition."""
    subsets, seeds = runs_of(condition, settings)
    boot = group_bootstrap(jax.random.key(0), [i.group for i in condition.test], settings.boot)
    targets = tuple(
        evaluation.Target(
            name=_named(name),
            role=role,
            train=labels(condition.train, name),
            test=labels(condition.test, name),
        )
        for name, role in ((condition.target, "truth"), (condition.spurious, "spurious"))
        if name is not None
    )
    result = fit(condition, stores, layers, settings, subsets, seeds)
    rows = evaluation.zero_shot_rows(stores.test.log_probs, targets, boot)
    for layer in layers:
        bench = evaluation.Bench(
            hard=stores.train.pairs(layer),
            test=stores.test.pairs(layer),
            easy=None if stores.easy is None else stores.easy.pairs(layer),
            easy_labels=None if stores.easy is None else easy_labels(stores.easy),
            targets=targets,
            boot=boot,
        )
        salience = {t.role: evaluation.salience_of(bench.hard, t.train) for t in targets}
        found = evaluation.method_rows(result, layer, bench, subsets=subsets, seeds=seeds.tolist())
        rows += [_with_salience(row, salience) for row in found]
    first = layers[0]
    rows = [row if row["layer"] >= 0 else _like_layer(row, rows, first) for row in rows]
    return [
        {
            "dataset": condition.dataset.name,
            "feature": condition.feature,
            "asked": _named(condition.target),
            "model": settings.run_on.model,
            "n_test": len(condition.test),
            **row,
        }
        for row in rows
    ]


def _with_salience(row: dict[str, Any], salience: dict[str, float]) -> dict[str, Any]:
    return {
        **row,
        "salience_truth": salience["truth"],
        "salience_feature": salience.get("spurious", float("nan")),
    }


def _like_layer(row: dict[str, Any], rows: list[dict[str, Any]], layer: int) -> dict[str, Any]:
    """A zero-shot row with the salience of the first layer, so that plots can place it."""
    other = next(r for r in rows if r["layer"] == layer)
    return {**row, **{k: other[k] for k in ("salience_truth", "salience_feature")}}


def easy_labels(store: ActivationStore) -> np.ndarray:
    """Labels of an easy store's items."""
    return labels(store.items, "label")


def fit(
    condition: Condition,
    stores: Stores,
    layers: Sequence[int],
    settings: Settings,
    subsets: np.ndarray,
    seeds: np.ndarray,
) -> Any:
    """All probes of a condition in one sweep."""
    methods = settings.methods
    if stores.easy is None:
        methods = tuple(method for method in methods if method not in NEEDS_EASY)
    return sweep(
        SweepData(
            hard=stores.train.pairs,
            layers=tuple(layers),
            subsets=subsets,
            seeds=seeds,
            hard_targets=labels(condition.train, condition.target),
            easy=None if stores.easy is None else stores.easy.pairs,
            easy_labels=None if stores.easy is None else easy_labels(stores.easy),
            hard_ids=[item.id for item in condition.train],
            rows_name=f"{condition.dataset.name} train rows",
        ),
        SweepConfig(methods=methods),
    )


def choose_layers(plain: Condition, stores: Stores, settings: Settings) -> tuple[int, ...]:
    """The layers asked for; "best" is the layer of the best CCS AUROC on plain train rows."""
    if settings.layers != ("best",):
        return stores.train.spec.layers
    subsets, seeds = runs_of(plain, settings)
    hard = {layer: stores.train.pairs(layer) for layer in stores.train.spec.layers if layer > 0}
    label = labels(plain.train, plain.target)
    by_layer = evaluation.ccs_by_layer(hard, label, subsets=subsets, seeds=seeds)
    best = max(by_layer, key=by_layer.__getitem__)
    shown = ", ".join(f"{layer}: {area:.2f}" for layer, area in by_layer.items())
    console.print(f"{plain.dataset.name}: layer {best} (CCS AUROC on train rows by layer: {shown})")
    return (best,)


# --- the whole -----------------------------------------------------------------------------------


def identity(condition: Condition, stores: Stores, layers: Sequence[int], settings: Settings):
    """Every setting behind the rows of a condition, and the digest of its data."""
    digests = [digest(condition.train), digest(condition.test)]
    chosen = {
        "experiment": "salience",
        "condition": [condition.dataset.name, condition.feature, condition.target],
        "format": condition.format,
        "layers": list(layers),
        "model_digest": stores.train.spec.model_digest,
        "extraction": dict(stores.train.spec.settings),
        "dtype": stores.train.spec.dtype,
        "easy": None if stores.easy is None else stores.easy.spec.item_digest,
        "seeds": settings.seeds,
        "train_size": settings.train_size,
        "boot": settings.boot,
        "sweep": asdict(SweepConfig(methods=settings.methods)),
    }
    return chosen, run_id(chosen, "/".join(digests), __version__)


def run_condition(
    condition: Condition,
    layers: Sequence[int] | None,
    settings: Settings,
    extractor: Extractor,
    results: Results,
) -> tuple[str, tuple[int, ...]]:
    """Extract, fit and measure one condition unless its rows are there; its run id and layers."""
    stores = extract_all(condition, settings, extractor)
    if layers is None:
        plain = replace(condition, spurious=None)
        layers = choose_layers(plain, stores, settings)
    chosen, name = identity(condition, stores, layers, settings)
    title = f"{condition.dataset.name}, {condition.feature}"
    if results.has(name):
        console.print(f"{title}: reused (run {name}, same settings)")
        return name, tuple(layers)
    if stores.easy is None:
        console.print(f"{title}: no easy set, so no {', '.join(sorted(NEEDS_EASY))}")
    started = time.perf_counter()
    results.write(name, measure(condition, stores, layers, settings), chosen)
    spelled = stores.train.spec.texts["byte_share"]
    console.print(
        f"{title}: layer {', '.join(map(str, layers))}, {time.perf_counter() - started:.1f} s"
        f" (run {name}); {spelled:.0%} of the text spelled in bytes"
    )
    return name, tuple(layers)


def draw(rows: Any, folder: Path) -> list[Path]:
    """One figure per set, and one that orders all features by salience."""
    made = []
    for name in dict.fromkeys(rows["dataset"]):
        figure = figures.salience_figure(rows, name)
        made += figures.save(figure, folder / f"salience-{name.replace('/', '-')}")
    if rows["salience_feature"].notna().any():
        made += figures.save(figures.salience_scatter(rows), folder / "salience-all")
    return made


def main(settings: Settings) -> None:
    extractor = Extractor(settings.run_on)
    results = Results(settings.out / "rows")
    names = []
    for name in settings.dataset:
        panels = conditions(name, settings)
        console.print(table(describe(panels[0].dataset)))
        layers = None
        for condition in panels:
            run, layers = run_condition(condition, layers, settings, extractor, results)
            names.append(run)
    rows = pd.concat([results.read(name) for name in names], ignore_index=True)
    for dataset in dict.fromkeys(rows["dataset"]):
        print_table(rows[rows["dataset"] == dataset], title=dataset)
    made = draw(rows, settings.out)
    console.print(f"rows: {settings.out / 'rows'} ({len(rows)} of this command)")
    for path in made:
        console.print(f"figure: {path}")


if __name__ == "__main__":
    prepare()
    main(tyro.cli(Settings, description=__doc__))
