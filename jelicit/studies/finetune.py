"""Fine-tuning on labels that a model found itself (Wen et al. 2025): are they as good as golden?

Labels of train items come from several sources: ICM's search, the items themselves, the model's
own answers, chance errors. The model is fine-tuned on each to give the verdict after a zero-shot
prompt, and asked about test items that it never saw. Beside it: the model as it is, and the same
labels in a many-shot prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.preferences import VOTES, vote_of
from jelicit.icm import accuracy, perturbed
from jelicit.named import slug
from jelicit.probes.registry import known_methods
from jelicit.prompting import bootstrapped, zero_shot_scores
from jelicit.results import print_table
from jelicit.studies import icm
from jelicit.studies.checks import unknown
from jelicit.studies.finetune_findings import finetune_findings
from jelicit.studies.finetune_probes import check_layer, layer_of, probes_of
from jelicit.studies.format_rows import print_formats
from jelicit.studies.icm_run import CHAT, Run
from jelicit.studies.icm_tasks import Task
from jelicit.studies.model import Model
from jelicit.studies.session import Session
from jelicit.studies.study import Study
from jelicit.studies.tuning import trains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jelicit.data.items import Item

TUNED = "tuned_"
HUMAN = "human"
SOURCES = ("icm", "golden", "zero_shot", "bootstrapped", "perturbed", "wrong")
"""Where labels come from; "human" where a set has single annotators' labels."""
SHOWN = ("zero_shot", "golden_many_shot", "icm")
METHODS = (*SHOWN, *(f"{TUNED}{source}" for source in SOURCES))
MANY_SHOT = "_many_shot"
OF_HUMANS = (f"{HUMAN}{MANY_SHOT}", f"{TUNED}{HUMAN}")
MORE_SHOWN = tuple(f"{source}{MANY_SHOT}" for source in SOURCES if source not in ("icm", "golden"))
"""Prompts that show the labels of the other sources: asked for by name."""
PROBED = ("tuned_icm", "tuned_golden")
NEED_SEARCH = ("icm", "tuned_icm", "tuned_perturbed", "perturbed_many_shot")
BARS = {"zero_shot", "tuned_golden", "tuned_icm"}
"""What the figure of bars needs."""


@dataclass(frozen=True, kw_only=True)
class Settings(icm.Settings):
    """Fine-tune a model on labels of several sources, and test it on items it never saw.

    Attributes:
        n: Train items to label and train on, in whole groups.
        batch: Most items in one search, or as many as fit; None = one search, and as many items
            as fit it.
        tests: Test items.
        probes: Probes that are fitted on the items' hidden states, in the model as it is and in
            those fine-tuned on ICM's and on golden labels; no value = none.
        layer: Of the probes: 0 = embeddings; None = where CCS finds most of the truth in the model
            as it is (by the train labels of the first seed).
        methods: tuned_SOURCE, fine-tuned on the labels of icm, golden, zero_shot (the model's own
            answers), bootstrapped, perturbed (golden labels with as many errors as ICM's), wrong
            (golden ones turned round, which tells whether the training learns its labels) or human
            (one annotator's, where a set has them); zero_shot; and prompts that show labels: icm
            and SOURCE_many_shot, of every other of these sources. Unless methods are named, those
            of human labels are measured where a set has them. zero_shot_chat needs a chat model.
        seeds: Runs; each draws its own train items, first labels and orders.
    """

    n: int = 96
    batch: int | None = None
    tests: int = 128
    methods: tuple[str, ...] = METHODS
    probes: tuple[str, ...] = ("ccs", "supervised")
    layer: int | None = None
    out: Path | None = None

    @property
    def known_methods(self) -> tuple[str, ...]:
        """What `methods` may name."""
        return (*METHODS, *MORE_SHOWN, *OF_HUMANS, CHAT)

    @property
    def trains(self) -> bool:
        """Whether one of the methods trains the model."""
        return any(method.startswith(TUNED) for method in self.methods)

    @property
    def searches(self) -> bool:
        """Whether one of the methods searches labels."""
        return bool(set(self.methods) & set(NEED_SEARCH))

    def identity(self) -> dict[str, Any]:
        """What changes the numbers, beside the data."""
        probes = {"probes": list(self.probes), "layer": self.layer} if self.probes else {}
        return super().identity() | probes

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if self.probes:
            problems += unknown("--probes", self.probes, [m.name for m in known_methods()])
        if self.layer is not None and self.layer < 0:
            problems.append(f"--layer {self.layer}: allowed are whole numbers from 0")
        if self.finetune:
            problems.append("--finetune is of icm: leave it out")
        return problems


def plan(settings: Settings, session: Session) -> list[Task]:
    """Every set and its question, with all text loaded.

    Raises:
        ValueError: As of `icm.plan`; the model cannot be trained; or a set has no labels of humans
            and the methods ask for them.
    """
    tasks = [_with_humans(task, session) for task in icm.plan(settings, session)]
    if settings.layer is not None:
        model: Any = trains(session.model)
        check_layer(settings, model)
    if set(settings.methods) & set(OF_HUMANS):
        for task in tasks:
            annotator_labels(task.situation.train, task.situation.dataset)
    return tasks


def _with_humans(task: Task, session: Session) -> Task:
    """The task with the methods of human labels, where it has them and no methods were named."""
    situation = task.situation
    if session.settings.methods != METHODS or situation.target != "label":
        return task
    if any(vote_of(item) is None for item in situation.train):
        return task
    session.say(f"{situation.title}: has labels of annotators, so {' and '.join(OF_HUMANS)}, too")
    return replace(task, more=OF_HUMANS)


def annotator_labels(items: Sequence[Item], name: str) -> list[bool]:
    """One annotator's label of each item; of a mirrored pair, the opposite.

    Of a pair in both orders either is a train row here; comparisons take it once
    (`jelicit.data.preferences.human_labels`).

    Raises:
        ValueError: An item has no votes, or as of `vote_of`.
    """
    labels = []
    for item in items:
        vote = vote_of(item)
        if vote is None:
            raise ValueError(
                f"{name}: item {item.id!r} has no label of a single annotator (meta.{VOTES} is "
                f"{item.meta.get(VOTES)!r}; allowed: a list of true and false): leave out "
                f"--methods {' '.join(OF_HUMANS)}, or choose a set that has them"
            )
        labels.append(vote)
    return labels


# --- one seed of one set -------------------------------------------------------------------------


@dataclass
class TunedRun(Run):
    """One seed of one set: labels are made, the model trained on them, and asked."""

    made: dict[str, list[bool | None]] = field(default_factory=dict)
    """Labels by their source, once they were asked for."""
    layer: int | None = None
    """Of the probes, once they were fitted on the model as it is."""

    def measure(
        self, method: str, steps: list[dict[str, Any]]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores of the test items, and what the row says beside."""
        if method in (*MORE_SHOWN, *OF_HUMANS) and method.endswith(MANY_SHOT):
            labels = self._labels(method.removesuffix(MANY_SHOT), steps)
            return self._many_shot(labels), self._about(labels)
        if not method.startswith(TUNED):
            return super().measure(method, steps)
        labels = self._labels(method.removeprefix(TUNED), steps)
        about = {
            "n_train": sum(label is not None for label in labels),
            "label_accuracy": accuracy(labels, self._gold()),
        }
        return self._tuned(method, labels), about

    def _tuned(self, method: str, labels: Sequence[bool | None]) -> np.ndarray:
        """Scores of the test items by the model fine-tuned on these labels."""
        situation, items = self.task.situation, self.pool.items
        model = self._trained(method, items, labels)
        scores = zero_shot_scores(model.scorer(), situation.test, situation.format)
        if method in PROBED and self.session.settings.probes:
            self._probe(model, method)
        model.release()
        return scores

    def _probe(self, model: Model, method: str) -> None:
        """Probes on the hidden states of a model that was trained, and once on those before."""
        if self.layer is None:
            before: Any = trains(self.session.model)
            self.layer = layer_of(before, self)
            self.also += probes_of(before, self, "", layer=self.layer)
        self.also += probes_of(model, self, f"_{method}", layer=self.layer)

    def _labels(self, source: str, steps: list[dict[str, Any]]) -> list[bool | None]:
        """The labels of a source, made when they are first asked for."""
        if source not in self.made:
            gold = [bool(label) for label in self._gold()]
            self.made[source] = list(
                {
                    "icm": lambda: self._search("icm", steps).labels,
                    "golden": lambda: gold,
                    "wrong": lambda: [not label for label in gold],
                    "perturbed": lambda: self._perturbed(gold, steps),
                    "zero_shot": self._own_answers,
                    "bootstrapped": self._bootstrapped,
                    HUMAN: partial(annotator_labels, self.pool.items, self.task.situation.dataset),
                }[source]()
            )
        return self.made[source]

    def _perturbed(self, gold: list[bool], steps: list[dict[str, Any]]) -> list[bool]:
        """Golden labels with as many errors as ICM's."""
        share = accuracy(self._labels("icm", steps), gold)
        return perturbed(gold, accuracy=share, seed=self.seed).tolist()

    def _own_answers(self) -> list[bool]:
        scores = zero_shot_scores(self.scorer, self.pool.items, self.task.situation.format)
        return (scores > 0).tolist()

    def _bootstrapped(self) -> list[bool]:
        """What the last round of bootstrapping says of the items themselves."""
        situation, items = self.task.situation, self.pool.items
        most = len({item.group for item in items}) - 1
        done = bootstrapped(
            self.scorer,
            items,
            items,
            situation.format,
            shots=[min(count, most) for count in self.session.settings.shots],
            seed=self.seed,
            journal=self._folder("rounds") / f"{slug(situation.title)}.jsonl",
        )
        return (done.scores > 0).tolist()


measure = partial(icm.measure, run=TunedRun)


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """Accuracy and AUROC on test items, and right labels."""
    said = {
        "accuracy": "Accuracy on test items",
        "auroc": "AUROC on test items",
        "label_accuracy": "Right labels",
    }
    for value, title in said.items():
        if value in rows:
            shown = rows.dropna(subset=value)
            print_table(shown, value=value, title=title, console=session.console)
    print_formats(rows, session.console, value="accuracy")
    if session.settings.trains:
        session.say(f"models: {session.folder.folder / 'models'}")


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Accuracy per method, per set; and of those that the paper draws as bars."""
    drawn = {"finetune-accuracy": figures.accuracy_figure(rows)}
    if set(rows["method"]) >= BARS:
        from jelicit.figures.training import tuned_bars_figure  # brings Matplotlib

        drawn["finetune-bars"] = tuned_bars_figure(rows)
    return drawn


STUDY = Study(
    name="finetune",
    title="Fine-tuning on labels found",
    lead=(
        "Are labels that a model found by its own coherence (ICM) as good to train on as golden "
        "ones? The model is fine-tuned on labels of several sources to give the verdict after a "
        "zero-shot prompt, and tested on items that it never saw. It is compared with the model as "
        "it is, with the same labels in a prompt, with its own answers as labels, and with golden "
        "labels that have as many errors as ICM's, at random. No search and no training sees a "
        "label that is not its own."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=finetune_findings,
)
run = STUDY.run
