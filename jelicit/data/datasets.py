"""One call for every set: named ones, folders and files, and `module:SET` of the user's own."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jelicit.data import registry
from jelicit.data.hub import HubFiles
from jelicit.data.items import Item, labels, with_target
from jelicit.data.local import (
    FILE_SUFFIXES,
    check_split,
    placed,
    read_local,
    set_name,
    split_rows,
)
from jelicit.data.named_sets import SPLITS, NamedSet, Request
from jelicit.data.overlap import contradictions
from jelicit.data.shown import shown
from jelicit.data.subsets import balanced_rows
from jelicit.named import is_reference
from jelicit.typed import is_whole

DEFAULT_EASY = "larger_than"
"""The easy set of a folder whose name is no set's."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named set, ready for prompts.

    Attributes:
        name: The set's own name; of a folder or file its bare name.
        train: Items to fit on.
        test: Items to report on; what they share with train is counted by `describe`.
        valid: A third split, where the source has one.
        formats: Target -> name of the prompt format that asks for it; the first is the default.
        easy: What to load as the easy labelled set of easy-to-hard transfer, or None if this set
            is the easy one.
        notes: What was decided in reading it that its files do not say, a line each.
    """

    name: str
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    valid: tuple[Item, ...] = ()
    formats: Mapping[str, str] = field(hash=False)
    easy: str | None
    notes: tuple[str, ...] = ()

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
    """The names that `load_dataset` knows, besides paths: first the sets that need no download."""
    loadable = [named for named in registry.sets().values() if named.source is not None]
    loadable.sort(key=_reads_mirror)
    return [named.name for named in loadable]


def _reads_mirror(named: NamedSet) -> bool:
    """Whether the set's files lie elsewhere, so that a copy of them may be named."""
    return isinstance(named.source, HubFiles) or getattr(named.source, "reads_mirror", False)


def reads_mirror(name: str | os.PathLike[str]) -> bool:
    """Whether this is the name of a set whose files lie elsewhere, so that a copy may be named.

    Args:
        name: As `load_dataset` takes it; a name that it does not know reads none.
    """
    try:
        origin = _origin(name)
    except (ValueError, OSError):  # it is told where the set is loaded
        return False
    return isinstance(origin, NamedSet) and _reads_mirror(origin)


def title_of(name: str) -> str:
    """What a set is called in tables and figures.

    Args:
        name: `Dataset.name`; a set that is not known by name is called by its words:
            "my/colour_words" -> "Colour words (my)".
    """
    if name in (known := registry.sets()):
        return known[name].title
    world, _, short = name.rpartition("/")
    words = short[:1].upper() + short[1:].replace("_", " ")
    return f"{words} ({world})" if world else words


def load_dataset(
    name_or_path: str | os.PathLike[str] | NamedSet,
    *,
    seed: int = 0,
    max_train: int | None = None,
    max_test: int | None = None,
    balance: str | None = None,
    hub_root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a set by name, path or reference.

    Args:
        name_or_path: A known name (`known_names`), a folder with train.jsonl and test.jsonl
            (valid.jsonl optional), one such file, or a `NamedSet` of one's own: itself, or as
            `package.module:SET` or `file.py:SET`. A known name comes before a path: "./gsm8k" is
            the folder. Every file may be a table (CSV, TSV, JSON array, Parquet) in place of
            JSONL: see `jelicit.data.tables`. One file is split by its items' `split`, or, where
            none says "test", by group: a quarter of the groups is test (`Dataset.notes` says so).
        seed: Seed of the draws below, and of sets that are made on request.
        max_train: Most train rows. Whole groups are drawn at random, in the source's order.
        max_test: Most test rows, likewise.
        balance: An alternative label: every split is cut to a random 2x2-balanced subset over it
            and the label, so that the two are independent. "label": to balanced classes.
        hub_root: A local mirror to read in place of the hub: <hub_root>/<hub id>/<files>; for the
            sets of Marks and Tegmark 2023 also a clone of their repository, or its tables.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones and close matches), a
            record lacks a field or has a wrong value, or a maximum is too small.
        FileNotFoundError: If the path, or a file of the set, does not exist.
        ConnectionError: If the hub cannot be reached; the message says what to do instead.
    """
    origin = _origin(name_or_path)
    elsewhere = isinstance(origin, NamedSet) and _reads_mirror(origin)
    if hub_root is not None and not elsewhere:
        raise ValueError(f"hub_root is for sets of the hub; {str(name_or_path)!r} is none of them")
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"seed is {seed!r}; allowed: whole numbers from 0")
    if balance is not None and not isinstance(balance, str):
        raise ValueError(f"balance is {balance!r}; give the name of a label, or None")
    for name, value in (("max_train", max_train), ("max_test", max_test)):
        if value is not None and not (is_whole(value) and value >= 1):
            raise ValueError(f"{name} is {value}; allowed: at least 1, or None for all rows")
    if isinstance(origin, Path):
        dataset = _local(origin)
    else:
        whole = balance is not None  # what is balanced away is taken from the full set
        request = Request(
            name=origin.name,
            seed=seed,
            max_train=None if whole else max_train,
            max_test=None if whole else max_test,
            hub_root=None if hub_root is None else Path(hub_root),
        )
        dataset = _named(origin, request)
    return _cut(dataset, {"train": max_train, "test": max_test}, balance, seed)


# --- which origin --------------------------------------------------------------------------------


def _origin(name_or_path: str | os.PathLike[str] | NamedSet) -> NamedSet | Path:
    """The set that is meant, or the folder or file."""
    if isinstance(name_or_path, NamedSet):
        return registry.make_known(name_or_path, where="load_dataset")
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"a data set is named {name_or_path!r}; give its name, a path or a set")
    name = os.fspath(name_or_path)
    if not name:  # as a path it would be the working directory, whatever is there
        raise ValueError(
            "the name of a data set is empty; give a name that `jelicit datasets` lists, or a "
            'folder ("." is the working directory)'
        )
    is_text = isinstance(name_or_path, str)
    if is_text and name in known_names():
        return registry.sets()[name]
    if Path(name).exists():
        return Path(name)
    if is_text and is_reference(name):
        return registry.own_set(name)
    raise _unknown(name, is_path=not is_text)


def _unknown(name: str, *, is_path: bool) -> Exception:
    """The error for a name that is neither known nor there: as a path if it reads like one."""
    known = known_names()
    close = difflib.get_close_matches(name, known, n=3) or [k for k in known if _alike(name, k)]
    hint = f"did you mean {' or '.join(map(repr, close))}; " if close else ""
    choices = (
        f"{hint}known names: {', '.join(known)}; or give a folder with train.jsonl and test.jsonl, "
        "a file (JSONL, CSV, TSV, JSON, Parquet), or module:SET or file.py:SET for one of your own"
    )
    slash = "/" in name and not any(k.startswith(f"{name.split('/')[0]}/") for k in known)
    if is_path or slash or name.startswith(".") or name.lower().endswith(FILE_SUFFIXES):
        return FileNotFoundError(f"no such folder or file: {name}; {choices}")
    return ValueError(f"unknown dataset {name!r}; {choices}")


def _alike(name: str, known: str) -> bool:
    """Whether a known name contains the name, or is another word for it or what the hub says."""
    named = registry.sets()[known]
    hub_id = named.source.hub_id if isinstance(named.source, HubFiles) else None
    return name in known or name in named.aliases or name == hub_id


# --- named sets ----------------------------------------------------------------------------------


def _named(named: NamedSet, request: Request) -> Dataset:
    if named.source is None:
        raise ValueError(f"set {named.name!r} has no source; give the folder that holds it")
    rows = _splits(named.source(request), where=f"set {named.name!r}")
    splits = placed(rows, name=named.name, origin="own")
    return Dataset(
        name=named.name,
        train=splits["train"],
        test=splits["test"],
        valid=splits.get("valid", ()),
        formats=named.format_names or _formats_of(splits["train"]),
        easy=named.easy,
        notes=_notes(named, request),
    )


def _notes(named: NamedSet, request: Request) -> tuple[str, ...]:
    """What the source tells of where its rows are from."""
    return named.source.notes(request) if isinstance(named.source, HubFiles) else ()


def _splits(
    rows: Mapping[str, Sequence[Item]] | Sequence[Item], *, where: str
) -> Mapping[str, Sequence[Item]]:
    """What a source gave, checked, by split."""
    if not isinstance(rows, Mapping):
        _check_rows(rows, where)
        return split_rows(rows, where=where)
    if not {"train", "test"} <= set(rows) <= set(SPLITS):
        raise ValueError(
            f"{where}: its source gives the splits {shown(list(rows))}; allowed: train, test and "
            "optionally valid"
        )
    for split, items in rows.items():
        _check_rows(items, where)
        check_split(items, split, where=where)
    return rows


def _check_rows(items: Sequence[Item], where: str) -> None:
    seen: set[str] = set()
    for item in items:
        if not isinstance(item, Item):
            raise ValueError(f"{where}: a {type(item).__name__} among its rows; expected Item")
        if item.id in seen:
            raise ValueError(f"{where}: two rows have the id {shown(item.id)}; ids are unique")
        seen.add(item.id)


def _blank(items: Sequence[Item]) -> str:
    """One line on rows that have nothing to be judged; "" if there are none."""
    ids = [item.id for item in items if "" in (item.choice.strip(), (item.choice_2 or "-").strip())]
    if not ids:
        return ""
    which = "claim of 1 row is" if len(ids) == 1 else f"claims of {len(ids)} rows are"
    return f"the {which} blank, such as row {shown(ids[0])}: leave them out, or give them text"


# --- local ---------------------------------------------------------------------------------------


def _local(path: Path) -> Dataset:
    name = set_name(path)
    named = _called(name)
    rows, notes = read_local(path, named.meaning)
    splits = placed(rows, name=name, origin="folder")
    items = [item for each in splits.values() for item in each]
    notes = [*notes, *filter(None, [contradictions(items), _blank(items)])]
    easy = named.easy
    if easy is not None and path.is_dir() and (path.absolute().parent / easy).is_dir():
        easy = str(path.absolute().parent / easy)
    return Dataset(
        name=name,
        train=splits["train"],
        test=splits["test"],
        valid=splits.get("valid", ()),
        formats=named.format_names or _formats_of(splits["train"]),
        easy=easy,
        notes=tuple(notes),
    )


def _called(name: str) -> NamedSet:
    """The known set that a folder of this name holds, or one that says nothing of its rows."""
    for named in registry.sets().values():
        if name == named.name or name in named.aliases:
            return named
    return NamedSet(name=name, title=name, easy=DEFAULT_EASY)


# --- formats and subsets -------------------------------------------------------------------------


def _formats_of(items: Sequence[Item]) -> dict[str, str]:
    """The format that fits the items: responses in pairs, or claims."""
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
