"""Held out means held out: what is the same text, what is dropped, what is only told."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.concerns import concerns, few_rows, unmeasurable
from jelicit.data.datasets import Dataset, known_names, load_dataset
from jelicit.data.describe import describe
from jelicit.data.items import Item
from jelicit.data.overlap import (
    contradictions,
    held_out,
    held_out_rows,
    normal_text,
    overlap,
    text_key,
    without_overlap,
)


def claim(id: str, choice: str, **fields) -> Item:
    return Item(id=id, choice=choice, **{"question": "What?", "label": True, **fields})


TEST = [claim("t1", "Café is open.", group="g1"), claim("t2", "It rains.", group="g2")]


# --- what is the same ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "Café is open.",
        unicodedata.normalize("NFD", "Café is open."),
        "  CAFÉ\tis\n open. ",
        "Café\u00a0is\u2003open.",
    ],
)
def test_one_text_is_one_however_it_is_written(written):
    shared = overlap([claim("other", written)], TEST)
    assert [(a.id, b.id) for a, b in shared.texts] == [("other", "t1")]
    assert without_overlap([claim("other", written)], TEST) == ()


@pytest.mark.parametrize(
    "row",
    [
        claim("a", "Cafe is open."),
        claim("a", "Café is open!"),
        claim("a", "Café is open.", question="Who?"),
        claim("a", "Café is open.", choice_2="It rains."),
    ],
)
def test_another_text_question_or_second_response_is_another_row(row):
    assert overlap([row], TEST).texts == ()
    assert without_overlap([row], TEST) == (row,)


def test_a_pair_in_the_other_order_is_the_same_pair():
    pair = claim("p", "one", choice_2="two")
    turned = claim("q", "Two", choice_2="one", label=False)
    assert text_key(pair) == text_key(turned)
    assert text_key(pair) != text_key(claim("r", "one", choice_2="one"))


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_normal_texts_stay_as_they_are_in_every_unicode_form(text):
    normal = normal_text(text)
    assert normal_text(normal) == normal
    for form in ("NFC", "NFD"):
        assert normal_text(unicodedata.normalize(form, text)) == normal


# --- what is counted and said --------------------------------------------------------------------


def test_a_row_is_counted_once_by_the_first_kind_that_applies():
    train = [
        claim("t1", "café is open.", group="g1"),  # all three: the text
        claim("t2", "It snows.", group="g2"),  # id and group: the id
        claim("x", "It hails.", group="g2"),  # the group
        claim("y", "It thaws.", group="g9"),
    ]
    shared = overlap(train, TEST)
    counted = {
        kind: [a.id for a, _ in getattr(shared, kind)] for kind in ("texts", "ids", "groups")
    }
    assert counted == {"texts": ["t1"], "ids": ["t2"], "groups": ["x"]}
    text, id, group = shared.lines
    assert text.startswith("1 of 4 rows is a test row as well (")
    assert "'t1' and test 't1': 'café is open.'" in text
    assert "such as 't2'" in id
    assert "in 1 group of test rows" in group
    assert "'x' and test 't2': 'It hails.'" in group
    assert overlap(train[3:], TEST).lines == []


def test_lines_stay_short_whatever_the_text():
    long = "word " * 100_000
    (line,) = overlap([claim("a", long)], [claim("b", long)]).lines
    assert len(line) < 400
    assert "500,000 characters" in line


# --- policies ------------------------------------------------------------------------------------

TRAIN = [
    claim("a", "IT RAINS.", group="weather"),
    claim("b", "It does not rain.", group="weather"),
    claim("c", "It blows.", group="wind"),
    claim("d", "Shut.", group="g1"),  # a group of test: told, and stays
]


def test_drop_leaves_out_the_text_with_its_group_and_says_so():
    said = []
    rows = held_out(TRAIN, TEST, say=said.append, what="easy")
    assert [row.id for row in rows] == ["c", "d"]
    np.testing.assert_array_equal(held_out_rows(TRAIN, TEST), [False, False, True, True])
    text, group = said
    assert text.startswith("easy: 1 of 4 rows ")
    assert text.endswith("; 2 rows are left out with their groups")
    assert group.startswith("easy: 1 of 4 rows is in 1 group of test rows")


def test_keep_changes_nothing_and_says_what_that_means():
    said = []
    assert held_out(TRAIN, TEST, policy="keep", say=said.append) == tuple(TRAIN)
    assert said[0].endswith("kept (--overlap keep): what is measured is not held out")


def test_refuse_names_both_rows_and_what_to_do():
    with pytest.raises(ValueError, match=r"'a' and test 't2': 'IT RAINS\.'; .*--overlap drop"):
        held_out(TRAIN, TEST, policy="refuse")
    assert held_out(TRAIN[2:], TEST, policy="refuse") == tuple(TRAIN[2:])  # a group alone


def test_splits_numbered_apart_share_ids_and_lose_nothing():
    train, test = ([claim(str(k), f"{side} {k}") for k in range(5)] for side in ("one", "two"))
    said = []
    assert held_out(train, test, say=said.append) == tuple(train)
    assert len(said) == 1
    assert "5 of 5 rows are other texts under ids that test has" in said[0]


def test_nothing_shared_is_nothing_said_and_nothing_left_is_refused():
    said = []
    assert held_out(TRAIN[2:3], TEST, say=said.append) == (TRAIN[2],)
    assert said == []
    with pytest.raises(ValueError, match="no row is left to fit on"):
        held_out(TRAIN[:2], TEST)
    with pytest.raises(ValueError, match="overlap is 'ignore'; allowed: drop, refuse, keep"):
        held_out(TRAIN, TEST, policy="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [n for n in known_names() if n.startswith("pocket/")])
def test_the_pocket_sets_are_held_out(name):
    dataset = load_dataset(name)
    assert overlap(dataset.train, dataset.test).lines == []


# --- descriptions --------------------------------------------------------------------------------


def dataset(train, test) -> Dataset:
    return Dataset(
        name="d", train=tuple(train), test=tuple(test), formats={"label": "claim"}, easy=None
    )


def test_describe_counts_the_rows_of_each_split_whose_text_another_has():
    rows = {r["split"]: r["texts_shared"] for r in describe(dataset(TRAIN, TEST))}
    assert rows == {"train": 1, "test": 1}


def rows_of(values) -> list[Item]:
    return [claim(f"{k}", f"c{k}", label=value) for k, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "test: none of 0 rows has a truth value"),
        ([None, None], "test: none of 2 rows has a truth value for 'label'"),
        ([True, None, True], "test: 'label' is true in all 2 rows; AUROC"),
        ([False], "test: 'label' is false in all 1 rows"),
        ([True, False, None], ""),
    ],
)
def test_rows_that_give_no_auroc_say_why(values, said):
    told = unmeasurable(rows_of(values))
    assert told.startswith(said)
    assert bool(told) == bool(said)


def test_few_rows_are_told_with_what_one_row_weighs():
    assert few_rows(rows_of([True] * 2 + [False] * 30)).startswith("test: only 2 true and 30 false")
    assert "up to 0.50" in few_rows(rows_of([True] * 2 + [False] * 30))
    assert few_rows(rows_of([True, False] * 10)) == ""


def test_concerns_are_all_that_a_reader_has_to_know():
    train_line, group_line, test_line = concerns(dataset(TRAIN, TEST))
    assert train_line.startswith("train: 1 of 4 rows is a test row as well")
    assert group_line.startswith("train: 1 of 4 rows is in 1 group")
    assert test_line.startswith("test: 'label' is true in all 2 rows")
    assert concerns(load_dataset("pocket/arithmetic")) == []


# --- one text, both labels -----------------------------------------------------------------------


def test_a_text_with_both_labels_is_told_with_an_example():
    rows = [claim("a", "It rains."), claim("b", " it RAINS. ", label=False), claim("c", "No.")]
    assert contradictions(rows).startswith("1 text with both labels, such as rows 'a' and 'b'")
    rows += [claim("d", "No.", label=False), claim("e", "No.", label=None)]
    assert contradictions(rows).startswith("2 texts with both labels")
    assert not contradictions([rows[0], rows[0], rows[2], rows[4]])


def test_a_pair_turned_round_has_the_other_label_and_says_the_same():
    one = claim("a", "x", choice_2="y")
    assert not contradictions([one, claim("b", "y", choice_2="x", label=False)])
    assert contradictions([one, claim("b", "y", choice_2="x")])
    # Two responses that are one text have no order.
    assert contradictions(
        [claim("a", "x", choice_2="X"), claim("b", "X", choice_2="x", label=False)]
    )


def test_a_file_whose_rows_contradict_each_other_says_so(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("statement,label\nA.,1\nB.,0\nC.,1\nA.,0\nD.,1\n", encoding="utf-8")
    assert any(note.startswith("1 text with both labels") for note in load_dataset(path).notes)
