"""Item scores and the record of a command: written, read back, refused where damaged."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jelicit.data.items import Item
from jelicit.results import Finding, ItemScores, ItemScoreStore, Record
from jelicit.results.item_scores import standardised

NAN = float("nan")
ITEMS = [
    Item(
        id=f"i{n}",
        dataset="made",
        group=f"g{n // 2}",
        question="Why? \u2028 <b>é</b>",
        choice=f"claim {n}",
        choice_2="the other" if n == 0 else None,
        label=(True, False, None, True)[n],
        alt_labels={"elm": n < 2},
    )
    for n in range(4)
]
FOUND = [
    ({"method": "ccs", "orientation": "oracle", "layer": 3}, [[1.0, -1, 1, -1], [2.0, -2, 2, 2]]),
    ({"method": "bootstrapped", "orientation": "none", "class_share": 0.5}, [NAN, 3.0, NAN, -3.0]),
]


def test_scores_are_in_units_of_their_spread_and_averaged_over_seeds():
    found = ItemScores.of(ITEMS, [(about, np.array(s)) for about, s in FOUND])
    second = np.array([2.0, -2, 2, 2]) / np.std([2.0, -2, 2, 2])
    expected = (np.array([1.0, -1, 1, -1]) + second) / 2
    np.testing.assert_allclose(found.scores[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.scores[:, 1], [NAN, 1, NAN, -1])
    assert found.settings == (FOUND[0][0], FOUND[1][0])
    alike = [({"method": "ccs"}, np.array([[-3.0] * 4, [1.0] * 4]))]
    np.testing.assert_array_equal(ItemScores.of(ITEMS, alike).scores[:, 0], [-1] * 4)


def test_scores_that_are_all_alike_stay_as_they_are():
    # The standard deviation of seven times 0.1 is rounding, and not 0.
    np.testing.assert_array_equal(standardised(np.full((1, 7), 0.1)), [0.1] * 7)
    some = np.array([[0.1, NAN, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
    np.testing.assert_array_equal(standardised(some), some[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(standardised(np.full((1, 3), NAN)), [NAN] * 3)


@settings(max_examples=50, deadline=None)
@given(arrays(float, (3, 6), elements=st.floats(-9, 9).map(lambda x: round(x, 2))), st.floats(1, 9))
def test_the_unit_of_a_score_does_not_matter_but_its_sign_and_place_do(scores, factor):
    units = factor ** np.arange(3)[:, None]
    varied = np.ptp(scores, axis=1) > 0
    each = [standardised(run[None]) for run in scores]
    np.testing.assert_allclose(standardised(scores), np.mean(each, 0))
    for run, found in zip(scores, each, strict=True):
        np.testing.assert_array_equal(np.sign(found), np.sign(run))
        np.testing.assert_array_equal(found[:-1] > found[1:], run[:-1] > run[1:])
    if varied.all():
        np.testing.assert_allclose(standardised(units * scores), standardised(scores))


def test_items_say_what_was_asked_for_and_what_else_is_known():
    plain = ItemScores.of(ITEMS, []).items
    np.testing.assert_array_equal(plain["label"], [1, 0, NAN, 1])
    assert [json.loads(text) for text in plain["others"]] == [
        {"elm": True}, {"elm": True}, {"elm": False}, {"elm": False}
    ]  # fmt: skip
    asked = ItemScores.of(ITEMS, [], target="elm").items
    np.testing.assert_array_equal(asked["label"], [1, 1, 0, 0])
    assert [json.loads(text) for text in asked["others"]] == [
        {"truth": item.label} for item in ITEMS
    ]


@pytest.mark.parametrize("target", ["label", "elm"])
def test_item_scores_read_back_as_they_were_written(tmp_path, target):
    found = ItemScores.of(ITEMS, [(a, np.array(s)) for a, s in FOUND], target=target)
    store = ItemScoreStore(tmp_path / "new" / "items")
    assert not store.has("r1")
    store.write("r1", found)
    assert store.has("r1")
    read = store.read("r1")
    np.testing.assert_array_equal(read.scores, found.scores)
    assert read.settings == found.settings
    for name in found.items:
        for ours, theirs in zip(found.items[name], read.items[name], strict=True):
            assert ours == theirs or (ours != ours and theirs != theirs) or ours is theirs is None
    assert [path.name for path in store.folder.iterdir()] == ["r1.parquet"]


def test_no_method_is_a_table_without_scores(tmp_path):
    store = ItemScoreStore(tmp_path)
    store.write("r1", ItemScores.of(ITEMS, []))
    assert store.read("r1").scores.shape == (4, 0)


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_torn_file_is_named(tmp_path, kept):
    store = ItemScoreStore(tmp_path)
    store.write("r1", ItemScores.of(ITEMS, [(a, np.array(s)) for a, s in FOUND]))
    path = tmp_path / "r1.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"r1\.parquet is truncated or no file of item scores"):
        store.read("r1")


def test_foreign_and_missing_files_are_named(tmp_path):
    store = ItemScoreStore(tmp_path)
    ItemScores.of(ITEMS, []).items.to_parquet(tmp_path / "r1.parquet")
    with pytest.raises(ValueError, match=r"r1\.parquet is truncated or no file of item scores"):
        store.read("r1")
    with pytest.raises(FileNotFoundError, match=r"there are no item scores .*r2\.parquet"):
        store.read("r2")


def test_a_failed_write_leaves_the_old_scores(tmp_path, monkeypatch):
    store = ItemScoreStore(tmp_path)
    store.write("r1", ItemScores.of(ITEMS, []))
    before = (tmp_path / "r1.parquet").read_bytes()

    def fail(table, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("jelicit.results.item_scores.pq.write_table", fail)
    with pytest.raises(OSError, match=r"r1\.parquet could not be written: disk full"):
        store.write("r1", ItemScores.of(ITEMS, [(a, np.array(s)) for a, s in FOUND]))
    assert (tmp_path / "r1.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r1.parquet"]


def test_scores_that_do_not_fit_the_items_are_refused():
    with pytest.raises(ValueError, match=r"\{'method': 'ccs'\}: 3 scores, 4 items"):
        ItemScores.of(ITEMS, [({"method": "ccs"}, np.zeros((2, 3)))])
    items = ItemScores.of(ITEMS, []).items
    with pytest.raises(ValueError, match=r"scores are \(4, 2\) for 4 items and 1 settings"):
        ItemScores(items, ({},), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="items lack the columns choice_2, others"):
        ItemScores(items.drop(columns=["choice_2", "others"]), (), np.zeros((4, 0)))


# ------------------------------------------------------------- the record


def record(**changes):
    values = {
        "experiment": "salience",
        "title": "Title",
        "lead": "What was asked.",
        "command": "python experiments/salience.py",
        "seconds": 1.5,
        "machine": "2 CPU cores",
        "versions": {"jax": "0.10"},
        "settings": {"seeds": 8, "layers": ["best"], "easy": None},
        "runs": ("r1", "r2"),
        "figures": ("a.svg",),
        "findings": (
            Finding(claim="It is so", measured="0.9", appears=True),
            Finding(claim="Or not", measured="nothing", appears=None),
        ),
    }
    return Record(**(values | changes))


def test_a_record_reads_back_as_it_was_written(tmp_path):
    folder = tmp_path / "new"
    record(title="Old").write(folder)
    record().write(folder)
    assert Record.read(folder) == record()
    assert [path.name for path in folder.iterdir()] == ["report.json"]


def test_settings_of_a_record_are_plain(tmp_path):
    record(settings={"out": tmp_path, "shares": (0.5, np.float64(1.0))}).write(tmp_path)
    assert Record.read(tmp_path).settings == {"out": str(tmp_path), "shares": [0.5, 1.0]}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"findings": [{"claim": "x"}]}'])
def test_a_torn_record_is_named(tmp_path, text):
    record().write(tmp_path)
    whole = (tmp_path / "report.json").read_text()
    (tmp_path / "report.json").write_text(text or whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"report\.json is no record of a command"):
        Record.read(tmp_path)


def test_a_folder_without_a_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no report\.json; name the folder"):
        Record.read(tmp_path)
