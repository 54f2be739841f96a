"""Figures of ICM: what is drawn is what rows and steps say."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_rows import NAN, drawn, names_of

from jelicit.figures import accuracy_figure, bars_figure, save, search_figure

METHODS = {"zero_shot": NAN, "icm": 0.9, "icm_wrong_start": 0.7, "wrong_many_shot": 0.0}
"""Methods, and the share of right labels that they show."""


def rows(sets=("pocket/facts", "pocket/poems"), seeds=3):
    rng = np.random.default_rng(0)
    found = []
    for name in sets:
        for method, right in METHODS.items():
            for seed in range(seeds):
                accuracy = rng.uniform(0.2, 0.8)
                found.append(
                    {
                        "dataset": name,
                        "method": method,
                        "role": "truth",
                        "orientation": "none",
                        "seed": seed,
                        "accuracy": accuracy,
                        "accuracy_low": accuracy - 0.1,
                        "accuracy_high": accuracy + 0.1,
                        "label_accuracy": right + 0.01 * (seed - 1),
                    }
                )
    return pd.DataFrame(found)


def test_every_line_is_the_mean_accuracy_and_a_diamond_the_right_labels():
    given = rows()
    figure = accuracy_figure(given)
    for name, axes in zip(given["dataset"].unique(), figure.axes, strict=True):
        mine = given.loc[given["dataset"] == name]
        means = mine.groupby("method")["accuracy"].mean()
        heights = dict(zip(names_of(figure.axes[0]), figure.axes[0].get_yticks(), strict=True))
        dots, diamonds = (
            dict(zip(*drawn(axes, gid)[::-1], strict=True)) for gid in ("truth", "labels")
        )
        for method, title in (("icm", "ICM"), ("wrong_many_shot", "Golden turned round")):
            [dot] = [x for height, x in dots.items() if abs(height - heights[title]) < 0.4]
            assert dot == pytest.approx(means[method])
            assert diamonds[heights[title]] == pytest.approx(METHODS[method])
        # Without examples there are no labels to be right.
        assert set(diamonds) == {
            heights[t] for t in ("ICM", "ICM from wrong labels", "Golden turned round")
        }
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "right about test items",
        "right among its labels",
    ]


def test_without_labels_there_is_no_diamond():
    figure = accuracy_figure(rows(sets=("gsm8k",)).drop(columns="label_accuracy"))
    assert not figure.legends
    assert "labels" not in {line.get_gid() for line in figure.axes[0].get_lines()}


def test_a_bar_is_the_mean_accuracy_and_the_chat_models_is_there_where_it_was_asked(tmp_path):
    given = rows()
    chat = given.loc[given["method"] == "zero_shot"].assign(method="zero_shot_chat", accuracy=0.75)
    sets = list(given["dataset"].unique())
    for shown, names in (
        (given, ["Zero-shot", "ICM"]),
        (pd.concat([given, chat]), ["Zero-shot", "Zero-shot, chat model", "ICM"]),
    ):
        figure = bars_figure(shown)
        save(figure, tmp_path / "bars")
        [legend] = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == names
        bars: list[Any] = figure.axes[0].patches[::2]
        heights = {bar.get_gid(): bar.get_height() for bar in bars}
        mine = shown.loc[shown["dataset"] == sets[0]]
        expected = mine.groupby("method")["accuracy"].mean()
        assert heights == pytest.approx({name: expected[name] for name in heights})
    with pytest.raises(ValueError, match="no rows are left to draw after asking for zero-shot"):
        bars_figure(given.loc[given["method"] == "wrong_many_shot"])


def steps(seeds=2, length=5):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "step": step, "utility": u, "accuracy": a}
            for method in ("icm", "icm_golden_start")
            for seed in range(seeds)
            for step, (u, a) in enumerate(rng.random((length, 2)))
        ]
    )


def test_the_course_of_every_search_is_drawn():
    given = steps()
    figure = search_figure(given, "pocket/facts")
    grid = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title() for axes in grid[0]] == ["ICM", "ICM from golden labels"]
    for column, method in enumerate(("icm", "icm_golden_start")):
        for line, value in enumerate(("utility", "accuracy")):
            curves = [c for c in grid[line, column].get_lines() if len(c.get_xdata()) == 5]
            for seed, curve in enumerate(curves):
                mine = given.loc[(given["method"] == method) & (given["seed"] == seed)]
                np.testing.assert_allclose(curve.get_ydata(), mine[value])
            assert len(curves) == 2
    with pytest.raises(ValueError, match="no steps to draw"):
        search_figure(given.iloc[:0], "pocket/facts")


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_a_search_that_judged_no_change_is_named_in_place_of_a_line(tmp_path):
    given = steps()
    silent = (given["method"] == "icm_golden_start") & (given["seed"] == 0)
    given.loc[silent, "utility"] = NAN
    figure = search_figure(given, "pocket/facts")
    save(figure, tmp_path / "search")
    (all_judged, one_silent), below = np.array(figure.axes).reshape(2, 2)
    assert texts_of(all_judged) == []
    assert texts_of(one_silent) == ["no change was judged\n(seed 0)"]
    assert [line.get_label() for line in one_silent.get_lines()] == ["seed 1"]
    # Its labels are drawn all the same, and the legend knows both seeds.
    assert [len(axes.get_lines()) for axes in below] == [3, 3]
    assert [t.get_text() for t in one_silent.get_legend().get_texts()] == ["seed 0", "seed 1"]


def test_searches_of_which_none_judged_a_change_have_no_scale_of_u(tmp_path):
    figure = search_figure(steps().assign(utility=NAN), "pocket/facts")
    save(figure, tmp_path / "search")
    above = figure.axes[:2]
    assert [texts_of(axes) for axes in above] == [["no change was judged\n(seed 0, seed 1)"]] * 2
    assert not above[0].get_yticks().size


def test_more_seeds_than_markers_are_drawn(tmp_path):
    figure = search_figure(steps(seeds=17), "pocket/facts")
    save(figure, tmp_path / "search")
    assert len(figure.axes[0].get_lines()) == 17


def test_the_line_of_a_search_has_a_gap_before_every_batch(tmp_path):
    given = steps(seeds=1, length=5).assign(batch=[0, 0, 0, 1, 1] * 2)
    figure = search_figure(given, "pocket/facts")
    save(figure, tmp_path / "search")
    mine = given.loc[given["method"] == "icm"]
    for axes, value in zip(figure.axes[::2], ("utility", "accuracy"), strict=True):
        curve = axes.get_lines()[0]
        np.testing.assert_array_equal(curve.get_xdata(), [0, 1, 2, 3, 3, 4])
        expected = np.insert(np.asarray(mine[value]), 3, NAN)
        np.testing.assert_array_equal(curve.get_ydata(), expected)
