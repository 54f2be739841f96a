"""A grid is its sweeps one by one, measured; every probe of it can be asked for."""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from planted import planted
from sklearn.metrics import roc_auc_score

from jelicit.data.subsets import class_share_rows
from jelicit.metrics import group_bootstrap
from jelicit.pairs import Pairs
from jelicit.probes.methods import SweepConfig
from jelicit.probes.registry import crossable
from jelicit.probes.sweep import SweepData, sweep
from jelicit.probes.sweep import sweeping as sweep_module
from jelicit.studies import scoring
from jelicit.studies.grid import Grid, GridResult, run_grid

D = 16
TRAIN, LABELS, _ = planted(80, D, seed=0, strength=0.8)
TEST, TEST_LABELS, _ = planted(50, D, seed=1, strength=0.8)
EASY, EASY_LABELS, _ = planted(40, D, seed=2)
BASE = SweepConfig(ccs_steps=40, bce_steps=50, patience=10, ensemble_size=6)
GRID = Grid(
    methods=("random", "ccs", "pca", "supervised", "ue_e2h"),
    seeds=(0, 7),
    class_shares=(0.25, None, 1.0),
    settings={"easy_share": (0.2, 0.8), "restarts": (1, 2)},
    base=BASE,
)
SETS: dict[str, Any] = {
    "test": TEST,
    "test_labels": TEST_LABELS,
    "test_groups": np.arange(50) // 2,
    "easy": EASY,
    "easy_labels": EASY_LABELS,
    "boot": 40,
}


@pytest.fixture(scope="module")
def result() -> GridResult:
    return run_grid(GRID, TRAIN, LABELS, **SETS)


def test_there_is_a_row_for_every_combination(result):
    rows = result.rows
    combinations = 2 * 3 * 2 * 2
    unsigned = rows[rows["method"].isin(["random", "ccs", "pca"])]
    assert len(unsigned) == 3 * combinations * 2
    assert len(rows) - len(unsigned) == 2 * combinations
    assert set(unsigned["orientation"]) == {"oracle", "easy"}
    assert not rows.duplicated(
        ["method", "orientation", "seed", "class_share", "easy_share", "restarts"]
    ).any()
    assert set(rows.loc[rows["class_share"] == 1.0, "n_train"]) == {40}
    assert set(rows.loc[rows["class_share"].isna(), "n_train"]) == {80}


def test_rows_are_those_of_a_sweep_with_these_settings(result):
    rows = class_share_rows(LABELS, share=0.25, seed=7)
    subset = np.zeros((1, 80), bool)
    subset[0, rows] = True
    data = SweepData(
        hard={0: TRAIN},
        layers=(0,),
        subsets=subset,
        seeds=np.array([7]),
        hard_targets=LABELS,
        easy={0: EASY},
        easy_labels=EASY_LABELS,
    )
    config = SweepConfig(
        methods=GRID.methods, ccs_steps=40, bce_steps=50, patience=10, easy_share=0.8, restarts=2
    )
    bench = scoring.Bench(hard=TRAIN, test=TEST, easy=EASY)
    target = scoring.Target(name="truth", role="truth", train=LABELS, test=TEST_LABELS)
    scores = scoring.layer_scores(sweep(data, config), 0, bench)
    signs = scoring.signs(scores, target, subsets=subset, easy_labels=EASY_LABELS)
    expected = pd.DataFrame(
        scoring.method_rows(
            scoring.signed_scores(scores, signs),
            target,
            group_bootstrap(jax.random.key(0), np.arange(50) // 2, 40),
            layer=0,
            subsets=subset,
            runs=[{"seed": 7}],
        )
    )
    here = result.rows.query(
        "seed == 7 and class_share == 0.25 and easy_share == 0.8 and restarts == 2"
    )
    assert here["method"].tolist() == expected["method"].tolist()
    for column in ("auroc", "auroc_low", "auroc_high", "accuracy"):
        # A score may change places with its neighbour by rounding.
        np.testing.assert_allclose(here[column], expected[column], atol=0.01, err_msg=column)


@pytest.mark.parametrize("orientation", ["oracle", "easy"])
def test_every_probe_scores_as_its_row_says(result, orientation):
    rows = result.rows[result.rows["orientation"].isin([orientation, "none"])]
    for _, row in rows.sample(12, random_state=0).iterrows():
        share = None if np.isnan(row["class_share"]) else row["class_share"]
        fitted = result.probe(
            row["method"],
            orientation=orientation,
            seed=row["seed"],
            class_share=share,
            easy_share=row["easy_share"],
            restarts=row["restarts"],
        )
        area = roc_auc_score(TEST_LABELS, np.asarray(fitted.score(TEST)))
        assert area == pytest.approx(row["auroc"], abs=0.005)
        assert fitted.settings["method"] == row["method"]
        assert fitted.settings["class_share"] == share
        assert fitted.settings["orientation"] == row["orientation"]


def test_fits_that_do_not_read_a_setting_are_made_once(monkeypatch):
    fitted, fit = [], sweep_module.fit_together

    def watched(group, *rest):
        fitted.extend(family.names for family in group)
        return fit(group, *rest)

    monkeypatch.setattr(sweep_module, "fit_together", watched)
    run_grid(GRID, TRAIN, LABELS, **{**SETS, "test": None, "test_groups": None})
    assert fitted.count(("ccs",)) == fitted.count(("ue_e2h",)) == 2  # one and two starts
    assert all(fitted.count((method,)) == 1 for method in ("random", "pca", "supervised"))


def test_a_grid_goes_on_from_its_folder(tmp_path, monkeypatch):
    first = run_grid(GRID, TRAIN, LABELS, **SETS, folder=tmp_path)
    monkeypatch.setattr(sweep_module, "fit_together", lambda *_: pytest.fail("fitted again"))
    again = run_grid(GRID, TRAIN, LABELS, **SETS, folder=tmp_path)
    pd.testing.assert_frame_equal(first.rows, again.rows)


def test_layers_and_other_labels_have_rows_of_their_own():
    layers = {4: TRAIN, 9: Pairs(TRAIN.neg, TRAIN.pos)}
    tests = {4: TEST, 9: Pairs(TEST.neg, TEST.pos)}
    other, other_test = (np.arange(n) % 2 for n in (80, 50))
    grid = Grid(methods=("pca", "lda"), seeds=(0,), orientations=("oracle",))
    done = []
    found = run_grid(
        grid,
        layers,
        LABELS,
        test=tests,
        test_labels=TEST_LABELS,
        others={"parity": (other, other_test)},
        test_log_probs=np.log(np.stack([0.5 + 0.4 * TEST_LABELS, 0.5 - 0.4 * TEST_LABELS], 1)),
        boot=10,
        report=lambda *counts: done.append(counts),
    )
    counts = found.rows.groupby(["method", "target", "role"]).size().to_dict()
    assert counts == {
        ("lda", "parity", "spurious"): 2,
        ("lda", "truth", "truth"): 2,
        ("pca", "parity", "spurious"): 2,
        ("pca", "truth", "truth"): 2,
        ("zero_shot", "parity", "spurious"): 1,
        ("zero_shot", "truth", "truth"): 1,
    }
    zero = found.rows.query("method == 'zero_shot' and target == 'truth'")
    assert zero["auroc"].tolist() == [1.0]
    assert done[0] == (0, 4)
    assert done[-1] == (4, 4)
    with pytest.raises(ValueError, match=r"name a layer; there are \[4, 9\]"):
        found.probe("lda")


def test_labels_of_the_task_reach_no_unlabelled_fit_at_all_rows():
    grid = Grid(methods=("ccs", "pca", "supervised"), seeds=(0,), base=BASE)
    sets = {**SETS, "test": None, "test_groups": None}
    flipped = np.random.default_rng(0).permutation(LABELS)
    one, two = (run_grid(grid, TRAIN, y, **sets).sweeps[0][1] for y in (LABELS, flipped))
    for method in map(str, grid.methods):
        same = np.array_equal(one.probes[method].weight, two.probes[method].weight)
        assert same == (method != "supervised")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"settings": {"momentum": (1,)}},
            f"settings has 'momentum'; a grid may cross {next(iter(crossable(GRID.methods)))}",
        ),
        ({"settings": {"memory_budget": (1,)}}, "settings has 'memory_budget'"),
        ({"seeds": ()}, r"seeds is \[\]; name at least one value, each once"),
        ({"seeds": (1, 1)}, r"seeds is \[1, 1\]"),
        ({"settings": {"easy_share": 0.5}}, "easy_share is 0.5; give a sequence of values"),
        ({"orientations": ("test",)}, "orientations is .'test',.; choose some of"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Grid(**settings)


@pytest.mark.parametrize(
    ("grid", "sets", "message"),
    [
        ({"class_shares": (1.2,)}, {}, "share is 1.2"),
        ({"class_shares": (0.5,), "train_size": 200}, {}, "share 0.5 of 200 rows needs 100 true"),
        ({"layers": (3,)}, {}, "hard pairs lack layer 3"),
        ({}, {"easy": None}, "easy is missing"),
        ({}, {"test_labels": TEST_LABELS[1:]}, "labels of 'truth' in test has shape .49,.; test"),
        ({}, {"test_labels": np.full(50, np.nan)}, "labels of 'truth' in test are all nan"),
        ({}, {"others": {"tense": (LABELS, [np.nan] * 50)}}, "labels of 'tense' in test are all"),
        ({}, {"test_groups": np.arange(3)}, "test_groups has shape .3,."),
        ({}, {"test": Pairs(TEST.pos * np.nan, TEST.neg)}, "row 0, is not finite"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_fit(monkeypatch, grid, sets, message):
    monkeypatch.setattr(sweep_module, "fit_together", lambda *_: pytest.fail("fitting began"))
    chosen = Grid(**{"methods": ("ccs", "e2h"), "base": BASE, **grid})
    with pytest.raises(ValueError, match=message):
        run_grid(chosen, TRAIN, LABELS, **{**SETS, **sets})


def test_a_probe_has_to_be_named_so_that_there_is_one(result):
    with pytest.raises(ValueError, match=r"6 runs fit .*; name class_share, seed, too"):
        result.probe("ccs", easy_share=0.2, restarts=1)
    with pytest.raises(ValueError, match=r"no run fits .*; the grid has \{'seed': \[0, 7\], "):
        result.probe("ccs", easy_share=0.2, restarts=1, class_share=1.0, seed=5)
    with pytest.raises(ValueError, match="sed: the grid has class_share, easy_share, restarts, se"):
        result.probe("ccs", sed=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels is None; give a label for every row"),
        (["yes", "no"] * 4, r"labels\[0\]: a label is 'yes'; allowed: True, False, 1 and 0"),
        ([0, 1, 2, 1] * 2, r"labels\[2\]: a label is 2"),
    ],
)
def test_labels_that_are_none_are_refused_by_place(labels, message):
    pairs, _, _ = planted(8, 4, seed=0)
    with pytest.raises(ValueError, match=message):
        run_grid(Grid(methods=("pca",), seeds=(0,), layers=(3,)), {3: pairs}, labels)


def test_labels_of_a_table_may_lack_values_in_its_own_way():
    pairs, _, _ = planted(8, 4, seed=0)
    given = pd.Series([True, pd.NA, False, True] * 2, dtype=object)
    found = run_grid(Grid(methods=("pca",), seeds=(0,), layers=(3,)), {3: pairs}, given)
    assert found.sweeps


@pytest.mark.parametrize("seed", [1.5, -1, "a"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match=r"seeds has .*; allowed are whole numbers from 0"):
        Grid(methods=("pca",), seeds=(seed,))
