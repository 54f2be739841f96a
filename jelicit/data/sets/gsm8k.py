"""GSM8K: primary school mathematics, with worked solutions of a model."""

from __future__ import annotations

import re
from dataclasses import replace

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record, question_group
from jelicit.data.sets.challenges import challenge_files

_LEAD = re.compile(r"the answer is", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<sign>[-\u2212])?\s?[$€£]?\s?"
    r"(?P<value>\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?P<fraction>(?: \d+)?/\d+)?"
)


def final_answer(text: str) -> str | None:
    """The number that a worked solution ends in: the one after its last "The answer is".

    Of an equation it is the right-hand side. Currency signs, thousands separators and idle zeros
    are left out ("$1,080.00" -> "1080"). Whatever follows a line "Q: ..." is another question that
    a model made up, and does not count. None where no number follows.
    """
    own = re.split(r"\n\s*Q:", text)[0]
    leads = list(_LEAD.finditer(own))
    if not leads:
        return None
    stated = own[leads[-1].end() :].split("\n")[0].rsplit("=", 1)[-1]
    number = _NUMBER.search(stated)
    if number is None:
        return None
    value = re.sub("[, ]", "", number["value"])
    if "." in value:
        value = value.rstrip("0").rstrip(".") or "0"
    sign = "-" if number["sign"] and value != "0" else ""
    return sign + value + (number["fraction"] or "")


def convert(record: Record) -> list[Item]:
    """A question with one model solution; label = the solution is correct."""
    question, choice = record.text("question"), record.text("choice", "cot")
    return [
        record.item(
            question=question,
            choice=choice,
            label=record.truth("label"),
            answer=final_answer(choice),
            group=question_group(question),
        )
    ]


def with_answer(item: Item) -> Item:
    """Fills in an answer that the file does not have, from the claim's own text."""
    return item if item.answer is not None else replace(item, answer=final_answer(item.choice))


SET = NamedSet(
    name="gsm8k",
    title="GSM8K",
    source=challenge_files("gsm8k", convert),
    meaning=with_answer,
)
