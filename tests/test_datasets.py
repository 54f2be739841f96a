"""Sets from all three origins: what each record becomes, and what is said when one is at fault."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jelicit.data import hub
from jelicit.data.datasets import load_dataset
from jelicit.data.describe import describe
from jelicit.data.items import Item, labels, save_items, with_target
from jelicit.data.prompts import FORMATS, zero_shot
from jelicit.data.records import Record
from jelicit.data.sets import civil_comments, gsm8k, liar, truthfulqa_mc1
from jelicit.data.sets.gsm8k import final_answer
from jelicit.data.sets.larger_than import larger_number

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real sets are not on this machine")

CHALLENGES = "callum-canavan/challenges-for-unsupervised-elicitation"


def write_jsonl(path: Path, records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def write_parquet(path: Path, records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)


def challenges(root: Path, folder: str, train, test=None) -> Path:
    write_jsonl(root / CHALLENGES / folder / "train.jsonl", train)
    write_jsonl(root / CHALLENGES / folder / "test.jsonl", test or train[:1])
    return root


# --- hub sets, read from a mirror laid out like the original -------------------------------------


def test_an_empty_name_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    item = {"id": "a", "choice": "one", "label": True}
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(item | {"id": split}) + "\n")
    assert len(load_dataset(".").test) == 1
    with pytest.raises(ValueError, match="name of a data set is empty"):
        load_dataset("")


def test_gsm8k(tmp_path):
    train = [
        {"question": "6 times 7?", "cot": "6 x 7 = 42. The answer is 42.", "label": True},
        {"question": "6 times 7?", "cot": "6 + 7 = 13. The answer is $13.00.", "label": False},
    ]
    test = [{"question": "1 + 1?", "choice": "I cannot tell.", "label": 0}]
    dataset = load_dataset("gsm8k", hub_root=challenges(tmp_path, "gsm8k", train, test))
    right, wrong = dataset.train
    assert (right.id, right.split, right.dataset) == ("gsm8k/train/00000", "train", "gsm8k")
    assert right.origin == f"hub:{CHALLENGES}"
    assert (right.question, right.choice) == (train[0]["question"], train[0]["cot"])
    assert [i.label for i in (*dataset.train, *dataset.test)] == [True, False, False]
    assert [i.answer for i in (*dataset.train, *dataset.test)] == ["42", "13", None]
    assert right.group == wrong.group != dataset.test[0].group
    assert dataset.formats == {"label": "claim"}
    assert dataset.targets == ("label",)
    assert dataset.easy == "larger_than"


def test_the_answer_does_not_follow_from_the_label():
    for label in (True, False):
        values = {"question": "q", "choice": "The answer is 4.", "label": label, "answer": "9"}
        (item,) = gsm8k.convert(Record(values, "gsm8k", "train", 0, CHALLENGES))
        assert (item.label, item.answer) == (label, "4")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So 3 + 4 = 7. The answer is 7.", "7"),
        ("The answer is $1,080.50.", "1080.5"),
        ("the answer is: -3", "-3"),
        ("The answer is 2.00", "2"),
        ("The answer is 0.50", "0.5"),
        ("The answer is 100.", "100"),
        ("The answer is 118 000.", "118000"),
        ("The answer is 32 + 95 = 127.", "127"),
        ("The answer is 3 1/3.", "3 1/3"),
        ("The answer is 1/86400.", "1/86400"),
        ("The answer is -0.", "0"),
        ("The answer is 5 x 8. So: the answer is 40.", "40"),
        ("The answer is 12.\n\nQ: How many? A: 9. The answer is 9.", "12"),
        ("The answer is ten.\nIt took 5 steps.", None),
        ("7 is what I get.", None),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


def test_larger_than(tmp_path):
    texts = [("sixty-one", "fifty-five"), ("fifty-five", "sixty-one"), ("ten", "nine")]
    train = [
        {"question": f"Is {a} larger than {b}?", "choice": f"{a.capitalize()} is larger than {b}.",
         "label": n != 1, "n1": 1, "n2": 2}
        for n, (a, b) in enumerate(texts)
    ]  # fmt: skip
    dataset = load_dataset("larger_than", hub_root=challenges(tmp_path, "larger_than", train))
    train_items = [*dataset.train, *dataset.test]
    by_answer = {item.answer: item for item in train_items}
    assert set(by_answer) == {"sixty-one", "fifty-five", "ten"}
    assert by_answer["sixty-one"].group == by_answer["fifty-five"].group == "fifty-five/sixty-one"
    assert by_answer["ten"].group == "nine/ten"
    assert by_answer["ten"].meta == {"n1": 1, "n2": 2}
    assert dataset.easy is None
    assert larger_number("All is well.") is None


def test_political_normative_has_no_truth_value(tmp_path):
    train = [
        {"question": "Tax?", "choice": "More.", "political_leaning": "liberal"},
        {"question": "Tax?", "choice": "Less.", "political_leaning": "conservative"},
    ]
    test = [{"question": "War?", "choice": "No.", "political_leaning": "liberal"}]
    root = challenges(tmp_path, "normative_political", train, test)
    dataset = load_dataset("political_normative", hub_root=root)
    assert [item.label for item in (*dataset.train, *dataset.test)] == [None] * 3
    assert [item.alt_labels for item in dataset.train] == [{"liberal": True}, {"liberal": False}]
    bad = [{"question": "Tax?", "choice": "More.", "political_leaning": "green"}]
    challenges(tmp_path, "normative_political", bad)
    with pytest.raises(ValueError, match="train record 0: field 'political_leaning' is 'green'"):
        load_dataset("political_normative", hub_root=root)


def test_ctrl_z(tmp_path):
    numbered = [
        {
            "task_description": "Make a list",
            "label": n,
            **{f"command_{k}": f"c{k}" for k in range(11)},
        }
        for n in (True, False)
    ]
    numbered[1]["command_10"] = "rm x"
    plain = [{"question": "Sort it", "choice": "sort a\nrm a", "label": True}]
    root = challenges(tmp_path, "ctrl_z", numbered, plain)
    dataset = load_dataset("ctrl_z", hub_root=root)
    bad, good = dataset.train
    assert bad.choice == "\n".join(f"c{k}" for k in range(11))  # 10 comes after 9, not after 1
    assert good.choice.endswith("c9\nrm x")
    assert (bad.label, bad.alt_labels["safe"]) == (True, False)
    assert (good.label, good.alt_labels["safe"]) == (False, True)
    assert dataset.test[0].choice == "sort a\nrm a"
    assert dataset.formats == {"label": "ctrl_z/suspicious", "safe": "ctrl_z/safe"}


LIAR = {"speaker": "s", "job_title": "j", "state_info": "t", "subject": "u", "context": "c"}


def liar_mirror(root: Path, train, test) -> Path:
    base = root / "ucsbnlp" / "liar" / "default"
    for split, records in (("train", train), ("validation", test[:1]), ("test", test)):
        write_parquet(base / split / "0000.parquet", [{**LIAR, **record} for record in records])
    return root


def test_liar(tmp_path):
    parties = ["republican", "democrat", "none", "organization", "republican", "democrat"]
    train = [
        {"id": f"{n}.json", "label": n, "statement": f"claim {n}", "party_affiliation": party}
        for n, party in enumerate(parties)
    ]
    test = [
        {"id": "9.json", "label": 3, "statement": "Claim  2", "party_affiliation": "democrat"},
        {"id": "8.json", "label": 0, "statement": "other", "party_affiliation": "republican"},
    ]
    dataset = load_dataset("liar", hub_root=liar_mirror(tmp_path, train, test))
    by_group = {item.group: item for item in dataset.train}
    # In the hub's order: false, half-true, mostly-true, true, barely-true, pants-fire.
    truth = {"0": False, "1": True, "3": True, "4": False, "5": False}
    assert {group: item.label for group, item in by_group.items()} == truth  # 2 is in test
    assert by_group["1"].meta["label6"] == "half-true"
    assert by_group["3"].alt_labels == {}
    assert [by_group[g].alt_labels["republican"] for g in "0145"] == [True, False, True, False]
    assert [item.label for item in dataset.test] == [True, False]
    assert dataset.valid == ()  # its only text is in test
    assert dataset.targets == ("label", "republican")
    assert FORMATS[dataset.formats["republican"]].target == "republican"


def test_liar_labels_may_be_names_and_must_be_known(tmp_path):
    record = {"id": "1.json", "statement": "s", "party_affiliation": "none"}
    names = {name: liar.convert(Record({**record, "label": name}, "liar", "train", 0, "x"))[0].label
             for name in liar.LIAR_LABELS}  # fmt: skip
    assert names == {
        "true": True, "mostly-true": True, "half-true": True,
        "barely-true": False, "false": False, "pants-fire": False,
    }  # fmt: skip
    for label in (6, -1, "maybe", True):
        with pytest.raises(
            ValueError, match=r"record 7: field 'label' is .* expected one of false"
        ):
            liar.convert(Record({**record, "label": label}, "liar", "train", 7, "x"))


def civil(text: str, toxicity: float, sexual: float) -> dict:
    scores = dict.fromkeys(civil_comments.CIVIL_ATTRIBUTES, 0.0)
    return {"text": text, "toxicity": toxicity, **scores, "sexual_explicit": sexual}


def civil_mirror(root: Path, train) -> Path:
    base = root / "google" / "civil_comments" / "data"
    half = len(train) // 2
    write_parquet(base / "train-00000-of-00002.parquet", train[:half])
    write_parquet(base / "train-00001-of-00002.parquet", train[half:])
    for split in ("validation", "test"):
        write_parquet(
            base / f"{split}-00000-of-00001.parquet",
            [civil(f"{split} {n}", n // 2, n % 2) for n in range(4)],
        )
    return root


def test_civil_comments(tmp_path):
    scores = [(0.5, 0.49), (0.4999, 0.5), (1.0, 1.0), (0.0, 0.0), (0.7, 0.6), (0.1, 0.2)]
    train = [civil(f"comment {n}", *pair) for n, pair in enumerate(scores)]
    root = civil_mirror(tmp_path, train)
    dataset = load_dataset("civil_comments", hub_root=root)
    assert [item.choice for item in dataset.train] == [r["text"] for r in train]
    assert labels(dataset.train).tolist() == [1, 0, 1, 0, 1, 0]
    assert labels(dataset.train, "sexual_explicit").tolist() == [0, 1, 1, 0, 1, 0]
    assert labels(dataset.train, "insult").tolist() == [0] * 6
    assert dataset.train[1].meta["scores"]["toxicity"] == pytest.approx(0.4999)
    assert (len(dataset.valid), len(dataset.test)) == (4, 4)
    assert dataset.targets == ("label", "sexual_explicit")
    even = load_dataset("civil_comments", hub_root=root, balance="sexual_explicit")
    cells = {(i.label, i.alt_labels["sexual_explicit"]) for i in even.train}
    assert (len(even.train), len(cells)) == (4, 4)


def test_civil_comments_keeps_rare_cells_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "CELL_LIMIT", 10)
    train = [civil(f"c{n}", float(n % 3 == 0), float(n % 50 == 0)) for n in range(200)]
    items = load_dataset("civil_comments", hub_root=civil_mirror(tmp_path, train)).train
    cells: dict = {}
    for item in items:
        cells.setdefault((item.label, item.alt_labels["sexual_explicit"]), []).append(item)
    assert {cell: len(found) for cell, found in cells.items()} == {
        (True, True): 2, (False, True): 2, (True, False): 10, (False, False): 10,
    }  # fmt: skip
    order = [int(item.choice[1:]) for item in items]
    assert order == sorted(order)
    # The last of ten uniform draws from 65 rows spread over 200 is below 120 in 0.6 % of samples.
    assert max(int(item.choice[1:]) for item in cells[True, False]) > 120  # so not the head
    again = load_dataset("civil_comments", hub_root=tmp_path).train
    assert again == items


def truthful_mirror(root: Path, n: int = 12) -> Path:
    records = [
        {"question": f"Question {k}?",
         "mc1_targets": {"choices": [f"r{k}", f"w{k}"], "labels": [1, 0]},
         "mc2_targets": {"choices": [f"r{k}", f"s{k}", f"w{k}"], "labels": [1, 1, 0]}}
        for k in range(n)
    ]  # fmt: skip
    folder = root / "truthfulqa" / "truthful_qa" / "multiple_choice"
    write_parquet(folder / "validation-00000-of-00001.parquet", records)
    return root


def test_truthfulqa_targets_and_split(tmp_path):
    root = truthful_mirror(tmp_path)
    mc2, mc1 = (load_dataset(name, hub_root=root) for name in ("truthfulqa", "truthfulqa_mc1"))
    for dataset, marks in ((mc2, "rsw"), (mc1, "rw")):
        assert (len(dataset.train), len(dataset.test)) == (9 * len(marks), 3 * len(marks))
        for item in (*dataset.train, *dataset.test):
            assert item.label == (item.choice[0] in "rs")
            assert item.choice[1:] == item.question.split()[1][:-1]
            assert item.answer is None
        assert not {i.group for i in dataset.train} & {i.group for i in dataset.test}
        assert len({i.group for i in dataset.train}) == 9
    # One split for both target sets, at any seed: it belongs to the set.
    assert {i.question for i in mc1.test} == {i.question for i in mc2.test}
    assert load_dataset("truthfulqa", hub_root=root, seed=5) == mc2


def test_truthfulqa_targets_must_fit(tmp_path):
    for targets in ({"choices": ["a"], "labels": [1, 0]}, {"choices": ["a"], "labels": [2]}, {}):
        record = Record({"question": "q", "mc1_targets": targets}, "t", "test", 3, "x")
        with pytest.raises(ValueError, match="test record 3: field 'mc1_targets' is"):
            truthfulqa_mc1.convert(record)


def alpaca_mirror(root: Path, records) -> Path:
    folder = root / "tatsu-lab" / "alpaca_farm"
    folder.mkdir(parents=True)
    (folder / "alpaca_human_preference.json").write_text(json.dumps(records))
    return root


def test_alpaca_pairs_come_in_both_orders_and_questions_stay_together(tmp_path):
    records = [
        {"instruction": f"Do {n // 4}", "input": "with it" if n < 4 else "", "output_1": f"a{n}",
         "output_2": f"b{n}" if n != 5 else "a5", "preference": 1 + n % 2}
        for n in range(40)
    ]  # fmt: skip
    dataset = load_dataset("alpaca", hub_root=alpaca_mirror(tmp_path, records))
    everything = [*dataset.train, *dataset.test]
    assert len(everything) == 78  # equal responses are no pair
    assert not {i.question for i in dataset.train} & {i.question for i in dataset.test}
    assert len({i.question for i in dataset.test}) == 2
    groups: dict[str, list[Item]] = {}
    for item in everything:
        groups.setdefault(item.group, []).append(item)
    assert len(groups) == 39
    for one, two in groups.values():
        assert (one.choice, one.choice_2) == (two.choice_2, two.choice)
        assert one.label is (not two.label)
        preferred = one.choice if one.label else one.choice_2
        assert preferred is not None
        assert preferred[0] == "ab"[int(preferred[1:]) % 2]
    assert {i.question for i in everything if "0" in i.question} == {"Do 0\n\nwith it"}
    assert dataset.formats == {"label": "pair"}
    assert all(zero_shot(item, "pair") for item in everything)
    bad = alpaca_mirror(tmp_path / "bad", [{**records[0], "preference": 0}, *records[1:]])
    with pytest.raises(ValueError, match="record 0: field 'preference' is 0; expected 1 or 2"):
        load_dataset("alpaca", hub_root=bad)


def test_missing_fields_name_set_record_and_field(tmp_path):
    train = [{"question": "q", "choice": "c", "label": True}, {"question": "q", "label": True}]
    root = challenges(tmp_path, "gsm8k", train)
    with pytest.raises(
        ValueError, match=r"\(gsm8k\), train record 1: field 'choice or cot' is miss"
    ):
        load_dataset("gsm8k", hub_root=root)
    challenges(tmp_path, "gsm8k", [{"question": "q", "choice": "c", "label": "yes"}])
    with pytest.raises(ValueError, match="train record 0: field 'label' is 'yes'"):
        load_dataset("gsm8k", hub_root=root)


def test_texts_of_the_test_split_are_dropped_from_train(tmp_path):
    train = [
        {"question": "q", "choice": text, "label": True} for text in ("One", "two", "TWO ", "three")
    ]
    test = [{"question": "Q", "choice": " one", "label": True}]
    dataset = load_dataset("gsm8k", hub_root=challenges(tmp_path, "gsm8k", train, test))
    assert [item.choice for item in dataset.train] == ["two", "three"]
    assert [item.choice for item in dataset.test] == [" one"]


def test_a_mirror_without_the_files_says_which(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"liar: the mirror has no file .*default/train/\*"):
        load_dataset("liar", hub_root=tmp_path)


def test_without_the_hub_the_error_says_what_to_do():
    code = "from jelicit.data import load_dataset; load_dataset('gsm8k')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ConnectionError: gsm8k: the hub cannot be reached")
    for advice in (f"{CHALLENGES}/gsm8k/train.jsonl", "'./gsm8k'", "train.jsonl and test.jsonl",
                   f"HUB_ROOT/{CHALLENGES}/", "hub_root=HUB_ROOT"):  # fmt: skip
        assert advice in last


def test_pocket_and_local_sets_do_without_the_hub_library(tmp_path):
    save_items(tmp_path / "train.jsonl", [Item(id="a", choice="c", label=True)])
    save_items(tmp_path / "test.jsonl", [Item(id="b", choice="c", label=True)])
    code = (
        "import sys; from jelicit.data import load_dataset\n"
        f"load_dataset({str(tmp_path)!r})\n"
        "load_dataset('pocket/arithmetic', max_train=4, max_test=4)\n"
        "print([m for m in ('datasets', 'torch', 'transformers', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- local folders and files ---------------------------------------------------------------------


def folder(path: Path, train, test, valid=()) -> Path:
    path.mkdir(parents=True)
    for split, items in (("train", train), ("test", test), ("valid", valid)):
        if items:
            save_items(path / f"{split}.jsonl", items)
    return path


def claims(n: int, start: int = 0, per_group: int = 2) -> list[Item]:
    return [
        Item(id=f"i{k}", question="q", choice=f"c{k}", label=k % 2 == 0, group=f"g{k // per_group}",
             alt_labels={"alt": k % 3 == 0})
        for k in range(start, start + n)
    ]  # fmt: skip


def test_a_folder_gives_its_items_with_provenance(tmp_path):
    path = folder(tmp_path / "mine", claims(4), claims(2, 4), claims(2, 6))
    dataset = load_dataset(path)
    assert dataset.name == "mine"
    assert [item.id for item in dataset.train] == ["i0", "i1", "i2", "i3"]
    places = [(i.dataset, i.split, i.origin) for s in dataset.splits.values() for i in s]
    assert set(places) == {("mine", s, "folder") for s in ("train", "valid", "test")}
    assert load_dataset(str(path)) == dataset
    assert dataset.formats == {"label": "claim"}
    assert dataset.easy == "larger_than"


def test_the_easy_set_of_a_folder_is_beside_it_if_there_is_one(tmp_path):
    mine = folder(tmp_path / "mine", claims(4), claims(2, 4))
    easy = folder(tmp_path / "larger_than", claims(4), claims(2, 4))
    assert load_dataset(mine).easy == str(easy)
    assert load_dataset(easy).easy is None


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("liar", {"label": "liar/truth", "republican": "liar/republican"}),
        (
            "civil_comments",
            {"label": "civil_comments/toxic", "sexual_explicit": "civil_comments/sexual_explicit"},
        ),
        ("ctrl_z", {"label": "ctrl_z/suspicious", "safe": "ctrl_z/safe"}),
        ("other", {"label": "claim"}),
    ],
)
def test_the_folder_name_decides_the_formats(tmp_path, name, formats):
    assert load_dataset(folder(tmp_path / name, claims(2), claims(2, 2))).formats == formats


def test_items_decide_the_formats_of_unknown_sets(tmp_path):
    bare = [Item(id="a", choice="c", label=True)]
    pair = [Item(id="a", question="q", choice="c", choice_2="d", label=True)]
    assert load_dataset(folder(tmp_path / "bare", bare, bare)).formats == {"label": "statement"}
    assert load_dataset(folder(tmp_path / "pair", pair, pair)).formats == {"label": "pair"}


def test_normative_labels_of_a_local_file_become_leanings(tmp_path):
    stored = [Item(id=str(k), question="q", choice="c", label=k == 0) for k in range(2)]
    done = [Item(id="2", question="q", choice="c", alt_labels={"liberal": True})]
    dataset = load_dataset(folder(tmp_path / "political_normative", stored, done))
    assert [(i.label, i.alt_labels["liberal"]) for i in (*dataset.train, *dataset.test)] == [
        (None, True), (None, False), (None, True),
    ]  # fmt: skip


def test_answers_of_local_sets_come_from_the_text_unless_given(tmp_path):
    texts = ["The answer is 7.", "The answer is 8.", "No idea."]
    items = [Item(id=t, question="q", choice=t, label=True) for t in texts]
    given = Item(id="g", question="q", choice=texts[0], label=True, answer="seven")
    dataset = load_dataset(folder(tmp_path / "gsm8k_icm", [*items, given], items))
    assert [item.answer for item in dataset.train] == ["7", "8", None, "seven"]
    assert load_dataset(folder(tmp_path / "other", items, items)).train[0].answer is None


def test_a_missing_split_is_named_with_what_is_there(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    save_items(path / "train.jsonl", claims(2))
    with pytest.raises(FileNotFoundError, match=r"mine: test\.jsonl missing; .* has: train\.jsonl"):
        load_dataset(path)
    (path / "test.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"test\.jsonl: no items"):
        load_dataset(path)
    (path / "test.jsonl").write_text('{"id": "a", "choice": "c"}\n')
    with pytest.raises(ValueError, match=r"test\.jsonl:1: field 'label' is missing"):
        load_dataset(path)


def test_one_file_is_split_by_its_items_or_by_group(tmp_path):
    path = tmp_path / "mine.jsonl"
    save_items(path, claims(40))
    dataset = load_dataset(path)
    assert dataset.name == "mine"
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    assert not {i.group for i in dataset.train} & {i.group for i in dataset.test}
    assert load_dataset(path, seed=3) == dataset
    marked = [
        Item(id=f"{k}", choice="c", label=True, split=s) for k, s in enumerate(["train", "test"])
    ]
    save_items(path, marked)
    assert [item.id for item in load_dataset(path).test] == ["1"]
    save_items(path, [*marked, Item(id="x", choice="c")])
    with pytest.raises(ValueError, match=r"item 'x': field 'split' is ''; .* the split of all"):
        load_dataset(path)


@pytest.mark.parametrize("test", ["TEST", "Testing", " test"])
@pytest.mark.parametrize("valid", ["dev", "Validation", "val", "VALID"])
def test_a_split_is_understood_as_others_write_it(tmp_path, test, valid):
    rows = {"Training": 2, test: 1, valid: 1}
    items = [
        Item(id=f"{split}{k}", choice="c", label=True, split=split)
        for split, count in rows.items()
        for k in range(count)
    ]
    save_items(tmp_path / "mine.jsonl", items)
    dataset = load_dataset(tmp_path / "mine.jsonl")
    assert [len(its) for its in dataset.splits.values()] == [2, 1, 1]
    assert {split: {i.split for i in its} for split, its in dataset.splits.items()} == {
        "train": {"train"}, "valid": {"valid"}, "test": {"test"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (("train", "tset"), "item '1': field 'split' is 'tset'; allowed: train, training, valid"),
        (("fold1", "fold2"), "item '0': field 'split' is 'fold1'; allowed"),
        (("train", "dev"), "item '1': field 'split' is 'dev'; no row is a test row"),
    ],
)
def test_a_split_that_is_unknown_or_leaves_doubt_is_refused_not_ignored(tmp_path, splits, said):
    path = tmp_path / "mine.jsonl"
    save_items(path, [Item(id=str(k), choice="c", split=s) for k, s in enumerate(splits)])
    with pytest.raises(ValueError, match=rf"mine\.jsonl: {said}"):
        load_dataset(path)


def test_a_row_in_the_file_of_another_split_is_refused(tmp_path):
    save_items(tmp_path / "train.jsonl", [Item(id="a", choice="c", split="Test")])
    save_items(tmp_path / "test.jsonl", [Item(id="b", choice="c", split="TEST")])
    with pytest.raises(
        ValueError, match=r"train\.jsonl: item 'a': field 'split' is 'Test'; it stands among"
    ):
        load_dataset(tmp_path)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gsm8", "did you mean 'gsm8k'"),
        ("pocket/arithmetics", "did you mean 'pocket/arithmetic'"),
        ("arithmetic", "did you mean 'pocket/arithmetic'"),
        ("normative_political", "did you mean 'political_normative'"),
        ("zzz", "known names: pocket/arithmetic"),
    ],
)
def test_unknown_names_get_a_hint_and_the_list(name, hint):
    with pytest.raises(ValueError, match=f"unknown dataset '{name}'; {hint}") as error:
        load_dataset(name)
    assert "liar" in str(error.value)
    assert "train.jsonl" in str(error.value)


def test_missing_paths_are_called_paths(tmp_path):
    for path in (tmp_path / "none", str(tmp_path / "none"), "./none", "x.jsonl"):
        with pytest.raises(FileNotFoundError, match="no such folder or file"):
            load_dataset(path)
    with pytest.raises(FileNotFoundError, match="did you mean 'liar'"):
        load_dataset("ucsbnlp/liar")


def test_a_known_name_is_the_hub_and_a_path_is_the_folder(tmp_path, monkeypatch):
    folder(tmp_path / "gsm8k", claims(2), claims(2, 2))
    record = {"question": "q", "choice": "from the hub", "label": True}
    challenges(tmp_path, "gsm8k", [record, {**record, "choice": "more"}])
    monkeypatch.chdir(tmp_path)
    assert load_dataset("./gsm8k").test[0].choice == "c2"
    assert load_dataset(Path("gsm8k")).test[0].choice == "c2"
    assert load_dataset("gsm8k", hub_root=".").test[0].choice == "from the hub"
    with pytest.raises(ValueError, match="hub_root is for sets of the hub"):
        load_dataset("./gsm8k", hub_root=".")


# --- sizes and balance ---------------------------------------------------------------------------


def test_maxima_keep_groups_whole_and_order(tmp_path):
    path = folder(tmp_path / "mine", claims(60), claims(30, 60))
    full = load_dataset(path)
    dataset = load_dataset(path, max_train=21, max_test=7)
    assert (len(dataset.train), len(dataset.test)) == (20, 6)
    for split, whole in ((dataset.train, full.train), (dataset.test, full.test)):
        groups = {item.group for item in split}
        assert list(split) == [item for item in whole if item.group in groups]
    draws = {tuple(i.id for i in load_dataset(path, max_train=20, seed=s).train) for s in range(4)}
    assert len(draws) == 4
    assert load_dataset(path, max_train=500) == full
    with pytest.raises(ValueError, match=r"at most 1 rows .* smallest group has 2"):
        load_dataset(path, max_train=1)
    with pytest.raises(ValueError, match="max_test is 0"):
        load_dataset(path, max_test=0)


def test_balance_makes_label_and_alternative_independent(tmp_path):
    path = folder(tmp_path / "mine", claims(60), claims(30, 60))
    dataset = load_dataset(path, balance="alt", max_train=22)
    assert (len(dataset.train), len(dataset.test)) == (20, 20)
    for items in (dataset.train, dataset.test):
        columns = np.stack([labels(items), labels(items, "alt")])
        assert np.corrcoef(columns)[0, 1] == pytest.approx(0, abs=1e-6)
        assert columns.mean() == 0.5
    by_class = load_dataset(path, balance="label", max_train=9).train
    assert (len(by_class), labels(by_class).mean()) == (8, 0.5)
    for target, why in (("none", "cannot balance over 'none'"), ("alt", "cannot draw 0 balanced")):
        with pytest.raises(ValueError, match=why):
            load_dataset(path, balance=target, max_train=3)


# --- pocket --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["arithmetic", "facts", "comments", "commands", "opinions", "pairs"]
)
def test_pocket_twins_fit_their_formats(kind):
    dataset = load_dataset(f"pocket/{kind}", max_train=40, max_test=20, seed=2)
    assert dataset.name == f"pocket/{kind}"
    assert 0 < len(dataset.train) <= 40
    assert 0 < len(dataset.test) <= 20
    for target, name in dataset.formats.items():
        assert FORMATS[name].target == target
        for item in (*dataset.train, *dataset.test):
            assert item.choice in zero_shot(item, name)
            assert target == "label" or target in item.alt_labels
    assert dataset.easy == "pocket/larger_than"
    assert load_dataset("pocket/larger_than", max_train=4, max_test=4).easy == "pocket/arithmetic"


# --- the real sets -------------------------------------------------------------------------------

REAL = {  # name: (train rows, train true, test rows, test true, length AUROC of test)
    "gsm8k": (658, 329, 1486, 743, 0.72),
    "gsm8k_icm": (2228, 1068, 744, 352, 0.70),
    "truthfulqa": (2604, 1194, 1000, 432, 0.545),
    "alpaca": (702, 351, 232, 116, None),
    "larger_than": (1584, 801, 396, 189, 0.40),
    "political_normative": (4530, 0, 558, 0, None),
    "liar": (10243, 5761, 1283, 727, 0.53),
    "civil_comments": (2236, 1118, 744, 372, 0.48),
}


@real_data
@pytest.mark.parametrize("name", REAL)
def test_real_sets_load_whole(name):
    dataset = load_dataset(DATA / name)
    train, train_true, test, test_true, _ = REAL[name]
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    assert np.nansum(labels(dataset.train)) == train_true
    assert np.nansum(labels(dataset.test)) == test_true
    for target, format in dataset.formats.items():
        for item in with_target(dataset.test, target):
            assert item.choice in zero_shot(item, format)


@real_data
@pytest.mark.parametrize("name", [n for n, row in REAL.items() if row[4] is not None])
def test_length_alone_predicts_real_labels_as_documented(name):
    rows = describe(load_dataset(DATA / name))
    (row,) = [r for r in rows if (r["split"], r["target"]) == ("test", "label")]
    assert row["length_auroc"] == pytest.approx(REAL[name][4], abs=0.0051)


@real_data
def test_balanced_subsets_of_liar_have_the_documented_sizes():
    dataset = load_dataset(DATA / "liar", balance="republican")
    for split, each in (("train", 1130), ("valid", 143), ("test", 134)):
        items = dataset.splits[split]
        cells = [(item.label, item.alt_labels["republican"]) for item in items]
        assert {cell: cells.count(cell) for cell in set(cells)} == {
            (a, b): each for a in (True, False) for b in (True, False)
        }


@real_data
def test_answers_agree_with_the_key_that_came_with_the_solutions():
    items = [i for s in load_dataset(DATA / "gsm8k_icm").splits.values() for i in s]
    keys = {item.id: str(item.meta["answer"]).replace(",", "") for item in items}
    # The key is raw text ("44 hours", "25 + 75 = 100"): compared where it is a plain number.
    plain = [item for item in items if re.fullmatch(r"-?[$]?\d+(\.\d+)?", keys[item.id])]
    same = [float(item.answer or "nan") == float(keys[item.id].replace("$", "")) for item in plain]
    assert len(plain) > 0.95 * len(items)
    assert np.mean(same) > 0.99


def test_the_root_of_the_file_system_is_no_set():
    with pytest.raises(ValueError, match=r"^/ is /, which is no folder of a set"):
        load_dataset("/")


def test_claims_that_say_nothing_are_told(tmp_path):
    """They have a label and a hidden state, and there is nothing in them to be true."""
    said = ["one", " \n", "two", "", "three"]
    rows = [{"id": str(n), "choice": text, "label": n % 2 == 0} for n, text in enumerate(said)]
    write_jsonl(tmp_path / "blank.jsonl", rows)
    notes = load_dataset(tmp_path / "blank.jsonl").notes
    assert [note for note in notes if "blank" in note] == [
        "the claims of 2 rows are blank, such as row '1': leave them out, or give them text"
    ]
    write_jsonl(tmp_path / "full.jsonl", [row | {"choice": "x"} for row in rows])
    assert not [note for note in load_dataset(tmp_path / "full.jsonl").notes if "blank" in note]
