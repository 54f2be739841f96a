"""Markdown tables of rows: what stands in a cell, and what is refused."""

from typing import Any

import pytest

from jelicit.results.markdown import markdown_table, mean_of, methods_down, truth_and_spurious


def _row(
    method: str,
    auroc: float,
    *,
    role: str = "truth",
    orientation: str = "none",
    seed: int = 0,
    share: float | None = 0.5,
) -> dict[str, Any]:
    return {
        "method": method,
        "auroc": auroc,
        "role": role,
        "orientation": orientation,
        "seed": seed,
        "class_share": share,
    }


def _by_share(rows, shares, cell, **options):
    columns = {f"{share:g}": (share,) for share in shares}
    return methods_down(rows, across=("class_share",), columns=columns, cell=cell, **options)


def test_cells_are_means_over_seeds_and_methods_stand_in_reading_order():
    rows = [
        _row("supervised", 1.0),
        _row("ccs", 0.5, orientation="oracle"),
        _row("ccs", 0.75, orientation="oracle", seed=1),
    ]
    assert _by_share(rows, [0.5], lambda cell: mean_of(cell, "auroc")).splitlines() == [
        "| Method | 0.5 |",
        "| --- | --- |",
        r"| CCS \* | 0.62 |",
        "| Supervised | 1.00 |",
    ]


def test_rows_of_no_situation_belong_to_each():
    rows = [_row("zero_shot", 0.9, share=None), _row("supervised", 1.0, share=0.1)]
    table = _by_share(rows, [0.1, 0.5], lambda cell: mean_of(cell, "auroc"))
    assert "| Zero-shot | 0.90 | 0.90 |" in table
    assert "| Supervised | 1.00 |  |" in table


def test_the_spurious_label_stands_in_brackets():
    rows = [_row("e2h", 0.75), _row("e2h", 1.0, role="spurious")]
    assert "| E2H | 0.75 [1.00] |" in _by_share(rows, [0.5], truth_and_spurious)


def test_signs_are_shown_as_asked():
    rows = [_row("pca", 0.01, orientation="oracle"), _row("pca", 0.99, orientation="easy")]
    table = _by_share(rows, [0.5], lambda c: mean_of(c, "auroc"), orientations=("oracle", "easy"))
    assert table.splitlines()[2:] == [r"| PCA \* | 0.01 |", "| PCA (easy sign) | 0.99 |"]
    with pytest.raises(ValueError, match="no lines"):
        _by_share(rows, [0.5], lambda c: mean_of(c, "auroc"), orientations=("none",))


def test_a_cell_never_mixes_settings():
    rows = [_row("supervised", 0.5), _row("supervised", 1.0, share=0.9)]
    mixed = {"all": ()}
    with pytest.raises(ValueError, match="class_share"):
        methods_down(rows, across=(), columns=mixed, cell=lambda cell: mean_of(cell, "auroc"))


def test_pipes_do_not_end_a_cell_and_lines_fit_the_head():
    assert markdown_table(["a"], [["P(x|y)"]]).splitlines()[2] == r"| P(x\|y) |"
    with pytest.raises(ValueError, match="2 cells, the head 1"):
        markdown_table(["a"], [["1", "2"]])


def test_a_mean_over_some_of_the_seeds_says_of_how_many():
    rows = [_row("e2h", 0.75), _row("e2h", float("nan"), seed=1), _row("e2h", 1.0, seed=2)]
    table = _by_share(rows, [0.5], lambda cell: mean_of(cell, "auroc"))
    assert "| E2H | 0.88 (2 of 3 seeds) |" in table
