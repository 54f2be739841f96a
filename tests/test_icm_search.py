"""The search finds a planted coherent labelling, sees no label, and survives being killed."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coherent import FORMAT, Coherent, sums

from jelicit.data.items import Item
from jelicit.icm import SearchSettings, initial_labels, search
from jelicit.icm.steps import accuracy
from jelicit.icm.walk import draw_weights
from jelicit.prompting.consistency import Rule, inconsistent_pairs

ITEMS = sums(20)
GOLD = [item.label for item in ITEMS]


@pytest.mark.parametrize("schedule", ["log", "exp"])
@pytest.mark.parametrize("predictability", ["mean", "sum"])
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_coherent_labels_that_the_model_leans_to(schedule, predictability, seed):
    settings = SearchSettings(schedule=schedule, predictability=predictability, seed=seed)
    found = search(Coherent(lean=1.2), ITEMS, FORMAT, settings)
    assert list(found.labels) == GOLD
    assert found.converged
    assert inconsistent_pairs(ITEMS, found.labels, "answer") == []


def test_without_a_leaning_it_finds_either_of_the_two_coherent_labellings():
    reached = set()
    for seed in range(4):
        settings = SearchSettings(rule="none", seed=seed)
        reached.add(search(Coherent(lean=0.01), ITEMS, FORMAT, settings).accuracy(GOLD))
    assert reached == {0.0, 1.0}


def test_random_labels_to_begin_with_are_balanced():
    for n in (1, 5, 20):
        labels = initial_labels(n, count=8, seed=2)
        assert sum(label is not None for label in labels) == min(n, 8)
        assert sum(label is True for label in labels) == min(n, 8) // 2
    first, second = (initial_labels(20, count=8, seed=seed) for seed in (0, 1))
    assert first != second
    assert search(Coherent(), ITEMS, FORMAT).start == initial_labels(20, count=8, seed=0)


def test_gold_labels_change_nothing(tmp_path):
    scorer, journal = Coherent(by_order=0.5), tmp_path / "steps.jsonl"
    told = search(scorer, ITEMS, FORMAT, journal=journal, gold=GOLD)
    calls = len(scorer.calls)
    assert calls
    rng = np.random.default_rng(0)
    for labels in (rng.permutation(GOLD).tolist(), [None] * 20):
        other = [
            replace(item, label=label, alt_labels={"x": bool(label)}, meta={"right": label})
            for item, label in zip(ITEMS, labels, strict=True)
        ]
        fresh = search(Coherent(by_order=0.5), other, FORMAT)
        assert fresh.labels == told.labels
        assert fresh.history == tuple(replace(step, accuracy=None) for step in told.history)
        # Nor does a journal tell them apart: every step is read back.
        search(scorer, other, FORMAT, journal=journal)
        assert len(scorer.calls) == calls
    assert "accuracy" not in journal.read_text()
    assert told.history[-1].accuracy == told.accuracy(GOLD)


class Dies(Coherent):
    """Fails at its k-th call."""

    def __init__(self, calls, error):
        super().__init__(by_order=0.5)
        self.left, self.error = calls, error

    def score(self, prompts, verdicts):
        self.left -= 1
        if self.left == 0:
            raise self.error("the server is gone")
        return super().score(prompts, verdicts)


def test_a_search_that_dies_anywhere_goes_on_and_ends_the_same(tmp_path):
    settings = SearchSettings(seed=3, initial=16)
    whole = Coherent(by_order=0.5)
    expected = search(whole, ITEMS, FORMAT, settings)
    assert {step.kind for step in expected.history} == {"fix", "draw"}
    for place in range(1, len(whole.calls) + 1, 8):
        journal = tmp_path / f"{place}.jsonl"
        with pytest.raises((KeyboardInterrupt, ConnectionError)):
            search(
                Dies(place, [KeyboardInterrupt, ConnectionError][place % 2]),
                ITEMS,
                FORMAT,
                settings,
                journal=journal,
            )
        if journal.exists():
            done = journal.read_bytes()
            journal.write_bytes(done + done.rstrip().split(b"\n")[-1][:40])  # torn by the kill
        again = Coherent(by_order=0.5)
        found = search(again, ITEMS, FORMAT, settings, journal=journal)
        assert found == expected
        # No finished step was asked again: at most the calls of the one that died.
        assert len(again.calls) + place - 1 <= len(whole.calls) + 2
        again.calls.clear()
        assert search(again, ITEMS, FORMAT, settings, journal=journal) == expected
        assert again.calls == []


def test_searches_with_other_settings_in_one_journal_are_left_alone(tmp_path):
    journal = tmp_path / "steps.jsonl"
    settings = SearchSettings(draws=6)
    short = search(Coherent(), ITEMS, FORMAT, settings, journal=journal)
    # More draws are the same search, continued.
    scorer = Coherent()
    longer = search(scorer, ITEMS, FORMAT, replace(settings, draws=9), journal=journal)
    assert longer.history[: len(short.history)] == short.history
    assert longer == search(Coherent(), ITEMS, FORMAT, replace(settings, draws=9))
    other = Coherent()
    other.name = "another"
    start = initial_labels(20, count=4, seed=9)
    others: list[tuple[Coherent, list[Item], dict[str, Any], Any]] = [
        (other, ITEMS, {}, None),
        (Coherent(), ITEMS, {"seed": 1}, None),
        (Coherent(), ITEMS, {"rule": "none"}, None),
        (Coherent(), ITEMS, {"alpha": 20.0}, None),
        (Coherent(), ITEMS[:-1], {}, None),
        (Coherent(), ITEMS, {}, start),
    ]
    for scorer, items, changes, begin in others:
        changed = replace(settings, **changes)
        expected = search(Coherent(), items, FORMAT, changed, start=begin)
        found = search(scorer, items, FORMAT, changed, start=begin, journal=journal)
        assert scorer.calls
        assert found == expected
    own = SearchSettings(rule=Rule("own", lambda *_: True))
    with pytest.raises(ValueError, match="cannot tell the rule 'own'"):
        search(Coherent(), ITEMS, FORMAT, own, journal=journal)


def test_history_says_what_happened():
    scorer, seen, marks = Coherent(by_order=1.0), [], []

    def on_step(step):
        seen.append(step)
        marks.append(len(scorer.calls))

    found = search(scorer, ITEMS, FORMAT, gold=GOLD, on_step=on_step)
    assert tuple(seen) == found.history
    labels, accepted, idle = list(found.start), 0, 0
    for number, step in enumerate(found.history):
        assert step.step == number
        assert step.temperature == SearchSettings().temperature(accepted)
        if step.kind == "draw" and step.predicted is labels[step.item]:
            # Alone after a change, for all items at the draw after it, then known.
            asked = 1 if idle == 0 else len(ITEMS) if idle == 1 else 0
            assert (step.judged, step.prompts, step.gain) == (0, asked, None)
            assert len(step.foreseen) == (len(ITEMS) if idle == 1 else 0)
            if idle == 0:
                (prompt,) = scorer.calls[marks[number] - 1]
                first = [n for n in step.order if n != step.item]
                first.sort(key=lambda n: group(n) == group(step.item))  # its group stands last
                assert [text.split("Say: ")[1].split("\n")[0] for text in prompt] == [
                    ITEMS[n].choice for n in (*first, step.item)
                ]
        idle = 0 if step.accepted or step.kind == "fix" else idle + 1
        shown = [n for n, label in enumerate(labels) if label is not None]
        assert sorted(step.order) == (shown if step.prompts else [])
        for place, label in step.changes:
            assert labels[place] is not label
            labels[place] = label
        accepted += step.accepted and step.kind == "draw"
        assert step.accepted == bool(step.changes)
        assert step.labelled == sum(label is not None for label in labels)
        assert step.inconsistent == len(inconsistent_pairs(ITEMS, labels, "answer"))
        assert step.accuracy == accuracy(labels, GOLD)
    assert tuple(labels) == found.labels
    assert found.draws == sum(row["kind"] == "draw" for row in found.rows())
    prompts = [prompt for call in scorer.calls for prompt in call]
    assert found.reading.prompts == len(prompts)
    assert found.reading.reads_alone == sum(len(prompt) - 1 for prompt in prompts)
    assert found.reading.reads == sum(
        len({prompt[:end] for prompt in call for end in range(1, len(prompt))})
        for call in scorer.calls
    )
    judged = sum(step.judged for step in found.history)
    assert found.evaluations_per_label == judged / len(ITEMS)


def group(number):
    return ITEMS[number].group


def test_a_change_for_the_worse_is_accepted_as_the_temperature_says():
    noisy = {"lean": 0.3, "by_order": 3.0}
    shares = {}
    for warm in (1e-9, 10.0, 1e9):
        gains, accepted = [], []
        for seed in range(3):
            settings = SearchSettings(
                seed=seed,
                initial_temperature=warm,
                final_temperature=warm,
                rule="none",
                draws=50,
            )
            found = search(Coherent(**noisy), ITEMS, FORMAT, settings)
            worse = [s for s in found.history if s.gain is not None and s.gain < 0]
            gains += [step.gain for step in worse]
            accepted += [step.accepted for step in worse]
            assert all(s.accepted for s in found.history if s.gain is not None and s.gain > 0)
        expected = np.exp(np.array(gains) / warm)
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(sum(accepted) - expected.sum()) <= 4 * spread + 1e-6
        assert gains
        shares[warm] = np.mean(accepted)
    assert shares[1e-9] == 0
    assert 0 < shares[10.0] < 1
    assert shares[1e9] == 1


def test_temperatures():
    log = SearchSettings(initial_temperature=10, beta=2.0)
    assert log.temperature(0) == 10
    assert log.temperature(3) == pytest.approx(10 / (1 + 2 * math.log(4)))
    exp = SearchSettings(schedule="exp", beta=0.99)
    assert exp.temperature(0) == 10
    assert exp.temperature(100) == pytest.approx(10 * 0.99**100)
    assert exp.temperature(10_000) == 0.01


def test_mates_of_labelled_items_are_drawn_first():
    items = sums(8, per_question=2)
    labels = [True, None, None, None, False, True, None, False]
    assert draw_weights(items, labels).tolist() == [1, 100, 1, 1, 1, 1, 100, 1]


def test_it_ends_when_all_items_were_drawn_since_the_last_change():
    for patience in (1, 2):
        settings = SearchSettings(patience=patience, draws=2000)
        found = search(Coherent(lean=1.2), ITEMS, FORMAT, settings)
        assert found.converged
        last = max(step.step for step in found.history if step.accepted)
        drawn = [step.item for step in found.history if step.step > last]
        least = {number: drawn.count(number) for number in range(len(ITEMS))}
        assert min(least.values()) == patience
        assert drawn[:-1].count(drawn[-1]) == patience - 1
    short = search(Coherent(lean=1.2), ITEMS, FORMAT, SearchSettings(draws=7))
    assert not short.converged
    assert short.draws == 7
    assert None in short.labels


def test_given_labels_to_begin_with():
    wrong = [None if n >= 8 else not label for n, label in enumerate(GOLD)]
    found = search(Coherent(lean=0.0), ITEMS, FORMAT, SearchSettings(rule="none"), start=wrong)
    assert found.start == tuple(wrong)
    assert found.accuracy(GOLD) == 0.0


def test_nan_is_no_label():
    known = [label if n >= 6 else None for n, label in enumerate(GOLD)]
    numbers = np.array([math.nan if label is None else float(label) for label in known])
    found = search(Coherent(), ITEMS, FORMAT, start=np.full(20, math.nan), gold=numbers)
    assert found.start == (None,) * 20
    same = search(Coherent(), ITEMS, FORMAT, start=[None] * 20, gold=known)
    assert found.history == same.history
    wrong = tuple(not label for label in GOLD)
    assert accuracy(wrong, numbers) == accuracy(wrong, known) == 0.0
    assert accuracy(numbers.tolist(), GOLD) == 1.0
    assert math.isnan(accuracy(GOLD, np.full(20, math.nan)))


class Measured(Coherent):
    """Counts words; reads at most 30."""

    context = 30

    def lengths(self, prompts, verdicts):
        return np.array([len("".join(prompt).split()) for prompt in prompts])

    def score(self, prompts, verdicts):
        assert self.lengths(prompts, verdicts).max() <= self.context
        return super().score(prompts, verdicts)


def test_contexts_that_do_not_fit_are_refused_before_anything_is_read():
    # An example has 9 words and a target 8, so that 3 examples and a target are 35, and 2 are 26.
    scorer = Measured()
    with pytest.raises(ValueError, match=r"20 items do not fit .* the first 3 fit"):
        search(scorer, ITEMS, FORMAT)
    assert scorer.calls == []
    assert None not in search(scorer, ITEMS[:3], FORMAT).labels


def test_what_makes_no_sense_is_refused():
    changes: dict[str, Any]
    for changes, message in (
        ({"initial": 0}, "initial is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"beta": 0.0}, "beta is 0"),
        ({"beta": 1.5, "schedule": "exp"}, "beta is 1.5"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"final_temperature": 0.0}, "temperatures are"),
        ({"rule": "x"}, "unknown consistency rule"),
        ({"alpha": math.nan}, "alpha is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            SearchSettings(**changes)
    with pytest.raises(ValueError, match="start has 2 labels for 20 items"):
        search(Coherent(), ITEMS, FORMAT, start=[True, False])
    with pytest.raises(ValueError, match="no items"):
        search(Coherent(), [], FORMAT)
