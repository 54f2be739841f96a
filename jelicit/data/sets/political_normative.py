"""Normative political claims: impossible tasks, since there is no truth to find."""

from __future__ import annotations

from dataclasses import replace

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record, question_group
from jelicit.data.sets.challenges import challenge_files
from jelicit.data.shown import shown


def convert(record: Record) -> list[Item]:
    """A normative claim: it has no truth value, only a leaning."""
    leaning = record.text("political_leaning")
    if leaning not in ("liberal", "conservative"):
        raise record.error(
            "political_leaning", f"is {shown(leaning)}; expected liberal or conservative"
        )
    question = record.text("question")
    return [
        record.item(
            question=question,
            choice=record.text("choice", "cot"),
            label=None,
            alt_labels={"liberal": leaning == "liberal"},
            group=question_group(question),
            meta={"normative": True},
        )
    ]


def _without_truth(item: Item) -> Item:
    """A normative claim whose file says "is liberal" under `label`: it has no truth value."""
    if item.label is None:
        return item
    return replace(item, label=None, alt_labels={**item.alt_labels, "liberal": item.label})


SET = NamedSet(
    name="political_normative",
    title="Political normative",
    source=challenge_files("normative_political", convert),
    meaning=_without_truth,
    aliases=("normative_political",),
)
