"""What grows with the model? Claims about rows of several models, checked by plain rules.

Thresholds are those of `jelicit.studies.findings`. A claim is about the smallest and the largest
model of a family; of a family of one nothing can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from jelicit.method_names import method_of, readable
from jelicit.results import Finding
from jelicit.studies.findings import ALIKE, FINDS, NEAR, UNSUPERVISED

Sizes = tuple[float, float]
"""A value in the smallest and in the largest model of a family."""


@dataclass(frozen=True)
class Ends:
    """A family's smallest and largest model on one set: method -> its value in either."""

    where: str
    auroc: Mapping[str, Sizes]
    accuracy: Mapping[str, Sizes]


def scaling_findings(rows: pd.DataFrame) -> list[Finding]:
    """Figure 4 of Wen et al. 2025, and its like for probes, from the rows of scaling."""
    ends = list(ends_of(rows))
    return [
        _finding(
            "The model's own answer is better in the largest model",
            ends,
            ["zero_shot"],
            lambda each: [(s, b) for s, b in _of(each.auroc, ["zero_shot"]) if s < FINDS],
            lambda small, large: large > small + ALIKE,
        ),
        _finding(
            "CCS and PCA find the truth in the largest model where they do not in the smallest",
            ends,
            list(UNSUPERVISED),
            lambda each: [(s, b) for s, b in _of(each.auroc, UNSUPERVISED) if s < FINDS],
            lambda small, large: large >= FINDS,
        ),
        _finding(
            "The supervised probe finds the truth in the smallest model already",
            ends,
            ["supervised"],
            lambda each: _of(each.auroc, ["supervised"]),
            lambda small, large: small >= FINDS,
        ),
        _finding(
            "In the largest model ICM's labels are worth as much as golden ones (accuracy within "
            f"{NEAR:g}), where the labels shown are read",
            ends,
            ["icm", "golden_many_shot"],
            _icm_and_golden,
            lambda icm, golden: icm >= golden - NEAR,
            value="accuracy",
        ),
    ]


def ends_of(rows: pd.DataFrame) -> Iterator[Ends]:
    """Smallest and largest model of every family with several, set by set, on plain claims."""
    kept = rows.loc[
        rows["orientation"].isin(["none", "oracle"])
        & (rows["role"] == "truth")
        & (rows["feature"] == "none")
    ]
    for (family, dataset), of in kept.groupby(["family", "dataset"], sort=False):  # type: ignore[misc]
        sizes = np.unique(np.asarray(of["parameters"], float))
        if len(sizes) < 2:
            continue
        ends = sizes[[0, -1]]
        where = f"{readable(str(dataset))} in {family}"
        yield Ends(where, _at(of, ends, "auroc"), _at(of, ends, "accuracy"))


def _at(rows: pd.DataFrame, ends: Sequence[float] | np.ndarray, value: str) -> dict[str, Sizes]:
    """Method -> mean of a column in the models of these two sizes; nan where it was not run."""
    if value not in rows:
        return {}
    means = pd.DataFrame(rows.groupby(["method", "parameters"])[[value]].mean())[value].to_dict()
    small, large = map(float, ends)
    return {
        method: (means.get((method, small), nan), means.get((method, large), nan))
        for method in dict.fromkeys(map(str, rows["method"]))
    }


def _of(values: Mapping[str, Sizes], methods: Sequence[str]) -> list[Sizes]:
    return [values[method] for method in methods if method in values]


def _icm_and_golden(each: Ends) -> list[Sizes]:
    """ICM's and golden accuracy in the largest model, where golden labels turned round lose."""
    at = {method: large for method, (_, large) in each.accuracy.items()}
    icm, golden, wrong = (at.get(m, nan) for m in ("icm", "golden_many_shot", "wrong_many_shot"))
    return [(icm, golden)] if golden - wrong > 2 * ALIKE else []


def _finding(
    claim: str,
    ends: Sequence[Ends],
    methods: Sequence[str],
    telling: Callable[[Ends], Sequence[Sizes]],
    holds: Callable[[float, float], bool],
    *,
    value: str = "auroc",
) -> Finding:
    """It appears if it holds in more than half of the cases that can tell.

    Args:
        claim: What is said.
        ends: Smallest and largest models.
        methods: Whose numbers are shown.
        telling: The pairs of numbers that are judged.
        holds: Whether a pair shows it.
        value: The column of the numbers.
    """
    shown = [
        f"{each.where}: {method_of(method).name} {small:.2f} -> {large:.2f}"
        for each in ends
        for method, (small, large) in getattr(each, value).items()
        if method in methods and not (isnan(small) or isnan(large))
    ]
    if not shown:
        measured = "needs two models of one family"
        return Finding(claim=claim, measured=measured, appears=None)
    judged = [pair for each in ends for pair in telling(each) if not any(map(isnan, pair))]
    count = sum(holds(*pair) for pair in judged)
    measured = f"{'; '.join(shown)} (holds in {count} of {len(judged)} cases that can tell)"
    appears = count > len(judged) / 2 if judged else None
    return Finding(claim=claim, measured=measured, appears=appears)
