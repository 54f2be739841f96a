"""Comparisons out of pairs and labels, pairs out of claims, and sets in RewardBench's layout."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jelicit.data.items import Item
from jelicit.data.preferences import (
    Comparison,
    check_unseen,
    comparisons,
    digest_of,
    human_labels,
    one_order,
    pairs_of_claims,
)
from jelicit.data.reward_bench import read_reward_bench
from jelicit.icm import with_mirrors


def pair(name, *, label=True, votes=None):
    return Item(
        id=name,
        question=f"What is {name}?",
        choice=f"{name} is good.",
        choice_2=f"{name} is bad.",
        label=label,
        meta={} if votes is None else {"human_votes": votes},
    )


def test_a_label_says_which_answer_is_chosen():
    one, two = comparisons([pair("a"), pair("b")], [True, False])
    assert (one.chosen, one.rejected) == ("a is good.", "a is bad.")
    assert (two.chosen, two.rejected) == ("b is bad.", "b is good.")
    assert (one.question, one.group) == ("What is a?", "a")


def test_the_labels_given_count_and_not_the_items_own():
    right, wrong = pair("a", label=True), pair("a", label=False)
    assert comparisons([right], [False]) == comparisons([wrong], [False])


def test_both_orders_of_a_pair_are_one_comparison_and_contradictions_none():
    both = with_mirrors([pair("a")])
    [made] = comparisons(both, [True, False])
    assert made.chosen == "a is good."
    assert comparisons(both, [True, None]) == (made,)
    assert comparisons(both, [True, True]) == ()
    assert one_order(both) == (both[0],)


@pytest.mark.parametrize("unlabelled", [None, np.nan])
def test_pairs_without_a_label_are_left_out(unlabelled):
    assert comparisons([pair("a")], [unlabelled]) == ()


def test_claims_and_missing_labels_are_refused():
    with pytest.raises(ValueError, match="0 labels for 1 pairs"):
        comparisons([pair("a")], [])
    with pytest.raises(ValueError, match="'c' is a claim, not a pair"):
        comparisons([Item(id="c", choice="x", label=True)], [True])


def test_one_annotator_is_the_first_vote_and_mirrors_have_none():
    items = with_mirrors([pair("a", votes=[False, True, True]), pair("b")])
    assert human_labels(items) == [False, None, None, None]
    with pytest.raises(ValueError, match=r"'a': meta.human_votes is .*'yes'"):
        human_labels([pair("a", votes="yes")])


def test_claims_are_paired_true_beside_false_in_either_order():
    claims = [
        Item(id=f"{g}{n}", question=f"{g}?", choice=f"{g}{n}", label=n % 2 == 0, group=f"{g}")
        for g in range(40)
        for n in range(3)
    ]
    made = pairs_of_claims(claims, seed=1)
    assert len(made) == 40  # two true claims and one false one make one pair
    assert 5 < sum(bool(item.label) for item in made) < 35
    for item in made:
        better = item.choice if item.label else item.choice_2
        assert better == f"{item.group}0"
    assert pairs_of_claims(claims, seed=1) == made
    assert pairs_of_claims(claims, seed=2) != made
    with pytest.raises(ValueError, match="none of 1 groups has a true and a false claim"):
        pairs_of_claims([claims[0]])


def test_claims_of_two_questions_of_a_group_are_no_pair():
    """A pair has one question: the other claim would be judged as its answer."""
    asked = [
        Item(id=f"{q}{n}", question=f"{q}?", choice=f"{q}{n}", label=n == 0, group="g")
        for q in ("more", "less")
        for n in range(2)
    ]
    made = pairs_of_claims(asked)
    assert [item.id for item in made] == ["g/pair", "g/pair-1"]
    for item in made:
        assert {item.choice[:4], str(item.choice_2)[:4]} == {item.question[:4]}
    with pytest.raises(ValueError, match="none of 1 groups has a true and a false claim of one"):
        pairs_of_claims([asked[0], asked[3]])


def test_a_mirror_alone_has_the_opposite_of_its_votes():
    _, mirror = with_mirrors([pair("a", votes=[False, True])])
    assert human_labels([mirror]) == [True]


def test_what_is_tested_is_never_trained_on_by_group_and_by_text():
    [train] = comparisons([pair("a")], [True])
    check_unseen([train], [pair("b")])
    with pytest.raises(ValueError, match="group 'a' is in training and in test"):
        check_unseen([train], [pair("a")])
    other = Comparison(
        question=train.question, chosen="A is  BAD.", rejected=train.chosen, group="other"
    )
    with pytest.raises(ValueError, match="text of test item 'a' is in training"):
        check_unseen([other], [pair("a")])


def test_digests_tell_comparisons_apart():
    one, two = (comparisons([pair("a")], [label]) for label in (True, False))
    assert digest_of(one) != digest_of(two)
    assert digest_of(one) == digest_of(comparisons([replace(pair("a"), label=None)], [True]))


ROWS = [
    {"prompt": "p", "chosen": "good", "rejected": "bad", "subset": name, "id": n}
    for n, name in enumerate(["alpacaeval-easy", "hep-go", "math-prm", "hep-go", "my own"])
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_rows_in_the_layout_by_category(tmp_path, suffix):
    path = tmp_path / "bench" / f"rows{suffix}"
    path.parent.mkdir()
    if suffix == ".parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)))
    for source in (path, str(path.parent)):
        chat, reasoning, own = read_reward_bench(source)
        assert [c.name for c in (chat, reasoning, own)] == ["Chat", "Reasoning", "my own"]
        assert len({item.group for item in reasoning.items}) == 3
        assert all(i.choice == "good" and i.label for c in (chat, reasoning) for i in c.items)
        # 447 rows of mathematics weigh as 984 of six programming languages do.
        assert reasoning.weights == pytest.approx((1, 984 / 447, 1))


def test_a_set_in_another_layout_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROWS[0], "chosen": ["good"]}))
    with pytest.raises(ValueError, match="row 1: field 'chosen' is"):
        read_reward_bench(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_reward_bench(tmp_path / "nothing")
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="has no file that ends in"):
        read_reward_bench(tmp_path)
