"""Tables of the manual and the README are what the committed rows say, and nothing else."""

import json
import re
from collections.abc import Iterator
from types import ModuleType

import pandas as pd
import pytest
from experiment_scripts import DOCS, script

from jelicit.results import Finding, Record, Results


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    with script("make_tables", DOCS) as module:
        yield module


def test_every_page_is_as_its_rows_say(tables):
    shown = 0
    for page in tables.pages():
        text = page.read_text(encoding="utf-8")
        shown += len(tables.MARKER.findall(text))
        assert not re.search(r"\| (None|nan) \|", text), f"{page}: a table shows a missing value"
        assert tables.with_tables(text, name=page.name) == text, (
            f"{page}: write it anew with `python docs/make_tables.py`"
        )
    assert shown >= 10


def test_every_table_stands_on_some_page(tables):
    text = "".join(page.read_text(encoding="utf-8") for page in tables.pages())
    assert set(re.findall(r"<!-- table: ([\w-]+) -->", text)) == set(tables.TABLES)


def test_a_number_that_was_typed_is_overwritten(tables):
    page = "before\n<!-- table: card-kinds -->\n| CCS | 1.23 |\n<!-- end -->\nafter\n"
    written = tables.with_tables(page, name="page.md")
    assert "1.23" not in written
    assert written.startswith("before\n")
    assert written.endswith("<!-- end -->\nafter\n")
    card = json.loads((tables.ROOT / "extract/pocket/card.json").read_text(encoding="utf-8"))
    assert f"| Arithmetic | {card['zero_shot_accuracy']['arithmetic']:.2f} |" in written


def test_unknown_and_unfinished_tables_are_refused(tables):
    with pytest.raises(ValueError, match="no table 'nonsense'"):
        tables.with_tables("<!-- table: nonsense -->\n<!-- end -->", name="page.md")
    with pytest.raises(ValueError, match=r"page\.md: 1 tables begin, 0"):
        tables.with_tables("<!-- table: findings -->\n", name="page.md")


def test_rows_of_a_run_folder_are_taken_without_what_no_table_needs(tables, tmp_path, monkeypatch):
    folder = tmp_path / "runs/transfer"
    row = {"dataset": "d", "method": "ccs", "orientation": "oracle", "seed": 0, "auroc": 0.5}
    Results(folder / "rows").write("new", [row], {"steps": 7})
    Results(folder / "rows").write("left-over", [row | {"auroc": 0.1}], {"steps": 8})
    finding = Finding(claim="c", measured="m", appears=None)
    Record(
        **dict.fromkeys(("title", "lead", "machine"), "x"),
        experiment="transfer",
        command="python experiments/transfer.py",
        seconds=1.0,
        versions={"jax": "1"},
        settings={},
        runs=("new",),
        findings=(finding,),
    ).write(folder)
    monkeypatch.setattr(tables, "ROWS", tmp_path / "rows")
    assert list(tables.take(tmp_path / "runs")) == ["transfer"]
    taken = pd.read_parquet(tmp_path / "rows/transfer.parquet")
    assert taken["auroc"].tolist() == [0.5]
    assert not [column for column in taken if column.startswith("settings.")]


def test_a_folder_without_studies_is_refused(tables, tmp_path):
    with pytest.raises(ValueError, match="no finished study"):
        list(tables.take(tmp_path))
