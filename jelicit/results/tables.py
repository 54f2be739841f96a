"""Result rows as tables in a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jelicit.data.shown import printable
from jelicit.method_names import in_reading_order, readable
from jelicit.results.rows import Rows, as_frame, asked_for, need, summarise


def comparison_table(rows: Rows, *, value: str = "auroc", title: str = "") -> Table:
    """Methods down, (dataset, feature) across, with asked-for and spurious label side by side.

    The column of the label that the prompt asks for is headed by that label's name, such as truth.
    Cells are means over seeds, with the standard deviation where there are several seeds; where
    some seeds gave no number, a cell says of how many it is, such as "0.84 (2 of 3)". Signs
    that were chosen with the task's own labels are marked by an asterisk, and what is within noise
    of the best that sees the same labels (`near_best`) by "=".

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
    near = _near_best(rows, key) if value == "auroc" else set()
    cells = {
        tuple(point[:5]): _cell(point) + _mark(tuple(point[:5]), near)
        for point in points.itertuples(index=False)
    }
    known = set(zip(rows["dataset"], rows["feature"], rows["role"], strict=True))
    roles = ("truth", "spurious")
    columns = [(*b, role) for b in _blocks(rows) for role in roles if (*b, role) in known]
    heads = [
        f"{readable(dataset)}\n{readable(feature)}\n"
        + (asked_for(_of_blocks(rows, [(dataset, feature)])) if role == "truth" else role)
        for dataset, feature, role in columns
    ]
    return _methods_down(rows, cells, columns, heads, title)


def sweep_table(rows: Rows, *, across: str, value: str = "auroc", title: str = "") -> Table:
    """Methods down, the values of one setting across (class shares, layers, ...).

    Cells are means over seeds, as in `comparison_table`. What does not depend on the setting (it
    is nan there) stands in every column.

    Args:
        rows: tidy rows of one data set and role with method, orientation, seed, `across`, `value`.
        across: the column whose values are set side by side.
        value: the column to show.
        title: printed above.

    Raises:
        ValueError: no rows, a missing column, or rows that differ in more than the seed.
    """
    rows = as_frame(rows)
    return _sweep_table(rows, across, value, title, _values(rows, across))


def print_sweep(
    rows: Rows,
    *,
    across: str,
    value: str = "auroc",
    title: str = "",
    console: Console | None = None,
) -> None:
    """Prints `sweep_table`, as several tables where one would be wider than the console."""
    console = console or Console()
    rows = as_frame(rows)
    _print_fitting(
        console,
        _values(rows, across),
        lambda shown: _sweep_table(rows, across, value, title, shown),
    )


def _values(rows: pd.DataFrame, across: str) -> list[Any]:
    need(rows, [across])
    return sorted(rows[across].dropna().unique())


def _sweep_table(
    rows: pd.DataFrame, across: str, value: str, title: str, shown: Sequence[Any]
) -> Table:
    key = ["method", "orientation", across]
    points = summarise(rows, by=key, value=value)
    near = _near_best(rows, key) if value == "auroc" else set()
    cells = {}
    for point in points.to_dict("records"):
        at = point[across]
        mean = counted(f"{point['mean']:.2f}", point["n"], point["of"])
        mark = _mark(tuple(point[name] for name in key), near)
        for column in shown if pd.isna(at) else [at]:
            cells[point["method"], point["orientation"], column] = mean + mark
    columns = [(at,) for at in shown]
    return _methods_down(rows, cells, columns, [f"{at:g}" for at in shown], title)


def _print_fitting(
    console: Console, columns: Sequence[Any], made: Callable[[list[Any]], Table]
) -> None:
    """Prints a table of as many columns as fit the console, then one of the next, and so on."""
    unbounded = console.options.update(max_width=10_000)
    shown, waiting = [], list(columns)
    while waiting:
        shown.append(waiting.pop(0))
        fits, wider = made(shown), made(shown + waiting[:1])
        too_wide = wider.__rich_measure__(console, unbounded).maximum > console.width
        if too_wide or not waiting:
            console.print(fits)
            shown = []


def _methods_down(
    rows: pd.DataFrame,
    cells: Mapping[tuple[Any, ...], str],
    columns: Sequence[tuple[Any, ...]],
    heads: Sequence[str],
    title: str,
) -> Table:
    """A line per method and orientation; cells by (method, orientation, *column)."""
    # Names are data: what looks like markup in them is none.
    notes = []
    if "oracle" in set(rows["orientation"]):
        notes.append("* sign chosen with the train labels of the column itself (oracle)")
    if any(cell.endswith(_NEAR) for cell in cells.values()):
        notes.append("= within noise of the best that sees the same labels")
    table = Table(
        title=escape(printable(title)) or None,
        caption="\n".join(notes) or None,
        caption_justify="left",
    )
    table.add_column("Method", no_wrap=True)
    for head in heads:
        table.add_column(escape(head), justify="right", no_wrap=True)
    group = None
    for method in in_reading_order(rows["method"]):
        if group not in (None, method.group):
            table.add_section()
        group = method.group
        for orientation in dict.fromkeys(rows["orientation"][rows["method"] == method.key]):
            mark = {"oracle": " *", "easy": " (easy sign)"}.get(orientation, "")
            found = (cells.get((method.key, orientation, *column), "") for column in columns)
            table.add_row(escape(method.name) + mark, *found)
    return table


def print_table(
    rows: Rows, *, value: str = "auroc", title: str = "", console: Console | None = None
) -> None:
    """Prints `comparison_table`, as several tables where one would be wider than the console."""
    console = console or Console()
    rows = as_frame(rows)
    _print_fitting(
        console,
        _blocks(rows),
        lambda blocks: comparison_table(_of_blocks(rows, blocks), value=value, title=title),
    )


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


def counted(mean: str, n: int, of: int) -> str:
    """A mean as text, and of how many of its rows it is where some had no value."""
    return mean if n in (0, of) else f"{mean} ({n} of {of})"


_NEAR = " ="


def _near_best(rows: pd.DataFrame, key: Sequence[str]) -> set[tuple[Any, ...]]:
    """The points of which all seeds say that they are within noise of the best."""
    if "near_best" not in rows:
        return set()
    near = rows["near_best"].map(lambda said: said is True or said == 1.0)
    of_point = near.groupby([rows[name] for name in key], sort=False).all()
    return {point for point, all_say in of_point.items() if all_say}  # type: ignore[misc]


def _mark(point: tuple[Any, ...], near: set[tuple[Any, ...]]) -> str:
    return _NEAR if point in near else ""


def _cell(point: Any) -> str:
    """A summary as text: mean, and the seeds' standard deviation where there is one."""
    if np.isnan(point.mean):
        return "nan"
    mean = f"{point.mean:.2f}" + ("" if np.isnan(point.sd) else f" ±{point.sd:.2f}")
    return counted(mean, point.n, point.of)
