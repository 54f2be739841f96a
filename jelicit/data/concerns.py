"""What is wrong with a set before any model reads it: shared rows, too few rows, one class."""

from __future__ import annotations

from collections.abc import Sequence

from jelicit.data.datasets import Dataset
from jelicit.data.items import Item, labels, with_target
from jelicit.data.overlap import overlap

FEW = 10
"""With fewer rows of a class than this, one row more or less moves AUROC by a tenth."""


def concerns(dataset: Dataset) -> list[str]:
    """One line for everything that a reader of results on this set has to know; [] if nothing."""
    lines = [
        f"{split}: {line}"
        for split, items in dataset.splits.items()
        if split != "test"
        for line in overlap(items, dataset.test).lines
    ]
    target = dataset.targets[0]
    told = unmeasurable(dataset.test, target) or few_rows(dataset.test, target)
    return [*lines, *([told] if told else [])]


def unmeasurable(items: Sequence[Item], target: str = "label", *, where: str = "test") -> str:
    """Why AUROC on these rows is no number; "" if it is one.

    Args:
        items: Rows to measure on; those without a truth value are passed over.
        target: Which label.
        where: What the rows are called in the message.
    """
    true, false = _classes(items, target)
    if not true + false:
        return f"{where}: none of {len(items)} rows has a truth value for {target!r} to measure"
    if not true or not false:
        which = "true" if true else "false"
        return (
            f"{where}: {target!r} is {which} in all {true + false} rows; AUROC and balanced "
            "accuracy need rows of both classes"
        )
    return ""


def few_rows(items: Sequence[Item], target: str = "label", *, where: str = "test") -> str:
    """Why a measure on these rows says little; "" if there are at least `FEW` of both classes."""
    true, false = _classes(items, target)
    if min(true, false) >= FEW:
        return ""
    return (
        f"{where}: only {true} true and {false} false rows of {target!r}: one row moves AUROC by "
        f"up to {1 / max(1, min(true, false)):.2f}"
    )


def _classes(items: Sequence[Item], target: str) -> tuple[int, int]:
    values = labels(with_target(items, target), target)
    return int((values == 1).sum()), int((values == 0).sum())
