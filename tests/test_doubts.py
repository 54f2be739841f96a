"""What is told of fits whose train rows are too few to be stopped early on, or all alike."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jelicit import Grid, Pairs, run_grid
from jelicit.probes.config import SweepConfig
from jelicit.probes.sweep.doubts import doubts, unsigned
from jelicit.studies import session as module
from jelicit.studies.session import Session
from jelicit.studies.situation import Runs

LEARNERS = ("supervised", "e2h", "ccs", "pca")


def told(*, rows: int, easy: int = 100, **settings) -> list[str]:
    subsets = np.zeros((2, 200), bool)
    subsets[0] = True
    subsets[1, :rows] = True
    return doubts(SweepConfig(methods=LEARNERS, **settings), subsets, easy_rows=easy)


def test_a_run_that_stops_by_four_items_is_told_with_the_numbers():
    (line,) = told(rows=20)
    assert line.startswith("supervised: 4 of 20 train items are held out")


def test_the_easy_set_counts_for_what_learns_there():
    (line,) = told(rows=100, easy=30)
    assert line.startswith("e2h: 6 of 30 ")
    assert told(rows=100, easy=0) == []


def test_nothing_is_told_of_enough_rows():
    assert told(rows=50, easy=50) == []


def test_a_larger_share_holds_enough_out():
    assert told(rows=20, validation_share=0.5) == []
    assert told(rows=20, validation_share=np.array([0.5, 0.2]))[0].startswith("supervised: 4 of 20")


def test_a_study_tells_it_before_it_fits(monkeypatch):
    said: list[str] = []

    def fitted(*_: Any, **__: Any) -> None:
        assert (
            said == [line for line in said if line.startswith("Sums: supervised: 4 of 20 ")] != []
        )
        raise KeyboardInterrupt

    settings = SimpleNamespace(fit=SimpleNamespace(config=lambda names: SweepConfig(methods=names)))
    folder: Any = SimpleNamespace(fits=lambda _: None)
    monkeypatch.setattr(module, "measure", fitted)
    monkeypatch.setattr(Session, "say", lambda _, line: said.append(line))
    session = Session(Any, settings, folder, Any)  # type: ignore[arg-type]
    situation: Any = SimpleNamespace(title="Sums", easy=None)
    runs = Runs(about=({"seed": 0},), subsets=np.ones((1, 20), bool))
    with pytest.raises(KeyboardInterrupt):
        session.probes(situation, runs, Any, ("supervised",), Any)  # type: ignore[arg-type]


def test_labels_that_are_all_alike_pick_no_sign():
    config = SweepConfig(methods=("ccs", "pca", "supervised"))
    labels = np.array([1, 1, 0, 0, np.nan])
    both, true, unknown = [1, 0, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 1]
    subsets = np.array([both, true, unknown], bool)
    (line,) = unsigned(config, subsets, labels)
    assert line.startswith("ccs, pca: in 2 of 3 runs all train labels are alike and pick no sign")
    assert unsigned(config, subsets[:1], labels) == []
    assert unsigned(SweepConfig(methods=("supervised",)), subsets, labels) == []


def test_a_grid_says_where_labels_pick_no_sign():
    rng = np.random.default_rng(0)
    pairs = Pairs(*rng.normal(size=(2, 24, 4)).astype(np.float32))
    labels = np.arange(24) % 2
    easy = {"easy": pairs, "easy_labels": labels}

    def said(**changes):
        grid = Grid(methods=("pca",), seeds=(0,), class_shares=(0.0, 0.5), **changes)
        result = run_grid(grid, pairs, labels, test=pairs, test_labels=labels, boot=3, **easy)
        return [line for line in result.doubts if "pick no sign" in line]

    (line,) = said()
    assert "pca: in 1 of 2 runs" in line
    assert said(orientations=("easy",)) == []
