"""Items: the texts that are judged, with labels, groups and provenance; and their JSONL form."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.data.filekinds import CURE, kind_of_file, kind_of_line
from jelicit.data.shown import listed, shown
from jelicit.disk import write_text

REQUIRED = ("id", "choice", "label")
"""Keys that every record of a JSONL file must have; all others have a default."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One text to judge.

    Attributes:
        id: Unique name, for example "gsm8k/test/00012".
        choice: The claim, solution, statement or first response: the text that is judged.
        question: What the claim answers; "" where the source has none.
        choice_2: The second response of a pair set, else None.
        label: The truth value (or the set's main attribute); None = no truth value.
        answer: The claim's final answer, read from the claim's own text and never from the
            label: consistency rules compare it. None where there is none.
        group: Items that share a question or a pair share a group; "" becomes the id.
        alt_labels: Further labels of the same text by name ("sycophancy", "republican", ...).
        dataset: Name of the set.
        split: "train", "valid" or "test".
        origin: "pocket", "folder" or "hub:<id>".
        meta: Whatever else the source says; JSON values only.

    Raises:
        ValueError: If a field has the wrong type, or a text holds half of a surrogate pair, which
            no file or tokenizer takes; the message names the item and the field.
    """

    id: str
    choice: str
    question: str = ""
    choice_2: str | None = None
    label: bool | None = None
    answer: str | None = None
    group: str = ""
    alt_labels: Mapping[str, bool] = field(default_factory=dict, hash=False)
    dataset: str = ""
    split: str = ""
    origin: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_types(self)
        # Own copies: two items made from one record must not share a mutable mapping.
        object.__setattr__(self, "alt_labels", dict(self.alt_labels))
        object.__setattr__(self, "meta", dict(self.meta))
        if not self.group:
            object.__setattr__(self, "group", self.id)


FIELDS = tuple(f.name for f in fields(Item))
_TEXT = ("id", "choice", "question", "group", "dataset", "split", "origin")
_OPTIONAL_TEXT = ("choice_2", "answer")


def _check_types(item: Item) -> None:
    """Raises ValueError naming the item and the field that has the wrong type."""

    def fail(name: str, value: object, allowed: str) -> ValueError:
        return ValueError(
            f"item {shown(item.id)}: field {name!r} is {shown(value)}; allowed: {allowed}"
        )

    for name in _TEXT:
        if not isinstance(value := getattr(item, name), str):
            raise fail(name, value, "a string")
    if not item.id:
        raise fail("id", item.id, "a non-empty string")
    for name in _OPTIONAL_TEXT:
        if not isinstance(value := getattr(item, name), str | None):
            raise fail(name, value, "a string or null")
    if not isinstance(item.label, bool | None):
        raise fail("label", item.label, "true, false or null (no truth value)")
    if not isinstance(item.alt_labels, Mapping):
        raise fail(
            "alt_labels", item.alt_labels, 'an object of true/false by name, e.g. {"a": true}'
        )
    for name, value in item.alt_labels.items():
        if not isinstance(name, str) or not isinstance(value, bool):
            raise fail(
                f"alt_labels.{listed([str(name)])}", value, "true or false, under a string name"
            )
    if not isinstance(item.meta, Mapping):
        raise fail("meta", item.meta, "an object")
    _check_texts(item)


def _check_texts(item: Item) -> None:
    """Raises ValueError naming the item and the field that holds half of a surrogate pair."""
    texts = [(name, getattr(item, name) or "") for name in (*_TEXT, *_OPTIONAL_TEXT)]
    texts += [("alt_labels", name) for name in item.alt_labels]
    texts += [("meta", text) for text in _texts_in(item.meta)]
    for name, text in texts:
        if (place := _lone_surrogate(text)) is not None:
            raise ValueError(
                f"item {shown(item.id)}: field {name!r} holds U+{ord(text[place]):04X} at "
                f"character {place}, half of a surrogate pair (an emoji cut in two, for example); "
                "allowed: text that can be written as UTF-8"
            )


def _lone_surrogate(text: str) -> int | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _texts_in(value: object) -> Iterator[str]:
    """All texts of a JSON value, keys among them. A stack: values nest as deep as they like."""
    left = [value]
    while left:
        match left.pop():
            case str() as text:
                yield text
            case Mapping() as mapping:
                left += [*mapping.keys(), *mapping.values()]
            case list() | tuple() as values:
                left += values


# --- labels --------------------------------------------------------------------------------------


def label_of(item: Item, target: str = "label") -> bool | None:
    """The item's label for `target`: "label", or the name of one of its alternative labels.

    Raises:
        ValueError: If the item has no label of that name; the message lists those it has.
    """
    if target == "label":
        return item.label
    if target not in item.alt_labels:
        has = listed(["label", *sorted(item.alt_labels)])
        raise ValueError(f"item {shown(item.id)} has no label {shown(target)}; it has: {has}")
    return item.alt_labels[target]


def labels(items: Sequence[Item], target: str = "label") -> np.ndarray:
    """Labels as float32 [n]: 1 = True, 0 = False, nan = no truth value.

    Raises:
        ValueError: If an item has no label of that name (`with_target` leaves those out).
    """
    values = [label_of(item, target) for item in items]
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float32)


def known_labels(values: Any, name: str = "labels") -> np.ndarray:
    """Labels of one's own as float64 [n]: 1 = True, 0 = False, nan = no truth value.

    Args:
        values: n labels as `known_label` takes them, in a list, an array or a column of a table.
        name: What messages call them.

    Raises:
        ValueError: If they are no row of labels, or one of them is none.
    """
    if np.ndim(values) != 1:
        raise ValueError(f"{name} is {shown(values)}; give a label for every row")
    made = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        try:
            label = known_label(value)
        except ValueError as error:
            raise ValueError(f"{name}[{row}]: {error}") from error
        if label is not None:
            made[row] = label
    return made


def known_label(value: object) -> bool | None:
    """A label as True, False or None, however it is written.

    Args:
        value: A bool or number (NumPy's too) equal to 1 or 0; None, nan or pandas' NA for no truth
            value.

    Raises:
        ValueError: If it is anything else, such as the text "false".
    """
    if value is None:
        return None
    try:
        if bool(value != value):
            return None
        if bool(value == 1) or bool(value == 0):
            return bool(value)
    except TypeError:  # pandas' NA says neither yes nor no to any comparison
        if type(value).__name__ == "NAType":
            return None
    raise ValueError(
        f"a label is {shown(value)}; allowed: True, False, 1 and 0, and None, nan or pandas' NA "
        "for no truth value"
    )


def with_target(items: Iterable[Item], target: str) -> list[Item]:
    """The items that have a truth value for `target`, in order (LIAR: those of the two parties)."""
    if target == "label":
        return [item for item in items if item.label is not None]
    return [item for item in items if target in item.alt_labels]


# --- JSONL ---------------------------------------------------------------------------------------


def to_record(item: Item) -> dict[str, Any]:
    """The item as one plain JSON object, all fields present."""
    record = {name: getattr(item, name) for name in FIELDS}
    record["alt_labels"], record["meta"] = dict(item.alt_labels), dict(item.meta)
    return record


def from_record(record: object) -> Item:
    """One JSON object as an item.

    Required keys: id, choice, label (may be null). Other keys of `Item` are optional.

    Raises:
        ValueError: If a required key is missing, a key is unknown or a value has the wrong type.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"expected one JSON object per line, got {type(record).__name__}")
    for name in REQUIRED:
        if name not in record:
            raise ValueError(f"field {name!r} is missing; required: {', '.join(REQUIRED)}")
    for name in record:
        if name not in FIELDS:
            raise ValueError(
                f"unknown field {shown(name)}; allowed: {', '.join(FIELDS)} (put anything else "
                "in meta)"
            )
    return Item(**record)


def to_jsonl(items: Iterable[Item]) -> str:
    """One JSON object per line, readable UTF-8 text, ending in a newline.

    Raises:
        ValueError: If an item's meta cannot be written as JSON; the message names the item.
    """
    return "".join(_json_line(item, sort_keys=False, ascii_only=False) for item in items)


def _json_line(item: Item, *, sort_keys: bool, ascii_only: bool) -> str:
    try:
        text = json.dumps(
            to_record(item), sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"item {shown(item.id)}: field 'meta' is not JSON ({error}); "
            "allowed: strings, finite numbers, true, false, null, lists and objects of these"
        ) from error
    return text + "\n"


def from_jsonl(lines: Iterable[str], *, source: str) -> list[Item]:
    """Parses lines of JSON; blank lines are skipped.

    Args:
        lines: The lines, as an open text file yields them.
        source: Name for error messages, usually the path.

    Raises:
        ValueError: On the first bad line, as "<source>:<line>: <field and what is allowed>".
    """
    items: list[Item] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        item = _from_line(line, where, is_first=not items)
        # Two forms of one id look alike wherever they are printed.
        same = unicodedata.normalize("NFC", item.id)
        if same in first_line:
            raise ValueError(
                f"{where}: field 'id' repeats {shown(item.id)} of line {first_line[same]}; "
                "ids must be unique in a file (Unicode form aside)"
            )
        first_line[same] = number
        items.append(item)
    return items


def _from_line(line: str, where: str, *, is_first: bool) -> Item:
    try:
        return from_record(json.loads(line, object_pairs_hook=_once))
    except json.JSONDecodeError as error:
        kind = kind_of_line(line) if is_first else ""
        told = f"reads as {kind}; {CURE}" if kind else f"not a JSON object ({error})"
        raise ValueError(f"{where}: {told}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: nested too deep to be an item") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a repeated key, Python would keep the last value without a word."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return made


def load_items(path: str | os.PathLike[str]) -> list[Item]:
    """Reads items from a JSONL file (one object per line, keys as the fields of `Item`).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line cannot be read; the message names file, line and field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such items file: {path} (expected JSONL, one item per line)")
    if kind := kind_of_file(path):
        raise ValueError(f"{path} is {kind}; {CURE}")
    # Iterated, not str.splitlines: that also cuts at U+2028 and its kin, which JSON leaves bare.
    # utf-8-sig: some editors put a byte order mark in front, which is no part of the text.
    with path.open(encoding="utf-8-sig") as lines:
        try:
            return from_jsonl(lines, source=str(path))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error


def save_items(path: str | os.PathLike[str], items: Iterable[Item]) -> None:
    """Writes items as JSONL, whole or not at all: `load_items` gives back equal items.

    Raises:
        ValueError: If an item's meta cannot be written as JSON; the message names the item.
    """
    write_text(path, to_jsonl(items))


def digest(items: Iterable[Item]) -> str:
    """SHA-256 (hex) of the items' canonical JSON: keys sorted, every field, order matters."""
    sha = hashlib.sha256()
    for item in items:
        sha.update(_json_line(item, sort_keys=True, ascii_only=True).encode())
    return sha.hexdigest()


# --- splitting -----------------------------------------------------------------------------------


def split_by_group(
    items: Sequence[Item], *, test_share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """Splits into (train, test) so that no group is on both sides.

    round(test_share * groups) groups, at least one and not all, are drawn for test; both sides
    keep the order of `items`.

    Args:
        items: Items of at least two groups.
        test_share: Share of the groups that goes to test, between 0 and 1.
        seed: Same items and seed, same split.

    Raises:
        ValueError: If test_share is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}; allowed: between 0 and 1, both excluded")
    names = [unicodedata.normalize("NFC", item.group) for item in items]
    groups = list(dict.fromkeys(names))
    if len(groups) < 2:
        raise ValueError(f"{len(items)} items in {len(groups)} group(s): a split needs two groups")
    n_test = min(max(round(test_share * len(groups)), 1), len(groups) - 1)
    drawn = np.random.default_rng(seed).permutation(len(groups))[:n_test]
    test_groups = {groups[i] for i in drawn}
    sides: tuple[list[Item], list[Item]] = [], []
    for item, name in zip(items, names, strict=True):
        sides[name in test_groups].append(item)
    return sides
