"""Held out means held out: what studies do with train rows that test has as well."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiment_scripts import NOBODY, session_of
from rich.console import Console

from jelicit.data.items import Item, save_items
from jelicit.studies import icm, imbalance, impossible, salience, transfer
from jelicit.studies.study import Study

ROWS = 60
SAME = ("Café  prices   in row 0 rose.", "Noël in row 3 was warm.", "The MILK of row 4 is fresh.")
"""Claims of test as they stand in train: other spaces, another Unicode form, another case."""


def claims(split: str, count: int = ROWS) -> list[Item]:
    """Claims of one class and of the other in turn, two to a question."""
    return [
        Item(
            id=f"{split}/{row}",
            choice=f"The bread of {split} {row} costs {row} dollars.",
            label=row % 2 == 0,
            group=f"{split} {row // 2}",
        )
        for row in range(count)
    ]


def folder(place: Path, train: list[Item], test: list[Item]) -> Path:
    save_items(place / "train.jsonl", train)
    save_items(place / "test.jsonl", test)
    return place


@pytest.fixture
def shared(tmp_path) -> Path:
    """A set of which three train claims are test claims under other ids."""
    train, test = claims("train"), claims("test")
    for row, text in zip((0, 3, 4), SAME, strict=True):
        train[row] = replace(train[row], choice=unicodedata.normalize("NFD", text))
        plain = unicodedata.normalize("NFC", " ".join(text.split())).replace("MILK", "milk")
        test[row + 10] = replace(test[row + 10], choice=plain)
    return folder(tmp_path / "shared", train, test)


STUDIES = (salience.STUDY, imbalance.STUDY, transfer.STUDY, impossible.STUDY, icm.STUDY)
BY_NAME = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)


def asked(study: Study, place: Path, **options: Any) -> Any:
    """Settings of a study on this set, without what is not needed to plan it."""
    if study is icm.STUDY:
        return study.settings(dataset=(str(place),), **{"tests": ROWS, **options})
    dataset = (str(place), "pocket/facts") if study is transfer.STUDY else (str(place),)
    more = {"features": ("none",)} if study is salience.STUDY else {}
    return study.settings(dataset=dataset, easy="none", max_rows=ROWS, **more, **options)


def plan(study: Study, settings: Any, out: Path) -> tuple[Any, str]:
    """The first situation of a study, and what was said."""
    console = Console(width=400, record=True, quiet=False)
    with console.capture() as printed:
        first, *_ = study.plan(settings, session_of(study, settings, out, console=console))
    for name in ("plain", "situation"):
        first = getattr(first, name, first)
    return first, printed.get()


@BY_NAME
def test_rows_that_test_has_are_left_out_with_their_groups_and_that_is_said(
    study, shared, tmp_path
):
    situation, said = plan(study, asked(study, shared), tmp_path / "out")
    # Rows 0, 3 and 4 and their companions: nothing else of the set's own rows.
    own = {item.id for item in situation.train if item.id.startswith("train/")}
    assert own == {f"train/{row}" for row in range(6, ROWS)}
    assert re.search(r"train: 3 of \d+ rows are test rows as well", said)
    assert "6 rows are left out with their groups" in said
    tested = {item.id for item in situation.test if item.id.startswith("test/")}
    assert {f"test/{row + 10}" for row in (0, 3, 4)} <= tested  # results compare on them


@BY_NAME
def test_what_test_and_other_rows_share_is_kept_for_the_report(study, shared, tmp_path):
    settings = asked(study, shared)
    study.plan(settings, session := session_of(study, settings, tmp_path / "out"))
    [line] = [each for each in session.folder.doubts if "are test rows as well" in each]
    assert re.match(r"\S+: train: 3 of \d+ rows", line)


@BY_NAME
def test_rows_that_test_has_are_refused_where_that_is_asked_for(study, shared, tmp_path):
    settings = asked(study, shared, overlap="refuse", out=tmp_path / "out")
    with pytest.raises(ValueError, match="train: 3 of") as refused:
        study.run(NOBODY, settings, quiet=True)
    [line] = str(refused.value).splitlines()
    assert "--overlap drop" in line
    assert "--overlap keep" in line


@BY_NAME
def test_rows_that_test_has_are_kept_where_that_is_asked_for(study, shared, tmp_path):
    situation, said = plan(study, asked(study, shared, overlap="keep"), tmp_path / "out")
    own = {item.id for item in situation.train if item.id.startswith("train/")}
    assert own == {f"train/{row}" for row in range(ROWS)}
    assert "kept (--overlap keep): what is measured is not held out" in said


def test_rows_of_the_easy_set_that_test_has_are_left_out_too(shared, tmp_path):
    test = claims("easy")
    easy = folder(tmp_path / "easy", [replace(test[0], choice=SAME[1]), *test[1:]], test)
    settings = replace(asked(salience.STUDY, shared), easy=str(easy))
    situation, said = plan(salience.STUDY, settings, tmp_path / "out")
    assert {item.id for item in situation.easy.items} == {f"easy/{n}" for n in range(2, ROWS)}
    assert re.search(r"easy: 1 of 60 rows is a test row as well", said)


def test_pools_of_icm_have_no_pair_that_is_tested_in_the_other_order(tmp_path):
    """Of a pair it does not matter which response comes first."""

    def pairs(split: str) -> list[Item]:
        return [
            replace(item, question=f"{split} {row}?", choice_2=f"other {row}", group=item.id)
            for row, item in enumerate(claims(split, 20))
        ]

    train, test = pairs("train"), pairs("test")
    turned = replace(test[4], id="train/x", choice=test[4].choice_2, choice_2=test[4].choice)
    place = folder(tmp_path / "pairs", [*train, replace(turned, group="train/x")], test)
    task, said = plan(icm.STUDY, asked(icm.STUDY, place), tmp_path / "out")
    assert len(task.train) == 2 * 20  # both orders of every other pair
    assert not [item for item in task.train if item.id.startswith("train/x")]
    assert "train: 1 of 21 rows is a test row as well" in said


@BY_NAME
def test_test_rows_of_one_class_are_refused_before_extraction(study, tmp_path):
    test = [replace(item, label=True) for item in claims("test")]
    place = folder(tmp_path / "one", claims("train"), test)
    with pytest.raises(ValueError, match=r"'label' is true in all \d+ rows") as refused:
        study.run(NOBODY, asked(study, place, out=tmp_path / "out"), quiet=True)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("study", STUDIES[:-1], ids=lambda study: study.name)
def test_three_test_rows_are_refused_before_extraction(study, tmp_path):
    place = folder(tmp_path / "three", claims("train"), claims("test", 3))
    with pytest.raises(ValueError, match="2 true and 1 false rows of 'label'") as refused:
        study.run(NOBODY, asked(study, place, out=tmp_path / "out"), quiet=True)
    [line] = str(refused.value).splitlines()
    assert "AUROC and its interval need at least 2 of each class: add test rows" in line


@BY_NAME
def test_few_test_rows_are_told(study, tmp_path):
    place = folder(tmp_path / "few", claims("train"), claims("test", 8))
    _, said = plan(study, asked(study, place), tmp_path / "out")
    assert "test: only 4 true and 4 false rows of 'label': one row moves AUROC" in said
    plenty = folder(tmp_path / "plenty", claims("train"), claims("test"))
    assert "only" not in plan(study, asked(study, plenty), tmp_path / "out")[1]
