"""Rows of several prompt formats: told apart for tables, figures and findings, and side by side."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jelicit.data.shown import printable
from jelicit.method_names import in_format, in_reading_order, readable
from jelicit.results import summarise
from jelicit.studies.cells import number
from jelicit.studies.formats import OVER_FORMATS


def told_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose sets are called by set and format, where rows have a format; others as they are.

    Whatever shows or averages rows by set then keeps formats apart. The name of the set by itself
    is in the column `set`.

    Args:
        rows: Of one study; with several formats they have the column `format`, and `train_format`
            where probes were trained on another set.
    """
    if "format" not in rows:
        return rows
    names = {"set": rows["dataset"], "dataset": _in_format(rows, "dataset", "format")}
    if "train_format" in rows:
        trained = rows["train"] != "none"
        names["train"] = rows["train"].where(~trained, _in_format(rows, "train", "train_format"))
    return rows.assign(**names)


def without_ensembles(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of single prompts."""
    if "format" not in rows:
        return rows
    return pd.DataFrame(rows.loc[~rows["format"].isin(OVER_FORMATS)])


def by_set_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one place (`told_apart`) whose set is called by itself: the title says the format."""
    return rows.assign(dataset=rows["set"]) if "set" in rows else rows


def _in_format(rows: pd.DataFrame, dataset: str, form: str) -> list[str]:
    pairs = zip(rows[dataset].astype(str), rows[form].astype(str), strict=True)
    return [in_format(*pair) for pair in pairs]


def print_formats(rows: pd.DataFrame, console: Console, *, value: str = "auroc") -> None:
    """Sensitivity to the prompt: a table per set and feature that sets formats side by side.

    Args:
        rows: As `told_apart` gives them; nothing is printed of one format alone.
        console: Where to print.
        value: What is compared: auroc, or accuracy.
    """
    if "format" not in rows:
        return
    for (name, feature), here in rows.groupby(["set", "feature"], sort=False):  # type: ignore[misc]
        if len(set(here["format"])) > 1:  # a feature may fit one format only
            added = "" if feature == "none" else f", {readable(str(feature))}"
            said = "AUROC" if value == "auroc" else value.capitalize()
            title = f"{said} by prompt format: {name}{added}"
            console.print(format_table(here, value=value, title=title))


def format_table(rows: pd.DataFrame, *, value: str = "auroc", title: str = "") -> Table:
    """Methods down, formats across: a value on the label asked for, and how far they lie apart.

    Ensembles over the formats and probes of all of them stand last, and are none of those that lie
    apart.

    Cells are means over seeds, and over layers where there are several. An unlabelled method's sign
    is the oracle's, as an asterisk says.

    Args:
        rows: Of one set and feature, with format, method, orientation, role, layer, seed, value.
        value: The column to show.
        title: Printed above.
    """
    asked = (rows["role"] == "truth") & rows["orientation"].isin(["none", "oracle"])
    rows = pd.DataFrame(rows.loc[asked])
    methods, every = in_reading_order(rows["method"]), dict.fromkeys(rows["format"])
    formats = [form for form in every if form not in OVER_FORMATS]
    ensembles = [form for form in every if form in OVER_FORMATS]
    by_layer = summarise(rows, by=["format", "method", "layer"], value=value)
    means = by_layer.pivot_table(values="mean", index="method", columns="format", aggfunc="mean")
    means = means.reindex(index=[method.key for method in methods], columns=[*formats, *ensembles])
    signed = set(rows.loc[rows["orientation"] == "oracle", "method"])
    shown = Table(
        title=escape(printable(title)) or None,
        caption="* sign chosen with train labels (oracle)" if signed else None,
        caption_justify="left",
    )
    shown.add_column("Method", no_wrap=True)
    for name in (*formats, "most - least", *ensembles):
        shown.add_column(escape(str(name)), justify="right")
    for method, cells in zip(methods, means.to_numpy(), strict=True):
        mark = " *" if method.key in signed else ""
        # Of formats without a number nobody knows how far apart they lie.
        of_formats = cells[: len(formats)]
        apart = of_formats.max() - of_formats.min()
        numbers = (*of_formats, apart, *cells[len(formats) :])
        shown.add_row(escape(method.name) + mark, *map(number, numbers))
    return shown
