"""Ensembles over prompts: means of what each prompt says, on one scale.

Their rows in a study are tested beside those of each format (`test_study_formats`).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jelicit.data.items import Item
from jelicit.pairs import Pairs
from jelicit.results import ItemScores
from jelicit.studies import Situation, scoring
from jelicit.studies.formats import format_problems
from jelicit.studies.measuring import Measured
from jelicit.studies.prompt_ensembles import Member, mean_over_prompts, measure_ensembles
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.session import Session
from jelicit.studies.states import States


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


N = 8


def member(folder: RunFolder, prompt: str, layer: int, scores: np.ndarray, **more: Any) -> Member:
    """A format with a probe at one layer and zero-shot prompting: their scores [2, N]."""
    test = tuple(Item(id=f"{row}", choice=f"claim {row}", label=row % 2 == 0) for row in range(N))
    test = more.pop("test", test)
    situation = Situation(dataset="claims", prompt=prompt, train=test[:2], test=test)
    about = {"target": "truth", "seed": 0}
    kept: list[tuple[dict[str, Any], np.ndarray]] = [
        ({"method": "pca", "orientation": "oracle", "layer": layer, "n_train": layer, **about}, s)
        if row == 0
        else (
            {"method": "zero_shot", "orientation": "none", "layer": None, "n_train": 0, **about},
            s,
        )
        for row, s in enumerate(scores)
    ]
    if more:  # a method that no other format has
        kept.append(({**kept[0][0], **more}, scores[0]))
    folder.members.write(prompt, ItemScores.in_own_units(test, kept))
    # Nobody reads them.
    states = States.of_arrays({layer: Pairs(scores, scores)})
    return Member(situation=situation, layers=(layer,), run=prompt, states=states)


def ensembles_of(members: list[Member], folder: RunFolder) -> tuple[list[Any], list[str]]:
    """What is kept of each ensemble (situation, settings, what was measured), and what is said."""
    kept, said = [], []

    def keep(situation: Situation, chosen: Any, measure: Callable[[], Measured]) -> None:
        kept.append((situation, chosen, measure()))

    settings = SimpleNamespace(boot=5)
    session = SimpleNamespace(folder=folder, settings=settings, keep=keep, say=said.append)
    measure_ensembles(members, cast(Session, session))
    return kept, said


def test_each_format_is_read_at_its_own_layer_whatever_the_order_of_the_formats(tmp_path):
    folder, rng = RunFolder("salience", tmp_path), np.random.default_rng(3)
    scores = rng.standard_normal((2, 2, N)).astype(np.float32)
    of_five = member(folder, "b", 5, scores[0], method="ccs")
    of_three = member(folder, "a", 3, scores[1])
    [(situation, chosen, found)], said = ensembles_of([of_five, of_three], folder)
    assert said == []
    assert situation.prompt == "ensemble"
    assert (chosen["of"], chosen["runs"]) == (["a, layer 3", "b, layer 5"], ["a", "b"])
    label = [item.label for item in situation.test]
    for row, mean in zip(found.rows, scores.astype(float).mean(0), strict=True):
        assert (row["layer"], row["seed"]) == (3, 0)  # the lowest; zero-shot stands beside it
        assert row["auroc"] == pytest.approx(roc_auc_score(label, mean), abs=1e-6)
    assert [(row["method"], row["n_train"]) for row in found.rows] == [("pca", 3), ("zero_shot", 0)]
    assert [about.get("layer") for about, _ in found.scores] == [3, None]
    again = ensembles_of([of_three, of_five], folder)[0][0]
    assert again[1] == chosen
    assert again[2].rows == found.rows


def test_formats_of_other_test_items_and_single_ones_have_no_ensemble(tmp_path):
    folder, scores = RunFolder("salience", tmp_path), np.ones((2, N))
    alone = member(folder, "a", 3, scores)
    assert ensembles_of([alone], folder) == ([], [])
    turned = member(folder, "b", 3, scores, test=alone.situation.test[::-1])
    kept, [said] = ensembles_of([alone, turned], folder)
    assert kept == []
    assert "do not show the same test items" in said


def test_a_format_called_as_ensembles_are_is_refused_beside_others(tmp_path):
    path = tmp_path / "own.json"
    path.write_text('{"name": "ensemble", "text": "Say: {choice}\\nIt is"}', encoding="utf-8")
    assert not format_problems((str(path),))
    [said] = format_problems(("claim", str(path)))
    assert "another" in said
