"""The command line, as a user types it, on small stores with a planted direction."""

import contextlib
import html
import io
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_reports import data_of, write_folder

from jelicit import load_probe
from jelicit.activations import ActivationStore, StoreSpec, StoreWriter
from jelicit.commands import cli, sweep_run
from jelicit.commands.sweep_results import show
from jelicit.data.items import Item, digest
from jelicit.probes.methods import SweepConfig
from jelicit.results import ItemScoreStore, Record, Results
from jelicit.studies.grid import Grid, GridResult, run_grid

N, D, LAYERS = 60, 6, (0, 1, 2)
ROOT = Path(__file__).resolve().parents[1]


def planted_store(
    folder,
    *,
    seed,
    split,
    model_digest="abc",
    texts=(),
    groups=(),
    labels=None,
    others=None,
    asked=("claim", "label", None),
):
    """Claims whose truth is the first coordinate of their pair's difference at layers 1 and 2."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % 2 == 0 if labels is None else np.array(labels)
    texts = [*texts, *(f"{split} claim {row}" for row in range(len(texts), N))]
    items = [
        Item(
            id=f"{split}/{row}",
            choice=texts[row],
            label=bool(right),
            group=dict(groups).get(row, ""),
            alt_labels={"early": row < N // 2, **(others or {})},
            dataset="planted",
        )
        for row, right in enumerate(truth)
    ]
    spec = StoreSpec(
        model="tiny",
        revision="",
        model_digest=model_digest,
        dtype="float32",
        prompt_format={"name": asked[0], "true_word": " True", "target": asked[1]},
        layers=LAYERS,
        n_items=N,
        item_digest=digest(items),
        d_model=D,
        shards=((0, N),),
        batch_plan=((tuple(range(N)),),),
        n_blocks=2,
        settings={},
        texts={} if asked[2] is None else {"chat": {"said": asked[2]}},
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


@pytest.mark.slow
def test_a_sweep_crosses_settings_as_a_grid_does(stores, tmp_path, capsys):
    words = ["sweep", stores[0], "--test", stores[1], *OPTIONS]
    cli.main([*words, "--save-probes", "--out", str(tmp_path)])
    (run,) = Record.read(tmp_path).runs
    (doubt,) = Record.read(tmp_path).doubts
    assert doubt.startswith("supervised: 4 of 20 train items are held out")
    assert doubt in html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
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
    said = capsys.readouterr()
    assert "early" in said.out
    assert "warning: supervised: 4 of 20 train items are held out" in said.err


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("statement", "label", None), "its prompt format is 'statement', that of .* is 'claim'"),
        (("claim", "early", None), "its prompts ask for 'early', those of .* for 'label'"),
        (("claim", "label", "im_start"), "only one of the two is in the model's chat template"),
    ],
)
def test_test_rows_that_were_asked_otherwise_are_told(asked, said, stores, tmp_path, capsys):
    """Probes are measured on another question, or other words, than they were fitted on."""
    other = planted_store(tmp_path / "other", seed=5, split="test", asked=asked)
    words = [*QUICK, "--target", "label", "--out", str(tmp_path / "out")]
    cli.main(["sweep", stores[0], "--test", str(other), *words])
    [line] = [each for each in Record.read(tmp_path / "out").doubts if re.search(said, each)]
    assert f"warning: {line}" in capsys.readouterr().err


def test_test_rows_that_were_asked_alike_are_no_cause_for_a_word(stores, tmp_path, capsys):
    cli.main(["sweep", stores[0], "--test", stores[1], *QUICK, "--out", str(tmp_path)])
    assert Record.read(tmp_path).doubts == ()
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
def test_rows_that_test_has_too_are_left_out_told_and_part_of_the_identity(tmp_path, capsys):
    """Three train texts are test texts, in other letters; one of them has a companion."""
    shared = ["TEST  claim 0", "test claim 1", "test claim 2"]
    train = planted_store(
        tmp_path / "train", seed=0, split="train", texts=shared, groups={2: "twins", 3: "twins"}
    )
    test = planted_store(tmp_path / "test", seed=1, split="test")
    easy = planted_store(tmp_path / "easy", seed=2, split="easy", texts=shared[:1])
    words = ["sweep", str(train), "--test", str(test), "--easy", str(easy), "--seeds", "1"]
    words += ["--methods", "supervised", "e2h", "--layers", "2", "--boot", "5"]
    rows, runs = {}, {}
    for policy in ("drop", "keep"):
        out = tmp_path / policy
        cli.main([*words, "--overlap", policy, "--out", str(out)])
        runs[policy] = Record.read(out).runs[0]
        rows[policy] = Results(out / "rows").read(runs[policy]).set_index("method")
        said = capsys.readouterr().err
        ends = {"drop": "4 rows are left out with their groups", "keep": "is not held out"}
        assert "warning: train: 3 of 60 rows are test rows as well" in said
        assert ends[policy] in said
        assert "warning: easy: 1 of 60 rows is a test row as well" in said
        warned = [line[9:] for line in said.splitlines() if line.startswith("warning: ")]
        assert list(Record.read(out).doubts) == warned
    assert rows["drop"]["n_train"]["supervised"] == N - 4
    assert rows["keep"]["n_train"]["supervised"] == N
    assert runs["drop"] != runs["keep"]
    # The fits are those of stores without these rows.
    states = ActivationStore.open(train), ActivationStore.open(test)
    kept = np.arange(4, N)
    truth = np.arange(N) % 2 == 0
    expected = run_grid(
        Grid(methods=("supervised",), seeds=(0,), orientations=("oracle",)),
        {2: states[0].pairs(2, kept)},
        truth[kept],
        test={2: states[1].pairs(2)},
        test_labels=truth,
        boot=5,
    ).rows.set_index("method")
    assert rows["drop"]["auroc"]["supervised"] == pytest.approx(expected["auroc"]["supervised"])
    with pytest.raises(SystemExit):
        cli.main([*words, "--overlap", "refuse", "--out", str(tmp_path / "refuse")])
    assert "error: train: 3 of 60 rows are test rows" in capsys.readouterr().err


def test_a_store_that_is_its_own_test_set_leaves_nothing_to_fit_on(stores, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sweep", stores[0], "--test", stores[0], *QUICK, "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert said.startswith(f"error: train: {N} of {N} rows are test rows as well")
    assert "no row is left to fit on" in said


def test_test_rows_that_say_nothing_are_told_not_shown_as_nan(swept, stores, tmp_path, capsys):
    one_class = str(planted_store(tmp_path / "one", seed=1, split="one", labels=[True] * N))
    few = str(
        planted_store(tmp_path / "few", seed=1, split="few", labels=[True] * 57 + [False] * 3)
    )
    with pytest.raises(SystemExit):
        cli.main(["sweep", stores[0], "--test", one_class, *QUICK, "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.startswith(
        f"error: --test {one_class}: 'label' is true in all {N} rows; AUROC"
    )
    cli.main(["sweep", stores[0], "--test", few, *QUICK, "--out", str(tmp_path / "out")])
    assert f"warning: --test {few}: only 57 true and 3 false rows" in capsys.readouterr().err
    probe = str(swept / "probes" / "supervised-layer2-share0.3")
    cli.main(["probe", "score", probe, one_class])
    said = capsys.readouterr().err
    assert said.startswith(f"no AUROC: 'label' is true in all {N} rows")
    assert "nan" not in said


OWN = """
from dataclasses import dataclass
import jax.numpy as jnp
from jelicit.probes import LinearProbe, Method, PerRun, rate
from jelicit.probes.discriminant import unbiased

@dataclass(frozen=True, kw_only=True)
class Settings:
    tilt: PerRun = rate(0.0, least=-9, help="Of the second coordinate.")

def fit(run, data, settings):
    width = data.hard.pos.shape[1]
    return unbiased(jnp.zeros(width).at[0].set(1.0).at[1].set(settings.tilt))

MY = Method(name="first_axis", title="First axis [/] of mine", group="Unsupervised", fit=fit,
            settings=Settings, free_sign=False, source="")
"""


@pytest.mark.slow
def test_a_method_of_ones_own_is_swept_with_its_settings(stores, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(OWN)
    own, out = f"{tmp_path / 'mine.py'}:MY", tmp_path / "out"
    words = ["sweep", stores[0], "--test", stores[1], "--methods", own, "--seeds", "1"]
    words += ["--settings", "tilt=0,4", "--layers", "-1", "--boot", "5", "--save-probes"]
    cli.main([*words, "--out", str(out)])
    rows = Results(out / "rows").read(Record.read(out).runs[0])
    rows = rows[rows["method"] == "first_axis"].set_index("tilt")
    assert set(rows["layer"]) == {2}  # the last of 0, 1 and 2
    straight, tilted = np.asarray(rows["auroc"].loc[[0.0, 4.0]])
    assert straight > 0.95 > tilted
    saved = load_probe(out / "probes" / "first_axis-layer2-tilt-4.0")
    assert saved.settings["tilt"] == 4.0
    # Another process knows nothing of the method but what the record says.
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "First axis [/] of mine" in str(data_of(page))
    (out / "report.html").unlink()
    code = f"from jelicit.commands import cli; cli.main(['report', {str(out)!r}])"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_a_fit_that_failed_is_seen_in_the_mean(stores, tmp_path, capsys):
    """One row of three without an AUROC: the mean says that it is of two."""
    rows = pd.DataFrame(
        {"layer": 1, "method": "ccs", "orientation": "oracle", "seed": range(3)}
    ).assign(auroc=[0.8, np.nan, 0.9])
    result = GridResult(rows=rows, grid=Grid(methods=("ccs",)), sweeps=(), signs={})
    show(result, others=False)
    said = capsys.readouterr().out
    assert re.search(r"0\.85 .* 2 of 3$", said, re.MULTILINE)


def test_results_on_a_full_disk_name_the_file(stores, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        with pytest.raises(SystemExit):
            cli.main(["sweep", stores[0], "--test", stores[1], *QUICK, "--out", str(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(
        rf"error: {tmp_path}/\S+ could not be written: File too large", capsys.readouterr().err
    )


def test_names_that_a_terminal_or_a_table_would_obey_are_shown(tmp_path, capsys):
    bad = "\x1b[31m[/]$\\frac{1}{2$"
    train = planted_store(tmp_path / "train", seed=0, split="train", others={bad: True})
    test = planted_store(tmp_path / "test", seed=1, split="test", others={bad: False})
    words = ["sweep", str(train), "--test", str(test), *QUICK, "--others", bad]
    cli.main([*words, "--out", str(tmp_path / bad)])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err.replace("\x1b[A", "")
    assert "is false in all 60 rows" in said.err
    assert (tmp_path / bad / "report.html").is_file()


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


@pytest.fixture(scope="module")
def diverged(stores, tmp_path_factory):
    """A sweep over a rate at which CCS ends in no numbers; its folder, and what was said."""
    out, said = tmp_path_factory.mktemp("diverged"), io.StringIO()
    words = ["--methods", "ccs", "--settings", "ccs_learning_rate=0.01,1e30", "--save-probes"]
    words += ["--seeds", "2", "--layers", "2", "--boot", "5", "--out", str(out)]
    with contextlib.redirect_stderr(said):
        cli.main(["sweep", stores[0], "--test", stores[1], *words])
    return out, said.getvalue()


def test_fits_that_end_in_no_numbers_are_told_with_the_setting_that_they_share(diverged):
    out, said = diverged
    record = Record.read(out)
    rows = Results(out / "rows").read(record.runs[0])
    rates = rows[rows["method"] == "ccs"].groupby("ccs_learning_rate")["auroc"]
    assert rates.count().to_dict() == {0.01: 2, 1e30: 0}
    doubt, *others = record.doubts
    assert others == []
    assert re.match(r"ccs, layer 2: 2 of 4 fits .* not finite .*ccs_learning_rate 1e\+30", doubt)
    assert f"warning: {doubt}" in said.replace("\r", "\n").splitlines()[-3:]


def test_a_probe_that_has_no_numbers_is_not_kept_for_scoring(diverged):
    out, said = diverged
    assert [path.name for path in (out / "probes").iterdir()] == [
        "ccs-layer2-ccs_learning_rate-0.01"
    ]
    assert "warning: not saved, since it has no finite numbers: ccs-layer2" in said


def _sweep_within_a_sweep(monkeypatch, capsys, words, meanwhile) -> tuple[int, str]:
    """A sweep that another one overtakes: it runs from start to end while this one fits."""
    whole = sweep_run.run_grid

    def overtaken(*args, **options):
        monkeypatch.setattr(sweep_run, "run_grid", whole)
        cli.main([*words, *meanwhile])
        return whole(*args, **options)

    monkeypatch.setattr(sweep_run, "run_grid", overtaken)
    code = 0
    try:
        cli.main(words)
    except SystemExit as end:
        code = int(str(end.code))
    return code, capsys.readouterr().err


def test_the_same_sweep_twice_at_once_is_right_twice(stores, tmp_path, monkeypatch, capsys):
    words = ["sweep", stores[0], "--test", stores[1], *QUICK, "--save-probes", "--out"]
    code, _ = _sweep_within_a_sweep(monkeypatch, capsys, [*words, str(tmp_path / "two")], [])
    assert code == 0
    cli.main([*words, str(tmp_path / "one")])
    runs = {name: Record.read(tmp_path / name).runs for name in ("one", "two")}
    assert runs["one"] == runs["two"]
    one, two = (Results(tmp_path / name / "rows").read(runs[name][0]) for name in runs)
    pd.testing.assert_frame_equal(one, two)
    kept = (load_probe(tmp_path / name / "probes/supervised-layer2") for name in runs)
    assert len({str(probe.settings) for probe in kept}) == 1


def test_probes_of_another_sweep_at_once_are_not_taken_for_this_ones(
    stores, tmp_path, monkeypatch, capsys
):
    words = ["sweep", stores[0], "--test", stores[1], *QUICK, "--save-probes"]
    words += ["--out", str(tmp_path)]
    code, said = _sweep_within_a_sweep(monkeypatch, capsys, words, ["--seeds", "2"])
    assert code == 1
    assert re.search(r"error: \S+/supervised-layer2 is of another sweep", said)


def test_a_sweep_does_not_replace_the_report_of_a_study(stores, tmp_path, capsys):
    write_folder(tmp_path / "study", hostile=False)
    before = (tmp_path / "study/report.json").read_bytes()
    with pytest.raises(SystemExit):
        cli.main(["sweep", *stores[:1], "--test", stores[1], "--out", str(tmp_path / "study")])
    assert "has the report of 'salience', which sweep would replace" in capsys.readouterr().err
    assert (tmp_path / "study/report.json").read_bytes() == before


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


def test_sets_are_described_from_a_copy_beside_those_that_have_none(tmp_path, capsys):
    rows = [f"The city of Town{k} is in Land{k}.,{k % 2}" for k in range(12)]
    (tmp_path / "cities.csv").write_text("\n".join(["statement,label", *rows]), encoding="utf-8")
    cli.main(["datasets", "cities", "pocket/opinions", "--hub-root", str(tmp_path), "--show", "1"])
    shown = capsys.readouterr().out
    assert "Question: In which country is the city of Town" in shown
    assert "label None" in shown  # an opinion


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SWEEP, "--train-size", "10"], "--train-size does nothing without --class-shares"),
        ([*SWEEP, "--class-shares", "1.5"], "--class-shares 1.5: allowed are shares from 0 to 1"),
        (
            [*SWEEP, "--boot", "0", "--seeds", "0"],
            "from 1; --boot 0: allowed are whole",
        ),
        (
            [*SWEEP, "--methods", "pca", "--restarts", "3"],
            "--restarts does nothing with",
        ),
        (
            [*SWEEP, "--methods", "pca", "--settings", "restarts=1,2"],
            "--settings restarts does",
        ),
        ([*SWEEP, "--methods", "e2h"], "--methods e2h: without --easy STORE none of them"),
        ([*SWEEP, "--methods", "supervised", "--orientations", "oracle"], "which know their sign"),
        ([*SWEEP, "--easy", "{test}", "--methods", "supervised"], "--easy does nothing with"),
        ([*SWEEP, "--methods", "ccs", "ccs"], "--methods names ccs ccs: name each once"),
        ([*SWEEP, "--layers", "-4"], "--layers -4: tiny has the hidden states 0 (embeddings) to 2"),
        ([*SWEEP, "--layers", "2", "-1"], "--layers -1 is layer 2, which is named twice"),
        ([*SWEEP, "--target", "party", "--layers", "9"], "--layers 9: tiny has"),
        ([*SWEEP, "--out", "s3://bucket/x"], "--out s3:/bucket/x: results are written to a local"),
        (["report", "nowhere/at-all", "--out", "x.html"], "is the page of a comparison: name two"),
        (["report", "a", "b", "--out", "s3://x.html"], "--out s3:/x.html: results are written to"),
        (["probe", "score", "a", "b", "--out", "s3://x.csv"], "--out s3:/x.csv: results are writ"),
        (["datasets", "--show", "2"], "--show 2 shows items of the sets that are named"),
        (["datasets", "cities", "--hub-root", "nowhere"], "--hub-root nowhere: there is no such"),
        (["datasets", "pocket/facts", "--hub-root", "."], "--hub-root . does nothing without"),
        (["datasets", "--hub-root", "."], "--hub-root . does nothing without the name of a set"),
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
        ([*SWEEP, "--target", ""], "--target"),
        ([*SWEEP, "--others", "party"], "label 'party'; all have label, early"),
        ([*SWEEP, "--others", "label"], "--others label: name each label once"),
        ([*SWEEP, "--devices", "99"], "devices=99; this machine has"),
        ([*SWEEP, "--memory-gb", "0"], "--memory-gb 0.0: allowed are numbers above 0"),
        ([*SWEEP, "--memory-gb", "inf"], "--memory-gb inf: allowed are numbers above 0"),
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
