"""Logical rules between the labels of one group: claims of one question, a pair in both orders.

A rule says which two labels cannot stand together. It is shown items without any label of theirs,
so that what is consistent cannot depend on what is true. Bootstrapped prompting and ICM share them
(Wen et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from jelicit.data.items import Item

MAX_STEPS = 100_000
"""Labellings of one group that `most_likely` looks at before it gives up."""


@dataclass(frozen=True)
class Rule:
    """Which labels of two items of one group may stand together.

    Attributes:
        name: What results call it.
        allows: (item a, label a, item b, label b) -> bool. It is called with items whose labels
            are taken out, in the items' order, for items of the same group.
    """

    name: str
    allows: Callable[[Item, bool, Item, bool], bool]


def _answer(a: Item, label_a: bool, b: Item, label_b: bool) -> bool:
    if a.answer is None or b.answer is None:
        return True
    if a.answer == b.answer:
        return label_a == label_b
    return not (label_a and label_b)


def _asymmetry(a: Item, label_a: bool, b: Item, label_b: bool) -> bool:
    swapped = (a.question, a.choice, a.choice_2) == (b.question, b.choice_2, b.choice)
    return not swapped or a.choice == a.choice_2 or label_a != label_b


RULES = {
    rule.name: rule
    for rule in (
        Rule("answer", _answer),
        Rule("asymmetry", _asymmetry),
        Rule("none", lambda *_: True),
    )
}
"""answer: claims of one question with different final answers are not both True, and those with the
same answer agree. asymmetry: of "A is better than B" and "B is better than A" one is True. none."""


def get_rule(rule: str | Rule) -> Rule:
    """The rule of that name; a `Rule` is returned as it is.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones.
    """
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise ValueError(f"unknown consistency rule {rule!r}; known: {', '.join(RULES)}")
    return RULES[rule]


def without_labels(item: Item) -> Item:
    """The item with nothing in it that could tell its truth: no labels, no id, no notes."""
    return replace(item, id="unnamed", label=None, alt_labels={}, meta={})


def inconsistent_pairs(
    items: Sequence[Item], labels: Sequence[bool | None], rule: str | Rule
) -> list[tuple[int, int]]:
    """Pairs of labelled items (i < j) whose labels the rule does not allow.

    Args:
        items: n items.
        labels: [n]; None = not labelled.
        rule: Name of a rule, or one of your own.

    Raises:
        ValueError: If there are not as many labels as items, or the rule is unknown.
    """
    rule = get_rule(rule)
    _check_length(items, labels, "labels")
    found = []
    for members in _groups(items):
        labelled = [(i, without_labels(items[i]), labels[i]) for i in members]
        for place, (j, b, label_b) in enumerate(labelled):
            for i, a, label_a in labelled[:place]:
                if label_a is None or label_b is None:
                    continue
                if not rule.allows(a, bool(label_a), b, bool(label_b)):
                    found.append((i, j))
    return sorted(found)


def consistent_labellings(a: Item, b: Item, rule: str | Rule) -> list[tuple[bool, bool]]:
    """The labels that two items of one group may have together; all four if nothing binds them."""
    return _allowed(without_labels(a), without_labels(b), get_rule(rule))


def _allowed(a: Item, b: Item, rule: Rule) -> list[tuple[bool, bool]]:
    both = ((x, y) for x in (True, False) for y in (True, False))
    return [(x, y) for x, y in both if rule.allows(a, x, b, y)]


def most_likely(items: Sequence[Item], scores: ArrayLike, rule: str | Rule) -> np.ndarray:
    """The consistent labels with the largest sum of log-probabilities.

    Group by group, the labels y that maximise sum_i log P(y_i), which differs by a constant from
    the sum of the truth scores s_i = log P(true) - log P(false) of the items labelled True; exact.
    Without a rule that is s_i > 0.

    Args:
        items: n items.
        scores: [n] truth scores.
        rule: Name of a rule, or one of your own.

    Returns:
        bool [n].

    Raises:
        ValueError: If shapes do not fit, a score is not a number, a group has no consistent
            labels at all, or it has too many labellings to look at.
    """
    rule = get_rule(rule)
    values = np.asarray(scores, np.float64)
    if values.shape != (len(items),) or np.isnan(values).any():
        raise ValueError(f"scores are {values.shape}, not ({len(items)},), or hold a NaN")
    labels = values > 0
    for group in _groups(items):
        shown = [without_labels(items[place]) for place in group]
        for members in _bound_together(shown, rule):
            if len(members) > 1:
                rows = [group[member] for member in members]
                labels[rows] = _best([shown[member] for member in members], values[rows], rule)
    return labels


def _best(items: Sequence[Item], scores: np.ndarray, rule: Rule) -> list[bool]:
    """Branch and bound over the labels of items that are bound together."""
    best: tuple[float, list[bool]] | None = None
    # What the items from each on can add at most.
    room = np.append(np.cumsum(np.maximum(scores, 0)[::-1])[::-1], 0.0)
    steps = 0
    stack: list[tuple[float, list[bool]]] = [(0.0, [])]
    while stack:
        total, labels = stack.pop()
        place = len(labels)
        if best is not None and total + room[place] <= best[0]:
            continue
        if place == len(items):
            best = (total, labels)
            continue
        steps += 1
        if steps > MAX_STEPS:
            raise ValueError(
                f"rule {rule.name!r}: the {len(items)} items of group {items[0].group!r} have more "
                f"than {MAX_STEPS} labellings to compare; use smaller groups"
            )
        likely = bool(scores[place] > 0)
        for label in (not likely, likely):  # the likelier one is looked at first
            before = zip(items, labels, strict=False)
            if all(rule.allows(a, x, items[place], label) for a, x in before):
                gained = scores[place] if label else 0.0  # a score may be infinite
                stack.append((total + gained, [*labels, label]))
    if best is None:
        raise ValueError(
            f"rule {rule.name!r} allows no labels at all for {len(items)} items of the group "
            f"{items[0].group!r}"
        )
    return best[1]


def _bound_together(items: Sequence[Item], rule: Rule) -> Iterator[list[int]]:
    """Items of one group in connected parts: within a part, one label bears on another."""
    left = list(range(len(items)))
    while left:
        part, border = [left[0]], [left.pop(0)]
        while border:
            one = border.pop()
            for other in list(left):
                first, second = sorted((one, other))
                if len(_allowed(items[first], items[second], rule)) < 4:
                    left.remove(other)
                    part.append(other)
                    border.append(other)
        yield sorted(part)


def _groups(items: Sequence[Item]) -> Iterable[list[int]]:
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.group, []).append(place)
    return groups.values()


def _check_length(items: Sequence[Item], values: Sequence[object], what: str) -> None:
    if len(values) != len(items):
        raise ValueError(f"{len(values)} {what} for {len(items)} items")
