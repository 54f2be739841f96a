"""The tables of reward models and assistants, from the rows of experiments/assistant.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from result_tables import ROWS, _findings

from jelicit.method_names import in_reading_order
from jelicit.results.markdown import markdown_table, mean_of
from jelicit.studies.assistant_table import COLUMNS, answer_lines, column_mean

KEPT_OF_ASSISTANTS = (
    *("part", "judge_accuracy", "judge_reward", "empty"),
    *(
        column + end
        for column, _ in COLUMNS.values()
        if column != "accuracy"  # which all studies keep
        for end in ("", "_low", "_high")
    ),
    *("accuracy_low", "accuracy_high"),
)
"""Columns that these tables read, beside those of all studies."""

NUMBERS = ("label_accuracy", "accuracy")
REWARDED = ("Method", "Pairs", "Right labels", "Accuracy on test pairs")

MISSING = "*The rows of this study are not committed yet: `python experiments/assistant.py`.*"


def _rows(part: str) -> pd.DataFrame | None:
    path = ROWS / "assistant.parquet"
    if not path.is_file():
        return None
    rows = pd.read_parquet(path)
    return pd.DataFrame(rows.loc[rows["part"] == part])


def _rewards() -> str:
    """Labels that are right, and what reward models of them are worth on held-out pairs."""
    rows = _rows("reward")
    if rows is None:
        return MISSING
    return markdown_table(REWARDED, reward_lines(rows))


def reward_lines(rows: pd.DataFrame) -> list[list[str]]:
    """A line per method, as `REWARDED` has it."""
    lines = []
    for method in in_reading_order(rows["method"]):
        mine = pd.DataFrame(rows.loc[rows["method"] == method.key])
        known = [name for name in NUMBERS if not np.isnan(column_mean(mine, name))]
        cells = [mean_of(mine, name) if name in known else "" for name in NUMBERS]
        trained = round(column_mean(mine, "n_train"))
        lines.append([method.name, str(trained) if trained else "", *cells])
    return lines


def _answers(*, wins: bool) -> str:
    """Who wins, or what is won."""
    rows = _rows("assistant")
    if rows is None:
        return MISSING
    return answer_table(rows, wins=wins)


def answer_table(rows: pd.DataFrame, *, wins: bool) -> str:
    """The columns that say who wins, or the others."""
    heads, lines = answer_lines(rows)
    kept = [n for n, head in enumerate(heads) if n == 0 or head.startswith("Wins") == wins]
    return markdown_table([heads[n] for n in kept], [[line[n] for n in kept] for line in lines])


TABLES: dict[str, Callable[[], str]] = {
    "assistant-rewards": _rewards,
    "assistant-wins": partial(_answers, wins=True),
    "assistant-answers": partial(_answers, wins=False),
    "findings-assistant": partial(_findings, "assistant"),
}
