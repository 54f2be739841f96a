"""How well indicators tell failures from successes, each by itself and all together.

An indicator's side that warns is given beforehand (`Indicator.warns`): one that points the other
way has an AUROC below 0.5. All together are a logistic regression on the places of their values
among the cases it is fitted on; each case is judged by a regression that has seen no case of its
questions. Intervals are of a bootstrap that draws whole sets, since cases of a set share questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd

from jelicit import metrics
from jelicit.studies.warning_cases import ALL, COLUMNS, KINDS

COMBINED = "combined"
"""The column of all indicators together."""

FOUND = 0.9
"""The share of failures that has to be found where false alarms are counted."""

EVERY = "all"


def held_out(cases: pd.DataFrame, names: Sequence[str] = COLUMNS) -> np.ndarray:
    """How much all indicators together warn of each case, by what was learnt on other sets.

    For every set of questions a logistic regression (L2 penalty of weight 1, classes weighed alike)
    is fitted on the cases that neither ask these questions nor were fitted on their rows. What an
    indicator says of a case is its place among those cases, from -0.5 (lowest) to 0.5; one that
    cannot be told is in the middle, 0.

    Args:
        cases: With tested, taught, failed and the indicators.
        names: Which indicators.

    Returns:
        Log-odds of a failure [n]; nan where the other sets have failures alone, or none.
    """
    from sklearn.linear_model import LogisticRegression

    values, failed = cases[list(names)].to_numpy(float), cases["failed"].to_numpy(bool)
    tested, taught = (cases[column].to_numpy(str) for column in ("tested", "taught"))
    warned = np.full(len(cases), np.nan)
    for questions in np.unique(tested):
        here, others = tested == questions, (tested != questions) & (taught != questions)
        if len(set(failed[others])) < 2:
            continue
        fitted = LogisticRegression(C=1.0, class_weight="balanced").fit(
            places(values[others], values[others]), failed[others]
        )
        warned[here] = fitted.decision_function(places(values[others], values[here]))
    return warned


def places(among: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place of values [n, k] among others [m, k], column by column, from -0.5 to 0.5.

    The share of the known others that are below, equal ones half, less 0.5; nan becomes 0.
    """
    columns = []
    for others, own in zip(among.T, values.T, strict=True):
        known = np.sort(others[~np.isnan(others)])
        below = np.searchsorted(known, own, "left") + np.searchsorted(known, own, "right")
        place = below / max(2 * len(known), 1) - 0.5
        columns.append(np.where(np.isnan(own) | (len(known) == 0), 0.0, place))
    return np.stack(columns, 1)


def false_alarms(warning: np.ndarray, failed: np.ndarray, *, found: float = FOUND) -> float:
    """Share of successes that are warned of where the threshold finds this share of failures.

    The highest threshold that does, chosen with the outcomes of these cases: no other has fewer
    false alarms.

    Args:
        warning: More of it warns more [n].
        failed: The outcomes [n].
        found: The share of failures to find.

    Returns:
        In [0, 1]; nan without failures or without successes.
    """
    of_failures, of_others = np.sort(warning[failed])[::-1], warning[~failed]
    if not (len(of_failures) and len(of_others)):
        return float("nan")
    needed = int(np.ceil(found * len(of_failures) - 1e-9))
    return float(np.mean(of_others >= of_failures[max(needed, 1) - 1]))


def judged(cases: pd.DataFrame, *, boot: int = 1000) -> pd.DataFrame:
    """A row per indicator, and of all together, over all cases and over each kind.

    Args:
        cases: With kind, tested, failed, the indicators and `COMBINED`.
        boot: Resamples of sets behind the intervals.

    Returns:
        Columns kind, indicator, title, failures, successes, sets, auroc, auroc_low, auroc_high (nan
        of one set), false_alarms. What no case of a kind has is left out.
    """
    weights = metrics.group_bootstrap(jax.random.key(0), cases["tested"].to_numpy(str), boot)
    present = [kind for kind in KINDS if kind in set(cases["kind"])]
    rows = []
    for kind in (EVERY, *present):
        of_kind = np.ones(len(cases), bool) if kind == EVERY else (cases["kind"] == kind).to_numpy()
        for name, title, warning in warnings_of(cases):
            counted = of_kind & ~np.isnan(warning)
            if counted.any():
                about = {"kind": kind, "indicator": name, "title": title}
                rows.append(about | _judged(cases, warning, counted, weights))
    return pd.DataFrame(rows)


def warnings_of(cases: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """Name, title and warning [n] of each indicator, more of it warning more; all together last."""
    each = [(i.name, i.title, i.warning(cases[i.name])) for i in ALL]
    return [*each, (COMBINED, "All together, on sets not seen", cases[COMBINED].to_numpy(float))]


def _judged(
    cases: pd.DataFrame, warning: np.ndarray, counted: np.ndarray, weights: jax.Array
) -> dict[str, float | int]:
    failed = cases["failed"].to_numpy(bool)
    sets = cases.loc[counted, "tested"].nunique()
    # Rows without a label do not count, so that all indicators share one compiled program.
    labels = np.where(counted, failed, np.nan)
    ranks = pd.Series(np.where(counted, warning, np.nan)).rank().fillna(0.0).to_numpy()
    low, high = (float(end) for end in metrics.auroc_interval(ranks, labels, weights))
    return {
        "failures": int(failed[counted].sum()),
        "successes": int((~failed[counted]).sum()),
        "sets": sets,
        "auroc": float(metrics.auroc(ranks, labels)),
        "auroc_low": low if sets > 1 else np.nan,
        "auroc_high": high if sets > 1 else np.nan,
        "false_alarms": false_alarms(warning[counted], failed[counted]),
    }
