"""Prompting methods with scorers whose behaviour is known."""

import collections
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, GAP, PromptFormat
from jelicit.prompting import (
    bootstrapped,
    draw_examples,
    few_shot_scores,
    golden_labels,
    prompted,
    random_labels,
    zero_shot_scores,
)
from jelicit.prompting.consistency import Rule

FORMAT = PromptFormat(name="test", text="Say: {choice}\nThat is", third_word=" Unknown")


def sums(n, *, per_question=2, split="train"):
    """Claims "3 + 4 = 7", right and wrong in turn, in questions of two claims."""
    items = []
    for row in range(n):
        a, b = divmod(row // per_question, 10)
        right = row % 2 == 0
        items.append(
            Item(
                id=f"{split}/{row}",
                choice=f"{a} + {b} = {a + b if right else a + b + 1}",
                answer=str(a + b if right else a + b + 1),
                label=right,
                group=f"{split} {row // per_question}",
            )
        )
    return items


def is_right(text):
    left, right = text.split("Say: ")[1].split("\n")[0].split(" = ")
    return sum(map(int, left.split(" + "))) == int(right)


class Imitator:
    """Judges as its examples do: by the truth or against it, by their majority; truth if none."""

    name = "imitator"

    def __init__(self):
        self.prompts = []

    def score(self, prompts, verdicts):
        assert tuple(verdicts) == (" True", " False")
        self.prompts += prompts
        scores = []
        for *examples, target in prompts:
            agree = sum(
                1 if is_right(text) == text.endswith(" True" + GAP) else -1 for text in examples
            )
            margin = 0.2 + agree / max(len(examples), 1)
            scores.append(margin if is_right(target) else -margin)
        half = np.array(scores) / 2
        return np.stack([half, -half], 1)


def test_zero_shot_and_golden_examples():
    items, pool = sums(20, split="test"), sums(60)
    truth = np.array(golden_labels(items))
    scorer = Imitator()
    np.testing.assert_array_equal(zero_shot_scores(scorer, items, FORMAT) > 0, truth)
    assert scorer.prompts[0] == ("Say: 0 + 0 = 0\nThat is",)
    scores = few_shot_scores(scorer, items, pool, golden_labels(pool), FORMAT, shots=6)
    np.testing.assert_array_equal(scores > 0, truth)
    flipped = [not label for label in golden_labels(pool)]
    scores = few_shot_scores(scorer, items, pool, flipped, FORMAT, shots=6)
    np.testing.assert_array_equal(scores < 0, truth)
    assert all(len(prompt) == 7 for prompt in scorer.prompts[-20:])


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.sampled_from([True, False, None]), min_size=6, max_size=20),
    shots=st.integers(0, 6),
    seed=st.integers(0, 5),
)
def test_examples_are_balanced_and_share_no_group(labels, shots, seed):
    pool = sums(len(labels), per_question=1)
    target = replace(pool[0], id="target", group=pool[1].group)
    shots = min(shots, len(pool) - 1)
    found = draw_examples(target, pool, labels, shots=shots, seed=seed)
    assert found == draw_examples(target, pool, labels, shots=shots, seed=seed)
    assert len(found) == shots
    groups = [item.group for item, _ in found]
    assert len(set(groups)) == shots
    assert target.group not in groups
    place = {item.id: row for row, item in enumerate(pool)}
    assert all(labels[place[item.id]] is label for item, label in found)
    count = collections.Counter(label for _, label in found)
    left = collections.Counter(labels[row] for row in range(len(pool)) if row != 1)
    for one in left:
        for other in left:
            # A class has fewer than another only where it ran out (by one: the odd one out).
            assert count[one] >= count[other] - 1 or count[one] == left[one]


def test_random_labels_are_balanced_and_the_third_word_is_shown():
    for n in (1, 8, 9):
        labels = random_labels(n, seed=3)
        assert labels.sum() == n // 2
    assert (random_labels(64, seed=1) != random_labels(64, seed=2)).any()
    scorer = Imitator()
    pool = sums(6, per_question=1)
    few_shot_scores(scorer, pool[:1], pool, np.full(6, np.nan), FORMAT, shots=2)
    assert all(text.endswith(" Unknown" + GAP) for text in scorer.prompts[0][:2])


def test_every_round_shows_the_labels_of_the_round_before():
    pool, targets = sums(64), sums(10, split="test")
    scorer = Imitator()
    found = bootstrapped(scorer, targets, pool, FORMAT, shots=(2, 4, 8), seed=1)
    assert [one.shots for one in found.rounds] == [2, 4]
    assert [len(prompt) - 1 for prompt in scorer.prompts] == [2] * 64 + [4] * 64 + [8] * 10
    shown = {"Say: " + item.choice: row for row, item in enumerate(pool)}
    made = [found.start, *(one.labels for one in found.rounds)]
    for place, labels in ((0, made[0]), (64, made[1]), (128, made[2])):
        for prompt in scorer.prompts[place : place + 10]:
            for text in prompt[:-1]:
                said = text.endswith(" True" + GAP)
                assert labels[shown[text.split("\n")[0]]] == said
    for one in found.rounds:
        np.testing.assert_array_equal(one.labels, one.scores > 0)
    accuracies = found.accuracies(golden_labels(pool))
    assert accuracies[0] == (found.start == np.array(golden_labels(pool))).mean()
    # This scorer leans towards the truth a little, so each round is nearer to it.
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] > accuracies[0] + 0.2


class SaysYes:
    """Finds everything true, right claims a little more so."""

    def score(self, prompts, verdicts):
        return np.array([[1.0 if is_right(prompt[-1]) else 0.5, 0.0] for prompt in prompts])


def test_consistency_mends_labels():
    pool, targets = sums(64), sums(10, split="test")
    plain = bootstrapped(SaysYes(), targets, pool, FORMAT, shots=(2, 4), seed=1)
    ruled = bootstrapped(SaysYes(), targets, pool, FORMAT, shots=(2, 4), seed=1, rule="answer")
    assert plain.accuracies(golden_labels(pool))[1] == 0.5
    assert ruled.accuracies(golden_labels(pool))[1] == 1.0


def test_methods_by_name_take_their_share_of_the_shots():
    pool, targets = sums(40), sums(6, split="test")
    for method, shown in (
        ("random_few_shot", [2] * 6),
        ("golden_few_shot", [8] * 6),
        ("bootstrapped", [2] * 40 + [4] * 40 + [8] * 6),
        ("bootstrapped_consistent", [2] * 40 + [4] * 40 + [8] * 6),
    ):
        scorer = Imitator()
        found = prompted(method, scorer, targets, pool, FORMAT, shots=(2, 4, 8), seed=3).scores
        assert [len(prompt) - 1 for prompt in scorer.prompts] == shown
        assert found.shape == (6,)
    np.testing.assert_array_equal(
        found,
        bootstrapped(
            Imitator(), targets, pool, FORMAT, shots=(2, 4, 8), rule="answer", seed=3
        ).scores,
    )
    with pytest.raises(ValueError, match="unknown prompting method 'magic'"):
        prompted("magic", Imitator(), targets, pool, FORMAT)


def test_the_labels_that_were_shown_are_told():
    pool, targets = sums(40), sums(6, split="test")
    gold = golden_labels(pool)
    golden = prompted("golden_few_shot", Imitator(), targets, pool, FORMAT, shots=(2, 8))
    assert golden.accuracies(gold) == [1.0]
    random = prompted("random_few_shot", Imitator(), targets, pool, FORMAT, shots=(2, 8), seed=1)
    assert random.accuracies(gold) == [np.mean(random_labels(40, seed=[1, 0]) == gold)]
    found = prompted("bootstrapped", Imitator(), targets, pool, FORMAT, shots=(2, 8), seed=1)
    assert [len(labels) for labels in found.history] == [40, 40]
    expected = [np.mean(labels == np.array(gold)) for labels in found.history]
    assert found.accuracies(gold) == expected


def test_a_pool_needs_groups_for_what_is_asked_of_it_alone():
    """Targets of other groups may be shown every group of the pool."""
    pool, targets = sums(4), sums(3, split="test")
    found = prompted("random_few_shot", Imitator(), targets, pool, FORMAT, shots=(2,))
    assert found.scores.shape == (3,)


def test_golden_examples_are_kept_in_the_journal(tmp_path):
    pool, targets = sums(30), sums(6, split="test")
    options: dict[str, Any] = {"shots": (2, 4), "journal": tmp_path / "rounds.jsonl"}
    first = prompted("golden_few_shot", Imitator(), targets, pool, FORMAT, **options)
    again = Imitator()
    found = prompted("golden_few_shot", again, targets, pool, FORMAT, **options)
    assert again.prompts == []
    np.testing.assert_array_equal(found.scores, first.scores)
    # Other labels are another run.
    blind = [replace(item, label=not item.label) for item in pool]
    prompted("golden_few_shot", again, targets, blind, FORMAT, **options)
    assert len(again.prompts) == len(targets)


def test_gold_labels_change_nothing():
    pool, targets = sums(40), sums(6, split="test")
    blind = [replace(item, label=None) for item in pool]
    for rule in ("none", "answer"):
        a = bootstrapped(Imitator(), targets, pool, FORMAT, shots=(2, 4), rule=rule)
        b = bootstrapped(Imitator(), targets, blind, FORMAT, shots=(2, 4), rule=rule)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.labels, b.labels)


class Dies(Imitator):
    """Ends the run at its k-th call."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def score(self, prompts, verdicts):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().score(prompts, verdicts)


def test_a_run_that_died_goes_on_after_its_last_round(tmp_path):
    pool, targets = sums(30), sums(6, split="test")
    journal = tmp_path / "rounds.jsonl"
    options: dict[str, Any] = {"shots": (2, 2, 4), "seed": 4}
    with pytest.raises(KeyboardInterrupt):
        bootstrapped(Dies(3), targets, pool, FORMAT, journal=journal, **options)
    assert len(journal.read_text().splitlines()) == 2
    with journal.open("a") as file:
        file.write('{"run": "torn')
    scorer = Imitator()
    found = bootstrapped(scorer, targets, pool, FORMAT, journal=journal, **options)
    assert len(scorer.prompts) == len(targets)  # the pool was not scored again
    expected = bootstrapped(Imitator(), targets, pool, FORMAT, **options)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    again = Imitator()
    bootstrapped(again, targets, pool, FORMAT, journal=journal, **options)
    assert again.prompts == []
    # Other settings, another rule, seed or model are other runs.
    other = Imitator()
    other.name = "another"
    others: list[tuple[Imitator, dict[str, Any]]] = [
        (again, {"shots": (2, 4)}),
        (again, {"rule": "answer"}),
        (again, {"seed": 5}),
        (other, {}),
    ]
    for scorer, changed in others:
        scorer.prompts.clear()
        bootstrapped(scorer, targets, pool, FORMAT, journal=journal, **(options | changed))
        assert scorer.prompts
    assert all(json.loads(line) for line in journal.read_text().splitlines())


class Silent:
    def score(self, prompts, verdicts):
        return np.full((len(prompts), 2), -np.inf)


def test_what_cannot_be_done_is_refused(tmp_path):
    pool = sums(4)
    with pytest.raises(ValueError, match=r"3 examples .* only 1 groups beside its own"):
        draw_examples(pool[0], pool, [True] * 4, shots=3, seed=0)
    with pytest.raises(ValueError, match="2 labels for a pool of 4"):
        draw_examples(pool[0], pool, [True] * 2, shots=1, seed=0)
    with pytest.raises(ValueError, match="shots is empty"):
        bootstrapped(Imitator(), pool, pool, FORMAT, shots=())
    with pytest.raises(ValueError, match="unknown consistency rule"):
        bootstrapped(Imitator(), pool, pool, FORMAT, shots=(1,), rule="x")
    with pytest.raises(ValueError, match="9 examples beside each item of the pool: it has 2"):
        bootstrapped(Imitator(), pool, pool, FORMAT, shots=(9, 1))
    with pytest.raises(ValueError, match="2 examples for each target: the pool has 1 groups"):
        bootstrapped(Imitator(), pool[:1], pool, FORMAT, shots=(1, 2))
    with pytest.raises(ValueError, match="a journal needs a scorer with a name"):
        bootstrapped(SaysYes(), pool, pool, FORMAT, shots=(1,), journal=tmp_path / "j")
    rule = Rule("own", lambda *_: True)
    with pytest.raises(ValueError, match="cannot tell the rule 'own'"):
        bootstrapped(Imitator(), pool, pool, FORMAT, shots=(1,), rule=rule, journal=tmp_path / "j")
    with pytest.raises(ValueError, match=r"item 'train/0': its prompt .* no truth score"):
        zero_shot_scores(Silent(), pool, FORMAT)
    with pytest.raises(ValueError, match="third"):
        few_shot_scores(Imitator(), pool, pool, [None] * 4, FORMATS["liar/truth"], shots=1)


def test_the_local_scorer_fits(monkeypatch):
    tiny_models = pytest.importorskip("tiny_models", reason="needs the extract extra")
    from extract.local_scorer import LocalScorer

    pool = sums(8, per_question=1)
    scorer = LocalScorer(tiny_models.tiny(), match="tokens")
    found = bootstrapped(scorer, pool[:2], pool, FORMAT, shots=(1, 2))
    assert found.scores.shape == (2,)
    assert np.isfinite(found.scores).all()
