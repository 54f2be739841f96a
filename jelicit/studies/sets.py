"""Named sets as situations: plain claims, the easy set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jelicit.data.concerns import few_rows, unmeasurable
from jelicit.data.datasets import Dataset, load_dataset, reads_mirror
from jelicit.data.items import Item, labels, with_target
from jelicit.data.overlap import held_out
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.studies.formats import (
    check_shown,
    compared_as,
    held_out_as_shown,
    only_format,
    tell_ambiguous,
)
from jelicit.studies.session import Session
from jelicit.studies.situation import EasySet, Situation

LEAST = 2
"""Test rows of a class, at the least: one row alone is missing from a third of all resamples."""


def load(name: str, hub_root: Path | None, **options: Any) -> Dataset:
    """A set, from a copy of the hub's files where one is given and the set is of the hub.

    Args:
        name: Of a set, folder or file.
        hub_root: The folder of copies; see `load_dataset`.
        options: Of `load_dataset`.

    Raises:
        ValueError: See `load_dataset`, which raises others, too.
    """
    return load_dataset(name, hub_root=hub_root if reads_mirror(name) else None, **options)


def read_set(name: str, session: Session, *, max_rows: int | None) -> Dataset:
    """A set of the settings; what was decided in reading it is told (`Dataset.notes`).

    Args:
        name: Of a set, folder or file.
        session: The run.
        max_rows: Most rows of train, and of test; None = all.

    Raises:
        ValueError: See `load_dataset`, which raises others, too.
    """
    hub_root = session.settings.hub_root
    dataset = load(name, hub_root, max_train=max_rows, max_test=max_rows)
    for note in dataset.notes:
        session.doubt(note, of=dataset.name)
    return dataset


def easy_for(
    dataset: Dataset, session: Session, *, test: Sequence[Item], wanted: str | None = None
) -> EasySet | None:
    """The easy labelled set of a set: the one that was asked for, or the set's own choice.

    What was decided in reading it is told.

    Args:
        dataset: The set that is tested.
        session: Its settings say which, how many rows, and what to do with rows that test has.
        test: The test items, which no row of the easy set may show.
        wanted: The set's own choice, if not `dataset.easy`.

    Raises:
        ValueError: See `easy_set`, which raises others, too.
    """
    settings = session.settings
    told = partial(session.doubt, of=dataset.name)
    easy = easy_set(
        settings.easy or wanted or dataset.easy,
        task=dataset.name,
        max_rows=settings.max_rows,
        hub_root=settings.hub_root,
        say=told,
    )
    if easy is None:
        return None
    items = held_out(easy.items, test, policy=settings.overlap, say=told, what="easy")
    return replace(easy, items=items)


def easy_set(
    name: str | None,
    *,
    task: str,
    max_rows: int,
    hub_root: Path | None = None,
    say: Callable[[str], object],
) -> EasySet | None:
    """Load the easy labelled set.

    Args:
        name: A set's name or folder; None or "none" for no easy set.
        task: Name of the set that is tested: it cannot be its own easy set.
        max_rows: Most rows.
        hub_root: Folder of copies of the hub's files, if any.
        say: Told what was decided in reading it (`Dataset.notes`).

    Raises:
        ValueError: The easy set is the task itself, or has no labelled item.
        ConnectionError: It is on the hub, and the hub cannot be reached.
        FileNotFoundError: There is no such folder or file, or the copies lack the set.
    """
    if name in (None, "none"):
        return None
    try:
        dataset = load(name, hub_root, max_train=max_rows)
    except (ConnectionError, FileNotFoundError) as error:
        kind = ConnectionError if isinstance(error, ConnectionError) else FileNotFoundError
        raise kind(
            f"{error}\n  The easy set {name!r} of {task} is needed by easy-to-hard methods and the "
            "easy orientation: name another one (--easy pocket/larger_than, --easy FOLDER), or do "
            "without (--easy none)"
        ) from error
    if dataset.name == task:
        raise ValueError(
            f"the easy set of {task} is {task} itself: its labels would teach the very task; name "
            "another one with --easy, or --easy none"
        )
    for note in dataset.notes:
        say(f"easy set {dataset.name}: {note}")
    target = dataset.targets[0]
    items = tuple(with_target(dataset.train, target))
    if target != "label" or not items:
        raise ValueError(f"easy set {name!r} has no items with a truth value; choose another one")
    return EasySet(name=dataset.name, items=items, format=dataset.formats[target])


def check_measurable(
    name: str, test: Sequence[Item], target: str = "label", *, say: Callable[[str], object]
) -> None:
    """Refuse test rows that nothing can be measured on, and tell where little can.

    Args:
        name: Of the set, for messages.
        test: The test rows.
        target: The label that is asked for.
        say: Told where test rows are few.

    Raises:
        ValueError: A class has no row, or a single one: draws of the bootstrap often lack it.
    """
    if wrong := unmeasurable(test, target):
        raise ValueError(f"{name}: {wrong}")
    asked = labels(with_target(test, target), target)
    true, false = int((asked == 1).sum()), int((asked == 0).sum())
    if min(true, false) < LEAST:
        raise ValueError(
            f"{name}: test: {true} true and {false} false rows of {target!r}; AUROC and its "
            f"interval need at least {LEAST} of each class: add test rows"
        )
    if doubtful := few_rows(test, target):
        say(f"{name}: {doubtful}")


def asking(
    dataset: Dataset,
    target: str,
    session: Session,
    *,
    spurious: str | None = None,
    form: PromptFormat | None = None,
) -> Situation:
    """A set's claims as they are, with a prompt that asks for a target.

    Train rows whose text is a test row's are treated as the session's settings say.

    Args:
        dataset: The set.
        target: The label that is asked for.
        session: The run.
        spurious: A label of the set that is not asked for.
        form: The format that asks for the target; None = the one of the settings, else the set's
            own.

    Raises:
        ValueError: No item of train or test has a value for it, test has no two rows of each
            class, the items lack what the format shows, the settings have several formats or one
            that asks for another label, or train rows are test rows and the settings refuse that.
    """
    form = form or only_format(target, session.settings)
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        label = "truth value" if target == "label" else f"label {target!r}"
        raise ValueError(
            f"{dataset.name}: no item of {'train' if not train else 'test'} has a {label}, so "
            "there is no truth to find; use a set with labels"
        )
    check_shown(dataset.name, (*train, *test), form or get_format(dataset.formats[target]))
    check_measurable(dataset.name, test, target, say=session.doubt)
    overlap, told = session.settings.overlap, partial(session.doubt, of=dataset.name)
    if form is None:
        train = held_out(train, test, policy=overlap, say=told)
    else:
        tell_ambiguous(dataset.name, (*train, *test), form, target, session.doubt)
        train = held_out_as_shown(train, test, form, policy=overlap, say=told)
    return Situation(
        dataset=dataset.name,
        format=form or dataset.formats[target],
        prompt=compared_as(form, session.settings),
        target=target,
        spurious=spurious,
        train=train,
        test=test,
    )
