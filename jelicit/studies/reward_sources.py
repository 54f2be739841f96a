"""Where the labels of reward models come from, and the reward models of each source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.data.export import MADE_BY
from jelicit.data.items import Item, label_of, save_items
from jelicit.data.preferences import (
    Comparison,
    as_items,
    check_unseen,
    comparisons,
    digest_of,
    human_labels,
    one_order,
)
from jelicit.icm import accuracy, perturbed, search_in_batches
from jelicit.named import slug
from jelicit.studies.icm_pool import Pool, to_label
from jelicit.studies.icm_run import account, in_short
from jelicit.studies.icm_tasks import Task
from jelicit.studies.preference_tasks import rest_of
from jelicit.studies.search_bar import SearchBar
from jelicit.studies.session import Session
from jelicit.studies.trained import Reward, Trainable


@dataclass
class Sources:
    """One seed of one set: its pairs, their labels by source, and the reward models of these.

    Golden labels reach `golden` and `perturbed`, and the share of right ones; nothing else reads
    them.
    """

    task: Task
    pool: Pool
    session: Session
    scorer: Any
    seed: int
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What rows say of each source's labels, once they are there."""
    models: dict[str, Reward | None] = field(default_factory=dict)
    """The reward models that are there; all but the last that was asked for are released."""

    @property
    def model(self) -> Trainable:
        """The model that is asked and trained."""
        model: Any = self.session.model
        return model

    @cached_property
    def rest(self) -> tuple[Item, ...]:
        """The pairs that no search labels."""
        settings = self.session.settings
        return rest_of(self.task, self.pool.items, settings.rest, seed=self.seed)

    @cached_property
    def pairs(self) -> tuple[Item, ...]:
        """All pairs that are labelled, once each."""
        return (*one_order(self.pool.items), *self.rest)

    @cached_property
    def searched(self) -> tuple[Comparison, ...]:
        """What ICM says of the pairs that it labels."""
        settings = self.session.settings
        title = f"{self.task.situation.title}, seed {self.seed}, icm"
        search, items = settings.search(self.seed), self.pool.items
        most = sum(search.most_draws(len(batch)) for batch in self.pool.batches)
        with SearchBar(title, most) as bar:
            result = search_in_batches(
                self.scorer,
                items,
                self.task.situation.format,
                search,
                size=self.pool.size,
                journal=self.file("searches", "icm.jsonl"),
                on_step=bar.show,
            )
        return comparisons(items, result.labels)

    def labelled(self, source: str) -> tuple[Comparison, ...]:
        """The comparisons that a reward model of this source learns from; () where it has none."""
        if source == "icm_first":
            made = self.searched
        elif source == "icm":
            made = (*self.searched, *self._by_first())
        elif source == "human":
            made = comparisons(self.pairs, human_labels(self.pairs))
        else:
            made = comparisons(self.pairs, self._golden(source))
        check_unseen(made, self.task.situation.test, what=f"training on labels by {source}")
        self.told[source] = {"n_train": len(made), "label_accuracy": self._right(made)}
        self._write(source, made)
        return made

    def _write(self, source: str, made: Sequence[Comparison]) -> None:
        """The comparisons as a set of pairs that says whose labels they are."""
        more = {}
        if source in ("icm_first", "icm"):
            of_search = {"items": len(self.pool.items), "batch": self.pool.size}
            more["search"] = in_short(self.session.settings.search(self.seed)) | of_search
        said = account(source, self.task, self.session, seed=self.seed, **more)
        items = as_items(made, labels=source)
        save_items(
            self.file("labels", f"{source}.jsonl"),
            [replace(item, meta={**item.meta, MADE_BY: said}) for item in items],
        )

    def _by_first(self) -> tuple[Comparison, ...]:
        """What the first reward model says of the rest."""
        first = self.reward("icm_first")
        assert first is not None
        preferred = preferences(first, self.rest)
        labels = [None if each == 0 else bool(each > 0) for each in preferred]
        return comparisons(self.rest, labels)

    def _golden(self, source: str) -> list[bool | None]:
        gold = [bool(label_of(item)) for item in self.pairs]
        if source == "golden":
            return list(gold)
        self.reward("icm")
        share = self.told["icm"]["label_accuracy"]
        return perturbed(gold, accuracy=share, seed=self.seed).tolist()

    def _right(self, made: Sequence[Comparison]) -> float:
        """Share of comparisons that golden labels agree with."""
        gold = {
            (each.group, each.question, each.chosen, each.rejected)
            for each in comparisons(self.pairs, [label_of(item) for item in self.pairs])
        }
        agree = [(m.group, m.question, m.chosen, m.rejected) in gold for m in made]
        return accuracy(agree, [True] * len(agree)) if agree else float("nan")

    def reward(self, source: str) -> Reward | None:
        """The reward model of a source, trained or read back; None where the set has no labels."""
        if source not in self.models:
            self.models[source] = self._trained(source)
        for name, model in self.models.items():
            if name != source and model is not None:
                model.release()
        return self.models[source]

    def _trained(self, source: str) -> Reward | None:
        made = self.labelled(source)
        if not made:
            return None
        return self.taught(f"reward-{source}", made, seed=self.seed, labels=source)

    def taught(
        self, name: str, made: Sequence[Comparison], *, seed: int, labels: str, role: str = "reward"
    ) -> Reward:
        """A reward model of some comparisons, in a folder of its own for every setting."""
        fit = self.session.settings.fit(seed)
        own = short_key(self.scorer.name, digest_of(made), fit)
        return self.model.reward_model(
            made,
            self.file("models", f"{name}-{own}"),
            about={"labels": labels, "set": self.task.situation.dataset, "role": role},
            **fit,
        )

    def file(self, folder: str, name: str) -> Path:
        """A file of this seed, in a folder of the run."""
        own = f"{slug(self.task.situation.title)}-seed{self.seed}"
        return self.session.folder.folder / folder / f"{own}-{name}"


def short_key(*decides: Any) -> str:
    """Eight digits that tell apart what was trained with other settings."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]


def sources_of(task: Task, scorer: Any, session: Session) -> list[Sources]:
    """Every seed of a set."""
    return [
        Sources(task, to_label(task, scorer, session, seed=seed), session, scorer, seed)
        for seed in range(session.settings.seeds)
    ]


def preferences(reward: Reward, items: Sequence[Item]) -> np.ndarray:
    """How much higher the reward of the first answer of each pair is: [n]."""
    questions = [item.question for item in items]
    first = reward.rewards(questions, [item.choice for item in items])
    second = reward.rewards(questions, [str(item.choice_2) for item in items])
    return first - second
