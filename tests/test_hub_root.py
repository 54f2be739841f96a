"""Copies of the hub's files on disk, named by --hub-root in every command that reads sets."""

import re
from dataclasses import replace

import pytest
from experiment_scripts import planned, session_of

from jelicit.data.datasets import reads_mirror
from jelicit.studies import (
    STUDIES,
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
from jelicit.studies.sets import load

TOWNS = ("Lodz", "Graz", "Ghent", "Faro", "Braga", "Linz", "Lublin", "Bruges")
STATEMENTS = [f"The city of {town} is in {land}." for town in TOWNS for land in ("Poland", "Peru")]


@pytest.fixture
def mirror(tmp_path):
    """The tables of Marks and Tegmark, one of them, as a folder."""
    rows = [f'"{text}",{int(k % 2 == 0)}' for k, text in enumerate(STATEMENTS)]
    (tmp_path / "cities.csv").write_text("\n".join(["statement,label", *rows]), encoding="utf-8")
    return tmp_path


def test_a_set_is_read_from_the_copy(mirror):
    dataset = load("cities", mirror)
    assert {i.choice for i in (*dataset.train, *dataset.test)} == {
        text.removeprefix("The city of ") for text in STATEMENTS
    }
    # Sets that are made here have no copy to read, beside one that has.
    assert load("pocket/arithmetic", mirror, max_train=8, max_test=8).train


def test_which_sets_have_a_copy_to_read(tmp_path):
    assert reads_mirror("cities")
    assert reads_mirror("gsm8k")
    assert not any(map(reads_mirror, ("pocket/facts", str(tmp_path), "nonsense", "a.py:NO")))


@pytest.mark.parametrize("study", [salience, layers, scaling], ids=lambda study: study.__name__)
def test_studies_read_the_copy(study, mirror, tmp_path):
    settings = study.Settings(
        dataset=("cities",), hub_root=mirror, features=("none",), easy="none", seeds=1
    )
    settings.check()
    [plan] = planned(salience.STUDY, settings, tmp_path / "out")
    assert plan.plain.dataset == "cities"
    whole = load("cities", mirror)
    assert {*plan.plain.train, *plan.plain.test} <= {*whole.train, *whole.test}


@pytest.fixture
def clone(mirror):
    """A copy that has their table of comparisons, too, each in both orders."""
    words = ("sixty", "seventy", "eighty", "ninety")
    rows = [
        f"{one.capitalize()} is larger than {other}.,{int(words.index(one) > words.index(other))}"
        for one in words
        for other in words
        if one != other
    ]
    (mirror / "larger_than.csv").write_text("\n".join(["statement,label", *rows]), "utf-8")
    return mirror


def plan_of(study, out, **options):
    """The situation of a study of cities, and what it told."""
    settings = study.Settings(dataset=("cities",), seeds=1, **options)
    settings.check()
    named = study.STUDY if study is imbalance else salience.STUDY
    session = session_of(named, settings, out)
    [plan] = named.plan(settings, session)
    return getattr(plan, "plain", None) or plan.situation, session.folder.doubts


@pytest.mark.parametrize(
    "study", [salience, layers, scaling, imbalance], ids=lambda study: study.__name__
)
def test_the_easy_set_of_a_clone_is_its_own_table_and_that_is_told(study, clone, tmp_path):
    situation, told = plan_of(study, tmp_path / "out", hub_root=clone)
    assert situation.easy.name == "larger_than"
    assert {item.origin for item in situation.easy.items} == {"saprmarks/geometry-of-truth"}
    assert situation.easy.format == "claim"
    # An order of a pair is never apart from the other one.
    assert all(len({i.label for i in of}) == 2 for of in by_group(situation.easy.items).values())
    said = "cities: easy set larger_than: the folder of copies has no files of"
    assert any(line.startswith(said) for line in told)
    _, told = plan_of(study, tmp_path / "out", hub_root=clone, easy="pocket/larger_than")
    assert not any("easy set" in line for line in told)


def by_group(items):
    """Items by the pair of numbers."""
    groups = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return groups


def test_an_easy_set_that_the_copy_lacks_ends_in_what_to_do_instead(mirror, clone, tmp_path):
    def refused(**options):
        with pytest.raises(FileNotFoundError) as told:
            plan_of(salience, tmp_path / "out", **options)
        return str(told.value)

    said = refused(hub_root=clone, easy="gsm8k")
    assert said.startswith("gsm8k: the mirror has no file")
    assert "The easy set 'gsm8k' of cities is needed by" in said
    assert "(--easy pocket/larger_than, --easy FOLDER), or do without (--easy none)" in said
    (clone / "larger_than.csv").unlink()
    said = refused(hub_root=mirror)
    assert said.startswith("larger_than: the mirror has no file")
    assert "do without (--easy none)" in said


def test_icm_reads_the_copy(mirror, tmp_path):
    settings = icm.Settings(dataset=("cities",), hub_root=mirror, n=4, initial=4, tests=4)
    [task] = planned(icm.STUDY, settings, tmp_path / "out")
    assert task.situation.dataset == "cities"


def all_settings():
    return [
        *(salience.Settings(), layers.Settings(), scaling.Settings(), transfer.Settings()),
        *(imbalance.Settings(), impossible.Settings(), icm.Settings(), stress.Settings()),
        warning_signs.Settings(),
        *(finetune.Settings(), reward.Settings(), assistant.Settings()),
    ]


def test_every_study_has_the_option_and_refuses_what_does_nothing(tmp_path):
    every = all_settings()
    assert len(every) == len(STUDIES)
    for settings in every:
        with pytest.raises(ValueError, match="does nothing with sets of the pocket world"):
            replace(settings, hub_root=tmp_path).check()
        said = re.escape(f"--hub-root {tmp_path / 'no'}: there is no such folder")
        with pytest.raises(ValueError, match=said):
            replace(settings, hub_root=tmp_path / "no").check()


def test_the_set_without_truth_may_be_the_one_that_is_read(tmp_path):
    replace(impossible.Settings(), impossible="political_normative", hub_root=tmp_path).check()
