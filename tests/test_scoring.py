"""Result rows: which sign, which labels, which rows decide, on planted directions.

Most tests put probes along known directions, so that every AUROC and every sign is known.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from planted import planted
from sklearn.metrics import brier_score_loss, roc_auc_score

from jelicit.calibration import calibration_error, fit_platt
from jelicit.data.items import Item
from jelicit.metrics import group_bootstrap
from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe, score, unfold
from jelicit.probes.methods import FREE_SIGN as UNSIGNED
from jelicit.probes.methods import SweepConfig
from jelicit.probes.registry import ALL_METHODS, PEERS
from jelicit.probes.sweep import SweepData, SweepResult, sweep
from jelicit.studies import scoring
from jelicit.studies.measuring import without_training
from jelicit.studies.scoring import (
    Bench,
    Target,
    ccs_by_layer,
    control_scores,
    fixed_rows,
    measured,
    salience_of,
)
from jelicit.studies.situation import Situation
from jelicit.studies.states import States

D, N, TEST, EASY, RUNS, LAYER = 6, 80, 50, 40, 3, 3
TRUTH, OTHER = np.eye(D)[0], np.eye(D)[1]
SEEDS = (11, 12, 13)


def world(n: int, *, seed: int, opposed: bool = False) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Pairs, labels and another label (independent or the opposite), each along its own axis."""
    rng = np.random.default_rng(seed)
    label, second = (rng.permutation(n) < n / 2 for _ in range(2))
    second = ~label if opposed else second
    signs = np.outer(2 * label - 1, TRUTH) + np.outer(2 * second - 1, OTHER)
    shared, verdict = rng.normal(size=(n, D)), 3 * rng.normal(size=D)
    noise = rng.normal(size=(2, n, D))
    pos = shared + verdict + signs + noise[0]
    neg = shared - verdict - signs + noise[1]
    pairs = Pairs(pos.astype(np.float32), neg.astype(np.float32))
    return pairs, label.astype(float), second.astype(float)


HARD, HARD_LABEL, HARD_OTHER = world(N, seed=0)
TESTED, TEST_LABEL, TEST_OTHER = world(TEST, seed=1)
EASY_PAIRS, EASY_LABELS, _ = world(EASY, seed=2, opposed=True)
SUBSETS = np.stack([np.random.default_rng(seed).permutation(N) < 24 for seed in SEEDS])
BOOT = group_bootstrap(jax.random.key(0), np.arange(TEST) // 2, 30)


def target(name="truth", *, train=HARD_LABEL, test=TEST_LABEL, role="truth") -> Target:
    return Target(name=name, role=role, train=train, test=test)


SPURIOUS = target("other", train=HARD_OTHER, test=TEST_OTHER, role="spurious")


class Setup(NamedTuple):
    """What scores are measured on, and against what."""

    bench: Bench
    targets: tuple[Target, ...]
    easy_labels: np.ndarray | None

    def signed(self, result: SweepResult, target: Target, **options: Any) -> dict:
        scores = scoring.layer_scores(result, LAYER, self.bench)
        signs = scoring.signs(scores, target, subsets=SUBSETS, easy_labels=self.easy_labels)
        return scoring.signed_scores(scores, signs, **options)


def bench(*targets: Target, easy=True, easy_labels=EASY_LABELS) -> Setup:
    return Setup(
        Bench(hard=HARD, test=TESTED, easy=EASY_PAIRS if easy else None),
        targets or (target(), SPURIOUS),
        easy_labels if easy else None,
    )


@pytest.fixture(scope="module")
def result() -> SweepResult:
    """Normalisers of a real sweep and probes along known axes, of a sign that changes by run."""
    data = SweepData(hard={LAYER: HARD}, layers=(LAYER,), subsets=SUBSETS, seeds=np.array(SEEDS))
    fitted = sweep(data, SweepConfig(methods=("random",)))
    flips = np.array([1.0, -1.0, 1.0])[:, None]
    probes = {
        "ccs": flips * TRUTH,
        "pca": -flips * OTHER,
        "random": np.random.default_rng(5).normal(size=(RUNS, D)),
        # Methods that know their sign, one of them wrongly.
        "e2h": np.tile(TRUTH, (RUNS, 1)),
        "supervised": np.tile(-TRUTH - 0.5 * OTHER, (RUNS, 1)),
    }
    made = {
        name: LinearProbe(
            weight=jnp.asarray(weight, jnp.float32)[None],
            bias=jnp.zeros((1, RUNS)),
            offset=jnp.full((1, RUNS), 0.01),
        )
        for name, weight in probes.items()
    }
    info = dict.fromkeys(made, fitted.info["random"])
    return dataclasses.replace(fitted, probes=made, info=info, methods=tuple(made))


def rows_of(result: SweepResult, setup: Setup) -> pd.DataFrame:
    runs = [{"seed": s} for s in SEEDS]
    return pd.DataFrame(
        row
        for of in setup.targets
        for row in scoring.method_rows(
            *(setup.signed(result, of), of, BOOT), layer=LAYER, subsets=SUBSETS, runs=runs
        )
    )


def one(rows: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for column, value in where.items():
        rows = rows.loc[rows[column] == value]
    return rows.sort_values("seed", kind="stable").reset_index(drop=True)


def areas(rows: pd.DataFrame, **where: Any) -> np.ndarray:
    return one(rows, **where)["auroc"].to_numpy(np.float64)


def unfolded(result: SweepResult, method: str, run: int, pairs: Pairs) -> np.ndarray:
    """Scores by a probe's raw directions, in float64."""
    raw = unfold(*result.probe(method, layer=LAYER, run=run))
    pos, neg = (np.asarray(side, np.float64) for side in (raw.pos, raw.neg))
    return np.asarray(pairs.pos @ pos - pairs.neg @ neg + float(raw.constant))


METRICS = [
    *("auroc", "auroc_low", "auroc_high"),
    *("accuracy", "accuracy_low", "accuracy_high"),
]
SHARES = ["variance_share", "variance_share_low", "variance_share_high"]


# ------------------------------------------------------------- rows


def test_every_row_is_what_sklearn_says_of_the_oriented_raw_scores(result):
    rows = rows_of(result, bench())
    targets = {"truth": (HARD_LABEL, TEST_LABEL), "other": (HARD_OTHER, TEST_OTHER)}
    for row in rows.to_dict("records"):
        run = SEEDS.index(row["seed"])
        train, test = targets[row["target"]]
        if row["orientation"] == "oracle":
            rows_used = SUBSETS[run]
            votes = unfolded(result, row["method"], run, HARD)[rows_used], train[rows_used]
        elif row["orientation"] == "easy":
            votes = unfolded(result, row["method"], run, EASY_PAIRS), EASY_LABELS
        else:
            votes = np.array([0.0, 1.0]), np.array([0, 1])
        sign = 1 if roc_auc_score(votes[1], votes[0]) >= 0.5 else -1
        scores = sign * unfolded(result, row["method"], run, TESTED)
        assert row["auroc"] == pytest.approx(roc_auc_score(test, scores), abs=1e-6)
        assert row["accuracy"] == pytest.approx(np.mean((scores > 0) == test), abs=1e-6)
        assert row["n_train"] == SUBSETS[run].sum()
    assert set(rows["layer"]) == {LAYER}
    assert len(rows) == 2 * RUNS * (3 * 2 + 2)


def test_signed_scores_are_what_the_rows_measure(result):
    b = bench()
    rows = rows_of(result, b)
    for target in b.targets:
        found = b.signed(result, target)
        unsigned = [(m, o) for m in ("ccs", "pca", "random") for o in ("oracle", "easy")]
        assert sorted(found) == sorted([*unsigned, ("e2h", "none"), ("supervised", "none")])
        for (method, orientation), scores in found.items():
            where = {"method": method, "orientation": orientation, "target": target.name}
            expected = [roc_auc_score(target.test, run) for run in np.asarray(scores)]
            np.testing.assert_allclose(areas(rows, **where), expected, atol=1e-6)
            for run, run_scores in enumerate(np.asarray(scores)):
                raw, train = (unfolded(result, method, run, p) for p in (TESTED, HARD))
                area = roc_auc_score(target.train[SUBSETS[run]], train[SUBSETS[run]])
                if orientation == "oracle":
                    raw = raw if area >= 0.5 else -raw
                elif orientation == "easy":
                    raw, run_scores = np.abs(raw), np.abs(run_scores)
                np.testing.assert_allclose(run_scores, raw, rtol=1e-3, atol=1e-3)
    alone = b.signed(result, b.targets[0], orientations=("oracle",))
    assert {orientation for _, orientation in alone} == {"none", "oracle"}


def test_signed_methods_have_one_row_per_target_and_run_and_are_never_flipped(result):
    rows = rows_of(result, bench())
    counts = rows.groupby(["method", "target", "seed"]).size().unstack([1, 2])
    for method in result.methods:
        expected = 2 if method in UNSIGNED else 1
        assert (counts.loc[method] == expected).all()
    signed = rows.loc[~rows["method"].isin(sorted(UNSIGNED))]
    assert set(signed["orientation"]) == {"none"}
    # A signed method that is wrong stays wrong.
    assert (areas(rows, method="supervised", target="truth") < 0.3).all()
    assert (areas(rows, method="e2h", target="truth") > 0.7).all()


def test_without_an_easy_set_only_the_oracle_picks_signs(result, monkeypatch):
    def mean(scores: Any, labels: np.ndarray, boot: Any) -> dict[str, np.ndarray]:
        return {"mean": np.asarray(scores).mean(-1)}

    monkeypatch.setattr(scoring, "measured", mean)
    with_easy, without = rows_of(result, bench()), rows_of(result, bench(easy=False))
    assert set(without["orientation"]) == {"none", "oracle"}
    kept = with_easy.loc[with_easy["orientation"] != "easy"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, without)


def test_a_spurious_target_is_oriented_by_its_own_labels_or_by_the_easy_set(result):
    rows = one(rows_of(result, bench()), method="pca")
    # The probes lie along the other label, with signs -, +, -.
    spurious = one(rows, role="spurious")
    oracle = areas(spurious, orientation="oracle")
    assert (oracle > 0.7).all()
    # In the easy set the other label is the opposite of the truth, so its sign comes out wrong.
    easy = areas(spurious, orientation="easy")
    np.testing.assert_allclose(easy, 1 - oracle, atol=1e-6)
    assert (np.abs(areas(rows, role="truth", orientation="oracle") - 0.5) < 0.25).all()
    assert set(spurious["target"]) == {"other"}


# ------------------------------------------------------------- who decides the sign


def test_the_oracle_of_a_run_reads_the_labels_of_its_train_rows_alone(result):
    whole = one(rows_of(result, bench(target())), orientation="oracle")
    for run, seed in enumerate(SEEDS):
        outside = target(train=np.where(SUBSETS[run], HARD_LABEL, 1 - HARD_LABEL))
        inside = target(train=np.where(SUBSETS[run], 1 - HARD_LABEL, HARD_LABEL))
        missing = target(train=np.where(SUBSETS[run], HARD_LABEL, np.nan))
        expected = one(whole, seed=seed)
        for unchanged in (outside, missing):
            found = one(rows_of(result, bench(unchanged)), orientation="oracle", seed=seed)
            pd.testing.assert_frame_equal(found, expected)
        flipped = one(rows_of(result, bench(inside)), orientation="oracle", seed=seed)
        np.testing.assert_allclose(flipped["auroc"], 1 - expected["auroc"], atol=1e-6)


def test_rows_without_a_truth_value_have_no_vote(result):
    scores = unfolded(result, "ccs", 0, HARD)
    agreeing = (scores > 0).astype(float)
    inside = np.flatnonzero(SUBSETS[0])
    # All rows agree with the scores but for two of each class, which say the opposite.
    objectors = np.concatenate([inside[agreeing[inside] == label][:2] for label in (0, 1)])
    votes = agreeing.copy()
    votes[objectors] = 1 - votes[objectors]

    def area(train: np.ndarray) -> float:
        rows = rows_of(result, bench(target(train=train)))
        return areas(rows, method="ccs", orientation="oracle", seed=SEEDS[0])[0]

    alone = np.where(np.isin(np.arange(N), objectors), votes, np.nan)
    expected = roc_auc_score(TEST_LABEL, unfolded(result, "ccs", 0, TESTED))
    assert area(votes) == pytest.approx(expected, abs=1e-6)
    assert area(alone) == pytest.approx(1 - expected, abs=1e-6)


def test_the_easy_sign_knows_no_label_of_the_task(result):
    usual = one(rows_of(result, bench()), orientation="easy")
    rng = np.random.default_rng(3)
    shuffled = bench(
        target(train=rng.permutation(HARD_LABEL)),
        dataclasses.replace(SPURIOUS, train=1 - HARD_OTHER),
    )
    pd.testing.assert_frame_equal(one(rows_of(result, shuffled), orientation="easy"), usual)
    # Labels of the test rows only measure: the sign does not follow them.
    mirrored = bench(
        target(test=1 - TEST_LABEL), dataclasses.replace(SPURIOUS, test=1 - TEST_OTHER)
    )
    found = one(rows_of(result, mirrored), orientation="easy")
    np.testing.assert_allclose(found["auroc"], 1 - usual["auroc"], atol=1e-6)
    # The easy labels do decide.
    turned = one(rows_of(result, bench(easy_labels=1 - EASY_LABELS)), orientation="easy")
    np.testing.assert_allclose(turned["auroc"], 1 - usual["auroc"], atol=1e-6)


def test_only_the_oracle_sign_depends_on_train_labels(result):
    rng = np.random.default_rng(4)
    usual = rows_of(result, bench())
    shuffled = rows_of(
        result,
        bench(
            target(train=rng.permutation(HARD_LABEL)),
            dataclasses.replace(SPURIOUS, train=rng.permutation(HARD_OTHER)),
        ),
    )
    # The oracle rows may flip, and do nothing else; all other rows are the same.
    is_oracle = usual["orientation"] == "oracle"
    pd.testing.assert_frame_equal(shuffled.loc[~is_oracle], usual.loc[~is_oracle])
    before, after = (rows.loc[is_oracle, "auroc"].to_numpy() for rows in (usual, shuffled))
    same, turned = np.isclose(after, before, atol=1e-6), np.isclose(after, 1 - before, atol=1e-6)
    assert (same | turned).all()
    assert (turned & ~same).any()


@pytest.mark.slow
def test_unsigned_are_just_the_methods_that_no_label_changes():
    methods = tuple(name for name in ALL_METHODS if name not in PEERS)
    config = SweepConfig(methods=methods, ccs_steps=20, bce_steps=20, ensemble_size=4, pca_steps=30)

    def scores(flip: bool) -> dict[str, np.ndarray]:
        data = SweepData(
            hard={LAYER: HARD},
            layers=(LAYER,),
            subsets=SUBSETS,
            seeds=np.array(SEEDS),
            hard_targets=1 - HARD_LABEL if flip else HARD_LABEL,
            easy={LAYER: EASY_PAIRS},
            easy_labels=1 - EASY_LABELS if flip else EASY_LABELS,
        )
        return {m: np.asarray(s) for m, s in sweep(data, config).score(LAYER, TESTED).items()}

    found, flipped = scores(False), scores(True)
    unchanged = {method for method in methods if np.array_equal(found[method], flipped[method])}
    assert unchanged == UNSIGNED


# ------------------------------------------------------------- probabilities


def columns_of(result: SweepResult, setup: Setup) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    scores = scoring.layer_scores(result, LAYER, setup.bench)
    by = {"subsets": SUBSETS, "easy_labels": setup.easy_labels}
    signs = scoring.signs(scores, setup.targets[0], **by)
    return scoring.calibrated(scores, signs, setup.targets[0], **by)


def test_probabilities_are_scaled_where_the_sign_was_picked(result):
    columns = columns_of(result, bench())
    for run, rows in enumerate(SUBSETS):
        for orientation, pairs, labels in (
            ("oracle", HARD.take(rows), HARD_LABEL[rows]),
            ("easy", EASY_PAIRS, EASY_LABELS),
        ):
            sign = 1 if roc_auc_score(labels, unfolded(result, "ccs", run, pairs)) >= 0.5 else -1
            unit = fit_platt((sign * unfolded(result, "ccs", run, pairs)).astype("f4"), labels)
            given = unit.probability((sign * unfolded(result, "ccs", run, TESTED)).astype("f4"))
            own = columns["ccs", orientation]
            assert own["brier"][run] == pytest.approx(
                brier_score_loss(TEST_LABEL, np.asarray(given)), abs=1e-3
            )
            assert own["ece"][run] == pytest.approx(
                float(calibration_error(given, TEST_LABEL)), abs=5e-3
            )


def test_easy_probabilities_know_no_label_of_the_task(result):
    usual = columns_of(result, bench())
    shuffled = np.random.default_rng(3).permutation(HARD_LABEL)
    other = columns_of(result, bench(target(train=shuffled)))
    for key in usual:
        for name in ("ece", "brier"):
            same = np.array_equal(usual[key][name], other[key][name])
            # e2h was taught by the easy set alone; supervised by the labels of the task.
            assert same == (key[1] == "easy" or key[0] == "e2h"), (key, name)


def test_rows_of_one_class_have_no_probabilities(result):
    one_class = columns_of(result, bench(target(train=np.ones(N))))
    assert np.isnan(one_class["ccs", "oracle"]["ece"]).all()
    assert np.isfinite(one_class["ccs", "easy"]["ece"]).all()


# ------------------------------------------------------------- measures


def test_measured_is_the_metric_and_the_quantiles_over_weighted_samples():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(8, 3, TEST)) + 0.7 * (2 * TEST_LABEL - 1)
    labels = np.where(np.arange(TEST) < 5, np.nan, TEST_LABEL)
    found = measured(jnp.asarray(scores, jnp.float32), labels, BOOT)
    assert list(found) == [*METRICS, *SHARES]
    assert list(measured(scores, TEST_LABEL, BOOT)) == METRICS  # no share where all are known
    used, weights = ~np.isnan(labels), np.asarray(BOOT)
    for place in np.ndindex(8, 3):
        s_all, w_all = scores[place], weights
        s, y, w = s_all[used], labels[used], w_all[:, used]
        area = [roc_auc_score(y, s, sample_weight=one) for one in w]
        correct = [np.average((s > 0) == y, weights=one) for one in w]
        expected = [
            *(roc_auc_score(y, s), *np.quantile(area, [0.025, 0.975])),
            *(np.mean((s > 0) == y), *np.quantile(correct, [0.025, 0.975])),
        ]
        np.testing.assert_allclose([found[name][place] for name in METRICS], expected, atol=1e-5)
        shares = []
        for one in (np.ones(TEST), *w_all):
            squares = one * (s_all - np.average(s_all, weights=one)) ** 2
            shares.append(squares[used].sum() / squares.sum())
        expected = [shares[0], *np.quantile(shares[1:], [0.025, 0.975])]
        np.testing.assert_allclose([found[name][place] for name in SHARES], expected, atol=1e-5)


def test_without_any_truth_value_all_that_is_measured_is_nan():
    scores = np.random.default_rng(0).normal(size=(2, TEST))
    found = measured(scores, np.full(TEST, np.nan), BOOT)
    assert list(found) == [*METRICS, *SHARES]
    for values in found.values():
        assert values.shape == (2,)
        assert np.isnan(values).all()


def test_zero_shot_is_the_auroc_of_the_log_odds():
    rng = np.random.default_rng(1)
    log_probs = rng.normal(size=(TEST, 2)).astype(np.float32) - 1
    log_probs[:, 0] += TEST_LABEL  # the true verdict stands first
    odds = log_probs[:, 0].astype(float) - log_probs[:, 1]
    # Probabilities that both rise say nothing: only their ratio counts.

    def zero_shot_rows(log_probs: np.ndarray, *targets: Target) -> list[dict[str, Any]]:
        situation = Situation(
            dataset="x",
            train=(),
            answers=targets,
            test=tuple(Item(id=f"{n // 2}", choice="c") for n in range(TEST)),
        )
        states = States(layers=(), train={}, test_log_probs=log_probs)
        return without_training(situation, states, BOOT).rows

    rows = zero_shot_rows(log_probs, target(), SPURIOUS)
    for row, labels in zip(rows, (TEST_LABEL, TEST_OTHER), strict=True):
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, odds), abs=1e-6)
        assert row["accuracy"] == pytest.approx(np.mean((odds > 0) == labels), abs=1e-6)
        assert (row["method"], row["orientation"]) == ("zero_shot", "none")
        assert np.isnan(row["layer"])
        assert row["n_train"] == 0
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
    assert [(row["target"], row["role"]) for row in rows] == [
        ("truth", "truth"),
        ("other", "spurious"),
    ]
    assert rows[0]["auroc"] > 0.65
    mirrored = zero_shot_rows(log_probs[:, ::-1], target())
    assert mirrored[0]["auroc"] == pytest.approx(1 - rows[0]["auroc"], abs=1e-6)
    assert set(rows[0]) == set(rows_columns())


def test_fixed_rows_measure_scores_as_they_are_on_every_target():
    rng = np.random.default_rng(2)
    scores = {"one": rng.normal(size=TEST), "two": rng.normal(size=TEST) + TEST_OTHER}
    rows = fixed_rows(scores, (target(), SPURIOUS), BOOT)
    expected = {
        (method, name): (roc_auc_score(labels, found), np.mean((found > 0) == labels))
        for method, found in scores.items()
        for name, labels in (("truth", TEST_LABEL), ("other", TEST_OTHER))
    }
    assert len(rows) == len(expected)
    for row in rows:
        found = (row["auroc"], row["accuracy"])
        assert found == pytest.approx(expected[row["method"], row["target"]], abs=1e-6)
        assert (row["orientation"], row["seed"], row["n_train"]) == ("none", 0, 0)
        assert np.isnan(row["layer"])
    assert fixed_rows({}, (target(),), BOOT) == []


def test_controls_are_length_and_every_label_that_all_items_have():
    def item(number: int, choice: str, **alt: bool) -> Item:
        return Item(id=f"i{number}", choice=choice, label=True, alt_labels=alt)

    items = [item(0, "short", elm=True, tense=False), item(1, "much longer", elm=False)]
    found = control_scores(items)
    assert {name: scores.tolist() for name, scores in found.items()} == {
        "control_length": [5.0, 11.0],
        "control_elm": [1.0, 0.0],
    }
    assert list(control_scores(items[:1])) == ["control_length", "control_elm", "control_tense"]


def rows_columns() -> list[str]:
    return ["method", "orientation", "seed", "target", "role", "layer", "n_train", *METRICS]


def test_salience_is_the_share_of_variance_along_the_label():
    def by_hand(pairs: Pairs, labels: np.ndarray) -> float:
        def normal(x):
            centred = x.astype(float) - x.mean(0)
            return centred / np.linalg.norm(centred, axis=1).mean()

        diff = normal(pairs.pos) - normal(pairs.neg)
        u = diff[labels == 1].mean(0) - diff[labels == 0].mean(0)
        cov = np.cov(diff.T)
        return float(u @ cov @ u / (u @ u) / np.trace(cov))

    for labels in (HARD_LABEL, HARD_OTHER):
        assert salience_of(HARD, labels) == pytest.approx(by_hand(HARD, labels), rel=1e-3)
    strong, label, _ = planted(N, D, seed=0, strength=4.0)
    weak, same, _ = planted(N, D, seed=0, strength=0.3)
    np.testing.assert_array_equal(label, same)
    assert salience_of(strong, label) > 0.8 > 3 * salience_of(weak, label)


def test_salience_does_not_see_what_the_verdict_words_add():
    verdict = np.random.default_rng(9).normal(size=D).astype(np.float32)
    shifted = Pairs(HARD.pos + 50 * verdict, 3 * HARD.neg - 20 * verdict)
    assert salience_of(shifted, HARD_LABEL) == pytest.approx(
        salience_of(HARD, HARD_LABEL), rel=1e-3
    )


# ------------------------------------------------------------- choosing a layer


def test_ccs_by_layer_finds_the_layer_of_a_direction():
    seen, labels, _ = planted(N, D, seed=3, strength=2.0)
    rng = np.random.default_rng(0)

    def noise() -> Pairs:
        pos, neg = rng.normal(size=(2, N, D)).astype(np.float32)
        return Pairs(pos, neg)

    hard = {4: noise(), 9: seen, 12: noise()}
    subsets = SUBSETS[:2]
    seeds = np.arange(2)
    found = ccs_by_layer(hard, labels, subsets=subsets, seeds=seeds)
    assert list(found) == [4, 9, 12]
    assert max(found, key=found.__getitem__) == 9
    assert found[9] > 0.95
    assert max(found[4], found[12]) < 0.85
    # Its own train rows decide, in either direction of the label: nothing else is looked at.
    elsewhere = np.where(subsets.any(0), 1 - labels, np.nan)
    again = ccs_by_layer(hard, elsewhere, subsets=subsets, seeds=seeds)
    assert again == pytest.approx(found, abs=1e-6)


def test_ccs_by_layer_is_the_mean_over_runs_of_sklearns_auroc():
    subsets, seeds = SUBSETS[:2], np.array([5, 6])
    found = ccs_by_layer({LAYER: HARD}, HARD_LABEL, subsets=subsets, seeds=seeds)
    data = SweepData(hard={LAYER: HARD}, layers=(LAYER,), subsets=subsets, seeds=seeds)
    fitted = sweep(data, SweepConfig(methods=("ccs",)))
    expected = []
    for run, used in enumerate(subsets):
        scores = np.asarray(score(*fitted.probe("ccs", layer=LAYER, run=run), HARD))
        area = roc_auc_score(HARD_LABEL[used], scores[used])
        expected.append(max(area, 1 - area))
    assert found[LAYER] == pytest.approx(np.mean(expected), abs=1e-5)
