"""The imbalance experiment as a user runs it, on a tiny random model of two blocks."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro
from random_pocket import export_random

from jelicit.data.datasets import load_dataset
from jelicit.data.items import labels
from jelicit.results import Results

pytest.importorskip("torch", reason="the experiment needs the extract extra")

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SHARES, SEEDS = (0.0, 0.5, 1.0), 2
WORDS = (
    *("--dataset", "pocket/arithmetic", "--max-rows", "80", "--seeds", str(SEEDS)),
    *("--methods", "ccs", "supervised", "e2h", "--shares", *map(str, SHARES)),
    *("--prompt-shares", "0.0", "1.0", "--shots", "1", "2", "--pool", "12", "--prompt-tests", "10"),
    *("--boot", "50", "--layers", "1"),
)


@pytest.fixture(scope="module")
def imbalance():
    before = set(sys.modules)
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        yield importlib.import_module("imbalance")
    finally:
        sys.path.remove(str(EXPERIMENTS))
        for name in ("imbalance", "common"):
            if name not in before:
                sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("imbalance")


@pytest.fixture(scope="module")
def run(imbalance, place):
    export_random(place / "model")

    def run(*words):
        common = ("--model", str(place / "model"), "--stores", str(place / "stores"))
        settings = tyro.cli(imbalance.Settings, args=[*common, "--out", str(place / "out"), *words])
        with imbalance.console.capture() as printed:
            imbalance.main(settings)
        return re.sub(r"\s+", " ", printed.get())

    return run


@pytest.fixture(scope="module")
def first(run, place):
    printed = run(*WORDS)
    folder = place / "out" / "rows"
    rows = pd.concat([Results(folder).read(path.stem) for path in folder.glob("*.parquet")])
    return printed, rows


def test_every_method_has_a_row_for_every_share_and_seed(first):
    _, rows = first
    for method, signs in (("ccs", 2), ("supervised", 1), ("e2h", 1)):
        mine = rows[rows["method"] == method]
        assert len(mine) == signs * len(SHARES) * SEEDS
        assert set(mine["class_share"]) == set(SHARES)
    for method in ("random_few_shot", "bootstrapped", "bootstrapped_consistent", "golden_few_shot"):
        mine = rows[rows["method"] == method]
        assert set(mine["class_share"]) == {0.0, 1.0}
        assert mine["layer"].isna().all()
        assert set(mine["n_train"]) == {12}
    zero = rows[rows["method"] == "zero_shot"]
    assert len(zero) == 1
    assert zero["class_share"].isna().all()
    assert rows["auroc"].between(0, 1).all()


def test_the_train_size_is_the_same_at_every_share(first):
    _, rows = first
    data = load_dataset("pocket/arithmetic", max_train=80, max_test=80)
    label = labels(data.train)
    least = int(min(np.sum(label == 1), np.sum(label == 0)))
    assert set(rows[rows["method"] == "ccs"]["n_train"]) == {least}


def test_tables_figures_and_reuse(first, run, place):
    printed, _ = first
    assert "by share of true claims in train" in printed
    assert "Golden few-shot" in printed
    figure = place / "out" / "imbalance-pocket-arithmetic.png"
    assert figure.stat().st_size > 10_000
    assert "reused" in run(*WORDS)


def test_commands_are_asked_whether_they_are_safe(imbalance):
    settings = imbalance.Settings(max_rows=40)
    plan = imbalance.plan("pocket/commands", settings)
    assert (plan.target, plan.format, plan.shares) == ("safe", "commands/safe", (0.5, 0.99, 1.0))
    assert len(imbalance.plan("pocket/arithmetic", settings).shares) == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shares", "1.5"), "--shares (1.5,): allowed are numbers from 0 to 1"),
        (("--prompting", "magic"), "--prompting magic is unknown"),
        (("--shots", "0"), "--shots 0: allowed are whole numbers from 1"),
        (("--layers", "deep"), "--layers deep: give numbers, or best alone"),
        (("--pool", "1"), "--pool 1: allowed are whole numbers from 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(imbalance, words, message):
    settings = tyro.cli(imbalance.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        imbalance.main(settings)


def test_a_set_of_one_class_is_refused(imbalance):
    with pytest.raises(ValueError, match="both values"):
        imbalance.plan("pocket/opinions", imbalance.Settings(max_rows=40))
