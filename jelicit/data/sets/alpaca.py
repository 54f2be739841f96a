"""AlpacaFarm: pairs of responses, and which one a human prefers.

The source has one annotator's preference for each pair, and it is the label. There are no votes of
several annotators (`meta.human_votes`) that one of them could be held against.
"""

from __future__ import annotations

from jelicit.data.hub import HubFiles
from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record
from jelicit.data.shown import shown


def convert(record: Record) -> list[Item]:
    """Two responses in both orders; label = a human prefers the first. Equal responses: none."""
    question = _question(record)
    first, second = record.text("output_1"), record.text("output_2")
    preferred = record.get("preference")
    if preferred not in (1, 2):
        raise record.error("preference", f"is {shown(preferred)}; expected 1 or 2")
    if first == second:
        return []
    group = f"{record.dataset}/{record.row:05d}"
    orders = {"a": (first, second, preferred == 1), "b": (second, first, preferred == 2)}
    return [
        record.item(
            part=part, question=question, choice=one, choice_2=two, label=better, group=group
        )
        for part, (one, two, better) in orders.items()
    ]


def _question(record: Record) -> str:
    """The instruction, and its input after a blank line where there is one."""
    context = record.values.get("input") or ""
    return record.text("instruction") + (f"\n\n{context}" if context else "")


SET = NamedSet(
    name="alpaca",
    title="Alpaca",
    source=HubFiles(
        hub_id="tatsu-lab/alpaca_farm",
        files={"all": "alpaca_human_preference.json"},
        convert=convert,
        question=_question,
    ),
)
