"""Ensembles over prompts: means of what each prompt says, on one scale."""

import json
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

FORMATS = ("claim", "statement")
CALIBRATED = ("zero_shot_calibrated", "random_few_shot_calibrated")


def measured(folder: Any, formats: tuple[str, ...]) -> Any:
    """A run of salience without figures and report."""
    words = ["--methods", "pca", "--layers", "1", "--features", "punctuation"]
    words += ["--dataset", "pocket/arithmetic", "--max-rows", "40", "--seeds", "2", "--boot", "9"]
    words += ["--shots", "2", "--pool", "8", "--prompt-tests", "8", "--prompting", *CALIBRATED]
    settings = tyro.cli(salience.Settings, args=[*words, "--format", *formats]).for_model(512)
    run = session_of(salience.STUDY, settings, folder, model=AskedModel())
    salience.measure(salience.plan(run.settings, run), run)
    return run


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three formats, and the ensemble of them."""
    return measured(tmp_path_factory.mktemp("several"), FORMATS)


KEY = ["method", "orientation", "target", "seed"]


def ensembles(run: Any) -> pd.DataFrame:
    rows = run.folder.rows()
    return pd.DataFrame(rows.loc[rows["format"] == "ensemble"]).set_index(KEY).sort_index()


def run_of(run: Any, form: str) -> str:
    rows = run.folder.rows()
    [written] = rows.loc[rows["format"] == form, "run_id"].unique()
    return written


def members(run: Any, form: str) -> ItemScores:
    return run.folder.members.read(run_of(run, form))


def labels_of(run: Any) -> dict[str, np.ndarray]:
    """Both labels of the test items, by target."""
    items = run.folder.items.read(run_of(run, "claim")).items
    added = [json.loads(others)["punctuation"] for others in items["others"]]
    return {"truth": items["label"].to_numpy(), "punctuation": np.array(added)}


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
        subsets=subsets,
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
    rows, labels, checked = ensembles(several), labels_of(several), 0
    claim, statement = (members(several, form) for form in FORMATS)
    assert claim.settings == statement.settings
    for place, about in enumerate(claim.settings):
        mean = (claim.scores[:, place].astype(float) + statement.scores[:, place]) / 2
        row = rows.loc[tuple(about[name] for name in KEY)]
        label = labels[about["target"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(label, mean), abs=1e-6)
        assert row["accuracy"] == pytest.approx(((mean > 0) == label).mean(), abs=1e-6)
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert (row["layer"], row["n_train"]) == (1, about["n_train"])
        checked += 1
    # Zero-shot, calibrated or not, and PCA by two signs and seeds; of two labels.
    assert checked == len(rows) == (2 + 2 * 2) * 2


def test_members_are_log_odds_as_they_are_and_probes_signed_as_in_their_own_rows(several):
    test = salience.plan(several.settings, several)[0].situations[0].test
    labels, rows = labels_of(several), several.folder.rows()
    for form in FORMATS:
        said = AskedStore([contrast_pair(item, form) for item in test]).log_probs
        kept = members(several, form)
        own = pd.DataFrame(rows.loc[rows["format"] == form]).set_index(KEY)
        for about, scores in zip(kept.settings, kept.scores.T, strict=True):
            if about["method"] == "zero_shot":
                np.testing.assert_allclose(scores, said[:, 0] - said[:, 1], rtol=1e-5)
            row = own.loc[tuple(about[name] for name in KEY)]
            area = roc_auc_score(labels[about["target"]], scores)
            assert row["auroc"] == pytest.approx(area, abs=1e-6)


def test_the_calibrated_methods_are_rows_of_each_format(several):
    rows = several.folder.rows()
    for form in FORMATS:
        here = rows.loc[(rows["format"] == form) & (rows["role"] == "truth")].set_index("method")
        assert set(here.index) >= {*CALIBRATED, "zero_shot", "pca"}
        assert "random_few_shot" not in here.index
        areas = here["auroc"]
        assert areas["zero_shot"] == pytest.approx(areas["zero_shot_calibrated"], abs=1e-6)
        assert here["n_test"]["random_few_shot_calibrated"] == 8
    asked = several.model.scored
    draws = {prompt[:-1] for prompt, _ in asked if len(prompt) > 1}
    # Of both formats: 3 prompts without examples, 8 targets, and 3 for each draw of examples.
    assert len(asked) == 2 * (3 + 8) + 3 * len(draws)


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


def test_ensembles_are_read_back_and_stand_last_in_the_table(several):
    again = measured(several.folder.folder, FORMATS[::-1])
    assert again.folder.runs[-1] == several.folder.runs[-1]
    assert not again.model.scored
    pd.testing.assert_frame_equal(ensembles(again), ensembles(several))
    rows = told_apart(several.folder.rows())
    assert "pocket/arithmetic, format ensemble" in set(rows["dataset"])
    cells = {str(c.header): list(c.cells) for c in format_table(rows).columns}
    assert list(cells) == ["Method", *FORMATS, "most - least", "ensemble"]
    place = cells["Method"].index("PCA *")
    numbers = [float(str(cells[form][place])) for form in FORMATS]
    apart = float(str(cells["most - least"][place]))
    assert apart == pytest.approx(max(numbers) - min(numbers), abs=0.011)
    mean = ensembles(several).loc[("pca", "oracle", "truth"), "auroc"].mean()
    assert cells["ensemble"][place] == f"{mean:.2f}"


def test_a_format_called_as_ensembles_are_is_refused_beside_others(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"name": "ensemble", "text": "Say: {choice}\\nIt is"}', encoding="utf-8")
    assert not format_problems((str(path),))
    [said] = format_problems(("claim", str(path)))
    assert "another" in said
