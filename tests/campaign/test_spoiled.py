"""A search through a server that fails in six ways."""

import pytest

pytest.importorskip("torch", reason="a tokenizer needs the extract extra")

from spoiled import SIX, search_through_faults


def test_a_search_through_six_kinds_of_faults_ends_with_the_same_labels():
    searched = search_through_faults()
    assert set(searched.spoiled) == set(SIX)
    assert sum(searched.spoiled.values()) == searched.requests // 5
    assert searched.same
