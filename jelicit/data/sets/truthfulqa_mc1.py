"""TruthfulQA: the answers of which exactly one is right (the mc1 targets)."""

from __future__ import annotations

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record
from jelicit.data.sets.truthfulqa import answer_files, answers


def convert(record: Record) -> list[Item]:
    """The answers of which exactly one is right."""
    return answers(record, "mc1_targets")


SET = NamedSet(name="truthfulqa_mc1", title="TruthfulQA (MC1)", source=answer_files(convert))
