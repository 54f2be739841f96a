"""Labels in the shapes that trainers take: what a row has, and what it must not have."""

import json
from dataclasses import replace
from typing import Any

import pytest

from jelicit.commands import cli
from jelicit.data.export import MADE_BY, export_rows
from jelicit.data.items import Item, from_record, load_items, save_items
from jelicit.data.prompts import zero_shot

CLAIMS = [
    Item(
        id=f"c{i}",
        question=f"what is {i // 3}?",
        choice=f"it is {i}",
        label=i % 3 == 0,
        group=f"q{i // 3}",
        alt_labels={"salient": True},
        meta={"gold": i % 2 == 0},
    )
    for i in range(6)
]
PAIR = Item(id="p", question="which?", choice="one", choice_2="two", label=False, group="p")
MIRROR = replace(PAIR, id="p/mirror", choice="two", choice_2="one", label=True)


def test_a_verdict_is_what_follows_the_zero_shot_prompt():
    rows, left_out = export_rows([*CLAIMS[:2], replace(CLAIMS[2], label=None)], "verdicts")
    assert left_out == 1
    assert [row["prompt"] for row in rows] == [zero_shot(item, "claim") for item in CLAIMS[:2]]
    assert [(row["completion"], row["label"]) for row in rows] == [
        (" True", True),
        (" False", False),
    ]


def test_pairs_are_the_better_response_and_the_other_one_in_either_order():
    for items in ([PAIR], [MIRROR], [PAIR, MIRROR]):
        rows, left_out = export_rows(items, "pairs")
        assert rows == [{"prompt": "which?", "chosen": "two", "rejected": "one", "group": "p"}]
        assert left_out == 0


def test_orders_that_contradict_each_other_decide_nothing():
    other = replace(PAIR, id="o", choice_2="three", group="o")
    rows, left_out = export_rows([PAIR, replace(MIRROR, label=False), other], "pairs")
    assert [row["group"] for row in rows] == ["o"]
    assert left_out == 2


def test_claims_of_one_question_become_pairs_each_claim_once():
    rows, left_out = export_rows(CLAIMS, "pairs")
    shown = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    assert shown == [("what is 0?", "it is 0", "it is 1"), ("what is 1?", "it is 3", "it is 4")]
    assert left_out == 2


def test_gold_labels_do_not_go_along():
    """Nothing but the label that is handed on tells two exports apart."""
    turned = [
        replace(item, alt_labels={"salient": False}, meta={"gold": not item.meta["gold"]})
        for item in CLAIMS
    ]
    for shape in ("items", "verdicts", "pairs"):
        assert export_rows(CLAIMS, shape) == export_rows(turned, shape)
    (first, *_), _ = export_rows(CLAIMS, "items")
    assert from_record(first) == replace(CLAIMS[0], alt_labels={}, meta={})


SAID = {"method": "icm", "model": "pocket", "seed": 3, "search": {"alpha": 50.0, "rule": "answer"}}
IN_WORDS = "method icm; model pocket; seed 3; search (alpha 50.0; rule answer)"


def found_by(items, said=SAID):
    return [replace(item, meta={**item.meta, MADE_BY: said}) for item in items]


@pytest.mark.parametrize("shape", ["verdicts", "pairs"])
@pytest.mark.parametrize("items", [CLAIMS, [PAIR, MIRROR]], ids=["claims", "pairs"])
def test_where_labels_are_from_goes_along_as_a_text(shape, items):
    form = {"format": "pair"} if shape == "verdicts" and items[0].choice_2 else {}
    plain, _ = export_rows(items, shape, **form)
    rows, _ = export_rows(found_by(items), shape, **form)
    assert rows == [{**row, MADE_BY: IN_WORDS} for row in plain]
    # Beside rows that say nothing, all have the column.
    mixed, _ = export_rows([*found_by(items[:3]), *items[3:]], shape, **form)
    assert all(MADE_BY in row for row in mixed)


def test_items_say_where_their_labels_are_from_and_nothing_else():
    rows, _ = export_rows(found_by(CLAIMS), "items")
    assert [row["meta"] for row in rows] == [{MADE_BY: SAID}] * len(CLAIMS)


def run(capsys, *words):
    cli.main(["export", *map(str, words)])
    return capsys.readouterr().out


@pytest.fixture
def found(tmp_path):
    save_items(tmp_path / "found.jsonl", CLAIMS)
    return tmp_path / "found.jsonl"


def test_the_command_writes_json_lines_and_where_they_came_from(found, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    printed = run(capsys, found, "--out", out, "--shape", "pairs")
    assert f"{out}: 2 rows of the shape pairs; 2 items are in none" in printed
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == export_rows(CLAIMS, "pairs")[0]
    about = json.loads((tmp_path / "rows.provenance.json").read_text())
    assert about["labels from"][0]["file"] == "found.jsonl"
    assert (about["rows"], about["items left out"]) == (2, 2)
    run(capsys, found, "--out", tmp_path / "items.jsonl", "--shape", "items")
    assert [item.label for item in load_items(tmp_path / "items.jsonl")] == [
        item.label for item in CLAIMS
    ]


@pytest.mark.parametrize("out", ["rows.jsonl", "folder"])
def test_a_renamed_file_still_says_whose_labels_it_has(tmp_path, capsys, out):
    """ICM's labels are told from golden ones by what is in the file."""
    import datasets

    for name, method in (("a", "icm"), ("b", "golden")):
        made = found_by(CLAIMS, {**SAID, "method": method})
        save_items(tmp_path / f"{name}.jsonl", made)
        place = tmp_path / name
        place.mkdir()
        run(capsys, tmp_path / f"{name}.jsonl", "--out", place / out, "--shape", "pairs")
        account = next(path for path in place.rglob("*provenance.json"))
        (source,) = json.loads(account.read_text())["labels from"]
        assert source["made by"] == [{**SAID, "method": method}]
        rows = (
            datasets.load_from_disk(place / out)
            if out == "folder"
            else [json.loads(line) for line in (place / out).read_text().splitlines()]
        )
        said: Any = rows
        assert {row[MADE_BY] for row in said} == {IN_WORDS.replace("icm", method)}


def test_a_file_of_before_says_nothing(found, tmp_path, capsys):
    run(capsys, found, "--out", tmp_path / "rows.jsonl")
    (source,) = json.loads((tmp_path / "rows.provenance.json").read_text())["labels from"]
    assert set(source) == {"file", "sha256"}


def test_the_command_writes_a_data_set_that_the_library_reads(found, tmp_path, capsys):
    import datasets

    run(capsys, found, "--out", tmp_path / "set", "--format", "asking")
    made = datasets.load_from_disk(tmp_path / "set")
    assert list(made) == export_rows(CLAIMS, "verdicts", format="asking")[0]
    about = json.loads((tmp_path / "set" / "provenance.json").read_text())
    assert about["format"]["name"] == "asking"


@pytest.mark.parametrize(
    ("items", "words", "told"),
    [
        ([replace(CLAIMS[0], label=None)], (), "none of 1 items has a label to export"),
        ([replace(CLAIMS[0], question="")], ("--shape", "pairs"), "no pair can be made"),
        (CLAIMS, ("--shape", "items", "--format", "claim"), "format does nothing with the shape"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(tmp_path, capsys, items, words, told):
    save_items(tmp_path / "a.jsonl", items)
    with pytest.raises(SystemExit):
        run(capsys, tmp_path / "a.jsonl", "--out", tmp_path / "b.jsonl", *words)
    assert told in capsys.readouterr().err


def test_labels_of_two_seeds_are_not_mixed(found, tmp_path, capsys):
    (tmp_path / "again.jsonl").write_bytes(found.read_bytes())
    with pytest.raises(SystemExit):
        run(capsys, found, tmp_path / "again.jsonl", "--out", tmp_path / "b.jsonl")
    assert "two of the files have a row 'c0'" in capsys.readouterr().err
