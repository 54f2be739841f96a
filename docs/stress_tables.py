"""The scorecards of the stress test, from the rows of `jelicit stress`."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import real_tables
from result_tables import ROWS, _findings

from jelicit.results.markdown import markdown_table
from jelicit.studies.stress_card import scorecard
from jelicit.studies.stress_tables import in_blocks, lines_of

KEPT_OF_STRESS = (
    *("challenge", "block", "n_test", "counted", "worst", "verdict", "seed_sd", "ceiling"),
    *(f"{name}{end}" for name in ("loss", "share", "behind") for end in ("", "_low", "_high")),
    "near_best",
)
"""Columns that these tables read, beside those of all studies."""

MISSING = "*The rows of this study are not committed yet: `jelicit stress`.*"
MARKS = {"survives": "yes", "fails": "no", "open": "?", "ceiling": ""}


def _pocket() -> str:
    path = ROWS / "stress.parquet"
    return _leaderboard(pd.read_parquet(path)) if path.is_file() else MISSING


def _real() -> str:
    rows = real_tables.rows_of("stress")
    return MISSING if rows.empty else _leaderboard(rows)


def _leaderboard(rows: pd.DataFrame) -> str:
    """Methods down, challenges across, in blocks of those that see the same labels."""
    worst = scorecard(rows)
    challenges = list(dict.fromkeys(worst["challenge"]))
    lines = [
        (
            line.name.replace("*", r"\*"),
            block,
            *(_cell(line.cells[name]) if name in line.cells else "" for name in challenges),
            line.survived,
        )
        for block, methods in in_blocks(worst)
        for line in lines_of(methods)
    ]
    return markdown_table(("Method", "It sees", *challenges, "Survives"), lines)


def _cell(row: dict[str, object]) -> str:
    near = "= " if row["near_best"] else ""
    share = f"{row['share_low']:.0%} to {row['share_high']:.0%}"
    return f"{near}{row['auroc']:.2f} ({share}) {MARKS[str(row['verdict'])]}".rstrip()


TABLES: dict[str, Callable[[], str]] = {
    "stress": _pocket,
    "stress-real": _real,
    "findings-stress": lambda: _findings("stress"),
}
