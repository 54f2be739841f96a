"""The salience experiment as a user runs it, on a tiny random model of two blocks."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import numpy as np
import pytest
import tyro
from experiment_scripts import EXPERIMENTS, FEW_PROMPTS, NO_PROMPTS, Done, joined, script
from experiment_scripts import run as run_script
from sklearn.metrics import roc_auc_score

from jelicit.activations import ActivationStore
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, labels, save_items
from jelicit.prompting import METHODS as PROMPTING
from jelicit.results import ItemScoreStore, Record
from jelicit.studies import measuring
from jelicit.studies.measuring import Measured
from jelicit.studies.session import Session

pytest.importorskip("torch", reason="the experiment needs the extract extra")

METHODS = ("random", "e2h")
SEEDS, ROWS = 2, 80
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def salience() -> Any:
    with script("salience") as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("salience")


@pytest.fixture(scope="module")
def run(salience: ModuleType, random_model: Path, place: Path) -> Run:
    def run(*words: str, out: str = "out") -> Done:
        methods = () if "--methods" in words else ("--methods", *METHODS)
        paths = {"stores": place / "stores", "out": place / out}
        return run_script(salience, *methods, *words, model=random_model, **paths)

    return run


WORDS = (
    *("--dataset", "pocket/arithmetic", "pocket/facts", "--features", "none", "sycophancy"),
    *("--seeds", str(SEEDS), "--max-rows", str(ROWS), "--boot", "50", *FEW_PROMPTS),
)


@pytest.fixture(scope="module")
def first(run: Run) -> Done:
    return run(*WORDS)


def files(*folders: Path) -> dict[Path, bytes]:
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths}


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
        # What has no seed is measured once. No control is the label that is asked for.
        controls = {"control_length"}
        controls |= {"sycophancy": {"control_sycophancy"}}.get(key[1], set())
        controls |= {"elm, asked for truth": {"control_elm"}}.get(key[1], set())
        once = {"zero_shot", *PROMPTING, *controls}
        # The unsigned one twice, e2h once, each for every seed.
        for _, of_target in panel.groupby("target"):
            methods = of_target.groupby("method")
            signs = methods["orientation"].agg(lambda o: tuple(sorted(set(o)))).to_dict()
            assert signs == {"random": ("easy", "oracle")} | dict.fromkeys(
                ("e2h", *once), ("none",)
            )
            expected = {"random": 2 * SEEDS, "e2h": SEEDS} | dict.fromkeys(once, 1)
            assert methods.size().to_dict() == expected


def test_rows_have_what_tables_and_figures_need(first):
    rows = first.rows
    for name in ("auroc", "auroc_low", "auroc_high", "accuracy", "salience_truth"):
        assert rows[name].notna().all()
        assert rows[name].between(0, 1).all()
    with_feature = rows["feature"] != "none"
    assert (rows["salience_feature"].notna() == with_feature).all()
    assert (rows["auroc_low"] <= rows["auroc_high"]).all()
    assert set(rows["model"]) == {"tiny"}
    prompted = rows["method"].isin(PROMPTING)
    assert set(rows.loc[prompted, "n_test"]) == {12}
    assert set(rows.loc[prompted, "n_train"]) == {10}
    rows = rows.loc[~prompted]
    assert set(rows["n_test"]) <= set(range(ROWS // 2, ROWS + 1))
    probes = rows["method"].isin(METHODS)
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
    """Rows of zero-shot prompting and of length, anew from the stores with scikit-learn."""
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
        scores = {
            "zero_shot": store.log_probs[:, 0] - store.log_probs[:, 1],
            "control_length": [len(item.choice) for item in store.items],
        }
        rows = first.rows.loc[
            first.rows["method"].isin(scores)
            & (first.rows["dataset"] == item.dataset)
            & (first.rows["asked"] == ("elm" if format == "facts/elm" else "truth"))
        ]
        if format == "claim":
            feature = "sycophancy" if "sycophancy" in item.alt_labels else "none"
            rows = rows.loc[rows["feature"] == feature]
        for row in rows.to_dict("records"):
            wanted = labels(store.items, asked[format][row["target"]])
            area = roc_auc_score(wanted, scores[row["method"]])
            assert row["auroc"] == pytest.approx(area, abs=1e-6)
            checked += 1
    assert checked == 14


def test_a_feature_alone_says_all_of_itself_and_nothing_of_the_truth(first):
    rows = first.rows.loc[first.rows["method"].isin(["control_sycophancy", "control_elm"])]
    assert set(rows.loc[rows["role"] == "spurious", "auroc"]) == {1.0}
    # Facts are balanced over label and feature; added features are drawn.
    truth = rows.loc[rows["role"] == "truth"].set_index("method")["auroc"]
    assert truth["control_elm"] == 0.5
    assert abs(truth["control_sycophancy"] - 0.5) < 0.3


def test_item_scores_are_what_the_rows_measure(first):
    store = ItemScoreStore(first.out / "items")
    for run, rows in first.rows.groupby("run_id"):
        found = store.read(str(run))
        label = found.items["label"].to_numpy()
        measured = rows.loc[(rows["role"] == "truth") & (rows["orientation"] == "none")]
        areas = measured.set_index("method")["auroc"]
        keys = [(each["method"], each["orientation"]) for each in found.settings]
        signs = [("random", "oracle"), ("random", "easy"), ("e2h", "none")]
        assert sorted(keys) == sorted(signs + [(m, "none") for m in ("zero_shot", *PROMPTING)])
        for (method, _), scores in zip(keys, found.scores.T, strict=True):
            scored = ~np.isnan(scores)
            prompted = method in PROMPTING
            assert scored.sum() == (12 if prompted else rows["n_test"].max())
            if prompted or method == "zero_shot":  # one seed: what was measured
                area = roc_auc_score(label[scored], scores[scored])
                assert areas[method] == pytest.approx(area, abs=1e-6)
                assert scores[scored].std() == pytest.approx(1, abs=1e-4)


def test_the_record_and_the_report_tell_of_this_command(first):
    record = Record.read(first.out)
    assert record.experiment == "salience"
    assert set(record.runs) == set(first.rows["run_id"])
    assert set(record.figures) == {path.name for path in first.out.glob("*.svg")}
    assert record.settings["max_rows"] == ROWS
    assert record.settings["run_on"]["model"].endswith("tiny")
    assert len(record.findings) == 5
    for finding in record.findings:
        assert joined(f"finding: {finding.claim}") in joined(first.printed)
    html = (first.out / "report.html").read_text(encoding="utf-8")
    assert record.title in html
    assert joined(f"report: {first.out / 'report.html'}") in joined(first.printed)


# ------------------------------------------------------------- again


def test_the_same_command_again_reuses_and_writes_nothing_new(first, run, place):
    def results() -> dict[Path, bytes]:
        found = files(first.out, place / "stores")
        return {path: content for path, content in found.items() if path.stem != "report"}

    before = results()
    modified = {path: path.stat().st_mtime_ns for path in before if path.suffix == ".parquet"}
    again = run(*WORDS)
    assert again.rows.empty
    assert again.printed.count("reused") == 4
    assert results() == before
    assert modified == {path: path.stat().st_mtime_ns for path in modified}
    assert joined(f"({len(first.rows)} of this command)") in joined(again.printed)


ARITHMETIC = (
    *("--dataset", "pocket/arithmetic", "--features", "none"),
    *("--seeds", str(SEEDS), "--max-rows", str(ROWS), *NO_PROMPTS),
)


def test_fewer_train_rows_are_another_run(first, run):
    other = run(*ARITHMETIC, "--train-size", "32", "--boot", "50")
    assert "reused" not in other.printed
    key = ["method", "orientation", "seed", "target"]
    plain = first.rows.loc[
        (first.rows["dataset"] == "pocket/arithmetic")
        & (first.rows["feature"] == "none")
        & ~first.rows["method"].isin(PROMPTING)
    ]
    both = plain.merge(other.rows, on=key, suffixes=("", "_other"))
    assert len(both) == len(plain) == len(other.rows)
    probes = both.loc[both["method"].isin(METHODS)]
    assert set(probes["n_train_other"]) == {32}
    assert (probes["auroc"] != probes["auroc_other"]).any()
    untrained = both.loc[~both["method"].isin(METHODS)]
    assert set(untrained["method"]) == {"zero_shot", "control_length"}
    for name in ("auroc", "auroc_low", "auroc_high"):
        np.testing.assert_array_equal(untrained[name], untrained[f"{name}_other"])


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
        (*FEW_PROMPTS, "--prompting", "random_few_shot"),
        ("--rule", "none", "--prompting", "bootstrapped_consistent"),
    ],
    ids=" ".join,
)
def test_any_other_setting_computes(run, salience, monkeypatch, words):
    """What is measured and drawn does not matter here, only whether it is."""
    measured = []
    settings = (*ARITHMETIC, "--boot", "50", "--layers", "1")

    def measure(session: Session, situation: Any, *rest: Any, **options: Any) -> Measured:
        measured.append(situation.feature)
        row = {"method": "random", "role": "truth", "orientation": "easy", "target": "truth"}
        # Without a layer: it stands beside the probes of each.
        return Measured([{**row, "auroc": 0.5, "seed": 0, "layer": float("nan")}])

    monkeypatch.setattr(Session, "methods", measure)
    monkeypatch.setattr(Session, "prompts", lambda *rest: Measured())
    study = salience.salience
    undrawn = replace(study.STUDY, figures=lambda *rest: {}, findings=lambda rows: ())
    monkeypatch.setattr(study, "STUDY", undrawn)
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
                    choice=f"The {word} in our {split} town costs {row} dollars.",
                    label=(row % 5) % 2 == 0,
                    alt_labels={} if row % 5 == 4 else {"republican": (row % 5) // 2 == 0},
                )
            )
        save_items(folder / f"{split}.jsonl", items)


@pytest.mark.slow
def test_a_folder_with_two_labels_is_asked_for_each_in_turn(run, place):
    liar_like(place / "liar")
    done = run(
        *("--dataset", str(place / "liar"), "--easy", "pocket/larger_than", "--layers", "1", "2"),
        *("--seeds", str(SEEDS), "--max-rows", "100", "--boot", "50", "--methods", "random"),
        *NO_PROMPTS,
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
        (("--features", "sarcasm"), "--features: unknown feature 'sarcasm'"),
        (("--layers", "best", "2"), "--layers best 2: allowed are numbers from 0 (embeddings) to"),
        (("--seeds", "0"), "--seeds 0: allowed are whole numbers from 1"),
        (("--layers", "9"), "--layers 9: tiny has 2 blocks, so allowed are 0"),
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
        (("--restarts", "0"), "--restarts 0: allowed are whole numbers from 1"),
    ],
)
def test_fits_that_cannot_work_are_refused_before_any_model_is_loaded(salience, words, message):
    settings = tyro.cli(salience.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        salience.main(settings)


@pytest.mark.slow
def test_fit_options_reach_every_sweep_and_name_the_run(run, monkeypatch):
    seen, sweep = [], measuring.sweep

    def watched(data, config, **rest):
        seen.append(config)
        return sweep(data, config, **rest)

    monkeypatch.setattr(measuring, "sweep", watched)
    words = ("--dataset", "pocket/arithmetic", "--features", "none", "--layers", "1",
             "--seeds", "2", "--max-rows", "40", "--boot", "10", *NO_PROMPTS,
             "--methods", "ccs")  # fmt: skip
    other = ("--precision", "tf32", "--divisor", "std", "--restarts", "2")
    run(*words, out="fits")
    found = run(*words, *other, out="fits")
    assert [(c.precision, c.divisor, c.restarts) for c in seen] == [
        ("float32", "paper", 1),
        ("tf32", "std", 2),
    ]
    assert set(found.rows["settings.sweep.divisor"]) == {"std"}
    # What only decides how a sweep is cut up makes no other run.
    assert "reused" in run(*words, *other, "--memory-gb", "1", out="fits").printed
    assert len(seen) == 2


def test_the_labels_of_every_round_are_kept(first):
    """Random ones first, then the model's own; the rows have the share of right ones at the end."""
    path = first.out / "rounds" / "pocket-arithmetic-sycophancy-labels.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rounds = {(line["method"], line["round"]): line for line in lines}
    both = {(m, r) for m in ("bootstrapped", "bootstrapped_consistent") for r in (0, 1)}
    assert set(rounds) == {("random_few_shot", 0), ("golden_few_shot", 0), *both}
    gold = {item.id: item.label for item in load_dataset("pocket/arithmetic", max_train=ROWS).train}
    for line in lines:
        made = {name.removesuffix("+sycophancy"): label for name, label in line["labels"].items()}
        assert len(made) == 10
        right = np.mean([gold[name] == label for name, label in made.items()])
        assert line["label_accuracy"] == pytest.approx(right)
    assert rounds["golden_few_shot", 0]["label_accuracy"] == 1.0
    rows = first.rows[(first.rows["feature"] == "sycophancy") & (first.rows["role"] == "truth")]
    kept = rows[rows["dataset"] == "pocket/arithmetic"].set_index("method")["label_accuracy"]
    assert kept["bootstrapped"] == rounds["bootstrapped", 1]["label_accuracy"]


def test_activations_may_be_kept_behind_a_url(salience, random_model, tmp_path):
    words = ("--dataset", "pocket/arithmetic", "--features", "none", "--layers", "1",
             "--seeds", "1", "--max-rows", "40", "--boot", "10", "--methods", "supervised",
             *NO_PROMPTS)  # fmt: skip
    places = (str(tmp_path / "stores"), "memory://salience/stores/")
    here, there = (
        run_script(
            salience, *words, model=random_model, stores=place, out=tmp_path / str(number)
        ).rows["auroc"]
        for number, place in enumerate(places)
    )
    assert here.tolist() == there.tolist()
    kept = fsspec.filesystem("memory").find("/salience/stores/tiny")
    assert any(name.endswith("manifest.json") for name in kept)
    assert not list(tmp_path.glob("memory*"))


@pytest.mark.slow
def test_labels_from_a_file_teach_with_a_feature_in_the_texts_too(run, place):
    """A claim is labelled once; the probe that learns from it is put to the test with features."""
    items = load_dataset("pocket/arithmetic", max_train=60).train[:20]
    save_items(place / "labels.jsonl", items)
    done = run(
        *("--dataset", "pocket/arithmetic", "--features", "none", "sycophancy", "--layers", "1"),
        *("--seeds", "1", "--max-rows", "60", "--boot", "10", "--methods", "random", *NO_PROMPTS),
        *("--labels", str(place / "labels.jsonl")),
        out="taught",
    )
    taught = done.rows[done.rows["method"] == "icm_supervised"]
    assert set(taught["feature"]) == {"none", "sycophancy"}
    assert set(taught["n_train"]) == {20}


@pytest.mark.parametrize(("trained", "shots"), [(512, (2, 8)), (8192, (2, 32)), (None, (2, 32))])
def test_examples_fit_the_length_that_a_model_was_trained_on(salience, tmp_path, trained, shots):
    fields = {} if trained is None else {"trained_length": trained}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    settings = tyro.cli(salience.Settings, args=["--model", str(tmp_path)])
    trained_length = settings.run_on.open().trained_length
    assert settings.for_model(trained_length).prompts.shots == shots


def test_a_folder_that_cannot_take_the_report_is_refused_before_any_model_is_loaded(
    salience, tmp_path
):
    def refused(out: str, *words: str) -> str:
        args = ["--model", "nowhere/at-all", "--dataset", "pocket/arithmetic", "--out", out, *words]
        with pytest.raises(ValueError, match="--out") as found:
            salience.main(tyro.cli(salience.Settings, args=args))
        return str(found.value)

    assert "a local folder only" in refused("s3://bucket/out")
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be written to" in refused(str(file))
    facts: dict[str, Any] = {"title": "", "lead": "", "command": "", "machine": ""}
    empty: dict[str, Any] = {"versions": {}, "settings": {}, "seconds": 0.0}
    lists: dict[str, Any] = {"runs": (), "figures": (), "findings": ()}
    Record(experiment="icm", **facts, **empty, **lists).write(tmp_path)
    assert "has the report of 'icm'" in refused(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "gpu"), "device 'gpu' is unknown to torch"),
        (("--threads", "0"), "threads is 0; allowed: 1 or more"),
    ],
)
def test_a_place_that_there_is_not_is_no_traceback(salience, run, words, message):
    with pytest.raises(ValueError, match=message):
        run("--dataset", "pocket/arithmetic", "--max-rows", "40", *words, out="nowhere")


def test_everything_wrong_is_said_at_once(salience):
    wrong: Any = {"seeds": 1.5, "labels": (Path("/nope"),)}
    settings = salience.Settings(methods=("magic",), boot=0, train_size=6, **wrong)
    with pytest.raises(ValueError, match="--methods: Method 'magic' is unknown") as refused:
        salience.main(settings)
    assert "--boot 0" in str(refused.value)
    assert "--train-size 6" in str(refused.value)
    assert "seeds is 1.5 (float); allowed: a whole number" in str(refused.value)
    assert "--labels /nope: there is no such file" in str(refused.value)
