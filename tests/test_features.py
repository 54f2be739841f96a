"""Features: exact wording, and values that say nothing about the label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.features import FEATURES, add_feature, get_feature, plain_id
from jelicit.data.items import Item, labels


def make(values, **alt) -> list[Item]:
    return [
        Item(id=f"i{n}", question="Is it so?", choice="It is so.", label=value, group=f"g{n // 2}",
             alt_labels={name: column[n] for name, column in alt.items()})
        for n, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "question", "choice"),
    [
        ("sycophancy", True, "Is it so? I am sure the claim is right.", "It is so."),
        ("sycophancy", False, "Is it so? I am sure the claim is wrong.", "It is so."),
        ("punctuation", True, "Is it so?", "It is so!!!"),
        ("punctuation", False, "Is it so?", "It is so..."),
        ("tense", True, "Is it so?", "This was found long ago: It is so."),
        ("tense", False, "Is it so?", "This will be found one day: It is so."),
        ("sycophancy_faint", True, "Is it so? Perhaps the claim is right.", "It is so."),
        ("sycophancy_faint", False, "Is it so? Perhaps the claim is wrong.", "It is so."),
        ("punctuation_faint", True, "Is it so?", "It is so!"),
        ("punctuation_faint", False, "Is it so?", "It is so."),
        ("tense_faint", True, "Is it so?", "It was found: It is so."),
        ("tense_faint", False, "Is it so?", "It will be found: It is so."),
    ],
)
def test_wording(name, value, question, choice):
    assert get_feature(name).rewrite("Is it so?", "It is so.", value) == (question, choice)


def test_punctuation_replaces_all_closing_marks_and_keeps_inner_ones():
    rewrite = FEATURES["punctuation"].rewrite
    assert rewrite("", "3.5 is it?!? ", True)[1] == "3.5 is it!!!"
    assert rewrite("", "no mark", False)[1] == "no mark..."


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=60),
    st.sampled_from(sorted(FEATURES)),
    st.integers(0, 2**31),
)
def test_values_are_halved_within_every_label_class(values, name, seed):
    items = make(values)
    made = add_feature(items, name, seed=seed)
    for label in (True, False, None):
        drawn = [item.alt_labels[name] for item in made if item.label is label]
        assert abs(drawn.count(True) - drawn.count(False)) <= 1
    for before, after in zip(items, made, strict=True):
        rewritten = FEATURES[name].rewrite(before.question, before.choice, after.alt_labels[name])
        assert (after.question, after.choice) == rewritten
        assert (after.label, after.group) == (before.label, before.group)
        assert after.id == f"{before.id}+{name}"
        assert after.meta["features"] == [name]
    assert made == add_feature(items, name, seed=seed)


def test_a_second_feature_is_independent_of_the_first_and_of_other_labels():
    party = [bool(n % 3) for n in range(96)]
    items = make([bool(n % 2) for n in range(96)], republican=party)
    made = add_feature(add_feature(items, "sycophancy", seed=1), "punctuation", seed=1)
    assert made[0].id == "i0+sycophancy+punctuation"
    assert made[0].meta["features"] == ["sycophancy", "punctuation"]
    assert [plain_id(item) for item in made] == [item.id for item in items]
    columns = np.stack(
        [labels(made, t) for t in ("label", "sycophancy", "punctuation", "republican")]
    )
    correlations = np.corrcoef(columns)
    # Cells of label, party and feature are even here, so nothing is left to chance.
    assert np.abs(correlations[2, [0, 1, 3]]).max() < 1e-6
    assert np.abs(correlations[1, [0, 3]]).max() < 1e-6


def test_odd_classes_lean_the_same_way():
    # Leaning opposite ways would make the feature tell the label: 2 of 3 against 1 of 3.
    for seed in range(20):
        made = add_feature(make([True] * 3 + [False] * 3), "tense", seed=seed)
        values = labels(made, "tense")
        assert values[:3].sum() == values[3:].sum()


def test_the_draw_is_random_in_the_seed():
    items = make([bool(n % 2) for n in range(12)])
    mean = np.mean(
        [labels(add_feature(items, "tense", seed=s), "tense") for s in range(400)], axis=0
    )
    # Each item is True half of the time: standard deviation 0.025.
    assert np.abs(mean - 0.5).max() < 0.12
    drawn = {tuple(labels(add_feature(items, "tense", seed=s), "tense")) for s in range(50)}
    assert len(drawn) > 40  # of 400 possible


def test_none_changes_nothing_and_the_rest_is_refused():
    items = make([True, False])
    assert add_feature(items, "none", seed=0) == items
    with pytest.raises(ValueError, match="unknown feature 'colour'; known: none, sycophancy"):
        add_feature(items, "colour", seed=0)
    with pytest.raises(ValueError, match=r"item 'bare' cannot have 'sycophancy'.*question"):
        add_feature([Item(id="bare", choice="c", label=True)], "sycophancy", seed=0)
    with pytest.raises(ValueError, match=r"item 'i0\+tense' has the feature 'tense' already"):
        add_feature(add_feature(items, "tense", seed=0), "tense", seed=0)
