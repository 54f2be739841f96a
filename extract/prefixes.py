"""The order in which a server with a prefix cache should be asked.

Sequences of tokens are a tree: what some of them begin with alike is one of its inner nodes. A
server finds a beginning in its cache if it has answered a request that begins so, but not if two
requests that begin so arrive together. So a beginning that is shared is sent alone first, where
that saves more than the request costs, and what continues it only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from extract.token_trees import Tokens, common


@dataclass(frozen=True)
class Node:
    """One request: a sequence that is asked about, or a beginning that is only to be read.

    Attributes:
        tokens: What is sent.
        asked: Whether it is one of the sequences.
        after: The node, by its place in the order, that must be answered first, or None.
    """

    tokens: Tokens
    asked: bool
    after: int | None


def in_tree_order(sequences: Sequence[Tokens], *, worth: int) -> list[Node]:
    """The requests for some sequences, depth first, so that what is cached is soon used.

    A beginning of d tokens that c branches continue, below one of d' tokens that is sent before,
    is sent by itself if that spares (c - 1) (d - d') tokens of reading and this is at least
    `worth`. A sequence that is the beginning of others is always sent before them.

    Args:
        sequences: Different sequences, none empty.
        worth: Tokens that a request costs about as much as.
    """
    order: list[Node] = []
    todo: list[tuple[_Branch, int | None]] = [(_tree(sorted(sequences)), None)]
    while todo:
        branch, after = todo.pop()
        known = 0 if after is None else len(order[after].tokens)
        spared = (len(branch.below) - 1) * (branch.depth - known)
        if branch.asked or (branch.depth and branch.below and spared >= worth):
            order.append(Node(branch.sequence[: branch.depth], branch.asked, after))
            after = len(order) - 1
        todo += [(child, after) for child in reversed(branch.below)]
    return order


@dataclass
class _Branch:
    """A node of the tree: the first `depth` tokens of a sequence."""

    sequence: Tokens
    depth: int
    asked: bool = False
    below: list[_Branch] = field(default_factory=list)


def _tree(sequences: Sequence[Tokens]) -> _Branch:
    """The tree of sequences in rising order; its root has no tokens."""
    root = _Branch((), 0)
    path = [root]  # from the root to the sequence before
    before: Tokens = ()
    for sequence in sequences:
        shared = common(before, sequence)
        cut = None
        while path[-1].depth > shared:
            cut = path.pop()
        if cut is not None and path[-1].depth < shared:  # they part in the middle of a branch
            parting = _Branch(sequence, shared, below=[cut])
            path[-1].below[-1] = parting
            path.append(parting)
        leaf = _Branch(sequence, len(sequence), asked=True)
        path[-1].below.append(leaf)
        path.append(leaf)
        before = sequence
    return root
