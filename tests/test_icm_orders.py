"""Leave-one-out orders against their definition, and their reads against a trie."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.icm.orders import (
    common_beginning,
    count_reads,
    fixed,
    held_out,
    leave_one_out,
    reads_cached,
    reads_fixed,
    reads_recursive,
)


def beginnings(contexts):
    """Brute force: the distinct beginnings of contexts, which are the nodes of their trie."""
    return {tuple(context[:end]) for context in contexts for end in range(1, len(context) + 1)}


def in_trie_order(contexts):
    """Whether every beginning is met in one stretch."""
    left, before = set(), set()
    for context in contexts:
        now = beginnings([context])
        left |= before - now
        if now & left:
            return False
        before = now
    return True


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 70))
def test_every_item_is_judged_after_all_others_once(n):
    for order in (leave_one_out, fixed):
        asked = list(order(range(n)))
        assert sorted(judged for _, judged in asked) == list(range(n))
        assert all(sorted((*others, judged)) == list(range(n)) for others, judged in asked)
        assert in_trie_order([others for others, _ in asked])


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 130))
def test_reads_are_what_a_trie_of_the_contexts_has(n):
    recursive = [others for others, _ in leave_one_out(range(n))]
    one_by_one = [others for others, _ in fixed(range(n))]
    assert count_reads(recursive) == len(beginnings(recursive)) == reads_recursive(n)
    assert count_reads(one_by_one) == len(beginnings(one_by_one)) == reads_cached(n)
    assert sum(map(len, one_by_one)) == reads_fixed(n)
    assert reads_recursive(n) <= n * math.ceil(math.log2(n))


def test_the_reads_of_256_items():
    assert (reads_fixed(256), reads_cached(256), reads_recursive(256)) == (65_280, 32_895, 2_048)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 60), g=st.integers(1, 5))
def test_the_last_ones_stand_last_and_all_before_them_is_read_once(n, g):
    members, last = tuple(range(n)), tuple(range(n, n + g))
    asked = list(leave_one_out(members, last=last))
    assert sorted(judged for _, judged in asked) == list(range(n + g))
    for others, judged in asked:
        assert sorted((*others, judged)) == list(range(n + g))
        tail = [one for one in last if one != judged]
        assert sorted(others[len(others) - len(tail) :]) == tail
    contexts = [others for others, _ in asked]
    assert in_trie_order(contexts)
    shared = reads_recursive(n + 1)
    assert count_reads(contexts) <= shared + n * g + reads_recursive(g)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 90))
def test_holding_out_one_or_none_costs_no_more_than_one_member_more(n):
    found = list(held_out(range(n)))
    assert sorted(m for _, m in found if m is not None) == list(range(n))
    assert [sorted(c) for c, m in found if m is None] == [list(range(n))]
    contexts = [context for context, _ in found]
    assert in_trie_order(contexts)
    assert count_reads(contexts) <= reads_recursive(n + 1)


@settings(max_examples=200, deadline=None)
@given(a=st.lists(st.integers(0, 1)), b=st.lists(st.integers(0, 1)))
def test_the_common_beginning_against_a_loop(a, b):
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_beginning(a, b) == expected
