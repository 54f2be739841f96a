"""Named sets as situations: plain claims, the easy set."""

from __future__ import annotations

from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.items import with_target
from jelicit.studies.situation import EasySet, Situation


def easy_set(name: str | None, *, task: str, max_rows: int) -> EasySet | None:
    """Load the easy labelled set.

    Args:
        name: A set's name or folder; None or "none" for no easy set.
        task: Name of the set that is tested: it cannot be its own easy set.
        max_rows: Most rows.

    Raises:
        ValueError: The easy set is the task itself, or has no labelled item.
        ConnectionError: It is on the hub, and the hub cannot be reached.
    """
    if name in (None, "none"):
        return None
    try:
        dataset = load_dataset(name, max_train=max_rows)
    except ConnectionError as error:
        raise ConnectionError(
            f"{error}\n  The easy set {name!r} of {task} is needed by easy-to-hard methods and the "
            "easy orientation: name another one (--easy pocket/larger_than, --easy FOLDER), or do "
            "without (--easy none)"
        ) from error
    if dataset.name == task:
        raise ValueError(
            f"the easy set of {task} is {task} itself: its labels would teach the very task; name "
            "another one with --easy, or --easy none"
        )
    target = dataset.targets[0]
    items = tuple(with_target(dataset.train, target))
    if target != "label" or not items:
        raise ValueError(f"easy set {name!r} has no items with a truth value; choose another one")
    return EasySet(name=dataset.name, items=items, format=dataset.formats[target])


def asking(dataset: Dataset, target: str, *, easy: EasySet | None = None) -> Situation:
    """A set's claims as they are, with a prompt that asks for a target.

    Raises:
        ValueError: No item of train or test has a value for it.
    """
    train, test = (tuple(with_target(s, target)) for s in (dataset.train, dataset.test))
    if not train or not test:
        label = "truth value" if target == "label" else f"label {target!r}"
        raise ValueError(
            f"{dataset.name}: no item of {'train' if not train else 'test'} has a {label}, so "
            "there is no truth to find; use a set with labels"
        )
    return Situation(
        dataset=dataset.name,
        format=dataset.formats[target],
        target=target,
        train=train,
        test=test,
        easy=easy,
    )
