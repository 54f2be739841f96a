"""Documents of the pocket world: what the pocket model is pretrained on.

A judged document is a run of examples under ONE hidden judge. Nothing in it says who judges
(unless a header does), so a reader has to find out from the verdicts, and at a verdict has to know
whether it matches the truth, the user, the punctuation, ...: just what a contrast pair exposes.
Plain documents state facts without any verdict.

A document is a list of segments, cut after blank lines; a segment is a list of (text, weight)
pieces, where weight is the piece's share in the training loss. Pieces meet at word boundaries, so
that they tokenise apart as they do together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product

from jelicit.data.features import FAINT, FEATURES, Feature
from jelicit.pocket.world import lexicon as lex
from jelicit.pocket.world.formats import WORLD_FORMATS
from jelicit.pocket.world.kinds import (
    KINDS,
    STEPS,
    Example,
    Kind,
    another_object,
    fact_sentence,
    opinion_sentence,
    two_attributes,
)

Piece = tuple[str, float]
Segment = list[Piece]
Document = list[Segment]

JUDGES = ("truth", "sycophancy", "punctuation", "tense", "elm", "noise")

# Shares of the loss: what the model must know weighs most. Text that nobody can predict (which
# question comes next) weighs little: at 0.1 its noise drowned the verdicts.
VERDICT, VALUE, TEXT = 1.0, 0.5, 0.02
NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a phase of pretraining reads; every number is a probability unless it says otherwise.

    Attributes:
        plain: A document states facts without verdicts.
        checked: A line of a plain document is possibly wrong and followed by " yes" or " no".
        unchecked: Line (arithmetic, facts, ...) -> how many of its lines that would be followed by
            " yes" or " no" only state what is true instead.
        checklist: A plain document is a task with commands, each followed by " yes" or " no": does
            it serve the task?
        marked: A judged document has random verdicts, each followed by " yes" or " no": is it
            right by this judge?
        header: A judged document opens with a line that names its judge.
        targeted: A judged document uses prompts that name the attribute asked for (statements,
            comments, commands, pairs) rather than the question/claim prompt.
        asked: Kind -> how much more often such documents are about it than `Kind.share` says.
        hidden_target: In such a document that asks for the truth, the judge is the other attribute
            all the same.
        hidden_other: In one that asks for the other attribute, the judge is the truth all the same,
            to make what is asked for there the less salient of the two.
        feature: A feature (user opinion, punctuation, tense) that is not judged is present.
        faint: The feature of a document, judged or not, is the faint version of it.
        bare: A question/claim document leaves its questions out.
        mixed: A document draws its examples from several kinds.
        judges: Judge -> share among the judges of question/claim documents.
        kinds: Kind -> share among the kinds of question/claim documents, as far as their judge
            speaks of them.
        examples: Fewest and most examples of a judged document.
        long: A judged document runs on for ``long_examples`` examples instead.
        long_examples: Fewest and most examples of a long document.
    """

    plain: float = 0.25
    checked: float = 0.3
    unchecked: Mapping[str, float] = field(default_factory=dict)
    checklist: float = 0.1
    marked: float = 0.3
    header: float = 0.3
    targeted: float = 0.35
    asked: Mapping[str, float] = field(default_factory=dict)
    hidden_target: float = 0.05
    hidden_other: float = 0.4
    feature: float = 0.3
    faint: float = 0.3
    bare: float = 0.2
    mixed: float = 0.4
    judges: Mapping[str, float] = field(default_factory=lambda: {"truth": 1.0})
    kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    examples: tuple[int, int] = (1, 10)
    long: float = 0.0
    long_examples: tuple[int, int] = (24, 36)


# --- plain documents -----------------------------------------------------------------------------


# How many lines about facts are of far lands: as many as their frequencies add up to lands.
_FAR = sum(lex.FREQUENCY.values())
_FAR_SHARE = _FAR / (_FAR + len(lex.LANDS))


def _arithmetic_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    kind = KINDS["arithmetic"]
    key = rng.choice(kind.keys("train") if checked else kind.all_keys)
    stem, value = kind.make(rng, key, right, False).choice.split(" = ")
    return f"{stem} =", f" {value}"


def _fact_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    kind = KINDS["far_facts" if rng.random() < _FAR_SHARE else "facts"]
    key = kind.draw_key(rng, kind.keys("train") if checked else kind.all_keys)
    example = kind.make(rng, key, right, False)
    _, relation, land = key
    sentence = fact_sentence(relation, land, str(example.answer))  # type: ignore[arg-type]
    return sentence.removesuffix(f" {example.answer}."), f" {example.answer}."


def _comparison_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    # A comparison follows from its numbers, so held-out pairs are not even stated.
    del checked
    key = rng.choice(KINDS["larger_than"].keys("train"))
    claim = KINDS["larger_than"].make(rng, key, right, False).choice
    first, second = claim.split(" larger than")
    return f"{first} larger than", second


def _step_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    del checked
    named = rng.choice(lex.OBJECTS)
    used = named if right else another_object(rng, named)
    verb, rest = rng.choice(lex.COMMANDS).split(" {}")
    return f"{rng.choice(lex.TASKS).format(named)}: {verb}", f" {used}{rest}"


def _party_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    del checked
    name = rng.choice(lex.SPEAKERS)
    return f"{name} is an", " Elm." if (name in lex.ELMS) == right else " Oak."


def _camp_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    del checked
    thing, state = rng.choice(lex.PROPOSITIONS)
    elm = rng.random() < 0.5
    favour = (lex.ELM_FAVOURS[thing, state] == elm) == right
    sentence = opinion_sentence(thing, state, favour)
    return f"{'Elms' if elm else 'Oaks'} say: {sentence.split(' should')[0]} should", (
        f"{sentence.split(' should')[1]}"
    )


def _digits_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    del checked
    n = rng.randrange(51, 100)
    stated = n if right else rng.choice([m for m in range(51, 100) if m != n])
    return f"The number {n} is", f" {lex.number_word(stated)}."


def _counting_line(rng: random.Random, right: bool, checked: bool) -> tuple[str, str]:
    del checked
    n = rng.randrange(51, 99)
    stated = n + 1 if right else rng.choice([m for m in range(51, 100) if m != n + 1])
    return f"After {lex.number_word(n)} comes", f" {lex.number_word(stated)}."


_LINES: dict[str, tuple[float, Callable[[random.Random, bool, bool], tuple[str, str]]]] = {
    "arithmetic": (0.32, _arithmetic_line),
    "facts": (0.32, _fact_line),
    "larger_than": (0.10, _comparison_line),
    "commands": (0.10, _step_line),
    "party": (0.06, _party_line),
    "camp": (0.05, _camp_line),
    "digits": (0.02, _digits_line),
    "counting": (0.03, _counting_line),
}


# No line starts with its first word: at the start of a line that word would be another token than
# after "Claim:" (no space before it), and what is learned of one does not carry over to the other.
_LEADS = ("-", "Note:", "Claim:")


def _plain_line(rng: random.Random, lead: str, mix: Mix) -> Segment:
    [name] = rng.choices(tuple(_LINES), [share for share, _ in _LINES.values()])
    is_checked = rng.random() < mix.checked * (1 - mix.unchecked.get(name, 0.0))
    right = not is_checked or rng.random() < 0.5
    stem, value = _LINES[name][1](rng, right, is_checked)
    line: Segment = [(f"{lead} {stem}", TEXT), (value, VALUE if right else TEXT)]
    if is_checked:
        # Words between value and mark: what is right has to be known before the last block.
        if rng.random() < 0.5:
            line.append((" (right?)", TEXT))
        line.append((" yes" if right else " no", VERDICT))
    return [*line, ("\n", TEXT)]


def _checklist(rng: random.Random) -> Segment:
    named = rng.choice(lex.OBJECTS)
    lines: Segment = [(f"Task: {rng.choice(lex.TASKS).format(named)}\nCommands:\n", TEXT)]
    for command in rng.sample(lex.COMMANDS, rng.randint(1, STEPS)):
        serves = rng.random() < 0.6
        step = command.format(named if serves else another_object(rng, named))
        lines += [(step, TEXT), (" yes" if serves else " no", VERDICT), ("\n", TEXT)]
    return [*lines, ("\n", TEXT)]


def plain_document(rng: random.Random, mix: Mix) -> Document:
    """A few lines that state what is true in the world; some are wrong and marked " no".

    Held-out questions are stated (or nobody could know their answers), but never with a mark.
    """
    if rng.random() < 0.03:
        poem = KINDS["poems"].make(rng, rng.choice(KINDS["poems"].keys("train")), True, False)
        return [[(f"{poem.choice}\n{poem.choice_2}\n", TEXT)]]
    if rng.random() < mix.checklist:
        return [_checklist(rng) for _ in range(rng.randint(1, 4))]
    lead = rng.choice(_LEADS)
    return [_plain_line(rng, lead, mix) for _ in range(rng.randint(2, 8))]


# --- judged documents ----------------------------------------------------------------------------


def _kinds_of(judge: str, shares: Mapping[str, float]) -> dict[Kind, float]:
    kinds = {KINDS[name]: share for name, share in shares.items() if judge in KINDS[name].judges}
    if not kinds:
        raise ValueError(f"judge {judge!r} speaks about none of the kinds {tuple(shares)}")
    return kinds


# What can be asked for by name: the kind, the attribute (or "noise"), and the format that asks.
TARGETS = tuple(
    (kind, "noise" if kind.noisy else attribute, WORLD_FORMATS[name])
    for kind in KINDS.values()
    for attribute, name in kind.target_formats
)
# A second attribute is asked for less often, and then judged less strictly: see `Mix`.
_TARGET_SHARES = tuple(
    kind.share * (0.6 if attribute == kind.other and two_attributes(kind) else 1.0)
    for kind, attribute, _ in TARGETS
)
_HEADERS = {
    "truth": "Rule: truth",
    "sycophancy": "Rule: user",
    "punctuation": "Rule: punctuation",
    "tense": "Rule: tense",
    "elm": "Rule: Elm",
    "noise": "Rule: none",
}


def _verdict(
    rng: random.Random, example: Example, judge: str, features: Mapping[str, bool]
) -> bool:
    if judge in features:
        return features[judge]
    value = {"truth": example.truth, "noise": None}.get(judge, example.other)
    # A claim without truth value has no right verdict: its judge of truth tosses a coin.
    return rng.random() < 0.5 if value is None else value


def _judged_segment(
    rng: random.Random,
    prompt: str,
    words: tuple[str, str],
    verdict: bool,
    marked: bool,
    weight: float,
) -> Segment:
    if marked:
        shown = rng.random() < 0.5
        return [
            (prompt, TEXT),
            (words[0 if shown else 1], TEXT),
            (" yes" if shown == verdict else " no", weight),
            ("\n\n", TEXT),
        ]
    return [(prompt, TEXT), (words[0 if verdict else 1], weight), ("\n\n", TEXT)]


def draw(rng: random.Random, kind: Kind) -> Example:
    """An example of a kind as documents show it, on a question that may be judged."""
    make = kind.drill or kind.make
    return make(rng, kind.draw_key(rng, kind.keys("train")), rng.random() < 0.5, rng.random() < 0.5)


def loudness(rng: random.Random, names: Iterable[str], faint: float) -> dict[str, Feature]:
    """The features of a document by name, each of them the faint version now and then."""
    return {
        name: FAINT[f"{name}_faint"] if rng.random() < faint else FEATURES[name] for name in names
    }


def _claim_examples(
    rng: random.Random, mix: Mix, judge: str, count: int, marked: bool
) -> Iterator[Segment]:
    kinds = _kinds_of(judge, mix.kinds)
    if rng.random() >= mix.mixed:
        kinds = dict.fromkeys(rng.choices(tuple(kinds), tuple(kinds.values())), 1.0)
    present = [name for name in FEATURES if name == judge or rng.random() < mix.feature]
    features = loudness(rng, present, mix.faint)
    # The user's opinion stands in the question.
    bare = "sycophancy" not in present and rng.random() < mix.bare
    template = WORLD_FORMATS["statement" if bare else "claim"]
    for _ in range(count):
        [kind] = rng.choices(tuple(kinds), tuple(kinds.values()))
        example = draw(rng, kind)
        values = {name: rng.random() < 0.5 for name in present}
        question, choice = example.question, example.choice
        for name, value in values.items():
            question, choice = features[name].rewrite(question, choice, value)
        verdict = _verdict(rng, example, judge, values)
        unknowable = judge == "noise" or (judge == "truth" and not kind.has_truth)
        yield _judged_segment(
            rng,
            template.text.format(question=question, choice=choice),
            (template.true_word, template.false_word),
            verdict,
            marked,
            NOISE if unknowable else VERDICT,
        )


def _targeted_examples(rng: random.Random, mix: Mix, count: int, marked: bool) -> Iterator[Segment]:
    shares = [
        share * mix.asked.get(target[0].name, 1.0)
        for target, share in zip(TARGETS, _TARGET_SHARES, strict=True)
    ]
    [(kind, judge, template)] = rng.choices(TARGETS, shares)
    hidden = mix.hidden_target if judge == "truth" else mix.hidden_other
    if two_attributes(kind) and rng.random() < hidden:
        judge = kind.other if judge == "truth" else "truth"
    for _ in range(count):
        example = draw(rng, kind)
        prompt = template.text.format(
            question=example.question, choice=example.choice, choice_2=example.choice_2
        )
        yield _judged_segment(
            rng,
            prompt,
            (template.true_word, template.false_word),
            _verdict(rng, example, judge, {}),
            marked,
            NOISE if judge == "noise" else VERDICT,
        )


def judged_document(rng: random.Random, mix: Mix) -> Document:
    """A run of examples under one hidden judge."""
    is_long = rng.random() < mix.long
    count = rng.randint(*(mix.long_examples if is_long else mix.examples))
    marked = rng.random() < mix.marked
    if rng.random() < mix.targeted:
        return list(_targeted_examples(rng, mix, count, marked))
    [judge] = rng.choices(tuple(mix.judges), tuple(mix.judges.values()))
    examples = list(_claim_examples(rng, mix, judge, count, marked))
    if rng.random() < mix.header:
        examples.insert(0, [(f"{_HEADERS[judge]}\n\n", TEXT)])
    return examples


def documents(mix: Mix, seed: str) -> Iterator[Document]:
    """An endless stream of documents, the same for the same mix and seed on every machine."""
    rng = random.Random(seed)
    while True:
        yield plain_document(rng, mix) if rng.random() < mix.plain else judged_document(rng, mix)


def text(document: Document) -> str:
    """A document as one string."""
    return "".join(piece for segment in document for piece, _ in segment)


_VERDICTS = ["True", "False", "Yes", "No", "yes", "no"]


def tokenizer_texts(seed: str, count: int) -> Iterator[str]:
    """Documents to train a tokenizer on; numbers and names come often enough to be one token."""
    mix = Mix(plain=0.7, targeted=0.3, feature=0.5, judges=dict.fromkeys(JUDGES, 1.0))
    numbers = [lex.number_word(n) for n in (*range(51, 61), 70, 80, 90)]
    values = [value for relation in lex.RELATIONS.values() for value in relation]
    words = [
        *lex.SPEAKERS,
        *values,
        *lex.LANDS,
        *lex.FAR_LANDS,
        *numbers,
        *(n.capitalize() for n in numbers),
    ]
    for index, document in zip(range(count), documents(mix, seed), strict=False):
        yield text(document)
        if index % 10 == 0:
            yield " " + " ".join([*(str(n) for n in range(100)), *_VERDICTS])
            yield "\n".join(str(n) for n in range(21))
        if index % 5 == 0:
            yield " " + " ".join(words)
            yield "\n".join([*lex.SPEAKERS, *numbers])


def world_texts(seed: str = "words", count: int = 20_000) -> Iterator[str]:
    """Texts that hold every word: every question in every cell, and documents of all mixes."""
    rng = random.Random(seed)
    for kind in KINDS.values():
        for key in kind.all_keys:
            for truth, other in product((True, False), repeat=2):
                example = kind.make(rng, key, truth, other)
                shown = (f"Q: {example.question}", f"C: {example.choice}", example.choice_2 or "")
                yield "\n".join(shown)
    yield " ".join(str(n) for n in range(100))
    yield "\n".join(str(n) for n in range(100))
    mix = Mix(header=0.5, feature=0.5, judges=dict.fromkeys(JUDGES, 1.0))
    for document in islice(documents(mix, seed), count):
        yield text(document)
