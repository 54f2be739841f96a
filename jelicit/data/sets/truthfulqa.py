"""TruthfulQA: all right and wrong answers of a question (the mc2 targets)."""

from __future__ import annotations

from collections.abc import Callable

from jelicit.data.hub import HubFiles
from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record, question_group
from jelicit.data.shown import shown


def answers(record: Record, name: str) -> list[Item]:
    """One item per answer; all answers of a question are a group."""
    question, targets = record.text("question"), record.get(name)
    choices, marks = targets.get("choices"), targets.get("labels")
    if not choices or not marks or len(choices) != len(marks) or not set(marks) <= {0, 1}:
        raise record.error(
            name, f"is {shown(targets)}; expected choices and as many labels of 0 or 1"
        )
    return [
        record.item(
            part=f"-{number:02d}",
            question=question,
            choice=choice,
            label=bool(mark),
            group=question_group(question),
        )
        for number, (choice, mark) in enumerate(zip(choices, marks, strict=True))
    ]


def answer_files(convert: Callable[[Record], list[Item]]) -> HubFiles:
    """The one file that holds the targets of both sets."""
    return HubFiles(
        hub_id="truthfulqa/truthful_qa",
        files={"all": "multiple_choice/validation-*.parquet"},
        convert=convert,
        question=lambda record: record.text("question"),
    )


def convert(record: Record) -> list[Item]:
    """All right and wrong answers of a question (the mc2 targets)."""
    return answers(record, "mc2_targets")


SET = NamedSet(name="truthfulqa", title="TruthfulQA", source=answer_files(convert))
