"""The scorecard in a terminal: a table per challenge, one of all, and what AUROCs vary by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jelicit.method_groups import BLOCKS
from jelicit.method_names import in_reading_order, readable
from jelicit.results import TextTable
from jelicit.studies.cells import number, with_interval
from jelicit.studies.spread import SOURCES
from jelicit.studies.stress_card import CEILS, RULE, verdicts

MARKS = {"survives": "+", "fails": "-", "open": "?", "ceiling": " "}
WIDE = 132
"""Columns of a terminal from which every number of a challenge's table has its interval."""

NOTES = "* sign chosen with train labels (oracle)    = within noise of the best of its block"
SPREAD_NOTES = (
    "* sign chosen with train labels (oracle). Standard deviations of the AUROC of one fit under "
    "one prompt: over draws of test questions, over seeds (starts and train rows), over prompts, "
    "and of what a seed does under one prompt only. -: one prompt, or one seed, cannot tell. "
    "0 (<0): the estimate is below 0, so the source is small beside noise."
)


def print_challenge(worst: pd.DataFrame, challenge: str, console: Console) -> None:
    """Each method's worst case in a challenge: where it is, and how far it lies from others.

    In a narrow terminal only the AUROC has its interval; the rows and the report have them all.
    """
    wide = console.width >= WIDE
    table = _compact(f"Worst cases: {challenge}", NOTES)
    table.add_column("Method", min_width=14)
    table.add_column("Worst case")
    for head in ("AUROC", "Loss", "% of ceiling" if wide else "% top", "Behind best", "Survives"):
        table.add_column(head, justify="right")
    shown = with_interval if wide else _alone
    for block, methods in in_blocks(worst):
        table.add_section()
        table.add_row(f"[bold]{escape(block)}[/bold]")
        for row in methods:
            place = readable(row["dataset"])
            if row["feature"] != "none":
                place += f", {readable(row['feature'])}"
            table.add_row(
                escape(signed(row)),
                escape(place),
                with_interval(row, "auroc"),
                shown(row, "loss"),
                shown(row, "share", percent=True),
                ("= " if row["near_best"] else "") + shown(row, "behind", percent=True),
                "" if row["verdict"] == CEILS else row["verdict"],
            )
    console.print(table)


def _alone(row: Any, column: str, *, percent: bool = False) -> str:
    """A number without its interval."""
    if percent:
        return "" if pd.isna(row[column]) else f"{row[column]:.0%}"
    return number(row[column])


def print_scorecard(worst: pd.DataFrame, console: Console) -> None:
    """Methods down, challenges across: the AUROC of the worst case and who survives."""
    challenges = list(dict.fromkeys(worst["challenge"]))
    table = _compact(
        "Scorecard: AUROC of the worst case", f"{NOTES}\n+ / - / ?: survives, fails, open. {RULE}"
    )
    table.add_column("Method", min_width=14)
    for head in (*challenges, "all"):
        table.add_column(head, justify="right", no_wrap=True)
    for block, methods in in_blocks(worst):
        table.add_section()
        table.add_row(f"[bold]{escape(block)}[/bold]")
        for line in lines_of(methods):
            cells = [cell(line.cells[name]) if name in line.cells else "" for name in challenges]
            table.add_row(escape(line.name), *cells, line.survived)
    console.print(table)


def _compact(title: str, note: str) -> Table:
    """A table without lines between columns, so that seven of them fit 80 characters."""
    return Table(
        title=escape(title),
        caption=escape(note),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )


def cell(row: Any) -> str:
    """A worst case in a few letters: mark of the best, AUROC, verdict."""
    near = "=" if row["near_best"] else ""
    return f"{near}{number(row['auroc'])}{MARKS[row['verdict']]}"


def signed(row: Any) -> str:
    """A method's name, with a mark where something chose the sign of its direction."""
    (method,) = in_reading_order([row["method"]])
    return method.name + {"oracle": " *", "easy": " (easy sign)"}.get(row["orientation"], "")


def in_blocks(worst: pd.DataFrame) -> Iterator[tuple[str, list[Any]]]:
    """Blocks of methods that see the same labels, their rows in reading order of methods."""
    place = {m.key: number for number, m in enumerate(in_reading_order(worst["method"]))}
    rows = sorted(worst.to_dict("records"), key=lambda row: place[row["method"]])
    for block in BLOCKS:
        here = [row for row in rows if row["block"] == block]
        if here:
            yield block, here


class Line(NamedTuple):
    """A method in the scorecard: its worst cases by challenge, and how many it survives."""

    name: str
    cells: Mapping[str, Any]
    survived: str


def lines_of(methods: Sequence[Any]) -> Iterator[Line]:
    """A line per method and sign, from the worst cases of a block."""
    by_method: dict[tuple[str, str], dict[str, Any]] = {}
    for row in methods:
        by_method.setdefault((row["method"], row["orientation"]), {})[row["challenge"]] = row
    said = {key: of for key, _, of in verdicts(methods)}
    for key, cells in by_method.items():
        count = f"{said[key].count('survives')} of {len(said[key])}"
        yield Line(signed(next(iter(cells.values()))), cells, count)


# --- what an AUROC is uncertain from -------------------------------------------------------------


def spread_table(spread: pd.DataFrame) -> TextTable:
    """A line per set and method: its AUROC on the plain claims, and a column per source.

    Args:
        spread: Of `stress_spread`.
    """
    lines = [
        (signed(row), readable(row["dataset"]), number(row["auroc"]), *_sources(row))
        for _, of_set in spread.groupby("dataset", sort=False)
        for _, methods in in_blocks(pd.DataFrame(of_set))
        for row in methods
    ]
    return TextTable(
        title="What an AUROC on the plain claims is uncertain from",
        heads=("Method", "Set", "AUROC", "Questions", "Seeds", "Prompts", "Prompt x seed"),
        lines=tuple(lines),
        note=SPREAD_NOTES,
    )


def _sources(row: Any) -> Iterator[str]:
    below = str(row["below_zero"]).split(", ")
    for source in SOURCES:
        value = row[f"sd_{source}"]
        yield "-" if pd.isna(value) else "0 (<0)" if source in below else f"{value:.3f}"


def print_text_table(table: TextTable, console: Console) -> None:
    """A table of texts: names to the left, numbers to the right."""
    shown = _compact(table.title, table.note)
    for place, head in enumerate(table.heads):
        shown.add_column(escape(head), justify="left" if place < 2 else "right")
    for line in table.lines:
        shown.add_row(*map(escape, line))
    console.print(shown)
