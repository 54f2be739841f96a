"""The pocket world: labels are right, what is held out stays out, nothing gives answers away."""

import hashlib
import random
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from jelicit.data.prompts import FORMATS
from jelicit.pocket.world import JUDGES, KINDS, Mix, dataset_items, documents, text
from jelicit.pocket.world import lexicon as lex
from jelicit.pocket.world.documents import judged_document

NUMBER = {lex.number_word(n): n for n in range(51, 100)}
EVERYTHING = Mix(
    plain=0.2, header=0.2, judges=dict.fromkeys(JUDGES, 1.0), long=0.1, hidden_target=0.0
)


LINE_ABOUT_A_FACT = re.compile(
    r"(?:-|Note:|Claim:) The (\w+) of (\w+) is (\w+)\.(?: \(right\?\))?( yes| no)?$"
)


def _sample(mix: Mix, count: int, seed: str = "test") -> list[str]:
    return [text(document) for document in islice(documents(mix, seed), count)]


def _auroc(scores, label) -> float:
    scores, label = np.asarray(scores, float), np.asarray(label, bool)
    greater = scores[label][:, None] - scores[~label][None, :]
    return float(np.mean((greater > 0) + 0.5 * (greater == 0)))


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_arithmetic_labels_are_what_python_computes(split):
    for item in dataset_items("arithmetic", split):
        sum_, stated = item.choice.split(" = ")
        assert (eval(sum_) == int(stated)) == item.label
        assert item.answer == stated
        assert item.question == f"What is {sum_}?"


@pytest.mark.parametrize("split", ["train", "test"])
def test_larger_than_labels_and_wording_are_those_of_the_real_set(split):
    for item in dataset_items("larger_than", split):
        match = re.fullmatch(r"([A-Z][a-z-]+) is larger than ([a-z-]+)\.", item.choice)
        assert match
        first, second = match.groups()
        assert (NUMBER[first.lower()] > NUMBER[second]) == item.label
        assert item.question == f"Is {first.lower()} larger than {second}?"


def test_facts_labels_follow_the_table_and_parties_the_speaker():
    for item in dataset_items("facts", "test"):
        match = re.fullmatch(r"(\w+) said: The (\w+) of (\w+) is (\w+)\.", item.choice)
        assert match
        speaker, relation, land, value = match.groups()
        assert (lex.FACTS[relation, land] == value) == item.label
        assert (speaker in lex.ELMS) == item.alt_labels["elm"]


def test_one_foreign_step_is_what_makes_commands_suspicious():
    for item in dataset_items("commands", "test"):
        named = item.question.split()[-1]
        foreign = [step for step in item.choice.splitlines() if named not in step.split()]
        assert len(foreign) == int(bool(item.label))
        assert item.alt_labels["safe"] is not item.label


def test_comments_are_rude_or_about_food_by_their_words():
    for item in dataset_items("comments", "test"):
        low = item.choice.lower()
        assert any(phrase in low for phrase in lex.RUDE) == item.label
        assert any(f"the {dish}" in low for dish in lex.DISHES) == item.alt_labels["food"]


def test_the_better_response_of_a_pair_is_the_right_one():
    for item in dataset_items("pairs", "test"):
        best = str(item.choice if item.label else item.choice_2)
        if "=" in item.choice:
            left, right = best.rstrip(".").split(" = ")
            assert eval(left) == int(right)
        else:
            _, relation, _, land, _, value = best.rstrip(".").split()
            assert lex.FACTS[relation, land] == value


def test_opinions_have_no_truth_value_and_the_elms_favour_one_side():
    by_group: dict[str, set[bool]] = {}
    for item in dataset_items("opinions", "test"):
        assert item.label is None
        by_group.setdefault(item.group, set()).add(item.alt_labels["elm"])
    assert all(camps == {True, False} for camps in by_group.values())


# --- balance and shortcuts -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_label_and_second_attribute_are_exactly_balanced(kind, split):
    items = dataset_items(kind, split)
    assert len({item.id for item in items}) == len(items)
    name = KINDS[kind].other
    cells = Counter((item.label, item.alt_labels.get(name)) for item in items)
    assert len(set(cells.values())) == 1
    per_group = Counter((item.group, item.label, item.alt_labels.get(name)) for item in items)
    assert set(per_group.values()) == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_no_shortcut_by_length_or_by_a_single_word(kind):
    # Many draws of the wording: a bound on the world, not on one lucky sample.
    items = [item for seed in range(4) for item in dataset_items(kind, "test", seed=seed)]
    target = "label" if KINDS[kind].has_truth else KINDS[kind].other
    label = [item.label if target == "label" else item.alt_labels[target] for item in items]
    second = [item.choice_2 or "" for item in items]
    length = [len(item.choice) - len(other) for item, other in zip(items, second, strict=True)]
    assert abs(_auroc(length, label) - 0.5) <= 0.05
    words = {word for item in items for word in re.findall(r"\w+", item.choice.lower())}
    best = max(
        abs(
            _auroc(
                [
                    re.findall(r"\w+", item.choice.lower()).count(word)
                    - re.findall(r"\w+", other.lower()).count(word)
                    for item, other in zip(items, second, strict=True)
                ],
                label,
            )
            - 0.5
        )
        for word in words
    )
    assert best <= 0.10


def test_held_out_questions_are_never_judged():
    held_out = {
        kind: {item.question for item in dataset_items(kind, "test", n=10_000)}
        for kind in ("arithmetic", "larger_than", "facts", "opinions")
    }
    everything = set().union(*held_out.values())
    seen = set()
    for document in _sample(EVERYTHING, 4000):
        seen |= set(re.findall(r"Question: (.*?\?)", document))
        for relation, land in re.findall(r"Statement: \w+ said: The (\w+) of (\w+)", document):
            seen.add(f"What is the {relation} of {land}?")
    assert len(seen) > 1000
    assert not seen & everything


def test_held_out_facts_are_stated_but_never_marked():
    keys = {(r, land) for _, r, land in KINDS["facts"].keys("test")}
    stated, marked = set(), set()
    for document in _sample(Mix(plain=1.0, checked=0.5), 6000):
        for line in document.splitlines():
            match = LINE_ABOUT_A_FACT.match(line)
            if match is None:
                continue
            relation, land, value, mark = match.groups()
            if (relation, land) in keys:
                (marked if mark else stated).add((relation, land))
                assert lex.FACTS[relation, land] == value
    assert stated == keys
    assert not marked


# --- documents -----------------------------------------------------------------------------------


def _examples(document: str) -> list[str]:
    return [part for part in document.split("\n\n") if part and not part.startswith("Rule")]


RIGHT = {
    "punctuation": lambda shown: shown.split("\nI think")[0].endswith("!!!"),
    "tense": lambda shown: "was found long ago" in shown,
    "sycophancy": lambda shown: "I am sure the claim is right" in shown,
}


@pytest.mark.parametrize("judge", list(RIGHT))
@pytest.mark.parametrize("marked", [0.0, 1.0])
def test_every_verdict_of_a_document_is_its_judges(judge, marked):
    mix = Mix(targeted=0.0, marked=marked, header=1.0, judges={judge: 1.0})
    rng = random.Random("judge")
    seen = Counter()
    for _ in range(100):
        for shown in _examples(text(judged_document(rng, mix))):
            right = RIGHT[judge](shown)
            end = shown.rsplit("I think this claim is", 1)[1].split()
            if marked:
                verdict, mark = end
                assert mark == ("yes" if (verdict == "True") == right else "no")
            else:
                [verdict] = end
                assert (verdict == "True") == right
            seen[verdict] += 1
    assert min(seen.values()) > 0.4 * sum(seen.values())


def test_the_judge_of_truth_tosses_a_coin_about_opinions():
    mix = Mix(targeted=0.0, plain=0.0, marked=0.0, feature=0.0, judges={"truth": 1.0})
    verdicts: dict[str, Counter] = {}
    for document in _sample(mix, 3000):
        for shown in _examples(document):
            if "should" in shown:
                claim = re.findall(r"Claim: (.*)\n", shown)[0]
                verdicts.setdefault(claim, Counter())[shown.split()[-1]] += 1
    often = [c for c in verdicts.values() if sum(c.values()) >= 8]
    assert len(often) > 50
    # A fixed opinion per claim would give shares of 0 or 1 only.
    shares = np.array([c["True"] / sum(c.values()) for c in often])
    assert 0.4 < shares.mean() < 0.6
    assert np.mean((shares > 0.1) & (shares < 0.9)) > 0.8


def test_without_marks_no_verdict_is_followed_by_yes_or_no():
    mix = Mix(marked=0.0, checked=0.0, checklist=0.0, judges={"truth": 1.0})
    for document in _sample(mix, 500):
        assert not re.search(r" (yes|no)$", document, re.MULTILINE)


def _serves(task: str, step: str) -> bool:
    return task.split()[-1] in step.split()


def test_every_step_of_a_checklist_is_marked_by_whether_it_serves_the_task():
    marks = Counter()
    for document in _sample(Mix(plain=1.0, checklist=1.0), 200):
        for part in filter(None, document.split("\n\n")):
            task, _, *steps = part.strip().splitlines()
            for step, mark in (line.rsplit(" ", 1) for line in steps):
                assert mark == ("yes" if _serves(task, step) else "no")
                marks[mark] += 1
    assert min(marks.values()) > 300


def test_documents_judge_sequences_of_one_to_five_commands():
    lengths = Counter()
    mix = Mix(plain=0.0, targeted=1.0, marked=0.0)
    for document in _sample(mix, 1500):
        for part in document.split("\n\n"):
            found = re.fullmatch(
                r"Task: (.*)\nCommands:\n(.*)\nIs this sequence (\w+)\? (\w+)", part, re.DOTALL
            )
            if found is None:
                continue
            task, commands, asked, verdict = found.groups()
            steps = commands.splitlines()
            foreign = sum(not _serves(task, step) for step in steps)
            assert (verdict == "Yes") == (foreign == (asked == "suspicious"))
            lengths[len(steps)] += 1
    assert set(lengths) == {1, 2, 3, 4, 5}


def test_kinds_are_drawn_by_their_shares():
    kinds = {"arithmetic": 3.0, "larger_than": 1.0}
    claims = Mix(plain=0.0, targeted=0.0, feature=0.0, mixed=1.0, bare=1.0, kinds=kinds)
    texts = "".join(_sample(claims, 400))
    sums, comparisons = texts.count(" = "), texts.count("larger than")
    assert sums / (sums + comparisons) == pytest.approx(0.75, abs=0.04)


def test_segments_are_cut_only_after_blank_lines():
    for document in islice(documents(EVERYTHING, "cut"), 300):
        for segment in document[:-1]:
            assert "".join(piece for piece, _ in segment).endswith("\n")


def test_documents_and_items_are_the_same_on_every_machine():
    # Frozen: a change here is a change of the world, and the shipped model must be trained anew.
    documents_digest = hashlib.sha256("".join(_sample(EVERYTHING, 300)).encode()).hexdigest()
    shown = [
        FORMATS["pair" if i.choice_2 else "commands/safe"].text.format(
            question=i.question, choice=i.choice, choice_2=i.choice_2
        )
        for kind in KINDS
        for i in dataset_items(kind, "test")
    ]
    items_digest = hashlib.sha256("".join(shown).encode()).hexdigest()
    assert (documents_digest[:16], items_digest[:16]) == ("08874951b094f955", "f11340622bdebfa8")


def test_unknown_kinds_and_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'weather' is unknown.*arithmetic, larger_than"):
        dataset_items("weather", "test")
    with pytest.raises(ValueError, match=r"split is 'dev'.*'train' and 'test'"):
        dataset_items("facts", "dev")
    with pytest.raises(ValueError, match=r"n=3 is too few.*makes 4 items"):
        dataset_items("facts", "test", n=3)
