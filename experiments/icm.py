"""ICM (Wen et al. 2025): can a model's own coherence replace labels?

Labels of a few train items are searched for by how well the model predicts each from all others,
and test items are judged after all items with those labels. Beside it: zero-shot, random and golden
many-shot prompts, bootstrapping, and the paper's ablations.

    python experiments/icm.py
    python experiments/icm.py --dataset pocket/arithmetic pocket/pairs pocket/poems --seeds 1
    python experiments/icm.py --scorer http://localhost:8000/v1 --dataset truthfulqa --n 256

Prints a table, writes result rows (Parquet), the labels (JSONL), figures (PNG, SVG) and a report,
and ends with their paths. Every step of a search is kept: the same command after a crash goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from common import console, folder_problems, refuse, same_names, say, slug, start, unknown
from common import too_small as below
from icm_pool import Pool, to_label
from icm_tasks import Task, plan
from panels import Measured, merged_seeds
from run_folder import RunFolder
from search_bar import SearchBar
from servers import connect, counted, counts
from stores import Extractor
from study_settings import ModelSettings, PromptSettings

from extract.local_scorer import LocalScorer
from jelicit import figures
from jelicit.data.items import label_of, save_items
from jelicit.data.prompts import FORMATS, get_format
from jelicit.icm import (
    BASELINES,
    VARIANTS,
    BatchedResult,
    SearchSettings,
    accuracy,
    baseline_scores,
    many_shot_scores,
    perturbed,
    search_in_batches,
    variant,
)
from jelicit.prompting import Scorer, zero_shot_scores
from jelicit.prompting.consistency import RULES
from jelicit.results import Results, print_table
from jelicit.studies import evaluation
from jelicit.studies.findings import icm_findings

DEFAULT_SETS = ("pocket/facts",)
CHAT, WRONG, PERTURBED = "zero_shot_chat", "wrong_many_shot", "icm_perturbed"
METHODS = (*BASELINES, WRONG, *VARIANTS, PERTURBED)
LEAD = (
    "Can a model's own coherence replace labels? ICM searches labels of train items that the model "
    "predicts from each other; test items are then judged after all of them. It is compared with "
    "zero-shot prompts, with random and with golden labels in the same prompts, with "
    "bootstrapping, and with searches that begin with right or wrong labels or without "
    "consistency. No search sees a label."
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Search labels, and compare prompts that show them.

    Attributes:
        run_on: Which language model, and how it runs.
        dataset: Sets by name (pocket/facts, pocket/pairs, truthfulqa, alpaca, ...), or folders with
            train.jsonl and test.jsonl. Pairs are shown in both orders.
        n: Train items to label, in whole groups; without --batch fewer where they do not fit the
            model (the pocket model: the length it was trained on).
        batch: Most items in one search, so that --n may be more than fit: they are searched in
            batches of that many, or of as many as fit (paper: 256). Batches do not see each other's
            labels, and prompts for test items show as many items as fit. None = one search.
        tests: Test items.
        limit: Most tokens of a prompt; None = the length that the model was trained on, if its
            config says so, else all that it reads.
        methods: Baselines; wrong_many_shot, golden labels turned round, which tells whether the
            model reads the labels that it is shown; searches; and icm_perturbed, golden labels with
            as many errors as ICM's.
        seeds: Runs; each draws its own train items, first labels and orders.
        scorer: local, or the URL of an OpenAI-compatible server (vLLM: http://localhost:8000/v1).
        served: Name of the model there; None = the only one that is served.
        chat_model: Another model for zero_shot_chat: an id or folder.
        format: How items are shown and what is asked, for all sets: claim_icm and pair_icm are the
            paper's own templates, pair_gender asks which of two texts a man wrote; a wrong name
            lists all. None = each set's own.
        rule: Consistency rule: answer, asymmetry or none; None = asymmetry for pairs, else answer.
        alpha: Weight of mutual predictability (paper: 50; 20 to 30 where a search is slow).
        predictability: mean (of log-odds, the released code) or sum (of log-probabilities).
        schedule: Of the temperature: log (the paper's) or exp.
        initial: Random labels to begin with.
        draws: Most items drawn in a search; None = 12 for each item.
        shots: Of bootstrapping, round by round; None = 2 8 (pocket) or 2 32.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows, labels, figures and the report.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    dataset: tuple[str, ...] = DEFAULT_SETS
    n: int = 32
    batch: int | None = None
    tests: int = 64
    limit: int | None = None
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    scorer: str = "local"
    served: str | None = None
    chat_model: str | None = None
    format: str | None = None
    rule: str | None = None
    alpha: float = 50.0
    predictability: str = "mean"
    schedule: str = "log"
    initial: int = 8
    draws: int | None = None
    shots: tuple[int, ...] | None = None
    boot: int = 1000
    out: Path = Path("runs/icm")

    def search(self, seed: int, rule: str) -> SearchSettings:
        """The settings of one search."""
        return SearchSettings(
            seed=seed,
            alpha=self.alpha,
            predictability=self.predictability,  # type: ignore[arg-type]
            rule=rule,
            initial=self.initial,
            schedule=self.schedule,  # type: ignore[arg-type]
            draws=self.draws,
        )


def check(settings: Settings) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        ValueError: Naming every option that is wrong, and what it allows.
    """
    problems = unknown("--methods", settings.methods, (*METHODS, CHAT))
    if not settings.dataset or len(set(settings.dataset)) < len(settings.dataset):
        given = " ".join(settings.dataset)
        problems.append(f"--dataset {given}: name at least one, each once")
    if settings.rule is not None and settings.rule not in RULES:
        problems.append(f"--rule {settings.rule} is unknown; known: {', '.join(RULES)}")
    if settings.format is not None:
        problems += unknown("--format", [settings.format], list(FORMATS))
    if settings.scorer != "local" and "://" not in settings.scorer:
        problems.append(f"--scorer {settings.scorer}: give local, or a URL such as http://host/v1")
    if (CHAT in settings.methods) != (settings.chat_model is not None):
        problems.append(f"--chat-model and --methods {CHAT} go together: give both or neither")
    if PERTURBED in settings.methods and "icm" not in settings.methods:
        problems.append(f"--methods {PERTURBED} needs icm: it has as many errors as that")
    problems += below(
        [
            ("--n", settings.n, 2),
            ("--batch", 2 if settings.batch is None else settings.batch, 2),
            ("--tests", settings.tests, 2),
            ("--seeds", settings.seeds, 1),
            ("--boot", settings.boot, 1),
            ("--limit", settings.limit or 1, 1),
            ("--shots", min(settings.shots or (1,)), 1),
        ]
    )
    refuse(problems + folder_problems(settings.out))
    settings.search(0, settings.rule or "answer")


# --- one set -------------------------------------------------------------------------------------


@dataclass
class Found:
    """What one set gave: rows, scores, and the steps of every search."""

    measured: Measured
    steps: list[dict[str, Any]]


def measure_task(
    task: Task, scorer: Scorer, chat: Scorer | None, settings: Settings, limit: int | None
) -> Found:
    """Every method with every seed."""
    panel, found = task.panel, Found(Measured(), [])
    weights = panel.boot(settings.boot)
    for seed in range(settings.seeds):
        pool = to_label(task, scorer, settings.n, limit=limit, seed=seed, batch=settings.batch)
        run = _Run(task, scorer, chat, settings, limit, seed, pool)
        # As many errors as ICM's labels have: known once it has run.
        for method in sorted(settings.methods, key=lambda name: name == PERTURBED):
            begin, before = time.perf_counter(), counts(scorer)
            scores, own = run.measure(method, found.steps)
            own |= {name: count - before[name] for name, count in counts(scorer).items()}
            (row,) = evaluation.fixed_rows({method: scores}, panel.targets(), weights)
            took = time.perf_counter() - begin
            found.measured.rows.append({**row, "seed": seed, **own, "seconds": took})
            found.measured.scores.append(({"method": method, "orientation": "none"}, scores))
            say(
                f"{panel.dataset}, seed {seed}, {method}: accuracy {row['accuracy']:.2f}, "
                f"AUROC {row['auroc']:.2f} ({took:.1f} s)"
            )
    found.measured = merged_seeds(found.measured)
    return found


@dataclass
class _Run:
    """One seed of one set."""

    task: Task
    scorer: Scorer
    chat: Scorer | None
    settings: Settings
    limit: int | None
    seed: int
    pool: Pool
    found: tuple[bool | None, ...] = ()
    """The labels of method icm, once it has run."""

    def measure(
        self, method: str, steps: list[dict[str, Any]]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores of the test items, and what the row says beside."""
        panel = self.task.panel
        if method in VARIANTS:
            result = self._search(method, steps)
            return self._many_shot(result.labels), self._about_search(result)
        if method == PERTURBED:
            flawed = self._flawed()
            return self._many_shot(flawed), self._about(flawed)
        if method == WRONG:
            wrong = [not label for label in self._gold()]
            return self._many_shot(wrong), self._about(wrong)
        if method == CHAT:
            assert self.chat is not None
            return zero_shot_scores(self.chat, panel.test, panel.format), {"n_train": 0}
        count = 0 if method.startswith("zero") else len(self.pool.items)
        return self._baseline(method), {"n_train": count}

    def _baseline(self, method: str) -> np.ndarray:
        panel, settings, items = self.task.panel, self.settings, self.pool.items
        assert settings.shots is not None
        # No two examples share a question, nor does the item that is judged after them.
        most = len({item.group for item in items}) - 1
        return baseline_scores(
            method,
            self.scorer,
            panel.test,
            items,
            panel.format,
            seed=self.seed,
            rule=self.task.rule,
            shots=tuple(min(count, most) for count in settings.shots),
            limit=self.limit,
            journal=settings.out / "rounds" / f"{slug(panel.dataset)}.jsonl",
        )

    def _search(self, method: str, steps: list[dict[str, Any]]) -> BatchedResult:
        panel, batches = self.task.panel, self.pool.batches
        gold = self._gold()
        own, start = self._begin(method)
        title = f"{panel.dataset}, seed {self.seed}, {method}"
        with SearchBar(title, sum(own.most_draws(len(batch)) for batch in batches)) as bar:
            result = search_in_batches(
                self.scorer,
                self.pool.items,
                panel.format,
                own,
                size=self.pool.size,
                start=start,
                journal=self._file("searches"),
                gold=gold,
                on_step=bar.show,
            )
        about = {"dataset": panel.dataset, "method": method, "seed": self.seed}
        steps += [{**about, **_flat(row)} for row in bar.rows]
        self._write_labels(result, method)
        if method == "icm":
            self.found = result.labels
        return result

    def _begin(self, method: str) -> tuple[SearchSettings, list[bool | None] | None]:
        """The settings of a search, and the labels that each batch begins with if not random."""
        gold, batches = self._gold(), self.pool.batches
        settings = self.settings.search(self.seed, self.task.rule)
        begun = [variant(method, settings, [gold[n] for n in batch]) for batch in batches]
        start = {
            n: label
            for batch, (_, begin) in zip(batches, begun, strict=True)
            for n, label in zip(batch, begin or (), strict=begin is not None)
        }
        own, _ = begun[0]
        return own, [start[n] for n in range(len(gold))] if start else None

    def _flawed(self) -> list[bool]:
        """Gold labels with as many errors in every batch as those of method icm."""
        gold = [bool(label) for label in self._gold()]
        flawed = list(gold)
        for batch in self.pool.batches:
            right = [gold[n] for n in batch]
            share = accuracy([self.found[n] for n in batch], right)
            made = perturbed(right, accuracy=share, seed=self.seed).tolist()
            for n, label in zip(batch, made, strict=True):
                flawed[n] = label
        return flawed

    def _many_shot(self, given: Sequence[bool | None]) -> np.ndarray:
        panel, shown = self.task.panel, self.pool.shown
        items = self.pool.items[:shown]
        return many_shot_scores(
            self.scorer, panel.test, items, given[:shown], panel.format, seed=self.seed
        )

    def _about(self, given: Sequence[bool | None]) -> dict[str, Any]:
        gold, count = self._gold(), sum(label is not None for label in given)
        found = {"n_train": count, "label_accuracy": accuracy(given, gold)}
        if self.settings.batch is not None:  # fractions, as the report knows what was measured
            searches, shown = len(self.pool.batches), self.pool.shown
            found |= {"searches": float(searches), "n_shown": float(shown)}
        return found

    def _about_search(self, result: BatchedResult) -> dict[str, Any]:
        return self._about(result.labels) | {
            "draws": result.draws,
            "evaluations_per_label": result.evaluations_per_label,
            "reads": result.reading.reads,
            "reads_alone": result.reading.reads_alone,
            "converged": result.converged,
        }

    def _gold(self) -> list[bool | None]:
        return [label_of(item, self.task.panel.target) for item in self.pool.items]

    def _file(self, folder: str, *more: str) -> Path:
        """A JSONL file of this seed, in a folder of the run."""
        name = "-".join((slug(self.task.panel.dataset), f"seed{self.seed}", *more))
        return self.settings.out / folder / f"{name}.jsonl"

    def _write_labels(self, result: BatchedResult, method: str) -> None:
        """The items with the labels found, in the form that sets are read in."""
        made = [
            replace(item, label=label, meta={**item.meta, "gold": gold})
            for item, label, gold in zip(self.pool.items, result.labels, self._gold(), strict=True)
            if label is not None
        ]
        save_items(self._file("labels", method), made)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in row.items()}


# --- the whole -----------------------------------------------------------------------------------


def scorers(settings: Settings) -> tuple[Any, Any, int | None]:
    """The scorer, that of the chat model, and the longest text that the first was trained on."""
    chat = None
    if settings.chat_model is not None:
        chat = Extractor(replace(settings.run_on, model=settings.chat_model)).scorer()
    if settings.scorer == "local":
        extractor = Extractor(settings.run_on)
        return extractor.scorer(), chat, extractor.lm.trained_length
    journal = settings.out / "answers.jsonl"
    scorer = connect(settings.scorer, model=settings.served, journal=journal)
    return scorer, chat, scorer.trained_length


def model_name(settings: Settings, scorer: Any) -> str:
    """The model that labels, as it is called here or on its server."""
    return settings.run_on.model if settings.scorer == "local" else scorer.server.model


def run_task(
    task: Task,
    scorer: Any,
    chat: LocalScorer | None,
    limit: int | None,
    settings: Settings,
    folder: RunFolder,
) -> None:
    """Search and measure one set unless its rows are there."""
    panel = task.panel
    chosen = {
        "dataset": panel.dataset,
        "scorer": scorer.name,
        "chat": None if chat is None else chat.name,
        "format": vars(get_format(panel.format)),
        "rule": task.rule,
        "n": settings.n,
        "tests": settings.tests,
        "limit": limit,
        "methods": list(settings.methods),
        "seeds": settings.seeds,
        "boot": settings.boot,
        "shots": settings.shots,
        "search": settings.search(0, task.rule),
        **({} if settings.batch is None else {"batch": settings.batch}),
    }
    steps: list[dict[str, Any]] = []

    def measure() -> Measured:
        found = measure_task(task, scorer, chat, settings, limit)
        steps.extend(found.steps)
        return found.measured

    folder.run(panel, chosen, panel.about(model_name(settings, scorer)), measure)
    if steps:
        Results(settings.out / "steps").write(folder.runs[-1], steps, {"of": folder.runs[-1]})


def steps_of(settings: Settings, folder: RunFolder) -> pd.DataFrame:
    """The steps of all searches of this command; empty if it made none."""
    kept = Results(settings.out / "steps")
    found = [kept.read(run) for run in folder.runs if kept.has(run)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def draw(rows: pd.DataFrame, steps: pd.DataFrame, folder: Path) -> list[Path]:
    """Accuracy per method, and how the searches went, per set."""
    made = figures.save(figures.accuracy_figure(rows), folder / "icm-accuracy")
    if not steps.empty:
        for dataset, of_set in steps.groupby("dataset", sort=False):
            figure = figures.search_figure(of_set, str(dataset))
            made += figures.save(figure, folder / f"icm-search-{slug(str(dataset))}")
    return made


def main(settings: Settings) -> None:
    check(settings)
    tasks = [
        plan(name, tests=settings.tests, rule=settings.rule, format=settings.format)
        for name in settings.dataset
    ]
    refuse(same_names([task.panel.dataset for task in tasks]))
    scorer, chat, trained = scorers(settings)
    folder = RunFolder("icm", settings.out)
    limit = settings.limit or trained
    prompts = PromptSettings(shots=settings.shots).fitting(trained)
    settings = replace(settings, shots=prompts.shots)
    for task in tasks:
        run_task(task, scorer, chat, limit, settings, folder)
    rows = folder.rows()
    for value, said in (("accuracy", "Accuracy on test items"), ("label_accuracy", "Right labels")):
        if value in rows:  # zero-shot methods alone show no labels
            print_table(rows.dropna(subset=value), value=value, title=said, console=console)
    folder.finish(
        title="Labels by coherence (ICM)",
        lead=LEAD,
        settings=settings,
        figures=draw(rows, steps_of(settings, folder), settings.out),
        findings=icm_findings(rows),
    )
    say(f"labels: {settings.out / 'labels'}")
    if served := counted(rows):
        say(served)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
