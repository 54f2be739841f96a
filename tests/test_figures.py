import itertools
import math
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from figure_rows import (
    METHODS,
    MORE,
    NAN,
    NEED_NO_SIGN,
    NO_LAYER,
    SALIENCE,
    drawn,
    mean_auroc,
    names_of,
    rows_of,
)
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from jelicit.figures import (
    calibration_figure,
    cost_figure,
    layers_figure,
    salience_figure,
    salience_scatter,
    save,
    shares_figure,
)
from jelicit.figures.parts import spread
from jelicit.method_groups import GROUPS
from jelicit.method_names import in_reading_order, known, readable


def test_panels_stand_in_order_of_salience():
    titles = [axes.get_title() for axes in salience_figure(rows_of(SALIENCE), "gsm8k").axes]
    assert [title.split("\n")[0] for title in titles] == [
        "No added feature",
        "Punctuation",
        "Sycophancy",
        "Tense",
    ]
    assert "feature salience 0.012" in titles[1]
    assert "feature" not in titles[0].split("\n", 1)[1]


def test_the_salience_figure_shows_the_rows():
    rows = rows_of(SALIENCE)
    rows += [r | {"dataset": "liar", "auroc": 0.0} for r in rows]  # of no concern here
    figure = salience_figure(rows, "gsm8k")
    names = names_of(figure.axes[0])
    for axes, feature in zip(figure.axes[1:], ["punctuation", "sycophancy", "tense"], strict=True):
        for role, side in (("truth", -1), ("spurious", 1)):
            x, y = drawn(axes, role)
            assert len(x) == len(METHODS)
            for method in METHODS:
                sign = "" if method.key in NEED_NO_SIGN else " *"
                height = names.index(method.name + sign)
                (at,) = np.flatnonzero(np.round(y) == height)
                expected = mean_auroc(
                    rows, dataset="gsm8k", feature=feature, role=role, method=method.key
                )
                assert x[at] == pytest.approx(expected)
                assert np.sign(y[at] - height) == side  # truth above, spurious below
            seeds, _ = drawn(axes, f"{role} seeds")
            here = ("gsm8k", feature, role)
            mine = [r for r in rows if (r["dataset"], r["feature"], r["role"]) == here]
            np.testing.assert_allclose(sorted(seeds), sorted(r["auroc"] for r in mine))
    assert len(drawn(figure.axes[0], "spurious")[0]) == 0  # nothing spurious was added


def test_intervals_are_drawn_where_there_are_any():
    rows = [r for r in rows_of({"tense": 0.2}, seeds=1) if r["method"] in ("ccs", "e2h")]
    rows[0] |= {"auroc_low": NAN, "auroc_high": NAN}
    (axes,) = salience_figure(rows, "gsm8k").axes
    bars = [s for c in axes.collections for s in c.get_segments()]  # pyright: ignore
    ends = sorted((s[0][0], s[1][0]) for s in bars if len(s) and not np.isnan(s).any())
    expected = sorted((r["auroc_low"], r["auroc_high"]) for r in rows[1:])
    np.testing.assert_allclose(ends, expected)


def test_methods_stand_in_their_groups():
    rows = rows_of({"tense": 0.2}, unknown=1)
    (axes,) = salience_figure(rows, "gsm8k").axes
    names = [name.removesuffix(" *") for name in names_of(axes)]
    assert names == [
        *("Prompting", "Zero-shot", "Random few-shot"),
        *("Bootstrapped", "Bootstrapped + consistency"),
        *("Unsupervised", "Random probe", "CCS", "CCS, rebalanced", "PCA", "PCA, rebalanced"),
        *("Random ensemble (consensus)", "PCA ensemble (consensus)"),
        *("Easy-to-hard", "E2H", "UE+E2H", "Random ensemble (E2H)", "PCA ensemble (E2H)"),
        *("Ceiling", "Supervised", "Difference of means", "LDA", "Golden few-shot"),
        *("Control", "Length alone", "Elm alone"),
        *("Other", "unknown method 0"),
    ]


def test_methods_are_read_in_the_order_of_their_groups():
    keys = [method.key for method in known()]
    assert len(set(keys)) == len({method.name for method in known()}) == len(known())
    given = ["brand_new", "control_elm", *keys[::-1]]
    ordered = in_reading_order([*given, *given])
    assert [m.key for m in ordered] == [*keys, "control_elm", "brand_new"]
    groups = [GROUPS.index(method.group) for method in ordered]
    assert groups == sorted(groups)
    assert [(m.name, m.group) for m in ordered[-2:]] == [
        ("Elm alone", "Control"),
        ("brand new", "Other"),
    ]


def test_one_sign_choice_is_shown_and_named():
    oracle = rows_of({"tense": 0.2}, seeds=1)
    easy = [
        r | {"orientation": "easy", "auroc": r["auroc"] / 2} for r in oracle
        if r["orientation"] == "oracle"
    ]  # fmt: skip
    for sign, words, share in (("oracle", "(oracle)", 1), ("easy", "easy labelled set", 0.5)):
        figure = salience_figure(oracle + easy, "gsm8k", orientation=sign)
        assert words in figure.get_supxlabel()
        expected = [
            r["auroc"] * (1 if r["orientation"] == "none" else share)
            for r in oracle
            if r["role"] == "truth"
        ]
        np.testing.assert_allclose(sorted(drawn(figure.axes[0], "truth")[0]), sorted(expected))


def test_a_lost_run_leaves_a_gap():
    rows = rows_of({"tense": 0.2}, seeds=1)
    for r in rows:
        if r["method"] == "ccs":
            r |= {"auroc": NAN, "auroc_low": NAN, "auroc_high": NAN}
    x, _ = drawn(salience_figure(rows, "gsm8k").axes[0], "truth")
    assert np.isnan(x).sum() == 1


def test_the_scatter_shows_the_rows():
    rows = rows_of(SALIENCE)
    (axes,) = salience_scatter(rows).axes
    assert axes.get_xscale() == "log"
    for method in METHODS:
        x, y = drawn(axes, method.key)
        np.testing.assert_allclose(x, [0.0123, 0.091, 0.23])
        features = ("punctuation", "sycophancy", "tense")
        expected = [mean_auroc(rows, feature=f, role="truth", method=method.key) for f in features]
        np.testing.assert_allclose(y, expected)


def test_the_layers_figure_shows_the_rows():
    rows = rows_of({"tense": 0.2}, layers=(2, 10, 30))
    for axes, role in zip(layers_figure(rows).axes, ("truth", "spurious"), strict=True):
        for method in METHODS:
            x, y = drawn(axes, method.key)
            where = {"role": role, "method": method.key}
            if method.key in NO_LAYER:
                np.testing.assert_allclose(y, [mean_auroc(rows, **where)] * 2)
            else:
                np.testing.assert_array_equal(x, [2, 10, 30])
                np.testing.assert_allclose(y, [mean_auroc(rows, layer=int(v), **where) for v in x])


TRUTH, ELM = "elm, asked for truth", "truth, asked for elm"


def asked(*features):
    """Rows of sets with two labels, of which the prompt names one."""
    names = {(TRUTH, "truth"): "truth", (TRUTH, "spurious"): "elm"}
    names |= {(ELM, "truth"): "elm", (ELM, "spurious"): "truth"}
    rows = rows_of(dict.fromkeys(features, 0.2), layers=(2, 10))
    return [r | {"target": names[r["feature"], r["role"]]} for r in rows]


def at_layer_2(rows):
    return [r for r in rows if r["layer"] in (2, None)]


def test_a_panel_asked_for_elm_is_never_captioned_truth():
    truth, *_, elm, beside_elm = (
        axes.get_title().split("\n")[1] for axes in layers_figure(asked(TRUTH, ELM)).axes
    )
    assert (truth, elm, beside_elm) == ("truth (asked for)", "elm (asked for)", "spurious feature")
    figure = salience_figure(at_layer_2(asked(TRUTH, ELM)), "gsm8k")
    titles = {axes.get_title().split("\n")[0]: axes.get_title() for axes in figure.axes}
    said = {name.lower(): title.split("\n", 1)[1] for name, title in titles.items()}
    assert said == {
        TRUTH: "feature salience 0.2\ntruth salience 0.031",
        ELM: "feature salience 0.2\nelm salience 0.031",
    }


@pytest.mark.parametrize(
    ("features", "legend", "label"),
    [
        ((TRUTH,), "truth (asked for)", "AUROC (truth)"),
        ((ELM,), "elm (asked for)", "AUROC (elm)"),
        ((TRUTH, ELM), "asked for", "AUROC (asked for)"),
    ],
)
def test_what_is_asked_for_has_its_name_unless_it_varies(features, legend, label):
    rows = at_layer_2(asked(*features))
    (drawn,) = salience_figure(rows, "gsm8k").legends
    names = [text.get_text() for text in drawn.get_texts()]
    assert names == [legend, "spurious feature"]
    (axes,) = salience_scatter(rows).axes
    assert axes.get_ylabel() == label


@pytest.mark.parametrize(("low", "high", "least"), [(0.35, 7.2, 3), (3.1, 4.4, 2), (1, 1, 1)])
def test_costs_have_plain_ticks_at_1_2_and_5(low, high, least):
    costs = {"runs": {1: high, 39: low}, "items": {100: low, 1000: high}}
    figure = cost_figure(costs, baseline_ms=high)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    shown = [
        label.get_text()
        for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if bottom <= tick <= top and label.get_text()
    ]
    assert len(shown) >= least
    assert {f"{float(text):e}"[0] for text in shown} <= set("125")
    assert bottom < float(shown[0]) <= low <= high <= float(shown[-1]) < top
    assert not any("$" in text for text in shown)


CASES = {
    **{
        f"{count} panels, all methods": lambda count=count: salience_figure(
            rows_of(dict(itertools.islice((SALIENCE | MORE).items(), count)), unknown=3), "gsm8k"
        )
        for count in range(1, 7)
    },
    "scatter": lambda: salience_scatter(
        rows_of(SALIENCE | MORE, unknown=3) + rows_of(SALIENCE, dataset="liar")
    ),
    "layers": lambda: layers_figure(rows_of(SALIENCE, layers=(2, 10, 30), unknown=3)),
}


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_or_leaves_the_page(case, monkeypatch):
    figure: Figure = CASES[case]()
    shown = {}
    draw = Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text().strip():
            shown[text] = text.get_window_extent(renderer)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    FigureCanvasAgg(figure).draw()
    assert len(shown) > 14
    (legend,) = (each.get_window_extent() for each in figure.legends)
    (signs,) = (box for text, box in shown.items() if text.get_text() == figure.get_supxlabel())
    assert not legend.overlaps(signs)
    page = figure.bbox
    assert figure.get_figwidth() == 7.0
    assert figure.get_figheight() < 9.5 or case == "layers"
    for text, box in shown.items():
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text
    for (one, a), (two, b) in itertools.combinations(shown.items(), 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes include room for descenders, so neighbouring lines may share a little height.
        assert overlap[0] <= 0.5 or overlap[1] <= 0.25 * min(a.height, b.height), (one, two)


def test_the_shares_figure_shows_the_rows():
    shares = (0.0, 0.01, 0.5, 1.0)
    rows = [
        {**row, "class_share": NAN if row["method"] in NO_LAYER else share}
        for share in shares
        for row in rows_of({"none": NAN})
        if row["method"] not in NO_LAYER or share == 0.0
    ]
    for place, row in enumerate(rows):
        row["auroc"] = 0.3 + 0.4 * (place % 7) / 7
    figure = shares_figure(rows, "gsm8k")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Prompting", "Unsupervised", "Easy-to-hard", "Ceiling", "Control"]
    x, y = drawn(figure.axes[1], "ccs")
    # At equal distances: 0.01 is as far from 0 as 1 is from 0.5.
    np.testing.assert_array_equal(x, range(4))
    ticks = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert ticks == ["0", "0.01", "0.5", "1"]
    expected = [mean_auroc(rows, method="ccs", class_share=share) for share in shares]
    np.testing.assert_allclose(y, expected)
    _, level = drawn(figure.axes[0], "zero_shot")
    assert level[0] == level[-1] == pytest.approx(mean_auroc(rows, method="zero_shot"))


def test_the_same_rows_give_the_same_bytes(tmp_path):
    paths = [
        save(salience_figure(rows_of(SALIENCE), "gsm8k"), tmp_path / name / "figure.v1")
        for name in ("a", "b")
    ]
    assert [p.name for p in paths[0]] == ["figure.v1.png", "figure.v1.svg"]
    for one, two in zip(*paths, strict=True):
        assert one.read_bytes() == two.read_bytes()
    svg = paths[0][1].read_text()
    assert "PCA ensemble (consensus) *</text>" in svg  # text stays text
    assert "<dc:date>" not in svg


def test_matplotlibs_global_state_is_left_alone(tmp_path):
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        loud = save(salience_figure(rows_of(SALIENCE), "gsm8k"), tmp_path / "loud")
        assert mpl.rcParams["font.size"] == 30
    plain = save(salience_figure(rows_of(SALIENCE), "gsm8k"), tmp_path / "plain")
    assert dict(mpl.rcParams) == before
    assert loud[0].read_bytes() == plain[0].read_bytes()  # nor does it reach our figures
    code = "import sys, jelicit.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(sorted), st.floats(0.001, 0.3))
def test_spread_places_keep_their_distance_order_and_range(wanted, gap):
    places = spread(wanted, gap=gap)
    fair = min(gap, 1 / max(len(wanted) - 1, 1))
    assert len(places) == len(wanted)
    assert min(np.diff(places), default=math.inf) >= fair - 1e-9
    assert -1e-9 <= places[0] <= places[-1] <= 1 + 1e-9


def test_spread_leaves_what_is_apart_and_centres_what_is_close():
    assert spread([0.1, 0.5, 0.9], gap=0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.2, 0.5, 0.5, 0.5], gap=0.1) == pytest.approx([0.2, 0.4, 0.5, 0.6])
    assert spread([1.0, 1.0], gap=0.1) == pytest.approx([0.9, 1.0])


def test_what_cannot_be_drawn_is_refused():
    rows = rows_of({"tense": 0.2})
    with pytest.raises(ValueError, match=r"no rows are left to draw .* dataset 'lair'"):
        salience_figure(rows, "lair")
    with pytest.raises(ValueError, match="orientation is 'best'; choose one of oracle, easy"):
        salience_figure(rows, "gsm8k", orientation="best")
    with pytest.raises(ValueError, match=r"differ in layer \[18\.0, 20\.0\]"):
        salience_figure(rows_of({"tense": 0.2}, layers=(18, 20)), "gsm8k")
    with pytest.raises(ValueError, match="a measured salience"):
        salience_scatter(rows_of({"none": NAN}))
    with pytest.raises(ValueError, match="no column layer"):
        layers_figure([{k: v for k, v in r.items() if k != "layer"} for r in rows])


BROKEN_MATHS = "$\\frac{1}{2$"


def test_a_dollar_in_a_name_begins_no_formula_and_escapes_no_xml(tmp_path):
    """Matplotlib would read it as mathematics, and fail when it draws."""
    name = f"{BROKEN_MATHS} \x1b[31m"
    rows = [r | {"dataset": name, "class_share": 0.5} for r in rows_of({name: 0.2, "none": NAN})]
    plain = [r for r in rows if r["feature"] == "none"]
    drawn_here = [
        salience_figure(rows, name),
        layers_figure(rows),
        shares_figure(plain, name),
        salience_scatter([r for r in rows if r["feature"] == name]),
    ]
    for number, figure in enumerate(drawn_here):
        _, svg = save(figure, tmp_path / str(number))
        texts = [node.text or "" for node in ElementTree.parse(svg).iter() if node.text]
        assert any(BROKEN_MATHS in text for text in texts), number


def test_the_calibration_figure_shows_the_mean_error_of_every_method_on_the_label_asked_for():
    rows = [r | {"ece": round(0.4 * r["auroc"], 3)} for r in rows_of(SALIENCE)]
    # Of the label that is not asked for nobody claims a probability.
    rows = [r if r["role"] == "truth" else r | {"ece": NAN} for r in rows]
    figure = calibration_figure(rows, "gsm8k")
    names = names_of(figure.axes[0])
    # In the order of the figure of areas.
    in_order = ("none", "punctuation", "sycophancy", "tense")
    assert [axes.get_title() for axes in figure.axes] == [readable(name) for name in in_order]
    for axes, feature in zip(figure.axes, in_order, strict=True):
        heights = dict(zip(names, figure.axes[0].get_yticks(), strict=True))
        dots = dict(zip(*drawn(axes, "truth")[::-1], strict=True))
        mine = [r for r in rows if (r["feature"], r["role"]) == (feature, "truth")]
        expected = np.mean([r["ece"] for r in mine if r["method"] == "supervised"])
        [dot] = [x for y, x in dots.items() if abs(y - heights["Supervised"]) < 0.4]
        assert dot == pytest.approx(expected)
    with pytest.raises(ValueError, match="calibration"):
        calibration_figure([r | {"ece": NAN} for r in rows], "gsm8k")
