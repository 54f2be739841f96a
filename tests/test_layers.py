"""The layers experiment as a user runs it, on a tiny random model of two blocks."""

import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro
from random_pocket import export_random

from jelicit.results import Results

pytest.importorskip("torch", reason="the experiment needs the extract extra")

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
WORDS = (
    *("--dataset", "pocket/arithmetic", "--max-rows", "60", "--seeds", "2", "--boot", "20"),
    *("--methods", "pca", "supervised"),
)


def rows_in(folder):
    found = [Results(folder).read(path.stem) for path in folder.glob("*.parquet")]
    return pd.concat(found, ignore_index=True)


def test_every_layer_has_the_rows_that_salience_has_there(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    layers, salience = (importlib.import_module(name) for name in ("layers", "salience"))
    model = export_random(tmp_path / "model")
    common = ("--model", str(model), "--stores", str(tmp_path / "stores"), *WORDS)
    settings = tyro.cli(layers.Settings, args=[*common, "--out", str(tmp_path / "all")])
    with layers.console.capture() as printed:
        layers.main(settings)
    rows = rows_in(tmp_path / "all" / "rows")
    assert set(rows["layer"]) == {0, 1, 2}
    assert set(rows["feature"]) == {"none", "sycophancy"}
    text = re.sub(r"\s+", " ", printed.get())
    assert "AUROC on truth by layer: pocket/arithmetic, none" in text
    assert "AUROC on the spurious label by layer: pocket/arithmetic, sycophancy" in text
    assert "best CCS AUROC on train rows" in text
    assert (tmp_path / "all" / "layers-pocket-arithmetic.png").stat().st_size > 10_000
    one = ("--layers", "2", "--features", "sycophancy", "--out", str(tmp_path / "one"))
    salience.main(tyro.cli(salience.Settings, args=[*common, *one]))
    key = ["method", "orientation", "seed", "role"]
    expected = rows_in(tmp_path / "one" / "rows").set_index(key)["auroc"]
    found = rows[(rows["layer"] == 2) & (rows["feature"] == "sycophancy")].set_index(key)["auroc"]
    np.testing.assert_allclose(found.loc[expected.index], expected, atol=1e-6)


def test_layers_that_are_none_are_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    layers = importlib.import_module("layers")
    settings = tyro.cli(layers.Settings, args=["--model", "nowhere/at-all", "--layers", "deep"])
    with pytest.raises(ValueError, match="--layers deep: give numbers"):
        layers.main(settings)
