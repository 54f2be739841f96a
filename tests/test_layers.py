"""The layers experiment as a user runs it, on a tiny random model of two blocks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from experiment_scripts import NO_PROMPTS, run, script

from jelicit import figures
from jelicit.results import Record
from jelicit.studies import layers as study

pytest.importorskip("torch", reason="the experiment needs the extract extra")

WORDS = (
    *("--dataset", "pocket/arithmetic", "--max-rows", "60", "--seeds", "2", "--boot", "20"),
    *("--methods", "pca", "supervised"),
)


@pytest.fixture(scope="module")
def layers():
    with script("layers") as found:
        yield found


def test_every_layer_has_the_rows_that_salience_has_there(layers, random_model, tmp_path):
    paths = {"model": random_model, "stores": tmp_path / "stores"}
    done = run(layers, *WORDS, **paths, out=tmp_path / "all")
    rows = done.rows
    assert set(rows["layer"]) == {0, 1, 2}
    assert set(rows["feature"]) == {"none", "sycophancy"}
    assert "AUROC on truth by layer: pocket/arithmetic, none" in done.printed
    spurious = "AUROC on the spurious label by layer: pocket/arithmetic, sycophancy"
    assert spurious in done.printed
    assert "best CCS AUROC on train rows" in done.printed
    assert (done.out / "layers-pocket-arithmetic.png").stat().st_size > 10_000
    assert Record.read(done.out).figures == ("layers-pocket-arithmetic.svg",)
    assert (done.out / "report.html").is_file()
    one = ("--layers", "2", "--features", "sycophancy", *NO_PROMPTS)
    with script("salience") as salience:
        alone = run(salience, *WORDS, *one, **paths, out=tmp_path / "one")
    key = ["method", "orientation", "seed", "role"]
    expected = alone.rows.set_index(key)["auroc"]
    found = rows[(rows["layer"] == 2) & (rows["feature"] == "sycophancy")].set_index(key)["auroc"]
    assert set(found.index) == set(expected.index)
    np.testing.assert_allclose(found.loc[expected.index], expected, atol=1e-6)


def test_areas_on_elm_are_not_called_areas_on_truth(layers, random_model, tmp_path):
    words = ("--dataset", "pocket/facts", "--max-rows", "60", "--seeds", "1", "--boot", "20")
    paths = {"model": random_model, "stores": tmp_path / "stores"}
    asked = ("--methods", "pca", "--layers", "1")
    done = run(layers, *words, *asked, **paths, out=tmp_path / "out")
    assert "AUROC on truth by layer: pocket/facts, elm, asked for truth" in done.printed
    assert "AUROC on elm by layer: pocket/facts, truth, asked for elm" in done.printed
    assert "AUROC on truth by layer: pocket/facts, truth, asked for elm" not in done.printed
    drawn = (done.out / "layers-pocket-facts.svg").read_text(encoding="utf-8")
    assert drawn.count(">truth (asked for)<") == drawn.count(">elm (asked for)<") == 1


def test_what_reads_no_layer_is_drawn_as_a_line_across(monkeypatch):
    prompts = ("zero_shot", "zero_shot_calibrated", "golden_few_shot", "bootstrapped_calibrated")
    about = {"dataset": "d", "feature": "none", "role": "truth", "orientation": "none", "seed": 0}
    rows = pd.DataFrame(
        [
            {**about, "method": method, "layer": layer, "auroc": 0.6}
            for method in (*prompts, "control_length", "supervised")
            for layer in (1, 2)
        ]
    )
    monkeypatch.setattr(figures, "layers_figure", lambda shown: shown)
    drawn: Any = study.draw(rows, None)["layers-d"]  # type: ignore[arg-type]
    by_layer = drawn.groupby("method")["layer"].apply(list)
    assert by_layer.pop("supervised") == [1, 2]
    assert set(by_layer.index) == {*prompts, "control_length"}
    assert all(len(places) == 1 and np.isnan(places[0]) for places in by_layer)


def test_layers_that_are_none_are_refused(layers):
    settings = tyro.cli(layers.Settings, args=["--model", "nowhere/at-all", "--layers", "deep"])
    with pytest.raises(ValueError, match="--layers deep: allowed are numbers from 0"):
        layers.main(settings)
