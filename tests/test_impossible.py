"""The experiment on claims without a truth value, on a tiny random model of two blocks."""

import re

import numpy as np
import pytest
import tyro
from experiment_scripts import joined, planned, script
from experiment_scripts import run as run_script
from sklearn.metrics import roc_auc_score

from jelicit.metrics import variance_share
from jelicit.prompting import METHODS as PROMPTING
from jelicit.prompting import prompted
from jelicit.results import ItemScoreStore, Record
from jelicit.studies import measuring
from jelicit.studies.impossible import STUDY, Settings, mixed

pytest.importorskip("torch", reason="the experiment needs the extract extra")

EACH = 40  # claims of either sort per split
WORDS = (
    *("--dataset", "pocket/arithmetic", "--max-rows", str(EACH), "--seeds", "1", "--boot", "50"),
    *("--methods", "random", "supervised", "--layers", "1"),
    *("--shots", "1", "2", "--pool", "12", "--prompt-tests", "16"),
)


@pytest.fixture(scope="module")
def impossible():
    with script("impossible") as found:
        yield found


@pytest.fixture(scope="module")
def run(impossible, random_model, tmp_path_factory):
    place = tmp_path_factory.mktemp("impossible")

    def run(*words):
        paths = {"stores": place / "stores", "out": place / "out"}
        return run_script(impossible, *words, model=random_model, **paths)

    return run


@pytest.fixture(scope="module")
def swept():
    """What every sweep of the command was asked to fit."""
    return []


@pytest.fixture(scope="module")
def first(run, swept):
    sweep = measuring.sweep

    def watched(data, config, **rest):
        swept.append(data)
        return sweep(data, config, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "sweep", watched)
        return run(*WORDS)


@pytest.fixture(scope="module")
def scores(first):
    [run] = first.rows["run_id"].unique()
    return ItemScoreStore(first.out / "items").read(run)


@pytest.fixture
def mixture(impossible, tmp_path):
    [situation] = planned(STUDY, tyro.cli(impossible.Settings, args=list(WORDS)), tmp_path)
    return situation


def test_half_of_a_mixture_has_a_truth_value(mixture):
    assert mixture.dataset == "pocket/arithmetic + pocket/opinions"
    for split in (mixture.train, mixture.test):
        sources = [item.dataset for item in split]
        assert sources.count("pocket/arithmetic") == sources.count("pocket/opinions") == EACH
        for item in split:
            assert (item.label is None) == (item.dataset == "pocket/opinions")
    # A set of another size gives way: the share of variance depends on how many there are.
    known, unknown = mixture.train[:EACH], mixture.train[EACH : EACH + 7]
    fewer = mixed(known, unknown, split="train", names=("known", "unknown"))
    assert [item.label is None for item in fewer] == [False] * 7 + [True] * 7


def test_every_method_has_a_row_and_knows_how_many_items_it_scored(first):
    rows = first.rows
    assert set(rows["role"]) == {"truth"}
    prompted = rows["method"].isin(PROMPTING)
    assert set(rows.loc[prompted, "method"]) == set(PROMPTING)
    assert set(rows.loc[prompted, "n_test"]) == {16}
    assert set(rows.loc[~prompted, "n_test"]) == {2 * EACH}
    probes = rows[rows["method"].isin(["random", "supervised"])]
    assert set(probes["n_train"]) == {2 * EACH}
    counts = probes.groupby(["method", "orientation", "layer"]).size().to_dict()
    signs = [("random", "oracle"), ("random", "easy"), ("supervised", "none")]
    assert counts == {(*sign, 1): 1 for sign in signs}
    fixed = rows[~prompted & ~rows["method"].isin(["random", "supervised"])]
    assert set(fixed["method"]) == {"zero_shot", "control_length"}
    assert set(fixed["dataset"]) == {"pocket/arithmetic + pocket/opinions"}


def test_rows_say_what_the_item_scores_come_to(first, scores):
    label = scores.items["label"].to_numpy()
    sources = np.where(np.isnan(label), "unknown", "known")
    assert (scores.items["dataset"][sources == "known"] == "pocket/arithmetic").all()
    checked = 0
    for setting, found in zip(scores.settings, scores.scores.T, strict=True):
        rows = first.rows
        for name in ("method", "orientation"):
            rows = rows[rows[name] == setting[name]]
        if "layer" in setting:
            rows = rows[rows["layer"] == setting["layer"]]
        [row] = rows.to_dict("records")
        scored = ~np.isnan(found)
        assert scored.sum() == row["n_test"]
        known = scored & ~np.isnan(label)
        assert row["auroc"] == pytest.approx(roc_auc_score(label[known], found[known]), abs=1e-6)
        share = float(variance_share(found[scored], sources[scored])["known"])
        assert row["variance_share"] == pytest.approx(share, abs=1e-4)
        assert 0 <= row["variance_share_low"] <= row["variance_share_high"] <= 1
        checked += 1
    assert checked == 3 + 1 + len(PROMPTING)


def test_what_has_no_truth_value_is_taught_as_one_half(swept):
    [data] = swept
    targets = data.hard_targets
    assert targets[EACH:].tolist() == [0.5] * EACH
    assert set(targets[:EACH]) == {0.0, 1.0}
    assert data.subsets.all()  # as in paper A, every row in every run


def test_golden_examples_without_a_truth_value_are_indeterminate(mixture):
    shown = []

    class Recorder:
        name = "recorder"

        def score(self, prompts, verdicts):
            shown.extend("".join(prompt) for prompt in prompts)
            return np.zeros((len(prompts), 2))

    prompted(
        "golden_few_shot",
        Recorder(),
        mixture.test[:10],
        mixture.train,
        mixture.format,
        shots=(6,),
        seed=0,
    )
    assert len(shown) == 10
    for prompt in shown:  # two of each class
        assert prompt.count(" Indeterminate") == prompt.count(" True") == 2


def test_tables_figures_report_and_reuse(first, run):
    assert "share of variance of claims with a truth value" in first.printed
    stems = [f"{kind}-pocket-arithmetic-pocket-opinions" for kind in ("impossible", "scores")]
    record = Record.read(first.out)
    assert record.figures == tuple(f"{stem}.svg" for stem in stems)
    for stem in stems:
        assert (first.out / f"{stem}.png").stat().st_size > 10_000
        assert joined(f"figure: {first.out / stem}.svg") in joined(first.printed)
    assert record.title in (first.out / "report.html").read_text(encoding="utf-8")
    assert len(record.findings) == 2
    again = run(*WORDS)
    assert "reused" in again.printed
    assert again.rows.empty


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--impossible", "pocket/arithmetic"), "pocket/arithmetic is among --dataset, too"),
        (("--impossible", "pocket/facts"), "pocket/facts: train has items with a truth value"),
        (("--prompting", "magic"), "--prompting magic is unknown"),
        (("--easy", "pocket/arithmetic"), "the easy set of pocket/arithmetic is pocket/arithmetic"),
    ],
)
def test_settings_that_cannot_work_are_refused(impossible, words, message):
    args = ["--model", "nowhere/at-all", "--dataset", "pocket/arithmetic", "--max-rows", "40"]
    settings = tyro.cli(impossible.Settings, args=[*args, *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        impossible.main(settings)


def test_a_set_without_a_truth_value_is_none_to_find(tmp_path):
    settings = Settings(dataset=("pocket/opinions",), impossible="pocket/poems", max_rows=40)
    with pytest.raises(ValueError, match="train has no item with a truth value; exchange"):
        planned(STUDY, settings, tmp_path)
