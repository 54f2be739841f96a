"""Figures of mixtures and of transfer: what is drawn is what the rows and scores say."""

import itertools

import numpy as np
import pytest
from figure_rows import NAN, drawn, mean_auroc, names_of, rows_of
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from jelicit.data.items import Item
from jelicit.figures import histograms_figure, transfer_figure, variance_figure
from jelicit.results import ItemScores


def matrix(axes: Axes) -> np.ndarray:
    """The one image of a panel; nan where nothing was measured."""
    (image,) = axes.get_images()
    found = image.get_array()
    assert found is not None
    return np.ma.filled(found, NAN)


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def variance_rows(methods=("zero_shot", "ccs", "supervised"), seeds=2):
    rng = np.random.default_rng(1)
    return [
        {
            **row,
            "variance_share": (share := rng.uniform(0.2, 0.9)),
            "variance_share_low": share - 0.1,
            "variance_share_high": share + 0.05,
        }
        for row in rows_of({"none": NAN}, seeds=seeds)
        if row["method"] in methods
    ]


def test_the_variance_figure_shows_the_rows():
    rows = variance_rows()
    spurious = [{**row, "role": "spurious", "auroc": 0.0} for row in rows]
    easy = [{**row, "orientation": "easy", "auroc": 0.0} for row in rows if row["method"] == "ccs"]
    figure = variance_figure(rows + spurious + easy, "pocket/arithmetic + pocket/opinions")
    keys = ("zero_shot", "ccs", "supervised")
    names = names_of(figure.axes[0])
    lines = [names.index(name) for name in ("Zero-shot", "CCS *", "Supervised")]
    for axes, value in zip(figure.axes, ("auroc", "variance_share"), strict=True):
        of = {key: [row for row in rows if row["method"] == key] for key in keys}
        x, y = drawn(axes, "truth")
        np.testing.assert_array_equal(np.round(y), lines)
        np.testing.assert_allclose(x, [np.mean([row[value] for row in of[key]]) for key in keys])
        seeds, _ = drawn(axes, "truth seeds")
        np.testing.assert_allclose(sorted(seeds), sorted(row[value] for row in rows))
        segments = [s for c in axes.collections for s in c.get_segments()]  # pyright: ignore
        ends = [
            [np.mean([row[f"{value}_{end}"] for row in of[key]]) for end in ("low", "high")]
            for key in keys
        ]
        np.testing.assert_allclose(
            sorted([s[0][0], s[1][0]] for s in segments if len(s)), sorted(ends)
        )
        assert len(drawn(axes, "spurious")[0]) == 0
    assert figure.get_suptitle() == "Arithmetic (pocket) + Opinions (pocket)"


def test_the_share_of_claims_with_a_truth_value_is_marked_in_the_variance_figure():
    for balance in (0.5, 0.3):
        areas, shares = variance_figure(variance_rows(), "gsm8k", balance=balance).axes
        marks = [
            [
                np.asarray(line.get_xdata())[0]
                for line in axes.get_lines()
                if line.get_linestyle() == ":"
            ]
            for axes in (areas, shares)
        ]
        assert marks == [[0.5], [balance]]


def item_scores(n=60):
    """A third true, a third false, a third without a truth value, apart by method."""
    items = [
        Item(id=f"i{k}", choice="c", dataset="b" if k % 3 == 2 else "a",
             label=(True, False, None)[k % 3])
        for k in range(n)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    settings = [
        {"method": "zero_shot", "orientation": "none"},
        {"method": "ccs", "orientation": "oracle", "layer": 3},
        {"method": "ccs", "orientation": "easy", "layer": 3},
        {"method": "ccs", "orientation": "oracle", "layer": 5},
    ]
    shift = np.array([2.0, -2.0, 0.0])[np.arange(n) % 3]
    return ItemScores.of(
        items, [(s, rng.normal(size=n) + place * shift) for place, s in enumerate(settings)]
    )


@pytest.mark.parametrize(("layer", "orientation", "place"), [(3, "oracle", 1), (5, "oracle", 3),
                                                             (3, "easy", 2)])  # fmt: skip
def test_the_histograms_count_the_scores_of_each_source(layer, orientation, place):
    found = item_scores()
    figure = histograms_figure(found, layer=layer, orientation=orientation)
    assert [axes.get_title() for axes in figure.axes] == ["Zero-shot", "CCS"]
    label = found.items["label"].to_numpy()
    for axes, column in zip(figure.axes, (0, place), strict=True):
        scores = found.scores[:, column]
        found_bars = bars(axes)
        assert len(found_bars) == 60
        starts = [bar.get_x() for bar in found_bars]
        heights = np.array([bar.get_height() for bar in found_bars])
        edges = np.append(starts[:30], starts[29] + found_bars[29].get_width())
        inside = np.clip(scores, edges[0] + 1e-9, edges[-1] - 1e-9)
        for value, counts in ((1, heights[:30]), (0, heights[30:])):
            expected, _ = np.histogram(inside[label == value], edges)
            np.testing.assert_array_equal(counts, expected)
            assert counts.sum() == 20
        (outline,) = (patch for patch in axes.patches if isinstance(patch, Polygon))
        steps = np.asarray(outline.get_xy())[:, 1]
        expected, _ = np.histogram(inside[np.isnan(label)], edges)
        assert steps.max() == expected.max()
        assert sorted({*steps.astype(int)} - {0}) == sorted({*expected} - {0})
    assert figure.get_suptitle() == "Truth scores: A and B"


def test_items_that_a_method_did_not_score_are_in_no_histogram():
    found = item_scores()
    found.scores[::2, 0] = NAN
    axes = histograms_figure(found, layer=3).axes[0]
    assert sum(bar.get_height() for bar in bars(axes)) == 20


def transfer_rows(sets=("pocket/arithmetic", "pocket/facts", "pocket/pairs")):
    rng = np.random.default_rng(3)
    keys = (("ccs", "oracle"), ("supervised", "none"))
    probes = [
        {"train": a, "dataset": b, "method": key, "orientation": sign, "seed": seed,
         "role": "truth", "auroc": rng.uniform(), "auroc_low": 0.1, "auroc_high": 0.9}
        for a, b in itertools.product(sets, sets) for key, sign in keys for seed in range(2)
    ]  # fmt: skip
    own = {"method": "zero_shot", "orientation": "none", "seed": 0, "train": "none"}
    return probes + [{**probes[0], **own, "dataset": name} for name in sets]


def test_the_transfer_figure_shows_the_rows():
    rows = transfer_rows()
    sets = ["pocket/arithmetic", "pocket/facts", "pocket/pairs"]
    easy = [{**r, "orientation": "easy", "auroc": 0.0} for r in rows if r["method"] == "ccs"]
    figure = transfer_figure(rows + easy)
    assert [axes.get_title() for axes in figure.axes] == ["CCS *", "Supervised"]
    for axes, method in zip(figure.axes, ("ccs", "supervised"), strict=True):
        expected = [
            [mean_auroc(rows, method=method, train=a, dataset=b) for b in sets] for a in sets
        ]
        np.testing.assert_allclose(matrix(axes), expected)
        texts = {text.get_position(): text.get_text() for text in axes.texts}
        assert texts == {
            (column, line): f"{expected[line][column]:.2f}"
            for line in range(3)
            for column in range(3)
        }
    for labels in (figure.axes[0].get_yticklabels(), figure.axes[0].get_xticklabels()):
        assert [label.get_text() for label in labels] == ["Arithmetic", "Facts", "Pairs"]
    lost = [r for r in rows if (r["train"], r["dataset"]) != (sets[0], sets[2])]
    found = matrix(transfer_figure(lost).axes[0])
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 2]]


def test_what_cannot_be_drawn_is_refused():
    rows = rows_of({"none": NAN}, seeds=1)
    with pytest.raises(ValueError, match="no column variance_share"):
        variance_figure(rows, "gsm8k")
    with pytest.raises(ValueError, match="no method was measured at layer 4 under 'oracle' signs"):
        histograms_figure(ItemScores(item_scores().items, ({"method": "ccs", "orientation":
                          "oracle", "layer": 3},), np.zeros((60, 1))), layer=4)  # fmt: skip
    with pytest.raises(ValueError, match="no column train"):
        transfer_figure(rows)
    with pytest.raises(ValueError, match="after asking for probes"):
        transfer_figure([r for r in transfer_rows() if r["train"] == "none"])
