"""Indicators: against SciPy, by their definitions, and on planted features; no label is read."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kurtosis, skew, spearmanr

from jelicit.data.items import Item
from jelicit.indicators import (
    INDICATORS,
    NAMES,
    bimodality,
    dependence,
    direction_share,
    largest_dependence,
    method_agreement,
    pair_consistency,
    repaired_loss,
    seed_agreement,
    unit_ranks,
)
from jelicit.pairs import Pairs
from jelicit.probes.losses import ccs_loss
from jelicit.probes.sweep import SweepConfig
from jelicit.studies.indicating import lengths_of
from jelicit.studies.measuring import measure
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States

SEEDS = 6
TRAIN, TEST, D = 160, 120, 8


def rho(*scores: Any, **options: Any) -> Any:
    """Spearman's rho by SciPy."""
    result: Any = spearmanr(*scores, **options)
    return result.statistic


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- agreement -----------------------------------------------------------------------------------


def test_unit_ranks_multiply_to_spearmans_rho_ties_and_all():
    scores = rng().integers(0, 6, size=(4, 50)).astype(float)
    ranks = unit_ranks(scores)
    np.testing.assert_allclose(ranks @ ranks.T, rho(scores, axis=1), atol=1e-12)


def test_a_run_that_does_not_vary_or_failed_has_no_ranks():
    scores = rng().normal(size=(3, 20))
    scores[1], scores[2, 4] = 0.3, np.nan
    assert np.isnan(unit_ranks(scores)).all(1).tolist() == [False, True, True]


def test_dependence_is_the_size_of_rho_over_the_items_that_have_the_feature():
    scores, feature = rng().normal(size=(2, 60)), rng(1).normal(size=60)
    feature[:7] = np.nan
    expected = [abs(rho(own[7:], feature[7:])) for own in scores]
    np.testing.assert_allclose(dependence(scores, feature), expected, atol=1e-12)
    np.testing.assert_allclose(dependence(-scores, feature), expected, atol=1e-12)
    assert np.isnan(dependence(scores, np.ones(60))).all()
    nothing = np.full(60, np.nan)
    np.testing.assert_allclose(largest_dependence(scores, [nothing, feature]), expected)
    assert np.isnan(largest_dependence(scores, [])).all()


def test_seeds_are_compared_within_their_own_settings():
    one, other = rng().normal(size=(2, 40))
    scores = np.stack([one, -one, one, other])
    ranks = unit_ranks(scores)
    apart = abs(rho(one, other))
    together = seed_agreement(ranks, [{}, {}, {}, {}])
    np.testing.assert_allclose(together, [(2 + apart) / 3] * 3 + [apart], atol=1e-12)
    alone = seed_agreement(ranks, [{"share": 0}, {"share": 0}, {"share": 1}, {"share": 2}])
    np.testing.assert_allclose(alone, [1, 1, np.nan, np.nan])


def test_methods_are_compared_in_the_same_run_and_never_with_themselves():
    scores = {name: rng(k).normal(size=(2, 40)) for k, name in enumerate("abc")}
    ranks = {name: unit_ranks(own) for name, own in scores.items()}
    agreement = method_agreement(ranks, ["a", "b", "d"])

    def alike(one: str, other: str) -> list[float]:
        both = zip(scores[one], scores[other], strict=True)
        return [abs(rho(*pair)) for pair in both]

    np.testing.assert_allclose(agreement["a"], alike("a", "b"), atol=1e-12)
    expected = np.mean([alike("c", "a"), alike("c", "b")], axis=0)
    np.testing.assert_allclose(agreement["c"], expected, atol=1e-12)
    assert np.isnan(method_agreement({"a": ranks["a"]}, ["a"])["a"]).all()


# --- shape ---------------------------------------------------------------------------------------


def test_bimodality_is_sarles_coefficient_of_scipys_moments():
    scores = np.stack([rng().exponential(size=90), 1e-30 * rng(1).normal(size=90)])
    n = 90
    g, k = (of(scores, axis=1, bias=False) for of in (skew, kurtosis))
    expected = (g**2 + 1) / (k + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    np.testing.assert_allclose(bimodality(scores), expected, rtol=1e-9)


def test_bimodality_knows_two_kinds_from_one():
    two = np.concatenate([rng().normal(-3, 1, 2000), rng(1).normal(3, 1, 2000)])
    assert bimodality(two) > 5 / 9
    assert bimodality(rng().uniform(size=4000)) == pytest.approx(5 / 9, abs=0.01)
    assert bimodality(rng().normal(size=4000)) == pytest.approx(1 / 3, abs=0.03)
    assert np.isnan(bimodality(np.full(9, 0.1)))


def test_the_share_of_the_first_component_is_its_explained_variance():
    x = rng().normal(size=(80, 5)) * [3, 2, 1, 1, 1]
    _, spread, components = np.linalg.svd(x - x.mean(0), full_matrices=False)
    share = direction_share(x @ (7 * components[0]) + 3, 7.0, np.var(x, axis=0).sum())
    assert share == pytest.approx(spread[0] ** 2 / np.sum(spread**2), rel=1e-12)


# --- pairs ---------------------------------------------------------------------------------------


def test_consistency_is_one_where_denials_are_scored_oppositely():
    pos = rng().normal(size=50)
    np.testing.assert_allclose(
        pair_consistency(np.stack([pos, pos, pos]), np.stack([2 - 3 * pos, 5 * pos, 0 * pos])),
        [1, -1, np.nan],
    )


def loss_of(pos: Any, neg: Any) -> float:
    """CCS's loss as fits have it."""
    pos, neg = (jnp.atleast_1d(jnp.float32(side)) for side in (pos, neg))
    return float(ccs_loss(pos, neg, jnp.ones(len(pos))))


def test_repaired_loss_is_the_loss_over_its_mean_on_all_wrong_pairs():
    pos, neg = rng().normal(scale=3, size=(2, 2, 5))
    for p, q, ratio in zip(pos, neg, repaired_loss(pos, neg), strict=True):
        wrong = np.mean([loss_of(p[i], q[j]) for i, j in permutations(range(5), 2)])
        assert ratio == pytest.approx(loss_of(p, q) / wrong, rel=1e-5)


def test_repaired_loss_tells_pairs_that_contradict_each_other_from_any_others():
    true = 8.0 * (2 * (rng().random(300) < 0.5) - 1)
    assert repaired_loss(true, -true) < 0.01
    shuffled = rng(1).permutation(true)
    assert repaired_loss(true, -shuffled) == pytest.approx(1, abs=0.1)


def test_a_swap_of_members_would_be_no_null():
    """Every pair keeps its loss, whichever way round it stands: the docstring's reason."""
    pos, neg = rng().normal(scale=3, size=(2, 40))
    swapped = rng(1).random(40) < 0.5
    swaps = (np.where(swapped, neg, pos), np.where(swapped, pos, neg))
    assert loss_of(*swaps) == pytest.approx(loss_of(pos, neg), rel=1e-5)


# --- planted, by the road that studies go --------------------------------------------------------


def planted(*, opinion: float, known: bool = False) -> tuple[Situation, States, np.ndarray]:
    """A truth of size 3 along one coordinate and an opinion along another; its test labels."""
    truth, mood = rng(3).random((2, TRAIN + TEST)) < 0.5
    differ: Any = np.zeros((TRAIN + TEST, D))
    differ[:, 0], differ[:, 1] = 3.0 * (2 * truth - 1), opinion * (2 * mood - 1)
    noise = rng(4).normal(scale=0.4, size=(2, TRAIN + TEST, D))
    sides: Any = (noise[0] + differ, noise[1] - differ)
    pairs = Pairs(*(side.astype(np.float32) for side in sides))
    train, test = slice(TRAIN), slice(TRAIN, None)
    others = {"opinion": (mood[train], mood[test])} if known else None
    situation = Situation.of_labels(truth[train], truth[test], others=others)
    answer = np.where(truth[test], -0.1, -3.0)
    states = States.of_arrays(
        pairs.take(train), pairs.take(test), test_log_probs=np.stack([answer, -3.1 - answer], 1)
    )
    return situation, states, truth[test]


def rows_of(situation: Situation, states: States) -> list[dict[str, Any]]:
    config = SweepConfig(methods=("ccs", "pca"), ccs_steps=300, divisor="burns")
    runs = Runs.of_all_rows(situation, SEEDS)
    rows = measure(situation, runs, states, config, boot=5, orientations=("oracle",)).rows
    return [row for row in rows if row["role"] == "truth"]


def means(rows: list[dict[str, Any]], method: str) -> dict[str, float]:
    own = [row for row in rows if row["method"] == method]
    assert len(own) == SEEDS
    return {name: float(np.mean([row[name] for row in own])) for name in (*NAMES, "auroc")}


@pytest.fixture(scope="module")
def alone():
    return rows_of(*planted(opinion=0.0)[:2])


@pytest.fixture(scope="module")
def beside():
    """An opinion as strong as the truth."""
    return rows_of(*planted(opinion=3.0, known=True)[:2])


def test_nothing_warns_of_a_truth_that_stands_alone(alone):
    ccs = means(alone, "ccs")
    assert ccs["auroc"] > 0.99
    assert ccs["seed_agreement"] > 0.9
    assert ccs["method_agreement"] > 0.9
    assert ccs["pair_consistency"] > 0.9
    assert ccs["repaired_loss"] < 0.1
    assert ccs["bimodality"] > 5 / 9
    assert ccs["zero_shot_agreement"] > 0.8
    assert ccs["direction_share"] > 0.5
    assert np.isnan(ccs["length_dependence"])  # rows of an array have no text
    assert np.isnan(ccs["feature_dependence"])


def test_two_equally_strong_features_make_seeds_of_ccs_disagree_and_nothing_else_warn(
    alone, beside
):
    """Whichever feature a start falls for is as consistent, sure and two-fold as the other."""
    ccs = means(beside, "ccs")
    assert ccs["seed_agreement"] < means(alone, "ccs")["seed_agreement"] - 0.2
    assert ccs["feature_dependence"] > 0.3
    assert ccs["pair_consistency"] > 0.9
    assert ccs["repaired_loss"] < 0.2
    # PCA has no start: its seeds agree whatever it has found.
    assert means(beside, "pca")["seed_agreement"] == pytest.approx(1, abs=1e-3)


def test_a_found_opinion_follows_the_known_feature_and_not_the_answer(beside):
    follows = [row for row in beside if row["method"] == "ccs" and row["auroc"] < 0.75]
    keeps = [row for row in beside if row["method"] == "ccs" and row["auroc"] > 0.95]
    assert follows
    assert keeps
    assert min(row["feature_dependence"] for row in follows) > 0.7
    assert max(row["feature_dependence"] for row in keeps) < 0.3
    assert max(row["zero_shot_agreement"] for row in follows) < 0.3
    assert min(row["zero_shot_agreement"] for row in keeps) > 0.7


def test_only_what_was_trained_on_probabilities_has_a_loss(alone):
    assert {row["method"] for row in alone if not np.isnan(row["repaired_loss"])} == {"ccs"}


def test_no_indicator_reads_the_labels_that_are_asked_for(beside):
    """Permuted test labels change the AUROC and no indicator."""
    situation, states, truth = planted(opinion=3.0, known=True)
    assert situation.answers is not None
    asked, *others = situation.answers
    permuted = replace(asked, test=rng(9).permutation(truth).astype(float))
    rows = rows_of(replace(situation, answers=(permuted, *others)), states)
    for name in NAMES:
        ours, before = ([row[name] for row in of] for of in (rows, beside))
        np.testing.assert_array_equal(ours, before, err_msg=name)
    assert [row["auroc"] for row in rows] != [row["auroc"] for row in beside]


def test_lengths_are_those_of_judged_texts():
    items = tuple(
        Item(id=f"i{k}", choice="x" * (k + 1), label=k % 2 == 0, split="test") for k in range(4)
    )
    situation = Situation(dataset="d", train=items, test=items)
    lengths = lengths_of(situation)
    assert lengths is not None
    assert lengths.tolist() == [1, 2, 3, 4]
    assert lengths_of(Situation.of_labels([1, 0], [1, 0])) is None


def test_every_indicator_says_which_side_warns_and_turns_its_values_so():
    for indicator in INDICATORS:
        sign = 1 if indicator.warns == "high" else -1
        np.testing.assert_array_equal(indicator.warning([0.2, 0.5]), np.array([0.2, 0.5]) * sign)
