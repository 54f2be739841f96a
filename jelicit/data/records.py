"""Records of a source: fields are checked when they are read, and errors name the place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jelicit.data.items import Item
from jelicit.data.shown import listed, shown


@dataclass(frozen=True)
class Record:
    """One record of a source, with its place, so that errors can name it.

    Attributes:
        values: The fields.
        dataset: Name of the set.
        split: Our split.
        row: Number of the record in the source's split, from 0.
        hub_id: Id of the source on the hub.
    """

    values: Mapping[str, Any]
    dataset: str
    split: str
    row: int
    hub_id: str

    def error(self, name: str, problem: str) -> ValueError:
        """An error that names set, split, record and field."""
        return ValueError(
            f"{self.hub_id} ({self.dataset}), {self.split} record {self.row}: "
            f"field {name!r} {problem}"
        )

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def get(self, *names: str) -> Any:
        """The first of the named fields that is there."""
        for name in names:
            if self.has(name):
                return self.values[name]
        raise self.error(" or ".join(names), f"is missing; it has: {listed(self.values)}")

    def text(self, *names: str) -> str:
        """The first of the named fields that is there, which must be text."""
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.error(names[0], f"is {shown(value)}; expected text")
        return value

    def truth(self, name: str) -> bool:
        """A boolean field, also when it is written as 0 / 1 or as "true" / "false"."""
        value = self.get(name)
        known = {"true": True, "1": True, "false": False, "0": False}
        if str(value).strip().lower() not in known:
            raise self.error(name, f"is {shown(value)}; expected true or false")
        return known[str(value).strip().lower()]

    def score(self, name: str) -> float:
        """A number field."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"is {shown(value)}; expected a number")
        return float(value)

    def item(self, *, part: str = "", **fields: Any) -> Item:
        """An item of this record; `part` tells several items of one record apart."""
        return Item(
            id=f"{self.dataset}/{self.split}/{self.row:05d}{part}",
            dataset=self.dataset,
            split=self.split,
            origin=f"hub:{self.hub_id}",
            **fields,
        )


def question_group(question: str) -> str:
    """A group name that follows from the question alone, the same in every set and split."""
    return "q" + hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]
