"""Items: types are checked, JSONL is lossless, errors say where, splits keep groups apart."""

import json
import re
import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.items import (
    Item,
    digest,
    from_jsonl,
    known_label,
    label_of,
    labels,
    load_items,
    save_items,
    split_by_group,
    to_jsonl,
    with_target,
)

# Text with everything that has broken line-based files: quotes, CR, U+0085, U+2028, NUL.
TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from('\n\r\x85\u2028\u2029\x00"\\'))
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ITEMS = st.builds(
    Item,
    id=TEXT.filter(bool),
    choice=TEXT,
    question=TEXT,
    choice_2=st.none() | TEXT,
    label=st.none() | st.booleans(),
    answer=st.none() | TEXT,
    group=TEXT,
    alt_labels=st.dictionaries(TEXT, st.booleans(), max_size=3),
    dataset=TEXT,
    split=TEXT,
    origin=TEXT,
    meta=st.dictionaries(TEXT, JSON_VALUES, max_size=3),
)


def make(n_groups: int, per_group: int) -> list[Item]:
    return [
        Item(id=f"{g}-{k}", choice="c", group=f"g{g}", label=k % 2 == 0)
        for k in range(per_group)
        for g in range(n_groups)
    ]


def write(path, *lines: str):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def record(**changes) -> str:
    return json.dumps({"id": "a", "choice": "c", "label": True} | changes)


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEMS, max_size=4, unique_by=lambda item: item.id))
def test_jsonl_round_trip_is_lossless(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("items") / "x.jsonl"
    save_items(path, items)
    loaded = load_items(path)
    assert loaded == items
    assert digest(loaded) == digest(items)
    assert path.read_bytes().count(b"\n") == len(items)


@settings(max_examples=60, deadline=None)
@given(ITEMS, st.sampled_from(["question", "choice", "dataset", "split", "origin", "answer"]))
def test_digest_sees_every_text_field(item, name):
    changed = replace(item, **{name: (getattr(item, name) or "") + "x"})
    assert digest([item]) != digest([changed])


def test_digest_sees_labels_and_order_but_not_key_order():
    a = Item(id="a", choice="c", label=True, alt_labels={"x": True, "y": False})
    same = Item(id="a", choice="c", label=True, alt_labels={"y": False, "x": True})
    b = Item(id="a", choice="c", label=None, alt_labels={"x": True, "y": False})
    assert digest([a]) == digest([same])
    assert digest([a]) != digest([b])
    assert digest([a, b]) != digest([b, a])


def test_digest_is_the_same_in_every_process_and_version():
    # Stores and result rows are named by it: a change here orphans them, so it must be deliberate.
    item = Item(id="a", choice="é\n", label=False, alt_labels={"s": True}, meta={"n": 1})
    assert digest([item]) == "8c57da3843f3c6a3d4942c6226b020b811d7469db6a6f78e9111626e6b38a467"


def test_group_defaults_to_the_id_and_mappings_are_own_copies():
    shared = {"x": True}
    item = Item(id="a", choice="c", alt_labels=shared)
    shared["x"] = False
    assert item.group == "a"
    assert item.alt_labels == {"x": True}
    assert len({item, Item(id="a", choice="c", alt_labels={"x": True})}) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "'id'"),
        ({"choice": None}, "'choice'"),
        ({"question": 3}, "'question'"),
        ({"choice_2": 1}, "'choice_2'"),
        ({"label": 1}, "'label'"),
        ({"label": "true"}, "'label'"),
        ({"answer": 7}, "'answer'"),
        ({"alt_labels": ["x"]}, "'alt_labels'"),
        ({"alt_labels": {"x": 1}}, "'alt_labels.x'"),
        ({"meta": []}, "'meta'"),
        ({"lable": True}, "'lable'"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, changes, field):
    path = write(tmp_path / "bad.jsonl", record(id="first"), "", record(**changes))
    with pytest.raises(ValueError, match="allowed") as error:
        load_items(path)
    assert str(error.value).startswith(f"{path}:3: ")  # the blank line counts
    assert field in str(error.value)


@pytest.mark.parametrize("name", ["id", "choice", "label"])
def test_a_missing_field_is_named(tmp_path, name):
    fields = json.loads(record())
    del fields[name]
    path = write(tmp_path / "bad.jsonl", json.dumps(fields))
    with pytest.raises(ValueError, match=rf"bad\.jsonl:1: field '{name}' is missing"):
        load_items(path)


def test_broken_json_repeated_ids_and_non_objects_are_refused_with_their_line(tmp_path):
    with pytest.raises(ValueError, match=r":2: not a JSON object"):
        load_items(write(tmp_path / "a.jsonl", record(), '{"id": "b"'))
    with pytest.raises(ValueError, match=r":3: field 'id' repeats 'a' of line 1"):
        load_items(write(tmp_path / "b.jsonl", record(), record(id="b"), record()))
    with pytest.raises(ValueError, match=r":1: expected one JSON object per line, got list"):
        load_items(write(tmp_path / "c.jsonl", "[1]"))
    twice = '{"id": "a", "choice": "one", "label": true, "choice": "two"}'
    with pytest.raises(ValueError, match=r":1: the key 'choice' is there twice"):
        load_items(write(tmp_path / "e.jsonl", twice))
    with pytest.raises(FileNotFoundError, match=r"d\.jsonl"):
        load_items(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"GGUF\x03\x00", "a model file (GGUF)"),
        (b"PK\x03\x04\x14", "a ZIP archive"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"ARROW1\x00\x00", "an Arrow file"),
        ('{"id": "a"}'.encode("utf-16"), "text in UTF-16"),
        (b"id,choice,label\na,c,1\n", "CSV"),
        (b"id\tchoice\tlabel\n", "tab-separated values"),
        (b'"id";"choice"\n', "CSV with semicolons"),
        (b'\n[\n {"id": "a"}\n]\n', "a JSON array"),
        (b'{\n "id": "a"\n}\n', "one JSON object over several lines"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, first, kind):
    path = tmp_path / "x.jsonl"
    path.write_bytes(first)
    with pytest.raises(ValueError, match=re.escape(kind)) as error:
        load_items(path)
    assert str(error.value).startswith(str(path))
    assert "one JSON object per line" in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(record(id="é") + "\n", encoding="utf-8-sig")
    assert [item.id for item in load_items(path)] == ["é"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "a\ud800"}, "id"),
        ({"choice": "so \udc00 it is"}, "choice"),
        ({"answer": "\ud83d"}, "answer"),
        ({"alt_labels": {"\ud800": True}}, "alt_labels"),
        ({"meta": {"deep": [{"x": ["\udfff"]}]}}, "meta"),
        ({"meta": {"\ud800": 1}}, "meta"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_with_its_line_and_field(tmp_path, changes, field):
    path = write(tmp_path / "x.jsonl", record(id="first"), record(**changes))
    with pytest.raises(ValueError, match=f"field '{field}' holds U\\+D") as error:
        load_items(path)
    assert str(error.value).startswith(f"{path}:2: item ")
    assert str(error.value).encode()  # the message itself can be printed


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    path = write(tmp_path / "x.jsonl", record(choice="\U0001f600"))
    assert "\\ud83d\\ude00" in path.read_text()
    assert load_items(path)[0].choice == "\U0001f600"


def test_ids_and_groups_are_one_in_every_unicode_form(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    path = write(tmp_path / "x.jsonl", record(id=composed), record(id=apart))
    with pytest.raises(ValueError, match=r":2: field 'id' repeats .* of line 1"):
        load_items(path)
    items = [
        Item(id=f"{n}", choice="c", group=composed if n % 2 else apart) for n in range(10)
    ] + make(3, 2)
    for seed in range(10):
        train, test = split_by_group(items, test_share=0.5, seed=seed)
        assert not {unicodedata.normalize("NFC", i.group) for i in train} & {
            unicodedata.normalize("NFC", i.group) for i in test
        }


LONG = "x" * 2_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"id": LONG, "label": 3},
        {"choice": [LONG]},
        {"label": LONG},
        {"answer": {LONG: LONG}},
        {"alt_labels": {LONG: 1}},
        {"alt_labels": LONG},
        {"meta": LONG},
        {LONG: 1},
        {"id": LONG, "choice": "\ud800"},
    ],
)
def test_an_error_never_repeats_a_long_value_whole(tmp_path, changes):
    path = write(tmp_path / "x.jsonl", record(**changes))
    with pytest.raises(ValueError, match=r"x\.jsonl:1: ") as error:
        load_items(path)
    assert len(str(error.value)) < 600 + len(str(path))


def test_json_nested_without_end_is_one_line(tmp_path):
    path = write(tmp_path / "x.jsonl", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=r"x\.jsonl:1: nested too deep"):
        load_items(path)


def test_what_is_not_json_is_not_written_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.jsonl"
    save_items(path, [Item(id="good", choice="c")])
    for value in (float("nan"), {1, 2}):
        with pytest.raises(ValueError, match="item 'bad': field 'meta'"):
            save_items(path, [Item(id="bad", choice="c", meta={"v": value})])
    assert [item.id for item in load_items(path)] == ["good"]


def test_the_ten_key_schema_loads_without_answer_and_origin():
    line = record(
        dataset="d", split="s", question="q", choice_2=None, alt_labels={}, group="", meta={}
    )
    (item,) = from_jsonl([line], source="x")
    assert (item.answer, item.origin, item.group) == (None, "", "a")
    assert from_jsonl(to_jsonl([item]).splitlines(), source="y") == [item]


def test_a_known_label_is_true_false_or_none_however_it_is_written():
    for value, label in ((1.0, True), (np.float32(0), False), (np.bool_(True), True), (0, False)):
        assert known_label(value) is label
    for value in (None, np.nan, np.float32("nan"), pd.NA, pd.NaT):
        assert known_label(value) is None
    for value in ("false", "", 0.5, 2, np.str_("1"), [True]):
        with pytest.raises(ValueError, match=r"a label is .*; allowed: True, False, 1 and 0"):
            known_label(value)


def test_label_of_and_labels():
    items = [
        Item(id="a", choice="c", label=True, alt_labels={"p": False}),
        Item(id="b", choice="c", label=None, alt_labels={"p": True}),
        Item(id="n", choice="c", label=False),
    ]
    np.testing.assert_array_equal(labels(items), [1, np.nan, 0])
    assert labels(items).dtype == np.float32
    np.testing.assert_array_equal(labels(with_target(items, "p"), "p"), [0, 1])
    assert [item.id for item in with_target(items, "label")] == ["a", "n"]
    assert label_of(items[1]) is None
    with pytest.raises(ValueError, match=r"item 'n' has no label 'p'; it has: label"):
        labels(items, "p")


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_split_by_group_never_shares_a_group_and_loses_nothing(sizes, share, seed):
    items = [
        Item(id=f"{g}-{k}", choice="c", group=f"g{g}")
        for g, n in enumerate(sizes)
        for k in range(n)
    ]
    items = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    train, test = split_by_group(items, test_share=share, seed=seed)
    train_groups, test_groups = ({item.group for item in side} for side in (train, test))
    assert not train_groups & test_groups
    assert sorted(train + test, key=items.index) == items
    assert [i for i in items if i in train] == train  # order is kept
    assert len(test_groups) == min(max(round(share * len(sizes)), 1), len(sizes) - 1)
    assert (train, test) == split_by_group(items, test_share=share, seed=seed)


def test_split_by_group_depends_on_the_seed_and_refuses_what_cannot_be():
    items = make(50, 2)
    tests = {
        tuple(i.id for i in split_by_group(items, test_share=0.5, seed=s)[1]) for s in range(5)
    }
    assert len(tests) == 5
    with pytest.raises(ValueError, match="test_share is 1"):
        split_by_group(items, test_share=1, seed=0)
    with pytest.raises(ValueError, match="two groups"):
        split_by_group(items[:1], test_share=0.5, seed=0)
