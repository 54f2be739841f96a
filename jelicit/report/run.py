"""The report of one run folder."""

from __future__ import annotations

from pathlib import Path

from jelicit.method_names import also_named
from jelicit.report import html
from jelicit.report.document import document, save
from jelicit.report.folder import RunFolder, read_folder
from jelicit.report.item_browser import about_items, tables_of
from jelicit.report.packing import columns_of, pack
from jelicit.report.row_table import about_chart, about_rows, table_of
from jelicit.results import Record

FILE = "report.html"


def write_report(folder: str | Path) -> Path:
    """Writes `report.html` into a run folder: everything that the run found, in one file.

    The page needs no network and no other file. It has the record (`report.json`) with what speaks
    against its numbers and the paper's findings checked, the figures, tables of its own if it has
    any, a chart and a table of all rows, and a browser of the items that have scores. Measured
    numbers have four digits; full precision stays in the Parquet files. The same folder gives the
    same bytes.

    Args:
        folder: Where an experiment wrote report.json, rows/, figures and, for some runs, items/.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder has no report.json, or lacks rows or a figure that it names.
        ValueError: a file is damaged.
    """
    run = read_folder(folder)
    with also_named(run.record.titles):
        return save(_page(run), run.path / FILE)


def _page(run: RunFolder) -> str:
    rows = table_of(run.rows)
    items = about_items(run.items, run.rows)
    about = {"rows": about_rows(rows), "chart": about_chart(rows), "items": items}
    return document(
        title=run.record.title,
        navigation=_navigation(run, has_chart=about["chart"] is not None),
        body=_body(run, has_chart=about["chart"] is not None),
        data=pack(about, {"rows": columns_of(rows), **tables_of(run.items)}),
    )


def _navigation(run: RunFolder, *, has_chart: bool) -> dict[str, str]:
    there = {
        "doubts": ("Doubts", bool(run.record.doubts)),
        "findings": ("Findings", bool(run.record.findings)),
        "figures": ("Figures", bool(run.figures)),
        "tables": ("Tables", bool(run.record.tables)),
        "chart": ("Chart", has_chart),
        "rows": ("Rows", True),
        "items": ("Items", bool(run.items)),
    }
    return {name: title for name, (title, is_there) in there.items() if is_there}


def _body(run: RunFolder, *, has_chart: bool) -> str:
    parts = [head(run.record)]
    if run.record.doubts:
        told = "<p>What speaks against the numbers below:</p>"
        parts.append(html.section("doubts", "Doubts", told + html.lines(run.record.doubts)))
    if run.record.findings:
        parts.append(
            html.section("findings", "Findings of the paper", html.findings(run.record.findings))
        )
    if run.figures:
        drawn = "".join(html.figure(name, svg) for name, svg in run.figures.items())
        parts.append(html.section("figures", "Figures", drawn))
    if run.record.tables:
        told = "".join(map(html.text_table, run.record.tables))
        parts.append(html.section("tables", "Tables", told))
    if has_chart:
        parts.append(html.section("chart", "Every method at one setting"))
    parts.append(html.section("rows", "All rows"))
    if run.items:
        parts.append(html.section("items", "Item by item"))
    return "\n".join(parts)


def head(record: Record) -> str:
    """Title, what was asked, and how it was made."""
    made = f"{html.minutes(record.seconds)} on {record.machine}"
    return (
        f'<header class="head"><p class="kind">jelicit {html.escape(record.experiment)}</p>'
        f"<h1>{html.escape(record.title)}</h1>"
        f'<div class="lead">{html.paragraphs(record.lead)}</div>'
        f'<pre class="command"><code>{html.escape(record.command)}</code></pre>'
        f'<p class="made">{html.escape(made)}</p>'
        f"{html.folded('Settings', html.pairs(record.settings))}"
        f"{html.folded('Versions', html.pairs(record.versions))}</header>"
    )
