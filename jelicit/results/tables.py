"""Result rows as tables in a terminal."""

from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from jelicit.method_names import in_reading_order, readable
from jelicit.results.rows import Rows, as_frame, summarise


def comparison_table(rows: Rows, *, value: str = "auroc", title: str = "") -> Table:
    """Methods down, (dataset, feature) across, with truth and spurious label side by side.

    Cells are means over seeds, with the standard deviation where there are several seeds. Signs
    that were chosen with the task's own labels are marked by an asterisk.

    Args:
        rows: tidy rows with method, dataset, feature, role, orientation, seed and `value`; one
            model, layer, ... per point (see `summarise`).
        value: the column to show.
        title: printed above.

    Raises:
        ValueError: no rows, a missing column, or rows that differ in more than the seed.
    """
    rows = as_frame(rows)
    key = ["method", "orientation", "dataset", "feature", "role"]
    points = summarise(rows, by=key, value=value)
    cells = {tuple(point[:5]): _cell(point) for point in points.itertuples(index=False)}
    columns = [(*block, role) for block in _blocks(rows) for role in ("truth", "spurious")]
    table = Table(
        title=title or None,
        caption="* sign chosen with the train labels of the column itself (oracle)"
        if "oracle" in set(rows["orientation"])
        else None,
        caption_justify="left",
    )
    table.add_column("Method", no_wrap=True)
    for dataset, feature, role in columns:
        table.add_column(
            f"{readable(dataset)}\n{readable(feature)}\n{role}", justify="right", no_wrap=True
        )
    group = None
    for method in in_reading_order(rows["method"]):
        if group not in (None, method.group):
            table.add_section()
        group = method.group
        for orientation in dict.fromkeys(rows["orientation"][rows["method"] == method.key]):
            mark = {"oracle": " *", "easy": " (easy sign)"}.get(orientation, "")
            found = (cells.get((method.key, orientation, *column), "") for column in columns)
            table.add_row(method.name + mark, *found)
    return table


def print_table(
    rows: Rows, *, value: str = "auroc", title: str = "", console: Console | None = None
) -> None:
    """Prints `comparison_table`, as several tables where one would be wider than the console."""
    console = console or Console()
    rows = as_frame(rows)
    unbounded = console.options.update(max_width=10_000)
    shown, waiting = [], _blocks(rows)
    while waiting:
        shown.append(waiting.pop(0))
        fits, wider = (
            comparison_table(_of_blocks(rows, blocks), value=value, title=title)
            for blocks in (shown, shown + waiting[:1])
        )
        too_wide = wider.__rich_measure__(console, unbounded).maximum > console.width
        if too_wide or not waiting:
            console.print(fits)
            shown = []


def _of_blocks(rows: pd.DataFrame, blocks: list[tuple[str, str]]) -> pd.DataFrame:
    pairs = zip(rows["dataset"], rows["feature"], strict=True)
    return rows.loc[[pair in blocks for pair in pairs]]


def _blocks(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The (dataset, feature) pairs, datasets kept together in order of first appearance."""
    pairs = rows[["dataset", "feature"]].drop_duplicates()
    return [
        (str(dataset), str(feature))
        for dataset, group in pairs.groupby("dataset", sort=False)
        for feature in group["feature"]
    ]


def _cell(point: Any) -> str:
    """A summary as text: mean, and the seeds' standard deviation where there is one."""
    if np.isnan(point.mean):
        return "nan"
    return f"{point.mean:.2f}" + ("" if np.isnan(point.sd) else f" ±{point.sd:.2f}")
