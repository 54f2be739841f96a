"""Which of two answers is better: what reward models learn from, made of pairs and their labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from jelicit.data.items import Item, known_label
from jelicit.data.overlap import leaks, normal_text, text_key
from jelicit.data.shown import shown

VOTES = "human_votes"
"""Where a set has single annotators' labels: a list of true/false in `Item.meta`."""

ASKED = "Query: {question}\nResponse 1:"
"""How a question is put: as the prompts of pairs begin, which end where an answer stands."""

MIRROR = "/mirror"
"""End of the id of a pair that was made of another one by turning it round."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question, the answer that a label calls better, and the other one.

    Attributes:
        question: What both answer; "" where the source has none.
        chosen: The better answer.
        rejected: The other one.
        group: As of the item: comparisons that share a question share a group.
    """

    question: str
    chosen: str
    rejected: str
    group: str

    def as_item(self) -> Item:
        """The comparison as a pair whose first answer is the better one."""
        return Item(
            id=self.group,
            question=self.question,
            choice=self.chosen,
            choice_2=self.rejected,
            label=True,
            group=self.group,
        )


def as_items(made: Sequence[Comparison], *, labels: str) -> list[Item]:
    """Comparisons as a set of pairs, the better answer first, with where their labels are from."""
    return [
        replace(each.as_item(), id=f"{labels}/{number:05d}", meta={"labels": labels})
        for number, each in enumerate(made)
    ]


def digest_of(comparisons: Sequence[Comparison]) -> str:
    """SHA-256 (hex) of comparisons; order matters."""
    text = json.dumps([asdict(each) for each in comparisons], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def comparisons(
    items: Sequence[Item], labels: Sequence[bool | None] | np.ndarray
) -> tuple[Comparison, ...]:
    """One comparison for every pair that a label decides, in order of first appearance.

    A pair may stand there in both orders. Orders that contradict each other (each says that its
    first answer is better) decide nothing, and such a pair is left out.

    Args:
        items: N pairs; their own labels are not looked at.
        labels: [N], true = the first answer is better; None or nan = not labelled.

    Raises:
        ValueError: There are not as many labels as items, or an item is no pair.
    """
    if len(labels) != len(items):
        raise ValueError(f"{len(labels)} labels for {len(items)} pairs; give one for each")
    found: dict[tuple[str, ...], Comparison | None] = {}
    for item, label in zip(items, map(known_label, labels), strict=True):
        second = _second(item)
        if label is None:
            continue
        better, worse = (item.choice, second) if label else (second, item.choice)
        made = Comparison(question=item.question, chosen=better, rejected=worse, group=item.group)
        key = (item.group, *text_key(item))
        before = found.setdefault(key, made)
        if before is not None and normal_text(before.chosen) != normal_text(better):
            found[key] = None
    return tuple(each for each in found.values() if each is not None)


def one_order(items: Sequence[Item]) -> tuple[Item, ...]:
    """Every pair once, in the order of its answers that comes first.

    Raises:
        ValueError: An item is no pair.
    """
    first: dict[tuple[str, ...], Item] = {}
    for item in items:
        _second(item)
        first.setdefault((item.group, *text_key(item)), item)
    return tuple(first.values())


def vote_of(item: Item) -> bool | None:
    """What one annotator says of an item: the first vote of its `meta["human_votes"]`, if any.

    A mirror was made of a pair in the other order, votes and all: of it the opposite is said.

    Raises:
        ValueError: Votes that are no list of true and false.
    """
    votes = item.meta.get(VOTES)
    if not votes:
        return None
    if not isinstance(votes, list | tuple) or not all(isinstance(vote, bool) for vote in votes):
        raise ValueError(
            f"item {shown(item.id)}: meta.{VOTES} is {shown(votes)}; allowed: a list of true "
            "and false, one for each annotator"
        )
    return votes[0] is not item.id.endswith(MIRROR)


def human_labels(items: Sequence[Item]) -> list[bool | None]:
    """What one annotator says of each pair (`vote_of`), of one that is there in both orders once.

    Golden labels of such sets are the majority; one annotator is what a set is usually labelled by
    (Wen et al. 2025, Alpaca).

    Raises:
        ValueError: As of `vote_of`.
    """
    labels: list[bool | None] = []
    seen: set[tuple[str, ...]] = set()
    for item in items:
        key, vote = (item.group, *text_key(item)), vote_of(item)
        labels.append(None if key in seen else vote)
        if vote is not None:
            seen.add(key)
    return labels


def true_and_false(claims: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Of every question of a group each true claim beside a false one, each claim once.

    Claims without a truth value, and those that are left over, are in none.
    """
    sides: dict[tuple[str, str], tuple[list[Item], list[Item]]] = {}
    for item in claims:
        if item.label is not None:
            of_question = sides.setdefault((item.group, item.question), ([], []))
            of_question[not item.label].append(item)
    return [both for of_question in sides.values() for both in zip(*of_question, strict=False)]


def wrong_question(asked: str) -> str:
    """What is wrong with a text that is to put a question, as the end of a line; "" if nothing."""
    try:
        put = asked.format(question="\0")
    except (KeyError, IndexError, ValueError):
        return "has another field than {question}: its one field is {question}"
    return "" if "\0" in put else "has to hold {question}, its one field"


def pairs_of_claims(items: Sequence[Item], *, seed: int = 0) -> tuple[Item, ...]:
    """Claims as pairs: of every question, each true claim beside a false one.

    Which claim stands first is drawn. Claims are paired by their labels, as preference sets are
    made: a set of pairs takes for granted that one of the two answers is better. Which one it is,
    is said by the label of the pair alone.

    Args:
        items: Claims; those without a truth value, and questions without both kinds, are left out.
        seed: Of the draws.

    Raises:
        ValueError: An item is a pair already, or no question has a true and a false claim.
    """
    for item in items:
        if item.choice_2 is not None:
            raise ValueError(f"item {shown(item.id)} is a pair already; give claims")
    rng = np.random.default_rng(seed)
    made: list[Item] = []
    of_group: Counter[str] = Counter()
    for right, wrong in true_and_false(items):
        first = bool(rng.random() < 0.5)
        one, two = (right, wrong) if first else (wrong, right)
        number = of_group[right.group]
        of_group[right.group] += 1
        made.append(
            replace(
                one,
                id=f"{right.group}/pair-{number}" if number else f"{right.group}/pair",
                choice_2=two.choice,
                label=first,
                answer=None,
                alt_labels={},
                meta={},
            )
        )
    if not made:
        groups = {item.group for item in items if item.label is not None}
        raise ValueError(
            f"none of {len(groups)} groups has a true and a false claim of one question, so there "
            "are no pairs; give a set whose questions have both, or a set of pairs"
        )
    return tuple(made)


def check_unseen(
    trained: Sequence[Comparison], test: Sequence[Item], *, what: str = "training"
) -> None:
    """Refuses training on what is tested: by group, and by text whatever the group.

    Args:
        trained: What is learned from.
        test: Pairs that are measured on.
        what: What the former are called in messages.

    Raises:
        ValueError: A group or a text is in both; the message names it.
    """
    groups, texts = leaks([each.as_item() for each in trained], test)
    for item, _ in groups:
        raise ValueError(
            f"group {shown(item.group)} is in {what} and in test: keep all items of a question on "
            "one side"
        )
    for item, tested in texts:
        raise ValueError(
            f"the text of test item {shown(tested.id)} is in {what} (group {shown(item.group)}): "
            "leave it out there (--overlap drop)"
        )


def _second(item: Item) -> str:
    if item.choice_2 is None:
        raise ValueError(
            f"item {shown(item.id)} is a claim, not a pair; make pairs of claims first "
            "(pairs_of_claims)"
        )
    return item.choice_2
