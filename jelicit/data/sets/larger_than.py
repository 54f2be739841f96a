"""Comparisons of two numbers in words: the easy set of Canavan et al. 2026.

Its statements are those of Marks and Tegmark 2023. A copy that has their table (a clone of
geometry-of-truth) and none of the hub's files of the set gives the same items from the table.
"""

from __future__ import annotations

import re
from dataclasses import replace

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record, question_group
from jelicit.data.sets.challenges import challenge_files
from jelicit.data.sets.geometry_of_truth import PublishedTable, comparison


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


def _meaning(item: Item) -> Item:
    """A bare statement as question and claim; an answer that the file lacks, from its own text."""
    item = comparison(item)
    return item if item.answer is not None else replace(item, answer=larger_number(item.choice))


SET = NamedSet(
    name="larger_than",
    title="Larger than",
    source=replace(challenge_files("larger_than", convert), instead=PublishedTable(comparison)),
    easy=None,
    meaning=_meaning,
)
