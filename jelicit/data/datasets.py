"""One call for every set: pocket twins, local folders and files, sets on the hub."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jelicit.data import hub
from jelicit.data.items import Item, labels, load_items, split_by_group, with_target
from jelicit.data.subsets import balanced_rows

FILE_TEST_SHARE = 0.25
"""Share of the groups that is test where one file holds no test rows of its own."""

SET_FORMATS: dict[str, dict[str, str]] = {
    "liar": {"label": "liar/truth", "republican": "liar/republican"},
    "civil_comments": {
        "label": "civil_comments/toxic",
        "sexual_explicit": "civil_comments/sexual_explicit",
    },
    "ctrl_z": {"label": "ctrl_z/suspicious", "safe": "ctrl_z/safe"},
}
"""Target -> format of the sets that have formats of their own; all others go by their items."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named set, ready for prompts.

    Attributes:
        name: As it was asked for; of a folder or file its bare name.
        train: Items to fit on.
        test: Items to report on; groups shared with train are counted by `describe`.
        valid: A third split, where the source has one.
        formats: Target -> name of the prompt format that asks for it; the first is the default.
        easy: What to load as the easy labelled set of easy-to-hard transfer, or None if this set
            is the easy one.
    """

    name: str
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    valid: tuple[Item, ...] = ()
    formats: Mapping[str, str] = field(hash=False)
    easy: str | None

    @property
    def targets(self) -> tuple[str, ...]:
        """The labels that a prompt format asks for: "label" first, then alternative labels."""
        return tuple(self.formats)

    @property
    def splits(self) -> dict[str, tuple[Item, ...]]:
        """The splits that have items, by name."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: items for name, items in splits.items() if items}


def known_names() -> list[str]:
    """The names that `load_dataset` knows, besides paths."""
    return [*(f"pocket/{kind}" for kind in _pocket_kinds()), *hub.HUB]


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    seed: int = 0,
    max_train: int | None = None,
    max_test: int | None = None,
    balance: str | None = None,
    hub_root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a set by name or path.

    Args:
        name_or_path: "pocket/<kind>", the name of a hub set, a folder with train.jsonl and
            test.jsonl (valid.jsonl optional), or one such file. A bare name that the hub list
            knows means the hub; "./gsm8k" is the folder. One file is split by its items' `split`,
            or, where none says "test", by group: a quarter of the groups is test.
        seed: Seed of the draws below, and of the pocket world's.
        max_train: Most train rows. Whole groups are drawn at random, in the source's order.
        max_test: Most test rows, likewise.
        balance: An alternative label: every split is cut to a random 2x2-balanced subset over it
            and the label, so that the two are independent. "label": to balanced classes.
        hub_root: A local mirror to read in place of the hub: <hub_root>/<hub id>/<files>.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones and close matches), a
            record lacks a field or has a wrong value, or a maximum is too small.
        FileNotFoundError: If the path, or a file of the set, does not exist.
        ConnectionError: If the hub cannot be reached; the message says what to do instead.
    """
    kind = _kind_of(name_or_path)
    if hub_root is not None and kind != "hub":
        raise ValueError(f"hub_root is for sets of the hub; {str(name_or_path)!r} is a {kind} set")
    for name, value in (("max_train", max_train), ("max_test", max_test)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; allowed: at least 1, or None for all rows")
    if kind == "pocket":
        whole = balance is not None  # what is balanced away is taken from the full set
        dataset = _pocket(
            str(name_or_path), seed, None if whole else max_train, None if whole else max_test
        )
    elif kind == "hub":
        dataset = _hub(str(name_or_path), hub_root)
    else:
        dataset = _local(Path(name_or_path))
    return _cut(dataset, {"train": max_train, "test": max_test}, balance, seed)


# --- which origin --------------------------------------------------------------------------------


def _pocket_kinds() -> list[str]:
    from jelicit.pocket.world import KINDS  # builds the world's tables: only when needed

    return list(KINDS)


def _kind_of(name_or_path: str | os.PathLike[str]) -> str:
    """Which of "pocket", "hub" and "local" is meant."""
    name = os.fspath(name_or_path)
    is_text = isinstance(name_or_path, str)
    if is_text and name in hub.HUB:
        return "hub"
    if is_text and name.startswith("pocket/") and name.removeprefix("pocket/") in _pocket_kinds():
        return "pocket"
    if Path(name).exists():
        return "local"
    raise _unknown(name, is_path=not is_text)


def _unknown(name: str, *, is_path: bool) -> Exception:
    """The error for a name that is neither known nor there: as a path if it reads like one."""
    known = known_names()
    close = difflib.get_close_matches(name, known, n=3) or [k for k in known if _alike(name, k)]
    hint = f"did you mean {' or '.join(map(repr, close))}; " if close else ""
    choices = (
        f"{hint}known names: {', '.join(known)}; or give a folder with train.jsonl and test.jsonl, "
        "or a JSONL file"
    )
    slash = "/" in name and not name.startswith("pocket/")
    if is_path or slash or name.startswith(".") or name.endswith(".jsonl"):
        return FileNotFoundError(f"no such folder or file: {name}; {choices}")
    return ValueError(f"unknown dataset {name!r}; {choices}")


def _alike(name: str, known: str) -> bool:
    """Whether a known name contains the name, has its words, or is what the hub calls by it."""
    same_words = sorted(name.split("_")) == sorted(known.split("_"))
    return name in known or same_words or (known in hub.HUB and hub.HUB[known].hub_id == name)


# --- pocket --------------------------------------------------------------------------------------


def _pocket(name: str, seed: int, max_train: int | None, max_test: int | None) -> Dataset:
    from jelicit.pocket.world import KINDS, dataset_items

    kind = name.removeprefix("pocket/")
    train = dataset_items(kind, "train", n=max_train, seed=seed)
    test = dataset_items(kind, "test", n=max_test, seed=seed)
    by_target = dict(KINDS[kind].target_formats)
    formats = {"label" if t == "truth" else t: format for t, format in by_target.items()}
    return Dataset(
        name=name,
        train=tuple(train),
        test=tuple(test),
        formats=formats or _formats_of(kind, train),
        easy="pocket/arithmetic" if kind == "larger_than" else "pocket/larger_than",
    )


# --- hub -----------------------------------------------------------------------------------------


def _hub(name: str, hub_root: str | os.PathLike[str] | None) -> Dataset:
    splits = hub.read_hub_set(name, hub_root=hub_root)
    return Dataset(
        name=name,
        train=tuple(splits["train"]),
        test=tuple(splits["test"]),
        valid=tuple(splits.get("valid", ())),
        formats=_formats_of(name, splits["train"]),
        easy=None if name == "larger_than" else "larger_than",
    )


# --- local ---------------------------------------------------------------------------------------


def _without_truth(item: Item) -> Item:
    """A normative claim whose file says "is liberal" under `label`: it has no truth value."""
    if item.label is None:
        return item
    return replace(item, label=None, alt_labels={**item.alt_labels, "liberal": item.label})


def _with_answer(read: Callable[[str], str | None]) -> Callable[[Item], Item]:
    """Fills in an answer that the file does not have, from the claim's own text."""
    return lambda item: item if item.answer is not None else replace(item, answer=read(item.choice))


LOCAL_MEANING: dict[str, Callable[[Item], Item]] = {
    "political_normative": _without_truth,
    "normative_political": _without_truth,
    "gsm8k": _with_answer(hub.final_answer),
    "gsm8k_icm": _with_answer(hub.final_answer),
    "larger_than": _with_answer(hub.larger_number),
}
"""What the name of a local set says about its rows, beyond the schema."""


def _local(path: Path) -> Dataset:
    # Not resolve(): a link is called what it is called here, while "." has its folder's name.
    name = Path(os.path.normpath(path.absolute())).name.removesuffix(".jsonl")
    splits = _read_folder(path) if path.is_dir() else _read_file(path)
    meaning = LOCAL_MEANING.get(name, lambda item: item)
    splits = {
        split: tuple(meaning(_placed(item, name, split)) for item in items)
        for split, items in splits.items()
    }
    sibling = path.absolute().parent / "larger_than"
    easy = str(sibling) if path.is_dir() and sibling.is_dir() else "larger_than"
    return Dataset(
        name=name,
        train=splits["train"],
        test=splits["test"],
        valid=splits.get("valid", ()),
        formats=_formats_of(name, splits["train"]),
        easy=None if name == "larger_than" else easy,
    )


def _read_folder(folder: Path) -> dict[str, list[Item]]:
    missing = [f for f in ("train.jsonl", "test.jsonl") if not (folder / f).is_file()]
    if missing:
        there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"{folder}: {' and '.join(missing)} missing; the folder has: {there}. A set is a "
            "folder with train.jsonl and test.jsonl (valid.jsonl optional), one item per line"
        )
    files = {split: folder / f"{split}.jsonl" for split in ("train", "valid", "test")}
    return {split: _read_items(file) for split, file in files.items() if file.is_file()}


def _read_file(path: Path) -> dict[str, list[Item]]:
    items = _read_items(path)
    if any(item.split == "test" for item in items):
        names = ("train", "valid", "test")
        unknown = next((item for item in items if item.split not in names), None)
        if unknown is not None:
            raise ValueError(
                f"{path}: item {unknown.id!r}: field 'split' is {unknown.split!r}; allowed in a "
                f"file that has test rows: {', '.join(names)}"
            )
        return {name: [item for item in items if item.split == name] for name in names}
    train, test = split_by_group(items, test_share=FILE_TEST_SHARE, seed=0)
    return {"train": train, "test": test}


def _read_items(file: Path) -> list[Item]:
    items = load_items(file)
    if not items:
        raise ValueError(f"{file}: no items; one JSON object per line is expected")
    return items


def _placed(item: Item, name: str, split: str) -> Item:
    """The item with provenance where the file gives none."""
    return replace(item, dataset=item.dataset or name, split=split, origin=item.origin or "folder")


# --- formats and subsets -------------------------------------------------------------------------


def _formats_of(name: str, items: Sequence[Item]) -> dict[str, str]:
    """The set's own formats, else what fits the items: responses in pairs, or claims."""
    if name in SET_FORMATS:
        return dict(SET_FORMATS[name])
    if any(item.choice_2 is not None for item in items):
        return {"label": "pair"}
    if all(item.question for item in items):
        return {"label": "claim"}
    return {"label": "statement"}


def _cut(
    dataset: Dataset, most: Mapping[str, int | None], balance: str | None, seed: int
) -> Dataset:
    """The dataset with every split balanced and cut to its maximum."""
    cut = {}
    for number, (split, items) in enumerate(dataset.splits.items()):
        draw = [seed, number]  # splits are drawn apart
        if balance is None:
            cut[split] = _whole_groups(items, most.get(split), draw)
        else:
            cut[split] = _balanced(dataset.name, split, items, balance, most.get(split), draw)
    return replace(dataset, **cut)


def _whole_groups(items: Sequence[Item], most: int | None, seed: list[int]) -> tuple[Item, ...]:
    """At most `most` rows: groups in random order, each taken if it still fits whole."""
    if most is None or len(items) <= most:
        return tuple(items)
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.group] = sizes.get(item.group, 0) + 1
    if min(sizes.values()) > most:
        raise ValueError(
            f"{items[0].dataset}: at most {most} rows asked for, but the smallest group has "
            f"{min(sizes.values())}; rows of a group stay together, so ask for more"
        )
    names, left, taken = list(sizes), most, set()
    for place in np.random.default_rng(seed).permutation(len(names)):
        if sizes[names[place]] <= left:
            taken.add(names[place])
            left -= sizes[names[place]]
    return tuple(item for item in items if item.group in taken)


def _balanced(
    name: str,
    split: str,
    items: Sequence[Item],
    balance: str,
    most: int | None,
    seed: list[int],
) -> tuple[Item, ...]:
    """A random subset balanced over the label and, unless balance is "label", over that one."""
    able = [item for item in with_target(items, balance) if item.label is not None]
    alt = None if balance == "label" else labels(able, balance)
    cells = 2 if alt is None else 4
    try:
        rows = balanced_rows(labels(able), alt, seed=seed)
        if most is not None and most < len(rows):
            rows = balanced_rows(labels(able), alt, size=most // cells * cells, seed=seed)
    except ValueError as error:
        raise ValueError(f"{name}, {split}: cannot balance over {balance!r}: {error}") from error
    return tuple(able[row] for row in rows)
