"""Situations: what is asked of which items, and the runs that are fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item, known_label, known_labels, labels
from jelicit.data.subsets import balanced_runs
from jelicit.method_names import in_format
from jelicit.metrics import group_bootstrap
from jelicit.studies.scoring import Target


def named(label: str) -> str:
    """What rows call a label of `Item`: its own, "label", is the truth."""
    return "truth" if label == "label" else label


@dataclass(frozen=True, kw_only=True)
class EasySet:
    """The labelled set that easy-to-hard methods learn from: plain items, their own prompt.

    Attributes:
        name: Of the set.
        items: E items with a truth value.
        format: Their prompt format, or its name.
        answers: Their labels [E] where they are at hand as an array; None reads them off the items.
    """

    name: str
    items: tuple[Item, ...]
    format: str | PromptFormat
    answers: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """The labels [E], 1 or 0."""
        return labels(self.items) if self.answers is None else self.answers


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A set whose prompt asks for `target` while `spurious` is in the data.

    Labels go by the names of `Item`: "label" is the set's own, called "truth" in rows.

    Attributes:
        dataset: What rows call the set.
        feature: What is in its texts beside the truth; "none" for plain claims.
        format: Prompt format that asks for the target, or its name.
        target: The label that is asked for.
        spurious: The label that is not, or None.
        train: Hard train items [N].
        test: Test items [n]; may be empty where only probes are wanted.
        easy: The easy labelled set, or None.
        prompt: What rows, messages and files call the format where several are compared; "" where
            there is one.
        answers: The targets as arrays, where labels do not come from the items (`of_labels`).
    """

    dataset: str
    feature: str = "none"
    format: str | PromptFormat = "claim"
    target: str = "label"
    spurious: str | None = None
    train: tuple[Item, ...]
    test: tuple[Item, ...] = ()
    easy: EasySet | None = None
    prompt: str = ""
    answers: tuple[Target, ...] | None = field(default=None, hash=False)

    @classmethod
    def of_labels(
        cls,
        train: Any,
        test: Any = None,
        *,
        others: Mapping[str, tuple[Any, Any]] | None = None,
        easy: Any = None,
        groups: Sequence[Any] | None = None,
        dataset: str = "arrays",
        feature: str = "none",
    ) -> Situation:
        """A situation of which only labels are at hand, for hidden states of one's own.

        Args:
            train: Labels of the train rows [N]: 1, 0, or nan for no truth value.
            test: Labels of the test rows [n].
            others: Name of another label -> (train, test); the first is the spurious one.
            easy: Labels of the easy rows [E].
            groups: What belongs to one question among the test rows [n]; None = each its own.
            dataset: What rows call the set.
            feature: What rows call what is in the texts.

        Raises:
            ValueError: As many groups as test rows are needed.
        """
        others = dict(others or {})
        pairs = {"truth": (train, test), **others}
        answers = tuple(
            Target(
                name=name,
                role="truth" if name == "truth" else "spurious",
                train=known_labels(of_train, f"labels of {name!r} in train"),
                test=np.zeros(0)
                if of_test is None
                else known_labels(of_test, f"labels of {name!r} in test"),
            )
            for name, (of_train, of_test) in pairs.items()
        )
        known = None if easy is None else known_labels(easy, "labels of the easy rows")
        return cls(
            dataset=dataset,
            feature=feature,
            spurious=next(iter(others), None),
            train=_placeholders(answers[0].train, "train"),
            test=_placeholders(answers[0].test, "test", groups),
            easy=None
            if known is None
            else EasySet(
                name="easy", items=_placeholders(known, "easy"), format="claim", answers=known
            ),
            answers=answers,
        )

    @property
    def title(self) -> str:
        """For messages, and what files of the situation are called by."""
        feature = "" if self.feature == "none" else f", {self.feature}"
        return f"{self.place}{feature}"

    @property
    def place(self) -> str:
        """The set, and the format where several are compared."""
        return in_format(self.dataset, self.prompt) if self.prompt else self.dataset

    @property
    def asked(self) -> np.ndarray:
        """The label that is asked for, of the train rows [N]."""
        return labels(self.train, self.target) if self.answers is None else self.answers[0].train

    def targets(self) -> tuple[Target, ...]:
        """The asked-for label and, where there is one, the spurious one."""
        if self.answers is not None:
            return self.answers
        return tuple(
            Target(
                name=named(name),
                role=role,
                train=labels(self.train, name),
                test=labels(self.test, name),
            )
            for name, role in ((self.target, "truth"), (self.spurious, "spurious"))
            if name is not None
        )

    def boot(self, samples: int) -> jax.Array:
        """Bootstrap weights [B, n] over the groups of the test items."""
        return group_bootstrap(jax.random.key(0), [item.group for item in self.test], samples)

    def about(self, model: str) -> dict[str, Any]:
        """What every row says of the situation."""
        return {
            "dataset": self.dataset,
            "feature": self.feature,
            "asked": named(self.target),
            "model": model,
            "n_test": len(self.test),
            **({"format": self.prompt} if self.prompt else {}),
        }


def _placeholders(
    answers: np.ndarray, split: str, groups: Sequence[Any] | None = None
) -> tuple[Item, ...]:
    """Items that stand for rows of an array."""
    names = np.arange(len(answers)) if groups is None else np.asarray(groups)
    if names.shape != answers.shape:
        raise ValueError(f"test_groups has shape {names.shape}; test has {len(answers)} rows")
    # Bootstrap draws go by the order of the names: that of the ranks is that of the groups.
    ranks = np.unique(names, return_inverse=True)[1].tolist()
    return tuple(
        Item(
            id=f"{split}/{row}",
            choice=f"row {row}",
            label=known_label(answer),
            group=f"{split} group {ranks[row]:09d}",
            split=split,
        )
        for row, answer in enumerate(answers.tolist())
    )


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The fits of a situation: what sets them apart, and the train rows of each.

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

    @classmethod
    def balanced(cls, situation: Situation, seeds: int, *, size: int | None = None) -> Runs:
        """A run per seed, its train rows balanced over the asked-for label and the spurious one.

        Args:
            situation: What is measured.
            seeds: How many runs.
            size: Train rows of a run; None = 80 % of the largest balanced subset.
        """
        by_role = {target.role: target.train for target in reversed(situation.targets())}
        subsets = balanced_runs(by_role["truth"], by_role.get("spurious"), runs=seeds, size=size)
        return cls(about=tuple({"seed": seed} for seed in range(seeds)), subsets=subsets)

    @classmethod
    def of_all_rows(cls, situation: Situation, seeds: int) -> Runs:
        """A run per seed on all train rows: runs differ in where the fits start."""
        return cls.on(np.ones(len(situation.train), bool), seeds)

    @classmethod
    def on(cls, rows: np.ndarray, seeds: int) -> Runs:
        """A run per seed on the same rows, bool [N]."""
        return cls(
            about=tuple({"seed": seed} for seed in range(seeds)), subsets=np.tile(rows, (seeds, 1))
        )

    @classmethod
    def none(cls, situation: Situation) -> Runs:
        """No run at all."""
        return cls(about=(), subsets=np.zeros((0, len(situation.train)), bool))
