"""What ICM labels: one set and its question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from jelicit.data.concerns import few_rows, unmeasurable
from jelicit.data.describe import describe, table
from jelicit.data.items import Item, with_target
from jelicit.data.overlap import held_out, of_other_groups
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.icm import with_mirrors
from jelicit.studies.formats import (
    check_shown,
    compared_as,
    held_out_as_shown,
    tell_ambiguous,
)
from jelicit.studies.session import Session
from jelicit.studies.sets import read_set
from jelicit.studies.situation import Situation


@dataclass(frozen=True)
class Task:
    """One set: what is asked of it, and which items there are.

    Attributes:
        situation: The set, what is asked, and its items.
        rule: Consistency rule between labels of one question.
        more: Methods that this set is measured with beside those of the settings.
    """

    situation: Situation
    rule: str
    more: tuple[str, ...] = ()


def task_of(
    name: str,
    session: Session,
    *,
    tests: int,
    rule: str | None,
    format: str | PromptFormat | None = None,
) -> Task:
    """One set, with all text loaded.

    Train items whose text is a test item's are treated as the session's settings say; where a model
    is trained, so are those of a test item's group.

    Args:
        name: A named set or a folder.
        session: Where the set is described; its settings say what becomes of shared items, and
            whether a model is trained.
        tests: Most test items.
        rule: Consistency rule; None = asymmetry for pairs, else answer.
        format: The prompt format, or its name, which also says which label is asked for; None =
            the set's own.

    Raises:
        ValueError: No item has a truth value, all test items have the same one, the items lack what
            the format shows, or train items are test items and the settings refuse that, or none is
            left.
    """
    dataset = read_set(name, session, max_rows=None)
    session.console.print(table(describe(dataset)))
    form = get_format(format or dataset.formats[dataset.targets[0]])
    target = form.target
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        label = (
            "truth value" if target == "label" else f"label {target!r}, which --format asks for,"
        )
        raise ValueError(f"{name}: no item has a {label} to measure against; use another set")
    check_shown(name, (*train, *test), form)
    if wrong := unmeasurable(test, target):
        raise ValueError(f"{name}: {wrong}")
    test = drawn(test, tests, seed=0)
    if doubtful := few_rows(test, target):
        session.doubt(doubtful, of=name)
    policy, told = session.settings.overlap, partial(session.doubt, of=name)
    if format is None:
        train = held_out(train, test, policy=policy, say=told)
    else:
        tell_ambiguous(name, (*train, *test), form, target, session.doubt)
        train = held_out_as_shown(train, test, form, policy=policy, say=told)
    if session.settings.trains:
        train = apart(name, train, test, session)
    pairs = all(item.choice_2 is not None for item in train)
    situation = Situation(
        dataset=dataset.name,
        format=form,
        prompt=compared_as(form, session.settings),
        target=target,
        train=tuple(with_mirrors(train)) if pairs else train,
        test=test,
    )
    return Task(situation, rule or ("asymmetry" if pairs else "answer"))


def apart(
    name: str, train: Sequence[Item], test: Sequence[Item], session: Session, *, what: str = "items"
) -> tuple[Item, ...]:
    """The train items of no test group, for studies that train a model; that some were is told.

    Args:
        name: Of the set, for messages.
        train: What may be trained on.
        test: What is measured on.
        session: Its settings say what becomes of train items of a test group.
        what: What messages call the items.

    Raises:
        ValueError: There are some and the settings refuse that, or none is left.
    """
    left = of_other_groups(train, test)
    shared = f"{len(train) - len(left)} of {len(train)} train {what} are of a test question"
    if len(left) == len(train):
        return left
    if not left:
        raise ValueError(f"{name}: {shared}, so none is left to train on; give another set")
    if session.settings.overlap == "refuse":
        raise ValueError(
            f"{name}: {shared}; leave them out with --overlap drop, or give another set"
        )
    session.doubt(f"{shared} and are left out", of=name)
    return left


def drawn(items: Sequence[Item], count: int, *, seed: int) -> tuple[Item, ...]:
    """Whole groups at random, at most `count` items of them, in the order of the draw."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    names, chosen = list(groups), []
    for place in np.random.default_rng(seed).permutation(len(names)):
        members = groups[names[place]]
        if len(chosen) + len(members) <= count:
            chosen += members
    return tuple(chosen)
