"""Which rows a run trains on: a share of one class, or balanced classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jelicit.data.items import known_label

Labels = ArrayLike | Sequence[bool | float | None]
"""[n] of True / 1, False / 0, and None / nan / pandas' NA for no truth value; a Series is one."""


def class_share_rows(
    labels: Labels, *, share: float, seed: int | Sequence[int], size: int | None = None
) -> np.ndarray:
    """Rows in which a share of the labels is True (challenge 2 of Canavan et al. 2026).

    n_true = round(share * size), half rounded up, and n_false = size - n_true rows, both exact,
    drawn without replacement. With one seed the true rows of a smaller share are among those of a
    larger one (and the other way round for false rows), so that shares differ by as few rows as
    they can.

    Args:
        labels: [n] of 1 = True, 0 = False, nan or None = no truth value (never drawn).
        share: Share of True, in [0, 1].
        seed: Same labels and seed, same rows.
        size: Number of rows; min(#true, #false) by default, so that it is the same at every share
            and every share can be had.

    Returns:
        int64 [size], ascending row numbers.

    Raises:
        ValueError: If share is outside [0, 1], or a class has too few rows for share and size.
    """
    number = isinstance(share, int | float | np.integer | np.floating)
    if not number or not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; allowed: 0 to 1 (the share of True labels)")
    values = _as_labels(labels, "labels")
    rng = np.random.default_rng(seed)
    true_rows = rng.permutation(np.flatnonzero(values == 1))
    false_rows = rng.permutation(np.flatnonzero(values == 0))
    if size is None:
        size = min(len(true_rows), len(false_rows))
    if size < 1:
        raise ValueError(
            f"size is {size} with {len(true_rows)} true and {len(false_rows)} false rows; "
            "it must be at least 1 (give size= where one class is empty)"
        )
    n_true = int(np.floor(share * size + 0.5))
    n_false = size - n_true
    if n_true > len(true_rows) or n_false > len(false_rows):
        raise ValueError(
            f"share {share} of {size} rows needs {n_true} true and {n_false} false rows; the data "
            f"has {len(true_rows)} true and {len(false_rows)} false (lower size= or change share)"
        )
    return np.sort(np.concatenate([true_rows[:n_true], false_rows[:n_false]]))


def balanced_rows(
    labels: Labels,
    alt: Labels | None = None,
    *,
    size: int | None = None,
    seed: int | Sequence[int],
) -> np.ndarray:
    """Rows with as many True as False labels, or 2x2-balanced over (label, alt).

    In a 2x2-balanced subset the four cells are equal, so the label says nothing about `alt`.

    Args:
        labels: [n] of 1 = True, 0 = False, nan or None = no truth value (never drawn).
        alt: [n] of a second label of the same rows, or None for class balance alone.
        size: Number of rows, a multiple of the number of cells (2 or 4); as many as there can be
            by default.
        seed: Same labels and seed, same rows.

    Returns:
        int64 [size], ascending row numbers.

    Raises:
        ValueError: If the lengths differ, a cell is empty, or size cannot be had; the message has
            the cells' counts.
    """
    columns = [_as_labels(labels, "labels")]
    if alt is not None:
        columns.append(_as_labels(alt, "alt"))
        if len(columns[0]) != len(columns[1]):
            raise ValueError(f"{len(columns[0])} labels but {len(columns[1])} alt labels")
    rng = np.random.default_rng(seed)
    cells = [rng.permutation(rows) for rows in _cells(columns)]
    largest = len(cells) * min(len(rows) for rows in cells)
    if size is None:
        size = largest
    if size < 1 or size % len(cells) or size > largest:
        counts = ", ".join(str(len(rows)) for rows in cells)
        names = "true, false" if alt is None else "true+alt, true only, alt only, neither"
        raise ValueError(
            f"cannot draw {size} balanced rows: the cells ({names}) have {counts} rows; "
            f"allowed: a multiple of {len(cells)} from {len(cells)} to {largest}"
        )
    each = size // len(cells)
    return np.sort(np.concatenate([rows[:each] for rows in cells]))


def balanced_runs(
    labels: Labels, alt: Labels | None = None, *, runs: int, size: int | None = None
) -> np.ndarray:
    """The train rows of several runs, each with a balanced draw of its own.

    Args:
        labels: As for `balanced_rows`.
        alt: As for `balanced_rows`.
        runs: How many; run r draws with the seed r.
        size: Rows of a run; by default 80 % of the largest balanced subset (at least one row of
            each cell), so that runs differ.

    Returns:
        bool [runs, n].

    Raises:
        ValueError: As for `balanced_rows`.
    """
    if size is None:
        cells = 2 if alt is None else 4
        largest = len(balanced_rows(labels, alt, seed=0))
        size = max(cells, int(0.8 * largest) // cells * cells)
    chosen = np.zeros((runs, len(labels)), bool)  # type: ignore[arg-type]
    for seed in range(runs):
        chosen[seed, balanced_rows(labels, alt, size=size, seed=seed)] = True
    return chosen


def rebalanced(subsets: np.ndarray, verdicts: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Train rows with as many of each verdict, where a weak classifier gives the verdicts.

    What Canavan et al. 2026 suggest against imbalanced train sets: no label is needed, since the
    classifier (the model's own zero-shot answer) says which class is rare. Of the more frequent
    verdict as many rows are drawn as the other one has; a run whose rows all have one verdict
    stays as it is.

    Args:
        subsets: the train rows of each run, bool [R, N].
        verdicts: bool [N], what the weak classifier says of every row.
        seed: same arguments, same rows.

    Returns:
        bool [R, N], each run's rows among those it had.

    Raises:
        ValueError: If there is not one verdict per row.
    """
    verdicts = np.asarray(verdicts, bool)
    if verdicts.shape != subsets.shape[1:]:
        raise ValueError(f"verdicts have shape {verdicts.shape} for {subsets.shape[1]} rows")
    chosen = np.zeros_like(subsets)
    for run, rows in enumerate(subsets):
        classes = [np.flatnonzero(rows & (verdicts == value)) for value in (True, False)]
        rng = np.random.default_rng([seed, run])
        least = min(map(len, classes)) or max(map(len, classes))
        for rows_of_verdict in classes:
            chosen[run, rng.permutation(rows_of_verdict)[:least]] = True
    return chosen


def _as_labels(labels: Labels, name: str) -> np.ndarray:
    """The labels as float64 [n] of 1, 0 and nan; None becomes nan."""
    try:
        values = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError):  # pandas' NA is no number, and a text might be anything
        values = np.array([_as_number(label, f"{name}[{row}]") for row, label in enumerate(labels)])  # type: ignore[arg-type]
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}; expected one dimension [n]")
    wrong = ~(np.isnan(values) | (values == 0) | (values == 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"{name}[{row}] is {values[row]}; allowed: 0, 1 and nan (or None)")
    return values


def _as_number(label: object, where: str) -> float:
    try:
        known = known_label(label)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return float("nan") if known is None else float(known)


def _cells(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rows of every combination of values, True first; rows with a nan are in none."""
    cells = [np.arange(len(columns[0]))]
    for column in columns:
        cells = [rows[column[rows] == value] for rows in cells for value in (1, 0)]
    return cells
