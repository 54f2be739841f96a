"""Rows of token trees: sequences that begin alike are laid out so that every token is read once.

A row holds a tree of tokens in depth-first order. Below column k stand the columns k..ends[k] - 1,
so token q may attend to token k exactly if k <= q < ends[k]: k is q itself or one of its ancestors.
A contrast pair is the smallest tree: its prompt, then one branch per verdict. Claims about one
question share the question; many-shot prompts share most of their examples. What all rows have in
common (`start` tokens, a system prompt for example) is left out of them: it is read once, before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Tokens = tuple[int, ...]


class Row(NamedTuple):
    """A tree of L tokens in one row."""

    ids: np.ndarray
    """[L] token ids, in depth-first order."""
    positions: np.ndarray
    """[L] place of each token in its own sequence, counted from the sequence's first token."""
    ends: np.ndarray
    """[L] one past the last column below each token."""
    columns: tuple[np.ndarray, ...]
    """Per sequence, the columns of its tokens from `start` on."""


def most_in_a_row(width: int) -> int:
    """Tokens up to which sequences are put in one row.

    At 6 D tokens a row's attention to itself costs as much as the matrices; a mask of more than
    2,048 squared is large itself.
    """
    return min(max(6 * width, 256), 2048)


def common(a: Tokens, b: Tokens) -> int:
    """Number of tokens that two sequences have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # compares slices, which is faster than a loop over tokens
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def lay_out(sequences: Sequence[Tokens], *, start: int = 0) -> Row:
    """The tree of some sequences as one row.

    Args:
        sequences: Token ids, each with its first `start` tokens, which all have in common.
        start: Tokens that are read before the row and do not stand in it.
    """
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    columns: list[np.ndarray] = [np.empty(0, np.int64)] * len(sequences)
    branch: list[int] = []  # columns of the sequence before
    before: Tokens = ()
    for number in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[number]
        shared = max(common(before, sequence) - start, 0)
        for column in branch[shared:]:
            ends[column] = len(ids)
        new = sequence[start + shared :]
        branch = branch[:shared] + list(range(len(ids), len(ids) + len(new)))
        ids += new
        positions += range(start + shared, len(sequence))
        ends += [0] * len(new)
        columns[number] = np.array(branch, np.int64)
        before = sequence
    for column in branch:
        ends[column] = len(ids)
    return Row(np.array(ids, np.int64), np.array(positions), np.array(ends), tuple(columns))


def group(
    sequences: Sequence[Tokens],
    extra: Sequence[int],
    *,
    start: int,
    width: int,
    most: int,
    in_order: bool = False,
) -> list[tuple[int, list[int]]]:
    """Which sequences are read in one row.

    A row saves the tokens that its sequences share, but each of its tokens is compared with all of
    the row. With hidden states of width D, a token costs about 24 D^2 operations for a block's
    matrices and 4 D per token in reach for its attention, so that a row of L tokens costs
    L (6 D + start + L) times 4 D. In rising order of tokens, a sequence joins the row before it
    wherever that costs less than a row of its own.

    Args:
        sequences: Token ids of n sequences.
        extra: [n] tokens that follow each sequence and are not shared (its verdicts).
        start: Tokens at the beginning that all sequences share and that are read before.
        width: D.
        most: Most tokens in a row of several sequences, unless it is no longer than one of them.
        in_order: Take the sequences as they come instead of in rising order.

    Returns:
        Per row, its number of tokens and its sequences.
    """

    def cost(tokens: int) -> int:
        return tokens * (6 * width + start + tokens)

    rows: list[tuple[int, list[int]]] = []
    before: Tokens = ()
    order = range(len(sequences))
    for number in order if in_order else sorted(order, key=sequences.__getitem__):
        sequence = sequences[number]
        alone = len(sequence) - start + extra[number]
        if rows:
            length, members = rows[-1]
            longer = length + alone - max(common(before, sequence) - start, 0)
            if longer <= max(most, alone) and cost(longer) - cost(length) < cost(alone):
                rows[-1] = (longer, [*members, number])
                before = sequence
                continue
        rows.append((alone, [number]))
        before = sequence
    return rows
