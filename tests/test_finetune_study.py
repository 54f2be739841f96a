"""The study of fine-tuning: which labels reach a training, and what its rows and findings say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asked_model import AskedModel
from experiment_scripts import run as run_script
from experiment_scripts import script, session_of

from jelicit.data.items import Item, label_of, load_items, save_items
from jelicit.icm import accuracy
from jelicit.method_names import method_of
from jelicit.studies import finetune, icm
from jelicit.studies.findings import icm_findings
from jelicit.studies.finetune import METHODS, SOURCES, STUDY, Settings, annotator_labels
from jelicit.studies.finetune_findings import finetune_findings

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


def _zero_shot(items):
    from jelicit.data.datasets import load_dataset
    from jelicit.data.prompts import get_format, segments

    form = get_format(load_dataset("pocket/pairs").formats["label"])
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


def test_what_is_tested_cannot_be_kept_among_what_is_trained_on():
    with pytest.raises(ValueError, match="--overlap keep: what is tested would have been seen"):
        replace(SMALL, overlap="keep").check()


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
