"""The scorecards of the stress test, from the rows of `jelicit stress`."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from result_tables import ROWS, _findings

from jelicit.results.markdown import markdown_table
from jelicit.studies.stress_card import scorecard, verdicts
from jelicit.studies.stress_tables import in_blocks, signed

KEPT_OF_STRESS = (
    *("challenge", "block", "n_test", "counted", "worst", "verdict", "seed_sd", "ceiling"),
    *(f"{name}{end}" for name in ("loss", "share", "behind") for end in ("", "_low", "_high")),
    "near_best",
)
"""Columns that these tables read, beside those of all studies."""

MISSING = "*The rows of this study are not committed yet: `jelicit stress`.*"
MARKS = {"survives": "yes", "fails": "no", "open": "?", "ceiling": "(ceiling)"}


def _card() -> pd.DataFrame | None:
    path = ROWS / "stress.parquet"
    return scorecard(pd.read_parquet(path)) if path.is_file() else None


def _leaderboard() -> str:
    """Methods down, challenges across, in blocks of those that see the same labels."""
    worst = _card()
    if worst is None:
        return MISSING
    challenges = list(dict.fromkeys(worst["challenge"]))
    said = {key: of for key, _, of in verdicts(worst.to_dict("records"))}  # type: ignore[arg-type]
    lines = []
    for block, rows in in_blocks(worst):
        by_method: dict[tuple[str, str], dict[str, str]] = {}
        names = {(row["method"], row["orientation"]): signed(row) for row in rows}
        for row in rows:
            key = (row["method"], row["orientation"])
            by_method.setdefault(key, {})[row["challenge"]] = _cell(row)
        for key, cells in by_method.items():
            count = f"{said[key].count('survives')} of {len(said[key])}"
            shown = [cells.get(name, "") for name in challenges]
            lines.append((names[key].replace("*", r"\*"), block, *shown, count))
    return markdown_table(("Method", "It sees", *challenges, "Survives"), lines)


def _cell(row: dict[str, object]) -> str:
    near = "= " if row["near_best"] else ""
    interval = f"{row['auroc_low']:.2f} to {row['auroc_high']:.2f}"
    return f"{near}{row['auroc']:.2f} ({interval}) {MARKS[str(row['verdict'])]}"


TABLES: dict[str, Callable[[], str]] = {
    "stress": _leaderboard,
    "findings-stress": lambda: _findings("stress"),
}
