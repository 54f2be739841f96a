"""Sets on the Hugging Face hub: their files, read from the hub or from a local mirror of it.

A set's converter turns one record of the source into items and nothing else. Choices that the
sources leave open, and that are ours for all of them:
- Where the source has one split, a quarter of the questions, drawn once and for all, is test.
- A text that a split has already, or that a later split has (test, then valid, then train), is
  dropped, ignoring case and white space.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from jelicit.data.items import Item, split_by_group
from jelicit.data.named_sets import Request
from jelicit.data.records import Record

TEST_SHARE = 0.25
"""Share of the questions that is test where the source has one split."""

CELL_LIMIT = 5_000
"""Most rows per split and cell of a source that names cells."""


class Substitute(Protocol):
    """What a mirror may hold in place of the hub's files."""

    def find(self, request: Request) -> Path | None:
        """Its file in the mirror; None where there is none."""
        ...

    def __call__(self, request: Request) -> list[Item]:
        """Its rows, which are split as a file is."""
        ...


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Where a set lies on the hub and how it is read: the source of a `NamedSet`.

    Attributes:
        hub_id: "<owner>/<name>".
        files: Path (with wildcards) of each of our splits; "all" for a source with one split. They
            are read with the `datasets` library's json and parquet readers.
        convert: Record -> items.
        revision: Branch of the hub's repository; "" for the main one.
        question: Of a source with one split: what must not be on both sides of ours.
        cell: Of a huge source: at most `CELL_LIMIT` records per value are kept.
        instead: What is read of a mirror that has none of the files.
    """

    hub_id: str
    files: Mapping[str, str]
    convert: Callable[[Record], list[Item]]
    revision: str = ""
    question: Callable[[Record], str] | None = None
    cell: Callable[[Record], Hashable] | None = None
    instead: Substitute | None = None

    def __call__(self, request: Request) -> dict[str, list[Item]] | list[Item]:
        """All splits as items: "train", "test" and, where the source has it, "valid".

        What a mirror has instead is not split yet.

        Args:
            request: Its name is the set's; files of a mirror lie in <hub_root>/<hub id>/ as they
                lie on the hub. Nothing else is looked at: the rows are drawn once and for all.

        Raises:
            ConnectionError: If the hub cannot be reached; the message says what to do instead.
            FileNotFoundError: If the hub or the mirror does not have the files.
            ValueError: If a record lacks a field or has a wrong value; the message names both.
        """
        if self.instead is not None and self._substitute(request):
            return self.instead(request)
        records: dict[str, list[Record]] = {}
        for split, pattern in self.files.items():
            rows = enumerate(_rows(self, pattern, request))
            stream = (Record(values, request.name, split, row, self.hub_id) for row, values in rows)
            records[split] = list(stream) if self.cell is None else _per_cell(stream, self.cell)
        if "all" in records:
            records = _split_by_question(records["all"], self)
        return _without_repeats(
            {
                split: [item for record in of_split for item in self.convert(record)]
                for split, of_split in records.items()
            }
        )

    def notes(self, request: Request) -> tuple[str, ...]:
        """That a mirror's other file is read, where one is."""
        path = self._substitute(request)
        if path is None:
            return ()
        return (
            f"the folder of copies has no files of {self.hub_id}: its {path.name} is read in their "
            "place, and a quarter of the groups is test, drawn once and for all",
        )

    def _substitute(self, request: Request) -> Path | None:
        """The file that is read instead; None where the hub's files are."""
        if self.instead is None or request.hub_root is None:
            return None
        mirror = request.hub_root / self.hub_id
        if any(any(mirror.glob(pattern)) for pattern in self.files.values()):
            return None
        return self.instead.find(request)


def _rows(files: HubFiles, pattern: str, request: Request) -> Iterator[Mapping[str, Any]]:
    """The records of one file pattern, from the hub (cached) or a mirror (streamed)."""
    import datasets  # slow, and not needed for pocket and local sets

    if request.hub_root is None:
        revision = f"@{files.revision}" if files.revision else ""
        base = f"hf://datasets/{files.hub_id}{revision}"
    else:
        mirror = request.hub_root.absolute() / files.hub_id
        base = str(mirror)
        if not any(mirror.glob(pattern)):
            raise FileNotFoundError(
                f"{request.name}: the mirror has no file {base}/{pattern}; lay the files of "
                f"{files.hub_id} out as they are on the hub, or leave hub_root out"
            )
    reader = "parquet" if pattern.endswith(".parquet") else "json"
    try:
        # A mirror is streamed: nothing is cached, so files that change are never read stale.
        rows = datasets.load_dataset(
            reader,
            data_files={"all": f"{base}/{pattern}"},
            split="all",
            streaming=request.hub_root is not None,
        )
        for row in rows:
            yield dict(row)
    except Exception as error:
        raise _reading_error(request.name, files, f"{base}/{pattern}", error) from error


def _reading_error(name: str, files: HubFiles, source: str, error: Exception) -> Exception:
    """One clear error for whatever the hub's client raised."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    reason = f"{type(error).__name__}: {first_line[:300]}"
    instead = (
        f"Instead, give a folder of your own, load_dataset('./{name}'), with train.jsonl and "
        "test.jsonl: one JSON object per line with id, choice, label and, where the set has them, "
        "question, choice_2, group, alt_labels, answer, meta. Or copy the files of "
        f"{files.hub_id} to HUB_ROOT/{files.hub_id}/, laid out as on the hub, and pass "
        "hub_root=HUB_ROOT."
    )
    if _is_network_error(error):
        return ConnectionError(f"{name}: the hub cannot be reached ({source}: {reason}). {instead}")
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    return kind(f"{name}: cannot read {source} ({reason}). {instead}")


def _is_network_error(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, says that there is no connection."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        # The hub's client raises its HTTP library's own errors, and that library has changed.
        if any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


def _per_cell(records: Iterable[Record], cell: Callable[[Record], Hashable]) -> list[Record]:
    """At most `CELL_LIMIT` records per cell, drawn uniformly (reservoir sampling), in order."""
    rng = random.Random(0)
    kept: dict[Hashable, list[Record]] = {}
    seen: dict[Hashable, int] = {}
    for record in records:
        key = cell(record)
        rows = kept.setdefault(key, [])
        seen[key] = seen.get(key, 0) + 1
        if len(rows) < CELL_LIMIT:
            rows.append(record)
        elif (place := rng.randrange(seen[key])) < CELL_LIMIT:
            rows[place] = record
    return sorted((r for rows in kept.values() for r in rows), key=lambda record: record.row)


def _split_by_question(records: list[Record], files: HubFiles) -> dict[str, list[Record]]:
    """Train and test records that share no question. The split belongs to the set: one seed."""
    if files.question is None:
        raise ValueError(f"{files.hub_id}: HubFiles(question=) must say what a question is")
    stand_ins = [
        Item(id=str(place), choice="-", group=files.question(record))
        for place, record in enumerate(records)
    ]
    train, test = split_by_group(stand_ins, test_share=TEST_SHARE, seed=0)
    return {
        split: [replace(records[int(stand_in.id)], split=split) for stand_in in side]
        for split, side in (("train", train), ("test", test))
    }


def _without_repeats(items: Mapping[str, list[Item]]) -> dict[str, list[Item]]:
    """Drops texts that came before, test first, so that no text is in two splits."""
    seen: set[tuple[str, ...]] = set()
    kept: dict[str, list[Item]] = {split: [] for split in items}
    for split in sorted(items, key=["test", "valid", "train"].index):
        for item in items[split]:
            texts = (item.question, item.choice, item.choice_2 or "")
            folded = tuple(" ".join(text.lower().split()) for text in texts)
            if folded not in seen:
                seen.add(folded)
                kept[split].append(item)
    return kept
