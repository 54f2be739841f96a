"""What the figures share: style, colours, markers, lines that are named at their ends."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from jelicit.disk import whole_file
from jelicit.method_groups import (
    CEILING,
    COHERENCE,
    CONTROL,
    EASY_TO_HARD,
    OTHER,
    PROMPTING,
    UNSUPERVISED,
)
from jelicit.method_names import MethodName, in_reading_order
from jelicit.results import Rows, as_frame, asked_for, summarise

WIDTH = 7.0  # inches: the text width of a one-column page
PAGE = 9.4  # inches: its height
STYLE: Mapping[Any, Any] = {
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "font.family": "DejaVu Sans",  # ships with Matplotlib: the same glyphs everywhere
    "font.size": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are data: a dollar in one begins no formula
    "svg.hashsalt": "jelicit",
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}


class Look(NamedTuple):
    """How one series is told apart: by colour and by marker, never by colour alone."""

    name: str
    color: str
    marker: str
    offset: float


# Okabe and Ito's colours, distinguishable with any colour vision.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00"
GREY = "#555555"
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, "black", "#56B4E9")
ROLES = {
    "truth": Look("asked for", BLUE, "o", -0.17),
    "spurious": Look("spurious feature", VERMILLION, "^", 0.17),
}
GROUP_COLORS = {
    PROMPTING: ORANGE,
    COHERENCE: GREEN,
    UNSUPERVISED: VERMILLION,
    EASY_TO_HARD: BLUE,
    CEILING: "black",
    CONTROL: GREY,
    OTHER: PURPLE,
}
POINT = ("method", "role", "orientation", "seed", "auroc")
MARKERS = "os^Dvp*XP<>hd8"
SIGN_NOTES = {
    "oracle": "* sign chosen with the train labels of the column itself (oracle)",
    "easy": "* sign chosen on the easy labelled set",
}


def save(figure: Figure, path_stem: str | Path) -> list[Path]:
    """Writes `<stem>.png` (300 dpi) and `<stem>.svg` (text stays text) and returns both paths.

    No dates and no random ids: a figure built afresh from the same rows gives the same bytes.
    """
    png, svg = Path(f"{path_stem}.png"), Path(f"{path_stem}.svg")
    with style():
        with whole_file(png) as file:
            figure.savefig(file, format="png", dpi=300, metadata={"Software": None})
        with whole_file(svg) as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return [png, svg]


def style() -> AbstractContextManager[None]:
    """Our style on top of Matplotlib's defaults, for the length of a with-block only."""
    return matplotlib.style.context(["default", dict(STYLE)])


def new_figure(*, height: float) -> Figure:
    """A figure of the page's width and a height in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def stack(figure: Figure, lines: int, columns: int) -> np.ndarray:
    """Axes [lines, columns] that share their y axis."""
    return np.asarray(figure.subplots(lines, columns, squeeze=False, sharey=True))


def chosen_rows(rows: Rows, orientation: str, needed: Sequence[str]) -> pd.DataFrame:
    """The rows of one sign choice, and those of methods that need none."""
    if orientation not in SIGN_NOTES:
        raise ValueError(f"orientation is {orientation!r}; choose one of {', '.join(SIGN_NOTES)}.")
    rows = as_frame(rows)
    missing = [name for name in needed if name not in rows]
    if missing:
        raise ValueError(f"the rows have no column {', '.join(missing)}.")
    return some_rows(rows.loc[rows["orientation"].isin([orientation, "none"])], orientation)


def some_rows(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """The rows, of which there must be at least one."""
    if rows.empty:
        raise ValueError(f"no rows are left to draw after asking for {what}.")
    return rows


def signed_name(method: MethodName, rows: pd.DataFrame) -> str:
    """A method's name, with an asterisk where something chose the sign of its direction."""
    orientations = rows["orientation"].loc[rows["method"] == method.key]
    return method.name + (" *" if set(orientations) - {"none"} else "")


def lines(axes: Axes, points: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Mean AUROC over x per method, each line named at its right end."""
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    ends = []
    for place, method in enumerate(in_reading_order(rows["method"])):
        mine = points.loc[(points["method"] == method.key)].sort_values("x")
        mine = mine.loc[mine["mean"].notna()]
        color, marker = GROUP_COLORS[method.group], MARKERS[place % len(MARKERS)]
        if mine.empty:
            continue
        if mine["x"].isna().all():
            axes.axhline(mine["mean"].iloc[0], color=color, linestyle="--", gid=method.key)
        else:
            axes.fill_between(mine["x"], mine["low"], mine["high"], color=color, alpha=0.06, lw=0)
            axes.plot(
                *(mine["x"], mine["mean"]), color=color, marker=marker, markersize=3.5,
                linewidth=1, markeredgecolor="white", markeredgewidth=0.4, gid=method.key,
            )  # fmt: skip
        ends.append((mine["mean"].iloc[-1], signed_name(method, rows), color, marker))
    axes.set(ylim=(-0.03, 1.03))
    _name_ends(axes, ends)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str, str]]) -> None:
    """Names at the right edge, moved apart where lines end close together, with leaders."""
    ends = sorted(ends)
    heights = spread([height for height, *_ in ends], gap=0.062)
    figure = axes.get_figure(root=True)
    assert figure is not None
    edge = axes.get_yaxis_transform()
    beside, further = (
        edge + ScaledTranslation(inches, 0, figure.dpi_scale_trans) for inches in (0.17, 0.26)
    )
    for (height, name, color, marker), at in zip(ends, heights, strict=True):
        axes.annotate(
            *("", (1, height), (1, at), edge, beside), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.5, "shrinkA": 3, "shrinkB": 0},
        )  # fmt: skip
        axes.plot(
            *([1], [at]), color=color, marker=marker, markersize=3.5,
            transform=beside, clip_on=False,
        )  # fmt: skip
        axes.text(1, at, name, transform=further, va="center", color=color, fontsize=7)


def spread(wanted: Sequence[float], *, gap: float) -> list[float]:
    """The places in [0, 1], at least `gap` apart, nearest to the (ascending) wanted ones.

    Wanted places that are too close share the space around their mean (pooled neighbours, as in
    isotonic regression). Too many for the range get an equal, smaller gap.
    """
    gap = min(gap, 1 / max(len(wanted) - 1, 1))
    pools: list[list[float]] = []
    for rank, place in enumerate(wanted):
        pools.append([place - rank * gap])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    highest = 1 - (len(wanted) - 1) * gap
    flat = [float(np.clip(np.mean(pool), 0, highest)) for pool in pools for _ in pool]
    return [place + rank * gap for rank, place in enumerate(flat)]


def group_handles(rows: pd.DataFrame) -> list[Line2D]:
    """A legend entry per group of methods."""
    groups = dict.fromkeys(method.group for method in in_reading_order(rows["method"]))
    return [Line2D([], [], color=GROUP_COLORS[group], label=group) for group in groups]


def finish(
    figure: Figure,
    rows: pd.DataFrame,
    *,
    handles: list[Line2D],
    title: str = "",
    sign_notes: Mapping[str, str] = SIGN_NOTES,
) -> None:
    """Title, legend and the note on signs, outside the panels."""
    if title:
        figure.suptitle(title, fontsize=9, fontweight="bold")
    place = "outside lower right" if title else "outside upper left"  # apart from title and note
    if handles:
        figure.legend(handles=handles, loc=place, ncols=len(handles))
    notes = [note for sign, note in sign_notes.items() if sign in set(rows["orientation"])]
    figure.supxlabel("".join(notes), x=0.01, ha="left", fontsize=6.5, color=GREY)


def places_of(methods: Sequence[MethodName]) -> dict[str, MethodName | None]:
    """The lines of a panel from top to bottom: a heading (None) before the methods of a group."""
    places: dict[str, MethodName | None] = {}
    for method in methods:
        places.setdefault(f"[{method.group}]", None)
        places[method.key] = method
    return places


def forest(
    axes: Axes,
    panel: pd.DataFrame,
    places: Mapping[str, MethodName | None],
    *,
    value: str = "auroc",
    chance: float = 0.5,
) -> None:
    """One panel: means, intervals and seeds of both roles, a line of the page per method."""
    heights = {key: height for height, key in enumerate(places)}
    for height in [heights[key] for key, method in places.items() if method][::2]:
        axes.axhspan(height - 0.5, height + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.axvline(chance, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    points = summarise(panel, by=["method", "role"], value=value)
    for role, look in ROLES.items():
        mine = points.loc[points["role"] == role]
        y = np.array([heights[key] for key in mine["method"]], float) + look.offset
        axes.hlines(y, mine["low"], mine["high"], color=look.color, linewidth=1.3, zorder=2)
        axes.plot(
            *(mine["mean"], y), look.marker, color=look.color, markersize=4.2, gid=role, zorder=4,
            markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
        if max(mine["n"], default=0) > 1:
            seeds = panel.loc[panel["role"] == role]
            y = np.array([heights[key] for key in seeds["method"]], float) + look.offset
            axes.plot(
                *(seeds[value], y), "|", color=look.color, markersize=4, alpha=0.6,
                zorder=3, gid=f"{role} seeds",
            )  # fmt: skip
    axes.set(xlim=(-0.04, 1.04), ylim=(len(places) - 0.5, -0.5))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xticks([0.25, 0.75], minor=True)
    axes.tick_params(axis="y", length=0)


def label_methods(axes: Axes, places: Mapping[str, MethodName | None], rows: pd.DataFrame) -> None:
    """Names of methods and groups at the left edge."""
    names = [
        key.strip("[]") if method is None else signed_name(method, rows)
        for key, method in places.items()
    ]
    axes.set_yticks(range(len(names)), names)
    for label, method in zip(axes.get_yticklabels(), places.values(), strict=True):
        if method is None:
            label.set(fontweight="bold", color=GREY)


def role_name(role: str, rows: pd.DataFrame) -> str:
    """What a role is in rows: "truth (asked for)", "elm (asked for)", "asked for" if it varies."""
    name = ROLES[role].name
    asked = asked_for(rows)
    return f"{asked} ({name})" if role == "truth" and asked != name else name


def role_handles(rows: pd.DataFrame) -> list[Line2D]:
    """A legend entry per role."""
    shown = {role: look for role, look in ROLES.items() if role in set(rows["role"])}
    names = [role_name(role, rows) for role in shown]
    return [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4.5, label=name)
        for look, name in zip(shown.values(), names, strict=True)
    ]
