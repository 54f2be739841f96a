"""Which methods survive which challenge."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jelicit.figures.parts import GREY, finish, new_figure, some_rows, style
from jelicit.method_groups import BLOCKS
from jelicit.method_names import in_reading_order, readable
from jelicit.results import Rows, as_frame
from jelicit.results.rows import need

MARKS = {"survives": "✓", "fails": "✗", "open": "?", "ceiling": ""}
NOTE = "✓ survives   ✗ fails   ? these questions leave it open   = within noise of the best"
NEEDED = ("method", "orientation", "block", "challenge", "auroc", "verdict", "near_best")
LINE_HEIGHT = 0.2  # inches


def stress_figure(rows: Rows) -> Figure:
    """Methods down in blocks of those that see the same labels, challenges across.

    A cell is the AUROC of the worst case, with a mark for whether the method survives; bold and
    marked by "=" is what lies within noise of the best of the block.

    Args:
        rows: the scorecard: a row per challenge and method, with the columns of `NEEDED`.

    Raises:
        ValueError: no rows, or a missing column.
    """
    rows = some_rows(as_frame(rows), "worst cases")
    need(rows, NEEDED)
    blocks = [block for block in BLOCKS if block in set(rows["block"])]
    challenges = list(dict.fromkeys(rows["challenge"]))
    heights = [rows.loc[rows["block"] == block, "method"].nunique() for block in blocks]
    with style():
        figure = new_figure(height=1.0 + LINE_HEIGHT * (sum(heights) + 1.5 * len(blocks)))
        grid = figure.subplots(
            *(len(blocks), 1), squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        for axes, block in zip(grid[:, 0], blocks, strict=True):
            _block(axes, pd.DataFrame(rows.loc[rows["block"] == block]), challenges)
            axes.set_title(f"Methods {_seeing(block)}", loc="left", color=GREY, fontweight="bold")
        title = "AUROC on the truth in the worst case of each challenge"
        finish(figure, rows, handles=[], title=title, sign_notes={})
        figure.supxlabel(f"{NOTE}{_signs(rows)}", x=0.01, ha="left", fontsize=6.5, color=GREY)
    return figure


def _seeing(block: str) -> str:
    return block if block.startswith("with") else f"with {block}"


def _signs(rows: pd.DataFrame) -> str:
    signs = {"oracle": "train labels (oracle)", "easy": "labels of the easy set"}
    told = [name for sign, name in signs.items() if sign in set(rows["orientation"])]
    return f"   * sign chosen with {told[0]}" if told else ""


def _block(axes: Axes, rows: pd.DataFrame, challenges: list[str]) -> None:
    """A matrix of the methods of a block."""
    methods = in_reading_order(rows["method"])
    cells: dict[tuple[str, str], Any] = {
        (row["method"], row["challenge"]): row for row in rows.to_dict("records")
    }
    matrix = np.full((len(methods), len(challenges)), np.nan)
    for (line, column), _ in np.ndenumerate(matrix):
        row = cells.get((methods[line].key, challenges[column]))
        if row is None:
            continue
        matrix[line, column] = row["auroc"]
        near = bool(row["near_best"])
        said = f"{'= ' if near else ''}{row['auroc']:.2f} {MARKS[row['verdict']]}"
        axes.text(
            *(column, line, said.rstrip()),
            ha="center", va="center", fontsize=6.5, fontweight="bold" if near else "normal",
            color="white" if abs(row["auroc"] - 0.5) > 0.33 else "black",
        )  # fmt: skip
    axes.imshow(matrix, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    signed = set(rows.loc[rows["orientation"] != "none", "method"])
    names = [method.name + (" *" if method.key in signed else "") for method in methods]
    axes.set_yticks(range(len(methods)), names)
    axes.set_xticks(range(len(challenges)), [readable(name) for name in challenges])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
