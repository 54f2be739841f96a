"""Rows of token trees: every sequence can be read off its row, and sees itself alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.token_trees import common, group, lay_out, most_in_a_row

SEQUENCES = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12
)


def sees(row, column):
    """Columns that a token of the row may attend to."""
    columns = np.arange(len(row.ids))
    return columns[(columns <= column) & (column < row.ends)]


@settings(max_examples=200, deadline=None)
@given(sequences=SEQUENCES, start=st.integers(0, 3))
def test_each_token_sees_its_own_sequence_and_nothing_else(sequences, start):
    sequences = [(9,) * start + sequence for sequence in sequences]
    row = lay_out(sequences, start=start)
    for sequence, columns in zip(sequences, row.columns, strict=True):
        assert tuple(row.ids[columns]) == sequence[start:]
        assert list(row.positions[columns]) == list(range(start, len(sequence)))
        for depth, column in enumerate(columns):
            np.testing.assert_array_equal(sees(row, column), columns[: depth + 1])
    # As many tokens as the sequences have different beginnings.
    beginnings = {s[:k] for s in sequences for k in range(start + 1, len(s) + 1)}
    assert len(row.ids) == len(beginnings)


@given(a=st.lists(st.integers(0, 1), max_size=9), b=st.lists(st.integers(0, 1), max_size=9))
def test_common_counts_equal_tokens_up_to_the_first_difference(a, b):
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    assert common(tuple(a), tuple(b)) == count


@settings(max_examples=200, deadline=None)
@given(
    sequences=SEQUENCES,
    extra=st.integers(0, 3),
    width=st.integers(1, 8),
    most=st.integers(1, 60),
)
def test_groups_hold_every_sequence_once_and_cost_no_more_than_rows_of_their_own(
    sequences, extra, width, most
):
    def cost(tokens):
        return tokens * (6 * width + tokens)

    groups = group(sequences, [extra] * len(sequences), start=0, width=width, most=most)
    assert sorted(member for _, members in groups for member in members) == list(
        range(len(sequences))
    )
    for tokens, members in groups:
        row = lay_out([sequences[member] for member in members])
        assert tokens == len(row.ids) + extra * len(members)
        alone = [len(sequences[member]) + extra for member in members]
        assert cost(tokens) <= sum(map(cost, alone))
        assert tokens <= max(most, *alone)


def test_sequences_with_nothing_in_common_stay_apart_and_claims_of_one_question_do_not():
    question, other = tuple(range(100)), tuple(range(200, 300))
    claims = [(*question, 7, 7), (*other, 8), (*question, 9, 9, 9)]
    found = group(claims, [2, 2, 2], start=0, width=64, most=most_in_a_row(64))
    assert sorted((tokens, sorted(members)) for tokens, members in found) == [
        (103, [1]),
        (100 + 2 + 2 + 3 + 2, [0, 2]),
    ]
