"""The command line, as a user types it, on small stores with a planted direction."""

import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jelicit import load_probe
from jelicit.activations import ActivationStore, StoreSpec, StoreWriter
from jelicit.commands import cli
from jelicit.data.items import Item, digest
from jelicit.probes.methods import SweepConfig
from jelicit.results import ItemScoreStore, Record, Results
from jelicit.studies.grid import Grid, run_grid

N, D, LAYERS = 60, 6, (0, 1, 2)


def planted_store(folder, *, seed, split, model_digest="abc"):
    """Claims whose truth is the first coordinate of their pair's difference at layers 1 and 2."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % 2 == 0
    items = [
        Item(
            id=f"{split}/{row}",
            choice=f"claim {row}",
            label=bool(right),
            alt_labels={"early": row < N // 2},
            dataset="planted",
        )
        for row, right in enumerate(truth)
    ]
    spec = StoreSpec(
        model="tiny",
        revision="",
        model_digest=model_digest,
        dtype="float32",
        prompt_format={"name": "claim", "true_word": " True", "target": "label"},
        layers=LAYERS,
        n_items=N,
        item_digest=digest(items),
        d_model=D,
        shards=((0, N),),
        batch_plan=((tuple(range(N)),),),
        n_blocks=2,
        settings={},
        versions={},
        machine={"device": "cpu", "threads": 1},
    )
    states = {}
    for layer in LAYERS:
        noise = rng.normal(size=(2, N, D)).astype(np.float32)
        signal = np.where(truth, 1, -1) * (3 if layer else 0)
        noise[0, :, 0] += signal
        noise[1, :, 0] -= signal
        states[layer] = (noise[0], noise[1])
    writer = StoreWriter.open(folder, spec, items)
    writer.write(0, states, rng.normal(size=(N, 2)).astype(np.float32))
    writer.finish()
    return folder


SWEEP = ("sweep", "{train}", "--test", "{test}")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    place = tmp_path_factory.mktemp("stores")
    return [
        str(planted_store(place / split, seed=seed, split=split))
        for seed, split in enumerate(("train", "test"))
    ]


@pytest.fixture(scope="module")
def swept(stores, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    words = ("--methods", "ccs", "supervised", "e2h", "--seeds", "2", "--class-shares", "0.3")
    cli.main(["sweep", stores[0], "--test", stores[1], *words, "--save-probes", "--out", str(out)])
    return out


def test_a_sweep_leaves_rows_scores_probes_and_a_report(swept):
    record = Record.read(swept)
    (run,) = record.runs
    rows = Results(swept / "rows").read(run)
    # No easy set, so no e2h; layer 0 holds the verdict's embedding, the same for every item.
    assert set(rows["method"]) == {"ccs", "supervised", "zero_shot"}
    probes = rows[rows["method"] != "zero_shot"]
    assert set(probes["layer"]) == {1, 2}
    assert set(probes["seed"]) == {0, 1}
    assert set(probes["class_share"]) == {0.3}
    assert np.asarray(probes["auroc"]).min() > 0.95
    scores = ItemScoreStore(swept / "items").read(run)
    assert len(scores.settings) == 2 * 2 + 1
    label = scores.items["label"].to_numpy() == 1
    for place, setting in enumerate(scores.settings):
        if setting["method"] != "zero_shot":
            assert ((scores.scores[:, place] > 0) == label).mean() > 0.9
    assert (swept / "report.html").stat().st_size > 10_000


OPTIONS = (
    *("--methods", "ccs", "supervised", "--seeds", "2", "--layers", "2", "--boot", "20"),
    *("--class-shares", "0.4", "--train-size", "20", "--orientations", "oracle"),
    *("--settings", "restarts=1,2", "ccs_learning_rate=0.001,0.1", "--others", "early"),
    *("--precision", "bfloat16", "--divisor", "std", "--devices", "1", "--memory-gb", "0.5"),
)


def test_a_sweep_crosses_settings_as_a_grid_does(stores, tmp_path, capsys):
    words = ["sweep", stores[0], "--test", stores[1], *OPTIONS]
    cli.main([*words, "--save-probes", "--out", str(tmp_path)])
    (run,) = Record.read(tmp_path).runs
    rows = Results(tmp_path / "rows").read(run)
    train, test = map(ActivationStore.open, stores)
    grid = Grid(
        methods=("ccs", "supervised"),
        seeds=(0, 1),
        class_shares=(0.4,),
        train_size=20,
        layers=(2,),
        settings={"restarts": (1, 2), "ccs_learning_rate": (0.001, 0.1)},
        orientations=("oracle",),
        base=SweepConfig(precision="bfloat16", divisor="std", memory_budget=2**29),
    )
    truth, early = np.arange(N) % 2 == 0, np.arange(N) < N // 2
    expected = run_grid(
        grid,
        train,
        truth,
        test=test,
        test_labels=truth,
        test_log_probs=test.log_probs,
        others={"early": (early, early)},
        boot=20,
    )
    same = ["method", "orientation", "restarts", "ccs_learning_rate", "seed", "target", "n_train"]
    pd.testing.assert_frame_equal(rows.loc[:, same], expected.rows.loc[:, same])
    np.testing.assert_allclose(rows["auroc"], expected.rows["auroc"], atol=1e-6)
    assert len(rows) == 2 * 2 * 2 * 2 * 2 + 2
    ccs = rows[(rows["method"] == "ccs") & (rows["role"] == "truth")]
    means = {place: np.mean(of["auroc"]) for place, of in ccs.groupby("ccs_learning_rate")}
    assert means[0.001] != means[0.1]
    # What sets runs apart beside the seed has scores, and a probe, of its own.
    settings = ItemScoreStore(tmp_path / "items").read(run).settings
    assert len(settings) == 2 * 2 * 2 + 1
    assert len({tuple(sorted(each.items())) for each in settings}) == len(settings)
    probe = load_probe(tmp_path / "probes/ccs-layer2-share0.4-restarts-2-ccs_learning_rate-0.1")
    asked = expected.probe("ccs", seed=0, restarts=2, ccs_learning_rate=0.1)
    np.testing.assert_allclose(
        probe.score(test.pairs(2)), asked.score(test.pairs(2)), rtol=1e-4, atol=1e-5
    )
    assert "early" in capsys.readouterr().out


def test_a_saved_probe_scores_as_the_sweep_did(swept, stores, tmp_path, capsys):
    probe = swept / "probes" / "supervised-layer2-share0.3"
    cli.main(["probe", "score", str(probe), stores[1], "--out", str(tmp_path / "scores.csv")])
    found = pd.read_csv(tmp_path / "scores.csv")
    expected = load_probe(probe).score(ActivationStore.open(stores[1]).pairs(2))
    np.testing.assert_allclose(found["score"], np.asarray(expected), rtol=1e-5)
    assert found["id"].tolist() == [f"test/{row}" for row in range(N)]
    said = capsys.readouterr().err
    assert float(re.findall(r"AUROC ([\d.]+)", said)[0]) > 0.95


QUICK = ("--methods", "supervised", "--seeds", "1", "--layers", "2", "--boot", "5")


def test_probes_of_another_sweep_are_not_taken_for_this_ones(stores, tmp_path, capsys):
    words = ["sweep", stores[0], "--test", stores[1], *QUICK, "--save-probes", "--out"]
    cli.main([*words, str(tmp_path)])
    kept = (tmp_path / "probes/supervised-layer2/record/metadata").read_bytes()
    cli.main([*words, str(tmp_path)])  # the same sweep
    with pytest.raises(SystemExit):
        cli.main([*words, str(tmp_path), "--target", "early"])
    assert "supervised-layer2 is of another sweep" in capsys.readouterr().err
    assert (tmp_path / "probes/supervised-layer2/record/metadata").read_bytes() == kept


def test_hidden_states_of_another_model_are_told(swept, stores, tmp_path, capsys):
    other = planted_store(tmp_path / "other", seed=5, split="test", model_digest="f" * 64)
    cli.main(["sweep", stores[0], "--test", str(other), *QUICK, "--out", str(tmp_path / "out")])
    assert "warning: " in (said := capsys.readouterr().err)
    assert "with other weights" in said
    probe = str(swept / "probes" / "supervised-layer2-share0.3")
    with pytest.raises(SystemExit):
        cli.main(["probe", "score", probe, str(other)])
    assert re.search(r"error: .*/other holds .* --other-model", capsys.readouterr().err)
    cli.main(["probe", "score", probe, str(other), "--other-model"])
    assert "with other weights" in capsys.readouterr().err
    cli.main(["probe", "score", probe, stores[1], "--layer", "1"])
    said = capsys.readouterr().err
    assert "with other weights" not in said
    assert "was fitted on layer 2 and scores layer 1" in said


def test_items_that_are_fitted_on_and_measured_are_told(stores, tmp_path, capsys):
    cli.main(["sweep", stores[0], "--test", stores[0], *QUICK, "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert f"{N} of the {N} test items are train items as well, such as 'train/0'" in said


def test_where_scores_or_results_cannot_go_is_said_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("words")
    nowhere = str(tmp_path / "no-probe")
    for out in (tmp_path, tmp_path / "file" / "s.csv", "s3://bucket/s.csv"):
        with pytest.raises(SystemExit):
            cli.main(["probe", "score", nowhere, nowhere, "--out", str(out)])
        assert re.match(
            r"error: --out \S+( is a folder|: results| cannot)", capsys.readouterr().err
        )
    for out in (tmp_path / "file" / "run", "s3://bucket/run"):
        with pytest.raises(SystemExit):
            cli.main(["sweep", nowhere, "--test", nowhere, "--out", str(out)])
        assert re.match(r"error: --out \S+(: results| cannot be)", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not Path("s3:").exists()


def test_scores_on_a_full_disk_leave_the_old_file_and_name_it(swept, stores, tmp_path, capsys):
    probe, out = str(swept / "probes" / "supervised-layer2-share0.3"), tmp_path / "s.csv"
    out.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        with pytest.raises(SystemExit):
            cli.main(["probe", "score", probe, stores[1], "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(rf"error: {out} could not be written: File too large", capsys.readouterr().err)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("s.csv", "old")]


def test_leftovers_of_a_killed_sweep_do_not_stop_the_next(stores, tmp_path):
    words = ["sweep", stores[0], "--test", stores[1], *QUICK, "--save-probes"]
    for name in ("a.orbax-checkpoint-tmp", ".b.00000000.7-0.tmp"):
        (tmp_path / "probes" / name).mkdir(parents=True)
    cli.main([*words, "--out", str(tmp_path)])
    assert (tmp_path / "probes").exists()


def test_a_stop_by_the_user_is_no_traceback(monkeypatch, capsys):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Report, "main", stopped)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "runs"])
    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_report_is_made_anew_and_folders_are_compared(swept, tmp_path, capsys):
    page = swept / "report.html"
    before = page.read_bytes()
    page.unlink()
    cli.main(["report", str(swept)])
    assert page.read_bytes() == before
    other = tmp_path / "compared.html"
    copy = shutil.copytree(swept, tmp_path / "copy")
    cli.main(["report", str(swept), str(copy), "--out", str(other)])
    assert other.stat().st_size > 10_000
    assert str(other) in capsys.readouterr().out


def test_sets_are_listed_and_described(capsys):
    cli.main(["datasets"])
    assert "pocket/facts" in capsys.readouterr().out.splitlines()
    cli.main(["datasets", "pocket/opinions", "--show", "1"])
    shown = capsys.readouterr().out
    assert "I think this claim is" in shown
    assert "label None" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "{train}", "--test", "{test}", "--methods", "magic"], "magic"),
        (["sweep", "{train}", "--test", "{test}", "--layers", "9"], "9"),
        (["sweep", "{train}", "--test", "nowhere/at-all"], "nowhere/at-all"),
        (["sweep", "{train}", "--test", "{test}", "--target", "party"], "'party'"),
        ([*SWEEP, "--settings", "momentum=1"], "momentum=1: give NAME=VALUE,VALUE,... with a name"),
        ([*SWEEP, "--settings", "restarts"], "--settings restarts: give NAME=VALUE"),
        ([*SWEEP, "--settings", "restarts=1,many"], "restarts takes whole numbers"),
        ([*SWEEP, "--settings", "easy_share=half"], "easy_share takes numbers"),
        ([*SWEEP, "--settings", "scale_by_variance=yes"], "takes true or false"),
        ([*SWEEP, "--settings", "divisor=paper,sum"], "divisor is one of paper, norm, burns, std"),
        ([*SWEEP, "--settings", "restarts=0"], "restarts is 0; allowed: 1 or more"),
        ([*SWEEP, "--settings", "restarts=1,2", "--restarts", "3"], "restarts is given twice"),
        ([*SWEEP, "--orientations", "easy"], "without --easy there is only oracle"),
        ([*SWEEP, "--orientations", "test"], "choose some of ('oracle', 'easy')"),
        ([*SWEEP, "--train-size", "0"], "--train-size 0: allowed are numbers from 1"),
        ([*SWEEP, "--target", ""], "the label ''; all have label, early"),
        ([*SWEEP, "--others", "party"], "label 'party'; all have label, early"),
        ([*SWEEP, "--others", "label"], "--others label: name each label once"),
        ([*SWEEP, "--devices", "99"], "devices=99; this machine has"),
        ([*SWEEP, "--memory-gb", "0"], "--memory-gb 0.0: allowed are numbers above 0"),
        ([*SWEEP, "--memory-gb", "inf"], "--memory-gb inf: allowed are numbers above 0"),
        ([*SWEEP, "--optimiser", "lbfgs", "--precision", "bfloat16"], "with L-BFGS"),
        (["report", "nowhere/at-all"], "report.json"),
        (["probe", "score", "nowhere/at-all", "{test}"], "nowhere/at-all"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_mistakes_end_in_one_line(words, message, stores, capsys):
    given = [word.format(train=stores[0], test=stores[1]) for word in words]
    with pytest.raises(SystemExit) as stopped:
        cli.main(given)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.strip().splitlines()) <= 2
