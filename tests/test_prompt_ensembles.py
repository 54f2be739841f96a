"""Ensembles over prompts: means of what each prompt says, on one scale."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from asked_model import AskedModel, AskedStore
from experiment_scripts import session_of
from sklearn.metrics import roc_auc_score

from jelicit.data.prompts import contrast_pair
from jelicit.results import ItemScores
from jelicit.studies import salience, scoring
from jelicit.studies.format_rows import format_table, told_apart
from jelicit.studies.formats import format_problems
from jelicit.studies.prompt_ensembles import mean_over_prompts

FORMATS = ("claim", "statement", "asking")
METHODS = ("pca", "supervised")


def measured(folder: Any, formats: tuple[str, ...], **changes: Any) -> Any:
    """A run of salience without figures and report."""
    words = ["--prompting", "zero_shot_calibrated", "--methods", *METHODS, "--layers", "1"]
    words += ["--features", "none", "punctuation", "--dataset", "pocket/arithmetic"]
    words += ["--max-rows", "40", "--seeds", "2", "--boot", "9", "--format", *formats]
    settings = replace(tyro.cli(salience.Settings, args=words), **changes)
    run = session_of(salience.STUDY, settings, folder, model=AskedModel())
    salience.measure(salience.plan(run.settings, run), run)
    return run


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three formats, and the ensemble of them."""
    return measured(tmp_path_factory.mktemp("several"), FORMATS)


KEY = ["feature", "method", "orientation", "target", "seed"]


def ensembles(run: Any) -> pd.DataFrame:
    rows = run.folder.rows()
    return pd.DataFrame(rows.loc[rows["format"] == "ensemble"]).set_index(KEY).sort_index()


def item_scores(run: Any, form: str, feature: str) -> ItemScores:
    rows = run.folder.rows()
    [written] = rows.loc[(rows["format"] == form) & (rows["feature"] == feature), "run_id"].unique()
    return run.folder.items.read(written)


def members(run: Any, form: str, feature: str) -> ItemScores:
    rows = run.folder.rows()
    [written] = rows.loc[(rows["format"] == form) & (rows["feature"] == feature), "run_id"].unique()
    return run.folder.members.read(written)


def test_the_scale_is_that_of_the_runs_own_train_rows_and_0_stays():
    train = np.array([[1.0, 3.0, 100.0, -5.0], [2.0, 2.0, 7.0, 2.0]])
    subsets = np.array([[True, True, False, False], [True, True, False, True]])
    test = np.array([[4.0, 0.0, -2.0], [1.0, -1.0, 3.0]])
    scores = scoring.LayerScores(train={"a": train}, easy=None, test={"a": test})  # type: ignore[dict-item]
    found = scoring.on_one_scale({("a", "oracle"): -test}, scores, subsets=subsets)  # type: ignore[dict-item]
    # The deviation of 1 and 3 is 1; the other run's train rows are all alike.
    np.testing.assert_array_equal(found["a", "oracle"], -test)
    twice = scoring.on_one_scale(
        {("a", "oracle"): 2 * test},  # type: ignore[dict-item]
        scores._replace(train={"a": 2 * train}),  # type: ignore[dict-item]
        subsets=subsets[:1],
    )
    np.testing.assert_array_equal(twice["a", "oracle"][0], test[0])


def test_the_mean_does_not_hear_the_order_of_the_prompts():
    scores = list(
        np.random.default_rng(0).standard_normal((5, 400)) * 10.0 ** np.arange(5)[:, None]
    )
    found = mean_over_prompts(scores)
    np.testing.assert_allclose(found, np.mean(scores, 0), rtol=1e-12)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(5)
        np.testing.assert_array_equal(mean_over_prompts([scores[k] for k in order]), found)
    assert np.isnan(mean_over_prompts([np.array([1.0, np.nan]), np.ones(2)])).tolist() == [0, 1]


def test_rows_are_those_of_the_mean_by_hand(several):
    rows, checked = ensembles(several), 0
    truth = item_scores(several, "claim", "punctuation").items
    others = truth["others"].str.contains('"punctuation": true').to_numpy()
    labels = {"truth": truth["label"].to_numpy(), "punctuation": others}
    of_formats = [members(several, form, "punctuation") for form in FORMATS]
    for place, about in enumerate(of_formats[0].settings):
        mean = 0.0
        for each in of_formats:
            assert each.settings[place] == about
            mean = mean + each.scores[:, place].astype(np.float64) / 3
        row = rows.loc[
            "punctuation", about["method"], about["orientation"], about["target"], about["seed"]
        ]
        label = labels[about["target"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(label, mean), abs=1e-6)
        assert row["accuracy"] == pytest.approx(((mean > 0) == label).mean(), abs=1e-6)
        assert (row["layer"], row["n_train"]) == (1, about["n_train"])
        checked += 1
    # Two kinds of zero-shot, PCA by two signs, the supervised probe; two seeds and labels.
    assert checked == len(rows.loc["punctuation"]) == (2 + 2 * 2 + 2) * 2


def test_zero_shot_is_the_mean_of_log_odds_and_probes_are_signed_as_in_their_own_rows(several):
    def column(found: ItemScores, **about: Any) -> np.ndarray:
        [place] = [k for k, own in enumerate(found.settings) if {**own, **about} == own]
        return found.scores[:, place]

    store = AskedStore  # log-odds of the test items, as the model says them
    test = salience.plan(several.settings, several)[0].situations[0].test
    for form in FORMATS:
        said = store([contrast_pair(item, form) for item in test]).log_probs
        kept = column(members(several, form, "none"), method="zero_shot", target="truth")
        np.testing.assert_allclose(kept, said[:, 0] - said[:, 1], rtol=1e-5)
    rows = several.folder.rows()
    own = rows.loc[(rows["method"] == "pca") & (rows["feature"] == "punctuation")]
    truth = item_scores(several, "claim", "punctuation").items
    labels = {
        "truth": truth["label"].to_numpy(),
        "punctuation": truth["others"].str.contains('"punctuation": true').to_numpy(),
    }
    for row in own.loc[own["format"] == "statement"].to_dict("records"):
        about = {name: row[name] for name in ("method", "orientation", "target", "seed", "layer")}
        kept = column(members(several, "statement", "punctuation"), **about)
        label = labels[row["target"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(label, kept), abs=1e-6)


def test_a_loud_format_does_not_dominate():
    rng, label = np.random.default_rng(1), np.arange(60) % 2
    of_formats = []
    for loud, informed in ((1000.0, 0.0), (1.0, 2.0), (0.01, 2.0)):
        own = loud * (rng.standard_normal((1, 120)) + informed * np.tile(label - 0.5, 2))
        train, test = own[:, :60], own[:, 60:]
        scores = scoring.LayerScores(train={"a": train}, easy=None, test={"a": test})  # type: ignore[dict-item]
        signed = {("a", "none"): test}
        scaled = scoring.on_one_scale(signed, scores, subsets=np.ones((1, 60), bool))  # type: ignore[dict-item]
        of_formats.append((test[0], scaled["a", "none"][0]))
    raw, scaled = (mean_over_prompts(each) for each in zip(*of_formats, strict=True))
    alone = roc_auc_score(label, of_formats[1][0])
    assert roc_auc_score(label, raw) < 0.6
    assert roc_auc_score(label, scaled) > max(0.85, alone - 0.02)


def test_what_one_format_shows_has_no_ensemble_and_nothing_is_kept_for_one(several, tmp_path):
    alone = measured(tmp_path, ("claim",), features=("none",))
    rows = alone.folder.rows()
    assert "format" not in rows
    assert not alone.folder.members.folder.exists()
    of_claim = several.folder.rows()
    of_claim = of_claim.loc[(of_claim["format"] == "claim") & (of_claim["feature"] == "none")]
    columns = [c for c in rows if c != "run_id" and not str(c).startswith("settings.")]
    pd.testing.assert_frame_equal(of_claim[columns].reset_index(drop=True), rows[columns])


def test_ensembles_are_read_back_and_stand_last_in_the_table(several):
    again = measured(several.folder.folder, FORMATS[::-1])
    assert again.folder.runs[-2:] == several.folder.runs[-2:]
    pd.testing.assert_frame_equal(ensembles(again), ensembles(several))
    rows = told_apart(several.folder.rows())
    assert "pocket/arithmetic, format ensemble" in set(rows["dataset"])
    rows = rows.loc[(rows["feature"] == "none") & (rows["role"] == "truth")]
    cells = {str(c.header): list(c.cells) for c in format_table(rows).columns}
    assert list(cells) == ["Method", *FORMATS, "most - least", "ensemble"]
    place = cells["Method"].index("PCA *")
    numbers = [float(str(cells[form][place])) for form in FORMATS]
    apart = float(str(cells["most - least"][place]))
    assert apart == pytest.approx(max(numbers) - min(numbers), abs=0.011)
    mean = ensembles(several).loc["none", "pca", "oracle"]["auroc"].mean()
    assert cells["ensemble"][place] == f"{mean:.2f}"


def test_a_format_called_as_ensembles_are_is_refused_beside_others(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"name": "ensemble", "text": "Say: {choice}\\nIt is"}', encoding="utf-8")
    assert not format_problems((str(path),))
    [said] = format_problems(("claim", str(path)))
    assert "another" in said
