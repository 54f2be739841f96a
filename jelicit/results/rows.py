"""Result rows as a table in memory, and what they come to over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jelicit.indicators import NAMES as INDICATORS

Rows = pd.DataFrame | Iterable[Mapping[str, Any]]

# What was measured; every other column says what was set.
MEASURED = (
    *("auroc", "auroc_low", "auroc_high", "accuracy", "accuracy_low", "accuracy_high"),
    *("variance_share", "variance_share_low", "variance_share_high"),
    *("ece", "brier"),
    *("salience_truth", "salience_feature"),
    *INDICATORS,
)


def as_frame(rows: Rows) -> pd.DataFrame:
    """Tidy rows as a DataFrame, with a missing feature or orientation spelt "none".

    Raises:
        ValueError: there are no rows.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if frame.empty:
        raise ValueError("there are no rows; run the experiment first, or loosen the filter.")
    spelt = {c: frame[c].fillna("none") for c in ("feature", "orientation") if c in frame}
    return frame.assign(**spelt).reset_index(drop=True)


def summarise(rows: Rows, *, by: Sequence[str], value: str) -> pd.DataFrame:
    """One row per combination of `by`: what `value` comes to over seeds.

    Args:
        rows: tidy result rows.
        by: columns that tell points apart (missing values form a point of their own).
        value: the column to summarise, such as "auroc".

    Returns:
        The columns of `by` and: mean; sd, the sample standard deviation over seeds (nan for one);
        low and high, the means of `<value>_low` and `<value>_high` (the interval over test items
        of an average seed; nan where the rows have none); n, the number of rows with a value; of,
        the number of all rows.
        Points stand in order of first appearance; values that are nan do not count.

    Raises:
        ValueError: a column is missing, or two rows of a point have the same seed (then something
            that `by` does not name differs, and an average would mix it).
    """
    rows = as_frame(rows)
    need(rows, [*by, "seed", value])
    _refuse_mixtures(rows, by)
    rows = rows.assign(**{value: pd.to_numeric(rows[value])})
    rows = rows.assign(low=rows.get(f"{value}_low", np.nan), high=rows.get(f"{value}_high", np.nan))
    points = rows.groupby(list(by), dropna=False, sort=False)
    return points.agg(
        mean=(value, "mean"),
        sd=(value, "std"),
        low=("low", "mean"),
        high=("high", "mean"),
        n=(value, "count"),
        of=("seed", "size"),
    ).reset_index()


def asked_for(rows: Rows) -> str:
    """What to call the label that the prompts of rows ask for, whose role is "truth".

    Returns:
        Its own name (`target`): "truth" where they ask for the truth, as they do where rows name
        no target; "asked for" where some ask for one label and some for another.
    """
    rows = as_frame(rows)
    if "target" not in rows:
        return "truth"
    of_role = rows.loc[rows["role"] == "truth", "target"] if "role" in rows else rows["target"]
    return name_of_targets(map(str, of_role.dropna()))


def name_of_targets(targets: Iterable[str]) -> str:
    """The one name of these labels; "asked for" if they are several, "truth" if there is none."""
    names = list(dict.fromkeys(targets)) or ["truth"]
    return names[0].replace("_", " ") if len(names) == 1 else "asked for"


def need(rows: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuses rows that lack a column, naming it and what there is."""
    missing = [column for column in columns if column not in rows]
    if missing:
        raise ValueError(
            f"the rows have no column {', '.join(missing)}; they have {', '.join(rows.columns)}."
        )


def _refuse_mixtures(rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Refuses points with two rows of one seed: an average over them would mix settings."""
    point = [*by, "seed"]
    repeated = rows.loc[rows.duplicated(point, keep=False)].reset_index(drop=True)
    if repeated.empty:
        return
    clash = repeated.loc[next(iter(repeated.groupby(point, dropna=False).indices.values()))]
    values = {str(column): clash[column].drop_duplicates().tolist() for column in clash.columns}
    differ = {c: v for c, v in values.items() if c not in MEASURED and len(v) > 1}
    where = ", ".join(f"{name}={values[name][0]}" for name in point)
    reason = "; ".join(f"{name} {found}" for name, found in differ.items())
    raise ValueError(
        f"{len(clash)} rows share {where} but differ in "
        f"{reason or 'nothing that was set (repeated rows)'}; keep one of them before averaging."
    )
