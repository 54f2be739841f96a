"""Pair tasks in both orders, so that the rule `asymmetry` binds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jelicit.data.items import Item
from jelicit.data.preferences import MIRROR


def with_mirrors(items: Sequence[Item]) -> list[Item]:
    """Every pair, followed by the same pair in the other order where the items have none.

    A mirror has the two responses swapped, the same group, the id with "/mirror" after it, and the
    opposite label if there is one. Alternative labels are left out: what the order does to them
    depends on what they mean.

    Raises:
        ValueError: If an item is no pair.
    """
    there = {(item.group, item.question, item.choice, item.choice_2) for item in items}
    made = []
    for item in items:
        if item.choice_2 is None:
            raise ValueError(f"item {item.id!r} has no choice_2: only pairs have two orders")
        made.append(item)
        if (item.group, item.question, item.choice_2, item.choice) not in there:
            made.append(_mirror(item, item.choice_2))
    return made


def _mirror(item: Item, second: str) -> Item:
    return replace(
        item,
        id=item.id + MIRROR,
        choice=second,
        choice_2=item.choice,
        label=None if item.label is None else not item.label,
        alt_labels={},
    )
