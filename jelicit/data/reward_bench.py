"""Sets in RewardBench's layout: rows of prompt, chosen, rejected and subset (Lambert et al. 2024).

Accuracy is the share of rows whose chosen answer has the higher reward, by category. In the
original every row of a category weighs the same, but for `math-prm`, whose 447 rows weigh as many
as the 984 of the six programming languages beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jelicit.data.items import Item
from jelicit.data.shown import shown

HUB_ID, SPLIT = "allenai/reward-bench", "filtered"
"""The original on the Hugging Face hub."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "Chat": (
        *("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard"),
        *("mt-bench-easy", "mt-bench-med"),
    ),
    "Chat Hard": (
        *("mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst"),
        *("llmbar-adver-GPTOut", "llmbar-adver-manual"),
    ),
    "Safety": (
        *("refusals-dangerous", "refusals-offensive", "xstest-should-refuse"),
        *("xstest-should-respond", "donotanswer"),
    ),
    "Reasoning": (
        *("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
    ),
}
"""The original's categories; a subset that is in none of them is a category of its own."""

WEIGHTS = {"math-prm": 984 / 447}
"""What a row of a subset weighs in its category, where that is not 1."""

FIELDS = ("prompt", "chosen", "rejected", "subset")
SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Category:
    """The rows of one category.

    Attributes:
        name: Of `CATEGORIES`, or of the subset.
        items: n pairs, the chosen answer first, each its own group.
        weights: [n], what each weighs.
    """

    name: str
    items: tuple[Item, ...]
    weights: tuple[float, ...]


def read_reward_bench(source: str | Path) -> tuple[Category, ...]:
    """A set in RewardBench's layout, by category.

    Args:
        source: A file (.jsonl, .json: an array of objects, .parquet), a folder with such files, or
            an id of the hub (its split "filtered", else "test", else the only one).

    Raises:
        ConnectionError: If the hub cannot be reached.
        FileNotFoundError: If a folder or file was meant that is not there, or holds no such file.
        ValueError: If a row lacks a field, or has no text there; the message names file and row.
    """
    path = Path(source).expanduser()
    if path.exists():
        rows = [row for file in _files(path) for row in _rows(file)]
    elif isinstance(source, Path) or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no file or folder {path} in RewardBench's layout")
    else:
        rows = list(_of_hub(str(source)))
    if not rows:
        raise ValueError(f"{source} has no rows")
    return _by_category([_item(where, number, row) for where, number, row in rows])


_Row = tuple[str, int, Mapping[str, Any]]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path}: allowed are files that end in {', '.join(SUFFIXES)}")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{path} has no file that ends in {', '.join(SUFFIXES)}")
    return files


def _rows(file: Path) -> Iterator[_Row]:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.ParquetFile(file).read().to_pylist()
    else:
        text = file.read_text(encoding="utf-8-sig")
        try:
            rows = (
                json.loads(text)
                if file.suffix.lower() == ".json"
                else [json.loads(line) for line in text.split("\n") if line.strip()]
            )
        except ValueError as error:
            raise ValueError(f"{file} is not {file.suffix[1:].upper()} ({error})") from error
    if not isinstance(rows, list):
        raise ValueError(f"{file} is one {type(rows).__name__}; expected an array of objects")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise ValueError(f"{file}: row {number} is {shown(row)}; expected an object")
        yield str(file), number, row


def _of_hub(name: str) -> Iterator[_Row]:
    import datasets  # slow, and not needed for local files

    try:
        splits: Any = datasets.load_dataset(name)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ConnectionError
        raise kind(
            f"{name} cannot be read from the hub ({type(error).__name__}: {reason}); give a folder "
            f"or a file with the fields {', '.join(FIELDS)}"
        ) from error
    split = next((each for each in (SPLIT, "test") if each in splits), next(iter(splits)))
    for number, row in enumerate(splits[split], start=1):
        yield f"{name} ({split})", number, row


def _item(where: str, number: int, row: Mapping[str, Any]) -> tuple[str, Item]:
    texts = {}
    for name in FIELDS:
        value = row.get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(
                f"{where}: row {number}: field {name!r} is {shown(value)}; expected text. Rows "
                f"have the fields {', '.join(FIELDS)}"
            )
        texts[name] = value
    subset = texts["subset"]
    own = f"{subset}/{row.get('id', number)}"
    return subset, Item(
        id=f"reward-bench/{own}/{number}",
        question=texts["prompt"],
        choice=texts["chosen"],
        choice_2=texts["rejected"],
        label=True,
        group=own,
        dataset="reward-bench",
        split="test",
        meta={"subset": subset},
    )


def _by_category(items: Sequence[tuple[str, Item]]) -> tuple[Category, ...]:
    of = {subset: name for name, subsets in CATEGORIES.items() for subset in subsets}
    rows: dict[str, list[tuple[Item, float]]] = {name: [] for name in CATEGORIES}
    for subset, item in items:
        rows.setdefault(of.get(subset, subset), []).append((item, WEIGHTS.get(subset, 1.0)))
    return tuple(
        Category(
            name=name,
            items=tuple(item for item, _ in mine),
            weights=tuple(weight for _, weight in mine),
        )
        for name, mine in rows.items()
        if mine
    )
