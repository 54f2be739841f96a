"""Sets in a folder or a file of one's own, and lists that are split as a file is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jelicit.data.items import Item, load_items, split_by_group
from jelicit.data.named_sets import SPLITS, as_it_is
from jelicit.data.shown import shown
from jelicit.data.tables import SUFFIXES, is_table, read_table

FILE_TEST_SHARE = 0.25
"""Share of the groups that is test where one file holds no test rows of its own."""

SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What sources write in `split`, in any case, and which of our splits it is."""

FILE_SUFFIXES = (".jsonl", *SUFFIXES)
"""How the name of a set's file ends."""


def set_name(path: Path) -> str:
    """What a folder or file is called as a set: its bare name.

    Raises:
        ValueError: If it is the root of the file system, which has none.
    """
    # Not resolve(): a link is called what it is called here, while "." has its folder's name.
    bare = Path(os.path.normpath(path.absolute()))
    if not bare.name:
        raise ValueError(f"{path} is {bare}, which is no folder of a set; name a folder or file")
    return bare.stem if bare.suffix.lower() in FILE_SUFFIXES else bare.name


def read_local(
    path: Path, meaning: Callable[[Item], Item] = as_it_is
) -> tuple[dict[str, list[Item]], list[str]]:
    """The splits of a folder (a train and a test file, optionally a valid one) or of one file.

    Args:
        path: The folder or file; a file is a table (`jelicit.data.tables`) or JSONL.
        meaning: What the set's name says of a row, before rows are split: it may say their group.

    Returns:
        Items by split, and in one line each what was decided here and not by the file.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        ValueError: If a file cannot be read or has no items, a split has two files, or a row is of
            a split that is unknown or not its file's.
    """
    if not path.is_dir():
        items = [meaning(item) for item in _items(path)]
        return split_rows(items, where=str(path)), _drawn(items)
    files = {split: file for split in SPLITS if (file := _split_file(path, split)) is not None}
    missing = [f"{name}.jsonl" for name in ("train", "test") if name not in files]
    if missing:
        there = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{path}: {' and '.join(missing)} missing; the folder has: {there}. A set is a "
            "folder with train.jsonl and test.jsonl (valid.jsonl optional), one item per line, or "
            f"with tables in their place ({', '.join(SUFFIXES)})"
        )
    splits = {split: [meaning(item) for item in _items(file)] for split, file in files.items()}
    for split, items in splits.items():
        check_split(items, split, where=str(files[split]))
    return splits, []


def _split_file(folder: Path, split: str) -> Path | None:
    """The file of a split in a folder; None if there is none."""
    there = [file for suffix in FILE_SUFFIXES if (file := folder / (split + suffix)).is_file()]
    if len(there) > 1:
        raise ValueError(
            f"{folder}: {' and '.join(file.name for file in there)} may both be the {split} rows; "
            "keep one"
        )
    return there[0] if there else None


def _drawn(items: Sequence[Item]) -> list[str]:
    """That the test rows were drawn here, if no row says that it is one."""
    if any(SPELLINGS.get(item.split.strip().lower()) == "test" for item in items):
        return []
    groups = len({item.group for item in items})
    return [
        f"no row says that it is a test row: a quarter of the {groups} groups of {len(items)} rows "
        "is test, drawn once and for all; a field 'split', or a folder with a train and a test "
        "file, says otherwise"
    ]


def split_rows(items: Sequence[Item], *, where: str) -> dict[str, list[Item]]:
    """Rows by what they say of their split; where none says test, a quarter of the groups is test.

    Args:
        items: Rows whose `split` is "", or one of `SPELLINGS`.
        where: The file, for messages.

    Raises:
        ValueError: If a row says another split, or some rows are held out (validation rows, or
            test rows beside rows that say nothing) in a way that leaves the rest in doubt.
    """
    said = [_split_of(item, where) for item in items]
    if "test" in said:
        if "" in said:
            raise _split_error(
                items[said.index("")], where, "a file that has test rows says the split of all"
            )
        return {s: [i for i, own in zip(items, said, strict=True) if own == s] for s in SPLITS}
    if "valid" in said:
        raise _split_error(
            items[said.index("valid")],
            where,
            "no row is a test row, and validation rows are not used in their place: call the rows "
            "that are held out 'test'",
        )
    train, test = split_by_group(items, test_share=FILE_TEST_SHARE, seed=0)
    return {"train": train, "test": test}


def check_split(items: Sequence[Item], split: str, *, where: str) -> None:
    """Refuses rows that say they are of another split than the one they stand in.

    Raises:
        ValueError: Naming file, item and field.
    """
    for item in items:
        if _split_of(item, where) not in ("", split):
            raise _split_error(item, where, f"it stands among the {split} rows")


def _split_of(item: Item, where: str) -> str:
    """Which of our splits a row says it is of; "" if it says nothing."""
    written = item.split.strip().lower()
    if written and written not in SPELLINGS:
        raise _split_error(item, where, f"allowed: {', '.join(SPELLINGS)}, in any case, or nothing")
    return SPELLINGS.get(written, "")


def _split_error(item: Item, where: str, why: str) -> ValueError:
    return ValueError(
        f"{where}: item {shown(item.id)}: field 'split' is {shown(item.split)}; {why}"
    )


def placed(
    splits: Mapping[str, Sequence[Item]], *, name: str, origin: str
) -> dict[str, tuple[Item, ...]]:
    """The splits with provenance where the items give none; `split` is written our way."""
    return {
        split: tuple(
            replace(item, dataset=item.dataset or name, split=split, origin=item.origin or origin)
            for item in items
        )
        for split, items in splits.items()
    }


def _items(file: Path) -> list[Item]:
    items = read_table(file) if is_table(file) else load_items(file)
    if not items:
        raise ValueError(f"{file}: no items; one JSON object per line is expected")
    return items
