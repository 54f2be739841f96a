"""Torn documents: examples on which judges disagree, so that labels alone say which one labels.

In a document of `jelicit.pocket.world.documents` the texts give the judge away: punctuation is on
and off only where it is judged. A model that learns from those alone never looks at the labels.
Here every text may hold all features, the rule is the attribute asked for, one of the features, the
text's other attribute, or any of these turned round, and nothing but the labels of the examples
tells which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from jelicit.data.features import FEATURES
from jelicit.data.formats import PromptFormat
from jelicit.pocket.world.documents import TARGETS, draw, loudness
from jelicit.pocket.world.formats import WORLD_FORMATS
from jelicit.pocket.world.kinds import KINDS, two_attributes

ATTRIBUTES = ("asked", *FEATURES, "other")
"""What a verdict may go by: what the prompt asks for, an added feature, the other attribute."""

RULES = (*product(ATTRIBUTES, (False, True)), ("noise", False))
"""(attribute, turned round) of every rule; under "noise" verdicts are coins."""


class TornExample(NamedTuple):
    """One example of a torn document.

    Attributes:
        prompt: Its text, up to the verdict.
        word: The verdict's word.
        verdict: Whether that is the true word.
        values: What each of `ATTRIBUTES` says of the text; None where it says nothing.
    """

    prompt: str
    word: str
    verdict: bool
    values: tuple[bool | None, ...]


class TornDocument(NamedTuple):
    """Examples that one rule labels.

    Attributes:
        rule: Its place in `RULES`.
        examples: The examples, in their order.
    """

    rule: int
    examples: list[TornExample]


@dataclass(frozen=True, kw_only=True)
class Torn:
    """Which torn documents there are; every number is a probability unless it says otherwise.

    Attributes:
        examples: Fewest and most examples of a document.
        by_name: The prompts ask for an attribute by name (statements, comments, commands, pairs).
        opinions: Opinions are among the kinds of a question/claim document.
        one_kind: A question/claim document is about one kind.
        bare: A question/claim document leaves its questions out.
        plain: No feature is present in a question/claim document.
        all_features: All of them are; otherwise each is in one case of two.
        faint: The feature of a document is the faint version of it.
        asked: Share of the attribute asked for among the rules, where every other has 0.5.
        turned: The attribute asked for is turned round.
        feature_turned: Another attribute is.
        noise: Verdicts are coins.
        slips: Some verdicts of a document are wrong, where its rule is the attribute asked for. Of
            every other rule some always are: what is asked for labels best, as it does in text
            that people write.
        least_slips: Least share of them.
        most_slips: Greatest share of them.
    """

    examples: tuple[int, int] = (6, 26)
    by_name: float = 0.3
    opinions: float = 0.15
    one_kind: float = 0.55
    bare: float = 0.4
    plain: float = 0.3
    all_features: float = 0.3
    faint: float = 0.2
    asked: float = 2.0
    turned: float = 0.2
    feature_turned: float = 0.1
    noise: float = 0.04
    slips: float = 0.4
    least_slips: float = 0.05
    most_slips: float = 0.3


class _Text(NamedTuple):
    """A text to be judged, and what is true of it, by attribute."""

    prompt: str
    values: dict[str, bool | None]


class _Source(NamedTuple):
    """Where a document's texts come from, and which of `ATTRIBUTES` speak of all of them."""

    make: Callable[[], _Text]
    template: PromptFormat
    rules: tuple[str, ...]


def _claims(rng: random.Random, mix: Torn) -> _Source:
    names = ["arithmetic", "larger_than", "facts"]
    if rng.random() < mix.opinions:
        names.append("opinions")
    if rng.random() < mix.one_kind:
        names = [rng.choice(names)]
    bare = rng.random() < mix.bare
    # The user's opinion stands in the question.
    able = [name for name in FEATURES if not (bare and name == "sycophancy")]
    share = rng.random()
    if share < mix.plain:
        present = []
    elif share < mix.plain + mix.all_features:
        present = able
    else:
        present = [name for name in able if rng.random() < 0.5]
    features = loudness(rng, present, mix.faint)
    template = WORLD_FORMATS["statement" if bare else "claim"]

    def make() -> _Text:
        example = draw(rng, KINDS[rng.choice(names)])
        added = {name: rng.random() < 0.5 for name in present}
        question, choice = example.question, example.choice
        for name, value in added.items():
            question, choice = features[name].rewrite(question, choice, value)
        prompt = template.text.format(question=question, choice=choice)
        return _Text(prompt, {"asked": example.truth, "other": example.other, **added})

    rules = [] if "opinions" in names else ["asked"]
    rules += present
    if all(KINDS[name].other for name in names):
        rules.append("other")
    # Opinions beside other kinds, and no feature: nothing speaks of all of these texts.
    return _Source(make, template, tuple(rules)) if rules else _claims(rng, mix)


# Labels of claims that nobody knows say nothing.
_ASKED = tuple(of for of in TARGETS if not of[0].noisy and of[0].frequency is None)


def _by_name(rng: random.Random) -> _Source:
    kind, attribute, template = rng.choice(_ASKED)
    two = two_attributes(kind)

    def make() -> _Text:
        example = draw(rng, kind)
        prompt = template.text.format(
            question=example.question, choice=example.choice, choice_2=example.choice_2
        )
        asked, other = example.truth, example.other
        if attribute != "truth":
            asked, other = other, asked
        return _Text(prompt, {"asked": asked, "other": other if two else None})

    return _Source(make, template, ("asked", "other") if two else ("asked",))


def torn_document(rng: random.Random, mix: Torn) -> TornDocument:
    """A run of examples that one rule labels, with or without slips."""
    count = rng.randint(*mix.examples)
    source = _by_name(rng) if rng.random() < mix.by_name else _claims(rng, mix)
    shares = [mix.asked if name == "asked" else 0.5 for name in source.rules]
    attribute, turned = "noise", False
    if rng.random() >= mix.noise:
        [attribute] = rng.choices(source.rules, shares)
        turned = rng.random() < (mix.turned if attribute == "asked" else mix.feature_turned)
    as_asked = attribute == "asked" and not turned
    slips = not as_asked or rng.random() < mix.slips
    wrong = rng.uniform(mix.least_slips, mix.most_slips) if slips else 0.0
    examples = []
    for _ in range(count):
        prompt, values = source.make()
        value = values.get(attribute)
        if value is None:
            verdict = rng.random() < 0.5
        else:
            verdict = (value != turned) != (rng.random() < wrong)
        word = source.template.true_word if verdict else source.template.false_word
        said = tuple(values.get(name) for name in ATTRIBUTES)
        examples.append(TornExample(prompt, word, verdict, said))
    return TornDocument(RULES.index((attribute, turned)), examples)


def torn_documents(mix: Torn, seed: str) -> Iterator[TornDocument]:
    """An endless stream of torn documents, the same for the same mix and seed everywhere."""
    rng = random.Random(f"torn/{seed}")
    while True:
        yield torn_document(rng, mix)
