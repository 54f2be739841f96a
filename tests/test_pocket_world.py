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
    plain=0.2,
    header=0.2,
    judges=dict.fromkeys(JUDGES, 1.0),
    long=0.1,
    hidden_target=0.0,
    hidden_other=0.0,
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


@pytest.mark.parametrize("kind", ["facts", "far_facts"])
def test_facts_labels_follow_the_table_and_parties_the_speaker(kind):
    values = {"facts": lex.FACTS, "far_facts": lex.FAR_FACTS}[kind]
    for item in dataset_items(kind, "test"):
        match = re.fullmatch(r"(\w+) said: The (\w+) of (\w+) is (\w+)\.", item.choice)
        assert match
        speaker, relation, land, value = match.groups()
        assert (values[relation, land] == value) == item.label
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
        for kind in ("arithmetic", "larger_than", "facts", "far_facts", "opinions")
    }
    everything = set().union(*held_out.values())
    seen = set()
    for document in _sample(EVERYTHING, 4000):
        seen |= set(re.findall(r"Question: (.*?\?)", document))
        for relation, land in re.findall(r"Statement: \w+ said: The (\w+) of (\w+)", document):
            seen.add(f"What is the {relation} of {land}?")
    assert len(seen) > 1000
    assert not seen & everything


@pytest.mark.parametrize("kind", ["facts", "far_facts"])
def test_held_out_facts_are_stated_but_never_marked(kind):
    keys = {(r, land) for _, r, land in KINDS[kind].keys("test")}
    values = {"facts": lex.FACTS, "far_facts": lex.FAR_FACTS}[kind]
    stated, marked = set(), set()
    for document in _sample(Mix(plain=1.0, checked=0.5), 6000):
        for line in document.splitlines():
            match = LINE_ABOUT_A_FACT.match(line)
            if match is None:
                continue
            relation, land, value, mark = match.groups()
            if (relation, land) in keys:
                (marked if mark else stated).add((relation, land))
                assert values[relation, land] == value
    # Of some far lands a few thousand lines say nothing.
    assert stated == keys if kind == "facts" else len(stated) > len(keys) / 2
    assert not marked


# --- documents -----------------------------------------------------------------------------------


def _examples(document: str) -> list[str]:
    return [part for part in document.split("\n\n") if part and not part.startswith("Rule")]


# What the claim or question says where a feature is True: loud, and faint.
RIGHT = {
    "punctuation": ("!!!\nI think", "!\nI think"),
    "tense": ("This was found long ago:", "It was found:"),
    "sycophancy": ("I am sure the claim is right.", "Perhaps the claim is right."),
}


@pytest.mark.parametrize("judge", list(RIGHT))
@pytest.mark.parametrize("marked", [0.0, 1.0])
@pytest.mark.parametrize("faint", [0.0, 1.0])
def test_every_verdict_of_a_document_is_its_judges(judge, marked, faint):
    mix = Mix(targeted=0.0, marked=marked, faint=faint, header=1.0, judges={judge: 1.0})
    rng = random.Random("judge")
    seen = Counter()
    for _ in range(100):
        for shown in _examples(text(judged_document(rng, mix))):
            right = RIGHT[judge][int(faint)] in shown
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


def test_features_of_a_document_are_all_loud_or_all_faint_and_faint_as_often_as_the_mix_says():
    mix = Mix(plain=0.0, targeted=0.0, marked=0.0, feature=1.0, faint=0.3, examples=(8, 8))
    loud_and_faint = {
        "sycophancy": ("I am sure", "Perhaps"),
        "tense": ("This (?:was|will be) found", "It (?:was|will be) found"),
        "punctuation": (r"(?:!!!|\.\.\.)\nI think", r"[^.!][.!]\nI think"),
    }
    shares: dict[str, list[float]] = {name: [] for name in loud_and_faint}
    for document in _sample(mix, 600):
        for name, wordings in loud_and_faint.items():
            loud, faint = (len(re.findall(wording, document)) for wording in wordings)
            assert sorted((loud, faint)) == [0, 8]
            shares[name].append(faint == 8)
    for name in shares:
        assert np.mean(shares[name]) == pytest.approx(0.3, abs=0.06), name


@pytest.mark.parametrize(("unchecked", "share"), [(0.0, 0.8), (0.5, 0.4), (1.0, 0.0)])
def test_lines_of_facts_may_be_checked_less_often_than_others(unchecked, share):
    mix = Mix(plain=1.0, checked=0.8, checklist=0.0, unchecked={"facts": unchecked})
    marks, right = [], []
    for document in _sample(mix, 1500):
        for line in document.splitlines():
            if (match := LINE_ABOUT_A_FACT.match(line)) is None:
                continue
            relation, land, value, mark = match.groups()
            marks.append(mark is not None)
            if mark is None:
                right.append((lex.FACTS | lex.FAR_FACTS)[relation, land] == value)
    assert np.mean(marks) == pytest.approx(share, abs=0.03)
    assert all(right)


def test_other_lines_are_checked_as_before_where_those_of_facts_are_not():
    def sums(unchecked: dict[str, float]) -> float:
        mix = Mix(plain=1.0, checked=0.8, checklist=0.0, unchecked=unchecked)
        lines = [x for d in _sample(mix, 1500) for x in d.splitlines() if " = " in x]
        return float(np.mean([x.endswith((" yes", " no")) for x in lines]))

    assert sums({"facts": 1.0}) == pytest.approx(0.8, abs=0.03)
    assert sums({"arithmetic": 1.0}) == 0.0


def test_far_lands_are_stated_ever_less_often():
    stated = Counter()
    values = lex.FACTS | lex.FAR_FACTS
    for document in _sample(Mix(plain=1.0, checked=0.0, checklist=0.0), 40_000):
        for line in document.splitlines():
            if (match := LINE_ABOUT_A_FACT.match(line)) is not None:
                relation, land, value, _ = match.groups()
                stated[land] += 1
                assert values[relation, land] == value
    near = np.mean([stated[land] for land in lex.LANDS])
    far = np.array([stated[land] for land in lex.FAR_LANDS])
    expected = near * np.array([lex.FREQUENCY[land] for land in lex.FAR_LANDS])
    assert np.all(np.abs(far - expected) <= 5 * np.sqrt(expected) + 1)
    assert far[:10].sum() > 5 * far[-10:].sum()


def test_a_second_attribute_asked_for_by_name_is_judged_less_strictly_and_asked_less_often():
    """Asked for an Elm, truth judges four documents in ten; asked for truth, Elm seldom does."""
    judged = {"factually accurate": Counter(), "an Elm said this": Counter()}
    values = lex.FACTS | lex.FAR_FACTS
    for document in _sample(Mix(plain=0.0, targeted=1.0, marked=0.0, examples=(8, 10)), 3000):
        said = re.findall(
            r"Statement: (\w+) said: The (\w+) of (\w+) is (\w+)\.\nThe claim that "
            r"(?:this statement is )?(factually accurate|an Elm said this) is (\w+)",
            document,
        )
        if not said:
            continue
        by_truth = all((values[s[1], s[2]] == s[3]) == (s[5] == "True") for s in said)
        by_elm = all((s[0] in lex.ELMS) == (s[5] == "True") for s in said)
        assert by_truth or by_elm
        if by_truth != by_elm:
            judged[said[0][4]]["truth" if by_truth else "elm"] += 1
    asked_truth, asked_elm = judged["factually accurate"], judged["an Elm said this"]
    assert asked_truth["elm"] / asked_truth.total() == pytest.approx(0.05, abs=0.03)
    assert asked_elm["truth"] / asked_elm.total() == pytest.approx(0.4, abs=0.08)
    assert asked_truth.total() > 1.3 * asked_elm.total()


def test_what_is_asked_for_by_name_is_asked_as_much_more_often_as_the_mix_says():
    def pairs_to_comments(asked: dict[str, float]) -> float:
        mix = Mix(plain=0.0, targeted=1.0, asked=asked)
        starts = Counter(text(d).split(":")[0] for d in islice(documents(mix, "asked"), 6000))
        # Poems are pairs, too.
        return starts["Query"] / starts["Comment"]

    # Shares: pairs 1, poems 1; comments 1 for rude and 0.6 for food.
    assert pairs_to_comments({}) == pytest.approx(2 / 1.6, rel=0.12)
    assert pairs_to_comments({"pairs": 3.0, "poems": 0.5}) == pytest.approx(3.5 / 1.6, rel=0.12)


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
    assert (documents_digest[:16], items_digest[:16]) == ("9e20f591e0dfb255", "2441dd2fa5b180ef")


def test_unknown_kinds_and_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'weather' is unknown.*arithmetic, larger_than"):
        dataset_items("weather", "test")
    with pytest.raises(ValueError, match=r"split is 'dev'.*'train' and 'test'"):
        dataset_items("facts", "dev")
    with pytest.raises(ValueError, match=r"n=3 is too few.*makes 4 items"):
        dataset_items("facts", "test", n=3)
