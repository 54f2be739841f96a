"""How a training went, what it was worth, and what a fit costs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jelicit.figures.parts import (
    GREY,
    GROUP_COLORS,
    LINES,
    MARKERS,
    chosen_rows,
    new_figure,
    some_rows,
    style,
)
from jelicit.method_names import method_of, readable
from jelicit.results import Rows, summarise


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
    with style():
        figure = new_figure(height=1.0 + 1.5 * (1 + len(groups)))
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


TUNED_BARS = ("zero_shot", "zero_shot_chat", "tuned_golden", "tuned_human", "tuned_icm")
"""What the paper's figures of fine-tuning compare, in their order."""


def tuned_bars_figure(rows: Rows) -> Figure:
    """Accuracy zero-shot and after fine-tuning on golden, human and ICM's labels, as the paper has.

    Wen et al. 2025, Figures 1, 3 and 8. A chat model's bar and that of human labels are there where
    the rows have them.

    Args:
        rows: As of `accuracy_bars`.

    Raises:
        ValueError: As of `accuracy_bars`.
    """
    return accuracy_bars(rows, TUNED_BARS, "zero-shot and fine-tuned models")


def accuracy_bars(rows: Rows, methods: Sequence[str], what: str) -> Figure:
    """Accuracy on test items: a group of bars per set, a bar for each of these methods.

    Lines are 95% intervals of the mean over test items and seeds. Methods that the rows do not have
    are left out; the second of a group of methods is hatched.

    Args:
        rows: Tidy rows with dataset, method, role, orientation, seed, accuracy and its interval.
        methods: Keys of methods, in the order of their bars.
        what: What messages call them.

    Raises:
        ValueError: No row of these methods, a missing column, or rows that differ in more than the
            seed.
    """
    rows = chosen_rows(rows, "oracle", ["dataset", "method", "role", "seed", "accuracy"])
    rows = some_rows(rows.loc[rows["method"].isin(methods)], what)
    named = [method_of(name) for name in methods if name in set(rows["method"])]
    points = summarise(rows, by=["dataset", "method"], value="accuracy").set_index("method")
    sets = list(dict.fromkeys(rows["dataset"]))
    width = 0.8 / len(named)
    with style():
        figure = new_figure(height=2.6)
        axes = figure.subplots()
        axes.axhline(0.5, color=GREY, lw=0.8, ls=":", zorder=1)
        for place, method in enumerate(named):
            mine = points.loc[[method.key]].set_index("dataset").reindex(sets)
            mean, low, high = (np.asarray(mine[part], float) for part in ("mean", "low", "high"))
            at = np.arange(len(sets)) + (place - (len(named) - 1) / 2) * width
            again = method.group in [other.group for other in named[:place]]
            axes.bar(
                *(at, mean, width * 0.9), color=GROUP_COLORS[method.group],
                hatch="///" if again else None, edgecolor="white", linewidth=0.5,
                label=method.name, gid=method.key, zorder=2,
            )  # fmt: skip
            # White beside black: a line on a black bar is seen, too.
            axes.vlines(at, low, high, color="white", linewidth=2.6, zorder=3)
            axes.vlines(at, low, high, color="black", linewidth=0.9, zorder=3, gid=method.key)
        axes.set_xticks(range(len(sets)), [readable(name) for name in sets])
        half = max(0.5, 1.5 - 0.5 * len(sets))  # one set does not fill the page
        axes.set(ylim=(0, 1.03), ylabel="accuracy", xlim=(-half, len(sets) - 1 + half))
        axes.tick_params(axis="x", length=0)
        figure.legend(loc="outside upper left", ncols=min(3, len(named)))
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
    with style():
        figure = new_figure(height=2.6)
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
        every = [baseline_ms, *(value for points in costs.values() for value in points.values())]
        ticks = _ticks(min(every), max(every))
        # The panels share this axis; a tick at each end, and room for a marker on it.
        panels[0].set(ylabel="ms per probe-step", ylim=(ticks[0] / 1.1, ticks[-1] * 1.1))
        panels[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[0].minorticks_off()
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last at or below `low` to the first from `high`."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 2)
    steps = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    first = max(place for place, step in enumerate(steps) if step <= low)
    last = min(place for place, step in enumerate(steps) if step >= high)
    return steps[first : last + 1]
