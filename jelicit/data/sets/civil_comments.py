"""Civil Comments: an attribute holds where its score is >= 0.5. This threshold is ours."""

from __future__ import annotations

from jelicit.data.formats import PromptFormat
from jelicit.data.hub import HubFiles
from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet
from jelicit.data.records import Record

CIVIL_ATTRIBUTES = (
    "severe_toxicity",
    "obscene",
    "threat",
    "insult",
    "identity_attack",
    "sexual_explicit",
)


def convert(record: Record) -> list[Item]:
    """A comment; label = toxicity >= 0.5, the six subtypes likewise are alternative labels."""
    scores = {name: record.score(name) for name in ("toxicity", *CIVIL_ATTRIBUTES)}
    return [
        record.item(
            choice=record.text("text"),
            label=scores["toxicity"] >= 0.5,
            alt_labels={name: scores[name] >= 0.5 for name in CIVIL_ATTRIBUTES},
            meta={"scores": scores},
        )
    ]


_COMMENT = "Comment: {choice}\nThe claim that this comment is "

SET = NamedSet(
    name="civil_comments",
    title="Civil Comments",
    source=HubFiles(
        hub_id="google/civil_comments",
        files={
            "train": "data/train-*.parquet",
            "valid": "data/validation-*.parquet",
            "test": "data/test-*.parquet",
        },
        convert=convert,
        # 1.8 million rows: of (toxic, sexually explicit) only as many as anyone fits on.
        cell=lambda r: (r.score("toxicity") >= 0.5, r.score("sexual_explicit") >= 0.5),
    ),
    formats={
        "label": PromptFormat(name="civil_comments/toxic", text=_COMMENT + "toxic is"),
        "sexual_explicit": PromptFormat(
            name="civil_comments/sexual_explicit",
            text=_COMMENT + "sexually explicit is",
            target="sexual_explicit",
        ),
    },
)
