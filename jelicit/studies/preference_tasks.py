"""Pairs of answers to learn rewards from: which are labelled, by whom, and which are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from jelicit.data.concerns import few_rows
from jelicit.data.describe import describe, table
from jelicit.data.items import Item, with_target
from jelicit.data.overlap import held_out, of_other_groups
from jelicit.data.preferences import one_order, pairs_of_claims
from jelicit.data.prompts import get_format
from jelicit.icm import with_mirrors
from jelicit.studies.formats import check_shown, only_format
from jelicit.studies.icm_tasks import Task, apart, drawn
from jelicit.studies.session import Session
from jelicit.studies.sets import read_set
from jelicit.studies.situation import Situation


def preference_task(name: str, session: Session, *, tests: int) -> Task:
    """A set of pairs, in both orders, with all text loaded; claims are paired first.

    Train pairs that share a text or a question with a test pair are treated as the session's
    settings say; a group on both sides is an error whatever they say.

    Args:
        name: A named set or a folder, of pairs or of claims.
        session: Where the set is described; its settings say what becomes of shared pairs.
        tests: Most test pairs.

    Raises:
        ValueError: No pair has a label, the items lack what the format shows, or train and test
            share a question.
    """
    dataset = read_set(name, session, max_rows=None)
    session.console.print(table(describe(dataset)))
    train, test = (with_target(split, "label") for split in (dataset.train, dataset.test))
    if not train or not test:
        raise ValueError(f"{name}: no item has a label to measure against; use another set")
    own = only_format("label", session.settings)
    if all(item.choice_2 is not None for item in (*train, *test)):
        form = own or get_format(dataset.formats["label"])
    else:
        train, test = (list(pairs_of_claims(split)) for split in (train, test))
        form = own or get_format("pair")
        session.say(f"{name}: claims as pairs, {len(train)} to train and {len(test)} to test")
    check_shown(name, (*train, *test), form)
    tested = drawn(with_mirrors(one_order(test)), 2 * tests, seed=0)
    if doubtful := few_rows(tested):
        session.doubt(doubtful, of=name)
    told = partial(session.doubt, of=name)
    left = held_out(tuple(train), tested, policy=session.settings.overlap, say=told)
    return Task(
        Situation(
            dataset=dataset.name,
            format=form,
            train=apart(name, with_mirrors(left), tested, session, what="pairs"),
            test=tested,
        ),
        "asymmetry",
    )


def apart_from(task: Task, tested: Sequence[Item], session: Session) -> Task:
    """The task without train pairs whose text is one of a benchmark's.

    Raises:
        ValueError: There are some and the settings refuse that, or none is left.
    """
    if not tested:
        return task
    train = held_out(
        task.situation.train,
        tested,
        policy=session.settings.overlap,
        say=partial(session.doubt, of=f"{task.situation.dataset}, --bench"),
    )
    return replace(task, situation=replace(task.situation, train=train))


def without_groups(task: Task, taken: Sequence[Item]) -> Task:
    """The task with the train pairs of other groups only."""
    train = of_other_groups(task.situation.train, taken)
    if not train:
        raise ValueError(
            f"{task.situation.dataset}: all its train pairs are set aside; give a smaller --judge"
        )
    return replace(task, situation=replace(task.situation, train=train))


def rest_of(task: Task, searched: Sequence[Item], count: int, *, seed: int) -> tuple[Item, ...]:
    """Pairs to label by a reward model: of other groups than those that were searched.

    Args:
        task: The set.
        searched: What ICM labels.
        count: Most pairs; fewer where the set has no more.
        seed: Of the draw.
    """
    others = of_other_groups(task.situation.train, searched)
    return one_order(drawn(others, 2 * count, seed=seed))


def right_answers(items: Sequence[Item]) -> dict[str, set[str]]:
    """Question -> its right answers, where the labels of pairs say which they are."""
    right: dict[str, set[str]] = {}
    for item in items:
        if item.label is not None and item.choice_2 is not None:
            answer = item.choice if item.label else item.choice_2
            right.setdefault(item.question, set()).add(answer)
    return right
