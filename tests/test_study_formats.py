"""Prompt formats of one's own in every study, and several formats beside each other."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from asked_model import AskedModel, AskedStore
from experiment_scripts import joined, planned, session_of
from planted_rewards import PlantedModel
from rich.console import Console
from sklearn.metrics import roc_auc_score

from jelicit import figures
from jelicit.data import registry
from jelicit.data.formats import BASE_FORMATS, PromptFormat
from jelicit.data.items import Item, save_items
from jelicit.data.prompts import contrast_pair, get_format, zero_shot
from jelicit.method_names import in_format, readable
from jelicit.report.folder import read_folder
from jelicit.report.item_browser import about_items
from jelicit.report.row_table import facets_of
from jelicit.results import ItemScores, Record
from jelicit.studies import (
    Cases,
    Situation,
    States,
    assistant,
    finetune,
    icm,
    imbalance,
    impossible,
    layers,
    reward,
    salience,
    scaling,
    stress,
    transfer,
    warning_signs,
)
from jelicit.studies.format_rows import format_table, told_apart
from jelicit.studies.models import Models
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.settings import PromptSettings, StudySettings
from jelicit.studies.study import Study

STUDIES = (salience, imbalance, impossible, layers, transfer, icm)
SMALL: dict[str, dict[str, Any]] = {
    "salience": {"dataset": ("pocket/arithmetic",), "features": ("none", "punctuation")},
    "layers": {"dataset": ("pocket/arithmetic",), "features": ("none",)},
    "imbalance": {"dataset": ("pocket/arithmetic",), "shares": (0.5,)},
    "impossible": {"dataset": ("pocket/arithmetic",)},
    "transfer": {"dataset": ("pocket/arithmetic", "pocket/larger_than")},
    "icm": {"dataset": ("pocket/arithmetic",), "n": 4, "tests": 8, "shots": (1,), "draws": 4},
}
OF_PROBES = {"max_rows": 40, "methods": ("pca",), "layers": ("1",), "seeds": 1}
OF_PROMPTS = "--prompting random_few_shot golden_few_shot --shots 2 --pool 8 --prompt-tests 8"
TEXT = "Exam question: {question}\nA pupil writes: {choice}\nThe pupil's answer is"
EXAM = {
    "name": "exam",
    "text": TEXT,
    "true_word": " right",
    "false_word": " wrong",
    "third_word": " open",
}


def name_of(study: Any) -> str:
    return study.STUDY.name


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Formats by reference are forgotten; figures are drawn and, mostly, not written."""
    monkeypatch.setattr(registry, "_own_formats", {})
    monkeypatch.setattr(figures, "save", lambda figure, stem: [])


@pytest.fixture
def exam(tmp_path):
    """A format file; with changes, another one of the name `as_`."""

    def exam(as_: str = "exam", **changes: Any) -> str:
        path = tmp_path / f"{as_}.json"
        path.write_text(json.dumps({**EXAM, **changes}), encoding="utf-8")
        return str(path)

    return exam


def settings_of(study: Any, **changes: Any) -> Any:
    name = name_of(study)
    own = {"methods": ("zero_shot", "icm"), "seeds": 1, "initial": 2}
    options: dict[str, Any] = {**(own if name == "icm" else OF_PROBES), **SMALL[name], "boot": 9}
    words = OF_PROMPTS.split() if name in ("salience", "imbalance", "impossible") else []
    given = tyro.cli(study.Settings, args=words)
    return type(given)(**{**vars(given), **options, **changes})


def run(study: Any, tmp_path: Any, *, model: Any = None, **changes: Any) -> Any:
    out = changes.pop("out", tmp_path / "out")
    settings = settings_of(study, out=out, **changes)
    return study.run(model or AskedModel(), settings, quiet=True)


def situations(plans: Any) -> list[Situation]:
    found = []
    for plan in plans:
        found += getattr(plan, "situations", [getattr(plan, "situation", plan)])
    return found


# --- one format ----------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_every_study_shows_its_items_in_the_format_of_a_file_and_the_easy_set_in_its_own(
    study, exam, tmp_path
):
    plans = planned(study.STUDY, settings_of(study, format=(exam(),)), tmp_path)
    assert situations(plans)
    for situation in situations(plans):
        assert situation.format == PromptFormat(**EXAM)
        assert (situation.prompt, situation.dataset) == ("", situation.title.split(", ")[0])
        assert situation.easy is None or situation.easy.format == "claim"
        assert "format" not in situation.about("m")


PAIR = "Query: {question}\nFirst: {choice}\nSecond: {choice_2}\nThe better one is"
TWO = ("pocket/arithmetic", "pocket/larger_than")
FEW: dict[Any, dict[str, Any]] = {
    scaling: {"dataset": TWO[:1], "max_rows": 40, "n": 4, "tests": 8},
    stress: {"dataset": TWO, "max_rows": 24, "methods": ("pca",)},
    warning_signs: {"dataset": TWO, "others": (), "max_rows": 24, "methods": ("pca",)},
    finetune: {"dataset": TWO, "n": 4, "tests": 8, "methods": ("zero_shot", "golden_many_shot")},
    reward: {"dataset": ("pocket/pairs",), "n": 8, "rest": 8, "tests": 8},
    assistant: {"dataset": ("pocket/pairs",), "n": 8, "rest": 8, "tests": 8, "judge": 8},
}
"""Studies that are no mere list of situations, as small as they can be planned."""


def every_situation(parts: Any) -> Iterator[Situation]:
    """What is asked in parts of any of them; the challenge that compares formats left out."""
    for part in parts:
        if hasattr(part, "challenge"):
            yield from every_situation(part.planned if part.challenge != "prompts" else ())
        elif hasattr(part, "plans"):
            yield from every_situation((*part.plans, *part.tasks))
        elif hasattr(part, "task"):
            yield part.task.situation
        else:
            yield from situations([part])


@pytest.mark.parametrize("study", FEW, ids=name_of)
def test_a_format_that_is_asked_for_is_the_text_of_every_prompt(study, exam, tmp_path):
    text = PAIR if study in (reward, assistant) else TEXT
    one = SimpleNamespace(name="one", foreseen=None)
    model: Any = Models([one]) if study is scaling else PlantedModel()  # type: ignore[list-item]
    settings = study.Settings(format=(exam(text=text),), **FEW[study])
    settings.check()
    session = session_of(study.STUDY, settings, tmp_path, model=model)
    asked = list(every_situation(study.STUDY.plan(settings, session)))
    assert asked
    if study in (stress, warning_signs):
        assert {"none", "sycophancy", "punctuation", "tense"} <= {each.feature for each in asked}
        assert "pocket/arithmetic + pocket/opinions" in {each.dataset for each in asked}
    for situation in asked:
        for item in (*situation.train, *situation.test):
            assert zero_shot(item, situation.format) == text.format(**vars(item))


@pytest.mark.parametrize("study", [scaling, stress, warning_signs, reward, assistant], ids=name_of)
def test_studies_that_take_one_format_refuse_two(study, exam, tmp_path):
    files = [exam(name, name=name, text=PAIR if study in (reward, assistant) else TEXT)
             for name in ("one", "two")]  # fmt: skip
    settings = study.Settings(format=tuple(files), **FEW[study])
    session = session_of(study.STUDY, settings, tmp_path, model=PlantedModel())

    def begin() -> None:
        settings.check()
        study.STUDY.plan(settings, session)

    with pytest.raises(ValueError, match=r"--format .*(give one|this study takes one)"):
        begin()


@pytest.mark.slow
@pytest.mark.parametrize("study", [impossible, icm], ids=name_of)
def test_zero_shot_few_shot_and_contrast_pairs_are_all_in_that_format(study, exam, tmp_path):
    model = AskedModel()
    done = run(study, tmp_path, model=model, format=(exam(),))
    hard = [pair for name, pairs in model.read.items() if "easy" not in name for pair in pairs]
    assert bool(hard) == (study is not icm)
    for true, false in hard:
        assert re.fullmatch(
            r"Exam question: .*\nA pupil writes: .*\nThe pupil's answer is", true[:-6]
        )
        assert (true[-6:], false[-6:]) == (" right", " wrong")
    assert model.scored
    for (*examples, target), words in model.scored:
        assert words == (" right", " wrong")
        assert target.endswith("The pupil's answer is")
        for text in examples:
            assert re.search(r"The pupil's answer is (right|wrong|open)\n\n$", text)
    shown = "".join(text for prompt, _ in model.scored for text in prompt)
    assert (" is open\n\n" in shown) == (study is impossible)
    assert "I think this claim" not in shown
    assert "format" not in done.rows


def test_a_format_by_name_reference_object_or_alone_is_the_same_one(exam, tmp_path):
    reference = tmp_path / "own.py"
    reference.write_text(
        f"from jelicit.data import PromptFormat\nEXAM = PromptFormat(**{EXAM!r})\n"
    )
    ways: list[Any] = [(exam(),), exam(), PromptFormat(**EXAM), (f"{reference}:EXAM",)]
    formats = [
        situations(planned(salience.STUDY, settings_of(salience, format=way), tmp_path))[0].format
        for way in ways
    ]
    assert formats == [PromptFormat(**EXAM)] * len(ways)


# --- identities ----------------------------------------------------------------------------------


@pytest.fixture
def named_runs(tmp_path, monkeypatch):
    """(id, settings) of every run of a study; nothing is measured."""
    named: list[tuple[str, dict[str, Any]]] = []

    class Named(BaseException):
        pass

    def name(folder: RunFolder, situation: Any, settings: Any, *rest: Any) -> Any:
        named.append((folder.name_of(situation, settings), dict(settings)))
        return named[-1][0], False

    def end(folder: RunFolder) -> Any:
        raise Named

    monkeypatch.setattr(RunFolder, "run", name)
    monkeypatch.setattr(RunFolder, "rows", end)

    def named_runs(study: Any, **changes: Any) -> list[tuple[str, dict[str, Any]]]:
        named.clear()
        with pytest.raises(Named):
            run(study, tmp_path, **changes)
        return list(named)

    return named_runs


@pytest.mark.parametrize("study", [salience, imbalance, impossible, transfer, icm], ids=name_of)
def test_the_contents_of_a_format_are_in_the_names_of_all_runs(study, named_runs, exam):
    """Also where stores have no account of themselves: nothing else would tell the runs apart."""

    def ids(study: Any, **changes: Any) -> list[str]:
        return [run for run, _ in named_runs(study, **changes)]

    first = ids(study, format=(exam(),))
    assert len(set(first)) == len(first)
    assert ids(study, format=(exam("moved"),)) == first
    for changes in ({"text": TEXT + " certainly"}, {"true_word": " fine"}, {"system": "Exams."}):
        assert not set(ids(study, format=(exam(**changes),))) & set(first), changes
    several = ids(study, format=(exam(), "claim"))
    # Transfer tests each format on each, and salience has an ensemble of both.
    times = {"transfer": 4, "salience": 3}.get(name_of(study), 2)
    assert len(set(several)) == times * len(first)
    # Rows that say their format are not read back as rows that do not, nor the other way round.
    assert not set(several) & {*first, *ids(study, format=("claim",))}


def test_the_number_of_ensembles_is_in_the_names_of_what_they_are_made_of(
    named_runs, exam, monkeypatch
):
    """The scale that members are kept on is theirs; a run of one format keeps none."""

    def ids(*formats: Any) -> list[str]:
        return [run for run, _ in named_runs(salience, format=formats, features=("none",))]

    one, several = ids(exam()), ids(exam(), "claim")
    monkeypatch.setattr(salience, "ENSEMBLES", salience.ENSEMBLES + 1)
    assert ids(exam()) == one
    assert len(several) == 3  # a run of each format, and their ensemble, which names them
    assert not set(ids(exam(), "claim")) & set(several)


@pytest.mark.parametrize("study", [salience, transfer], ids=name_of)
def test_without_a_format_a_name_says_nothing_of_formats(study, named_runs):
    runs = named_runs(study)
    assert runs
    for _, settings in runs:
        assert not {"format", "compared", "train_format"} & set(settings)


# --- several formats -----------------------------------------------------------------------------


COMPARED: dict[str, Any] = {
    "seeds": 2,
    "prompts": PromptSettings(
        prompting=("random_few_shot", "zero_shot_calibrated"), shots=(2,), pool=8, prompt_tests=8
    ),
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run of salience with three formats, and what it printed."""
    place = tmp_path_factory.mktemp("compared")
    (place / "exam.json").write_text(json.dumps(EXAM), encoding="utf-8")
    console = Console(record=True, width=200, file=io.StringIO())
    done = salience.run(AskedModel(), compared_settings(place), console=console)
    return done, console.export_text()


def compared_settings(place: Any) -> Any:
    """Its settings; the format file and the results lie in a folder."""
    formats = ("claim", "statement", str(place / "exam.json"))
    features = ("none", "sycophancy")
    return settings_of(salience, format=formats, features=features, out=place / "out", **COMPARED)


def test_each_format_has_rows_of_its_own_that_a_run_of_it_alone_has_too(compared, tmp_path):
    done, _ = compared
    rows = done.rows.loc[done.rows["feature"] == "none"]
    assert list(dict.fromkeys(rows["format"])) == ["claim", "statement", "exam", "ensemble"]
    assert set(rows["dataset"]) == {"pocket/arithmetic"}
    for name in ("claim", "statement"):
        alone = run(salience, tmp_path, format=(name,), features=("none",), **COMPARED).rows
        mine = rows.loc[rows["format"] == name].reset_index(drop=True)
        assert "format" not in alone
        assert not (tmp_path / "out" / "members").exists()
        columns = [c for c in alone if c != "run_id" and not str(c).startswith("settings.")]
        pd.testing.assert_frame_equal(mine[columns], alone[columns])
    assert rows.loc[rows["method"] == "pca"].groupby("format")["auroc"].mean().nunique() == 4


def test_a_feature_that_a_format_does_not_show_is_left_out_of_it_and_that_is_said(compared):
    done, printed = compared
    with_feature = done.rows.loc[done.rows["feature"] == "sycophancy", "format"]
    assert set(with_feature) == {"claim", "exam", "ensemble"}
    assert "sycophancy left out, its prompt shows no question" in printed


def test_tables_figures_findings_and_files_name_the_format(compared):
    done, printed = compared
    for name in ("claim", "statement", "exam"):
        stem = f"pocket-arithmetic-format-{name}"
        assert joined(f"AUROC: pocket/arithmetic, format {name}, layer 1") in joined(printed)
        assert f"salience-{stem}" in done.figures
        titled = done.figures[f"salience-{stem}"].get_suptitle()
        assert titled == f"Arithmetic (pocket), format {name}"
        assert (done.folder / "rounds" / f"{stem}-labels.jsonl").is_file()
    [found, *_] = done.findings
    assert "of 3 cases" in found.measured  # PCA in three formats: none is averaged away
    folder = read_folder(done.folder)
    assert "format" in facets_of(folder.rows, series="role")
    panels = [panel["name"] for panel in about_items(folder.items, folder.rows)["panels"]]
    assert sorted(panels) == [
        *["No added feature, format claim", "No added feature, format ensemble"],
        *["No added feature, format exam", "No added feature, format statement"],
        *["Sycophancy, format claim", "Sycophancy, format ensemble", "Sycophancy, format exam"],
    ]


def test_formats_stand_side_by_side_with_how_far_they_lie_apart(compared):
    done, printed = compared
    assert "AUROC by prompt format: pocket/arithmetic" in printed
    rows = told_apart(done.rows)
    rows = rows.loc[(rows["feature"] == "none") & (rows["role"] == "truth")]
    table = format_table(rows)
    cells = {str(c.header): list(c.cells) for c in table.columns}
    assert list(cells) == ["Method", "claim", "statement", "exam", "most - least", "ensemble"]
    place = cells["Method"].index("PCA *")
    pca = rows.loc[(rows["method"] == "pca") & (rows["orientation"] == "oracle")]
    means = pca.groupby("format")["auroc"].mean()
    for name in ("claim", "statement", "exam"):
        assert cells[name][place] == f"{means[name]:.2f}"
    assert cells["ensemble"][place] == f"{means['ensemble']:.2f}"
    means = means.drop("ensemble")
    assert cells["most - least"][place] == f"{means.max() - means.min():.2f}"


# --- ensembles over prompts ----------------------------------------------------------------------

KEY = ["method", "orientation", "target", "seed"]


class Place:
    """What one feature has in one format, of the run of three."""

    def __init__(self, done: Any, form: str, feature: str):
        rows = done.rows
        rows = rows.loc[(rows["format"] == form) & (rows["feature"] == feature)]
        self.rows = pd.DataFrame(rows).set_index(KEY)
        [self.run] = rows["run_id"].unique()
        self.folder = RunFolder("salience", done.folder)

    @property
    def members(self) -> ItemScores:
        """What ensembles are made of."""
        return self.folder.members.read(self.run)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The labels of the test items, by target."""
        items = self.folder.items.read(self.run).items
        others = [json.loads(text) for text in items["others"]]
        names = others[0]
        return {
            "truth": items["label"].to_numpy(),
            **{name: np.array([float(own[name]) for own in others]) for name in names},
        }


@pytest.mark.parametrize(
    ("feature", "formats"),
    [("none", ("claim", "statement", "exam")), ("sycophancy", ("claim", "exam"))],
)
def test_rows_of_an_ensemble_are_those_of_the_mean_by_hand(compared, feature, formats):
    done, _ = compared
    of_formats = [Place(done, form, feature) for form in formats]
    ensemble, labels = Place(done, "ensemble", feature), of_formats[0].labels
    kept = [each.members for each in of_formats]
    for place, about in enumerate(kept[0].settings):
        assert all(each.settings[place] == about for each in kept)
        mean = np.sum([each.scores[:, place] for each in kept], 0, dtype=float) / len(kept)
        row = ensemble.rows.loc[tuple(about[name] for name in KEY)]
        label = labels[about["target"]]
        assert row["auroc"] == pytest.approx(roc_auc_score(label, mean), abs=1e-6)
        assert row["accuracy"] == pytest.approx(((mean > 0) == label).mean(), abs=1e-6)
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert (row["layer"], row["n_train"]) == (1, about["n_train"])
    # Zero-shot, calibrated or not, and PCA by two signs and seeds.
    assert len(kept[0].settings) == len(ensemble.rows)
    assert len(ensemble.rows) == (2 + 2 * 2) * (1 if feature == "none" else 2)


def test_members_are_log_odds_as_they_are_and_probes_signed_as_in_their_own_rows(compared):
    done, _ = compared
    settings = compared_settings(done.folder.parent)
    plans = planned(salience.STUDY, settings, done.folder)
    [situation] = [s for s in plans[0].situations if s.feature == "sycophancy"]
    for form in ("claim", "exam"):
        here = Place(done, form, "sycophancy")
        labels, kept = here.labels, here.members
        of_form = form if form == "claim" else PromptFormat(**EXAM)
        said = AskedStore([contrast_pair(item, of_form) for item in situation.test]).log_probs
        for about, scores in zip(kept.settings, kept.scores.T, strict=True):
            if about["method"] == "zero_shot":
                np.testing.assert_allclose(scores, said[:, 0] - said[:, 1], rtol=1e-5)
            area = roc_auc_score(labels[about["target"]], scores)
            row = here.rows.loc[tuple(about[name] for name in KEY)]
            assert row["auroc"] == pytest.approx(area, abs=1e-6)


def test_ensembles_are_read_back_whatever_the_order_of_the_formats(compared):
    done, _ = compared
    settings = compared_settings(done.folder.parent).for_model(AskedModel.trained_length)
    settings = type(settings)(**{**vars(settings), "format": settings.format[::-1]})
    model = AskedModel()
    again = session_of(salience.STUDY, settings, done.folder, model=model)
    salience.measure(salience.plan(settings, again), again)
    assert not model.scored
    assert set(again.folder.runs) == set(done.rows["run_id"])


def test_calibrated_zero_shot_stands_beside_zero_shot_in_each_format(compared):
    done, _ = compared
    moved = []
    for form in ("claim", "statement", "exam"):
        rows = Place(done, form, "none").rows.reset_index()
        plain, calibrated = (
            rows.loc[rows["method"] == method].to_dict("records")
            for method in ("zero_shot", "zero_shot_calibrated")
        )
        assert len(plain) == len(calibrated) == 1
        assert calibrated[0]["auroc"] == pytest.approx(plain[0]["auroc"], abs=1e-6)
        moved.append(calibrated[0]["accuracy"] - plain[0]["accuracy"])
    assert any(moved)


@pytest.mark.slow
@pytest.mark.parametrize("study", [imbalance, impossible, layers, transfer, icm], ids=name_of)
def test_two_formats_in_every_other_study(study, exam, tmp_path):
    done = run(study, tmp_path, format=(exam(), "claim"))
    assert set(done.rows["format"]) == {"exam", "claim"}
    sets = done.rows["dataset"].nunique()
    shown = told_apart(done.rows)
    assert shown["dataset"].nunique() == 2 * sets
    assert Record.read(done.folder).runs == tuple(dict.fromkeys(done.rows["run_id"]))
    if study is transfer:  # each set in each format is trained on and tested on
        pairs = set(zip(shown["train"], shown["dataset"], strict=True))
        probes = {pair for pair in pairs if pair[0] != "none"}
        assert len(probes) == (2 * sets) ** 2
        assert len({pair for pair in probes if pair[0] == pair[1]}) == 2 * sets
    elif study is icm:
        files = {path.name for path in (done.folder / "labels").iterdir()}
        stem = "pocket-arithmetic-format-{}-seed0-icm.jsonl"
        assert files == {stem.format("exam"), stem.format("claim")}
        assert "icm-search-pocket-arithmetic-format-exam" in done.figures
    elif study is not layers:
        assert all(
            any(f"-format-{name}" in figure for figure in done.figures)
            for name in ("exam", "claim")
        )


def test_a_set_in_a_format_has_a_name_for_readers():
    assert readable(in_format("pocket/facts", "facts/elm")) == "Facts (pocket), format facts/elm"
    mixture = in_format("pocket/facts + pocket/opinions", "claim")
    assert readable(mixture) == "Facts (pocket) + Opinions (pocket), format claim"


def test_rows_of_one_format_are_left_as_they_are():
    rows = pd.DataFrame({"dataset": ["a"], "auroc": [0.5]})
    assert told_apart(rows) is rows


# --- what a format asks for ----------------------------------------------------------------------


def test_of_a_set_with_two_labels_a_format_is_asked_for_its_own(tmp_path):
    def asked(*formats: str) -> list[tuple[Any, ...]]:
        settings = settings_of(salience, dataset=("pocket/facts",), format=formats)
        return [
            (get_format(s.format).name, s.target, s.spurious, s.feature)
            for s in situations(planned(salience.STUDY, settings, tmp_path))
        ]

    elm = ("facts/elm", "elm", "label", "truth, asked for elm")
    claim = ("statement", "label", "elm", "elm, asked for truth")
    assert asked("facts/elm") == [elm]
    assert asked("statement", "facts/elm") == [claim, elm]


def test_shares_are_of_the_label_that_the_format_asks_for(tmp_path):
    settings = settings_of(
        imbalance, dataset=("pocket/commands",), format=("commands/suspicious",), shares=None
    )
    [plan] = planned(imbalance.STUDY, settings, tmp_path)
    assert (plan.situation.target, len(plan.shares)) == ("label", 13)


# --- what is refused -----------------------------------------------------------------------------


def write_set(folder: Any, items: list[dict[str, Any]]) -> str:
    folder.mkdir()
    for split in ("train", "test"):
        made = [Item(id=f"{split}{k}", split=split, **item) for k, item in enumerate(items)]
        save_items(folder / f"{split}.jsonl", made)
    return str(folder)


def without_easy(study: Any) -> dict[str, str]:
    """The easy set of a folder is on the hub."""
    return {} if study is icm else {"easy": "none"}


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_a_field_that_the_items_lack_is_refused_before_anything_is_asked(study, exam, tmp_path):
    bare = [{"choice": f"{k} is even.", "label": k % 2 == 0} for k in range(20)]
    folder = write_set(tmp_path / "bare", bare)
    sets = (folder, "pocket/arithmetic") if study is transfer else (folder,)
    said = r"'exam' shows question, which item '(train|test)0' lacks; choose .* --format: statement"
    with pytest.raises(ValueError, match=said):
        planned(
            study.STUDY,
            settings_of(study, dataset=sets, format=(exam(),), **without_easy(study)),
            tmp_path,
        )
    one = exam("pair", text="1: {choice}\n2: {choice_2}\nThe first is")
    with pytest.raises(ValueError, match=r"'exam' shows choice_2, which item"):
        planned(study.STUDY, settings_of(study, format=(one,)), tmp_path)


def test_pairs_are_not_shown_by_one_response(tmp_path):
    settings = settings_of(salience, dataset=("pocket/pairs",), format=("claim",))
    with pytest.raises(ValueError, match=r"'claim' shows one response, but item .* is a pair"):
        planned(salience.STUDY, settings, tmp_path)


def answers(numbers: range) -> list[dict[str, Any]]:
    """Of each question a right and a wrong answer, which are the same two everywhere."""
    return [
        {"question": f"Is {k} even?", "choice": word, "label": (word == "Yes.") == (k % 2 == 0)}
        for k in numbers
        for word in ("Yes.", "No.")
    ]


def test_a_format_without_the_question_that_leaves_no_text_its_label_is_refused(tmp_path):
    own = write_set(tmp_path / "own", answers(range(12)))
    for study in (salience, icm, impossible):
        with pytest.raises(ValueError, match="without it every text stands for true and false"):
            planned(
                study.STUDY,
                settings_of(study, dataset=(own,), format="statement", **without_easy(study)),
                tmp_path,
            )


def test_some_such_texts_are_told_and_train_rows_that_read_as_test_rows_are_left_out(
    tmp_path, exam
):
    telling = [
        {"question": f"Of {k}?", "choice": f"{k} is {'even' if k % 2 == 0 else 'odd'}.", "label": t}
        for k in range(30)
        for t in [k % 3 == 0]
    ]
    folder = tmp_path / "own"
    folder.mkdir()
    train = [{**item, "question": f"Train. {item['question']}"} for item in telling]
    for split, rows in (("train", [*train, *answers(range(2))]), ("test", telling[:10])):
        made = [Item(id=f"{split}{k}", split=split, **row) for k, row in enumerate(rows)]
        save_items(folder / f"{split}.jsonl", made)
    console = Console(record=True, width=300, file=io.StringIO())

    def train_of(format: str) -> list[str]:
        own = {"dataset": (str(folder),), "features": ("none",), "easy": "none"}
        settings = settings_of(salience, format=format, **own)
        session = session_of(salience.STUDY, settings, tmp_path, console=console)
        [plan] = salience.plan(settings, session)
        return [item.id for item in plan.plain.train]

    assert len(train_of(exam())) == 34
    assert "stand for true" not in console.export_text(clear=True)
    assert train_of("statement") == [f"train{k}" for k in range(10, 34)]
    printed = console.export_text()
    assert "shows no question, and without it 4 of 44 texts stand for true and false" in printed


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (("magic",), "--format: unknown prompt format 'magic'; known: claim, "),
        (("nowhere.toml",), "--format: prompt format 'nowhere.toml': there is no such file"),
        (("claim", "claim"), "--format names claim claim: name each once"),
        ((), "--format has no value: give one, or leave the option out"),
        (("",), "--format has an empty value"),
    ],
)
@pytest.mark.parametrize("study", [salience, icm], ids=name_of)
def test_formats_that_cannot_work_are_refused_with_the_settings(study, formats, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        settings_of(study, format=formats).check()


def test_two_files_of_one_name_are_not_compared(exam):
    files = (exam(), exam("other", text=TEXT + " clearly"))
    with pytest.raises(ValueError, match="--format names exam exam: name each once"):
        settings_of(salience, format=files).check()


def test_a_mixture_needs_the_truth_and_a_third_word_for_golden_examples(exam, tmp_path):
    def plan(**options: Any) -> Any:
        return planned(impossible.STUDY, settings_of(impossible, **options), tmp_path)

    with pytest.raises(ValueError, match="--format exam asks for 'x', and this study for 'label'"):
        plan(format=exam(target="x"))
    two = exam("two", third_word=None)
    said = "'exam' has no third word, which golden_few_shot shows .* --prompting random_few_shot"
    with pytest.raises(ValueError, match=said):
        plan(format=two)
    without = settings_of(impossible).prompts
    assert plan(format=two, prompts=type(without)(prompting=("random_few_shot",)))


def test_hidden_states_of_ones_own_take_no_format():
    truth = np.array([1.0, 0.0] * 8)
    cases = Cases([(Situation.of_labels(truth, truth), States(layers=(1,), train={}))])
    with pytest.raises(ValueError, match="--format does nothing with hidden states of one's own"):
        salience.run(cases, settings_of(salience, format="claim"), quiet=True)


def own_study(plan: Any) -> Study:
    @dataclass(frozen=True, kw_only=True)
    class Settings(StudySettings):
        pass

    def measure(parts: Any, session: Any) -> None:
        for situation in parts:
            session.run(situation, session.states(situation, (1,)), {}, lambda: None)

    return Study(
        name="own",
        title="Own",
        lead="",
        settings=Settings,
        plan=plan,
        measure=measure,
        show=lambda rows, session: None,
        figures=lambda rows, session: {},
    )


def test_a_study_of_ones_own_takes_one_format_or_says_that_it_reads_none(tmp_path):
    from jelicit.studies.sets import asking, read_set

    def plan(settings: Any, session: Any) -> list[Situation]:
        dataset = read_set("pocket/arithmetic", session, max_rows=40)
        return [asking(dataset, "label", session)]

    settings = {"dataset": ("x",), "layers": ("1",), "methods": ("pca",), "out": tmp_path / "out"}
    study = own_study(plan)

    def planned_in(*formats: str) -> Situation:
        return planned(study, study.settings(**settings, format=formats), tmp_path)[0]

    assert planned_in("statement").format == BASE_FORMATS["statement"]
    with pytest.raises(ValueError, match="--format names 2 formats; this study takes one"):
        planned_in("statement", "claim")
    with pytest.raises(ValueError, match="--format facts/elm asks for 'elm', and this study for"):
        planned_in("facts/elm")
    items = planned_in("claim").train
    deaf = own_study(lambda settings, session: [Situation(dataset="d", train=items, test=items)])
    with pytest.raises(ValueError, match="asks for statement, and own shows d as claim: it does"):
        deaf.run(AskedModel(), deaf.settings(**settings, format="statement"), quiet=True)


# --- stores --------------------------------------------------------------------------------------


def test_two_formats_of_one_name_have_two_stores(monkeypatch):
    pytest.importorskip("torch", reason="stores are made by the extract extra")
    from extract import opened

    folders: list[str] = []
    monkeypatch.setattr(
        opened, "extract", lambda lm, items, form, folder, **rest: folders.append(folder)
    )
    lm = SimpleNamespace(name="m", digest="d", dtype="float32", device="cpu", chat=None)
    model = opened.OpenedModel(lambda: lm, "stores")  # type: ignore[arg-type]
    items = [Item(id="a", question="q", choice="c", label=True)]
    for form in (PromptFormat(**EXAM), PromptFormat(**{**EXAM, "text": TEXT + " so"})):
        for _ in range(2):
            model.store("set", items, form, (1,))
    first, again, other, _ = folders
    assert first == again != other
    assert all(folder.startswith("stores/m/set-exam-") for folder in folders)
