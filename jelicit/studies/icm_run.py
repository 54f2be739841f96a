"""One seed of one set: labels are searched or made, and test items judged after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.data.export import MADE_BY
from jelicit.data.items import Item, label_of, save_items
from jelicit.data.prompts import get_format
from jelicit.icm import (
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
from jelicit.prompting.consistency import get_rule, most_likely
from jelicit.studies.icm_pool import Pool
from jelicit.studies.icm_tasks import Task
from jelicit.studies.measuring import Measured
from jelicit.studies.models import SizedModel
from jelicit.studies.search_bar import SearchBar
from jelicit.studies.session import Session
from jelicit.studies.tuning import trains

CHAT, WRONG, PERTURBED = "zero_shot_chat", "wrong_many_shot", "icm_perturbed"
ITERATIVE, EXTENDED = "icm_iterative", "icm_extended"


@dataclass
class Run:
    """One seed of one set."""

    task: Task
    scorer: Scorer
    chat: Scorer | None
    session: Session
    seed: int
    pool: Pool
    found: dict[str, BatchedResult] = field(default_factory=dict)
    """What was searched, by method."""
    also: Measured = field(default_factory=Measured)
    """Rows beside those of the methods."""

    def measure(
        self, method: str, steps: list[dict[str, Any]]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores of the test items, and what the row says beside."""
        situation = self.task.situation
        if method in (*VARIANTS, ITERATIVE):
            result = self._search(method, steps)
            return self._many_shot(result.labels), self._about_search(result)
        if method == EXTENDED:
            extended = self._extended(steps)
            return self._many_shot(extended), self._about(extended) | {"searches": 1.0}
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
        """The search of a method; made once, however many methods ask for it."""
        if method not in self.found:
            self.found[method] = self._searched(method, steps)
        return self.found[method]

    def _searched(self, method: str, steps: list[dict[str, Any]]) -> BatchedResult:
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
                between=self._trained_between if method == ITERATIVE else None,
                journal=self._file("searches"),
                gold=self._gold(),
                on_step=bar.show,
            )
        about = {"dataset": situation.title, "method": method, "seed": self.seed}
        steps += [{**about, **_flat(row)} for row in bar.rows]
        self._write_labels(result.labels, method)
        return result

    def _begin(self, method: str) -> tuple[SearchSettings, list[bool | None] | None]:
        """The settings of a search, and the labels that each batch begins with if not random."""
        gold, batches = self._gold(), self.pool.batches
        settings = self.session.settings.search(self.seed, self.task.rule)
        kind = "icm" if method == ITERATIVE else method
        begun = [variant(kind, settings, [gold[n] for n in batch]) for batch in batches]
        start = {
            n: label
            for batch, (_, begin) in zip(batches, begun, strict=True)
            for n, label in zip(batch, begin or (), strict=begin is not None)
        }
        own, _ = begun[0]
        return own, [start[n] for n in range(len(gold))] if start else None

    def _trained_between(
        self, scorer: Scorer, items: Sequence[Item], labels: Sequence[bool | None]
    ) -> Scorer:
        """The model trained on the batches so far, which labels the next one."""
        return self._trained(ITERATIVE, items, labels).scorer()

    def _extended(self, steps: list[dict[str, Any]]) -> list[bool | None]:
        """Labels of the first batch by search, of all others by the model trained on it.

        Those of one question are made consistent by the rule.
        """
        items, form = self.pool.items, self.task.situation.format
        (*first,), *others = self.pool.batches
        searched = self._search("icm", steps).labels  # batches do not see each other
        labels: list[bool | None] = [None] * len(items)
        for n in first:
            labels[n] = searched[n]
        rest = [n for batch in others for n in batch]
        model = self._trained(EXTENDED, [items[n] for n in first], [labels[n] for n in first])
        scores = zero_shot_scores(model.scorer(), [items[n] for n in rest], form)
        model.release()
        made = most_likely([items[n] for n in rest], scores, get_rule(self.task.rule))
        for n, label in zip(rest, made, strict=True):
            labels[n] = bool(label)
        self._write_labels(labels, EXTENDED)
        return labels

    def _trained(
        self, name: str, items: Sequence[Item], labels: Sequence[bool | None]
    ) -> SizedModel:
        """The model fine-tuned on labels, in a folder of their name and number."""
        situation = self.task.situation
        title = f"{situation.title}, seed {self.seed}"
        return trains(self.session.model).tuned(
            items,
            labels,
            situation.format,
            self._folder("models") / f"{slug(title)}-{name}-{len(items)}",
            seed=self.seed,
            held_out=situation.test,
            origin=f"{name} of {title}",
        )

    def _flawed(self) -> list[bool]:
        """Gold labels with as many errors in every batch as those of method icm."""
        gold = [bool(label) for label in self._gold()]
        searched = self.found["icm"].labels  # it has run before
        flawed = list(gold)
        for batch in self.pool.batches:
            right = [gold[n] for n in batch]
            share = accuracy([searched[n] for n in batch], right)
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

    def _write_labels(self, labels: Sequence[bool | None], method: str) -> None:
        """The items with the labels found, as files of sets are, with whose they are."""
        said = self._made_by(method)
        made = [
            replace(item, label=label, meta={**item.meta, "gold": gold, MADE_BY: said})
            for item, label, gold in zip(self.pool.items, labels, self._gold(), strict=True)
            if label is not None
        ]
        save_items(self._file("labels", method), made)

    def _made_by(self, method: str) -> dict[str, Any]:
        """Where the labels of a method are from, as their file says of every row."""
        search, _ = self._begin("icm" if method == EXTENDED else method)
        return account(
            method,
            self.task,
            self.session,
            seed=self.seed,
            search=in_short(search) | {"items": len(self.pool.items), "batch": self.pool.size},
        )


def account(method: str, task: Task, session: Session, *, seed: int, **more: Any) -> dict[str, Any]:
    """Where labels are from: what files of labels say of each, under `MADE_BY` in `meta`.

    Args:
        method: What made them.
        task: The set.
        session: Whose model was asked.
        seed: Of the run.
        more: What is to be said beside: the settings of a search, for example.
    """
    return {
        "method": method,
        "model": session.model.name,
        "set": task.situation.dataset,
        "format": get_format(task.situation.format).name,
        "seed": seed,
        **more,
    }


def in_short(search: SearchSettings) -> dict[str, Any]:
    """The settings of a search that differ from run to run."""
    names = ("alpha", "predictability", "schedule", "initial", "draws")
    return {"rule": get_rule(search.rule).name} | {name: getattr(search, name) for name in names}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in row.items()}
