"""Consistency rules: what they forbid, and the most likely labels that they allow."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.items import Item
from jelicit.prompting.consistency import (
    RULES,
    Rule,
    consistent_labellings,
    inconsistent_pairs,
    most_likely,
)


def claims(*answers, group="q", label=None):
    return [
        Item(
            id=f"{group}/{n}", question="?", choice=f"it is {a}", answer=a, group=group, label=label
        )
        for n, a in enumerate(answers)
    ]


def pair(group="p", label=None):
    """A pair of responses in both orders."""
    texts = ("short", "long")
    return [
        Item(id=f"{group}/{a}", question="Q", choice=a, choice_2=b, group=group, label=label)
        for a, b in (texts, texts[::-1])
    ]


def test_the_answer_rule_forbids_two_different_true_answers_and_split_votes_on_one():
    a, b, c = claims("4", "5", "4")
    assert consistent_labellings(a, b, "answer") == [(True, False), (False, True), (False, False)]
    assert consistent_labellings(a, c, "answer") == [(True, True), (False, False)]
    (unknown,) = claims(None)
    assert len(consistent_labellings(a, unknown, "answer")) == 4
    assert len(consistent_labellings(a, b, "none")) == 4


def test_the_asymmetry_rule_asks_for_one_of_two_orders():
    a, b = pair()
    assert consistent_labellings(a, b, "asymmetry") == [(True, False), (False, True)]
    other = Item(id="x", question="Q", choice="short", choice_2="else", group="p")
    assert len(consistent_labellings(a, other, "asymmetry")) == 4


def test_inconsistent_pairs_are_found_inside_groups_among_labelled_items_only():
    items = [*claims("4", "5", "4"), *claims("5", "6", group="other"), *pair()]
    labels = [True, True, False, True, None, True, True]
    assert inconsistent_pairs(items, labels, "answer") == [(0, 1), (0, 2)]
    assert inconsistent_pairs(items, labels, "asymmetry") == [(5, 6)]
    assert inconsistent_pairs(items, labels, "none") == []


@settings(max_examples=150, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=7),
    scores=st.data(),
)
def test_the_most_likely_labels_are_the_best_of_all_consistent_ones(answers, scores):
    items = claims(*answers)
    values = np.array(
        [scores.draw(st.floats(-5, 5, allow_nan=False, width=16)) for _ in answers], np.float64
    )
    found = most_likely(items, values, "answer")
    assert inconsistent_pairs(items, found.tolist(), "answer") == []
    totals = [
        values[np.array(labels)].sum()
        for labels in product([False, True], repeat=len(items))
        if not inconsistent_pairs(items, labels, "answer")
    ]
    assert values[found].sum() == pytest.approx(max(totals))


def test_groups_do_not_touch_each_other_and_without_a_rule_the_sign_decides():
    items = [*claims("4", "5"), *claims("5", group="other"), *pair()]
    scores = [2.0, 1.0, 3.0, -1.0, -2.0]
    np.testing.assert_array_equal(most_likely(items, scores, "none"), [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(most_likely(items, scores, "answer"), [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(most_likely(items, scores, "asymmetry"), [1, 1, 1, 1, 0])


@pytest.mark.parametrize("rule", RULES)
def test_rules_never_see_a_label(rule):
    """Every rule decides the same whatever the items' own labels say."""
    told = [*claims("4", "5", "4", label=True), *pair(label=True)]
    untold = [*claims("4", "5", "4"), *pair()]
    scores = [0.5, 1.0, -0.2, 0.3, 0.2]
    np.testing.assert_array_equal(
        most_likely(told, scores, rule), most_likely(untold, scores, rule)
    )
    seen = []
    spy = Rule("spy", lambda a, x, b, y: not seen.extend((a, b)))
    most_likely(told, scores, spy)
    assert seen
    assert all(item.label is None and not item.meta for item in seen)
    assert {item.id for item in seen} == {"unnamed"}


def test_scores_may_be_infinite():
    items = claims("4", "5")
    np.testing.assert_array_equal(most_likely(items, [np.inf, 1], "answer"), [1, 0])
    np.testing.assert_array_equal(most_likely(items, [-np.inf, 1], "answer"), [0, 1])


def test_what_makes_no_sense_is_refused():
    items = claims("4", "5")
    with pytest.raises(ValueError, match="unknown consistency rule 'maybe'; known: answer"):
        most_likely(items, [1.0, 2.0], "maybe")
    with pytest.raises(ValueError, match="allows no labels at all for 2 items"):
        most_likely(items, [1.0, 2.0], Rule("never", lambda *_: False))
    with pytest.raises(ValueError, match="NaN"):
        most_likely(items, [1.0, np.nan], "answer")
    with pytest.raises(ValueError, match="1 labels for 2 items"):
        inconsistent_pairs(items, [True], "answer")
