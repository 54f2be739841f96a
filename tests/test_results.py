import dataclasses
import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jelicit.results import (
    Results,
    as_frame,
    asked_for,
    comparison_table,
    print_sweep,
    print_table,
    run_id,
    summarise,
    sweep_table,
)


@dataclasses.dataclass(frozen=True)
class CCSSettings:
    rate: float = 0.01
    restarts: int = 1


@dataclasses.dataclass(frozen=True)
class E2HSettings:
    rate: float = 0.01
    restarts: int = 1


SETTINGS = {
    "model": "pocket",
    "layers": (18, 20),
    "probe": {"ccs": CCSSettings(), "temperature": 0.1, "scale": None},
    "seeds": [0, 1, 2],
}


def row(**changes):
    point = {
        "method": "ccs",
        "dataset": "gsm8k",
        "feature": "sycophancy",
        "target": "truth",
        "role": "truth",
        "orientation": "oracle",
        "layer": 18,
        "seed": 0,
        "auroc": 0.75,
        "auroc_low": 0.7,
        "auroc_high": 0.8,
    }
    return point | changes


# Identity


@pytest.mark.parametrize(
    "changed",
    [
        SETTINGS | {"model": "other"},
        SETTINGS | {"layers": (18, 21)},
        SETTINGS | {"layers": (20, 18)},
        SETTINGS | {"seeds": [0, 1]},
        SETTINGS | {"probe": SETTINGS["probe"] | {"ccs": CCSSettings(rate=0.02)}},
        SETTINGS | {"probe": SETTINGS["probe"] | {"ccs": CCSSettings(restarts=2)}},
        SETTINGS | {"probe": SETTINGS["probe"] | {"ccs": E2HSettings()}},
        SETTINGS | {"probe": SETTINGS["probe"] | {"temperature": np.nextafter(0.1, 1)}},
        SETTINGS | {"probe": SETTINGS["probe"] | {"temperature": "0.1"}},
        SETTINGS | {"probe": SETTINGS["probe"] | {"scale": False}},
        {name: value for name, value in SETTINGS.items() if name != "seeds"},
        SETTINGS | {"new": None},
    ],
)
def test_any_changed_setting_changes_the_run_id(changed):
    assert run_id(changed, "digest", "1.0") != run_id(SETTINGS, "digest", "1.0")


def test_data_and_version_change_the_run_id():
    ids = {
        run_id(SETTINGS, d, v) for d in ("digest", "other digest") for v in ("1.0", "1.1", "digest")
    }
    assert len(ids) == 6


def test_what_says_the_same_has_the_same_run_id():
    reordered = {
        "seeds": (np.int64(0), jnp.int32(1), 2),
        "probe": {"scale": None, "temperature": np.float64(0.1), "ccs": CCSSettings()},
        "layers": np.array([18, 20]),
        "model": Path("pocket"),
    }
    assert run_id(reordered, "digest", "1.0") == run_id(SETTINGS, "digest", "1.0")


def test_run_ids_do_not_change_between_processes():
    code = "from jelicit.results import run_id; print(run_id({'b': {'x': .1}, 'a': 'y'}, 'd', 'v'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == run_id({"a": "y", "b": {"x": 0.1}}, "d", "v")


def test_settings_without_a_canonical_text_are_refused_by_name():
    with pytest.raises(ValueError, match=r"settings\.probe\.loss\[1\] is a function"):
        run_id({"probe": {"loss": [1, lambda x: x]}}, "d", "v")
    with pytest.raises(ValueError, match=r"settings\.kinds is a set"):
        run_id({"kinds": {"a", "b"}}, "d", "v")
    with pytest.raises(ValueError, match=r"settings\.rates has the key 18"):
        run_id({"rates": {18: 0.1}}, "d", "v")
    with pytest.raises(ValueError, match="data_digest is empty"):
        run_id({}, "", "v")


# Files


def test_rows_read_back_as_they_were_written(tmp_path):
    results = Results(tmp_path / "new" / "folder")
    rows = [
        row(auroc=np.float32(0.1), seed=jnp.int32(3), auroc_high=jnp.nan),
        row(auroc=jnp.asarray(0.3), layer=None, note="no layer"),
    ]
    results.write("r1", rows, SETTINGS)
    read = results.read("r1")
    assert read["auroc"].tolist() == [float(np.float32(0.1)), float(np.float32(0.3))]
    assert read["seed"].tolist() == [3, 0]
    assert read["auroc_high"].isna().tolist() == [True, False]
    assert read["layer"].isna().tolist() == [False, True]
    assert read["method"].tolist() == ["ccs", "ccs"]
    assert read["note"].isna().tolist() == [True, False]
    results.write("r1", read, SETTINGS)  # what was read can be written
    pd.testing.assert_frame_equal(results.read("r1"), read)


def test_every_row_carries_every_setting(tmp_path):
    results = Results(tmp_path)
    results.write("r1", [row(), row(seed=1)], SETTINGS)
    read = results.read("r1")
    expected = {
        "run_id": "r1",
        "settings.model": "pocket",
        "settings.layers": "[18, 20]",
        "settings.probe.ccs.class": "CCSSettings",
        "settings.probe.ccs.rate": 0.01,
        "settings.probe.ccs.restarts": 1,
        "settings.probe.temperature": 0.1,
        "settings.seeds": "[0, 1, 2]",
    }
    for name, value in expected.items():
        assert read[name].tolist() == [value, value], name
    assert read["settings.probe.scale"].isna().tolist() == [True, True]
    nested = results.settings("r1")
    assert nested["probe"]["ccs"] == {"class": "CCSSettings", "rate": 0.01, "restarts": 1}
    metadata = pq.read_schema(tmp_path / "r1.parquet").metadata
    assert json.loads(metadata[b"jelicit"])["settings"] == nested


def test_settings_read_back_give_the_same_run_id(tmp_path):
    results = Results(tmp_path)
    results.write("r1", [row()], SETTINGS)
    assert run_id(results.settings("r1"), "d", "v") == run_id(SETTINGS, "d", "v")


def test_the_table_holds_all_runs(tmp_path):
    results = Results(tmp_path)
    results.write("b", [row(auroc=0.2)], {"rate": 1})
    results.write("a", [row(auroc=0.1, layer=None), row(auroc=0.3)], {"rate": 0.5, "note": None})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = results.table()
    assert table["run_id"].tolist() == ["a", "a", "b"]
    assert table["auroc"].tolist() == [0.1, 0.3, 0.2]
    assert table["settings.rate"].tolist() == [0.5, 0.5, 1.0]
    assert results.has("a")
    assert not results.has("c")


def test_a_rewritten_run_replaces_the_old_rows(tmp_path):
    results = Results(tmp_path)
    results.write("a", [row(), row(seed=1)], {})
    results.write("a", [row(auroc=0.5)], {})
    assert results.table()["auroc"].tolist() == [0.5]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for folder in ("x", "y"):
        Results(tmp_path / folder).write("a", [row()], SETTINGS)
    assert (tmp_path / "x/a.parquet").read_bytes() == (tmp_path / "y/a.parquet").read_bytes()


def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.write("a", [row(auroc=0.1)], {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="disk full"):
            results.write(name, [row(auroc=0.9)], {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert results.table()["auroc"].tolist() == [0.1]


def test_a_killed_write_leaves_no_run(tmp_path):
    results = Results(tmp_path)
    results.write("a", [row(auroc=0.1)], {})
    code = (
        "import os, sys; from jelicit.results import Results\n"
        "os.fsync = lambda file: os._exit(9)  # killed outright: nothing tidies up\n"
        "Results(sys.argv[1]).write(sys.argv[2], [{'auroc': 0.9}], {})"
    )
    for name in ("a", "b"):
        command = [sys.executable, "-c", code, str(tmp_path), name]
        assert subprocess.run(command, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 3  # two drafts are left over, and are no runs
    assert not results.has("b")
    assert results.table()["auroc"].tolist() == [0.1]


def test_a_reader_of_the_old_rows_never_sees_half_of_the_new(tmp_path):
    results = Results(tmp_path)
    results.write("a", [row()], {})
    before = (tmp_path / "a.parquet").read_bytes()
    with (tmp_path / "a.parquet").open("rb") as reader:
        results.write("a", [row(auroc=0.5), row(seed=1)], {})
        assert reader.read() == before  # the old file was replaced, not overwritten


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    results = Results(tmp_path)
    results.write("good", [row()], {})
    results.write("bad", [row()], {})
    data = (tmp_path / "bad.parquet").read_bytes()
    end = int(len(data) * kept) if isinstance(kept, float) else kept
    (tmp_path / "bad.parquet").write_bytes(data[:end])
    with pytest.raises(ValueError, match=r"bad\.parquet is truncated or no results file"):
        results.table()
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        results.read("bad")


def test_a_flipped_bit_is_noticed(tmp_path):
    results = Results(tmp_path)
    results.write("a", [row(auroc=0.123)], {})
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(np.float64(0.123).tobytes())] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet is truncated or no results file"):
        results.table()


def test_foreign_and_renamed_files_are_refused(tmp_path):
    results = Results(tmp_path)
    results.write("a", [row()], {})
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet holds run a"):
        results.table()
    pd.DataFrame([row()]).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet is truncated or no results file"):
        results.table()


def test_missing_runs_and_folders_are_named(tmp_path):
    results = Results(tmp_path)
    assert results.table().empty
    with pytest.raises(FileNotFoundError, match=r"nothing\.parquet"):
        results.read("nothing")
    with pytest.raises(FileNotFoundError, match="typo"):
        Results(tmp_path / "typo").table()
    with pytest.raises(ValueError, match="cannot name a file"):
        results.has("../secret")


def test_rows_that_are_not_tidy_are_refused(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(ValueError, match="there are no rows to write"):
        results.write("a", [], {})
    with pytest.raises(ValueError, match="column auroc holds a list"):
        results.write("a", [row(auroc=np.ones(3))], {})
    with pytest.raises(ValueError, match="column layer mixes types"):
        results.write("a", [row(), row(layer="last")], {})
    with pytest.raises(ValueError, match=r"column settings\.rate is 1 in a row but 2 in the sett"):
        results.write("a", [row() | {"settings.rate": 1}], {"rate": 2})
    assert not results.has("a")


def test_results_on_object_storage():
    results = Results("memory://bucket/results")
    results.write("a", [row(auroc=0.1)], SETTINGS)
    results.write("b", [row(auroc=0.2)], SETTINGS)
    again = Results("memory://bucket/results/")
    assert again.has("b")
    assert again.table()["auroc"].tolist() == [0.1, 0.2]
    with pytest.raises(FileNotFoundError, match=r"memory://bucket/results/c\.parquet"):
        again.read("c")
    with pytest.raises(FileNotFoundError, match="memory://bucket/typo"):
        Results("memory://bucket/typo").table()


# Summaries


def test_summary_by_hand():
    rows = [
        row(seed=0, auroc=0.6, auroc_low=0.5, auroc_high=0.7),
        row(seed=1, auroc=0.8, auroc_low=0.7, auroc_high=0.9),
        row(seed=2, auroc=np.nan, auroc_low=np.nan, auroc_high=np.nan),
        row(method="zero_shot", layer=None, seed=None, auroc=0.9),
    ]
    points = summarise(rows, by=["method", "layer"], value="auroc")
    assert points["method"].tolist() == ["ccs", "zero_shot"]
    assert points["n"].tolist() == [2, 1]
    np.testing.assert_allclose(points["mean"], [0.7, 0.9])
    np.testing.assert_allclose(points["sd"], [np.sqrt(0.02), np.nan])
    np.testing.assert_allclose(points["low"], [0.6, 0.7])
    np.testing.assert_allclose(points["high"], [0.8, 0.8])


def test_an_average_never_mixes_settings():
    rows = [row(), row(seed=1), row(layer=20), row(seed=1, layer=20)]
    with pytest.raises(ValueError, match=r"method=ccs, seed=0 but differ in layer \[18, 20\]"):
        summarise(rows, by=["method"], value="auroc")
    assert summarise(rows, by=["method", "layer"], value="auroc")["n"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="repeated rows"):
        summarise([row(), row(auroc=0.1)], by=["method"], value="auroc")
    with pytest.raises(ValueError, match="the rows have no column share; they have method, "):
        summarise(rows, by=["share"], value="auroc")
    with pytest.raises(ValueError, match="there are no rows"):
        summarise([], by=["method"], value="auroc")


def both_roles(**changes):
    return [
        row(role="truth", auroc=0.91, **changes),
        row(role="spurious", auroc=0.27, **changes),
    ]


def text_of(renderable, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_truth_and_spurious_stand_side_by_side():
    rows = both_roles(seed=0) + both_roles(method="zero_shot", orientation="none", feature=None)
    rows += [row(role="truth", auroc=0.81, seed=1), row(role="spurious", auroc=0.27, seed=1)]
    lines = text_of(comparison_table(rows)).splitlines()
    (ccs,) = (line.split("│")[1:-1] for line in lines if "CCS" in line)
    assert [cell.strip() for cell in ccs] == ["CCS *", "0.86 ±0.07", "0.27 ±0.00", "", ""]
    (zero_shot,) = (line.split("│")[1:-1] for line in lines if "Zero-shot" in line)
    assert [cell.strip() for cell in zero_shot] == ["Zero-shot", "", "", "0.91", "0.27"]
    assert any("oracle" in line for line in lines)
    assert lines.index(next(x for x in lines if "Zero-shot" in x)) < lines.index(
        next(x for x in lines if "CCS" in x)
    )


def test_the_label_that_is_asked_for_heads_its_column():
    told = {"truth": "elm", "spurious": "truth"}
    elm = [r | {"target": told[r["role"]]} for r in both_roles(feature="elm asked")]
    none = [row(feature=None, role="truth", target="truth")]
    text = text_of(comparison_table([*elm, *none]))
    (heads,) = (line.split() for line in text.splitlines() if "spurious" in line)
    assert [word for word in heads if word.isalpha()] == ["Method", "elm", "spurious", "truth"]
    assert asked_for(elm) == "elm"
    assert asked_for([*elm, *none]) == "asked for"
    assert asked_for(both_roles()) == "truth"


def test_a_column_of_nothing_is_left_out():
    rows = [*both_roles(), row(feature=None), row(feature=None, seed=1, auroc=0.5)]
    lines = text_of(comparison_table(rows)).splitlines()
    (ccs,) = (line.split("│")[1:-1] for line in lines if "CCS" in line)
    cells = sorted(cell.strip() for cell in ccs)
    # Truth and feature where one was added, truth alone where none was.
    assert cells == sorted(["CCS *", "0.91", "0.27", "0.62 ±0.18"])


def test_a_setting_stands_across_and_what_does_not_depend_on_it_in_every_column():
    rows = [
        {"method": "ccs", "orientation": "oracle", "seed": seed, "share": share, "auroc": area}
        for share, areas in ((0.5, (0.6, 0.8)), (0.0, (0.5, 0.5)))
        for seed, area in enumerate(areas)
    ]
    rows.append(
        {"method": "zero_shot", "orientation": "none", "seed": 0, "share": np.nan, "auroc": 0.9}
    )
    console = Console(width=60, record=True)
    console.print(sweep_table(rows, across="share"))
    lines = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["Zero-shot", "0.90", "0.90"] in lines
    assert ["CCS", "*", "0.50", "0.70"] in lines
    narrow = Console(width=22, record=True)
    print_sweep(rows, across="share", console=narrow)
    assert narrow.export_text().count("Zero-shot") == 2


def test_a_mean_says_of_how_many_it_is_where_some_are_missing():
    rows = [row(seed=seed, auroc=area) for seed, area in enumerate((0.8, np.nan, 0.9))]
    rows += [row(method="pca", seed=seed, auroc=np.nan) for seed in range(3)]
    rows += [row(method="random", seed=seed, auroc=0.5) for seed in range(3)]
    points = summarise(rows, by=["method"], value="auroc")
    assert points[["n", "of"]].to_numpy().tolist() == [[2, 3], [0, 3], [3, 3]]
    text = text_of(comparison_table([{**each, "role": "truth"} for each in rows]))
    assert "0.85 ±0.07 (2 of 3)" in text
    assert re.search(r"PCA \* +│ +nan ", text)
    assert "0.50 ±0.00 " in text
    assert text.count(" of 3") == 1
    across = text_of(sweep_table([{**each, "share": 0.5} for each in rows], across="share"))
    assert "0.85 (2 of 3)" in across


def test_names_are_no_markup_and_no_commands_for_the_terminal():
    named = row(role="truth", dataset="[red]\x1b[2J", feature="[bold]", method="[red]mine")
    text = text_of(comparison_table([named], title="[/] of \x1b[31m"))
    for shown in ("[red]\\x1b[2J", "[bold]", "[red]mine", "[/] of \\x1b[31m"):
        assert shown in text
    assert "\x1b" not in text


def test_a_wide_table_is_split_rather_than_cut():
    features = ["sycophancy", "punctuation", "tense", "republican"]
    rows = [r for feature in features for r in both_roles(feature=feature)]
    counts = {}
    for width in (200, 60):
        console = Console(width=width, record=True, file=io.StringIO())
        print_table(rows, console=console)
        text = console.export_text()
        assert "…" not in text
        assert text.count("0.91") == text.count("0.27") == 4
        counts[width] = text.count("Method")
    assert counts[200] == 1
    assert counts[60] > 1


def test_missing_features_and_orientations_read_none():
    frame = as_frame([row(feature=None, orientation=float("nan"))])
    assert frame.loc[0, ["feature", "orientation"]].tolist() == ["none", "none"]
