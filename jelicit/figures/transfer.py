"""What probes that were trained on one set say of another."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jelicit.figures.parts import (
    POINT,
    WIDTH,
    chosen_rows,
    finish,
    new_figure,
    signed_name,
    some_rows,
    style,
)
from jelicit.method_names import in_reading_order, readable
from jelicit.results import Rows, summarise

COLUMNS = 4
SIGN_NOTES = {
    "oracle": "* sign chosen with the train labels of the set trained on (oracle)",
    "easy": "* sign chosen on the easy labelled set",
}


def transfer_figure(rows: Rows, *, orientation: str = "oracle") -> Figure:
    """Per method, a matrix of AUROC: trained on (down), tested on (across).

    On the diagonal are probes at home. Blue is above chance, red below it: a probe that finds the
    other set's truth upside down.

    Args:
        rows: tidy rows with `train` (the set trained on; "none" for methods that are not), dataset
            (tested on), method, role, orientation, seed, auroc.
        orientation: which sign choice to show for methods that need one; signs are picked on the
            set that was trained on.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, orientation, [*POINT, "train", "dataset"])
    rows = some_rows(rows.loc[(rows["role"] == "truth") & (rows["train"] != "none")], "probes")
    methods = in_reading_order(rows["method"])
    sets = list(dict.fromkeys(rows["dataset"]))
    lines = -(-len(methods) // COLUMNS)
    with style():
        figure = new_figure(height=0.9 + lines * (0.25 + WIDTH / COLUMNS * 0.8))
        grid = np.asarray(figure.subplots(lines, COLUMNS, squeeze=False, sharex=True, sharey=True))
        for axes in grid.ravel()[len(methods) :]:
            axes.remove()
        for place, method in enumerate(methods):
            axes = grid.ravel()[place]
            matrix = _matrix(rows.loc[rows["method"] == method.key], sets)
            axes.imshow(matrix, cmap="RdBu", vmin=0, vmax=1, aspect="equal", gid=method.key)
            for (line, column), value in np.ndenumerate(matrix):
                dark = abs(value - 0.5) > 0.33
                if not np.isnan(value):
                    axes.text(
                        *(column, line, f"{value:.2f}"), ha="center", va="center", fontsize=5,
                        color="white" if dark else "black",
                    )  # fmt: skip
            axes.set_title(signed_name(method, rows).replace(" (", "\n("), fontsize=7)
            names = [readable(name).removesuffix(" (pocket)") for name in sets]
            axes.set_xticks(range(len(sets)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(sets)), names)
            last = place + COLUMNS >= len(methods)
            axes.tick_params(length=0, labelbottom=last, labelleft=place % COLUMNS == 0)
            axes.spines[:].set_visible(False)
        figure.supylabel("trained on", fontsize=8)
        title = "AUROC of probes on other sets (tested on: across)"
        finish(figure, rows, handles=[], title=title, sign_notes=SIGN_NOTES)
    return figure


def _matrix(rows: pd.DataFrame, sets: list[str]) -> np.ndarray:
    points = summarise(rows, by=["train", "dataset"], value="auroc")
    matrix = np.full((len(sets), len(sets)), np.nan)
    for point in points.to_dict("records"):
        if point["train"] in sets:
            matrix[sets.index(point["train"]), sets.index(point["dataset"])] = point["mean"]
    return matrix
