import base64
import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_reports import HOSTILE

from jelicit.report.item_browser import SCORE_STEPS, stepped
from jelicit.report.packing import Fixed, columns_of, pack, unpack


def packed(**columns):
    about, tables = unpack(pack({}, {"t": columns}))
    assert about == {}
    return tables["t"]


cells = st.one_of(
    st.none(), st.booleans(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)


@settings(deadline=None)
@given(st.lists(cells, min_size=1, max_size=30))
def test_texts_booleans_and_missing_values_come_back_as_they_were(values):
    assert packed(x=pd.Series(values, dtype=object))["x"] == values


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))))
def test_a_few_numbers_come_back_bit_for_bit(values):
    found = packed(x=pd.Series(values, dtype=float))["x"]
    assert found == values


def test_many_measured_numbers_keep_four_digits_and_stay_missing_where_they_are():
    numbers = np.random.default_rng(0).uniform(-1, 1, 5000)
    numbers[::11] = np.nan
    found = packed(x=pd.Series(numbers))["x"]
    assert [value is None for value in found] == np.isnan(numbers).tolist()
    errors = [abs(f - x) for f, x in zip(found, numbers, strict=True) if f is not None]
    assert max(errors) <= 0.5e-4 + 1e-12


def test_many_whole_numbers_are_exact_and_many_large_ones_keep_seven_digits():
    whole = np.arange(3000) * 10_007.0
    large = np.random.default_rng(0).normal(size=3000) * 1e6
    found = packed(whole=pd.Series(whole), large=pd.Series(large))
    assert found["whole"] == whole.tolist()
    np.testing.assert_allclose(found["large"], large, rtol=1e-6)


@pytest.mark.parametrize("different", [255, 256, 257, 65_536, 65_537])
def test_codes_of_any_width_find_their_values(different):
    values = [f"value {k}" for k in range(different)] * 2
    assert packed(x=pd.Series(values))["x"] == values


def test_an_infinite_number_is_told_as_text():
    assert packed(x=pd.Series([1.0, np.inf, -np.inf, np.nan]))["x"] == [1.0, "inf", "-inf", None]


def test_fixed_numbers_are_clipped_and_never_read_as_missing():
    found = packed(x=Fixed(np.array([1e9, -1e9, 0.25, np.nan]), 1000))["x"]
    assert found == [32.767, -32.767, 0.25, None]


@settings(deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=1))
def test_no_score_loses_its_verdict(scores):
    exact = np.array(scores, np.float32)
    found = packed(x=Fixed(stepped(exact), SCORE_STEPS))["x"]
    assert [value > 0 for value in found] == (exact > 0).tolist()
    assert [value < 0 for value in found] == (exact < 0).tolist()
    assert np.abs(np.array(found) - exact).max() <= 1 / SCORE_STEPS + 1e-5


def test_scores_of_whole_steps_stay_where_they_are():
    exact = np.arange(-5000, 5000) / SCORE_STEPS
    found = packed(x=Fixed(stepped(exact.astype(np.float32)), SCORE_STEPS))["x"]
    np.testing.assert_allclose(found, exact, atol=1e-9)


def test_hostile_texts_come_back_and_the_packed_text_is_plain_base64():
    text = pack({"title": HOSTILE[0]}, {"t": {"x": pd.Series(HOSTILE)}})
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    about, tables = unpack(text)
    assert (about, tables["t"]["x"]) == ({"title": HOSTILE[0]}, list(HOSTILE))


def test_half_a_surrogate_pair_becomes_the_replacement_character():
    halves = pd.Series(["a\ud83d b", "\ude00", "\U0001f600"], dtype=object)
    assert packed(x=halves)["x"] == ["a\ufffd b", "\ufffd", "\U0001f600"]


def test_the_same_tables_give_the_same_text():
    frame = pd.DataFrame({"x": [1, 2, 3], "y": ["a", None, "b"]})
    assert pack({}, {"t": columns_of(frame)}) == pack({}, {"t": columns_of(frame.copy())})


def test_the_time_of_packing_is_not_in_the_text():
    assert base64.b64decode(pack({}, {}))[4:8] == bytes(4)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"table t: columns of \[2, 3\] rows"):
        pack({}, {"t": {"x": pd.Series([1, 2]), "y": pd.Series([1, 2, 3])}})


@pytest.mark.parametrize("text", ["no base64!", "AAAA", base64.b64encode(b"x" * 99).decode()])
def test_what_was_not_packed_is_refused(text):
    with pytest.raises(ValueError, match="no packed tables"):
        unpack(text)


def test_arrays_stand_where_a_browser_can_map_them():
    raw = gzip.decompress(base64.b64decode(pack({}, {"t": {"x": pd.Series(list("abcab"))}})))
    header = int.from_bytes(raw[:4], "little")
    assert (4 + header) % 8 == 0
    assert raw[4 + header :][:5] == bytes([0, 1, 2, 0, 1])


def test_a_hundred_thousand_random_rows_and_five_thousand_items_are_small():
    rng = np.random.default_rng(0)
    n = 100_000
    rows = {f"measured {k}": pd.Series(rng.uniform(0, 1, n)) for k in range(6)}
    rows |= {f"set {k}": pd.Series(rng.integers(0, 20, n)) for k in range(8)}
    words = np.array([f"{word:x}" for word in rng.integers(0, 2**24, 5000)])
    texts = [" ".join(words[rng.integers(0, 5000, 60)]) for _ in range(5000)]
    scores = {str(k): Fixed(stepped(rng.normal(size=5000)), SCORE_STEPS) for k in range(30)}
    tables = {"rows": rows, "items": {"text": pd.Series(texts)}, "scores": scores}
    assert len(pack({}, tables)) < 6_000_000
