"""ICM (Wen et al. 2025): can a model's own coherence replace labels?

Labels of a few train items are searched for by how well the model predicts each from all others,
and test items are judged after all items with those labels. Beside it: zero-shot, random and golden
many-shot prompts, bootstrapping, and the paper's ablations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.overlap import Policy
from jelicit.data.prompts import get_format
from jelicit.icm import (
    BASELINES,
    VARIANTS,
    SearchSettings,
)
from jelicit.named import slug
from jelicit.prompting import Scorer
from jelicit.prompting.consistency import RULES
from jelicit.results import Results, print_table
from jelicit.studies import scoring
from jelicit.studies.checks import (
    empty_values,
    folder_problems,
    given,
    mirror_problems,
    no_sets,
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
from jelicit.studies.icm_pool import to_label
from jelicit.studies.icm_run import CHAT, EXTENDED, ITERATIVE, PERTURBED, WRONG, Run
from jelicit.studies.icm_tasks import Task, task_of
from jelicit.studies.measuring import Measured
from jelicit.studies.model import Cases, Prompted
from jelicit.studies.prompted import merged_seeds
from jelicit.studies.session import Session
from jelicit.studies.settings import PromptSettings
from jelicit.studies.study import Study
from jelicit.studies.tuning import check_training, trains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SETS = ("pocket/facts",)
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
        finetune: Train between batches, too: icm_iterative labels each batch with the model trained
            on all before it, icm_extended searches the first batch and has the model trained on it
            label the rest. Needs --batch.
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
            their groups), refuse, or keep. Where a model is trained, it is the same for those of a
            test item's group, and keep is not allowed.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows, labels, figures and the report; None = a temporary one.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    n: int = 32
    batch: int | None = None
    finetune: bool = False
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

    @property
    def known_methods(self) -> tuple[str, ...]:
        """What `methods` may name."""
        return (*METHODS, CHAT)

    @property
    def trains(self) -> bool:
        """Whether the model is trained."""
        return self.finetune

    @property
    def searches(self) -> bool:
        """Whether one of the methods searches labels."""
        return bool(set(self.methods) & set(VARIANTS))

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
        problems = unknown("--methods", self.methods, self.known_methods)
        problems += no_sets(self.dataset) + set_problems(self.dataset)
        problems += mirror_problems(self.hub_root, self.dataset)
        if self.rule is not None and self.rule not in RULES:
            problems.append(f"--rule {self.rule} is unknown; known: {', '.join(RULES)}")
        problems += format_problems(self.format)
        if PERTURBED in self.methods and "icm" not in self.methods:
            problems.append(f"--methods {PERTURBED} needs icm: it has as many errors as that")
        if self.trains and self.overlap == "keep":
            problems.append(
                "--overlap keep: what is tested would have been seen in training; give drop or "
                "refuse"
            )
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
        if self.finetune and (self.batch is None or self.batch >= self.n):
            problems.append(
                f"--finetune trains between batches, and there is one: give --batch below --n "
                f"{self.n}"
            )
        if self.finetune and "icm" not in self.methods:
            problems.append("--finetune needs --methods icm: it is compared with searches alone")
        most = min(self.n, self.batch or self.n)
        if given(self, ["initial"]) and self.initial > most:
            problems.append(
                f"--initial {self.initial}: a search has {most} items to begin with labels of; "
                f"allowed are 1 to {most}"
            )
        if not self.searches:
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
        more = (ITERATIVE, EXTENDED) if self.finetune else ()
        return replace(
            self,
            shots=prompts.shots,
            limit=self.limit or trained_length,
            methods=(*self.methods, *more),
        )

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
        ValueError: No item has a truth value, the items lack what the format shows, there are
            hidden states in the place of a model; or a model is to be trained and cannot be, or not
            on these prompts.
    """
    if isinstance(session.model, Cases):
        raise ValueError(
            "icm asks the model for labels, and hidden states of one's own cannot be asked: give a "
            "model (extract.open_model, extract.open_server)"
        )
    if session.settings.trains:
        trains(session.model)
    tasks = [
        task_of(name, session, tests=settings.tests, rule=settings.rule, format=form)
        for name in settings.dataset
        for form in formats_asked(settings)
    ]
    refuse(same_names([task.situation.title for task in tasks]))
    if session.settings.trains:
        for task in tasks:
            # Of train items, those that are too long are left out with what a search cannot hold.
            check_training(session.model, task.situation.test, task.situation.format)
    return tasks


# --- one set -------------------------------------------------------------------------------------


def measure(tasks: Sequence[Task], session: Session, *, run: type[Run] = Run) -> None:
    """Search and measure every set unless its rows are there.

    Args:
        tasks: The sets.
        session: The run of the study.
        run: What measures one seed of one set.
    """
    model: Any = session.model
    scorer, other = model.scorer(), getattr(model, "chat", None)
    chat = None if other is None else other.scorer()
    chosen = [_chosen(task, scorer, chat, session) for task in tasks]
    # All pools before the first request: how much is asked for is told then.
    pools = {
        place: [to_label(task, scorer, session, seed=n) for n in range(session.settings.seeds)]
        for place, task in enumerate(tasks)
        if not session.has(task.situation, chosen[place])
    }
    tell_need(pools, tasks, scorer, session)
    tell_need_of_chat([tasks[place] for place in pools], chat, session)
    for place, task in enumerate(tasks):
        runs = [
            run(task, scorer, chat, session, seed, pool)
            for seed, pool in enumerate(pools.get(place, ()))
        ]
        _measure_task(task, chosen[place], runs, session)


def _chosen(task: Task, scorer: Any, chat: Any, session: Session) -> dict[str, Any]:
    """All that decides a task's numbers, beside its items."""
    settings = session.settings
    tuned = {"training": dict(trains(session.model).training)} if settings.trains else {}
    return {
        "dataset": task.situation.dataset,
        "scorer": scorer.name,
        "chat": None if chat is None else chat.name,
        "format": vars(get_format(task.situation.format)),
        "rule": task.rule,
        "search": settings.search(0, task.rule),
        **tuned,
        **settings.identity(),
        "methods": [*settings.methods, *task.more],
    }


def _measure_task(
    task: Task, chosen: dict[str, Any], runs: Sequence[Run], session: Session
) -> None:
    steps: list[dict[str, Any]] = []
    name = session.keep(task.situation, chosen, lambda: _measured(task, runs, session, steps))
    if steps:
        Results(session.folder.folder / "steps").write(name, steps, {"of": name})


def _measured(
    task: Task, runs: Sequence[Run], session: Session, steps: list[dict[str, Any]]
) -> Measured:
    """Every method with every seed; the steps of all searches are added to `steps`."""
    settings, situation, measured = session.settings, task.situation, Measured()
    weights = situation.boot(settings.boot)
    for run in runs:
        seed = run.seed
        # As many errors as ICM's labels have: known once it has run.
        methods = (*settings.methods, *task.more)
        for method in sorted(methods, key=lambda name: name == PERTURBED):
            asked = run.chat if method == CHAT else run.scorer
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
        measured += run.also
    return merged_seeds(measured)


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
