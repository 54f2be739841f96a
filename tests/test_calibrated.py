"""Content-free calibration: what is planted in prompts is taken off, and nothing else."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item
from jelicit.method_names import method_of
from jelicit.prompting import (
    CALIBRATED,
    METHODS,
    prompted,
    zero_shot_offset,
    zero_shot_scores,
)
from jelicit.prompting.calibrated import (
    CONTENT_FREE,
    calibrated_scores,
    content_free_prompts,
    offset,
)
from jelicit.prompting.forecast import need_of_method
from jelicit.studies import Situation, States, scoring
from jelicit.studies.prompted import measure_zero_shot_calibrated
from jelicit.studies.settings import PromptSettings

FORMAT = PromptFormat(name="test", text="Q: {question}\nSay: {choice}\nThat is", system="Judge.")
TRUE, FALSE = FORMAT.true_word, FORMAT.false_word


def claims(n: int, *, split: str = "train") -> list[Item]:
    """Claims of groups of their own, right and wrong in turn."""
    return [
        Item(
            id=f"{split}/{row}",
            question=f"{row}?",
            choice=f"{split} {row} {'right' if row % 2 else 'wrong'}",
            label=bool(row % 2),
        )
        for row in range(n)
    ]


class Leaning:
    """Knows the truth of claims, nothing of content-free texts, and leans as its examples say."""

    name = "leaning"

    def __init__(self, *, by: float, by_examples: float = 0.0) -> None:
        self.by, self.by_examples = by, by_examples
        self.asked: list[tuple[str, ...]] = []

    def lean(self, prompt: tuple[str, ...]) -> float:
        """What the prompt leans to before anything is asked: drawn from its examples."""
        drawn = hashlib.sha256("".join(prompt[:-1]).encode()).digest()[0] / 255
        return self.by + self.by_examples * drawn

    def score(self, prompts, verdicts):
        assert tuple(verdicts) == (TRUE, FALSE)
        self.asked += prompts
        scores = [
            self.lean(prompt) + ("right" in prompt[-1]) * 1.0 - ("wrong" in prompt[-1]) * 1.0
            for prompt in prompts
        ]
        half = np.array(scores) / 2
        return np.stack([half - 1, -half - 1], 1)


def test_the_offset_is_the_logit_of_the_mean_probability():
    scores = np.array([0.3, -2.0, 1.5])
    mean = (1 / (1 + np.exp(-scores))).mean()
    assert offset(scores) == pytest.approx(np.log(mean / (1 - mean)), abs=1e-12)
    assert not np.isclose(offset(scores), scores.mean())  # it is no mean of logits
    np.testing.assert_allclose(offset(np.full((2, 3), 800.0)), [800, 800])
    np.testing.assert_allclose(offset(np.array([-800.0, np.inf])), 0, atol=1e-12)
    with pytest.raises(ValueError, match="without bound"):
        offset(np.array([[0.0, 1.0], [-np.inf, -np.inf]]))


def test_a_lean_of_zero_shot_prompts_is_taken_off_exactly():
    items = claims(8)
    fair = zero_shot_scores(Leaning(by=0), items, FORMAT)
    scorer = Leaning(by=2.5)
    assert (zero_shot_scores(scorer, items, FORMAT) > 0).all()
    found = zero_shot_scores(scorer, items, FORMAT, calibrated=True)
    np.testing.assert_allclose(found, fair, atol=1e-12)
    assert zero_shot_offset(scorer, FORMAT) == pytest.approx(2.5, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_lean_of_the_examples_is_taken_off_each_target_of_its_own(method):
    targets, pool = claims(12, split="test"), claims(16)
    options = {"shots": (2, 3), "seed": 4}
    fair = prompted(method, Leaning(by=0), targets, pool, FORMAT, **options)
    leaning = Leaning(by=-1.2, by_examples=2.0)
    raw = prompted(method, leaning, targets, pool, FORMAT, **options)
    assert np.unique((raw.scores - fair.scores).round(6)).size > 4
    found = prompted(f"{method}_calibrated", leaning, targets, pool, FORMAT, **options)
    np.testing.assert_allclose(found.scores, fair.scores, atol=1e-12)
    # Labels of the rounds are made by calibrated scores, too.
    for mine, theirs in zip(found.history, fair.history, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_content_free_prompts_are_asked_once_right_after_the_prompt_that_begins_as_they_do():
    scorer, items = Leaning(by=0), claims(5)
    zero_shot_scores(scorer, items, FORMAT, calibrated=True)
    assert len(scorer.asked) == 5 + 3
    free = [f"Q: {text}\nSay: {text}\nThat is" for text in CONTENT_FREE]
    assert [prompt[-1] for prompt in scorer.asked[1:4]] == free
    scorer.asked.clear()
    prompted("random_few_shot_calibrated", scorer, items, claims(12), FORMAT, shots=(3,))
    assert len(scorer.asked) == 5 * (1 + 3)
    for first in range(0, 20, 4):
        target, *without = scorer.asked[first : first + 4]
        assert [prompt[:-1] for prompt in without] == [target[:-1]] * 3
        assert [prompt[-1] for prompt in without] == free


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("Say: {choice}\nIt is", ["Say: N/A\nIt is", "Say: \nIt is", "Say: [MASK]\nIt is"]),
        ("{choice}\nIt is", ["N/A\nIt is", "[MASK]\nIt is"]),
        ("True or not: {choice}", ["True or not: N/A", "True or not: [MASK]"]),
        ("{choice} ", ["N/A ", "[MASK] "]),
        ("1 {choice}\nis ", ["1 N/A\nis ", "1 \nis ", "1 [MASK]\nis "]),
    ],
)
def test_the_empty_text_is_left_out_where_a_prompt_would_begin_or_end_with_space(text, texts):
    form = PromptFormat(name="any", text=text)
    assert content_free_prompts(("before\n\n", "asked"), form) == [
        ("before\n\n", each) for each in texts
    ]


def test_no_prompt_is_no_question():
    assert calibrated_scores(Leaning(by=1), [], FORMAT, items=[]).shape == (0,)


def test_rounds_of_calibrated_and_other_runs_are_not_taken_for_each_other(tmp_path):
    targets, pool, path = claims(6, split="test"), claims(12), tmp_path / "rounds.jsonl"
    for base in ("golden_few_shot", "bootstrapped"):
        found = {}
        for method in (base, f"{base}_calibrated"):
            leaning = Leaning(by=2.0)
            options = {"shots": (1, 2), "journal": path}
            found[method] = prompted(method, leaning, targets, pool, FORMAT, **options).scores
            asked = len(leaning.asked)
            again = prompted(method, leaning, targets, pool, FORMAT, **options).scores
            np.testing.assert_array_equal(again, found[method])
            assert len(leaning.asked) == asked > 0
        assert (found[base] > found[f"{base}_calibrated"] + 1).all()


class Counted:
    """A prompt is a request, and a word is a token."""

    limit = SimpleNamespace(most=None, spent=0)

    def costs(self, prompts, verdicts):
        return 1, np.array([len(" ".join(prompt).split()) + 1 for prompt in prompts])

    def sent_for(self, requests, tokens, *, longest):
        return requests, tokens


@pytest.mark.parametrize("method", CALIBRATED)
def test_the_forecast_counts_the_content_free_prompts(method):
    targets, pool, leaning = claims(6, split="test"), claims(12), Leaning(by=0)
    need = need_of_method(method, Counted(), targets, pool, FORMAT, shots=(1, 3))
    prompted(method, leaning, targets, pool, FORMAT, shots=(1, 3))
    tokens = Counted().costs(leaning.asked, ())[1].sum()
    pool_too = 12 if "bootstrapped" in method else 0
    assert need.requests == (6 + pool_too) * (1 + 3)
    # Examples of a round may be drawn alike; then their content-free prompts are asked once.
    assert 0.8 * need.requests < len(leaning.asked) <= need.requests
    assert tokens <= need.tokens < 2 * tokens
    assert need_of_method("zero_shot_calibrated", Counted(), [], [], FORMAT, shots=()).requests == 3


class Paid(Counted, Leaning):
    """Who asks pays."""


def test_what_zero_shot_prompts_take_is_told_before_the_first_of_them():
    test, scorer, told = claims(12, split="test"), Paid(by=1.0), []
    situation = Situation(dataset="claims", format=FORMAT, train=tuple(claims(4)), test=tuple(test))
    states = States(layers=(), train={}, test_log_probs=np.zeros((12, 2)))
    measure_zero_shot_calibrated(
        *(situation, states, scorer),
        boot=situation.boot(5),
        say=lambda line: told.append((line, len(scorer.asked))),
    )
    tokens = max(Counted().costs(scorer.asked, ())[1])
    said = "claims, zero-shot, calibrated, before the first request: at most 3 requests and"
    assert told[0] == (f"{said} {3 * tokens} tokens", 0)
    assert told[1][1] == 3


def test_calibration_moves_the_accuracy_of_one_prompt_and_no_order():
    test, leaning, told = claims(12, split="test"), Leaning(by=2.5), []
    situation = Situation(dataset="claims", format=FORMAT, train=tuple(claims(4)), test=tuple(test))
    raw = zero_shot_scores(leaning, test, FORMAT)
    leaning.asked.clear()
    states = States(layers=(), train={}, test_log_probs=np.stack([raw, np.zeros(12)], 1))
    boot = situation.boot(5)
    done = measure_zero_shot_calibrated(situation, states, leaning, boot=boot, say=told.append)
    assert len(leaning.asked) == 3
    [row] = done.rows
    [plain] = scoring.fixed_rows({"zero_shot": raw}, situation.targets(), boot)
    assert (plain["accuracy"], row["accuracy"]) == (0.5, 1.0)
    assert all(plain[k] == row[k] for k in ("auroc", "auroc_low", "auroc_high", "n_train", "role"))
    [(about, scores)] = done.scores
    assert about == {"method": "zero_shot_calibrated", "orientation": "none"}
    np.testing.assert_allclose(scores, raw - 2.5, atol=1e-12)
    assert told == [
        "claims: of no claim the prompt says True (log-odds +2.50); accuracy without that 1.00"
    ]
    unknown = replace(states, test_log_probs=None)
    assert not measure_zero_shot_calibrated(situation, unknown, leaning, boot=boot).rows


def test_names_and_settings_know_the_calibrated_methods():
    assert method_of("zero_shot_calibrated").name == "Zero-shot, calibrated"
    for method in CALIBRATED:
        base = method_of(method.removesuffix("_calibrated"))
        assert method_of(method) == (method, f"{base.name}, calibrated", base.group)
    assert not PromptSettings(prompting=("zero_shot_calibrated", *CALIBRATED)).problems()
    assert not set(PromptSettings().methods_asked) & {"zero_shot_calibrated", *CALIBRATED}
    assert PromptSettings(prompting=("zero_shot_calibrated",)).few_shot_asked == ()
