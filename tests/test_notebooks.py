"""The notebooks run from top to bottom, and say what they did when they were written."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs/notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the pocket model wants the extract extra")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells(notebook):
        exec("".join(cell["source"]), names)
    card = names["card"].set_index(["challenge", "method"])
    # The text says of these what they show.
    assert card.loc[("plain", "turned_mean"), "verdict"] == "survives"
    assert card.loc[("salience", "turned_mean"), "auroc"] < 0.85
    assert names["rows"].groupby("method")["auroc"].mean()["turned_mean"] > 0.9


def test_there_are_notebooks():
    assert NOTEBOOKS
