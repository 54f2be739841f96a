"""Descriptions: dependence and length AUROC against closed forms, SciPy and scikit-learn."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import matthews_corrcoef, mutual_info_score, roc_auc_score

from jelicit.data.datasets import Dataset
from jelicit.data.describe import describe, mutual_information, phi, table
from jelicit.data.items import Item

BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50)


def dataset(train, test=None) -> Dataset:
    return Dataset(
        name="d", train=tuple(train), test=tuple(test or ()), formats={"label": "claim"}, easy=None
    )


def items(rows, *, start=0):
    """Items of (label, alt or None, choice length, group)."""
    return [
        Item(id=f"{start + n}", question="q", choice="x" * length, label=label, group=group,
             alt_labels={} if alt is None else {"alt": alt})
        for n, (label, alt, length, group) in enumerate(rows)
    ]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(BITS)
def test_phi_and_information_against_sklearn(pairs):
    a, b = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b) / np.log(2), abs=1e-9)
    if a.std() and b.std():
        assert phi(a, b) == pytest.approx(matthews_corrcoef(a, b), abs=1e-9)
    else:
        assert np.isnan(phi(a, b))


def test_phi_and_information_of_perfect_and_of_no_dependence():
    a = np.array([1, 1, 0, 0.0])
    assert (phi(a, a), phi(a, 1 - a), phi(a, np.array([1, 0, 1, 0.0]))) == (1, -1, 0)
    assert mutual_information(a, 1 - a) == pytest.approx(1)  # one whole bit
    assert np.isnan(mutual_information(a[:0], a[:0]))


def test_rows_count_only_items_that_have_the_target():
    train = items([
        (True, True, 3, "a"), (False, True, 1, "a"), (True, False, 2, "b"), (None, True, 9, "c"),
        (False, None, 9, "d"), (True, None, 1, "b"),
    ])  # fmt: skip
    test = items([(True, False, 5, "b"), (False, True, 5, "z")], start=100)
    rows = {(r["split"], r["target"]): r for r in describe(dataset(train, test))}
    label, alt = rows["train", "label"], rows["train", "alt"]
    assert (label["rows"], label["of"], label["groups"], label["groups_shared"]) == (5, 6, 3, 1)
    assert label["true"] == pytest.approx(3 / 5)
    assert label["phi"] is None
    # true lengths 3, 2, 1 against false 1, 9: wins 3>1, 2>1, tie 1=1, none over 9.
    assert label["length_auroc"] == pytest.approx(2.5 / 6)
    assert (alt["rows"], alt["groups"], alt["true"]) == (4, 3, 0.75)
    # Both labels: (T,T) (F,T) (T,F); the item without a truth value is not counted.
    assert alt["phi"] == pytest.approx(-0.5)
    assert alt["auroc"] == pytest.approx(0.25)
    assert alt["information"] == pytest.approx(mutual_info_score([1, 0, 1], [1, 1, 0]) / np.log(2))
    assert rows["test", "alt"]["phi"] == pytest.approx(-1)
    assert rows["test", "alt"]["auroc"] == pytest.approx(0)
    assert rows["test", "label"]["length_auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("n", [5, 16, 17, 100])
def test_length_auroc_against_sklearn_at_any_number_of_rows(n):
    rng = np.random.default_rng(n)
    truth, lengths = rng.permutation(np.arange(n) % 2 == 0), rng.integers(1, 8, n)
    rows = [(bool(t), None, int(k), "") for t, k in zip(truth, lengths, strict=True)]
    (row,) = describe(dataset(items(rows)))
    assert row["length_auroc"] == pytest.approx(roc_auc_score(truth, lengths))


def test_pairs_compare_the_lengths_of_both_responses():
    pairs = [
        Item(id="1", question="q", choice="long one", choice_2="short", label=True),
        Item(id="2", question="q", choice="short", choice_2="long one", label=False),
        Item(
            id="3", question="q", choice="very long one", choice_2="even longer here", label=False
        ),
    ]
    (row,) = describe(dataset(pairs))
    assert row["length_auroc"] == 1  # of `choice` alone it would be 1/2


def test_a_class_that_is_missing_gives_nan_not_an_error():
    normative = items([(None, True, 3, "a"), (None, False, 3, "b")])
    label, alt = describe(dataset(normative))
    assert (label["rows"], label["of"]) == (0, 2)
    assert np.isnan([label["true"], label["length_auroc"], alt["phi"], alt["auroc"]]).all()
    assert alt["length_auroc"] == 0.5


def test_added_features_are_shown_to_tell_nothing():
    rows = [(n % 2 == 0, None, 3 + n % 5, f"g{n}") for n in range(80)]
    described = describe(dataset(items(rows)), features=["sycophancy", "tense"], seed=4)
    by_target = {row["target"]: row for row in described}
    assert list(by_target) == ["label", "sycophancy", "tense"]
    for name in ("sycophancy", "tense"):
        assert by_target[name]["phi"] == 0
        assert by_target[name]["auroc"] == 0.5
        assert by_target[name]["information"] == pytest.approx(0)
    with pytest.raises(ValueError, match="unknown feature"):
        describe(dataset(items(rows)), features=["colour"])


def test_a_feature_that_the_prompt_cannot_show_is_refused():
    pairs = [Item(id="1", question="q", choice="one", choice_2="other", label=True)]
    of_pairs = replace(dataset(pairs), formats={"label": "pair"})
    with pytest.raises(ValueError, match="d cannot have the feature 'alice': its prompt shows ch"):
        describe(of_pairs, features=["alice"])
    claims = dataset(items([(True, None, 3, "a"), (False, None, 4, "b")]))
    with pytest.raises(ValueError, match="'sycophancy': its prompt shows no question"):
        describe(claims, features=["sycophancy"], format="statement")


def test_the_table_shows_every_row_and_only_columns_that_say_something():
    rows = describe(dataset(items([(True, None, 3, "a"), (False, None, 4, "b")])))
    shown = {str(column.header): list(column.cells) for column in table(rows).columns}
    assert shown == {
        "set": ["d/train"],
        "target": ["label"],
        "rows": ["2"],
        "groups": ["2"],
        "true": ["0.50"],
        "length": ["0.00"],
    }
    shared = describe(dataset(*[items([(True, True, 3, "a")], start=n) for n in (0, 1)]))
    headers = {str(column.header) for column in table(shared).columns}
    assert headers == {*shown, "shared", "same text", "phi", "AUROC", "bits"}
    assert table([]).row_count == 0


def test_names_are_shown_as_they_are_and_never_obeyed():
    item = Item(id="1", choice="c", label=True, alt_labels={"[/]": True, "\x1b[31mred": False})
    rows = describe(replace(dataset([item]), name="[bold]set"))
    console = Console(width=200, file=StringIO(), force_terminal=False)
    console.print(table(rows))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]set/train" in shown
    assert "[/]" in shown
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
