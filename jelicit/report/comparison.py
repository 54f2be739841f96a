"""One page that sets several run folders side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from jelicit.method_names import also_named
from jelicit.report import html
from jelicit.report.document import document, save
from jelicit.report.folder import RunFolder, read_folder
from jelicit.report.packing import columns_of, pack
from jelicit.report.row_table import (
    about_chart,
    column_titles,
    measured_columns,
    reader_names,
    table_of,
    varies,
)
from jelicit.report.run import FILE
from jelicit.results.store import SETTING_PREFIX

# What says which question a row answers: never left out when rows of two reports are matched.
_ALWAYS = ("dataset", "feature", "asked", "train", "class_share", "method", "orientation")
_ALWAYS += ("role", "target")
_NEVER = ("report", "seed", "run_id", "n_train", "n_test")
_ENDS = ("_low", "_high")


def compare_reports(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Writes one page that compares run folders: settings, findings, and the same row in each.

    Rows are the same if all that was set is the same, the seed apart: over seeds they are averaged.
    A column in which each folder has one value for each such row (the layer that was chosen, the
    model) does not keep rows apart; it stands beside them. Differences are from the first folder.

    Args:
        folders: Two or more run folders, each with report.json and rows/.
        out: The page to write.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: a folder has no report.json, or lacks rows or a figure that it names.
        ValueError: a file is damaged; there are fewer than two folders, or one is named twice.
    """
    out = Path(out)
    _check(folders)
    runs = dict(zip(short_names(folders), map(read_folder, folders), strict=True))
    titles = {key: of for run in runs.values() for key, of in run.record.titles.items()}
    with also_named(titles):
        return save(_page(runs, out), out)


def _page(runs: Mapping[str, RunFolder], out: Path) -> str:
    rows = pd.concat(
        [run.rows.assign(report=name) for name, run in runs.items()], ignore_index=True
    )
    rows = rows.loc[:, [c for c in rows if not str(c).startswith(SETTING_PREFIX)]]
    keys = key_columns(rows)
    joined = side_by_side(rows, keys)
    shown = [*keys, "report", "seed", *measured_columns(rows)]
    points = table_of(rows.loc[:, [c for c in shown if c in rows]])
    about = {
        "rows": _about_joined(joined, keys, rows),
        "chart": about_chart(points, series="report"),
    }
    tables = {"rows": points, "joined": joined}
    return document(
        title=_title(runs),
        navigation=_navigation(runs, has_chart=about["chart"] is not None),
        body=_body(runs, out, has_chart=about["chart"] is not None),
        data=pack(about, {name: columns_of(table) for name, table in tables.items()}),
    )


def key_columns(rows: pd.DataFrame) -> list[str]:
    """Columns by which rows of several reports are matched; see `compare_reports`."""
    measured = measured_columns(rows)
    optional = [c for c in rows if c not in (*_ALWAYS, *_NEVER, *measured)]
    keys = [c for c in (*_ALWAYS, *optional) if c in rows]
    for column in optional:
        without = [c for c in keys if c != column]
        if not varies(rows, ["report", *without], column):
            keys = without
    return keys


def side_by_side(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row per point: its keys, per measure the value in each report, and the differences.

    Values are means over seeds; "auroc: b - a" is the difference of report b from the first, a.
    Where seeds of a point have no value (nan), "auroc seeds: a" says of how many its mean is.
    """
    reports = list(dict.fromkeys(rows["report"]))
    points = rows.groupby([*keys, "report"], dropna=False, sort=False)
    measures = [c for c in measured_columns(rows) if not c.endswith(_ENDS)]
    measures = [c for c in measures if rows[c].notna().to_numpy().any()]
    beside = [c for c in rows if c not in (*keys, *_NEVER, *measured_columns(rows))]
    found = points.agg({**dict.fromkeys(measures, "mean"), **dict.fromkeys(beside, "first")})
    wide = found.unstack("report", sort=False)
    columns = {}
    for column in (*beside, *measures):
        values = [pd.Series(wide[column, report]) for report in reports]
        if column in beside and all(_alike(values[0], other) for other in values[1:]):
            continue
        columns |= {f"{column}: {r}": v for r, v in zip(reports, values, strict=True)}
        if column in measures:
            columns |= _counted(points[column], column, reports)
            for report, value in zip(reports[1:], values[1:], strict=True):
                columns[f"{column}: {report} - {reports[0]}"] = value - values[0]
    return pd.DataFrame(columns, index=wide.index).reset_index()


def _counted(values: Any, column: str, reports: Sequence[str]) -> dict[str, pd.Series]:
    """Text ("2 of 3") where rows of a report lack values of a measure, "" elsewhere."""
    counts, sizes = (pd.Series(each).unstack("report") for each in (values.count(), values.size()))
    made = {}
    for report in reports:
        count, size = pd.Series(counts[report]), pd.Series(sizes[report])
        lacking = count < size
        if lacking.any():
            words = count.map("{:.0f}".format) + " of " + size.map("{:.0f}".format)
            made[f"{column} seeds: {report}"] = words.where(lacking, "")
    return made


def short_names(folders: Sequence[str | Path]) -> list[str]:
    """The last part of each folder's path, and as many before it as tell the folders apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("folders are different, so their whole paths are")


def _alike(one: pd.Series, other: pd.Series) -> bool:
    both = one.notna() & other.notna()
    return bool((one[both] == other[both]).all())


def _check(folders: Sequence[str | Path]) -> None:
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} folder named; a comparison needs two or more")
    paths = [Path(folder).resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is named twice; name each folder once")


def _about_joined(joined: pd.DataFrame, keys: Sequence[str], rows: pd.DataFrame) -> dict[str, Any]:
    measures = tuple(measured_columns(rows))
    own = [c for c in joined if c not in keys and str(c).split(": ")[0] in measures]
    return {
        "table": "joined",
        "quiet": [c for c in joined if c == "target" or str(c).startswith("accuracy: ")],
        "measured": own,
        "signed": [c for c in own if " - " in str(c).split(": ", 1)[1]],
        "names": reader_names(rows),
        "titles": column_titles(joined),
    }


def _title(runs: Mapping[str, RunFolder]) -> str:
    return f"{' and '.join(runs)}, side by side" if len(runs) == 2 else "Reports side by side"


def _navigation(runs: Mapping[str, RunFolder], *, has_chart: bool) -> dict[str, str]:
    navigation = {"settings": "Settings"}
    if any(run.record.doubts for run in runs.values()):
        navigation["doubts"] = "Doubts"
    if any(run.record.findings for run in runs.values()):
        navigation["findings"] = "Findings"
    if has_chart:
        navigation["chart"] = "Chart"
    return {**navigation, "rows": "Rows"}


def _body(runs: Mapping[str, RunFolder], out: Path, *, has_chart: bool) -> str:
    lead = (
        "The same rows of several runs. Values are means over seeds; differences are from "
        f"{next(iter(runs))}."
    )
    parts = [
        f'<header class="head"><p class="kind">jelicit report</p><h1>{html.escape(_title(runs))}'
        f'</h1><div class="lead">{html.paragraphs(lead)}</div>{_commands(runs, out)}</header>',
        html.section("settings", "Settings that differ", _settings(runs)),
    ]
    if doubts := [f"{name}: {line}" for name, run in runs.items() for line in run.record.doubts]:
        parts.append(html.section("doubts", "Doubts", html.lines(doubts)))
    if any(run.record.findings for run in runs.values()):
        parts.append(html.section("findings", "Findings of the paper", _findings(runs)))
    if has_chart:
        parts.append(html.section("chart", "Every method at one setting"))
    parts.append(html.section("rows", "The same row in each"))
    return "\n".join(parts)


def _commands(runs: Mapping[str, RunFolder], out: Path) -> str:
    """Which report each name stands for, with a link where its own page is there."""
    parts = []
    for name, run in runs.items():
        shown = html.escape(name)
        if (run.path / FILE).is_file():
            page = os.path.relpath((run.path / FILE).resolve(), out.parent.resolve())
            shown = f'<a href="{html.escape(quote(Path(page).as_posix()))}">{shown}</a>'
        made = f"{run.record.title}; {html.minutes(run.record.seconds)} on {run.record.machine}"
        parts.append(
            f'<p class="made"><strong>{shown}</strong>: {html.escape(made)}</p>'
            f'<pre class="command"><code>{html.escape(run.record.command)}</code></pre>'
        )
    return "".join(parts)


def _settings(runs: Mapping[str, RunFolder]) -> str:
    """Settings and versions that differ, a column per report; those that agree folded away."""
    found = [
        {
            "experiment": run.record.experiment,
            **dict(html.flat(run.record.settings)),
            **dict(html.flat({"version": run.record.versions})),
        }
        for run in runs.values()
    ]
    names = list(dict.fromkeys(name for each in found for name in each))
    differ = [name for name in names if len({each.get(name) for each in found}) > 1]
    agree = {name: found[0][name] for name in names if name not in differ}
    table = html.grid(
        ["Setting", *runs],
        [[name, *(each.get(name, "(not there)") for each in found)] for name in differ],
    )
    shown = table if differ else "<p>None: all settings and versions agree.</p>"
    return shown + html.folded(f"Settings that agree ({len(agree)})", html.pairs(agree))


def _findings(runs: Mapping[str, RunFolder]) -> str:
    """Claims down, reports across."""
    by_report = [{f.claim: f for f in run.record.findings} for run in runs.values()]
    claims = dict.fromkeys(claim for found in by_report for claim in found)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("Finding", *runs))
    lines = []
    for claim in claims:
        cells = [
            f"<td>{html.mark(f.appears)}<p>{html.escape(f.measured)}</p></td>"
            if f
            else "<td>not there</td>"
            for f in (found.get(claim) for found in by_report)
        ]
        lines.append(f'<tr><th scope="row">{html.escape(claim)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="grid"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
