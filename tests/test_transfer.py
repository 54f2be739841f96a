"""Probes of one set on another, on a tiny random model of two blocks."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tyro
from experiment_scripts import NO_PROMPTS, joined, planned, script, session_of
from experiment_scripts import run as run_script
from sklearn.metrics import roc_auc_score

from jelicit.data.items import labels
from jelicit.pairs import Pairs
from jelicit.probes.linear import unfold
from jelicit.results import ItemScoreStore, Record
from jelicit.studies.measuring import Measured
from jelicit.studies.session import Session
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States
from jelicit.studies.transfer import STUDY, Settings, at_home, measure_on

pytest.importorskip("torch", reason="the experiment needs the extract extra")

SETS, LAYER, SEEDS = ("pocket/arithmetic", "pocket/facts"), 1, 2
PROBES = ("random", "supervised")
WORDS = (
    *("--max-rows", "60", "--seeds", str(SEEDS), "--boot", "20", "--layers", str(LAYER)),
    *("--methods", *PROBES),
)


@pytest.fixture(scope="module")
def transfer():
    with script("transfer") as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def run(transfer, random_model, place):
    def run(*words):
        paths = {"stores": place / "stores", "out": place / "out"}
        return run_script(transfer, *words, model=random_model, **paths)

    return run


@pytest.fixture(scope="module")
def first(run):
    return run("--dataset", *SETS, *WORDS)


class Parts(NamedTuple):
    """The pieces of the study, by set, and the probes of the first set on its own test rows."""

    situations: dict[str, Situation]
    states: dict[str, States]
    trained: Measured
    runs: Runs
    session: Session


@pytest.fixture(scope="module")
def parts(transfer, first, random_model, place, tmp_path_factory) -> Parts:
    args = ["--model", str(random_model), "--stores", str(place / "stores"), "--dataset", *SETS]
    settings = tyro.cli(transfer.Settings, args=[*args, *WORDS])
    folder = tmp_path_factory.mktemp("parts")
    session = session_of(STUDY, settings, folder, model=settings.run_on.open())
    situations = dict(zip(SETS, STUDY.plan(settings, session), strict=True))
    states = {name: session.states(each, (LAYER,)) for name, each in situations.items()}
    home = SETS[0]
    runs = Runs.balanced(situations[home], SEEDS)
    boot = situations[home].boot(settings.boot)
    trained = session.probes(situations[home], runs, states[home], PROBES, boot)
    return Parts(situations, states, trained, runs, session)


def statistics(pairs) -> list[np.ndarray]:
    """Mean and mean distance from it, of each sign."""
    found = []
    for side in (np.asarray(pairs.pos, float), np.asarray(pairs.neg, float)):
        mean = side.mean(0)
        found += [mean, np.linalg.norm(side - mean, axis=1).mean()]
    return found


def test_every_set_is_measured_by_the_probes_of_every_set(first):
    rows = first.rows
    probes = rows[rows["method"].isin(PROBES)]
    counts = probes.groupby(["train", "dataset", "method", "orientation"]).size().to_dict()
    signs = (("random", "oracle"), ("supervised", "none"))
    assert counts == {(a, b, *sign): SEEDS for a in SETS for b in SETS for sign in signs}
    assert set(probes["seed"]) == set(range(SEEDS))
    # What is not trained is measured once per set.
    others = rows[~rows["method"].isin(PROBES)]
    assert set(others["train"]) == {"none"}
    assert not others.duplicated(["dataset", "method"]).any()
    for name in SETS:
        methods = set(others.loc[others["dataset"] == name, "method"])
        assert {"zero_shot", "control_length"} <= methods
        assert all(method.startswith("control_") for method in methods - {"zero_shot"})


def test_at_home_a_probe_says_what_it_says_without_the_matrix(parts):
    home, fits = SETS[0], parts.trained.fits
    situation, states = parts.situations[home], parts.states[home]
    assert fits is not None
    measured = measure_on(situation, states, situation, states, LAYER, parts.session)
    plain = fits.score(LAYER, states.test(LAYER))
    label = labels(situation.train)
    train = fits.score(LAYER, states.train(LAYER))
    compared = [about["method"] for about, _ in measured.scores if about["method"] in PROBES]
    assert sorted(compared) == ["random", "supervised"]
    for about, scores in measured.scores:
        if about["method"] not in PROBES:
            continue
        for seed, (ours, expected) in enumerate(
            zip(scores, np.asarray(plain[about["method"]]), strict=True)
        ):
            rows = parts.runs.subsets[seed]
            area = roc_auc_score(label[rows], np.asarray(train[about["method"]])[seed][rows])
            sign = -1 if about["orientation"] == "oracle" and area < 0.5 else 1
            spread = float(np.std(expected))
            np.testing.assert_allclose(ours, sign * expected, atol=1e-3 * spread)


def test_a_sets_train_rows_get_the_mean_and_scale_of_the_home_set():
    rng = np.random.default_rng(0)
    there = Pairs(*(rng.normal(3, 2, size=(2, 40, 8)).astype(np.float32)))
    home = Pairs(*(rng.normal(-1, 0.5, size=(2, 30, 8)).astype(np.float32)))
    own, theirs = (States.of_arrays({LAYER: pairs}, {LAYER: pairs}) for pairs in (home, there))
    moved = at_home(own, theirs, LAYER, "paper")
    for found, expected in zip(statistics(moved), statistics(home), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # All else stays: items keep their places around the mean.
    place = (there.pos - there.pos.mean(0)) / statistics(there)[1]
    found = (np.asarray(moved.pos) - home.pos.mean(0)) / statistics(home)[1]
    np.testing.assert_allclose(found, place, atol=1e-5)


def test_away_from_home_the_rows_are_those_of_moved_states_and_of_signs_from_home(first, parts):
    """In NumPy, by a probe's raw directions."""
    home, there = (parts.states[name] for name in SETS)
    own, theirs = there.train(LAYER), home.train(LAYER)
    test, label = there.test(LAYER), labels(parts.situations[SETS[1]].test)
    home_label = labels(parts.situations[SETS[0]].train)
    sides = []
    for k, side in ((0, test.pos), (2, test.neg)):
        (mean, scale), (new_mean, new_scale) = (statistics(p)[k : k + 2] for p in (own, theirs))
        sides.append((np.asarray(side, float) - mean) / scale * new_scale + new_mean)
    away = first.rows[(first.rows["train"] == SETS[0]) & (first.rows["dataset"] == SETS[1])]
    for row in away.to_dict("records"):
        raw = unfold(*parts.trained.fits.probe(row["method"], layer=LAYER, run=row["seed"]))

        def scores(pos, neg, raw=raw):
            return (
                np.asarray(pos, float) @ raw.pos - np.asarray(neg, float) @ raw.neg + raw.constant
            )

        sign = 1
        if row["orientation"] == "oracle":
            rows = parts.runs.subsets[row["seed"]]
            area = roc_auc_score(home_label[rows], scores(theirs.pos, theirs.neg)[rows])
            sign = 1 if area >= 0.5 else -1
        area = roc_auc_score(label, sign * scores(*sides))
        # Two items may change places by rounding.
        assert row["auroc"] == pytest.approx(area, abs=0.005)
    assert len(away) == 2 * SEEDS


def test_the_diagonal_is_what_salience_measures_on_plain_claims(first, place, random_model):
    with script("salience") as salience:
        words = ("--dataset", SETS[0], "--features", "none", "--easy", "none", *NO_PROMPTS)
        paths = {"stores": place / "stores", "out": place / "salience"}
        alone = run_script(salience, *words, *WORDS, model=random_model, **paths)
    key = ["method", "orientation", "seed", "target"]
    here = first.rows[(first.rows["dataset"] == SETS[0]) & (first.rows["train"] != SETS[1])]
    found = here.set_index(key)["auroc"]
    expected = alone.rows.set_index(key)["auroc"]
    assert set(found.index) == set(expected.index)
    np.testing.assert_allclose(found.loc[expected.index], expected, atol=0.005)


def test_figure_report_items_and_reuse(first, run):
    record = Record.read(first.out)
    assert record.figures == ("transfer.svg",)
    assert (first.out / "transfer.png").stat().st_size > 10_000
    assert joined(f"figure: {first.out / 'transfer.svg'}") in joined(first.printed)
    assert record.title in (first.out / "report.html").read_text(encoding="utf-8")
    assert "AUROC of probes on their own set and on others" in first.printed
    assert len(record.runs) == len(SETS) ** 2
    for run_id in record.runs:
        found = ItemScoreStore(first.out / "items").read(run_id)
        methods = [each["method"] for each in found.settings]
        assert set(PROBES) <= set(methods)
        [rows] = [len(r) for name, r in first.rows.groupby("run_id") if name == run_id]
        assert rows >= 2 * SEEDS
    again = run("--dataset", *SETS, *WORDS)
    assert again.printed.count("reused") == len(SETS) ** 2
    assert again.rows.empty


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "pocket/facts"), "--dataset: name at least two sets"),
        (("--methods", "ccs_rebalanced"), "ccs_rebalanced: train rows are balanced here already"),
        (("--layers", "1", "2"), "--layers 1 2: give one, or best"),
        (("--boot", "0"), "--boot 0: allowed are whole numbers from 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(transfer, words, message):
    settings = tyro.cli(transfer.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        transfer.main(settings)


def test_a_set_without_a_truth_value_is_refused(tmp_path):
    settings = Settings(dataset=("pocket/opinions", "pocket/facts"), max_rows=40)
    with pytest.raises(ValueError, match="no item of train has a truth value, so there is no "):
        planned(STUDY, settings, tmp_path)
