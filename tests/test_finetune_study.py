"""The study of fine-tuning: which labels reach a training, and what its rows and findings say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asked_model import AskedModel
from experiment_scripts import run as run_script
from experiment_scripts import script, session_of
from planted_rewards import write_set

from jelicit.data.export import MADE_BY
from jelicit.data.items import Item, label_of, load_items, save_items
from jelicit.figures.training import tuned_bars_figure
from jelicit.icm import accuracy
from jelicit.method_names import method_of
from jelicit.results import summarise
from jelicit.studies import finetune, icm
from jelicit.studies.findings import icm_findings
from jelicit.studies.finetune import (
    METHODS,
    MORE_SHOWN,
    OF_HUMANS,
    SOURCES,
    STUDY,
    Settings,
    annotator_labels,
)
from jelicit.studies.finetune_findings import finetune_findings
from jelicit.studies.icm_tasks import apart

N, TESTS = 8, 8
OF_MODELS = ("", "_tuned_icm", "_tuned_golden")
SMALL = Settings(n=N, batch=4, tests=TESTS, seeds=1, initial=2, draws=6, boot=10, shots=(1, 2))
SMALL = replace(SMALL, probes=("ccs",))


class Made(AskedModel):
    """What a training makes."""

    def release(self):
        """Nothing is held."""


class Learner(AskedModel):
    """Keeps what it was to learn."""

    def __init__(self, kind="kept"):
        super().__init__()
        self.training = {"kind": kind}
        self.taught = {}

    def tuned(self, items, labels, format, folder, *, seed, held_out, origin):
        texts = {(item.question, item.choice) for item in items}
        assert not texts & {(item.question, item.choice) for item in held_out}
        name, _, count = folder.name.partition("seed-0-")[2].rpartition("-")
        assert count == str(len(items))
        key = name if name.startswith("tuned_") else f"{name} {count}"
        self.taught[key] = (tuple(items), list(labels), seed, origin)
        return Made()


def measured(study, model, settings, folder):
    """The rows of a study, without the figures and the page that `Study.run` makes of them."""
    settings.check()
    session = session_of(study, settings.for_model(512), folder, model=model)
    parts = study.plan(session.settings, session)
    session.folder.begin()
    study.measure(parts, session)
    return session.folder.rows()


def one_run(tmp_path, *, dataset="pocket/pairs", **changes):
    model = Learner()
    settings = replace(SMALL, dataset=(dataset,), **changes)
    return model, measured(STUDY, model, settings, tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return one_run(tmp_path_factory.mktemp("finetune"))


def test_every_method_has_a_row_with_an_interval(done):
    _, rows = done
    rows = rows.set_index("method")
    probes = [f"{name}{of}" for name in SMALL.probes for of in OF_MODELS]
    assert set(rows.index) == {*METHODS, *probes}
    assert len(rows) == len(METHODS) + len(probes)
    assert rows["accuracy"].between(0, 1).all()
    assert (rows["accuracy_low"] <= rows["accuracy_high"]).all()


def test_every_source_gives_the_labels_that_it_is_named_after(done):
    model, rows = done
    taught = {name: labels for name, (_, labels, _, _) in model.taught.items()}
    assert set(taught) == {f"tuned_{source}" for source in SOURCES}
    items = model.taught["tuned_golden"][0]
    gold = [label_of(item) for item in items]
    assert len(items) == N
    assert taught["tuned_golden"] == gold
    assert taught["tuned_wrong"] == [not label for label in gold]
    right = accuracy(taught["tuned_icm"], gold)
    assert accuracy(taught["tuned_perturbed"], gold) == pytest.approx(right)
    rows = rows.set_index("method")
    for method, labels in taught.items():
        assert rows.loc[method, "label_accuracy"] == pytest.approx(accuracy(labels, gold))
        assert rows.loc[method, "n_train"] == N
    scores = model.score(*_zero_shot(items))
    assert taught["tuned_zero_shot"] == (scores[:, 0] > scores[:, 1]).tolist()


def _format_of_pairs():
    from jelicit.data.datasets import load_dataset
    from jelicit.data.prompts import get_format

    return get_format(load_dataset("pocket/pairs").formats["label"])


def _zero_shot(items):
    from jelicit.data.prompts import segments

    form = _format_of_pairs()
    return [segments(item, form) for item in items], (form.true_word, form.false_word)


def test_gold_labels_that_are_permuted_change_no_training_on_labels_found(tmp_path):
    """A set whose gold labels are turned round: the same items, the same labels to learn."""
    texts = [(f"what is {i}?", f"it is {i} {side}") for i in range(12) for side in (0, 1)]
    taught = []
    for name, turned in (("plain", False), ("turned", True)):
        folder = tmp_path / name / "own"
        folder.mkdir(parents=True)
        for split, part in (("train", texts[:16]), ("test", texts[16:])):
            items = [
                Item(
                    id=f"{split}/{row}",
                    question=question,
                    choice=choice,
                    label=(row % 2 == 0) != (turned and split == "train"),
                    group=question,
                )
                for row, (question, choice) in enumerate(part)
            ]
            save_items(folder / f"{split}.jsonl", items)
        methods = ("tuned_icm", "tuned_zero_shot", "tuned_bootstrapped", "tuned_golden")
        model, _ = one_run(
            tmp_path / f"out-{name}", dataset=str(folder), methods=methods, n=12, batch=6, probes=()
        )
        taught.append(model.taught)
    plain, turned = taught
    for method in ("tuned_icm", "tuned_zero_shot", "tuned_bootstrapped"):
        shown = [
            [(item.id, item.choice, label) for item, label in zip(*of[method][:2], strict=True)]
            for of in taught
        ]
        assert shown[0] == shown[1]
    assert plain["tuned_golden"][1] == [not label for label in turned["tuned_golden"][1]]


def test_a_model_that_cannot_be_trained_is_refused_before_anything_is_asked(tmp_path):
    model = AskedModel()
    with pytest.raises(ValueError, match="asked cannot be fine-tuned here: give a model of"):
        STUDY.run(model, replace(SMALL, out=tmp_path), quiet=True)
    assert not model.scored


@pytest.mark.parametrize("settings", [SMALL, icm.Settings(n=8, batch=4, initial=2, finetune=True)])
def test_what_is_tested_cannot_be_kept_among_what_is_trained_on(settings):
    with pytest.raises(ValueError, match="--overlap keep: what is tested would have been seen"):
        replace(settings, overlap="keep").check()


def of_a_test_question(folder):
    """A set of which two train pairs are of a test question, under another text."""
    mixed = write_set(folder, train=30, test=12)
    test = [json.loads(line) for line in (mixed / "test.jsonl").read_text().splitlines()]
    with (mixed / "train.jsonl").open("a") as file:
        for number, row in enumerate(test[:2]):
            other = {"id": f"other {number}", "choice": f"Another text {number}."}
            file.write(json.dumps({**row, **other}) + "\n")
    return mixed


BETWEEN = {"finetune": True, "methods": ("icm",)}


@pytest.mark.parametrize(
    ("study", "changes"), [(STUDY, {}), (icm.STUDY, BETWEEN)], ids=["finetune", "icm"]
)
def test_train_items_of_test_questions_are_left_out_or_refused(tmp_path, study, changes):
    mixed = of_a_test_question(tmp_path / "mixed")
    small = {"n": N, "batch": 4, "tests": 12, "initial": 2}
    settings = study.settings(**small, dataset=(str(mixed),), **changes)
    session = session_of(study, settings, tmp_path, model=Learner())
    [task] = study.plan(settings, session)
    groups = {item.group for item in task.situation.train}
    assert groups == {f"number {n}" for n in range(30)}
    told = f"{mixed}: 2 of 32 train items are of a test question and are left out"
    assert told in session.folder.doubts
    refused = replace(settings, overlap="refuse")
    model = Learner()
    with pytest.raises(ValueError, match="train items are of a test question; leave them out with"):
        study.plan(refused, session_of(study, refused, tmp_path, model=model))
    assert not model.scored


def test_where_nothing_is_trained_items_of_test_questions_stay(tmp_path):
    mixed = of_a_test_question(tmp_path / "mixed")
    settings = icm.Settings(dataset=(str(mixed),), tests=12)
    [task] = icm.plan(settings, session_of(icm.STUDY, settings, tmp_path, model=Learner()))
    groups = {item.group for item in task.situation.train}
    assert groups > {"number 1000", "number 1001"}


def test_a_set_of_which_all_train_items_are_of_test_questions_is_refused(tmp_path):
    settings = replace(SMALL, tests=12)
    session = session_of(STUDY, settings, tmp_path, model=Learner())
    items = [Item(id=str(n), choice=f"{n}", label=True, group="one") for n in range(3)]
    with pytest.raises(ValueError, match="3 of 3 train items are of a test question, so none is"):
        apart("own", items, items[:1], session)


class Foretelling(Learner):
    """Says beforehand that verdicts are of several tokens."""

    def check_training(self, items, format):
        self.shown = [item.id for item in items]
        raise ValueError("training needs one token each")


@pytest.mark.parametrize(
    ("study", "changes"), [(STUDY, {}), (icm.STUDY, BETWEEN)], ids=["finetune", "icm"]
)
def test_what_a_training_would_refuse_is_refused_before_anything_is_asked(tmp_path, study, changes):
    model, out = Foretelling(), tmp_path / "out"
    small = {"dataset": ("pocket/pairs",), "n": N, "batch": 4, "initial": 2}
    settings = study.settings(**small, **changes, out=out)
    with pytest.raises(ValueError, match="training needs one token each"):
        study.run(model, settings, quiet=True)
    assert model.shown
    assert not model.scored
    assert not out.exists()


def test_trainings_are_part_of_a_runs_identity(tmp_path):
    settings = Settings(n=N, batch=4, tests=TESTS, seeds=1, boot=10, out=tmp_path)
    methods = ("zero_shot", "tuned_golden")
    settings = replace(settings, methods=methods, dataset=("pocket/pairs",), probes=())
    models = [Learner(), Learner(), Learner("another")]
    rows = [measured(STUDY, model, settings, tmp_path) for model in models]
    runs = [str(each["run_id"].iloc[0]) for each in rows]
    assert [bool(model.taught) for model in models] == [True, False, True]
    assert runs[0] == runs[1] != runs[2]


# --- training between batches ---------------------------------------------------------------------


def between(tmp_path, **changes):
    model = Learner()
    settings = icm.Settings(
        dataset=("pocket/pairs",),
        methods=("icm",),
        **{"n": 12, "batch": 4, "finetune": True, **changes},
        tests=TESTS,
        seeds=1,
        initial=2,
        draws=6,
        boot=10,
        out=tmp_path,
    )
    return model, measured(icm.STUDY, model, settings, tmp_path)


def labels_of(folder, method):
    (path,) = (folder / "labels").glob(f"*-{method}.jsonl")
    return {item.id: item.label for item in load_items(path)}


def test_files_of_labels_say_whose_they_are(tmp_path):
    between(tmp_path, rule="none")
    for method in ("icm", "icm_iterative", "icm_extended"):
        (path,) = (tmp_path / "labels").glob(f"*-{method}.jsonl")
        for item in load_items(path):
            said = dict(item.meta[MADE_BY])
            search = said.pop("search")
            assert said == {
                "method": method,
                "model": "asked",
                "set": "pocket/pairs",
                "format": "pair",
                "seed": 0,
            }
            assert (search["alpha"], search["initial"], search["rule"]) == (50.0, 2, "none")
            assert (search["items"], search["batch"], search["draws"]) == (12, 4, 6)


def test_each_batch_is_labelled_by_the_model_trained_on_those_before(tmp_path):
    model, rows = between(tmp_path)
    assert set(rows["method"]) == {"icm", "icm_iterative", "icm_extended"}
    found = labels_of(tmp_path, "icm_iterative")
    assert len(found) == 12
    first, second = (model.taught[f"icm_iterative {count}"] for count in (4, 8))
    for items, labels, seed, origin in (first, second):
        assert labels == [found[item.id] for item in items]
        assert (seed, origin) == (0, "icm_iterative of pocket/pairs, seed 0")
    assert second[0][:4] == first[0]
    # The first batch is searched by the model as it is, as without any training.
    alone = labels_of(tmp_path, "icm")
    assert first[1] == [alone[item.id] for item in first[0]]


def test_the_cheap_scheme_searches_the_first_batch_and_nothing_else(tmp_path):
    model, rows = between(tmp_path, n=8)
    alone = labels_of(tmp_path, "icm")
    items, labels, *_ = model.taught["icm_extended 4"]
    assert labels == [alone[item.id] for item in items]
    assert labels_of(tmp_path, "icm_extended").keys() == alone.keys()
    rows = rows.set_index("method")
    assert rows.loc["icm_extended", "searches"] == 1
    assert rows.loc["icm_extended", "n_train"] == 8
    steps = pd.concat(map(pd.read_parquet, (tmp_path / "steps").glob("*.parquet")))
    assert set(steps["method"]) == {"icm", "icm_iterative"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": None}, "--finetune trains between batches, and there is one"),
        ({"methods": ("zero_shot",)}, "--finetune needs --methods icm"),
    ],
)
def test_training_between_batches_needs_batches_and_a_search(changes, told):
    settings = icm.Settings(n=8, batch=4, finetune=True, initial=2)
    with pytest.raises(ValueError, match=told):
        replace(settings, **changes).check()


def test_findings_compare_training_between_batches_with_searches_alone():
    rows = pd.DataFrame(
        [
            {"dataset": "own", "method": method, "seed": 0, "label_accuracy": right}
            for method, right in (("icm", 0.8), ("icm_iterative", 0.9), ("icm_extended", 0.7))
        ]
    ).assign(accuracy=0.5, role="truth", orientation="none", target="truth", feature="none")
    assert [finding.appears for finding in icm_findings(rows)][-2:] == [True, False]
    alone = rows.loc[rows["method"] == "icm"]
    assert len(icm_findings(alone)) == len(icm_findings(rows)) - 2


# --- human labels --------------------------------------------------------------------------------


def test_one_annotators_labels_are_turned_with_a_mirrored_pair():
    pair = Item(id="a", choice="x", choice_2="y", label=True, meta={"human_votes": [False, True]})
    mirror = replace(pair, id="a/mirror", choice="y", choice_2="x", label=False)
    assert annotator_labels([pair, mirror], "own") == [False, True]


def test_a_set_without_annotators_is_refused_where_they_are_asked_for(tmp_path):
    settings = replace(SMALL, methods=("tuned_human",), out=tmp_path)
    with pytest.raises(ValueError, match=r"has no label of a single annotator \(meta.human_votes"):
        finetune.plan(settings, session_of(STUDY, settings, tmp_path, model=Learner()))


@pytest.fixture(scope="module")
def with_votes(tmp_path_factory):
    """A set whose annotator is wrong about every fourth pair."""
    return write_set(tmp_path_factory.mktemp("votes") / "own", train=30, test=12)


def voted(item):
    """What the planted annotator says of a pair: of every fourth one the opposite of its label."""
    return item.label if int(item.group.split()[1]) % 4 else not item.label


def test_human_labels_are_learnt_shown_and_compared_where_a_set_has_them(with_votes, tmp_path):
    model, rows = one_run(tmp_path, dataset=str(with_votes), n=16, batch=8, probes=())
    assert set(rows["method"]) == {*METHODS, *OF_HUMANS}
    items, labels, *_ = model.taught["tuned_human"]
    assert labels == [voted(item) for item in items]
    rows = rows.set_index("method")
    right = accuracy(labels, [item.label for item in items])
    assert 0 < right < 1
    for method in OF_HUMANS:
        assert rows.loc[method, "label_accuracy"] == pytest.approx(right)
        assert 0 <= rows.loc[method, "accuracy"] <= 1
    told = next(f for f in finetune_findings(rows.reset_index()) if "human annotator" in f.claim)
    assert "no such case" not in told.measured


def test_methods_that_are_named_are_all_that_is_measured(with_votes, tmp_path):
    settings = replace(SMALL, dataset=(str(with_votes),), methods=("zero_shot", "tuned_golden"))
    [task] = finetune.plan(settings, session_of(STUDY, settings, tmp_path, model=Learner()))
    assert task.more == ()


def test_prompts_show_the_very_labels_that_are_learnt(tmp_path):
    """The examples of each source's prompts are the items with its labels."""
    shown = ("perturbed", "zero_shot", "bootstrapped", "wrong")
    assert set(MORE_SHOWN) == {f"{source}_many_shot" for source in shown}
    tuned = tuple(f"tuned_{source}" for source in shown)
    model, rows = one_run(tmp_path, methods=(*MORE_SHOWN, *tuned), probes=())
    right: Any = rows.set_index("method")["label_accuracy"].to_dict()
    for source in shown:
        items, labels, *_ = model.taught[f"tuned_{source}"]
        assert right[f"{source}_many_shot"] == pytest.approx(right[f"tuned_{source}"])
        prompts = [prompt for prompt, _ in model.scored if len(prompt) == N + 1]
        assert any(_shows(prompt, items, labels) for prompt in prompts)


def _shows(prompt, items, labels):
    """Whether a prompt's examples are these items with these labels."""
    from jelicit.data.prompts import GAP, segments

    form = _format_of_pairs()
    words = {True: form.true_word, False: form.false_word}
    pairs = zip(items, labels, strict=True)
    told = {segments(item, form)[-1] + words[label] + GAP for item, label in pairs}
    return set(prompt[:-1]) == told


# --- findings ------------------------------------------------------------------------------------


def findings_of(**accuracies):
    rows = pd.DataFrame(
        [
            {"dataset": "own", "method": method, "seed": seed, "accuracy": value, "role": "truth"}
            for method, value in accuracies.items()
            for seed in range(2)
        ]
    ).assign(orientation="none", target="truth", feature="none")
    return [finding.appears for finding in finetune_findings(rows)]


def test_findings_follow_their_rules():
    learnt = {"tuned_wrong": 0.2, "tuned_golden": 0.9}
    good = {"tuned_icm": 0.88, "tuned_human": 0.8, "tuned_perturbed": 0.8, "zero_shot": 0.7}
    more = {"tuned_zero_shot": 0.87, "zero_shot_chat": 0.9}
    assert findings_of(**learnt, **good, **more) == [*[True] * 5, False, False, None]
    bad = {"tuned_icm": 0.6, "tuned_perturbed": 0.8, "zero_shot": 0.7}
    assert findings_of(**learnt, **bad) == [True, False, None, False, False, *[None] * 3]


def test_probes_before_and_after_are_compared_by_auroc():
    rows = pd.DataFrame(
        [
            {"dataset": "own", "method": method, "seed": 0, "auroc": area}
            for method, area in (("ccs", 0.7), ("ccs_tuned_icm", 0.9))
        ]
    ).assign(accuracy=0.5, role="truth", orientation="oracle", target="truth", feature="none")
    assert finetune_findings(rows)[-1].appears is True
    assert method_of("ccs_tuned_icm").name == "CCS, fine-tuned, ICM"


def test_a_layer_that_the_model_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--layer 2: asked has 1 blocks"):
        one_run(tmp_path, methods=("tuned_icm",), layer=2)


def test_a_training_that_learns_nothing_cannot_tell():
    found = findings_of(tuned_wrong=0.9, tuned_golden=0.9, tuned_icm=0.9, zero_shot=0.5)
    assert found == [False, *[None] * 7]


# --- the figure of bars --------------------------------------------------------------------------


def test_a_bar_is_the_mean_over_seeds_and_its_line_the_interval():
    chosen = {"zero_shot": 0.6, "tuned_golden": 0.9, "tuned_human": 0.7, "tuned_icm": 0.8}
    rows = pd.DataFrame(
        [
            {"dataset": name, "method": method, "seed": seed, "accuracy": value + 0.05 * seed}
            for name in ("a", "b")
            for method, value in {**chosen, "tuned_wrong": 0.1}.items()
            for seed in range(2)
        ]
    ).assign(role="truth", orientation="none", target="truth", feature="none")
    rows = rows.assign(accuracy_low=rows["accuracy"] - 0.1, accuracy_high=rows["accuracy"] + 0.1)
    figure = tuned_bars_figure(rows)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Zero-shot",
        "Fine-tuned, golden",
        "Fine-tuned, human",
        "Fine-tuned, ICM",
    ]
    points = summarise(rows, by=["dataset", "method"], value="accuracy")
    for method, value in chosen.items():
        axes: Any = figure.axes[0]
        bars = [bar for bar in axes.patches if bar.get_gid() == method]
        assert [bar.get_height() for bar in bars] == pytest.approx([value + 0.025] * 2)
        [lines] = [each for each in axes.collections if each.get_gid() == method]
        ends = [sorted(segment[:, 1]) for segment in lines.get_segments()]
        expected = points.loc[points["method"] == method, ["low", "high"]].to_numpy().tolist()
        np.testing.assert_allclose(ends, expected)
        assert all(low < value < high for low, high in ends)
    without = rows.loc[rows["method"] != "tuned_human"]
    assert len(tuned_bars_figure(without).legends[0].get_texts()) == 3
    with pytest.raises(ValueError, match="zero-shot and fine-tuned models"):
        tuned_bars_figure(rows.loc[rows["method"] == "tuned_wrong"])


# --- models and prompts that cannot be trained on ------------------------------------------------


@pytest.fixture(scope="module")
def adapter(random_model, tmp_path_factory):
    """An adapter of the random model, and what it was trained on."""
    pytest.importorskip("peft", reason="training needs the train extra")
    from extract.finetune import finetune as train
    from extract.finetune_settings import FinetuneSettings

    items = [Item(id=str(n), choice=f"{n} is it.", label=n % 2 == 0) for n in range(4)]
    how = FinetuneSettings(epochs=1, weights="lora")
    labels = [item.label for item in items]
    out = tmp_path_factory.mktemp("tuned") / "adapter"
    return train(str(random_model), items, labels, "statement", out, settings=how, progress=False)


@pytest.mark.parametrize("name", ["finetune", "icm"])
def test_an_adapter_is_refused_before_anything_is_asked(adapter, tmp_path, name):
    words = ("--dataset", "pocket/pairs", "--n", "8", "--batch", "4", "--initial", "2")
    more = ("--finetune", "--methods", "icm") if name == "icm" else ()
    out = tmp_path / "out"
    with script(name) as found, pytest.raises(ValueError, match="is an adapter, and an adapter of"):
        run_script(found, *words, *more, model=adapter, stores=tmp_path / "stores", out=out)
    assert not out.exists()


def test_verdicts_of_several_tokens_are_refused_before_anything_is_asked(random_model, tmp_path):
    pytest.importorskip("peft", reason="training needs the train extra")
    form = tmp_path / "long.toml"
    words = 'true_word = " True True"\nfalse_word = " False False"\n'
    form.write_text(f'name = "long"\ntext = "{{choice}}\\nThat is"\n{words}')
    out = tmp_path / "out"
    words = ("--dataset", "pocket/facts", "--format", str(form))
    with script("finetune") as found, pytest.raises(ValueError, match="needs one token each"):
        run_script(found, *words, model=random_model, stores=tmp_path / "stores", out=out)
    assert not out.exists()


# --- the script ----------------------------------------------------------------------------------


def test_the_script_trains_a_model_and_asks_it(random_model, tmp_path):
    pytest.importorskip("peft", reason="training needs the train extra")
    words = (
        *("--n", "6", "--batch", "6", "--tests", "6", "--seeds", "1", "--draws", "4"),
        *("--initial", "2", "--boot", "10", "--epochs", "1", "--probes", "ccs"),
        *("--dataset", "pocket/pairs"),
    )
    with script("finetune") as found:
        ran = run_script(
            found,
            *words,
            *("--methods", "zero_shot", "tuned_icm", "tuned_golden"),
            model=random_model,
            stores=tmp_path / "stores",
            out=tmp_path / "out",
        )
    probed = {f"ccs{of}" for of in OF_MODELS}
    assert set(ran.rows["method"]) == {"zero_shot", "tuned_icm", "tuned_golden", *probed}
    models = sorted(path.name for path in (tmp_path / "out" / "models").iterdir())
    assert models == [f"pocket-pairs-seed-0-tuned_{source}-6" for source in ("golden", "icm")]
    assert "finding: The training learns its labels" in ran.printed
    assert np.isfinite(ran.rows["auroc"]).all()
    assert Path(tmp_path / "out" / "report.html").is_file()
    assert Path(tmp_path / "out" / "finetune-bars.svg").is_file()
