"""What a data set declares about itself: one `NamedSet`, whoever wrote it.

The sets that ship with the project (`jelicit.data.sets`, a file each), those of installed packages
(entry points of the group "jelicit.sets") and a user's own (`module:SET`, `file.py:SET`) are all
declared, loaded and asked for in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item
from jelicit.data.shown import shown

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked of a source; one that holds its rows ready may ignore all of it.

    Attributes:
        name: Name of the set.
        seed: Seed of whatever the source draws.
        max_train: Most train rows that are needed, None for all. More may come: they are cut.
        max_test: Most test rows, likewise.
        hub_root: A mirror to read in place of the hub.
    """

    name: str
    seed: int = 0
    max_train: int | None = None
    max_test: int | None = None
    hub_root: Path | None = None


Source = Callable[[Request], Mapping[str, Sequence[Item]] | Sequence[Item]]
"""Items by split ("train", "test", optionally "valid"), or one list that is split as a file is."""


def as_it_is(item: Item) -> Item:
    """The item: what a set's name says of a folder's rows if it says nothing."""
    return item


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A data set that can be asked for by name.

    Attributes:
        name: In `--dataset`, result rows and reports.
        title: For readers: tables and figures.
        source: Where its rows are from: `hub.HubFiles`, or a function of one's own. None for a set
            that only comes as a folder: then its name says something about the folder's rows.
        formats: Target -> how it is asked for: a format of the set's own, or the name of one of
            `BASE_FORMATS`. "label" first. Empty: by what the items have (pair, claim, statement).
        easy: The easy labelled set of easy-to-hard transfer; None if this is an easy set itself.
        meaning: What the name says about a row of a local folder beyond the schema.
        aliases: Other names of a folder that holds it.

    Raises:
        ValueError: If name or title is empty, or a format asks for another target than its key.
    """

    name: str
    title: str
    source: Source | None = None
    formats: Mapping[str, PromptFormat | str] = field(default_factory=dict, hash=False)
    easy: str | None = "larger_than"
    meaning: Callable[[Item], Item] = as_it_is
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.title:
            raise ValueError(f"set {shown(self.name)}: a name and a title are needed")
        for target, format in self.formats.items():
            if isinstance(format, PromptFormat) and format.target != target:
                raise ValueError(
                    f"set {self.name!r}: formats[{target!r}] is {format.name!r}, which asks for "
                    f"{format.target!r}; give the format target={target!r}"
                )

    @property
    def own_formats(self) -> tuple[PromptFormat, ...]:
        """The formats that the set declares itself."""
        return tuple(f for f in self.formats.values() if isinstance(f, PromptFormat))

    @property
    def format_names(self) -> dict[str, str]:
        """Target -> name of the format that asks for it."""
        return {
            target: format if isinstance(format, str) else format.name
            for target, format in self.formats.items()
        }
