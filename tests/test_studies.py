"""Studies as a library: on a model, on hidden states of one's own, with parts of one's own."""

import gc
import html
import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiment_scripts import NO_PROMPTS, NOBODY, script
from experiment_scripts import run as run_script
from planted import planted
from rich.console import Console
from small_stores import make_spec

from jelicit import Grid, Pairs, run_grid
from jelicit.activations import ActivationStore, StoreWriter
from jelicit.commands import cli
from jelicit.data.items import Item, labels
from jelicit.named import resolve
from jelicit.results import Record
from jelicit.studies import icm, imbalance, impossible, layers, salience, transfer
from jelicit.studies.model import Cases
from jelicit.studies.settings import PromptSettings
from jelicit.studies.situation import Situation
from jelicit.studies.states import States
from jelicit.studies.study import Study

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
D, TRAIN, TEST = 24, 240, 160


def planted_arrays(seed: int = 0, *, feature: float = 3.0, noise: float = 0.3) -> Cases:
    """A truth, and a mood that has nothing to do with it and is several times as large."""
    rng = np.random.default_rng(seed)
    truth, mood = np.random.default_rng(1).random((2, TRAIN + TEST)) < 0.5
    directions = rng.normal(size=(2, D)) / np.sqrt(D)
    planted = np.outer(2.0 * truth - 1, directions[0])
    planted += feature * np.outer(2.0 * mood - 1, directions[1])
    sides = (rng.normal(scale=noise, size=(len(truth), D)) + sign * planted for sign in (1, -1))
    pairs = Pairs(*(side.astype(np.float32) for side in sides))
    train, test = slice(TRAIN), slice(TRAIN, None)
    situation = Situation.of_labels(
        truth[train], truth[test], others={"mood": (mood[train], mood[test])}, feature="mood"
    )
    return Cases([(situation, States.of_arrays(pairs.take(train), pairs.take(test)))])


QUICK: dict[str, Any] = {"seeds": 2, "boot": 20, "quiet": True}


def auroc_by(rows: Any, key: str | list[str]) -> dict[Any, float]:
    """What the key names -> mean AUROC."""
    return {name: float(np.mean(one["auroc"])) for name, one in rows.groupby(key)}


def means(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(method, target) -> mean AUROC."""
    return auroc_by(rows, ["method", "target"])


# ------------------------------------------------------------- a study as a script of ten lines


def test_the_supervised_probe_finds_the_planted_truth_and_pca_the_salient_feature(tmp_path):
    result = salience.run(planted_arrays(), methods=("pca", "supervised"), **QUICK)
    area = means(result.rows)
    assert area["supervised", "truth"] > 0.95
    assert area["supervised", "mood"] < 0.65
    assert area["pca", "mood"] > 0.95
    assert area["pca", "truth"] < 0.75  # its sign is picked by the truth: never below 0.5
    rows = result.rows
    assert set(rows["role"]) == {"truth", "spurious"}
    assert np.all(rows["salience_feature"] > 5 * rows["salience_truth"])
    assert set(result.figures) == {"salience-arrays", "calibration-arrays", "salience-all"}
    report = result.report(tmp_path / "new" / "report.html")
    assert "Salient features that are not the truth" in report.read_text(encoding="utf-8")


def test_without_a_larger_feature_pca_finds_the_truth():
    """The other way round: what was planted decides, not the method's name."""
    cases = planted_arrays(feature=0.2)
    area = means(salience.run(cases, methods=("pca",), **QUICK).rows)
    assert area["pca", "truth"] > 0.95
    assert area["pca", "mood"] < 0.65


def test_a_temporary_folder_goes_with_its_result_and_a_named_one_stays(tmp_path):
    result = salience.run(planted_arrays(), methods=("pca",), **QUICK)
    folder, rows = result.folder, result.rows
    assert (folder / "report.html").is_file()
    del result
    gc.collect()
    assert not folder.exists()
    assert len(rows) == 4  # rows outlive it
    kept = salience.run(planted_arrays(), methods=("pca",), out=tmp_path / "out", **QUICK)
    assert kept.folder == tmp_path / "out"
    del kept
    gc.collect()
    assert (tmp_path / "out" / "report.html").is_file()


def few_rows() -> Cases:
    """Twenty train rows: of 16 in a run, three are held out to stop a supervised probe by."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 2 == 0
    pairs = Pairs(*rng.normal(size=(2, 120, 4)).astype(np.float32))
    situation = Situation.of_labels(truth[:20], truth[20:])
    states = States.of_arrays(pairs.take(slice(20)), pairs.take(slice(20, None)))
    return Cases([(situation, states)])


def test_what_speaks_against_the_numbers_is_said_and_in_the_record_and_the_report(tmp_path):
    """Also of a second run, which fits nothing; and of no run that gives no cause."""
    for _ in range(2):
        said = Console(file=io.StringIO(), width=1000)
        out = tmp_path / "few"
        salience.run(few_rows(), methods=("supervised",), out=out, console=said, **QUICK)
        (line,) = Record.read(out).doubts
        assert said.file.getvalue().count(line) == 1  # type: ignore[attr-defined]
        assert "supervised: 3 of 16 train items are held out" in line
        assert line in html.unescape((tmp_path / "few/report.html").read_text(encoding="utf-8"))
    salience.run(few_rows(), methods=("pca",), out=tmp_path / "pca", **QUICK)
    assert Record.read(tmp_path / "pca").doubts == ()


@pytest.mark.parametrize("study", [salience, imbalance, impossible, layers, transfer])
def test_a_layer_that_the_model_does_not_have_is_refused_before_extraction(study):
    """A model that would fail if it were asked for anything but its number of blocks."""
    model = SimpleNamespace(name="small", trained_length=128, n_blocks=4)
    message = (
        r"^--layers 5: small has 4 blocks, so allowed are 0 \(embeddings\) to 4 \(after the final "
        r"norm\), or best alone$"
    )
    with pytest.raises(ValueError, match=message):
        study.run(model, layers=("5",), max_rows=40, **QUICK)


def test_a_study_on_a_model_is_the_same_few_lines(random_model, tmp_path, capsys):
    pytest.importorskip("torch", reason="the model needs the extract extra")
    from extract import open_model

    model = open_model(str(random_model), stores=str(tmp_path / "stores"), say=lambda line: None)
    result = salience.run(
        model,
        dataset=("pocket/arithmetic",),
        features=("none", "sycophancy"),
        methods=("pca", "supervised"),
        layers=("1",),
        max_rows=40,
        prompts=PromptSettings(prompting=("none",)),
        **QUICK,
    )
    probes = result.rows[result.rows["method"].isin(["pca", "supervised"])]
    assert set(zip(probes["feature"], probes["target"], strict=True)) == {
        ("none", "truth"),
        ("sycophancy", "truth"),
        ("sycophancy", "sycophancy"),
    }
    assert probes.groupby(["feature", "method"])["seed"].nunique().tolist() == [2] * 4
    assert set(result.rows["model"]) == {"tiny"}
    assert set(result.figures) == {
        *("salience-pocket-arithmetic", "calibration-pocket-arithmetic", "salience-all")
    }
    assert capsys.readouterr().out == ""  # quiet


@pytest.mark.parametrize(
    ("study", "options"),
    [
        (imbalance.STUDY, {"shares": (0.5, 1.0)}),
        (layers.STUDY, {}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_other_studies_run_on_arrays_as_well(study: Study, options):
    result = study.run(planted_arrays(), methods=("pca", "supervised"), **options, **QUICK)
    assert means(result.rows)["supervised", "truth"] > 0.9
    assert result.figures


def test_claims_without_a_truth_value_may_be_rows_of_arrays():
    """The supervised probe learns nothing of them: its scores differ by what has a truth value."""
    with pytest.raises(ValueError, match=f"0 of {TEST} test rows have no truth value"):
        impossible.run(planted_arrays(), methods=("supervised",), **QUICK)
    [(situation, states)] = planted_arrays().cases
    train, test = (
        np.where(np.arange(n) % 2, np.nan, t)
        for n, t in zip(
            (TRAIN, TEST), (situation.targets()[0].train, situation.targets()[0].test), strict=True
        )
    )
    mixed = Cases([(Situation.of_labels(train, test), states)])
    rows = impossible.run(mixed, methods=("supervised",), **QUICK).rows
    probe = rows[rows["method"] == "supervised"]
    assert np.all(probe["auroc"] > 0.9)
    assert np.all((probe["variance_share"] > 0.3) & (probe["variance_share"] < 1))


def test_transfer_runs_on_arrays_of_several_sets():
    cases = [case for seed in (0, 1) for case in planted_arrays(seed).cases]
    for number, (situation, _) in enumerate(cases):
        object.__setattr__(situation, "dataset", f"set {number}")
    result = transfer.run(Cases(cases), methods=("supervised",), **QUICK)
    probes = result.rows[result.rows["method"] == "supervised"]
    by_place = auroc_by(probes, ["train", "dataset"])
    assert len(by_place) == 4
    assert min(by_place["set 0", "set 0"], by_place["set 1", "set 1"]) > 0.95


def test_icm_says_that_it_needs_a_model_to_ask():
    with pytest.raises(ValueError, match="hidden states of one's own cannot be asked"):
        icm.run(planted_arrays(), quiet=True)


def test_other_arrays_in_the_same_folder_are_measured_anew(tmp_path):
    """The rows of one array are not read back for another with the same labels."""

    def run(seed: int) -> pd.DataFrame:
        cases = planted_arrays(seed)
        return salience.run(cases, methods=("supervised",), out=tmp_path / "out", **QUICK).rows

    first, other, again = run(0), run(2), run(0)
    assert first["auroc"].tolist() != other["auroc"].tolist()
    assert set(first["run_id"]) != set(other["run_id"])
    pd.testing.assert_frame_equal(first, again)


# ------------------------------------------------------------- parts of one's own


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """The examples of the manual, copied to a folder outside the project."""
    folder = tmp_path_factory.mktemp("own")
    for path in EXAMPLES.glob("own_*.py"):
        shutil.copy(path, folder)
    return folder


FEW = ("--seeds", "2", "--max-rows", "40", "--boot", "20", "--layers", "1", *NO_PROMPTS)


@pytest.fixture
def run(own, random_model, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the command needs the extract extra")
    monkeypatch.chdir(own)
    with script("salience") as command:

        def run(*words: str):
            paths = {"stores": tmp_path / "stores", "out": tmp_path / "out"}
            return run_script(command, *FEW, *words, model=random_model, **paths)

        yield run


def assert_reported(done: Any, shown: str) -> None:
    """Figures and a report are there, and say `shown`."""
    assert list(done.out.glob("salience-*.png"))
    drawn = "".join(path.read_text(encoding="utf-8") for path in done.out.glob("*.svg"))
    assert shown in drawn
    assert shown in (done.out / "report.html").read_text(encoding="utf-8")


def test_a_method_of_ones_own_is_measured_beside_the_others(run):
    words = ("--dataset", "pocket/arithmetic", "--features", "none", "--methods", "ccs")
    done = run(*words, "own_method.py:RIDGE")
    probes = done.rows[~done.rows["method"].isin(["zero_shot", "control_length"])]
    assert set(probes["method"]) == {"ccs", "ridge"}
    assert set(probes.loc[probes["method"] == "ridge", "orientation"]) == {"none"}
    assert_reported(done, "Ridge regression")


def test_a_set_of_ones_own_is_asked_in_its_own_words(run, tmp_path):
    words = ("--dataset", "own_set.py:PRIMES", "--features", "none", "--easy", "none")
    done = run(*words, "--methods", "supervised")
    assert set(done.rows["dataset"]) == {"primes"}
    assert set(done.rows["method"]) == {"supervised", "zero_shot", "control_length"}
    manifests = (tmp_path / "stores").rglob("manifest.json")
    formats = {ActivationStore.open(path.parent).spec.prompt_format["name"] for path in manifests}
    assert formats == {"primes/truth"}
    assert_reported(done, "Prime numbers")


def test_a_feature_of_ones_own_is_measured_as_the_spurious_label(run):
    words = ("--dataset", "pocket/arithmetic", "--methods", "supervised")
    done = run(*words, "--features", "none", "own_feature.py:SPEAKER")
    assert set(done.rows["feature"]) == {"none", "speaker"}
    spurious = done.rows[done.rows["role"] == "spurious"]
    assert set(spurious["target"]) == {"speaker"}
    # A feature alone says all of itself: that it is in the texts is certain.
    assert set(spurious.loc[spurious["method"] == "control_speaker", "auroc"]) == {1.0}
    assert_reported(done, "Who says it")


@pytest.mark.parametrize(
    ("option", "reference", "message"),
    [
        ("--methods", "own_method.py:RIGDE", "the module has no 'RIGDE'; it has RIDGE"),
        ("--methods", "own_methods.py:RIDGE", "there is no file own_methods.py"),
        ("--methods", "own_set.py:PRIMES", "is a NamedSet; expected a Method"),
        ("--dataset", "own_set.py:PRIME", "the module has no 'PRIME'; it has PRIMES"),
        ("--features", "own_feature.py:SPEAKERS", "the module has no 'SPEAKERS'; it has SPEAKER"),
    ],
)
def test_a_mistake_in_a_reference_is_one_line_that_names_the_option(
    own, option, reference, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(own)
    given = {option.removeprefix("--"): (reference,)}
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        salience.run(NOBODY, out=tmp_path / "out", **{"methods": ("pca",), **given})
    [line] = str(refused.value).splitlines()  # commands end with it
    assert line.startswith(f"{option}: ")
    assert not (tmp_path / "out").exists()


def test_a_study_of_ones_own_is_a_value_in_a_file(own, tmp_path):
    study = resolve(f"{own}/own_study.py:FEW_ROWS", Study, what="study")
    options = {"methods": ("supervised",), "sizes": (8, 160), "out": tmp_path / "out", **QUICK}
    result = study.run(planted_arrays(feature=0.2, noise=1.0), **options)
    rows = result.rows.dropna(subset="size")
    truth = rows[rows["role"] == "truth"]
    assert truth.groupby("size")["n_train"].unique().map(list).to_dict() == {8: [8], 160: [160]}
    areas = auroc_by(truth, "size")
    assert areas[160] > 0.9
    assert areas[8] < areas[160] - 0.03
    assert set(result.figures) == {"few-rows"}
    assert "Few train rows" in result.report(tmp_path / "few.html").read_text(encoding="utf-8")
    again = study.run(planted_arrays(feature=0.2, noise=1.0), **options)
    pd.testing.assert_frame_equal(again.rows, result.rows)
    fewer = study.run(planted_arrays(feature=0.2, noise=1.0), **{**options, "sizes": (8,)})
    assert set(fewer.rows["run_id"]) != set(result.rows["run_id"])


def test_a_study_of_ones_own_runs_on_a_model(own, random_model, tmp_path):
    pytest.importorskip("torch", reason="the model needs the extract extra")
    from extract import open_model

    study = resolve(f"{own}/own_study.py:FEW_ROWS", Study, what="study")
    model = open_model(str(random_model), stores=str(tmp_path), say=lambda line: None)
    options = {"methods": ("supervised",), "sizes": (8, 16), "layers": ("1",), "max_rows": 40}
    rows = study.run(model, **options, **QUICK).rows
    assert rows.groupby("method")["size"].nunique().to_dict()["supervised"] == 2
    assert set(rows["dataset"]) == {"pocket/arithmetic"}


# ------------------------------------------------------------- one measure for all

METHODS = ("ccs", "pca", "supervised", "mean_difference")
KEY = ["method", "orientation", "layer", "seed"]
NUMBERS = ["auroc", "auroc_low", "auroc_high", "accuracy", "accuracy_low", "accuracy_high"]


def planted_store(folder: Path, n: int, *, seed: int) -> ActivationStore:
    """A store of two layers with a weak truth, two claims a question."""
    pairs, truth, _ = planted(n, 8, seed=seed, strength=0.5)
    split = folder.name
    items = [
        Item(id=f"{split}{row}", choice=f"{split} {row}", label=bool(label), group=f"{row // 2}")
        for row, label in enumerate(truth)
    ]
    spec = make_spec(
        items,
        dtype="float32",
        prompt_format={"name": "claim", "true_word": " True", "target": "label"},
        layers=(1, 2),
        d_model=8,
        shards=((0, n),),
        batch_plan=((tuple(range(n)),),),
        n_blocks=2,
    )
    writer = StoreWriter.open(folder, spec, items)
    turned = pairs.take(np.s_[:, ::-1])
    states = {
        layer: (np.ascontiguousarray(of_layer.pos), np.ascontiguousarray(of_layer.neg))
        for layer, of_layer in ((1, pairs), (2, turned))
    }
    log_probs = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    writer.write(0, states, log_probs)
    return writer.finish()


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """The measured numbers of the probes, by what tells them apart."""
    probes = pd.DataFrame(rows[rows["method"].isin(METHODS)]).set_index(KEY).sort_index()
    assert probes.index.is_unique
    return pd.DataFrame(probes[["n_train", *NUMBERS]])


def test_a_grid_the_sweep_command_and_a_study_measure_the_same(tmp_path):
    """The same stores, seeds and share of true claims: the same rows, whoever asks."""
    stores = tmp_path / "stores"
    train = planted_store(stores / "train", 80, seed=0)
    test = planted_store(stores / "test", 60, seed=1)
    out = tmp_path / "sweep"
    words = ["--methods", *METHODS, "--seeds", "2", "--class-shares", "0.5", "--boot", "30"]
    places = [str(stores / "train"), "--test", str(stores / "test"), "--out", str(out)]
    cli.main(["sweep", *places, *words])
    by_command = pd.concat(map(pd.read_parquet, (out / "rows").glob("*.parquet")))

    grid = Grid(methods=METHODS, seeds=range(2), class_shares=(0.5,), layers=(1, 2))
    by_grid = run_grid(
        grid,
        train,
        labels(train.items),
        test=test,
        test_labels=labels(test.items),
        test_groups=[item.group for item in test.items],
        boot=30,
    ).rows

    situation = Situation(dataset="made", train=tuple(train.items), test=tuple(test.items))
    cases = Cases([(situation, States.of_stores(train, test))])
    by_study = imbalance.run(
        cases, methods=METHODS, shares=(0.5,), seeds=2, boot=30, quiet=True
    ).rows

    expected = numbers(by_grid)
    assert len(expected) == len(METHODS) * 2 * 2
    assert np.all(expected["auroc"] < 0.99)  # a measure that could differ
    alike: Any = {"check_dtype": False, "check_index_type": False}
    pd.testing.assert_frame_equal(numbers(by_command), expected, **alike)
    pd.testing.assert_frame_equal(numbers(by_study), expected, **alike)


def test_a_store_that_lacks_a_layer_is_refused_before_it_is_read():
    class Store:
        layers = (1, 2)

        def pairs(self, layer: int) -> Pairs:
            pytest.fail("it was read")

    hidden: Any = Store()
    at_hand = Pairs(np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"the easy store lacks layer 3; it has \(1, 2\)"):
        States.of_arrays({1: at_hand, 3: at_hand}, easy=hidden)
    assert States.of_arrays(hidden, layers=(2, -1)).layers == (2, -1)
