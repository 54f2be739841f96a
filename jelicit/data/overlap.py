"""Held out means held out: train rows that the test rows have too, under whatever id.

What counts is the text that is judged: question, choice and second response, without regard to
Unicode form, case and white space, and of a pair without regard to which response comes first.
Rows that share only a group (another answer to the same question) or only an id are told and stay:
sources number their splits apart, and some have a question on both sides on purpose.

Ask of the claims as they are, before a feature is added: a feature makes two texts of one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jelicit.data.items import Item
from jelicit.data.shown import shown

Policy = Literal["drop", "refuse", "keep"]
"""What becomes of train rows whose text is a test row's, as `--overlap` names it."""

Shared = tuple[tuple[Item, Item], ...]
"""(train row, the first test row that it shares something with), in the order of train."""


def normal_text(text: str) -> str:
    """A text without what makes one text look like two: NFC, case-folded, white space folded."""
    # Canonical caseless matching (Unicode, D145): marks are taken apart before letters are folded.
    folded = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def text_key(item: Item) -> tuple[str, ...]:
    """What two items have in common if they ask a model to judge the same text."""
    responses = [normal_text(item.choice)]
    if item.choice_2 is not None:
        responses = sorted([*responses, normal_text(item.choice_2)])
    return (normal_text(item.question), *responses)


def contradictions(items: Sequence[Item]) -> str:
    """One line on texts that stand there as true and as false; "" if there are none.

    Responses of a pair in the other order, with the other label, say the same.

    Args:
        items: Rows of a set, of all splits; those without a truth value are passed over.
    """
    first: dict[tuple[str, ...], Item] = {}
    both: dict[tuple[str, ...], tuple[Item, Item]] = {}
    for item in items:
        if item.label is None:
            continue
        before = first.setdefault(key := text_key(item), item)
        if _in_order(before) != _in_order(item):
            both.setdefault(key, (before, item))
    if not both:
        return ""
    one, other = next(iter(both.values()))
    return (
        f"{len(both)} text{'s' * (len(both) > 1)} with both labels, such as rows {shown(one.id)} "
        f"and {shown(other.id)}: one of the two is wrong, and no method can be right about both"
    )


def _in_order(item: Item) -> bool:
    """The label of a claim; of a pair, the label in the order of the normalised responses."""
    assert item.label is not None
    if item.choice_2 is None:
        return item.label
    return item.label == (normal_text(item.choice) <= normal_text(item.choice_2))


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What train rows share with test rows; a row is counted once, by the first that applies.

    Attributes:
        train: Number of train rows.
        texts: Rows whose text is a test row's (`text_key`).
        ids: Rows with the id of a test row that has another text.
        groups: Rows in a group of test, with a text and an id of their own.
    """

    train: int
    texts: Shared
    ids: Shared
    groups: Shared

    @property
    def lines(self) -> list[str]:
        """One line for each kind that there is, with its count and an example."""
        lines = []
        if self.texts:
            what = "a test row" if len(self.texts) == 1 else "test rows"
            lines.append(
                f"{_rows(self.texts, self.train)} {what} as well (Unicode form, case and white "
                f"space aside), such as {_example(self.texts)}"
            )
        if self.ids:
            what = "another text under an id" if len(self.ids) == 1 else "other texts under ids"
            lines.append(
                f"{_rows(self.ids, self.train)} {what} that test has, such as "
                f"{shown(self.ids[0][0].id)}"
            )
        if self.groups:
            number = len({_group(item) for item, _ in self.groups})
            lines.append(
                f"{_rows(self.groups, self.train)} in {number} group{'s' * (number > 1)} of test "
                f"rows, with another text, such as {_example(self.groups)}"
            )
        return lines


def _rows(shared: Shared, train: int) -> str:
    return f"{len(shared)} of {train} rows {'is' if len(shared) == 1 else 'are'}"


def _example(shared: Shared) -> str:
    one, other = shared[0]
    return f"{shown(one.id)} and test {shown(other.id)}: {shown(one.choice)}"


def overlap(train: Sequence[Item], test: Sequence[Item]) -> Overlap:
    """What train rows share with test rows: texts, ids, groups."""
    by_text, by_id, by_group = (
        {key(item): item for item in reversed(test)} for key in (text_key, _id, _group)
    )
    texts, ids, groups = [], [], []
    for item in train:
        if (same := by_text.get(text_key(item))) is not None:
            texts.append((item, same))
        elif (same := by_id.get(_id(item))) is not None:
            ids.append((item, same))
        elif (same := by_group.get(_group(item))) is not None:
            groups.append((item, same))
    return Overlap(train=len(train), texts=tuple(texts), ids=tuple(ids), groups=tuple(groups))


def _id(item: Item) -> str:
    return unicodedata.normalize("NFC", item.id)


def _group(item: Item) -> str:
    return unicodedata.normalize("NFC", item.group)


def leaks(train: Sequence[Item], test: Sequence[Item]) -> tuple[Shared, Shared]:
    """Train rows in the group of a test row, and those with the text of one: a row may be in both.

    No training may see either: a companion of a test row (the same question, the other order of a
    pair) says what it says.
    """
    by_group, by_text = ({key(i): i for i in reversed(test)} for key in (_group, text_key))
    return (
        tuple((item, by_group[_group(item)]) for item in train if _group(item) in by_group),
        tuple((item, by_text[text_key(item)]) for item in train if text_key(item) in by_text),
    )


def of_other_groups(items: Sequence[Item], taken: Sequence[Item]) -> tuple[Item, ...]:
    """The items whose group none of `taken` has, in order."""
    groups = {_group(item) for item in taken}
    return tuple(item for item in items if _group(item) not in groups)


def held_out_rows(train: Sequence[Item], test: Sequence[Item]) -> np.ndarray:
    """Which train rows may be fitted on: bool [n], False for a test row's text and its group.

    Groups go whole, since a row's companions (the same question, the other order of a pair) say
    what it says.
    """
    taken = {_group(item) for item, _ in overlap(train, test).texts}
    return np.array([_group(item) not in taken for item in train], dtype=bool)


def without_overlap(train: Sequence[Item], test: Sequence[Item]) -> tuple[Item, ...]:
    """The train rows of `held_out_rows`, in order. Test rows always stay: results compare on them.

    Rows of a group whose text test does not have stay as long as none of their group has.
    """
    kept = held_out_rows(train, test)
    return tuple(item for item, keep in zip(train, kept, strict=True) if keep)


def held_out(
    train: Sequence[Item],
    test: Sequence[Item],
    *,
    policy: Policy = "drop",
    say: Callable[[str], object] | None = None,
    what: str = "train",
) -> tuple[Item, ...]:
    """The rows to fit on, test rows being held out by the policy.

    Args:
        train: Rows to fit on, of whatever role: train rows, an easy set, a pool of examples.
        test: Rows to measure on. They never change.
        policy: Of rows whose text is a test row's: "drop" leaves them out with their groups;
            "refuse" raises; "keep" fits on them all the same. Shared ids and groups alone are told
            under every policy and change nothing.
        say: Is given one line for everything that is shared; None: nothing is told.
        what: What the rows are called in these lines.

    Raises:
        ValueError: If the policy is unknown, or is "refuse" and a text is shared, or is "drop" and
            no row would be left.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"overlap is {shown(policy)}; allowed: {', '.join(get_args(Policy))}")
    shared = overlap(train, test)
    rows = tuple(train)
    done = [""] * len(shared.lines)
    if shared.texts:
        rows, done[0] = _by_policy(rows, test, policy, f"{what}: {shared.lines[0]}")
    if say is not None:
        for line, end in zip(shared.lines, done, strict=True):
            say(f"{what}: {line}{end}")
    return rows


def _by_policy(
    train: tuple[Item, ...], test: Sequence[Item], policy: Policy, line: str
) -> tuple[tuple[Item, ...], str]:
    """The rows that the policy leaves, and what was done as the end of a line."""
    if policy == "keep":
        return train, "; kept (--overlap keep): what is measured is not held out"
    if policy == "refuse":
        raise ValueError(
            f"{line}; leave them out with --overlap drop, or measure on them all the same with "
            "--overlap keep"
        )
    left = without_overlap(train, test)
    if not left:
        raise ValueError(f"{line}; without them and their groups no row is left to fit on")
    return left, f"; {len(train) - len(left)} rows are left out with their groups"
