"""How well failures can be told from successes without labels."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jelicit.figures.parts import GREY, LINES, MARKERS, finish, new_figure, some_rows, style
from jelicit.results import Rows, as_frame
from jelicit.results.rows import need

NEEDED = ("kind", "indicator", "title", "auroc", "auroc_low", "auroc_high", "false_alarms")
EVERY = "all"
LINE_HEIGHT = 0.24  # inches


def warnings_figure(rows: Rows) -> Figure:
    """Indicators down; the AUROC of the warning over all cases and in each kind, and false alarms.

    Args:
        rows: of `jelicit.studies.warning_judge.judged`, with the columns of `NEEDED`.

    Raises:
        ValueError: no rows, or a missing column.
    """
    rows = as_frame(rows)
    need(rows, NEEDED)
    whole = some_rows(rows.loc[rows["kind"] == EVERY], "all cases")
    titles = list(dict.fromkeys(whole["title"]))
    with style():
        figure = new_figure(height=1.3 + LINE_HEIGHT * len(titles))
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (2, 1)})
        _areas(left, rows, titles)
        _alarms(right, whole, titles)
        handles, _ = left.get_legend_handles_labels()
        title = "Failures told from successes without labels"
        finish(figure, rows.assign(orientation="none"), handles=handles, title=title)
    return figure


def _areas(axes: Axes, rows: pd.DataFrame, titles: list[str]) -> None:
    place = {title: number for number, title in enumerate(titles)}
    kinds = [kind for kind in dict.fromkeys(rows["kind"]) if kind != EVERY]
    for number, kind in enumerate(kinds):
        of_kind = rows.loc[(rows["kind"] == kind) & rows["auroc"].notna()]
        if of_kind.empty:  # no failure among its cases, or nothing else
            continue
        axes.plot(
            of_kind["auroc"],
            [place[title] for title in of_kind["title"]],
            linestyle="none", marker=MARKERS[number + 1], markersize=3.5, label=kind,
            markerfacecolor="none", color=LINES[number % len(LINES)], clip_on=False, zorder=3,
        )  # fmt: skip
    whole = rows.loc[rows["kind"] == EVERY]
    where = [place[title] for title in whole["title"]]
    value, low, high = (whole[f"auroc{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    axes.hlines(where, low, high, color="black", linewidth=1.2)
    axes.plot(
        value, where, linestyle="none", marker="o", color="black", label="all cases", clip_on=False
    )
    axes.axvline(0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(titles)), titles)
    axes.set(xlim=(0, 1), xlabel="AUROC of the warning", ylim=(len(titles) - 0.5, -0.5))


def _alarms(axes: Axes, whole: pd.DataFrame, titles: list[str]) -> None:
    alarms = whole.set_index("title")["false_alarms"].reindex(titles).to_numpy(float)
    axes.barh(range(len(titles)), np.nan_to_num(alarms), height=0.5, color=GREY)
    axes.set(xlim=(0, 1), xlabel="false alarms at 90 % found")
    axes.tick_params(axis="y", length=0)
