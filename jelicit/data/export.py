"""Labels in the shapes that trainers take, with where they came from.

Rows are made of texts and the labels that are given: no gold label, other label or note of an item
goes along, so that nobody trains on what was not found; an account of where labels came from does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

from jelicit.data import registry
from jelicit.data.items import Item, load_items, to_record
from jelicit.data.overlap import text_key
from jelicit.data.preferences import comparisons, true_and_false
from jelicit.data.prompts import PromptFormat, get_format, zero_shot
from jelicit.data.shown import shown
from jelicit.disk import whole_folder, write_text

Shape = Literal["items", "verdicts", "pairs"]
PROVENANCE = "provenance.json"
MADE_BY = "made_by"
"""Where an item's `meta`, and a row, say where its label is from."""

Row = dict[str, Any]


def export_rows(
    items: Sequence[Item], shape: Shape, *, format: str | PromptFormat | None = None
) -> tuple[list[Row], int]:
    """Rows of labelled items in a shape, and how many items are in none.

    Where an item says what its label is from (`made_by` in its meta: method, model, set, format,
    seed, search), its row does, too: in items as it is, else as a text.

    Args:
        items: Items whose `label` is the one to hand on; those without one are left out.
        shape: "items": the items as files of sets have them. "verdicts": prompt, completion (the
            verdict word) and label. "pairs": prompt (the question), chosen and rejected: the two
            responses of a pair, or of claims of one group a true one beside a false one, each
            claim once.
        format: The prompt format of verdicts; None = that of the set that the items name.

    Raises:
        ValueError: The shape is unknown, no item has a label, no pair can be made, or as of
            `get_format`.
    """
    if shape not in get_args(Shape):
        raise ValueError(f"shape is {shown(shape)}; allowed: {', '.join(get_args(Shape))}")
    if shape != "verdicts" and format is not None:
        raise ValueError(f"a format does nothing with the shape {shape}: leave it out")
    known = [item for item in items if item.label is not None]
    if not known:
        raise ValueError(f"none of {len(items)} items has a label to export")
    if shape == "items":
        rows = [to_record(replace(item, alt_labels={}, meta=_account(item))) for item in known]
        return rows, len(items) - len(known)
    if shape == "verdicts":
        form = get_format(format or default_format(known[0]))
        rows = [_verdict(item, form) | _told(item) for item in known]
        return _even(rows), len(items) - len(known)
    rows, used = _pairs(known)
    if not rows:
        raise ValueError(
            "no pair can be made of these items: they need a choice_2, or a true and a false claim "
            "of one group with a question"
        )
    return _even(rows), len(items) - used


def default_format(item: Item) -> str:
    """The prompt format of the set that an item names, or the plain one for what it has."""
    named = registry.sets().get(item.dataset)
    if named is not None and named.format_names:
        return next(iter(named.format_names.values()))
    if item.choice_2 is not None:
        return "pair"
    return "claim" if item.question else "statement"


def _verdict(item: Item, form: PromptFormat) -> Row:
    word = form.true_word if item.label else form.false_word
    return {
        "id": item.id,
        "prompt": zero_shot(item, form),
        "completion": word,
        "label": bool(item.label),
        "group": item.group,
    }


def _pairs(items: Sequence[Item]) -> tuple[list[Row], int]:
    """Rows of pairs, and of how many items they are."""
    if all(item.choice_2 is not None for item in items):
        return _of_responses(items)
    claims = [item for item in items if item.question and item.choice_2 is None]
    rows = [
        _pair(true.group, true.question, true.choice, false.choice) | _told(true)
        for true, false in true_and_false(claims)
    ]
    return rows, 2 * len(rows)


def _of_responses(items: Sequence[Item]) -> tuple[list[Row], int]:
    """One row for a pair in one order or both; orders that contradict each other give none."""
    made = comparisons(items, [item.label for item in items])
    decided = {(each.group, *text_key(each.as_item())): each for each in made}
    first = {(item.group, *text_key(item)): item for item in reversed(items)}
    used = sum((item.group, *text_key(item)) in decided for item in items)
    rows = [
        _pair(each.group, each.question, each.chosen, each.rejected) | _told(first[key])
        for key, each in decided.items()
    ]
    return rows, used


def _pair(group: str, question: str, chosen: str, rejected: str) -> Row:
    return {"prompt": question, "chosen": chosen, "rejected": rejected, "group": group}


# --- where labels are from -----------------------------------------------------------------------


def _account(item: Item) -> dict[str, Any]:
    """What an item says of where its label is from, under its name; {} where it says nothing."""
    said = item.meta.get(MADE_BY)
    return {MADE_BY: said} if said else {}


def _told(item: Item) -> Row:
    """The same as one text, for a column that every trainer reads: "method icm; seed 0; ..."."""
    return {name: in_words(said) for name, said in _account(item).items()}


def in_words(said: object) -> str:
    """An account as one text: every name with its value, a mapping's own in brackets."""
    if not isinstance(said, Mapping):
        return str(said)
    return "; ".join(
        f"{name} ({in_words(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in said.items()
    )


def _even(rows: list[Row]) -> list[Row]:
    """Rows of the same columns, also where only some say what their labels are from."""
    if not any(MADE_BY in row for row in rows):
        return rows
    return [{**row, MADE_BY: row.get(MADE_BY)} for row in rows]


def _accounts(path: Path) -> dict[str, Any]:
    """What the rows of a file say of where their labels are from, each account once."""
    said = [item.meta[MADE_BY] for item in load_items(path) if item.meta.get(MADE_BY)]
    once = {json.dumps(each, sort_keys=True): each for each in said}
    return {"made by": list(once.values())} if once else {}


# --- onto disk -----------------------------------------------------------------------------------


def provenance(
    sources: Sequence[Path],
    rows: Sequence[Row],
    shape: Shape,
    *,
    left_out: int,
    format: PromptFormat | None,
) -> dict[str, Any]:
    """Where rows came from: the files of labels, by digest, and what was made of them.

    Args:
        sources: Files of labelled items; what their rows say of where labels are from
            (`made_by` in meta) is taken over.
        rows: What was made of them.
        shape: Of the rows.
        left_out: How many items are in none.
        format: Of verdicts.
    """
    return {
        "labels from": [
            {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                **_accounts(path),
            }
            for path in sources
        ],
        "shape": shape,
        "format": None if format is None else asdict(format),
        "rows": len(rows),
        "items left out": left_out,
        "sha256 of rows": hashlib.sha256(_lines(rows).encode()).hexdigest(),
    }


def write_rows(path: str | os.PathLike[str], rows: Sequence[Row], about: Mapping[str, Any]) -> Path:
    """Writes rows, and beside them where they came from.

    Args:
        path: A file that ends in .jsonl; its account is beside it, NAME.provenance.json. Or a new
            folder: a data set of Hugging Face's `datasets`, for `load_from_disk`, with its account
            (provenance.json) in it.
        rows: The rows.
        about: Of `provenance`.

    Returns:
        The file with the account.

    Raises:
        FileExistsError: There is something in the folder's place.
        OSError: It cannot be written.
    """
    path, account = Path(path), json.dumps(about, indent=1) + "\n"
    if path.suffix == ".jsonl":
        write_text(path, _lines(rows))
        beside = path.with_suffix(f".{PROVENANCE}")
        write_text(beside, account)
        return beside
    import datasets

    made = datasets.Dataset.from_list(list(rows))
    with whole_folder(path) as folder:
        made.save_to_disk(folder)
        write_text(folder / PROVENANCE, account)
    return path / PROVENANCE


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
