"""Panels: one situation each, in which every probe, prompting method and control is measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import fit_folder, named, say, slug
from stores import EasySet, Extractor, Stores, choose_layer
from study_settings import (
    REBALANCED,
    FitSettings,
    PromptedStudySettings,
    PromptSettings,
    StudySettings,
)

from jelicit.commands.progress import progress
from jelicit.data.items import Item, labels
from jelicit.data.subsets import balanced_runs, rebalanced
from jelicit.disk import write_text
from jelicit.metrics import group_bootstrap
from jelicit.probes.methods import NEEDS_EASY
from jelicit.probes.sweep import SweepData, SweepResult, sweep
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.prompting import Bootstrapped, Scorer, prompted
from jelicit.results import ItemScores, Results
from jelicit.studies import evaluation


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One situation: a set whose prompt asks for `target` while `spurious` is in the data.

    Labels go by the names of `Item`: "label" is the set's own, called "truth" in rows.
    """

    dataset: str
    feature: str = "none"
    format: str
    target: str = "label"
    spurious: str | None = None
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    easy: EasySet | None

    @property
    def title(self) -> str:
        """For messages."""
        return self.dataset if self.feature == "none" else f"{self.dataset}, {self.feature}"

    def targets(self) -> tuple[evaluation.Target, ...]:
        """The asked-for label and, where there is one, the spurious one."""
        return tuple(
            evaluation.Target(
                name=named(name),
                role=role,
                train=labels(self.train, name),
                test=labels(self.test, name),
            )
            for name, role in ((self.target, "truth"), (self.spurious, "spurious"))
            if name is not None
        )

    def boot(self, samples: int) -> jax.Array:
        """Bootstrap weights over the groups of the test items."""
        return group_bootstrap(jax.random.key(0), [item.group for item in self.test], samples)

    def about(self, model: str) -> dict[str, Any]:
        """What every row says of the panel."""
        return {
            "dataset": self.dataset,
            "feature": self.feature,
            "asked": named(self.target),
            "model": model,
            "n_test": len(self.test),
        }


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The fits of a panel: what sets them apart, and the train rows of each.

    Attributes:
        about: What the rows of each run say of it: its seed, and whatever else was set.
        subsets: Its train rows, bool [R, N].
    """

    about: tuple[Mapping[str, Any], ...]
    subsets: np.ndarray

    @property
    def seeds(self) -> np.ndarray:
        """The seed of each run [R]."""
        return np.array([run["seed"] for run in self.about])


Score = tuple[dict[str, Any], np.ndarray]


@dataclass
class Measured:
    """Rows of a panel, and each method's signed truth scores of its test items."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    def __iadd__(self, other: Measured) -> Measured:
        self.rows += other.rows
        self.scores += other.scores
        return self

    def items(self, panel: Panel) -> ItemScores:
        """The scores as the report reads them."""
        return ItemScores.of(panel.test, self.scores, target=panel.target)


def layers_of(
    panel: Panel,
    runs: Runs,
    extractor: Extractor,
    settings: StudySettings,
    results: Results,
    *,
    name: str = "none",
) -> tuple[int, ...]:
    """The layers that were asked for, or the best one for CCS on a panel's train rows.

    Args:
        panel: Plain claims that have a truth value.
        runs: Their balanced runs.
        extractor: The model.
        settings: Of the study.
        results: Where choices are kept.
        name: What the store of all layers is called, after the set.
    """
    if panel.easy is None:
        say(f"{panel.dataset}: no easy set, so no {', '.join(sorted(NEEDS_EASY))}")
    if settings.fixed_layers is not None:
        return settings.fixed_layers
    best = choose_layer(
        extractor.store(f"{panel.dataset}-{name}-train", panel.train, panel.format, None),
        labels(panel.train, panel.target),
        subsets=runs.subsets,
        seeds=runs.seeds,
        fit=settings.fit,
        results=results,
        fits=fit_folder(settings.out, f"{panel.dataset}-{name}-layers"),
        name=panel.dataset,
    )
    return (best,)


def balanced(panel: Panel, seeds: int) -> Runs:
    """Runs whose train rows are balanced over the label."""
    return Runs(
        about=tuple({"seed": seed} for seed in range(seeds)),
        subsets=balanced_runs(labels(panel.train, panel.target), runs=seeds),
    )


def measure(
    panel: Panel,
    runs: Runs,
    stores: Stores,
    *,
    methods: Sequence[str],
    fit: FitSettings,
    boot: int,
    keep: Path | None = None,
) -> Measured:
    """Probes at all layers of the stores, zero-shot prompting, and controls.

    Args:
        panel: What is measured.
        runs: The fits of the probes.
        stores: Activations of the panel.
        methods: Which probes, also those on rebalanced rows.
        fit: How probes are fitted.
        boot: Bootstrap samples.
        keep: Folder of finished fits: a panel that was killed goes on after them. None keeps none.
    """
    weights = panel.boot(boot)
    found = without_training(panel, stores, weights)
    plain = tuple(m for m in methods if m not in REBALANCED)
    found += _probes(panel, runs, stores, plain, fit, weights, {}, keep=keep)
    again = {REBALANCED[name]: name for name in methods if name in REBALANCED}
    if again:
        odds = stores.train.log_probs
        verdicts = odds[:, 0] > odds[:, 1]
        fewer = replace(runs, subsets=rebalanced(runs.subsets, verdicts))
        found += _probes(panel, fewer, stores, tuple(again), fit, weights, again, keep=keep)
    return found


def measure_all(
    panel: Panel,
    runs: Runs,
    prompt_runs: Runs,
    stores: Stores,
    extractor: Extractor,
    settings: PromptedStudySettings,
) -> Measured:
    """Probes, prompting methods and controls.

    Args:
        panel: What is measured.
        runs: The fits of the probes.
        prompt_runs: The runs of the prompting methods.
        stores: Activations of the panel.
        extractor: The model, for prompts.
        settings: Of the study.
    """
    found = measure(
        panel,
        runs,
        stores,
        methods=settings.methods,
        fit=settings.fit,
        boot=settings.boot,
        keep=fit_folder(settings.out, panel.title),
    )
    prompts = settings.fitting_prompts()
    if prompts.methods_asked and prompt_runs.about:
        found += measure_prompting(
            panel,
            prompt_runs,
            extractor.scorer(progress=sys.stderr.isatty()),
            prompts,
            boot=settings.boot,
            journals=settings.out / "rounds",
        )
    return found


def measure_with_labels(
    panel: Panel,
    given: np.ndarray,
    stores: Stores,
    *,
    seeds: int,
    fit: FitSettings,
    boot: int,
    keep: Path | None = None,
) -> Measured:
    """The supervised probe with labels that something else gave, such as ICM.

    Args:
        panel: What is measured.
        given: [N] of 1, 0 and nan for train rows that have none; those are left out.
        stores: Activations of the panel.
        seeds: Runs.
        fit: How probes are fitted.
        boot: Bootstrap samples.
        keep: Folder of finished fits, as of `measure`.
    """
    runs = Runs(
        about=tuple({"seed": seed} for seed in range(seeds)),
        subsets=np.tile(~np.isnan(given), (seeds, 1)),
    )
    names = {"supervised": "icm_supervised"}
    weights = panel.boot(boot)
    return _probes(
        panel, runs, stores, ("supervised",), fit, weights, names, targets=given, keep=keep
    )


def without_training(panel: Panel, stores: Stores, weights: jax.Array) -> Measured:
    """Zero-shot prompting and the controls: neither train rows nor a seed decide them."""
    odds = stores.test.log_probs
    scores = {"zero_shot": odds[:, 0] - odds[:, 1], **evaluation.control_scores(panel.test)}
    # A feature says nothing of itself.
    scores.pop(f"control_{panel.target}", None)
    rows = evaluation.fixed_rows(scores, panel.targets(), weights)
    return Measured(rows, [({"method": "zero_shot", "orientation": "none"}, scores["zero_shot"])])


def _probes(
    panel: Panel,
    runs: Runs,
    stores: Stores,
    methods: tuple[str, ...],
    fit: FitSettings,
    weights: jax.Array,
    names: Mapping[str, str],
    *,
    targets: np.ndarray | None = None,
    keep: Path | None = None,
) -> Measured:
    """Probes at every layer; `names` renames methods in rows and scores."""
    methods = tuple(m for m in methods if panel.easy is not None or m not in NEEDS_EASY)
    if not methods:
        return Measured()
    found = Measured()
    result = fitted(panel, runs, stores, methods, fit, targets=targets, keep=keep)
    for layer in result.layers:
        bench = bench_at(panel, stores, layer, weights)
        rows = evaluation.method_rows(result, layer, bench, subsets=runs.subsets, runs=runs.about)
        found.rows += [{**row, "method": names.get(row["method"], row["method"])} for row in rows]
        signed = evaluation.signed_scores(
            result, layer, bench, bench.targets[0], subsets=runs.subsets
        )
        for (method, orientation), scores in signed.items():
            about = {"method": names.get(method, method), "orientation": orientation}
            found.scores += by_setting({**about, "layer": layer}, runs, np.asarray(scores))
    return found


def fitted(
    panel: Panel,
    runs: Runs,
    stores: Stores,
    methods: tuple[str, ...],
    fit: FitSettings,
    *,
    layers: Sequence[int] | None = None,
    targets: np.ndarray | None = None,
    keep: Path | None = None,
) -> SweepResult:
    """The probes of all runs at some layers, or all, of the stores.

    Labelled probes learn from `targets` [N]; None = the label that the prompt asks for. What has no
    truth value (nan) is neither: 0.5. Finished fits are kept in the folder `keep`, if there is one.
    """
    target = labels(panel.train, panel.target) if targets is None else targets
    easy = panel.easy
    data = SweepData(
        hard=stores.train.pairs,
        layers=tuple(layers or stores.train.spec.layers),
        subsets=runs.subsets,
        seeds=runs.seeds,
        hard_targets=np.where(np.isnan(target), 0.5, target),
        easy=None if stores.easy is None else stores.easy.pairs,
        easy_labels=None if easy is None else labels(easy.items),
        hard_ids=[item.id for item in panel.train],
        easy_ids=None if easy is None else [item.id for item in easy.items],
        rows_name=f"{panel.dataset} train rows",
    )
    store = None if keep is None else FitStore(keep)
    with progress(f"{panel.title}: fits") as report:
        return sweep(data, fit.config(methods), store=store, report=report)


def bench_at(panel: Panel, stores: Stores, layer: int, weights: jax.Array) -> evaluation.Bench:
    """What the probes of one layer are measured on."""
    return evaluation.Bench(
        hard=stores.train.pairs(layer),
        test=stores.test.pairs(layer),
        easy=None if stores.easy is None else stores.easy.pairs(layer),
        easy_labels=None if panel.easy is None else labels(panel.easy.items),
        targets=panel.targets(),
        boot=weights,
    )


def by_setting(about: dict[str, Any], runs: Runs, scores: np.ndarray) -> list[Score]:
    """Scores [R, n] of one method, apart by what sets its runs apart beside the seed."""
    settings = [{k: v for k, v in run.items() if k != "seed"} for run in runs.about]
    distinct = [s for place, s in enumerate(settings) if s not in settings[:place]]
    return [
        ({**about, **setting}, scores[[place for place, s in enumerate(settings) if s == setting]])
        for setting in distinct
    ]


# --- prompting -----------------------------------------------------------------------------------


def measure_prompting(
    panel: Panel,
    runs: Runs,
    scorer: Scorer,
    settings: PromptSettings,
    *,
    boot: int,
    journals: Path,
) -> Measured:
    """Prompting methods: the pool is drawn from each run's train rows, targets are test items.

    Args:
        panel: What is measured.
        runs: The runs of the prompting methods, each with the train rows that its pool is from.
        scorer: The model.
        settings: With numbers (`PromptSettings.fitting`).
        boot: Bootstrap samples.
        journals: Folder of finished rounds: a run that was killed goes on after them. The labels
            of every round are written beside them.
    """
    assert settings.shots is not None
    found = Measured()
    few, chosen = with_few_tests(panel, settings.prompt_tests)
    weights = few.boot(boot)
    told: list[dict[str, Any]] = []
    for run, subset in zip(runs.about, runs.subsets, strict=True):
        drawn = np.random.default_rng(run["seed"]).permutation(np.flatnonzero(subset))
        pool = [panel.train[row] for row in drawn[: settings.pool]]
        for method in settings.methods_asked:
            begin = time.perf_counter()
            done = prompted(
                method,
                scorer,
                few.test,
                pool,
                panel.format,
                shots=settings.shots,
                rule=settings.rule,
                seed=run["seed"],
                journal=journals / f"{slug(panel.title)}.jsonl",
            )
            rows = evaluation.fixed_rows({method: done.scores}, few.targets(), weights)
            right = done.accuracies(labels(pool, panel.target))
            told += label_rounds(done, right, pool, {"method": method, **run})
            own = {"n_train": len(pool), "n_test": len(few.test), "label_accuracy": right[-1]}
            found.rows += [{**row, **run, **own} for row in rows]
            about = {k: v for k, v in run.items() if k != "seed"}
            every = np.full(len(panel.test), np.nan)
            every[chosen] = done.scores
            found.scores.append(({"method": method, "orientation": "none", **about}, every))
            words = ", ".join(f"{k} {v:g}" for k, v in run.items())
            took = time.perf_counter() - begin
            say(
                f"{panel.title}, {words}, {method}: AUROC {rows[0]['auroc']:.2f}, labels right "
                f"{' -> '.join(f'{share:.2f}' for share in right)} ({took:.1f} s)"
            )
    path = journals / f"{slug(panel.title)}-labels.jsonl"
    write_text(path, "".join(json.dumps(line) + "\n" for line in told))
    return merged_seeds(found)


def with_few_tests(panel: Panel, count: int | None) -> tuple[Panel, np.ndarray]:
    """A panel with some of its test items, and their places among all of them."""
    # A draw, since test items may stand in order of their source.
    order = np.random.default_rng(0).permutation(len(panel.test))
    chosen = np.sort(order[:count])
    return replace(panel, test=tuple(panel.test[place] for place in chosen)), chosen


def label_rounds(
    done: Bootstrapped, right: Sequence[float], pool: Sequence[Item], run: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the pool was labelled in every round of a run, and how much of it is right.

    Args:
        done: The run.
        right: Share of right labels, round by round; the first are the labels it began with.
        pool: The items that were labelled.
        run: What each line says of the run.
    """
    ids = [item.id for item in pool]
    return [
        {
            **run,
            "round": number,
            "label_accuracy": share,
            "labels": {i: None if x != x else bool(x) for i, x in zip(ids, made, strict=True)},
        }
        for number, (share, made) in enumerate(zip(right, done.history, strict=True))
    ]


def merged_seeds(found: Measured) -> Measured:
    """Scores of one method and setting under several seeds as one entry [seeds, n]."""
    kept: dict[str, tuple[dict[str, Any], list[np.ndarray]]] = {}
    for about, scores in found.scores:
        kept.setdefault(repr(sorted(about.items())), (about, []))[1].append(scores)
    return Measured(found.rows, [(about, np.stack(runs)) for about, runs in kept.values()])
