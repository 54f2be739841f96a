"""Class shares are exact at constant size; balanced subsets are balanced in every cell."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jelicit.data.subsets import balanced_rows, balanced_runs, class_share_rows, rebalanced

LABELS = st.lists(st.sampled_from([0.0, 1.0, np.nan]), max_size=60).map(np.array)
SHARES = [0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1]


@settings(max_examples=200, deadline=None)
@given(LABELS, st.floats(0, 1), st.integers(0, 2**31))
def test_class_share_counts_are_exact_at_every_share(labels, share, seed):
    size = min((labels == 1).sum(), (labels == 0).sum())
    assume(size > 0)
    rows = class_share_rows(labels, share=share, seed=seed)
    assert len(rows) == len(set(rows.tolist())) == size
    assert np.all(np.diff(rows) > 0)
    n_true = int((labels[rows] == 1).sum())
    assert abs(n_true - share * size) <= 0.5
    assert (labels[rows] == 0).sum() == size - n_true  # so no row without a truth value
    np.testing.assert_array_equal(rows, class_share_rows(labels, share=share, seed=seed))


def test_the_size_does_not_depend_on_the_share():
    labels = np.array([1] * 329 + [0] * 700)
    chosen = {share: class_share_rows(labels, share=share, seed=3) for share in SHARES}
    assert {len(rows) for rows in chosen.values()} == {329}
    assert [int(labels[rows].sum()) for rows in chosen.values()] == [
        0, 3, 33, 82, 165, 247, 296, 326, 329,
    ]  # fmt: skip


def test_shares_of_one_seed_are_nested():
    labels = np.array([1, 0] * 100)
    trues = [
        {r for r in class_share_rows(labels, share=s, seed=7).tolist() if labels[r]} for s in SHARES
    ]
    for less, more in pairwise(trues):
        assert less <= more


def test_every_row_can_be_drawn():
    labels = np.array([1] * 6 + [0] * 6)
    counts = np.zeros(12)
    for seed in range(600):
        counts[class_share_rows(labels, share=0.5, seed=seed)] += 1
    # Each row has chance 1/2: 300 expected, standard deviation 12.
    assert counts.min() > 240
    assert counts.max() < 360


def test_class_share_size_and_refusals():
    labels = [True] * 4 + [False] * 10 + [None] * 20
    assert len(class_share_rows(labels, share=0.25, seed=0, size=12)) == 12
    with pytest.raises(
        ValueError, match="needs 6 true and 6 false rows; the data has 4 true and 10"
    ):
        class_share_rows(labels, share=0.5, seed=0, size=12)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        class_share_rows(labels, share=1.5, seed=0)
    with pytest.raises(ValueError, match="4 true and 0 false"):
        class_share_rows(labels[:4], share=1, seed=0)
    assert len(class_share_rows(labels[:4], share=1, seed=0, size=4)) == 4
    with pytest.raises(ValueError, match=r"labels\[1\] is 2"):
        class_share_rows([0, 2], share=0.5, seed=0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 2), max_size=80), st.integers(0, 99)
)
def test_two_by_two_subsets_have_four_equal_cells(pairs, seed):
    label, alt = (np.array(column) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    counts = [
        sum(1 for a, b in pairs if (a, b) == cell) for cell in [(1, 1), (1, 0), (0, 1), (0, 0)]
    ]
    if min(counts) == 0:
        with pytest.raises(ValueError, match=", ".join(map(str, counts))):
            balanced_rows(label, alt, seed=seed)
        return
    rows = balanced_rows(label, alt, seed=seed)
    cells, sizes = np.unique(np.stack([label[rows], alt[rows]]), axis=1, return_counts=True)
    assert cells.shape == (2, 4)
    assert set(sizes) == {min(counts)}
    assert len(set(rows.tolist())) == len(rows)


def test_balanced_rows_by_class_size_and_refusals():
    labels = np.array([1] * 5 + [0] * 9 + [np.nan] * 3)
    assert labels[balanced_rows(labels, seed=0)].sum() == 5
    assert labels[balanced_rows(labels, size=6, seed=0)].tolist().count(1) == 3
    draws = {tuple(balanced_rows(labels, size=6, seed=s).tolist()) for s in range(10)}
    assert len(draws) > 5
    for size in (5, 12, 0):
        with pytest.raises(
            ValueError, match=rf"cannot draw {size} .* 5, 9 rows; .* 2 from 2 to 10"
        ):
            balanced_rows(labels, size=size, seed=0)
    with pytest.raises(ValueError, match="17 labels but 2 alt"):
        balanced_rows(labels, [0, 1], seed=0)


def test_runs_draw_balanced_rows_each_with_its_own_seed():
    label = np.arange(40) % 2
    other = np.arange(40) < 12
    for alt, size in ((None, 32), (other, 16)):  # 80 % of 40, and of 4 x 6 in whole cells
        runs = balanced_runs(label, alt, runs=3)
        assert runs.shape == (3, 40)
        for seed, chosen in enumerate(runs):
            rows = balanced_rows(label, alt, size=size, seed=seed)
            np.testing.assert_array_equal(np.flatnonzero(chosen), rows)
    assert balanced_runs(label, other, runs=1, size=8).sum() == 8
    assert balanced_runs([1, 0], runs=2).all()  # never fewer than a row of each cell


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=60), st.integers(0, 2**31))
def test_rebalanced_rows_are_as_often_of_either_verdict(rows, seed):
    *columns, verdicts = np.array(rows).T
    subsets = np.stack(columns)
    found = rebalanced(subsets, verdicts, seed=seed)
    assert found.shape == subsets.shape
    assert not (found & ~subsets).any()  # among those that each run had
    for had, kept in zip(subsets, found, strict=True):
        counts = [int((had & (verdicts == value)).sum()) for value in (True, False)]
        left = [int((kept & (verdicts == value)).sum()) for value in (True, False)]
        assert left == ([min(counts)] * 2 if min(counts) else counts)
    np.testing.assert_array_equal(found, rebalanced(subsets, verdicts, seed=seed))


def test_rebalancing_draws_other_rows_in_every_run_and_under_every_seed():
    subsets, verdicts = np.ones((20, 12), bool), np.arange(12) < 2
    found = rebalanced(subsets, verdicts)
    assert found[:, :2].all()  # the rare verdict is kept whole
    counts = found[:, 2:].sum(0)
    assert counts.sum() == 2 * 20
    assert (counts > 0).all()  # and of the other one no row has a privilege
    assert len(np.unique(found, axis=0)) > 10
    assert not np.array_equal(found, rebalanced(subsets, verdicts, seed=1))


def test_rebalancing_needs_a_verdict_for_every_row():
    with pytest.raises(ValueError, match=r"verdicts have shape \(3,\) for 4 rows"):
        rebalanced(np.ones((2, 4), bool), np.ones(3, bool))


@pytest.mark.parametrize(
    "written",
    [
        pd.Series([True, False, pd.NA] * 6, dtype=object),
        pd.Series([True, False, pd.NA] * 6, dtype="boolean"),
        pd.Series([1, 0, pd.NA] * 6, dtype="Int8"),
        pd.Series([1.0, 0.0, np.nan] * 6),
        [np.True_, np.False_, pd.NA] * 6,
        [np.bool_(1), np.int8(0), None] * 6,
        np.array([True, False, None] * 6, dtype=object),
    ],
)
def test_labels_are_read_however_pandas_and_numpy_write_them(written):
    plain = [1.0, 0.0, np.nan] * 6
    other = [True, True, None, False, False, None] * 3
    rows = class_share_rows(plain, share=0.25, seed=1, size=4)
    np.testing.assert_array_equal(class_share_rows(written, share=0.25, seed=1, size=4), rows)
    for labels, alt in ((written, other), (other, written)):
        same = [plain if x is written else x for x in (labels, alt)]
        np.testing.assert_array_equal(
            balanced_rows(labels, alt, seed=2), balanced_rows(*same, seed=2)
        )
    np.testing.assert_array_equal(balanced_runs(written, runs=2), balanced_runs(plain, runs=2))


@pytest.mark.parametrize("wrong", ["false", "x" * 1_000_000, [1]])
def test_a_label_that_is_none_is_named_with_its_row(wrong):
    with pytest.raises(ValueError, match=r"labels\[2\]: a label is .*; allowed: True") as error:
        balanced_rows(pd.Series([True, pd.NA, wrong], dtype=object), seed=0)
    assert len(str(error.value)) < 300
