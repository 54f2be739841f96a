"""ICM (Wen et al. 2025): can a model's own coherence replace labels?

Labels of a few train items are searched for by how well the model predicts each from all others,
and test items are judged after all items with those labels. Beside it: zero-shot, random and golden
many-shot prompts, bootstrapping, and the paper's ablations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.items import label_of, save_items
from jelicit.data.overlap import Policy
from jelicit.data.prompts import get_format
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
from jelicit.named import slug
from jelicit.prompting import Scorer, zero_shot_scores
from jelicit.prompting.consistency import RULES
from jelicit.results import Results, print_table
from jelicit.studies import scoring
from jelicit.studies.checks import (
    empty_values,
    folder_problems,
    given,
    mirror_problems,
    refuse,
    same_names,
    set_problems,
    too_small,
    unknown,
)
from jelicit.studies.findings import icm_findings
from jelicit.studies.format_rows import print_formats
from jelicit.studies.formats import FormatSettings, format_problems, formats_asked
from jelicit.studies.icm_forecast import tell_need, tell_need_of_chat
from jelicit.studies.icm_pool import Pool, to_label
from jelicit.studies.icm_tasks import Task, task_of
from jelicit.studies.measuring import Measured
from jelicit.studies.model import Cases, Prompted
from jelicit.studies.prompted import merged_seeds
from jelicit.studies.search_bar import SearchBar
from jelicit.studies.session import Session
from jelicit.studies.settings import PromptSettings
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SETS = ("pocket/facts",)
CHAT, WRONG, PERTURBED = "zero_shot_chat", "wrong_many_shot", "icm_perturbed"
METHODS = (*BASELINES, WRONG, *VARIANTS, PERTURBED)
OF_SEARCHES = ("alpha", "predictability", "schedule", "initial", "draws")


@dataclass(frozen=True, kw_only=True)
class Settings(FormatSettings):
    """Search labels, and compare prompts that show them.

    Attributes:
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
        format: How items are shown and which label is asked for, in all sets: claim_icm and
            pair_icm are the paper's own templates, pair_gender asks which of two texts a man wrote,
            a wrong name lists all; or a file of one's own (FORMAT.toml, FORMAT.json),
            package.module:NAME or file.py:NAME. Several are searched one by one and compared.
            None = each set's own.
        rule: Consistency rule: answer, asymmetry or none; None = asymmetry for pairs, else answer.
        alpha: Weight of mutual predictability (paper: 50; 20 to 30 where a search is slow).
        predictability: mean (of log-odds, the released code) or sum (of log-probabilities).
        schedule: Of the temperature: log (the paper's) or exp.
        initial: Random labels to begin with.
        draws: Most items drawn in a search; None = 12 for each item.
        shots: Of bootstrapping, round by round; None = 2 8 (pocket) or 2 32.
        hub_root: Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...),
            and of the tables of Marks and Tegmark; the hub is not asked for sets then.
        overlap: What to do with train items whose text is a test item's: drop (with all items of
            their groups), refuse, or keep.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows, labels, figures and the report; None = a temporary one.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    n: int = 32
    batch: int | None = None
    tests: int = 64
    limit: int | None = None
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    rule: str | None = None
    alpha: float = 50.0
    predictability: str = "mean"
    schedule: str = "log"
    initial: int = 8
    draws: int | None = None
    shots: tuple[int, ...] | None = None
    hub_root: Path | None = None
    overlap: Policy = "drop"
    boot: int = 1000
    out: Path | None = None

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

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = unknown("--methods", self.methods, (*METHODS, CHAT))
        if not self.dataset or len(set(self.dataset)) < len(self.dataset):
            problems.append(f"--dataset {' '.join(self.dataset)}: name at least one, each once")
        problems += set_problems(self.dataset)
        problems += mirror_problems(self.hub_root, self.dataset)
        if self.rule is not None and self.rule not in RULES:
            problems.append(f"--rule {self.rule} is unknown; known: {', '.join(RULES)}")
        problems += format_problems(self.format)
        if PERTURBED in self.methods and "icm" not in self.methods:
            problems.append(f"--methods {PERTURBED} needs icm: it has as many errors as that")
        problems += too_small(
            [
                ("--n", self.n, 2),
                ("--batch", 2 if self.batch is None else self.batch, 2),
                ("--tests", self.tests, 2),
                ("--seeds", self.seeds, 1),
                ("--boot", self.boot, 1),
                ("--limit", 1 if self.limit is None else self.limit, 1),
                ("--shots", min(self.shots or (1,)), 1),
            ]
        )
        return problems + self.idle() + folder_problems(self.out)

    def idle(self) -> list[str]:
        """Problems of options that would do nothing."""
        problems = []
        if self.batch is not None and self.batch > self.n:
            problems.append(f"--batch {self.batch}: there are --n {self.n} items; leave it out")
        most = min(self.n, self.batch or self.n)
        if given(self, ["initial"]) and self.initial > most:
            problems.append(
                f"--initial {self.initial}: a search has {most} items to begin with labels of; "
                f"allowed are 1 to {most}"
            )
        if not set(self.methods) & set(VARIANTS):
            options = given(self, OF_SEARCHES)
            problems += [f"{option} does nothing without a search" for option in options]
        return problems

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is loaded.

        Raises:
            ValueError: Naming every option that is wrong, and what it allows.
        """
        refuse(empty_values(self))
        refuse(self.problems())
        self.search(0, self.rule or "answer")

    def for_model(self, trained_length: int | None) -> Settings:
        """With numbers for what was left to the model; see `StudySettings.for_model`."""
        prompts = PromptSettings(shots=self.shots).fitting(trained_length)
        return replace(self, shots=prompts.shots, limit=self.limit or trained_length)

    def identity(self) -> dict[str, Any]:
        """What changes the numbers, beside the data."""
        kept = ("n", "tests", "limit", "seeds", "boot", "shots", "batch", "overlap")
        chosen = {name: getattr(self, name) for name in kept if getattr(self, name) is not None}
        return {"methods": list(self.methods), **chosen}


@dataclass(frozen=True)
class Scorers(Prompted):
    """A model to search with, and another one, tuned for chat, as a baseline."""

    model: Prompted
    chat: Prompted | None = None

    @property
    def name(self) -> str:
        """What rows call it."""
        return self.model.name

    @property
    def trained_length(self) -> int | None:
        """Longest text that it was trained on."""
        return self.model.trained_length

    def scorer(self, *, progress: bool = False) -> Scorer:
        """The model as a scorer."""
        return self.model.scorer(progress=progress)


def plan(settings: Settings, session: Session) -> list[Task]:
    """Every set and its question, with all text loaded.

    Raises:
        ValueError: No item has a truth value, the items lack what the format shows, or there are
            hidden states in the place of a model.
    """
    if isinstance(session.model, Cases):
        raise ValueError(
            "icm asks the model for labels, and hidden states of one's own cannot be asked: give a "
            "model (extract.open_model, extract.open_server)"
        )
    tasks = [
        task_of(name, session, tests=settings.tests, rule=settings.rule, format=form)
        for name in settings.dataset
        for form in formats_asked(settings)
    ]
    refuse(same_names([task.situation.title for task in tasks]))
    return tasks


# --- one set -------------------------------------------------------------------------------------


def measure(tasks: Sequence[Task], session: Session) -> None:
    """Search and measure every set unless its rows are there."""
    model: Any = session.model
    scorer, other = model.scorer(), getattr(model, "chat", None)
    chat = None if other is None else other.scorer()
    chosen = [_chosen(task, scorer, chat, session.settings) for task in tasks]
    # All pools before the first request: how much is asked for is told then.
    pools = {
        place: [to_label(task, scorer, session, seed=n) for n in range(session.settings.seeds)]
        for place, task in enumerate(tasks)
        if not session.has(task.situation, chosen[place])
    }
    tell_need(pools, tasks, scorer, session)
    tell_need_of_chat([tasks[place] for place in pools], chat, session)
    for place, task in enumerate(tasks):
        _measure_task(task, chosen[place], pools.get(place, ()), scorer, chat, session)


def _chosen(task: Task, scorer: Any, chat: Any, settings: Settings) -> dict[str, Any]:
    """All that decides a task's numbers, beside its items."""
    return {
        "dataset": task.situation.dataset,
        "scorer": scorer.name,
        "chat": None if chat is None else chat.name,
        "format": vars(get_format(task.situation.format)),
        "rule": task.rule,
        "search": settings.search(0, task.rule),
        **settings.identity(),
    }


def _measure_task(
    task: Task,
    chosen: dict[str, Any],
    pools: Sequence[Pool],
    scorer: Any,
    chat: Any,
    session: Session,
) -> None:
    steps: list[dict[str, Any]] = []
    run = session.keep(
        task.situation, chosen, lambda: _measured(task, pools, scorer, chat, session, steps)
    )
    if steps:
        Results(session.folder.folder / "steps").write(run, steps, {"of": run})


def _measured(
    task: Task,
    pools: Sequence[Pool],
    scorer: Any,
    chat: Any,
    session: Session,
    steps: list[dict[str, Any]],
) -> Measured:
    """Every method with every seed; the steps of all searches are added to `steps`."""
    settings, situation, measured = session.settings, task.situation, Measured()
    weights = situation.boot(settings.boot)
    for seed, pool in enumerate(pools):
        run = _Run(task, scorer, chat, session, seed, pool)
        # As many errors as ICM's labels have: known once it has run.
        for method in sorted(settings.methods, key=lambda name: name == PERTURBED):
            asked = chat if method == CHAT else scorer
            begin, before = time.perf_counter(), counts(asked)
            scores, own = run.measure(method, steps)
            own |= {name: count - before[name] for name, count in counts(asked).items()}
            (row,) = scoring.fixed_rows({method: scores}, situation.targets(), weights)
            took = time.perf_counter() - begin
            measured.rows.append({**row, "seed": seed, **own, "seconds": took})
            measured.scores.append(({"method": method, "orientation": "none"}, scores))
            session.say(
                f"{situation.title}, seed {seed}, {method}: accuracy {row['accuracy']:.2f}, "
                f"AUROC {row['auroc']:.2f} ({took:.1f} s)"
            )
    return merged_seeds(measured)


@dataclass
class _Run:
    """One seed of one set."""

    task: Task
    scorer: Scorer
    chat: Scorer | None
    session: Session
    seed: int
    pool: Pool
    labels: tuple[bool | None, ...] = field(default=())
    """The labels of method icm, once it has run."""

    def measure(
        self, method: str, steps: list[dict[str, Any]]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores of the test items, and what the row says beside."""
        situation = self.task.situation
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
            return zero_shot_scores(self.chat, situation.test, situation.format), {"n_train": 0}
        count = 0 if method.startswith("zero") else len(self.pool.items)
        return self._baseline(method), {"n_train": count}

    def _baseline(self, method: str) -> np.ndarray:
        situation, settings, items = self.task.situation, self.session.settings, self.pool.items
        # No two examples share a question, nor does the item that is judged after them.
        most = len({item.group for item in items}) - 1
        return baseline_scores(
            method,
            self.scorer,
            situation.test,
            items,
            situation.format,
            seed=self.seed,
            rule=self.task.rule,
            shots=tuple(min(count, most) for count in settings.shots),
            limit=settings.limit,
            journal=self._folder("rounds") / f"{slug(situation.title)}.jsonl",
        )

    def _search(self, method: str, steps: list[dict[str, Any]]) -> BatchedResult:
        situation, batches = self.task.situation, self.pool.batches
        own, start = self._begin(method)
        title = f"{situation.title}, seed {self.seed}, {method}"
        with SearchBar(title, sum(own.most_draws(len(batch)) for batch in batches)) as bar:
            result = search_in_batches(
                self.scorer,
                self.pool.items,
                situation.format,
                own,
                size=self.pool.size,
                start=start,
                journal=self._file("searches"),
                gold=self._gold(),
                on_step=bar.show,
            )
        about = {"dataset": situation.title, "method": method, "seed": self.seed}
        steps += [{**about, **_flat(row)} for row in bar.rows]
        self._write_labels(result, method)
        if method == "icm":
            self.labels = result.labels
        return result

    def _begin(self, method: str) -> tuple[SearchSettings, list[bool | None] | None]:
        """The settings of a search, and the labels that each batch begins with if not random."""
        gold, batches = self._gold(), self.pool.batches
        settings = self.session.settings.search(self.seed, self.task.rule)
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
            share = accuracy([self.labels[n] for n in batch], right)
            made = perturbed(right, accuracy=share, seed=self.seed).tolist()
            for n, label in zip(batch, made, strict=True):
                flawed[n] = label
        return flawed

    def _many_shot(self, given: Sequence[bool | None]) -> np.ndarray:
        situation, shown = self.task.situation, self.pool.shown
        items = self.pool.items[:shown]
        return many_shot_scores(
            self.scorer, situation.test, items, given[:shown], situation.format, seed=self.seed
        )

    def _about(self, given: Sequence[bool | None]) -> dict[str, Any]:
        gold, count = self._gold(), sum(label is not None for label in given)
        about = {"n_train": count, "label_accuracy": accuracy(given, gold)}
        if self.session.settings.batch is not None:  # fractions: reports know what was measured
            searches, shown = len(self.pool.batches), self.pool.shown
            about |= {"searches": float(searches), "n_shown": float(shown)}
        return about

    def _about_search(self, result: BatchedResult) -> dict[str, Any]:
        return self._about(result.labels) | {
            "draws": result.draws,
            "evaluations_per_label": result.evaluations_per_label,
            "reads": result.reading.reads,
            "reads_alone": result.reading.reads_alone,
            "converged": result.converged,
        }

    def _gold(self) -> list[bool | None]:
        return [label_of(item, self.task.situation.target) for item in self.pool.items]

    def _folder(self, name: str) -> Path:
        return self.session.folder.folder / name

    def _file(self, folder: str, *more: str) -> Path:
        """A JSONL file of this seed, in a folder of the run."""
        name = "-".join((slug(self.task.situation.title), f"seed{self.seed}", *more))
        return self._folder(folder) / f"{name}.jsonl"

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


# --- what a server counted -----------------------------------------------------------------------


def counts(scorer: Any) -> dict[str, float]:
    """What a server's scorer has counted so far, as rows keep it; nothing for other scorers."""
    return {
        name: float(getattr(scorer, name))
        for name in ("bounded", "retried", "parsed", "unparsed")
        if hasattr(scorer, name)
    }


def counted(rows: pd.DataFrame) -> str | None:
    """One line on what servers did not say, and on repeated requests; None without any."""
    bounded, retried, parsed, unparsed = (
        round(np.nansum(np.asarray(rows[name], float))) if name in rows else 0
        for name in ("bounded", "retried", "parsed", "unparsed")
    )
    said = []
    if bounded:
        said.append(
            f"{bounded:,} scores of verdicts are upper bounds, since the server did not show those "
            "tokens: ordering by them is rough, so ask a server that shows chosen tokens (vLLM)"
        )
    if parsed or unparsed:
        said.append(
            f"of the chat model's answers {parsed:,} were read from their text, which ranks them "
            f"no further, and {unparsed:,} gave no verdict: they score 0, which is half right"
        )
    if retried:
        said.append(
            f"{retried:,} requests failed and were repeated, which changes no number: if it is "
            "slow, look at the server's log"
        )
    return f"server: {'; '.join(said)}" if said else None


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """Accuracy on test items, and right labels."""
    for value, said in (("accuracy", "Accuracy on test items"), ("label_accuracy", "Right labels")):
        if value in rows:  # zero-shot methods alone show no labels
            shown = rows.dropna(subset=value)
            print_table(shown, value=value, title=said, console=session.console)
    print_formats(rows, session.console, value="accuracy")
    if set(rows["method"]) & set(VARIANTS):
        session.say(f"labels: {session.folder.folder / 'labels'}")
    if served := counted(rows):
        session.say(served)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Accuracy per method, and how the searches went, per set."""
    drawn = {"icm-accuracy": figures.accuracy_figure(rows)}
    if {"zero_shot", "golden_many_shot", "icm"} <= set(rows["method"]):
        drawn["icm-bars"] = figures.bars_figure(rows)
    steps = steps_of(session)
    if not steps.empty:
        for dataset, of_set in steps.groupby("dataset", sort=False):
            name = f"icm-search-{slug(str(dataset))}"
            drawn[name] = figures.search_figure(of_set, str(dataset))
    return drawn


def steps_of(session: Session) -> pd.DataFrame:
    """The steps of all searches of this run; empty if it made none."""
    kept = Results(session.folder.folder / "steps")
    steps = [kept.read(run) for run in session.folder.runs if kept.has(run)]
    return pd.concat(steps, ignore_index=True) if steps else pd.DataFrame()


STUDY = Study(
    name="icm",
    title="Labels by coherence (ICM)",
    lead=(
        "Can a model's own coherence replace labels? ICM searches labels of train items that the "
        "model predicts from each other; test items are then judged after all of them. It is "
        "compared with zero-shot prompts, with random and with golden labels in the same prompts, "
        "with bootstrapping, and with searches that begin with right or wrong labels or without "
        "consistency. No search sees a label."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=icm_findings,
)
run = STUDY.run
