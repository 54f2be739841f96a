"""How far each method is behind the best that sees the same labels, and whether that is noise.

Of one situation (and layer, share of true claims, ... where a study has several) the best of a
block is the method with the highest mean AUROC over seeds; the difference to it is taken resample
by resample, with the same questions drawn for both. A method whose interval of the difference
reaches 0 is within noise of the best. Seeds are no part of the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jelicit import metrics
from jelicit.method_groups import CEILING, CONTROL, EASY_TO_HARD, FROM_EASY, WITH, WITHOUT
from jelicit.method_names import method_of
from jelicit.probes.method import EASY, TARGETS
from jelicit.probes.registry import known_methods
from jelicit.results.intervals import with_interval
from jelicit.studies.measuring import Measured
from jelicit.studies.settings import REBALANCED

COLUMNS = ("behind", "behind_low", "behind_high", "near_best")
"""What rows say of it: AUROC, its interval, and whether the interval reaches 0."""

_KEY = ("method", "orientation")


def block_of(method: str) -> str:
    """Which labels a method sees; the sign of an unlabelled direction is no part of it."""
    needs = {known.name: known.needs for known in known_methods()}
    if (seen := needs.get(REBALANCED.get(method, method))) is not None:
        return WITH if TARGETS in seen else FROM_EASY if EASY in seen else WITHOUT
    return {CEILING: WITH, EASY_TO_HARD: FROM_EASY}.get(method_of(method).group, WITHOUT)


class _Area(NamedTuple):
    value: float
    samples: np.ndarray


def add_near_best(measured: Measured, labels: np.ndarray, boot: jax.Array) -> None:
    """Add `COLUMNS` to the rows about the label that the prompt asks for.

    Rows of controls, of methods that were not scored item by item, and those that stand for several
    settings (a prompt beside probes of several layers) have none.

    Args:
        measured: Rows and item scores of one situation; the rows are changed.
        labels: What the prompt asks for, of the test items [n]; nan where it has none.
        boot: Bootstrap weights [B, n] over the groups of the test items.
    """
    known = labels[~np.isnan(labels)]
    if not measured.scores or len(np.unique(known)) < 2:
        return
    areas = _areas(measured, labels, boot)
    settings = _settings(measured)
    for row in measured.rows:
        if row["role"] != "truth" or method_of(row["method"]).group == CONTROL:
            continue
        at = [here for here in settings if _fits(row, here)]
        if len(at) == 1:
            row |= _columns(row, at[0], areas)


def _settings(measured: Measured) -> list[dict[str, Any]]:
    """What sets scores apart beside their method: the fullest descriptions that there are."""
    found: list[dict[str, Any]] = []
    for about, _ in measured.scores:
        here = {name: value for name, value in about.items() if name not in _KEY}
        if here not in found:
            found.append(here)
    return [a for a in found if not any(a.items() < b.items() for b in found)]


def _fits(row: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a row is of these settings; what it does not say is no difference."""
    return all(
        row.get(name) in (None, value) or row[name] != row[name] for name, value in settings.items()
    )


_Areas = Sequence[tuple[dict[str, Any], _Area]]


def _areas(measured: Measured, labels: np.ndarray, boot: jax.Array) -> _Areas:
    """Mean AUROC over seeds of every column of item scores, and that of every resample."""
    runs = [np.atleast_2d(np.asarray(scores, np.float32)) for _, scores in measured.scores]
    every = np.concatenate(runs)
    values = np.asarray(metrics.auroc(every, labels), float)
    samples = np.asarray(metrics.auroc_samples(every, labels, boot), float)
    ends = np.cumsum([len(of) for of in runs])
    parts = zip(np.split(values, ends[:-1]), np.split(samples, ends[:-1]), strict=True)
    return [
        (about, _Area(float(value.mean()), drawn.mean(axis=0)))
        for (about, _), (value, drawn) in zip(measured.scores, parts, strict=True)
    ]


def _columns(row: Mapping[str, Any], here: Mapping[str, Any], areas: _Areas) -> dict[str, Any]:
    key = tuple(row[name] for name in _KEY)
    rivals = dict(_rivals(here, areas, block_of(row["method"])))
    if key not in rivals:
        return {}
    own = rivals[key]
    best = max(rivals.values(), key=lambda area: -np.inf if np.isnan(area.value) else area.value)
    found = with_interval("behind", best.value - own.value, best.samples - own.samples)
    return {**found, "near_best": bool(found["behind_low"] <= 0)}


def _rivals(
    here: Mapping[str, Any], areas: _Areas, block: str
) -> Iterator[tuple[tuple[Any, ...], _Area]]:
    """Method and sign -> area, of the methods of a block that these settings speak of."""
    for about, area in areas:
        rest = {name: value for name, value in about.items() if name not in _KEY}
        same = rest.items() <= here.items() and block_of(about["method"]) == block
        if same and method_of(about["method"]).group != CONTROL:
            yield tuple(about[name] for name in _KEY), area
