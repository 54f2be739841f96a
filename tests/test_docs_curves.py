"""The figure of how facts came to be judged: what it takes from training's histories, and draws."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from experiment_scripts import DOCS, script


@pytest.fixture(scope="module")
def curves() -> Iterator[ModuleType]:
    with script("pocket_curves", DOCS) as module:
        yield module


@pytest.fixture
def runs(tmp_path) -> Path:
    for seed in (0, 2):
        measures = [
            {"phase": phase, "tokens": n * 10**6, "checked/arithmetic": 0.9, "checked/facts": facts}
            for n, (phase, facts) in enumerate([("lines", 0.5), ("checks", 0.7 + seed / 10)], 1)
        ]
        history = {"settings": {"seed": seed}, "progress": {"measures": measures}}
        (tmp_path / f"run{seed}").mkdir()
        (tmp_path / f"run{seed}/training.json").write_text(json.dumps(history))
    return tmp_path


def test_every_measurement_of_every_seed_is_a_row(curves, runs):
    rows = curves.histories(runs, "now")
    assert list(zip(rows["seed"], rows["tokens"], rows["facts"], strict=True)) == [
        *((0, 1.0, 0.5), (0, 2.0, 0.7)),
        *((2, 1.0, 0.5), (2, 2.0, pytest.approx(0.9))),
    ]
    assert set(rows["recipe"]) == {"now"}


def test_recipes_are_panels_and_seeds_are_lines(curves, runs):
    both = pd.concat([curves.histories(runs, recipe) for recipe in ("then", "now")])
    figure = curves.facts_figure(both)
    assert [axes.get_title() for axes in figure.axes] == ["Facts judged then", "Facts judged now"]
    for axes in figure.axes:
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        assert drawn == {"seed 0": [0.5, 0.7], "seed 2": [0.5, pytest.approx(0.9)]}


def test_taking_a_recipe_again_replaces_it(curves, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "ROWS", tmp_path / "rows.parquet")
    monkeypatch.setattr(curves, "FIGURE", tmp_path / "figure.svg")
    for recipe in ("then", "now", "now"):
        curves.main(curves.Settings(take=runs, recipe=recipe))
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows["recipe"].value_counts().to_dict() == {"then": 4, "now": 4}
    assert "<svg" in (tmp_path / "figure.svg").read_text(encoding="utf-8")


def test_a_folder_without_histories_and_a_recipe_without_a_name_are_refused(curves, tmp_path):
    with pytest.raises(ValueError, match=r"recipe is empty(.|\n)*has no \*/training\.json"):
        curves.histories(tmp_path, "")
