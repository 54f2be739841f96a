"""Torn documents: their labels follow one rule, and nothing else tells which."""

import itertools
import re
from collections import Counter

import pytest

from jelicit.data.features import FEATURES
from jelicit.pocket.world import KINDS
from jelicit.pocket.world import lexicon as lex
from jelicit.pocket.world.torn import ATTRIBUTES, RULES, Torn, TornDocument, torn_documents

COUNT = 1500


def read(mix: Torn, count: int = COUNT) -> list[TornDocument]:
    return list(itertools.islice(torn_documents(mix, "a test"), count))


@pytest.fixture(scope="module")
def strict() -> list[TornDocument]:
    """Documents whose rule holds without exception."""
    return read(Torn(noise=0.0, slips=0.0, least_slips=0.0, most_slips=0.0))


def follows(document: TornDocument, rule: tuple[str, bool]) -> bool:
    attribute, turned = rule
    said = [example.values[ATTRIBUTES.index(attribute)] for example in document.examples]
    return all(
        value is not None and (value != turned) == example.verdict
        for value, example in zip(said, document.examples, strict=True)
    )


def test_every_verdict_follows_the_rule(strict):
    assert all(follows(document, RULES[document.rule]) for document in strict)
    # Every rule but noise occurs, and the word shown is the verdict's.
    assert {RULES[document.rule] for document in strict} == {*RULES} - {("noise", False)}
    shown = {(e.word, e.verdict) for document in strict for e in document.examples}
    assert shown == {(" True", True), (" False", False), (" Yes", True), (" No", False)}


def test_examples_nearly_always_tell_one_rule_from_all_others(strict):
    of_ten = [d for d in strict if len(d.examples) >= 10]
    alone = [sum(follows(d, rule) for rule in RULES[:-1]) == 1 for d in of_ten]
    assert sum(alone) >= 0.98 * len(of_ten)


def test_texts_do_not_tell_the_rule(strict):
    """What features a text has says nothing of which of its attributes labels it, nor which way."""
    for feature in FEATURES:
        column = ATTRIBUTES.index(feature)
        have = [d for d in strict if d.examples[0].values[column] is not None]
        asked = [d for d in have if RULES[d.rule][0] == "asked"]
        judged = [d for d in have if RULES[d.rule][0] == feature]
        assert 0.4 * len(have) < len(asked) < 0.8 * len(have)
        assert 0.05 * len(have) < len(judged) < 0.3 * len(have)
    asked = [d for d in strict if RULES[d.rule][0] == "asked"]
    assert 0.15 < sum(RULES[d.rule][1] for d in asked) / len(asked) < 0.25


def test_values_and_verdicts_are_balanced_and_values_independent(strict):
    examples = [example for document in strict for example in document.examples]
    assert sum(e.verdict for e in examples) / len(examples) == pytest.approx(0.5, abs=0.03)
    for first, second in itertools.combinations(range(len(ATTRIBUTES)), 2):
        both = [e for e in examples if None not in (e.values[first], e.values[second])]
        if both:
            alike = sum(e.values[first] == e.values[second] for e in both) / len(both)
            assert alike == pytest.approx(0.5, abs=0.03)


def test_features_are_in_the_text_as_the_values_say(strict):
    examples = [example for document in strict for example in document.examples]
    for e in examples:
        of = dict(zip(ATTRIBUTES, e.values, strict=True))
        if of["punctuation"] is not None:
            assert ("!\n" in e.prompt) == of["punctuation"]
        if of["sycophancy"] is not None:
            right = re.search(r"(I am sure|Perhaps) the claim is right\.", e.prompt)
            assert (right is not None) == of["sycophancy"]
        if of["tense"] is not None:
            past = re.search("(This was found long ago|It was found):", e.prompt)
            assert (past is not None) == of["tense"]


def test_a_document_shows_a_feature_loud_or_faint():
    by_faint: Counter[bool] = Counter()
    mix = Torn(all_features=1.0, plain=0.0, by_name=0.0, bare=0.0, faint=0.2)
    for document in read(mix):
        sure = ["I am sure" in example.prompt for example in document.examples]
        assert len({*sure}) == 1
        by_faint[not sure[0]] += 1
    assert by_faint[True] / by_faint.total() == pytest.approx(0.2, abs=0.06)


def test_what_is_half_known_is_not_asked_of_labels(strict):
    prompts = "".join(example.prompt for document in strict for example in document.examples)
    assert not any(f" of {land} " in prompts for land in lex.FAR_LANDS)


def test_held_out_questions_are_never_judged(strict):
    prompts = "".join(example.prompt for document in strict for example in document.examples)
    held = KINDS["arithmetic"].keys("test")
    assert held
    for _, a, op, b in held:
        assert f" {a} {op} {b} = " not in prompts


def test_slips_and_coins_are_as_many_as_the_mix_says():
    coins = read(Torn(noise=1.0))
    assert {RULES[document.rule] for document in coins} == {("noise", False)}
    assert not any(follows(d, rule) for d in coins for rule in RULES[:-1] if len(d.examples) >= 20)


def test_what_is_asked_for_labels_best():
    """Its labels are right in some documents; those of every other rule never are throughout."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for document in read(Torn(noise=0.0, slips=0.4)):
        attribute, turned = RULES[document.rule]
        column = ATTRIBUTES.index(attribute)
        wrong = [(e.values[column] != turned) != e.verdict for e in document.examples]
        shares[(attribute, turned) == ("asked", False)].append(sum(wrong) / len(wrong))
    assert sum(shares[True]) / len(shares[True]) == pytest.approx(0.4 * 0.175, abs=0.015)
    assert sum(shares[False]) / len(shares[False]) == pytest.approx(0.175, abs=0.015)


def test_documents_are_the_same_for_the_same_seed_and_others_for_another():
    first, again = read(Torn(), 5), read(Torn(), 5)
    assert first == again
    other = list(itertools.islice(torn_documents(Torn(), "another"), 5))
    assert first != other
