"""The ICM experiment as a user runs it, on a tiny random model of two blocks."""

import json
import re
import sys

import pytest
import tyro
from experiment_scripts import run as run_script
from experiment_scripts import run_served, script, session_of
from stub_server import Proxy, Stub, serve, spoiling

from jelicit.data.items import load_items
from jelicit.data.prompts import get_format
from jelicit.icm import VARIANTS
from jelicit.results import ItemScoreStore, Record, Results
from jelicit.studies.icm import METHODS, STUDY, Settings
from jelicit.studies.icm_tasks import task_of
from jelicit.studies.session import Session

pytest.importorskip("torch", reason="the experiment needs the extract extra")

from transformers import AutoTokenizer

N, SEEDS, TESTS = 4, 2, 8
WORDS = (
    *("--dataset", "pocket/pairs", "--n", str(N), "--tests", str(TESTS), "--seeds", str(SEEDS)),
    *("--initial", "2", "--draws", "8", "--shots", "1", "--boot", "20"),
)


@pytest.fixture(scope="module")
def icm():
    with script("icm") as found:
        yield found


@pytest.fixture(scope="module")
def run(icm, random_model, tmp_path_factory):
    place = tmp_path_factory.mktemp("icm")

    def run(*words):
        paths = {"stores": place / "stores", "out": place / "out"}
        return run_script(icm, *words, model=random_model, **paths)

    return run


@pytest.fixture(scope="module")
def first(run):
    return run(*WORDS)


def without_time(rows):
    """Rows as JSON, in one order, without what differs from run to run."""
    kept = rows.drop(columns=["seconds", "run_id"]).sort_values(["method", "seed"])
    return json.loads(kept.to_json(orient="records"))


def test_every_method_has_a_row_for_every_seed(first):
    rows = first.rows
    assert len(rows) == len(METHODS) * SEEDS
    assert set(rows["method"]) == set(METHODS)
    assert rows["accuracy"].between(0, 1).all()
    searched = rows[rows["method"].isin(VARIANTS)]
    assert (searched["n_train"] == N).all()  # every item got a label
    assert (searched["reads_alone"] - searched["reads"]).min() > 0
    assert (rows.loc[rows["method"].str.startswith("zero_shot"), "n_train"] == 0).all()
    # As many errors as ICM's labels, which is what they are for.
    accuracy = rows.set_index(["method", "seed"])["label_accuracy"]
    for seed in range(SEEDS):
        assert accuracy["icm_perturbed", seed] == pytest.approx(accuracy["icm", seed])


def test_labels_are_written_as_items_that_a_set_can_be_made_of(first):
    files = sorted((first.out / "labels").glob("*.jsonl"))
    assert len(files) == len(VARIANTS) * SEEDS
    for path in files:
        items = load_items(path)
        assert len(items) == N
        # Both orders of every pair, each once.
        orders = {(item.question, item.choice, item.choice_2) for item in items}
        assert orders == {(question, second, first) for question, first, second in orders}
    rows = first.rows.set_index(["method", "seed"])["label_accuracy"]
    items = load_items(first.out / "labels" / "pocket-pairs-seed1-icm.jsonl")
    right = [item.label == item.meta["gold"] for item in items]
    assert rows["icm", 1] == pytest.approx(sum(right) / len(right))


def test_steps_figures_scores_and_report_are_kept(first):
    record = Record.read(first.out)
    (name,) = record.runs
    assert record.figures == ("icm-accuracy.svg", "icm-bars.svg", "icm-search-pocket-pairs.svg")
    steps = Results(first.out / "steps").read(name)
    assert set(steps["method"]) == set(VARIANTS)
    searches = steps.groupby(["method", "seed"])
    assert [of["labelled"].iloc[-1] for _, of in searches] == [N] * len(VARIANTS) * SEEDS
    scores = ItemScoreStore(first.out / "items").read(name)
    assert scores.scores.shape == (TESTS, len(set(first.rows["method"])))
    assert (first.out / "report.html").is_file()
    assert len(record.findings) == 7


def test_again_it_is_read_back_and_a_killed_search_goes_on(first, run, icm, monkeypatch):
    again = run(*WORDS)
    assert again.rows.empty
    assert "reused" in again.printed
    # Rows and the ends of all journals are lost: the same command makes the same rows.
    for path in (first.out / "rows").iterdir():
        path.unlink()
    for path in (first.out / "searches").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[: len(lines) // 2]) + '{"run": "to', encoding="utf-8")
    third = run(*WORDS)
    assert without_time(third.rows) == without_time(first.rows)


@pytest.mark.slow
def test_in_batches_more_items_are_labelled_than_one_search_has(icm, random_model, tmp_path):
    paths = {"stores": tmp_path / "stores", "out": tmp_path / "out"}
    methods = ("icm", "icm_golden_start", "icm_perturbed", "golden_many_shot")
    words = (*WORDS, "--n", "12", "--batch", "4", "--seeds", "1", "--methods", *methods)
    done = run_script(icm, *words, model=random_model, **paths)
    assert "12 items in 3 searches of at most 4" in done.printed
    rows = done.rows.set_index("method")
    assert set(rows["n_train"]) == {12}
    assert set(rows.loc[["icm", "icm_perturbed"], "searches"]) == {3}
    items = load_items(done.out / "labels" / "pocket-pairs-seed0-icm.jsonl")
    right = [item.label == item.meta["gold"] for item in items]
    assert len(right) == 12
    assert rows.loc["icm", "label_accuracy"] == pytest.approx(sum(right) / 12)
    assert rows.loc["icm_perturbed", "label_accuracy"] == pytest.approx(sum(right) / 12)
    steps = Results(done.out / "steps").read(Record.read(done.out).runs[0])
    for _, of in steps.groupby("method"):
        assert of["step"].tolist() == list(range(len(of)))
        # Each search labels its own items, and begins with its own labels.
        ends = of.groupby("batch").last()
        assert ends["labelled"].tolist() == [4, 4, 4]
    draws = steps[(steps["method"] == "icm") & (steps["kind"] == "draw")]
    assert rows["draws"].to_dict()["icm"] == len(draws)
    golden = steps[steps["method"] == "icm_golden_start"].groupby("batch").first()
    assert min(golden["labelled"].tolist()) >= 2
    # Killed in its second batch, the same command goes on and ends the same.
    (done.out / "rows" / f"{Record.read(done.out).runs[0]}.parquet").unlink()
    (journal,) = (done.out / "searches").iterdir()
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
    again = run_script(icm, *words, model=random_model, **paths)
    assert without_time(again.rows) == without_time(done.rows)
    assert journal.read_text(encoding="utf-8").splitlines(keepends=True) == lines


def test_without_labels_there_is_no_table_of_them(icm, random_model, tmp_path):
    paths = {"stores": tmp_path / "stores", "out": tmp_path / "out"}
    no_search = (*WORDS[: WORDS.index("--initial")], *WORDS[WORDS.index("--shots") :])
    words = (*no_search, "--methods", "zero_shot")
    done = run_script(icm, *words, model=random_model, **paths)
    assert "Accuracy on test items" in done.printed
    assert "Right labels" not in done.printed
    assert (done.out / "report.html").is_file()


def test_a_search_that_judges_no_change_is_reported_too(icm, random_model, tmp_path):
    """Without draws, and with one item of a question, nothing is ever judged."""
    paths = {"stores": tmp_path / "stores", "out": tmp_path / "out"}
    words = ("--dataset", "pocket/facts", "--n", "4", "--tests", "8", "--seeds", "6", "--boot", "9")
    words = (*words, "--initial", "4", "--draws", "1", "--rule", "none", "--methods", "icm")
    done = run_script(icm, *words, model=random_model, **paths)
    steps = Results(done.out / "steps").read(Record.read(done.out).runs[0])
    judged = [of["utility"].notna().any() for _, of in steps.groupby("seed")]
    assert not all(judged)
    assert (done.out / "report.html").is_file()


def write_pairs(folder, question=""):
    """A folder of pairs of texts: the first is by a man in every second one."""
    folder.mkdir()
    for split in ("train", "test"):
        rows = (
            {"id": f"{split}{n}", "question": question, "label": n % 2 == 0, "group": f"{split}{n}"}
            | {"choice": f"I wrote of topic {n}.", "choice_2": f"My {split} day was {n}."}
            for n in range(8)
        )
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_pairs_without_a_question_need_a_format_and_are_asked_by_it(icm, random_model, tmp_path):
    folder = write_pairs(tmp_path / "blogs")
    words = ("--dataset", str(folder), *WORDS[2:], "--seeds", "1", "--methods", "zero_shot", "icm")
    paths = {"model": random_model, "stores": tmp_path / "stores", "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"'pair' shows question, which item 'train0' lacks") as no:
        run_script(icm, *words, **paths)
    assert str(no.value).endswith("choose another with --format: pair_gender")
    done = run_script(icm, *words, "--format", "pair_gender", **paths)
    assert len(done.rows) == 2
    settings = Results(done.out / "rows").settings(Record.read(done.out).runs[0])
    assert settings["format"]["text"].startswith("Text 1: {choice}\nText 2: {choice_2}\n")
    with pytest.raises(ValueError, match="shows one response, but item 'train0' is a pair"):
        run_script(icm, *words, "--format", "statement", **paths)


def test_a_format_chosen_by_name_asks_for_its_label(tmp_path):
    session = session_of(STUDY, Settings(), tmp_path)

    def task(name, format):
        return task_of(name, session, tests=8, rule=None, format=format)

    own, icms = (task("pocket/pairs", format) for format in (None, "pair_icm"))
    elm = task("pocket/facts", "facts/elm")
    with pytest.raises(ValueError, match="no item has a label 'food', which --format asks"):
        task("pocket/facts", "comments/food")
    names = [get_format(each.situation.format).name for each in (own, icms, elm)]
    assert names == ["pair", "pair_icm", "facts/elm"]
    assert (own.situation.train, own.rule) == (icms.situation.train, icms.rule)
    assert elm.situation.target == "elm"


def served(random_model, **options):
    """A stub that serves the random model by its name."""
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return Stub(texts, likely=range(50), model=str(random_model), **options)


TRIALS = 3
"""Requests that try a server out at start."""
FEW = (*WORDS[:6], "--seeds", "1", "--initial", "2", "--draws", "4", "--boot", "20")


def test_a_server_labels_with_its_own_model(icm, random_model, tmp_path):
    """Its tokenizer and its defaults are those of what it serves, not of --model's default."""
    methods = ("bootstrapped", "icm", "golden_many_shot")
    with serve(served(random_model)) as url:
        words = ("--scorer", url, *FEW, "--methods", *methods)
        done = run_served(icm, *words, out=tmp_path / "out")
    assert set(done.rows["method"]) == set(methods)
    assert set(done.rows["model"]) == {str(random_model)}
    kept = Record.read(tmp_path / "out").runs
    settings = Results(tmp_path / "out" / "rows").settings(kept[0])
    # The pocket model was trained on 1,024 tokens.
    assert (settings["shots"], settings["limit"]) == ([2, 8], 512)
    assert not done.rows[["bounded", "retried"]].to_numpy().any()
    assert "server: " not in done.printed.replace("sent to the server: ", "")


FORECAST = re.compile(r"before the first request: at most ([\d,]+) requests and ([\d,]+) tokens")


def test_what_a_run_needs_at_most_is_told_before_the_first_request(
    icm, random_model, tmp_path, monkeypatch
):
    """For all sets together, and not again for what is read back."""
    server, said = served(random_model), []

    def say(self, line):
        said.append((line, len(server.sent)))

    monkeypatch.setattr(Session, "say", say)
    methods = ("zero_shot", "zero_shot_assistant", "golden_many_shot", "bootstrapped", "icm")
    with serve(server) as url:
        words = ("--scorer", url, *FEW[2:], "--max-tokens-total", "9000", "--methods", *methods)
        words = ("--dataset", "pocket/pairs", "pocket/facts", *words)
        with pytest.raises(ValueError, match="are spent"):
            run_served(icm, *words, out=tmp_path / "out")
        matches = [(FORECAST.match(line), sent) for line, sent in said]
        found = [(match, sent) for match, sent in matches if match is not None]
        ((match, sent),) = found
        line = match.string
        assert sent == TRIALS
        assert "--max-tokens-total 9,000 is less" in line
        assert "of them are for searches" in line
        words = [word.replace("9000", "90000000") for word in words]
        run_served(icm, *words, out=tmp_path / "out")
        assert any("tokens are spent, and what was answered is not" in line for line, _ in said)
        most = [int(number.replace(",", "")) for number in match.groups()]
        trials = 2 * TRIALS
        assert len(server.sent) - trials <= most[0]
        assert sum(len(prompt) + 1 for prompt in server.sent[trials:]) <= most[1]
        said.clear()
        run_served(icm, *words, out=tmp_path / "out")
    assert not [line for line, _ in said if "first request" in line]


def test_a_limit_of_tokens_ends_a_run_that_a_higher_one_goes_on_with(icm, random_model, tmp_path):
    server = served(random_model)
    with serve(server) as url:
        words = ("--scorer", url, *FEW, "--methods", "zero_shot", "icm", "--max-tokens-total")
        with pytest.raises(ValueError, match="of --max-tokens-total 2,000 are spent; what was ans"):
            run_served(icm, *words, "2000", out=tmp_path / "out")
        first = len(server.sent)
        done = run_served(icm, *words, "9000000", out=tmp_path / "out")
        rest = len(server.sent) - first
        expected = run_served(icm, *words, "9000000", out=tmp_path / "whole")
        whole = len(server.sent) - first - rest
    assert without_time(done.rows) == without_time(expected.rows)
    assert whole == first + rest - TRIALS  # nothing was asked twice
    found = re.search(r"([\d,]+) of --max-tokens-total 9,000,000 are spent", done.printed)
    assert found
    assert found[1] in expected.printed


def test_bounds_and_repeated_requests_of_a_server_are_told(icm, random_model, tmp_path):
    with serve(served(random_model, exact=False)) as straight:
        proxy = Proxy(straight, every=9, faults=("500",))
        with spoiling(proxy) as url:
            words = ("--scorer", url, *FEW, "--methods", "zero_shot", "icm")
            done = run_served(icm, *words, out=tmp_path / "out")
            spoiled = proxy.spoiled["500"]
            again = run_served(icm, *words, out=tmp_path / "out")
    rows = done.rows.set_index("method")
    assert rows["bounded"].to_dict()["zero_shot"] > 0
    repeated = round(sum(rows["retried"].tolist()))
    assert repeated == spoiled > 0
    bounded = round(sum(rows["bounded"].tolist()))
    for printed in (done.printed, again.printed):
        assert f"server: {bounded:,} scores of verdicts are upper bounds" in printed
        assert f"{repeated:,} requests failed and were repeated" in printed
    assert again.rows.empty


def test_a_server_without_its_package_is_explained(icm, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "openai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in ("extract.server_scorer", "extract.server_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    settings = tyro.cli(icm.Settings, args=["--scorer", "http://localhost:9/v1"])
    with pytest.raises(ValueError, match=r"needs the openai package: pip install .*server"):
        icm.main(settings)


@pytest.mark.slow
def test_labels_teach_the_supervised_probe_of_salience(first, random_model, tmp_path):
    labels = first.out / "labels" / "pocket-pairs-seed0-icm.jsonl"
    with script("salience") as salience:
        done = run_script(
            salience,
            *("--dataset", "pocket/pairs", "--features", "none", "--prompting", "none"),
            *("--methods", "random", "--layers", "1", "--seeds", "2", "--boot", "20"),
            *("--labels", str(labels), "--max-rows", "1000"),
            model=random_model,
            stores=tmp_path / "stores",
            out=tmp_path / "out",
        )
    taught = done.rows[done.rows["method"] == "icm_supervised"]
    assert len(taught) == 2
    # Mirrors are no rows of the set.
    rows = [item for item in load_items(labels) if not item.id.endswith("/mirror")]
    assert set(taught["n_train"]) == {len(rows)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "magic"), "--methods magic is unknown"),
        (("--methods", "icm_perturbed"), "icm_perturbed needs icm"),
        (("--methods", "zero_shot_chat"), "--methods zero_shot_chat goes together with --chat-mod"),
        (("--chat-model", "x"), "--methods zero_shot_chat goes together with --chat-model or"),
        (("--chat-scorer", "here"), "--chat-scorer here: give a URL such as https://host/v1"),
        (("--scorer", "remote"), "--scorer remote: give local, or a URL"),
        (("--rule", "magic"), "--rule magic is unknown"),
        (
            ("--format", "magic"),
            "--format: unknown prompt format 'magic'; known: claim, ",
        ),
        (("--n", "1"), "--n 1: allowed are whole numbers from 2"),
        (("--batch", "1"), "--batch 1: allowed are whole numbers from 2"),
        (("--limit", "0"), "--limit 0: allowed are whole numbers from 1"),
        (("--schedule", "slow"), "schedule is 'slow'"),
    ],
)
def test_settings_that_cannot_work_are_refused(icm, words, message):
    settings = tyro.cli(icm.Settings, args=["--model", "nowhere/at-all", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        icm.main(settings)
