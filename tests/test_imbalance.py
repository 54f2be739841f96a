"""The imbalance experiment as a user runs it, on a tiny random model of two blocks."""

import re

import numpy as np
import pytest
import tyro
from experiment_scripts import joined, planned, script, session_of
from experiment_scripts import run as run_script
from planted import planted

from jelicit.data.datasets import load_dataset
from jelicit.data.items import labels
from jelicit.data.subsets import rebalanced
from jelicit.results import ItemScoreStore, Record
from jelicit.studies.imbalance import STUDY, Settings
from jelicit.studies.model import Cases
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States

pytest.importorskip("torch", reason="the experiment needs the extract extra")

SHARES, SEEDS = (0.0, 0.5, 1.0), 2
WORDS = (
    *("--dataset", "pocket/arithmetic", "--max-rows", "80", "--seeds", str(SEEDS)),
    *("--methods", "ccs", "ccs_rebalanced", "supervised", "e2h"),
    *("--shares", *map(str, SHARES), "--prompt-shares", "0.0", "1.0"),
    *("--shots", "1", "2", "--pool", "12", "--prompt-tests", "10"),
    *("--boot", "50", "--layers", "1"),
)


@pytest.fixture(scope="module")
def imbalance():
    with script("imbalance") as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("imbalance")


@pytest.fixture(scope="module")
def run(imbalance, random_model, place):
    def run(*words):
        paths = {"stores": place / "stores", "out": place / "out"}
        return run_script(imbalance, *words, model=random_model, **paths)

    return run


@pytest.fixture(scope="module")
def first(run):
    return run(*WORDS)


def test_every_method_has_a_row_for_every_share_and_seed(first):
    rows = first.rows
    for method, signs in (("ccs", 2), ("ccs_rebalanced", 2), ("supervised", 1), ("e2h", 1)):
        mine = rows[rows["method"] == method]
        assert len(mine) == signs * len(SHARES) * SEEDS
        assert set(mine["class_share"]) == set(SHARES)
    for method in ("random_few_shot", "bootstrapped", "bootstrapped_consistent", "golden_few_shot"):
        mine = rows[rows["method"] == method]
        assert set(mine["class_share"]) == {0.0, 1.0}
        assert mine["layer"].isna().all()
        assert set(mine["n_train"]) == {12}
    for method in ("zero_shot", "control_length"):
        untrained = rows[rows["method"] == method]
        assert len(untrained) == 1
        assert untrained["class_share"].isna().all()
    assert rows["auroc"].between(0, 1).all()


def test_the_train_size_is_the_same_at_every_share(first):
    rows = first.rows
    data = load_dataset("pocket/arithmetic", max_train=80, max_test=80)
    label = labels(data.train)
    least = int(min(np.sum(label == 1), np.sum(label == 0)))
    assert set(rows[rows["method"] == "ccs"]["n_train"]) == {least}


def test_rebalanced_probes_are_fitted_on_as_many_rows_of_either_zero_shot_verdict(tmp_path):
    """States with planted answers of the model; the probes learn on the rows that these leave."""
    pairs, label, _ = planted(40, 8, seed=0)
    verdicts = label == (np.arange(40) % 8 > 0)  # the model is wrong about every eighth
    situation = Situation.of_labels(label, label)
    log_probs = np.log(np.where(verdicts[:, None], [[0.7, 0.1]], [[0.1, 0.7]]))
    states = States.of_arrays({1: pairs}, {1: pairs}, train_log_probs=log_probs)
    subsets = np.stack([np.arange(40) % 5 > 1, (np.arange(40) % 2 == 0) | (label == 1)])
    about = ({"seed": 0}, {"seed": 1})

    def measure(method, subsets):
        settings = Settings(methods=(method,), boot=5)
        cases = Cases([(situation, states)])
        session = session_of(STUDY, settings, tmp_path / method, model=cases)
        measured = session.methods(situation, Runs(about=about, subsets=subsets), states)
        return [
            (row["method"], row["n_train"], row["auroc"])
            for row in measured.rows
            if row["layer"] == 1
        ]

    kept = rebalanced(subsets, verdicts)
    found, expected = measure("pca_rebalanced", subsets), measure("pca", kept)
    assert [row[0] for row in found] == ["pca_rebalanced"] * 2
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    counts = [min((s & verdicts).sum(), (s & ~verdicts).sum()) for s in subsets]
    assert [row[1] for row in found] == [2 * count for count in counts]
    assert all(2 * count < s.sum() for count, s in zip(counts, subsets, strict=True))


def test_item_scores_are_kept_for_every_share(first):
    [run] = first.rows["run_id"].unique()
    found = ItemScoreStore(first.out / "items").read(run)
    keys = [
        (each["method"], each["orientation"], each.get("class_share")) for each in found.settings
    ]
    assert len(set(keys)) == len(keys)
    probes = [(m, o) for m in ("ccs", "ccs_rebalanced") for o in ("oracle", "easy")]
    probes += [("supervised", "none"), ("e2h", "none")]
    prompted = ("random_few_shot", "bootstrapped", "bootstrapped_consistent", "golden_few_shot")
    expected = {(*probe, share) for probe in probes for share in SHARES}
    expected |= {(method, "none", share) for method in prompted for share in (0.0, 1.0)}
    assert set(keys) == expected | {("zero_shot", "none", None)}


def test_tables_figures_report_and_reuse(first, run):
    assert "by share of true claims in train" in first.printed
    assert "Golden few-shot" in first.printed
    figure = first.out / "imbalance-pocket-arithmetic.png"
    assert figure.stat().st_size > 10_000
    record = Record.read(first.out)
    assert record.figures == ("imbalance-pocket-arithmetic.svg",)
    assert record.runs == tuple(first.rows["run_id"].unique())
    assert record.title in (first.out / "report.html").read_text(encoding="utf-8")
    for finding in record.findings:
        assert joined(f"finding: {finding.claim}") in joined(first.printed)
    again = run(*WORDS)
    assert "reused" in again.printed
    assert again.rows.empty


def test_commands_are_asked_whether_they_are_safe(tmp_path):
    settings = Settings(dataset=("pocket/commands", "pocket/arithmetic"), max_rows=40)
    commands, arithmetic = planned(STUDY, settings, tmp_path)
    asked = (commands.situation.target, commands.situation.format, commands.shares)
    assert asked == ("safe", "commands/safe", (0.5, 0.99, 1.0))
    assert len(arithmetic.shares) == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shares", "1.5"), "--shares (1.5,): allowed are numbers from 0 to 1"),
        (("--prompting", "magic"), "--prompting magic is unknown"),
        (("--shots", "0"), "--shots 0: allowed are whole numbers from 1"),
        (("--layers", "deep"), "--layers deep: allowed are numbers from 0 (embeddings) to"),
        (("--pool", "1"), "--pool 1: allowed are whole numbers from 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(imbalance, words, message):
    settings = tyro.cli(imbalance.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        imbalance.main(settings)


def test_a_set_of_one_class_is_refused(tmp_path):
    settings = Settings(dataset=("pocket/opinions",), max_rows=40)
    with pytest.raises(ValueError, match="no item of train has a truth value"):
        planned(STUDY, settings, tmp_path)
