"""Comparisons of two numbers in words: the easy set of Canavan et al. 2026."""

from __future__ import annotations

import re
from dataclasses import replace

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record, question_group
from jelicit.data.sets.challenges import challenge_files


def larger_number(text: str) -> str | None:
    """The number that a claim "X is larger than Y." holds to be larger, in lower case."""
    claim = re.match(r"\s*(.+?) is larger than ", text, re.IGNORECASE)
    return claim[1].lower() if claim else None


def convert(record: Record) -> list[Item]:
    """A comparison of two numbers; its group is the unordered pair of numbers."""
    question, choice = record.text("question"), record.text("choice", "cot")
    pair = re.search(r"(\S+) larger than ([^\s.?]+)", choice.lower().replace(" is ", " "))
    numbers = sorted(pair.groups()) if pair else [question_group(question)]
    meta = {name: record.values[name] for name in ("n1", "n2") if record.has(name)}
    return [
        record.item(
            question=question,
            choice=choice,
            label=record.truth("label"),
            answer=larger_number(choice),
            group="/".join(numbers),
            meta=meta,
        )
    ]


def _with_answer(item: Item) -> Item:
    """Fills in an answer that the file does not have, from the claim's own text."""
    return item if item.answer is not None else replace(item, answer=larger_number(item.choice))


SET = NamedSet(
    name="larger_than",
    title="Larger than",
    source=challenge_files("larger_than", convert),
    easy=None,
    meaning=_with_answer,
)
