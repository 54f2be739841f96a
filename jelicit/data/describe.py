"""What a set looks like before any model reads it: sizes, balance, and what predicts its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jelicit.data.datasets import Dataset
from jelicit.data.features import add_feature, get_feature
from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item, labels, with_target
from jelicit.data.overlap import overlap
from jelicit.data.shown import printable

if TYPE_CHECKING:
    from rich.table import Table


def describe(
    dataset: Dataset,
    *,
    features: Sequence[str] = (),
    seed: int = 0,
    format: str | PromptFormat | None = None,
) -> list[dict[str, Any]]:
    """One row per split and label: size, balance, and how well length and label predict it.

    Args:
        dataset: A loaded set.
        features: Names in `FEATURES` to add in turn first, to see that they tell nothing.
        seed: Seed of the added features.
        format: How items are shown, which decides what features they can have; None = as the set's
            first label is asked for.

    Returns:
        Rows with the keys
        - dataset, split, target: where, and which label ("label" or an alternative one);
        - rows: items of the split that have a truth value for the target, of `of` items in all;
        - groups: groups among them; groups_shared: those that another split has, too;
        - texts_shared: rows whose text another split has (`jelicit.data.overlap.text_key`);
        - true: share of True;
        - phi: correlation of the target with the label over the items that have both,
          (n11 n00 - n10 n01) / sqrt of the product of the four margins; nan if either is constant;
        - auroc: AUROC of the target as a score for the label (0.5: tells nothing);
        - information: mutual information of target and label, in bits;
        - length_auroc: AUROC of the bare length of `choice` in characters as a score for the
          target (pairs: len(choice) - len(choice_2)). A method must beat this.
        phi, auroc and information are None in the rows of the label itself.

    Raises:
        ValueError: If a feature is unknown, or does not fit an item or what its prompt shows.
    """
    splits = dict(dataset.splits)
    for name in features:
        form = format or next(iter(dataset.formats.values()))
        if name != "none" and (reason := get_feature(name).misfit((), form)):
            raise ValueError(f"{dataset.name} cannot have the feature {name!r}: {reason}")
        splits = {
            split: tuple(add_feature(items, name, seed=seed)) for split, items in splits.items()
        }
    rows = []
    for split, items in splits.items():
        elsewhere = [i for other, its in splits.items() if other != split for i in its]
        for target in _targets(items):
            place = {"dataset": dataset.name, "split": split, "target": target}
            rows.append({**place, **_describe(items, target, elsewhere)})
    return rows


_SHOWN = {
    "rows": "rows",
    "groups": "groups",
    "groups_shared": "shared",
    "texts_shared": "same text",
    "true": "true",
    "phi": "phi",
    "auroc": "AUROC",
    "information": "bits",
    "length_auroc": "length",
}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of `describe` as a rich table, without columns that are empty throughout.

    "shared" counts the groups, "same text" the rows that another split has, too (shown if there are
    any); "AUROC" and "bits" tell what the target says about the label, "length" is the AUROC of the
    claim's length.
    """
    from rich import box  # only for who looks at it
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("set", "target"):
        shown.add_column(name, overflow="fold")
    counts = ("groups_shared", "texts_shared")
    silent = [name for name in counts if not any(row[name] for row in rows)]
    columns = [n for n in _SHOWN if n not in silent and any(row[n] is not None for row in rows)]
    for name in columns:
        shown.add_column(_SHOWN[name], justify="right", no_wrap=True)
    for row in rows:
        cells = (_cell(row[name]) for name in columns)
        place = f"{row['dataset']}/{row['split']}"
        shown.add_row(_plain(place), _plain(row["target"]), *cells)
    return shown


def _plain(name: str) -> str:
    """A name as a table shows it: neither markup nor anything that a terminal obeys."""
    from rich.markup import escape

    return escape(printable(name))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _targets(items: Sequence[Item]) -> list[str]:
    """The label and every alternative label that some item has, in the order met."""
    names = dict.fromkeys(name for item in items for name in item.alt_labels)
    return ["label", *names]


def _describe(items: Sequence[Item], target: str, elsewhere: Sequence[Item]) -> dict[str, Any]:
    able = with_target(items, target)
    values = labels(able, target)
    groups = {item.group for item in able}
    return {
        "rows": len(able),
        "of": len(items),
        "groups": len(groups),
        "groups_shared": len(groups & {item.group for item in elsewhere}),
        "texts_shared": len(overlap(able, elsewhere).texts),
        "true": float(values.mean()) if len(able) else float("nan"),
        **_dependence(able, target),
        "length_auroc": _auroc(_lengths(able), values),
    }


def _dependence(items: Sequence[Item], target: str) -> dict[str, float | None]:
    if target == "label":
        return {"phi": None, "auroc": None, "information": None}
    # Items without a truth value are nan in `label`: all three measures pass over them.
    alt, label = labels(items, target), labels(items)
    return {
        "phi": phi(alt, label),
        "auroc": _auroc(alt, label),
        "information": mutual_information(alt, label),
    }


def _lengths(items: Sequence[Item]) -> np.ndarray:
    return np.array([len(i.choice) - len(i.choice_2 or "") for i in items], dtype=np.float32)


def _auroc(scores: np.ndarray, label: np.ndarray) -> float:
    from jelicit.metrics import auroc  # JAX: `jelicit.data` itself does without

    if not len(label):
        return float("nan")
    # auroc is compiled once per length: few lengths, filled up with rows that do not count.
    fill = (0, (1 << len(label).bit_length()) - len(label))
    padded = np.pad(label.astype(np.float32), fill, constant_values=np.nan)
    return float(auroc(np.pad(scores.astype(np.float32), fill), padded))


def _counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Counts [2, 2] of (a, b), False first."""
    return np.array([[np.sum((a == x) & (b == y)) for y in (0, 1)] for x in (0, 1)], dtype=float)


def phi(a: np.ndarray, b: np.ndarray) -> float:
    """The phi coefficient of two binary arrays [n]: their correlation. nan if one is constant."""
    counts = _counts(a, b)
    margins = np.concatenate([counts.sum(0), counts.sum(1)])
    if not margins.all():
        return float("nan")
    determinant = counts[1, 1] * counts[0, 0] - counts[1, 0] * counts[0, 1]
    return float(determinant / np.sqrt(margins.prod()))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two binary arrays [n], in bits; nan if there are no rows."""
    counts = _counts(a, b)
    if not counts.sum():
        return float("nan")
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float(np.sum(joint[some] * np.log2(joint[some] / independent[some])))
