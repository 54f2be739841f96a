"""Leave-one-out orders: every item judged after all the others, in few reads.

Mutual predictability asks for p(y_i | x_i, all the others) for every i: N contexts of N - 1
examples. The order of the examples in a context is free. In a fixed order two contexts share what
stands before the first of the two items that they leave out, which saves half of the reading to a
scorer that keeps what contexts begin with. Chosen by recursion,

    loo(context, S) = score i after context                        if S = {i},
                      loo(context + B, A), loo(context + A, B)     else, S cut into halves A and B,

neighbours share all but a few: about N log2 N reads in place of N (N - 1). A read is one example
that is read in one context; what contexts share at their beginning counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Member = TypeVar("Member")


def leave_one_out(
    members: Sequence[Member], *, last: Sequence[Member] = ()
) -> Iterator[tuple[tuple[Member, ...], Member]]:
    """(all the others in the recursive order, the one that is judged after them), for every one.

    Contexts come in the order in which a trie of them is walked depth first, so every beginning
    that some of them share is asked for in one stretch.

    Args:
        members: N - g of the N; pass them in random order, since neighbours in it stay close.
        last: The other g. They stand last in every context, so that all before them can be read
            once for many labels of theirs. They are judged as well.
    """
    if not last:
        yield from _halved((), tuple(members))
        return
    for context, member in held_out(members):
        if member is None:
            yield from _halved(context, tuple(last))
        else:
            yield (*context, *last), member


def held_out(
    members: Sequence[Member],
) -> Iterator[tuple[tuple[Member, ...], Member | None]]:
    """(the others, the one held out) for every member, and once (all members, None); trie order."""
    for context, place in _halved((), (*range(len(members)), None)):
        at = tuple(members[number] for number in context if number is not None)
        yield at, None if place is None else members[place]


def fixed(members: Sequence[Member]) -> Iterator[tuple[tuple[Member, ...], Member]]:
    """(all the others, the one that is judged) with the others always in the order given.

    In trie order: from the last one to the first, contexts share shorter and shorter beginnings.
    """
    members = tuple(members)
    for place in reversed(range(len(members))):
        yield members[:place] + members[place + 1 :], members[place]


def _halved(
    context: tuple[Member, ...], members: tuple[Member, ...]
) -> Iterator[tuple[tuple[Member, ...], Member]]:
    if len(members) == 1:
        yield context, members[0]
    elif members:
        half = len(members) // 2
        left, right = members[:half], members[half:]
        yield from _halved(context + right, left)
        yield from _halved(context + left, right)


# --- counting ------------------------------------------------------------------------------------


def count_reads(contexts: Iterable[Sequence[object]]) -> int:
    """Examples read, what neighbouring contexts share at their beginning counted once.

    Contexts must come in trie order; then no beginning is counted twice.
    """
    reads, before = 0, ()
    for context in contexts:
        reads += len(context) - common_beginning(before, context)
        before = context
    return reads


def common_beginning(a: Sequence[object], b: Sequence[object]) -> int:
    """How many entries two sequences have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # compares slices, which is faster than a loop over entries
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def reads_fixed(n: int) -> int:
    """Reads of N contexts that share nothing: N (N - 1)."""
    return n * (n - 1)


def reads_cached(n: int) -> int:
    """Reads in a fixed order, beginnings shared: the longest context, and N (N - 1) / 2 beside it.

    After the beginning that ends at the item left out, each context has the rest to itself.
    """
    return (n - 1) * (n + 2) // 2


def reads_recursive(n: int) -> int:
    """Reads in the recursive order: R(1) = 0, R(N) = N + R(ceil(N / 2)) + R(floor(N / 2)).

    That is N ceil(log2 N) - 2^ceil(log2 N) + N, and N log2 N for powers of two.
    """
    if n < 2:
        return 0
    depth = (n - 1).bit_length()
    return n * depth - 2**depth + n
