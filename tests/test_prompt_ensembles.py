"""Ensembles over prompts: means of what each prompt says, on one scale.

Their rows in a study are tested beside those of each format (`test_study_formats`).
"""

import numpy as np
from sklearn.metrics import roc_auc_score

from jelicit.studies import scoring
from jelicit.studies.formats import format_problems
from jelicit.studies.prompt_ensembles import mean_over_prompts


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


def test_a_format_called_as_ensembles_are_is_refused_beside_others(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"name": "ensemble", "text": "Say: {choice}\\nIt is"}', encoding="utf-8")
    assert not format_problems((str(path),))
    [said] = format_problems(("claim", str(path)))
    assert "another" in said
