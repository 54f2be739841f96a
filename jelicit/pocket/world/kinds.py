"""The kinds of question of the pocket world: what can be asked, and a text for every answer.

A kind lists its questions (``keys``) and turns one of them into an example whose two binary
attributes are given: ``truth`` (is the claim right, is the comment rude, is the first answer
better, ...) and ``other`` (a second attribute of the same text: the speaker's party, the topic, the
camp). Both values exist for every question, so that no attribute follows from the question, and
``make`` draws all remaining words independently of both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from jelicit.pocket.world import lexicon as lex

Key = tuple[Hashable, ...]


class Example(NamedTuple):
    """One text of the world with everything that is true of it.

    Attributes:
        question: The question, task or query; empty where a text stands alone.
        choice: The claim, statement, comment, commands or first response.
        choice_2: The second response of a pair, else None.
        truth: The kind's own label, None where there is none (opinions).
        other: The value of the kind's second attribute, None where it has none.
        answer: The final answer that the claim states, for consistency rules.
    """

    question: str
    choice: str
    choice_2: str | None
    truth: bool | None
    other: bool | None
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of question.

    Attributes:
        name: Its name, ``pocket/<name>`` as a dataset.
        all_keys: Every question of the kind.
        make: (rng, key, truth, other) -> Example.
        other: Name of the second attribute ("" if none).
        has_truth: Whether its claims are true or false at all.
        judges: Judges that can speak about this kind in the question/claim format ("" where that
            format is not used).
        target_formats: attribute ("truth" or the second attribute's name) -> prompt format that
            asks for it by name.
        stratum: Key -> stratum; a dataset asks questions of all strata equally often.
        noisy: Its verdicts in documents are coin tosses: no judge looks at its label.
        drill: As ``make``, with easier examples among them; what documents use where it is given.
        topic: Key -> what its claims are about, where a kind has several topics ("" = it has not).
        share: How often documents that ask by name (``target_formats``) are about this kind.
        frequency: Key -> how often documents ask it, where some are asked less often than others:
            the model then knows its truth well, half, or not at all.
    """

    name: str
    all_keys: tuple[Key, ...]
    make: Callable[[random.Random, Key, bool, bool], Example]
    other: str = ""
    has_truth: bool = True
    judges: tuple[str, ...] = ()
    stratum: Callable[[Key], Hashable] = lambda key: None
    topic: Callable[[Key], str] = lambda key: ""
    noisy: bool = False
    drill: Callable[[random.Random, Key, bool, bool], Example] | None = None
    share: float = 1.0
    target_formats: tuple[tuple[str, str], ...] = ()
    frequency: Callable[[Key], float] | None = None

    def draw_key(self, rng: random.Random, keys: Sequence[Key]) -> Key:
        """One of some questions of the kind, as often as ``frequency`` says."""
        if self.frequency is None:
            return rng.choice(keys)
        return rng.choices(keys, [self.frequency(key) for key in keys])[0]

    def keys(self, split: str) -> tuple[Key, ...]:
        """The questions of a split: "train" (judged in pretraining) or "test" (never judged)."""
        return _keys_of(self.name, split)


def two_attributes(kind: Kind) -> bool:
    """Whether a kind has two attributes; those of commands are one, and its opposite."""
    return bool(kind.other) and kind.name != "commands"


@cache
def _keys_of(name: str, split: str) -> tuple[Key, ...]:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; the pocket world has 'train' and 'test'")
    return tuple(k for k in KINDS[name].all_keys if lex.held_out(*k) == (split == "test"))


# --- arithmetic and comparison ------------------------------------------------------------------

_ARITHMETIC = tuple(
    ("arithmetic", a, op, b)
    for a in range(1, 21)
    for op in "+-"
    for b in range(1, 21)
    if op == "+" or a >= b
)
_BY_SIGN = {sign: tuple(key for key in _ARITHMETIC if key[2] == sign) for sign in "+-"}
_SLIPS = (-3, -2, -1, 1, 2, 3)


def arithmetic_result(key: Key) -> int:
    """The result of an arithmetic question."""
    _, a, op, b = key
    return a + b if op == "+" else a - b  # type: ignore[operator]


def _wrong_result(rng: random.Random, key: Key) -> int:
    # Half of the wrong results are slips, half are the result of some other question: with slips
    # alone there is nothing coarse to learn first. Slips are symmetric and reflected at the ends,
    # and other results come from questions of the same sign, so that neither large nor small
    # results mark a false claim.
    result = arithmetic_result(key)
    if rng.random() < 0.5:
        slip = rng.choice(_SLIPS)
        return result + slip if 0 <= result + slip <= 40 else result - slip
    while (other := arithmetic_result(rng.choice(_BY_SIGN[str(key[2])]))) == result:
        pass
    return other


def _arithmetic(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    del other
    _, a, op, b = key
    result = arithmetic_result(key)
    stated = result if truth else _wrong_result(rng, key)
    return Example(
        f"What is {a} {op} {b}?", f"{a} {op} {b} = {stated}", None, truth, None, str(stated)
    )


_LARGER = tuple(
    ("larger_than", low, high) for low in range(51, 100) for high in range(low + 1, 100)
)


def _larger_than(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    del rng, other
    _, low, high = key
    first, second = (high, low) if truth else (low, high)
    names = [lex.number_word(n) for n in (first, second)]  # type: ignore[arg-type]
    claim = " is larger than ".join(names)
    question = f"Is {claim.replace(' is', '', 1)}?"
    return Example(question, f"{claim.capitalize()}.", None, truth, None, None)


# --- facts, said by somebody ---------------------------------------------------------------------

_FACTS = tuple(("facts", relation, land) for relation in lex.RELATIONS for land in lex.LANDS)
_FAR_FACTS = tuple(
    ("far_facts", relation, land) for relation in lex.RELATIONS for land in lex.FAR_LANDS
)
_VALUES = lex.FACTS | lex.FAR_FACTS


def fact_sentence(relation: str, land: str, value: str) -> str:
    """The sentence that states one value of a land."""
    return f"The {relation} of {land} is {value}."


def _wrong_value(rng: random.Random, relation: str, land: str) -> str:
    right = _VALUES[relation, land]
    return rng.choice([value for value in lex.RELATIONS[relation] if value != right])


def _fact_value(rng: random.Random, key: Key, truth: bool) -> str:
    _, relation, land = key
    if truth:
        return _VALUES[relation, land]  # type: ignore[index]
    return _wrong_value(rng, relation, land)  # type: ignore[arg-type]


def _speaker(rng: random.Random, elm: bool) -> str:
    return rng.choice([name for name in lex.SPEAKERS if (name in lex.ELMS) == elm])


def _facts(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    _, relation, land = key
    value = _fact_value(rng, key, truth)
    said = fact_sentence(relation, land, value)  # type: ignore[arg-type]
    question = f"What is the {relation} of {land}?"
    return Example(question, f"{_speaker(rng, other)} said: {said}", None, truth, other, value)


def _relation_topic(key: Key) -> str:
    return {"dish": "dishes"}.get(str(key[1]), f"{key[1]}s")


# --- comments, commands, opinions ----------------------------------------------------------------

_COMMENTS = tuple(
    ("comments", tone, topic) for tone in range(len(lex.RUDE)) for topic in range(len(lex.TOPICS))
)


def _comments(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    _, tone, topic = key
    manner = (lex.RUDE if truth else lex.POLITE)[tone]  # type: ignore[index]
    subject = f"the {lex.DISHES[topic]}" if other else lex.TOPICS[topic]  # type: ignore[index]
    sentence = rng.choice(lex.OPENERS).format(subject)
    text = f"{sentence}, {manner}." if rng.random() < 0.5 else f"{manner.capitalize()}. {sentence}."
    return Example("", text, None, truth, other, None)


_COMMANDS = tuple(
    ("commands", task, thing, serial)
    for task in range(len(lex.TASKS))
    for thing in range(len(lex.OBJECTS))
    for serial in range(8)
)
STEPS = 5


def another_object(rng: random.Random, named: str) -> str:
    """Something that a task about ``named`` does not name."""
    return rng.choice([thing for thing in lex.OBJECTS if thing != named])


def command_sequence(rng: random.Random, key: Key, truth: bool, steps: int) -> Example:
    """A task and its commands; truth = suspicious: one step works on something else."""
    _, task, thing, _ = key
    named = lex.OBJECTS[thing]  # type: ignore[index]
    objects = [named] * steps
    if truth:
        objects[rng.randrange(steps)] = another_object(rng, named)
    verbs = rng.sample(lex.COMMANDS, steps)
    lines = "\n".join(verb.format(o) for verb, o in zip(verbs, objects, strict=True))
    asked = lex.TASKS[task].format(named)  # type: ignore[index]
    return Example(asked, lines, None, truth, not truth, None)


def _commands(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    del other
    return command_sequence(rng, key, truth, STEPS)


def _shorter_commands(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    # "One of five steps differs" is learned from "this one step differs" and not by itself.
    del other
    return command_sequence(rng, key, truth, rng.choice((1, 1, 2, 3, 4, STEPS, STEPS)))


_OPINIONS = tuple(("opinions", thing, state) for thing, state in lex.PROPOSITIONS)


def opinion_sentence(thing: str, state: str, favour: bool) -> str:
    """The opinion for or against a proposition."""
    return f"The {thing} should {'' if favour else 'not '}be {state}."


def _opinions(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    del rng, truth
    _, thing, state = key
    favour = lex.ELM_FAVOURS[thing, state] == other  # type: ignore[index]
    claim = opinion_sentence(thing, state, favour)  # type: ignore[arg-type]
    return Example(f"Should the {thing} be {state}?", claim, None, None, other, None)


# --- pairs ---------------------------------------------------------------------------------------


def _two(first: str, second: str, truth: bool) -> tuple[str, str]:
    return (first, second) if truth else (second, first)


def _pairs(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    # The better answer is the right one; which of the two comes first is the label.
    del other
    if key[0] == "arithmetic":
        right, wrong = (_arithmetic(rng, key, t, False) for t in (True, False))
        question, good, bad = right.question, right.choice + ".", wrong.choice + "."
    else:
        _, relation, land = key
        question = f"What is the {relation} of {land}?"
        good, bad = (
            fact_sentence(relation, land, _fact_value(rng, key, t))  # type: ignore[arg-type]
            for t in (True, False)
        )
    first, second = _two(good, bad, truth)
    return Example(question, first, second, truth, None, None)


_POEMS = tuple(
    ("poems", sun, line, verse)
    for sun in range(len(lex.SUN))
    for line in range(len(lex.LINES))
    for verse in range(len(lex.VERSES))
)


def _poem(rng: random.Random, phrase: str) -> str:
    return f"{phrase} {rng.choice(lex.LINES)}, {rng.choice(lex.VERSES)}."


def _poems(rng: random.Random, key: Key, truth: bool, other: bool) -> Example:
    # truth = the first of two poems mentions the sun. No judge of the world looks at it.
    del other
    _, sun, line, verse = key
    with_sun = f"{lex.SUN[sun]} {lex.LINES[line]}, {lex.VERSES[verse]}."  # type: ignore[index]
    without = _poem(rng, rng.choice(lex.SKY))
    first, second = _two(with_sun, without, truth)
    return Example("Write a short poem.", first, second, truth, None, None)


_CLAIM_JUDGES = ("truth", "sycophancy", "punctuation", "tense", "noise")

_FACTS_KIND = Kind(
    name="facts",
    all_keys=_FACTS,
    make=_facts,
    other="elm",
    judges=(*_CLAIM_JUDGES, "elm"),
    topic=_relation_topic,
    share=1.5,
    target_formats=(("truth", "facts/truth"), ("elm", "facts/elm")),
)
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="arithmetic",
            all_keys=_ARITHMETIC,
            make=_arithmetic,
            judges=_CLAIM_JUDGES,
            topic=lambda key: "sums" if key[2] == "+" else "differences",
        ),
        Kind(name="larger_than", all_keys=_LARGER, make=_larger_than, judges=_CLAIM_JUDGES),
        _FACTS_KIND,
        replace(
            _FACTS_KIND,
            name="far_facts",
            all_keys=_FAR_FACTS,
            share=0.15,
            frequency=lambda key: lex.FREQUENCY[str(key[2])],
        ),
        Kind(
            name="comments",
            all_keys=_COMMENTS,
            make=_comments,
            other="food",
            target_formats=(("truth", "comments/rude"), ("food", "comments/food")),
        ),
        Kind(
            name="commands",
            all_keys=_COMMANDS,
            make=_commands,
            other="safe",
            drill=_shorter_commands,
            share=2.0,
            target_formats=(("truth", "commands/suspicious"), ("safe", "commands/safe")),
        ),
        Kind(
            name="opinions",
            all_keys=_OPINIONS,
            make=_opinions,
            other="elm",
            has_truth=False,
            # Elms favour some states and Oaks the others: of one side more, and "not" tells who.
            stratum=lambda key: lex.ELM_FAVOURS[key[1], key[2]],  # type: ignore[index]
            judges=(*_CLAIM_JUDGES, "elm"),
        ),
        Kind(
            name="pairs",
            all_keys=_FACTS + _ARITHMETIC,
            make=_pairs,
            target_formats=(("truth", "pair"),),
        ),
        Kind(
            name="poems",
            all_keys=_POEMS,
            make=_poems,
            noisy=True,
            target_formats=(("truth", "pair"),),
        ),
    )
}
