"""Figures of warnings and of assistants show their rows, whole and named."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from jelicit.figures import assistant_figure, stress_figure, warnings_figure

NAN = float("nan")


def warning(indicator: str, kind: str, auroc: float) -> dict[str, Any]:
    low, high = auroc - 0.1, auroc + 0.1
    about = {"kind": kind, "indicator": indicator, "title": indicator.title()}
    return about | {"auroc": auroc, "auroc_low": low, "auroc_high": high, "false_alarms": 0.3}


def test_the_figure_of_warnings_shows_every_area_and_names_what_it_shows():
    rows = [
        warning("length", "all", 0.6),
        warning("length", "plain", NAN),
        warning("length", "salience", 1.0),
        warning("seeds", "all", 0.4),
        warning("seeds", "salience", 0.2),
    ]
    figure = warnings_figure(rows)
    left, right = figure.axes
    drawn = {
        str(line.get_label()): np.asarray(line.get_xdata(), float).tolist() for line in left.lines
    }
    assert drawn["all cases"] == [0.6, 0.4]
    assert drawn["salience"] == [1.0, 0.2]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["salience", "all cases"]
    # A mark at the end of the axis is no half mark.
    assert not any(
        line.get_clip_on() for line in left.lines if line.get_marker() not in ("", "None")
    )
    bars = [bar for bar in right.patches if isinstance(bar, Rectangle)]
    assert [bar.get_width() for bar in bars] == [0.3, 0.3]


def answers(dataset: str) -> list[dict[str, Any]]:
    shares = {"win_rate_start": 0.7, "accuracy": 0.1, "fooled": 0.5}
    ends = {f"{name}{end}": value for name, value in shares.items() for end in ("_low", "_high")}
    about = {"dataset": dataset, "role": "truth", "orientation": "none", "seed": 0}
    return [about | shares | ends | {"method": method} for method in ("policy_icm", "best_of_icm")]


@pytest.mark.parametrize("sets", [("pocket/pairs",), ("pocket/pairs", "alpaca")])
def test_the_figure_of_assistants_names_panels_and_sets_once_each(sets):
    figure = assistant_figure(pd.DataFrame([row for name in sets for row in answers(name)]))
    panels = ["wins against the start", "true answers", "wrong, rewarded as right"]
    assert [axes.get_title() for axes in figure.axes] == panels * len(sets)
    assert (figure.get_suptitle() == "Pairs (pocket)") == (len(sets) == 1)
    below = [axes.get_xlabel() for axes in figure.axes]
    if len(sets) == 1:
        assert below == [""] * 3
    else:
        assert below == [name for name in ("Pairs (pocket)", "Alpaca") for _ in panels]


def test_the_scorecard_begins_with_methods_without_labels_whatever_the_order_of_the_rows():
    about = {"challenge": "salience", "auroc": 0.7, "verdict": "open", "near_best": True}
    rows = [
        about | {"method": "lda", "orientation": "none", "block": "with labels"},
        about | {"method": "e2h", "orientation": "none", "block": "labels of an easy set"},
        about | {"method": "ccs", "orientation": "oracle", "block": "without labels"},
    ]
    titles = [axes.get_title(loc="left") for axes in stress_figure(rows).axes]
    assert [title.removeprefix("Methods ") for title in titles] == [
        "without labels",
        "with labels of an easy set",
        "with labels",
    ]
