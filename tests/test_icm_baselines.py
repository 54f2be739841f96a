"""What ICM is compared with, its evaluation, batches and mirrored pairs, with planted answers."""

from dataclasses import replace

import numpy as np
import pytest
from coherent import FORMAT, Coherent, sums
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.items import Item
from jelicit.data.prompts import few_shot
from jelicit.icm import (
    BASELINES,
    VARIANTS,
    SearchSettings,
    baseline_scores,
    examples_that_fit,
    initial_labels,
    many_shot_scores,
    perturbed,
    search,
    search_in_batches,
    split_in_batches,
    start_labels,
    variant,
    with_mirrors,
)
from jelicit.prompting import bootstrapped, zero_shot_scores
from jelicit.prompting.consistency import inconsistent_pairs

POOL = sums(24)
GOLD = [item.label for item in POOL]
TARGETS = [
    replace(item, id=f"test {item.id}", group=f"test {item.group}") for item in sums(36)[24:]
]
TRUTH = np.array([item.label for item in TARGETS])


class Measured(Coherent):
    """Counts words, of which an example has 9 and a target 8; reads `context` of them."""

    def __init__(self, context):
        super().__init__()
        self.context = context

    def lengths(self, prompts, verdicts):
        return np.array([len(" ".join(prompt).split()) for prompt in prompts])


class Weighed(Measured):
    """Counts the words of the judged item three times."""

    def lengths(self, prompts, verdicts):
        return super().lengths([(*prompt, *prompt[-1:] * 2) for prompt in prompts], verdicts)


def test_many_shot_prompts_show_all_labelled_items_in_one_order():
    scorer = Coherent()
    labels = [None if n % 5 == 0 else not truth for n, truth in enumerate(GOLD)]
    scores = many_shot_scores(scorer, TARGETS, POOL, labels, FORMAT, seed=1)
    np.testing.assert_array_equal(scores < 0, TRUTH)  # the labels shown are all wrong
    (prompts,) = scorer.calls
    assert len({prompt[:-1] for prompt in prompts}) == 1
    texts = {item.choice: label for item, label in zip(POOL, labels, strict=True)}
    shown = [text.split("Say: ")[1].split("\n")[0] for text in prompts[0][:-1]]
    assert sorted(shown) == sorted(t for t, label in texts.items() if label is not None)
    said = [text.rstrip().endswith(" True") for text in prompts[0][:-1]]
    assert said == [texts[text] for text in shown]
    many_shot_scores(scorer, TARGETS, POOL, labels, FORMAT, seed=2)
    assert scorer.calls[1][0] != prompts[0]


def as_numbers(labels):
    """Labels as `jelicit.data.items.labels` writes them: nan = no truth value."""
    return np.array([np.nan if label is None else float(label) for label in labels], np.float32)


def test_labels_of_no_truth_value_may_be_none_or_nan():
    labels = [None if n % 5 == 0 else truth for n, truth in enumerate(GOLD)]
    scorer = Coherent()
    for written in (labels, as_numbers(labels)):
        many_shot_scores(scorer, TARGETS, POOL, written, FORMAT)
    assert scorer.calls[0] == scorer.calls[1]
    for kind in ("golden", "wrong"):
        assert start_labels(as_numbers(labels), kind, count=12, seed=0) == start_labels(
            labels, kind, count=12, seed=0
        )
    assert start_labels(as_numbers([None] * 24), "golden", count=6, seed=3) == (None,) * 24
    with pytest.raises(ValueError, match="gold has no truth value for item 0"):
        perturbed(as_numbers(labels), accuracy=0.5, seed=0)


def test_many_shot_prompting_refuses_leaks_and_what_does_not_fit():
    leaking = [*TARGETS, replace(POOL[3], id="leak")]
    with pytest.raises(ValueError, match=r"1 of 13 targets share .* 'leak'"):
        many_shot_scores(Coherent(), leaking, POOL, GOLD, FORMAT)
    with pytest.raises(ValueError, match="2 labels for 24 examples"):
        many_shot_scores(Coherent(), TARGETS, POOL, [True, False], FORMAT)
    scorer = Measured(9 * 10 + 8)
    with pytest.raises(ValueError, match=r"24 examples and a target do not fit .* 10 examples do"):
        many_shot_scores(scorer, TARGETS, POOL, GOLD, FORMAT)
    assert scorer.calls == []


@settings(max_examples=60, deadline=None)
@given(context=st.integers(0, 120), among=st.booleans(), limit=st.none() | st.integers(5, 90))
def test_as_many_examples_fit_as_brute_force_finds(context, among, limit):
    scorer = Weighed(context)
    longer = [item.choice + " and" * (n % 4) for n, item in enumerate(POOL[:9])]
    items = [replace(item, choice=text) for item, text in zip(POOL, longer, strict=False)]
    most = context if limit is None else min(context, limit)

    def needed(n):
        judged = items[:n] if among else TARGETS[:3]
        prompts = [
            few_shot(one, [(other, False) for other in items[:n] if other is not one], FORMAT)
            for one in judged
        ]
        return scorer.lengths(prompts, ()).max()

    found = examples_that_fit(
        scorer, items, FORMAT, targets=None if among else TARGETS[:3], limit=limit
    )
    fits = [n for n in range(1, 10) if needed(n) <= most]
    assert found == max(fits, default=0)
    assert examples_that_fit(Coherent(), items, FORMAT) == 9


def test_baselines_are_what_their_names_say():
    def scores(method, scorer=None, **options):
        return baseline_scores(
            method, scorer or Coherent(), TARGETS, POOL, FORMAT, shots=(2, 4), **options
        )

    np.testing.assert_array_equal(
        scores("zero_shot"), zero_shot_scores(Coherent(), TARGETS, FORMAT)
    )
    scorer = Coherent()
    scores("zero_shot_assistant", scorer)
    plain = Coherent()
    scores("zero_shot", plain)
    (preamble,) = {prompt[0] for prompt in scorer.calls[0]}
    assert "assistant" in preamble
    assert [prompt[1:] for prompt in scorer.calls[0]] == plain.calls[0]
    np.testing.assert_array_equal(
        scores("golden_many_shot", seed=4),
        many_shot_scores(Coherent(), TARGETS, POOL, GOLD, FORMAT, seed=4),
    )
    # Random labels say nothing of the truth: what is left is the model's leaning.
    margins = np.abs(scores("golden_many_shot")).mean(), np.abs(scores("random_many_shot")).mean()
    assert margins[1] < 0.7 * margins[0]
    for method, rule in (("bootstrapped", "none"), ("bootstrapped_consistent", "answer")):
        np.testing.assert_array_equal(
            scores(method, seed=2),
            bootstrapped(Coherent(), TARGETS, POOL, FORMAT, shots=(2, 4), rule=rule, seed=2).scores,
        )
    with pytest.raises(ValueError, match="unknown baseline 'magic'"):
        scores("magic")


def test_many_shot_baselines_show_what_fits_and_only_golden_ones_read_labels():
    blind = [replace(item, label=None) for item in POOL]
    for limit, shown in ((None, 12), (9 * 5 + 8, 5)):
        scorer = Measured(9 * 12 + 8)
        for method in ("golden_many_shot", "random_many_shot"):
            baseline_scores(method, scorer, TARGETS, POOL, FORMAT, limit=limit)
        prompts = [prompt for call in scorer.calls for prompt in call]
        assert {len(prompt) - 1 for prompt in prompts} == {shown}
        first = {item.choice for item in POOL[:shown]}
        for prompt in prompts:
            assert {text.split("Say: ")[1].split("\n")[0] for text in prompt[:-1]} == first
    for method in set(BASELINES) - {"golden_many_shot"}:
        told, untold = (
            baseline_scores(method, Coherent(), TARGETS, pool, FORMAT, shots=(2, 4))
            for pool in (POOL, blind)
        )
        np.testing.assert_array_equal(told, untold)


@given(n=st.integers(1, 40), accuracy=st.floats(0, 1), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_perturbed_labels_are_as_right_as_asked(n, accuracy, seed):
    gold = np.random.default_rng(seed).random(n) < 0.5
    labels = perturbed(gold, accuracy=accuracy, seed=seed)
    assert (labels != gold).sum() == round((1 - accuracy) * n)
    np.testing.assert_array_equal(labels, perturbed(gold, accuracy=accuracy, seed=seed))


def test_variants_begin_with_other_labels_for_the_same_items_or_without_a_rule():
    base = SearchSettings(seed=3, initial=6)
    drawn = initial_labels(24, count=6, seed=3)
    for name in VARIANTS:
        settings, start = variant(name, base, GOLD)
        assert (settings.rule == "none") == (name == "icm_no_consistency")
        assert replace(settings, rule="answer") == base
        if name in ("icm", "icm_no_consistency"):
            assert start is None
            continue
        assert start is not None
        right = [a == b for a, b in zip(start, GOLD, strict=True) if a is not None]
        assert right == [name == "icm_golden_start"] * 6
        assert [a is None for a in start] == [a is None for a in drawn]
    assert start_labels([None] * 24, "golden", count=6, seed=3) == (None,) * 24
    with pytest.raises(ValueError, match="unknown variant"):
        variant("icm_magic", base, GOLD)


def test_perturbation_must_be_a_share():
    with pytest.raises(ValueError, match=r"accuracy is 1\.5"):
        perturbed([True], accuracy=1.5, seed=0)


# --- batches -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 6), max_size=25), size=st.integers(1, 8))
def test_batches_hold_whole_groups(groups, size):
    items = [Item(id=str(n), choice="x", group=f"g{g}") for n, g in enumerate(groups)]
    largest = max((groups.count(g) for g in groups), default=0)
    if largest > size:
        with pytest.raises(ValueError, match="groups stay whole"):
            split_in_batches(items, size=size)
        return
    batches = split_in_batches(items, size=size)
    assert sorted(n for batch in batches for n in batch) == list(range(len(items)))
    assert all(0 < len(batch) <= size for batch in batches)
    for name in {item.group for item in items}:
        assert sum(any(items[n].group == name for n in batch) for batch in batches) == 1


def test_batches_are_searched_one_after_another_and_the_model_may_learn_between():
    told, seen = [], []

    def between(scorer, items, labels):
        told.append((scorer.lean, [item.id for item in items], list(labels)))
        return Coherent(lean=scorer.lean + 0.25)

    settings_ = SearchSettings(seed=1)
    found = search_in_batches(
        Coherent(lean=1.25),
        POOL,
        FORMAT,
        settings_,
        size=9,
        between=between,
        gold=GOLD,
        on_step=lambda batch, step: seen.append((batch, step)),
    )
    assert found.batches == (tuple(range(8)), tuple(range(8, 16)), tuple(range(16, 24)))
    assert list(found.labels) == GOLD
    assert [lean for lean, _, _ in told] == pytest.approx([1.25, 1.5])
    assert [ids for _, ids, _ in told] == [[i.id for i in POOL[:8]], [i.id for i in POOL[:16]]]
    assert [labels for _, _, labels in told] == [GOLD[:8], GOLD[:16]]
    for number, result in enumerate(found.results):
        steps = tuple(step for batch, step in seen if batch == number)
        assert steps == result.history
    alone = search(Coherent(lean=1.75), POOL[16:], FORMAT, settings_, gold=GOLD[16:])
    assert alone == found.results[2]
    assert found.draws == sum(result.draws for result in found.results) > alone.draws
    assert found.reading.reads == sum(result.reading.reads for result in found.results)
    judged = sum(result.evaluations for result in found.results)
    assert found.evaluations_per_label == pytest.approx(judged / 24)
    assert found.accuracy(GOLD) == 1.0
    assert found.converged


def test_every_batch_begins_with_its_own_part_of_the_labels_given():
    start = [None if n % 4 > 1 else label for n, label in enumerate(GOLD)]
    own = SearchSettings(draws=3)
    found = search_in_batches(Coherent(), POOL, FORMAT, own, size=8, start=start)
    assert [result.start for result in found.results] == [
        tuple(start[:8]),
        tuple(start[8:16]),
        tuple(start[16:]),
    ]
    assert not found.converged
    with pytest.raises(ValueError, match="start has 8 labels for 24 items"):
        search_in_batches(Coherent(), POOL, FORMAT, own, size=8, start=start[:8])


# --- pairs ---------------------------------------------------------------------------------------


def test_every_pair_gets_its_mirror_once():
    pair = Item(id="a", question="Q", choice="x", choice_2="y", label=True, group="g")
    mirror = replace(pair, id="b", choice="y", choice_2="x", label=False)
    alone = Item(id="c", question="Q", choice="x", choice_2="z", group="g", alt_labels={"l": True})
    found = with_mirrors([pair, mirror, alone])
    assert found[:3] == [pair, mirror, alone]
    assert found[3] == replace(alone, id="c/mirror", choice="z", choice_2="x", alt_labels={})
    assert with_mirrors(found) == found
    (made,) = with_mirrors([pair])[1:]
    assert (made.label, made.group) == (False, "g")
    assert inconsistent_pairs([pair, made], [True, True], "asymmetry") == [(0, 1)]
    with pytest.raises(ValueError, match="'x' has no choice_2"):
        with_mirrors([Item(id="x", choice="x")])
