"""Figures of the challenges and of layers from tidy result rows, and of pretraining.

Figures are built without pyplot and without touching Matplotlib's global settings; a method's name
and group come from `jelicit.method_names`.
"""

import math
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
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from jelicit.method_names import (
    CEILING,
    EASY_TO_HARD,
    OTHER,
    PROMPTING,
    UNSUPERVISED,
    Method,
    in_reading_order,
    readable,
)
from jelicit.results import Rows, as_frame, summarise

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
    "truth": Look("truth (asked for)", BLUE, "o", -0.17),
    "spurious": Look("spurious feature", VERMILLION, "^", 0.17),
}
GROUP_COLORS = {
    PROMPTING: ORANGE,
    UNSUPERVISED: VERMILLION,
    EASY_TO_HARD: BLUE,
    CEILING: "black",
    OTHER: PURPLE,
}
POINT = ("method", "role", "orientation", "seed", "auroc")
MARKERS = "os^Dvp*XP<>hd8"
SIGN_NOTES = {
    "oracle": "* sign chosen with the train labels of the column itself (oracle)",
    "easy": "* sign chosen on the easy labelled set",
}


def salience_figure(rows: Rows, dataset: str, *, orientation: str = "oracle") -> Figure:
    """Per method, AUROC on the truth and on the spurious label; one panel per feature.

    Panels stand in order of the feature's measured salience, lowest first (a feature without a
    measured one, such as none at all, before them); the title gives the salience of feature and
    truth. Large marks are means over seeds, bars the mean bootstrap interval, small marks the
    single seeds. The dotted line at 0.5 is chance.

    Args:
        rows: tidy rows with dataset, feature, role, method, orientation, seed, auroc, and where
            known auroc_low, auroc_high, salience_feature, salience_truth. One model and one layer
            per method.
        dataset: whose rows to show.
        orientation: which sign choice to show ("oracle" or "easy") for methods that need one;
            rows with orientation "none" are always shown.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = _chosen(rows, orientation, [*POINT, "dataset", "feature"])
    rows = _some(rows.loc[rows["dataset"] == dataset], f"dataset {dataset!r}")
    features = _by_salience(rows)
    places = _places(in_reading_order(rows["method"]))
    columns = len(features) if len(features) <= 4 else math.ceil(len(features) / 2)
    lines = math.ceil(len(features) / columns)
    # A page is no taller: with many methods their lines move together.
    per_method = min(0.165, ((PAGE - 0.7) / lines - 0.6) / len(places))
    with _style():
        figure = _figure(height=0.7 + lines * (0.6 + per_method * len(places)))
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for place, axes in enumerate(grid):
            if place >= len(features):
                axes.remove()
                continue
            panel = rows.loc[rows["feature"] == features[place]]
            _forest(axes, panel, places)
            axes.set_title(_salience_title(panel), fontsize=7)
            is_lowest = place + columns >= len(features)
            axes.tick_params(labelbottom=is_lowest)
            axes.set_xlabel("AUROC" if is_lowest else "")
        for axes in grid[::columns]:
            _label_methods(axes, places, rows)
        _finish(figure, rows, title=readable(dataset), handles=_role_handles(rows))
    return figure


def salience_scatter(rows: Rows, *, orientation: str = "oracle") -> Figure:
    """Truth AUROC of every method over the measured salience of the added feature (log scale).

    One panel per dataset, one line per method. Features without a measured, positive salience
    (none added, or nan) have no place on this axis and are left out.

    Args:
        rows: tidy rows as for `salience_figure`; only role "truth" is shown.
        orientation: as for `salience_figure`.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = _chosen(rows, orientation, [*POINT, "dataset", "feature", "salience_feature"])
    rows = _some(rows.loc[rows["role"] == "truth"], "role 'truth'")
    rows = _some(rows.loc[rows["salience_feature"] > 0], "a measured salience")
    datasets = list(dict.fromkeys(rows["dataset"]))
    with _style():
        figure = _figure(height=0.6 + 2.9 * len(datasets))
        grid = _stack(figure, len(datasets), 1)[:, 0]
        for axes, dataset in zip(grid, datasets, strict=True):
            panel = rows.loc[rows["dataset"] == dataset]
            salience = {str(f): _mean(x, "salience_feature") for f, x in panel.groupby("feature")}
            points = summarise(panel, by=["method", "feature"], value="auroc")
            points = points.assign(x=[salience[name] for name in points["feature"]])
            axes.set_xscale("log")
            _lines(axes, points, rows)
            _mark_features(axes, salience)
            axes.set_ylabel("AUROC (truth)")
            axes.set_title(readable(dataset))
            axes.set_xlabel("measured salience of the feature (share of variance)", labelpad=24)
        _finish(figure, rows, handles=_group_handles(rows))
    return figure


def layers_figure(rows: Rows, *, orientation: str = "oracle") -> Figure:
    """AUROC over layers, one line per method; truth left, spurious label right where there is one.

    One line of panels per (dataset, feature). A method without layers (zero-shot) is a dashed
    horizontal line.

    Args:
        rows: tidy rows with a layer column, otherwise as for `salience_figure`.
        orientation: as for `salience_figure`.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = _chosen(rows, orientation, [*POINT, "dataset", "feature", "layer"])
    rows = rows.assign(layer=pd.to_numeric(rows["layer"]))
    roles = [role for role in ROLES if role in set(rows["role"])]
    blocks = list(dict.fromkeys(zip(rows["dataset"], rows["feature"], strict=True)))
    with _style():
        figure = _figure(height=0.6 + 2.9 * len(blocks))
        grid = _stack(figure, len(blocks), len(roles))
        for line, (dataset, feature) in enumerate(blocks):
            here = (rows["dataset"] == dataset) & (rows["feature"] == feature)
            for axes, role in zip(grid[line], roles, strict=True):
                panel = rows.loc[here & (rows["role"] == role)]
                if panel.empty:  # nothing spurious was added
                    axes.remove()
                    continue
                points = summarise(panel, by=["method", "layer"], value="auroc")
                _lines(axes, points.assign(x=points["layer"]), rows)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                axes.set_title(f"{readable(dataset)}, {readable(feature)}\n{ROLES[role].name}")
                axes.set(xlabel="layer", ylabel="AUROC")
        _finish(figure, rows, handles=_group_handles(rows))
    return figure


def shares_figure(rows: Rows, dataset: str, *, orientation: str = "oracle") -> Figure:
    """AUROC over the share of true claims in the train set (challenge 2), a panel per group.

    Shares are places at equal distances: 0, 0.01 and 0.1 are three different situations. A method
    that reads no train set has no share and is a dashed horizontal line.

    Args:
        rows: tidy rows with a class_share column (nan: no train set), otherwise as for
            `salience_figure`.
        dataset: for the title.
        orientation: as for `salience_figure`.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    chosen = _chosen(rows, orientation, [*POINT, "class_share"])
    chosen = _some(chosen.loc[chosen["role"] == "truth"], "the truth")
    shares = sorted(chosen["class_share"].dropna().unique())
    methods = in_reading_order(chosen["method"])
    groups = dict.fromkeys(method.group for method in methods)
    with _style():
        figure = _figure(height=0.9 + 2.1 * len(groups))
        grid = _stack(figure, len(groups), 1)
        for axes, group in zip(grid[:, 0], groups, strict=True):
            keys = [method.key for method in methods if method.group == group]
            panel = chosen.loc[chosen["method"].isin(keys)]
            points = summarise(panel, by=["method", "class_share"], value="auroc")
            places = [shares.index(x) if x in shares else math.nan for x in points["class_share"]]
            _lines(axes, points.assign(x=places), panel)
            axes.set_xticks(range(len(shares)), [f"{share:g}" for share in shares])
            axes.set(title=group, ylabel="AUROC")
        grid[-1, 0].set_xlabel("share of the asked-for label among the train rows")
        _finish(figure, chosen, handles=[], title=readable(dataset))
    return figure


def training_figure(progress: Mapping[str, Any]) -> Figure:
    """How pretraining of the pocket model went: loss, and every measured accuracy, over tokens.

    Thin vertical lines mark where a phase of the curriculum ended.

    Args:
        progress: `jelicit.pocket.curriculum.Progress` as a mapping: `losses` [[tokens, loss], ...]
            and `measures`, one mapping per measurement with `phase`, `tokens` and accuracies named
            "<group>/<what>".

    Raises:
        ValueError: nothing was measured yet.
    """
    measures = pd.DataFrame(progress["measures"])
    if measures.empty:
        raise ValueError("progress holds no measures: nothing to draw yet.")
    groups: dict[str, list[str]] = {}
    for name in measures.columns:
        if "/" in name:
            groups.setdefault(name.split("/")[0], []).append(name)
    ends = {entry["phase"]: entry["tokens"] for entry in progress["measures"]}
    with _style():
        figure = _figure(height=1.0 + 1.5 * (1 + len(groups)))
        panels = np.asarray(figure.subplots(1 + len(groups), 1, sharex=True, squeeze=False))[:, 0]
        tokens, losses = np.asarray(progress["losses"], float).T
        panels[0].plot(tokens / 1e6, losses, color="black", lw=0.8)
        panels[0].set(ylabel="loss (nats)", ylim=(0, float(np.quantile(losses, 0.99))))
        for axes, (group, names) in zip(panels[1:], groups.items(), strict=True):
            for number, name in enumerate(names):
                axes.plot(
                    measures["tokens"] / 1e6,
                    measures[name],
                    marker=MARKERS[number],
                    ms=3,
                    lw=0.9,
                    color=LINES[number % len(LINES)],
                    label=name.split("/")[1].replace("_", " "),
                )
            axes.set(ylabel=f"{group.replace('_', '-')} accuracy", ylim=(0, 1.03))
            axes.axhline(0.5, color=GREY, lw=0.6, ls=":")
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axes in panels:
            for end in list(ends.values())[:-1]:
                axes.axvline(end / 1e6, color=GREY, lw=0.5)
            axes.set_xlim(0, tokens.max() / 1e6)
        for phase, end in ends.items():
            panels[0].annotate(
                f"{phase} ",
                (end / 1e6, 1.0),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="bottom",
                fontsize=6.5,
                color=GREY,
            )
        panels[-1].set_xlabel("million tokens")
    return figure


def cost_figure(costs: Mapping[str, Mapping[int, float]], *, baseline_ms: float) -> Figure:
    """Time of one step of one probe, over how many runs share it and how large the data are.

    Args:
        costs: What grows ("runs", "items", "width") -> {its size: milliseconds per probe-step}.
        baseline_ms: The same of the loop that fits one run at a time, at the sizes of the first
            panel.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not costs:
        raise ValueError("no costs were measured: nothing to draw.")
    with _style():
        figure = _figure(height=2.6)
        panels = np.asarray(figure.subplots(1, len(costs), sharey=True, squeeze=False))[0]
        for number, (axes, (what, points)) in enumerate(zip(panels, costs.items(), strict=True)):
            sizes, values = zip(*sorted(points.items()), strict=True)
            axes.plot(sizes, values, marker="o", ms=3, lw=0.9, color="black")
            axes.set(xlabel=what, xscale="log", yscale="log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
            axes.minorticks_off()
            if number == 0:
                axes.axhline(baseline_ms, color=GREY, lw=0.8, ls="--")
                axes.annotate(
                    "torch loop, one run",
                    (1, baseline_ms),
                    xycoords=("axes fraction", "data"),
                    xytext=(-2, -3),
                    textcoords="offset points",
                    ha="right",
                    va="top",
                    fontsize="small",
                )
        panels[0].set_ylabel("ms per probe-step")
    return figure


def save(figure: Figure, path_stem: str | Path) -> list[Path]:
    """Writes `<stem>.png` (300 dpi) and `<stem>.svg` (text stays text) and returns both paths.

    No dates and no random ids: a figure built afresh from the same rows gives the same bytes.
    """
    png, svg = Path(f"{path_stem}.png"), Path(f"{path_stem}.svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    with _style():
        figure.savefig(png, dpi=300, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def _style() -> AbstractContextManager[None]:
    """Our style on top of Matplotlib's defaults, for the length of a with-block only."""
    return matplotlib.style.context(["default", dict(STYLE)])


def _figure(*, height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def _stack(figure: Figure, lines: int, columns: int) -> np.ndarray:
    return np.asarray(figure.subplots(lines, columns, squeeze=False, sharey=True))


def _chosen(rows: Rows, orientation: str, needed: Sequence[str]) -> pd.DataFrame:
    """The rows of one sign choice, and those of methods that need none."""
    if orientation not in SIGN_NOTES:
        raise ValueError(f"orientation is {orientation!r}; choose one of {', '.join(SIGN_NOTES)}.")
    rows = as_frame(rows)
    missing = [name for name in needed if name not in rows]
    if missing:
        raise ValueError(f"the rows have no column {', '.join(missing)}.")
    return _some(rows.loc[rows["orientation"].isin([orientation, "none"])], orientation)


def _some(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    if rows.empty:
        raise ValueError(f"no rows are left to draw after asking for {what}.")
    return rows


def _by_salience(rows: pd.DataFrame) -> list[str]:
    """Features in ascending order of salience, those without one first."""
    salience = {
        str(feature): _mean(panel, "salience_feature")
        for feature, panel in rows.groupby("feature", sort=False)
    }
    return sorted(salience, key=lambda name: np.nan_to_num(salience[name], nan=-1.0))


def _salience_title(panel: pd.DataFrame) -> str:
    lines = [readable(panel["feature"].iloc[0])]
    for column, word in (("salience_feature", "feature"), ("salience_truth", "truth")):
        measured = _mean(panel, column)
        if not np.isnan(measured):
            lines.append(f"{word} salience {measured:.2g}")
    return "\n".join(lines)


def _mean(rows: pd.DataFrame, column: str) -> float:
    """Mean of what is there of a column; nan where nothing is."""
    known = rows[column].dropna().to_numpy(float) if column in rows else np.empty(0)
    return float(known.mean()) if known.size else np.nan


def _places(methods: Sequence[Method]) -> dict[str, Method | None]:
    """The lines of a panel from top to bottom: a heading (None) before the methods of a group."""
    places: dict[str, Method | None] = {}
    for method in methods:
        places.setdefault(f"[{method.group}]", None)
        places[method.key] = method
    return places


def _forest(axes: Axes, panel: pd.DataFrame, places: Mapping[str, Method | None]) -> None:
    """One panel: means, intervals and seeds of both roles, a line of the page per method."""
    heights = {key: height for height, key in enumerate(places)}
    for height in [heights[key] for key, method in places.items() if method][::2]:
        axes.axhspan(height - 0.5, height + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    points = summarise(panel, by=["method", "role"], value="auroc")
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
                *(seeds["auroc"], y), "|", color=look.color, markersize=4, alpha=0.6,
                zorder=3, gid=f"{role} seeds",
            )  # fmt: skip
    axes.set(xlim=(-0.04, 1.04), ylim=(len(places) - 0.5, -0.5))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xticks([0.25, 0.75], minor=True)
    axes.tick_params(axis="y", length=0)


def _label_methods(axes: Axes, places: Mapping[str, Method | None], rows: pd.DataFrame) -> None:
    names = [
        key.strip("[]") if method is None else _signed_name(method, rows)
        for key, method in places.items()
    ]
    axes.set_yticks(range(len(names)), names)
    for label, method in zip(axes.get_yticklabels(), places.values(), strict=True):
        if method is None:
            label.set(fontweight="bold", color=GREY)


def _signed_name(method: Method, rows: pd.DataFrame) -> str:
    """A method's name, with an asterisk where something chose the sign of its direction."""
    orientations = rows["orientation"].loc[rows["method"] == method.key]
    return method.name + (" *" if set(orientations) - {"none"} else "")


def _lines(axes: Axes, points: pd.DataFrame, rows: pd.DataFrame) -> None:
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
        ends.append((mine["mean"].iloc[-1], _signed_name(method, rows), color, marker))
    axes.set(ylim=(-0.03, 1.03))
    _name_ends(axes, ends)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str, str]]) -> None:
    """Names at the right edge, moved apart where lines end close together, with leaders."""
    ends = sorted(ends)
    heights = _spread([height for height, *_ in ends], gap=0.062)
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


def _spread(wanted: Sequence[float], *, gap: float) -> list[float]:
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


def _mark_features(axes: Axes, salience: Mapping[str, float]) -> None:
    """The salience axis: a tick per feature, its name and value below, moved apart if need be."""
    ordered = sorted(salience.items(), key=lambda item: item[1])
    # The lines fill most of the width, but a range of less than a quarter is not blown up.
    least, most = ordered[0][1], ordered[-1][1]
    pad = max(0.15 * math.log(most / least), (math.log(1.25) - math.log(most / least)) / 2)
    low, high = least / math.exp(pad), most * math.exp(pad)
    axes.set_xlim(low, high)
    axes.set_xticks([value for _, value in ordered], ["" for _ in ordered])
    axes.set_xticks([], minor=True)
    wanted = [math.log(value / low) / math.log(high / low) for _, value in ordered]
    gap = 0.03 + 0.0125 * max(len(readable(name)) for name in salience)
    for (name, value), tick, at in zip(ordered, wanted, _spread(wanted, gap=gap), strict=True):
        frame = axes.transAxes
        axes.plot([tick, at], [0, -0.05], transform=frame, clip_on=False, color=GREY, lw=0.5)
        text = f"{readable(name)}\n{value:.2g}"
        axes.text(at, -0.06, text, transform=frame, ha="center", va="top", fontsize=7)


def _role_handles(rows: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4.5, label=look.name)
        for role, look in ROLES.items()
        if role in set(rows["role"])
    ]


def _group_handles(rows: pd.DataFrame) -> list[Line2D]:
    groups = dict.fromkeys(method.group for method in in_reading_order(rows["method"]))
    return [Line2D([], [], color=GROUP_COLORS[group], label=group) for group in groups]


def _finish(figure: Figure, rows: pd.DataFrame, *, handles: list[Line2D], title: str = "") -> None:
    """Title, legend and the note on signs, outside the panels."""
    if title:
        figure.suptitle(title, fontsize=9, fontweight="bold")
    place = "outside lower right" if title else "outside upper left"  # apart from title and note
    if handles:
        figure.legend(handles=handles, loc=place, ncols=len(handles))
    notes = [note for sign, note in SIGN_NOTES.items() if sign in set(rows["orientation"])]
    figure.supxlabel("".join(notes), x=0.01, ha="left", fontsize=6.5, color=GREY)
