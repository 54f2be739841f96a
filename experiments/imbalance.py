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

import time
from dataclasses import dataclass, field
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

from extract.local_scorer import LocalScorer
from jelicit import __version__, evaluation, figures
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.describe import describe, table
from jelicit.data.items import Item, digest, labels, with_target
from jelicit.data.subsets import balanced_runs
from jelicit.grid import Grid, run_grid
from jelicit.metrics import group_bootstrap
from jelicit.probes.methods import ALL_METHODS, METHODS, NEEDS_EASY
from jelicit.probes.sweep import check_config
from jelicit.prompting import METHODS as PROMPTING
from jelicit.prompting import prompting_scores
from jelicit.results import Results, print_sweep, run_id

DEFAULT_SETS = ("pocket/arithmetic", "pocket/commands")
SHARES = (0.0, 0.01, *(round(0.1 * k, 1) for k in range(1, 10)), 0.99, 1.0)
"""Paper A's, for claims."""

SAFE_SHARES = (0.5, 0.99, 1.0)
"""Paper A's, for sequences of commands: suspicious ones are rare in the field."""

COMMANDS = ("pocket/commands", "ctrl_z")
LAYER_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Measure every method at several shares of true claims in the train set.

    Attributes:
        run_on: Which language model, and how it runs.
        fit: How probes are fitted.
        dataset: Sets by name (pocket/arithmetic, gsm8k, ctrl_z, ...), or folders with train.jsonl
            and test.jsonl.
        shares: Shares of true claims; default: paper A's 13, of command sequences 0.5, 0.99 and 1
            safe.
        layers: Hidden-state indices, or "best": the layer with the best CCS AUROC on balanced train
            rows (an oracle: it looks at train labels).
        methods: Which probes; zero-shot is always there.
        prompting: Which prompting methods; none with --prompting none.
        prompt_shares: Shares at which prompting methods are measured: every one of their prompts
            is a pass through the model, so they cost more than all probes.
        shots: Examples in a prompt, round by round (paper A: 2 32).
        pool: Train items that bootstrapping labels (paper A: 512).
        prompt_tests: Test items that prompting methods are measured on.
        rule: Consistency rule of bootstrapping + consistency: answer, asymmetry or none.
        prompt_seeds: Runs of the prompting methods.
        seeds: Runs of the probes; each draws its own start and its own train rows.
        max_rows: Most rows per split that are extracted.
        easy: The easy labelled set; None = the set's own choice, "none" = do without.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows and figures.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    dataset: tuple[str, ...] = DEFAULT_SETS
    shares: tuple[float, ...] | None = None
    layers: tuple[str, ...] = ("best",)
    methods: tuple[str, ...] = METHODS
    prompting: tuple[str, ...] = PROMPTING
    prompt_shares: tuple[float, ...] = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
    shots: tuple[int, ...] = (2, 8)
    pool: int = 48
    prompt_tests: int = 64
    prompt_seeds: int = 1
    rule: str = "answer"
    seeds: int = 3
    max_rows: int = 800
    easy: str | None = None
    boot: int = 1000
    out: Path = Path("runs/imbalance")

    @property
    def prompting_methods(self) -> tuple[str, ...]:
        """The prompting methods asked for."""
        return () if self.prompting == ("none",) else self.prompting


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = unknown("--methods", settings.methods, ALL_METHODS)
    if settings.prompting != ("none",):
        problems += unknown("--prompting", settings.prompting, PROMPTING)
    if len(set(settings.dataset)) < len(settings.dataset) or not settings.dataset:
        problems.append(f"--dataset {' '.join(settings.dataset)}: name at least one, each once")
    for option, shares in (
        ("--shares", settings.shares),
        ("--prompt-shares", settings.prompt_shares),
    ):
        wrong = [share for share in shares or () if not 0 <= share <= 1]
        if wrong or len(set(shares or ())) < len(shares or ()):
            problems.append(f"{option} {shares}: allowed are numbers from 0 to 1, each once")
    problems += layer_problems(settings.layers)
    problems += too_small(
        [
            ("--seeds", settings.seeds, 1),
            ("--boot", settings.boot, 1),
            ("--max-rows", settings.max_rows, 8),
            ("--pool", settings.pool, 2),
            ("--prompt-seeds", settings.prompt_seeds, 1),
            ("--prompt-tests", settings.prompt_tests, 2),
            ("--restarts", settings.fit.restarts, 1),
            ("--shots", min(settings.shots, default=0), 1),
        ]
    )
    if "://" in str(settings.out):
        problems.append(f"--out {settings.out}: figures are written to a local folder only")
    refuse(problems)
    check_config(settings.fit.config(settings.methods))


# --- one set -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One set: its labelled items, what is asked, and at which shares.

    Attributes:
        dataset: The set.
        target: The label that the prompt asks for.
        format: Name of the prompt format.
        shares: Shares of that label among the train rows.
        train: Train items with a label.
        test: Test items with a label.
        easy: The easy set, if any.
    """

    dataset: Dataset
    target: str
    format: str
    shares: tuple[float, ...]
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    easy: EasySet | None


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
    easy = easy_set(settings.easy or dataset.easy, task=dataset.name, max_rows=settings.max_rows)
    shares = settings.shares or (SAFE_SHARES if dataset.name in COMMANDS else SHARES)
    return Plan(
        dataset=dataset,
        target=target,
        format=dataset.formats[target],
        shares=shares,
        train=train,
        test=test,
        easy=easy,
    )


def probe_rows(plan: Plan, stores: Stores, settings: Settings) -> list[dict[str, Any]]:
    """Rows of the probes, at every share, and of zero-shot prompting, which has none."""
    easy = None if plan.easy is None else labels(plan.easy.items)
    grid = Grid(
        methods=tuple(m for m in settings.methods if easy is not None or m not in NEEDS_EASY),
        seeds=range(settings.seeds),
        class_shares=plan.shares,
        base=settings.fit.config(settings.methods),
    )
    found = run_grid(
        grid,
        stores.train,
        labels(plan.train, plan.target),
        test=stores.test,
        test_labels=labels(plan.test, plan.target),
        test_groups=[item.group for item in plan.test],
        test_log_probs=stores.test.log_probs,
        easy=stores.easy,
        easy_labels=easy,
        boot=settings.boot,
    )
    return found.rows.to_dict("records")


def prompting_rows(plan: Plan, settings: Settings, extractor: Extractor) -> list[dict[str, Any]]:
    """Rows of the prompting methods: the pool has the share, the targets are test items."""
    shares = [share for share in settings.prompt_shares if share in plan.shares]
    tests = plan.test[: settings.prompt_tests]
    label = labels(plan.train, plan.target)
    target = evaluation.Target(
        name=_named(plan.target), role="truth", train=label, test=labels(tests, plan.target)
    )
    boot = group_bootstrap(jax.random.key(0), [item.group for item in tests], settings.boot)
    scorer = LocalScorer(extractor.lm, token_budget=settings.run_on.token_budget)
    if not shares:
        return []
    grid = Grid(seeds=range(settings.prompt_seeds), class_shares=shares)
    rows = []
    for run, subset in zip(grid.runs(), grid.subsets(label), strict=True):
        drawn = np.random.default_rng(run["seed"]).permutation(np.flatnonzero(subset))
        pool = [plan.train[row] for row in drawn[: settings.pool]]
        for method in settings.prompting_methods:
            begin = time.perf_counter()
            scores = prompting_scores(
                method,
                scorer,
                tests,
                pool,
                plan.format,
                shots=settings.shots,
                rule=settings.rule,
                seed=run["seed"],
                journal=settings.out / "rounds" / f"{slug(plan.dataset.name)}.jsonl",
            )
            columns = evaluation.measured(scores[None], target.test, boot)
            rows.append(
                {
                    "method": method,
                    "orientation": "none",
                    **run,
                    "target": target.name,
                    "role": target.role,
                    "layer": evaluation.NO_LAYER,
                    "n_train": len(pool),
                    **{name: float(values[0]) for name, values in columns.items()},
                }
            )
            say(
                f"{plan.dataset.name}, share {run['class_share']:g}, seed {run['seed']}, {method}: "
                f"AUROC {rows[-1]['auroc']:.2f} ({time.perf_counter() - begin:.1f} s)"
            )
    return rows


def _named(label: str) -> str:
    return "truth" if label == "label" else label


def run_set(plan: Plan, settings: Settings, extractor: Extractor, results: Results) -> str:
    """Extract, fit and measure one set unless its rows are there; returns its run id."""
    console.print(table(describe(plan.dataset)))
    name = plan.dataset.name
    if plan.easy is None:
        say(f"{name}: no easy set, so no {', '.join(sorted(NEEDS_EASY))}")
    layers: tuple[int, ...]
    if settings.layers == ("best",):
        label = labels(plan.train, plan.target)
        layers = (
            choose_layer(
                extractor.store(f"{name}-none-train", plan.train, plan.format, None),
                label,
                subsets=balanced_runs(label, runs=LAYER_RUNS),
                seeds=np.arange(LAYER_RUNS),
                fit=settings.fit,
                results=Results(settings.out / "layers"),
                name=name,
            ),
        )
    else:
        layers = tuple(int(layer) for layer in settings.layers)
    stores = extract_stores(
        extractor,
        f"{name}-none",
        plan.train,
        plan.test,
        plan.easy,
        format=plan.format,
        layers=layers,
    )
    chosen = {
        "experiment": "imbalance",
        "dataset": name,
        "asked": _named(plan.target),
        "shares": list(plan.shares),
        "layers": list(stores.train.spec.layers),
        "layer_choice": "best CCS on balanced train rows (oracle)"
        if settings.layers == ("best",)
        else "given",
        "extraction": stores.identity(),
        "seeds": settings.seeds,
        "boot": settings.boot,
        "sweep": identity(settings.fit.config(settings.methods)),
        "prompting": {
            "methods": list(settings.prompting_methods),
            "shares": list(settings.prompt_shares),
            "seeds": settings.prompt_seeds,
            "shots": list(settings.shots),
            "pool": settings.pool,
            "tests": settings.prompt_tests,
            "rule": settings.rule,
            "match": "words",
        },
    }
    run = run_id(chosen, digest([*plan.train, *plan.test]), __version__)
    if results.has(run):
        say(f"{name}: reused (run {run}, same settings)")
        return run
    begin = time.perf_counter()
    about = {
        "dataset": name,
        "feature": "none",
        "asked": _named(plan.target),
        "model": stores.train.spec.model,
    }
    rows = probe_rows(plan, stores, settings)
    say(f"{name}: probes fitted and measured in {time.perf_counter() - begin:.1f} s")
    rows += prompting_rows(plan, settings, extractor)
    results.write(run, [{**about, **row} for row in rows], chosen)
    say(f"{name}: done in {time.perf_counter() - begin:.1f} s (run {run})")
    return run


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
    extractor = Extractor(settings.run_on)
    results = Results(settings.out / "rows")
    names = [run_set(p, settings, extractor, results) for p in plans]
    rows = pd.concat([results.read(name) for name in names], ignore_index=True)
    for dataset, of_set in rows.groupby("dataset", sort=False):
        for layer in of_set["layer"].dropna().unique():
            here = of_set[(of_set["layer"] == layer) | of_set["layer"].isna()]
            (asked,) = set(here["asked"])
            asked = "true claims" if asked == "truth" else asked
            title = f"AUROC of {dataset}, layer {layer:g}, by share of {asked} in train"
            print_sweep(here, across="class_share", title=title, console=console)
    made = draw(rows, settings.out)
    say(f"rows: {settings.out / 'rows'} ({len(rows)} of this command)")
    for path in made:
        say(f"figure: {path}")


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
