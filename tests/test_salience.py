"""The salience experiment as a user runs it, on a tiny random model of two blocks."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import tyro
from random_pocket import export_random
from sklearn.metrics import roc_auc_score

from jelicit.activations import ActivationStore
from jelicit.data.items import Item, labels, save_items
from jelicit.results import Results

pytest.importorskip("torch", reason="the experiment needs the extract extra")

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
METHODS = ("random", "e2h")
SEEDS, ROWS = 2, 80


@pytest.fixture(scope="module")
def salience() -> Any:
    """The script as a module; it finds its neighbours as it does when it is run."""
    before = set(sys.modules)
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        yield importlib.import_module("salience")
    finally:
        sys.path.remove(str(EXPERIMENTS))
        for name in ("salience", "common"):
            if name not in before:
                sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random pocket model in Hugging Face format."""
    return export_random(tmp_path_factory.mktemp("model") / "tiny")


class Done(NamedTuple):
    """What one command left."""

    printed: str
    rows: pd.DataFrame
    out: Path


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("salience")


@pytest.fixture(scope="module")
def run(salience: ModuleType, model: Path, place: Path) -> Run:
    def run(*words: str, out: str = "out") -> Done:
        folder = place / out
        common = ("--model", str(model), "--stores", str(place / "stores"), "--out", str(folder))
        methods = () if "--methods" in words else ("--methods", *METHODS)
        settings = tyro.cli(salience.Settings, args=[*common, *methods, *words])
        before = set(folder.glob("rows/*"))
        with salience.console.capture() as printed:
            salience.main(settings)
        new = sorted(set(folder.glob("rows/*")) - before)
        results = Results(folder / "rows")
        rows = [results.read(path.stem) for path in new]
        # Long paths are broken over lines where the console is narrow.
        text = re.sub(r"\s+", " ", printed.get())
        return Done(text, pd.concat(rows) if rows else pd.DataFrame(), folder)

    return run


WORDS = (
    *("--dataset", "pocket/arithmetic", "pocket/facts", "--features", "none", "sycophancy"),
    *("--seeds", str(SEEDS), "--max-rows", str(ROWS), "--boot", "50"),
)


@pytest.fixture(scope="module")
def first(run: Run) -> Done:
    return run(*WORDS)


def files(*folders: Path) -> dict[Path, bytes]:
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths}


def joined(text: str) -> str:
    return re.sub(r"\s+", "", text)


# ------------------------------------------------------------- one command


def test_rows_and_figures_are_written_and_their_paths_printed(first):
    figures = sorted(path.name for path in first.out.glob("salience-*"))
    stems = ("salience-all", "salience-pocket-arithmetic", "salience-pocket-facts")
    assert figures == [f"{stem}.{end}" for stem in stems for end in ("png", "svg")]
    for name in figures:
        content = (first.out / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
        assert joined(f"figure: {first.out / name}") in joined(first.printed)
    assert joined(f"rows: {first.out / 'rows'} ({len(first.rows)} of") in joined(first.printed)
    # Axis labels stay text, so a figure can be searched: its panels are the conditions.
    drawn = (first.out / "salience-pocket-arithmetic.svg").read_text(encoding="utf-8")
    assert "Sycophancy" in drawn
    assert "No added feature" in drawn


def test_every_condition_has_rows_of_every_method_in_both_roles(first):
    conditions = {
        ("pocket/arithmetic", "none", "truth"): {("truth", "truth")},
        ("pocket/arithmetic", "sycophancy", "truth"): {
            *(("truth", "truth"), ("sycophancy", "spurious"))
        },
        ("pocket/facts", "elm, asked for truth", "truth"): {
            *(("truth", "truth"), ("elm", "spurious"))
        },
        ("pocket/facts", "truth, asked for elm", "elm"): {
            *(("elm", "truth"), ("truth", "spurious"))
        },
    }
    by = ["dataset", "feature", "asked"]
    found = dict(iter(first.rows.groupby(by, sort=False)))
    assert set(found) == set(conditions)
    for key, panel in found.items():
        roles = set(zip(panel["target"], panel["role"], strict=True))
        assert roles == conditions[key]  # type: ignore[index]
        # The unsigned one twice, e2h once, each for every seed; zero-shot has no seeds.
        signs = panel.loc[panel["target"] == panel["target"].iloc[0]].groupby("method")
        assert signs["orientation"].agg(lambda o: tuple(sorted(set(o)))).to_dict() == {
            "random": ("easy", "oracle"),
            "e2h": ("none",),
            "zero_shot": ("none",),
        }
        expected = {"random": 2 * SEEDS, "e2h": SEEDS, "zero_shot": 1}
        assert signs.size().to_dict() == expected


def test_rows_have_what_tables_and_figures_need(first):
    rows = first.rows
    for name in ("auroc", "auroc_low", "auroc_high", "accuracy", "salience_truth"):
        assert rows[name].notna().all()
        assert rows[name].between(0, 1).all()
    with_feature = rows["feature"] != "none"
    assert (rows["salience_feature"].notna() == with_feature).all()
    assert (rows["auroc_low"] <= rows["auroc_high"]).all()
    assert set(rows["model"]) == {"tiny"}
    assert set(rows["n_test"]) <= set(range(ROWS // 2, ROWS + 1))
    probes = rows["method"] != "zero_shot"
    # 80 % of the largest subset that is balanced over label and feature: the runs of one seed
    # draw their own.
    assert set(rows.loc[probes, "n_train"]) == {64}
    assert set(rows.loc[~probes, "n_train"]) == {0}
    # One layer per set, the best one.
    assert (rows.groupby("dataset")["layer"].nunique() == 1).all()
    assert set(rows["layer"]) <= {1, 2}
    assert set(rows["settings.boot"]) == {50}
    assert set(rows["settings.seeds"]) == {SEEDS}


def test_targets_are_measured_on_the_labels_that_their_names_say(first, place):
    """The zero-shot rows, computed anew from the stores with scikit-learn."""
    asked = {
        "claim": {"truth": "label", "sycophancy": "sycophancy"},
        "facts/truth": {"truth": "label", "elm": "elm"},
        "facts/elm": {"truth": "label", "elm": "elm"},
    }
    stores = [ActivationStore.open(path.parent) for path in place.rglob("manifest.json")]
    checked = 0
    for store in stores:
        format, [item, *_] = store.spec.prompt_format["name"], store.items
        if item.split != "test" or item.dataset not in ("pocket/arithmetic", "pocket/facts"):
            continue
        scores = store.log_probs[:, 0] - store.log_probs[:, 1]
        rows = first.rows.loc[
            (first.rows["method"] == "zero_shot")
            & (first.rows["dataset"] == item.dataset)
            & (first.rows["asked"] == ("elm" if format == "facts/elm" else "truth"))
        ]
        if format == "claim":
            feature = "sycophancy" if "sycophancy" in item.alt_labels else "none"
            rows = rows.loc[rows["feature"] == feature]
        for row in rows.to_dict("records"):
            wanted = labels(store.items, asked[format][row["target"]])
            assert row["auroc"] == pytest.approx(roc_auc_score(wanted, scores), abs=1e-6)
            checked += 1
    assert checked == 7


# ------------------------------------------------------------- again


def test_the_same_command_again_reuses_and_writes_nothing_new(first, run, place):
    before = files(first.out, place / "stores")
    modified = {path: path.stat().st_mtime_ns for path in before if path.suffix == ".parquet"}
    again = run(*WORDS)
    assert again.rows.empty
    assert again.printed.count("reused") == 4
    assert files(first.out, place / "stores") == before
    assert modified == {path: path.stat().st_mtime_ns for path in modified}
    assert joined(f"({len(first.rows)} of this command)") in joined(again.printed)


ARITHMETIC = (
    *("--dataset", "pocket/arithmetic", "--features", "none"),
    *("--seeds", str(SEEDS), "--max-rows", str(ROWS)),
)


def test_fewer_train_rows_are_another_run(first, run):
    other = run(*ARITHMETIC, "--train-size", "32", "--boot", "50")
    assert "reused" not in other.printed
    key = ["method", "orientation", "seed", "target"]
    plain = first.rows.loc[
        (first.rows["dataset"] == "pocket/arithmetic") & (first.rows["feature"] == "none")
    ]
    both = plain.merge(other.rows, on=key, suffixes=("", "_other"))
    assert len(both) == len(plain) == len(other.rows)
    probes = both.loc[both["method"] != "zero_shot"]
    assert set(probes["n_train_other"]) == {32}
    assert (probes["auroc"] != probes["auroc_other"]).any()
    zero_shot = both.loc[both["method"] == "zero_shot"]
    for name in ("auroc", "auroc_low", "auroc_high"):
        np.testing.assert_array_equal(zero_shot[name], zero_shot[f"{name}_other"])


@pytest.mark.parametrize(
    "words",
    [
        ("--boot", "51"),
        ("--seeds", "3"),
        ("--train-size", "40"),
        ("--layers", "2"),
        ("--easy", "none"),
        ("--easy", "pocket/facts"),
        ("--methods", "random"),
        ("--max-rows", "76"),
        ("--features", "tense"),
        ("--token-budget", "4096"),
    ],
    ids=" ".join,
)
def test_any_other_setting_computes(run, salience, monkeypatch, words):
    """What is measured and drawn does not matter here, only whether it is."""
    measured = []
    settings = (*ARITHMETIC, "--boot", "50", "--layers", "1")

    def measure(panel: Any, *rest: Any) -> list[dict[str, Any]]:
        measured.append(panel.feature)
        shared = {"dataset": panel.dataset, "feature": panel.feature, "method": "random"}
        shared |= {"role": "truth", "orientation": "easy", "auroc": 0.5, "seed": 0}
        return [{**shared, "layer": 1, "salience_feature": np.nan}]

    monkeypatch.setattr(salience, "measure", measure)
    monkeypatch.setattr(salience, "draw", lambda rows, folder: [])
    run(*settings, out="stub")
    measured.clear()
    run(*settings, out="stub")
    assert not measured
    run(*settings, *words, out="stub")
    assert len(measured) == 1
    run(*settings, *words, out="stub")
    assert len(measured) == 1


# ------------------------------------------------------------- a folder of one's own


def liar_like(folder: Path) -> None:
    """100 statements a split: a fifth without a party, the others 20 of each cell."""
    for split in ("train", "test"):
        items = []
        for row in range(100):
            word = ("bread", "milk", "rent")[row % 3]
            items.append(
                Item(
                    id=f"{split}/{row}",
                    choice=f"The {word} in our town costs {row} dollars.",
                    label=(row % 5) % 2 == 0,
                    alt_labels={} if row % 5 == 4 else {"republican": (row % 5) // 2 == 0},
                )
            )
        save_items(folder / f"{split}.jsonl", items)


def test_a_folder_with_two_labels_is_asked_for_each_in_turn(run, place):
    liar_like(place / "liar")
    done = run(
        *("--dataset", str(place / "liar"), "--easy", "pocket/larger_than", "--layers", "1", "2"),
        *("--seeds", str(SEEDS), "--max-rows", "100", "--boot", "50", "--methods", "random"),
        out="folder",
    )
    panels = done.rows.groupby(["feature", "role"])["target"].unique().map(list).to_dict()
    assert panels == {
        ("republican, asked for truth", "truth"): ["truth"],
        ("republican, asked for truth", "spurious"): ["republican"],
        ("truth, asked for republican", "truth"): ["republican"],
        ("truth, asked for republican", "spurious"): ["truth"],
    }
    assert set(done.rows["dataset"]) == {"liar"}
    assert set(done.rows["layer"]) == {1, 2}
    # Each prompt asks in its own words.
    formats = {
        store.spec.prompt_format["name"]
        for path in place.rglob("manifest.json")
        if (store := ActivationStore.open(path.parent)).items[0].dataset == "liar"
    }
    assert formats == {"liar/truth", "liar/republican"}
    assert set(done.rows["n_test"]) == {80}  # items without a party are left out
    assert list(done.out.glob("salience-liar*.png"))


# ------------------------------------------------------------- mistakes


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200", "JAX_COMPILATION_CACHE_DIR": str(cwd / "compiled")}
    return subprocess.run(
        [sys.executable, str(EXPERIMENTS / "salience.py"), *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wrong_dataset_name_is_one_clear_error(tmp_path):
    done = command("--dataset", "pocket/arithmetics", "--model", "nowhere/at-all", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown dataset 'pocket/arithmetics'; did you mean ")
    assert "'pocket/arithmetic'" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "salience").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--features", "sarcasm"), "--features sarcasm is unknown; known: none, sycophancy"),
        (("--layers", "best", "2"), "--layers best 2: give numbers, or best alone"),
        (("--seeds", "0"), "--seeds 0: allowed are whole numbers from 1"),
        (("--layers", "9"), "layers [9]: the model has 2 blocks"),
        (("--easy", "pocket/arithmetic"), "the easy set of pocket/arithmetic is pocket/arithmetic"),
    ],
)
def test_settings_that_cannot_work_are_refused(run, words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(*ARITHMETIC, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--devices", "999"), "devices=999; this machine has"),
        (("--optimiser", "lbfgs", "--precision", "tf32"), "precision='tf32' with L-BFGS"),
        (("--restarts", "0"), "--restarts 0: allowed are whole numbers from 1"),
    ],
)
def test_fits_that_cannot_work_are_refused_before_any_model_is_loaded(salience, words, message):
    settings = tyro.cli(salience.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        salience.main(settings)


def test_fit_options_reach_every_sweep_and_name_the_run(salience, run, monkeypatch):
    seen, sweep = [], salience.sweep

    def watched(data, config):
        seen.append(config)
        return sweep(data, config)

    monkeypatch.setattr(salience, "sweep", watched)
    words = ("--dataset", "pocket/arithmetic", "--features", "none", "--layers", "1",
             "--seeds", "2", "--max-rows", "40", "--boot", "10")  # fmt: skip
    other = ("--optimiser", "lbfgs", "--divisor", "std", "--restarts", "2")
    run(*words, out="fits")
    found = run(*words, *other, out="fits")
    assert [(c.optimiser, c.divisor, c.restarts) for c in seen] == [
        ("adamw", "paper", 1),
        ("lbfgs", "std", 2),
    ]
    assert set(found.rows["settings.sweep.divisor"]) == {"std"}
    # What only decides how a sweep is cut up makes no other run.
    assert "reused" in run(*words, *other, "--memory-gb", "1", out="fits").printed
    assert len(seen) == 2


def test_everything_wrong_is_said_at_once(salience):
    settings = salience.Settings(methods=("magic",), boot=0, train_size=6)
    with pytest.raises(ValueError, match="--methods magic") as refused:
        salience.main(settings)
    assert "--boot 0" in str(refused.value)
    assert "--train-size 6" in str(refused.value)
