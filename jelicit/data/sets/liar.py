"""LIAR: statements of politicians, rated, with the speaker's party."""

from __future__ import annotations

from jelicit.data.formats import PromptFormat
from jelicit.data.hub import HubFiles
from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record
from jelicit.data.shown import shown

LIAR_LABELS = ("false", "half-true", "mostly-true", "true", "barely-true", "pants-fire")
"""The six labels in the order of the hub's class numbers."""

LIAR_TRUE = frozenset({"true", "mostly-true", "half-true"})
"""The labels that count as true. This binarisation is ours; the paper's is not published."""


def convert(record: Record) -> list[Item]:
    """A statement with a six-way rating and the speaker's party."""
    rating = record.get("label")
    if isinstance(rating, int) and not isinstance(rating, bool) and 0 <= rating < len(LIAR_LABELS):
        rating = LIAR_LABELS[rating]
    if rating not in LIAR_LABELS:
        raise record.error("label", f"is {shown(rating)}; expected one of {', '.join(LIAR_LABELS)}")
    party = record.text("party_affiliation")
    known_party = party in ("republican", "democrat")
    names = {"speaker": "speaker", "job_title": "job", "state_info": "state", "subject": "subjects"}
    extra = {ours: record.values.get(theirs) or "" for theirs, ours in names.items()}
    source_id = record.values.get("id")
    return [
        record.item(
            choice=record.text("statement"),
            label=rating in LIAR_TRUE,
            alt_labels={"republican": party == "republican"} if known_party else {},
            group=str(source_id).removesuffix(".json") if source_id else "",
            meta={"label6": rating, "party": party, **extra},
        )
    ]


_STATEMENT = "Statement: {choice}\nThe claim that "

SET = NamedSet(
    name="liar",
    title="LIAR",
    source=HubFiles(
        hub_id="ucsbnlp/liar",
        files={
            "train": "default/train/*.parquet",
            "valid": "default/validation/*.parquet",
            "test": "default/test/*.parquet",
        },
        # The main branch holds a loading script, which `datasets` no longer runs.
        revision="refs/convert/parquet",
        convert=convert,
    ),
    formats={
        "label": PromptFormat(
            name="liar/truth", text=_STATEMENT + "this statement is factually accurate is"
        ),
        "republican": PromptFormat(
            name="liar/republican",
            text=_STATEMENT + "a Republican said this is",
            target="republican",
        ),
    },
)
