"""The sets of Marks and Tegmark 2023, from tables laid out like theirs."""

import json
import shutil
from pathlib import Path

import pytest

from jelicit.data.datasets import load_dataset
from jelicit.data.features import FEATURES
from jelicit.data.items import Item

TABLES = {
    "cities": (
        "statement,label,city,country,correct_country",
        "The city of Lodz is in Poland.,1,Lodz,Poland,Poland",
        "The city of Lodz is in Chile.,0,Lodz,Chile,Poland",
        "The city of Washington D.C. is in the United States.,1,Washington D.C.,"
        "the United States,the United States",
    ),
    "neg_cities": (
        "statement,label,city,country,correct_country",
        "The city of Lodz is not in Poland.,0,Lodz,Poland,Poland",
        "The city of Lima is not in Poland.,1,Lima,Poland,Peru",
    ),
    "sp_en_trans": (
        "statement,label",
        "The Spanish word 'uno' means 'one'.,1",
        "The Spanish word 'uno' means 'to speak'.,0",
        "The Spanish word 'uno' means 'one'.,1",
        "The Spanish word 'con' means 'with'.,1",
    ),
    "neg_sp_en_trans": (
        "statement,label",
        "The Spanish word 'uno' does not mean 'one'.,0",
        "The Spanish word 'con' does not mean 'one'.,1",
    ),
    "smaller_than": (
        "statement,label,n1,n2,diff,abs_diff",
        "Fifty-one is smaller than fifty-two.,1,51,52,-1,1",
        "Fifty-two is smaller than fifty-one.,0,52,51,1,1",
        "Fifty-two is smaller than sixty.,1,52,60,-8,8",
    ),
    "larger_than": (
        "statement,label,n1,n2,diff,abs_diff",
        "Fifty-one is larger than fifty-two.,0,51,52,-1,1",
        "Fifty-two is larger than fifty-one.,1,52,51,1,1",
        "Fifty-two is larger than sixty.,0,52,60,-8,8",
    ),
    "companies_true_false": (
        "statement,label",
        "Walmart operates in the industry of retailing.,1",
        "Walmart operates in the industry of retailing.,0",
        "Walmart has headquarters in United States.,1",
        '"Japan Post Japan Post Co., Ltd. manages its companies.",1',
        "Japan Post has headquarters in Japan.,1",
    ),
    "common_claim_true_false": ("statement,label", "Rain is wet.,1", "Rain is dry.,0"),
    "counterfact_true_false": (
        "statement,label,relation,subject,target,true_target",
        "The mother tongue of Ann is French.,1,The mother tongue of {} is,Ann,French,French",
        "The mother tongue of Ann is Thai.,0,The mother tongue of {} is,Ann,Thai,French",
        "Subair works as actor.,1,{} works as,Subair,actor,actor",
    ),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A folder laid out like the repository."""
    root = tmp_path_factory.mktemp("geometry-of-truth")
    (root / "datasets").mkdir()
    for name, lines in TABLES.items():
        (root / "datasets" / f"{name}.csv").write_text("\n".join(lines))
    return root


def items(clone: Path, name: str) -> list[Item]:
    """All items of a set, in the order of its table."""
    dataset = load_dataset(name, hub_root=clone)
    return sorted((*dataset.train, *dataset.test), key=lambda item: item.id)


@pytest.mark.parametrize(
    ("name", "question", "choice", "groups"),
    [
        ("cities", "In which country is the city of Lodz?", "Lodz is in Poland.",
         ["Lodz", "Lodz", "Washington D.C."]),
        ("neg_cities", "In which country is the city of Lodz?", "Lodz is not in Poland.",
         ["Lodz", "Lima"]),
        ("sp_en_trans", "What does the Spanish word 'uno' mean?", "'uno' means 'one'.",
         ["uno", "uno", "con"]),
        ("neg_sp_en_trans", "What does the Spanish word 'uno' mean?", "'uno' does not mean 'one'.",
         ["uno", "con"]),
        ("smaller_than", "Is fifty-one smaller than fifty-two?",
         "Fifty-one is smaller than fifty-two.",
         ["fifty-one/fifty-two", "fifty-one/fifty-two", "fifty-two/sixty"]),
        ("larger_than", "Is fifty-one larger than fifty-two?",
         "Fifty-one is larger than fifty-two.",
         ["fifty-one/fifty-two", "fifty-one/fifty-two", "fifty-two/sixty"]),
        ("companies_true_false", "Is this statement true?",
         "Walmart has headquarters in United States.", ["Walmart", "Japan Post", "Japan Post"]),
        ("common_claim_true_false", "Is this statement true?", "Rain is wet.",
         ["common_claim_true_false/00000", "common_claim_true_false/00001"]),
        ("counterfact_true_false", "Is this statement true?", "The mother tongue of Ann is French.",
         ["The mother tongue of Ann is"] * 2 + ["Subair works as"]),
    ],
)  # fmt: skip
def test_a_statement_becomes_question_and_claim_with_its_group(
    clone, name, question, choice, groups
):
    rows = items(clone, name)
    assert (rows[0].question, rows[0].choice) == (question, choice)
    assert [item.group for item in rows] == groups
    assert {(i.dataset, i.origin) for i in rows} == {(name, "saprmarks/geometry-of-truth")}
    dataset = load_dataset(name, hub_root=clone / "datasets")
    assert dict(dataset.formats) == {"label": "claim"}
    assert all(feature.misfit(rows, "claim") == "" for feature in FEATURES.values())
    assert not {item.group for item in dataset.train} & {item.group for item in dataset.test}


def test_labels_follow_the_statement_and_a_comparison_has_its_answer(clone):
    assert [item.label for item in items(clone, "neg_cities")] == [False, True]
    for name in ("smaller_than", "larger_than"):
        assert [item.answer for item in items(clone, name)] == [
            "fifty-one", "fifty-two", "fifty-two",
        ]  # fmt: skip
    assert [item.label for item in items(clone, "larger_than")] == [False, True, False]
    last = items(clone, "cities")[2]
    assert (last.choice, last.question) == (
        "Washington D.C. is in the United States.",
        "In which country is the city of Washington D.C.?",
    )


def test_a_table_by_its_path_is_the_same_set(clone):
    for name in ("cities", "neg_sp_en_trans", "smaller_than", "larger_than"):
        by_path = load_dataset(clone / "datasets" / f"{name}.csv")
        by_name = load_dataset(name, hub_root=clone)
        for one, other in ((by_path.train, by_name.train), (by_path.test, by_name.test)):
            assert [(i.id, i.question, i.choice, i.group) for i in one] == [
                (i.id, i.question, i.choice, i.group) for i in other
            ]


def test_larger_than_is_the_hubs_where_the_copy_has_it_and_the_table_is_told(clone, tmp_path):
    [told] = load_dataset("larger_than", hub_root=clone).notes
    assert told.startswith("the folder of copies has no files of callum-canavan/challenges-")
    assert "its larger_than.csv is read in their place" in told
    assert load_dataset("smaller_than", hub_root=clone).notes == ()
    shutil.copytree(clone, tmp_path, dirs_exist_ok=True)
    hub = tmp_path / "callum-canavan/challenges-for-unsupervised-elicitation/larger_than"
    hub.mkdir(parents=True)
    row = {"question": "Is two larger than one?", "choice": "Two is larger than one.", "label": 1}
    (hub / "train.jsonl").write_text(json.dumps(row))
    # Half a copy of the hub's set is no reason to read another one.
    with pytest.raises(FileNotFoundError, match=r"the mirror has no file .*test\.jsonl"):
        load_dataset("larger_than", hub_root=tmp_path)
    (hub / "test.jsonl").write_text(json.dumps({**row, "choice": "Three is larger than one."}))
    dataset = load_dataset("larger_than", hub_root=tmp_path)
    assert ([i.choice for i in dataset.train], dataset.notes) == (["Two is larger than one."], ())


def test_without_a_copy_it_is_said_how_to_come_by_one(tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"cities: .*clone it, and give the table"):
            load_dataset("cities", hub_root=root)
