"""Copies of the hub's files on disk, named by --hub-root in every command that reads sets."""

import re
from dataclasses import replace

import pytest
from experiment_scripts import planned

from jelicit.data.datasets import reads_mirror
from jelicit.studies import (
    STUDIES,
    assistant,
    finetune,
    icm,
    impossible,
    layers,
    reward,
    salience,
    scaling,
    stress,
    transfer,
    warning_signs,
)
from jelicit.studies.imbalance import Settings as Imbalance
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


def test_icm_reads_the_copy(mirror, tmp_path):
    settings = icm.Settings(dataset=("cities",), hub_root=mirror, n=4, initial=4, tests=4)
    [task] = planned(icm.STUDY, settings, tmp_path / "out")
    assert task.situation.dataset == "cities"


def all_settings():
    return [
        *(salience.Settings(), layers.Settings(), scaling.Settings(), transfer.Settings()),
        *(Imbalance(), impossible.Settings(), icm.Settings(), stress.Settings()),
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
