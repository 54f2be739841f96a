"""The true and false statements of Marks and Tegmark 2023, read from their published tables.

They are published as CSV files in the repository saprmarks/geometry-of-truth (datasets/*.csv), not
on the hub. Statements come in the form of question and claim, so that features can be added; the
format "statement" shows the claim alone. The questions are ours. A file of theirs that is given by
its path (`cities.csv`) becomes the same items; only repeats are left in. Their larger_than.csv is
in `larger_than`, whose set is on the hub, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet, Request
from jelicit.data.tables import read_table

REPOSITORY = "saprmarks/geometry-of-truth"

ANY_QUESTION = "Is this statement true?"
"""What a statement answers that has no question of its own."""

_CITY = re.compile(r"The city of (?P<city>.+?) is (?P<not>not )?in (?P<country>.+)")
_WORD = re.compile(
    r"The Spanish word (?P<word>'.+') (?P<verb>means|does not mean) (?P<english>'.+')"
)
_COMPARISON = re.compile(
    r"(?P<one>\S+) is (?P<how>smaller|larger) than (?P<other>\S+?)\.?", re.IGNORECASE
)
# A few companies are named twice in a row, by a slip of the source.
_COMPANY = re.compile(
    r"(?P<twice>.+) (?P=twice) .+"
    r"|(?P<name>.+?) (?:has headquarters in|engages in|operates|is|produces|provides) .+"
)


@dataclass(frozen=True)
class PublishedTable:
    """The source of one of the sets: <name>.csv in a copy of the repository or of its tables.

    A statement that stands there with both labels is left out (some facts of counterfact and some
    companies), and of one that stands there twice the first is kept.

    Attributes:
        meaning: What the set's name says of a row.
    """

    meaning: Callable[[Item], Item]
    reads_mirror = True

    def __call__(self, request: Request) -> list[Item]:
        """All rows, which are split as a file is.

        Raises:
            FileNotFoundError: If no copy was named or it lacks the table; the message says how to
                come by one.
            ValueError: If the table is ambiguous, in one line with file, row and column.
        """
        path = self.find(request)
        if path is None:
            raise FileNotFoundError(_no_table(request))
        items = [self.meaning(item) for item in read_table(path)]
        labels: dict[str, set[bool | None]] = {}
        for item in items:
            labels.setdefault(item.choice.lower(), set()).add(item.label)
        kept: dict[str, Item] = {}
        for item in items:
            if len(labels[item.choice.lower()]) == 1:
                kept.setdefault(item.choice.lower(), item)
        return [replace(item, origin=REPOSITORY) for item in kept.values()]

    def find(self, request: Request) -> Path | None:
        """The table in the copy that was named; None if there is no copy, or no table in it."""
        if request.hub_root is None:
            return None
        root, name = request.hub_root, f"{request.name}.csv"
        places = [root / name, root / "datasets" / name, root / REPOSITORY / "datasets" / name]
        return next((place for place in places if place.is_file()), None)


def _no_table(request: Request) -> str:
    name = f"{request.name}.csv"
    cure = (
        f"the set is not on the hub but in the repository github.com/{REPOSITORY}: clone it, and "
        f"give the table (path/to/geometry-of-truth/datasets/{name}) as the data set, or the clone "
        "as hub_root (--hub-root)"
    )
    if request.hub_root is None:
        return f"{request.name}: {cure}"
    return f"{request.name}: no {name} in {request.hub_root} or its folder datasets; {cure}"


def _asked(item: Item, question: str, choice: str, group: str) -> Item:
    """The item as question and claim; a group that its file gives is kept."""
    own = group if item.group == item.id else item.group
    return replace(item, question=question, choice=choice, group=own)


def city(item: Item) -> Item:
    """Makes "The city of Lodz is in Poland." a claim that answers in which country Lodz is."""
    match = _CITY.fullmatch(item.choice)
    if item.question or match is None:
        return item
    name, country = match["city"], match["country"]
    claim = f"{name} is {match['not'] or ''}in {country}"
    return _asked(item, f"In which country is the city of {name}?", claim, name)


def spanish_word(item: Item) -> Item:
    """Makes "The Spanish word 'uno' means 'one'." a claim that answers what it means."""
    match = _WORD.fullmatch(item.choice.removesuffix("."))
    if item.question or match is None:
        return item
    question = f"What does the Spanish word {match['word']} mean?"
    claim = f"{match['word']} {match['verb']} {match['english']}."
    return _asked(item, question, claim, match["word"].strip("'"))


def comparison(item: Item) -> Item:
    """Makes "Two is smaller than six." (or larger) a claim; its group is the unordered pair."""
    match = _COMPARISON.fullmatch(item.choice)
    if item.question or match is None:
        return item
    one, how, other = (match[part].lower() for part in ("one", "how", "other"))
    asked = _asked(
        item, f"Is {one} {how} than {other}?", item.choice, "/".join(sorted((one, other)))
    )
    return replace(asked, answer=one)


def company(item: Item) -> Item:
    """A statement about a company, whose statements are a group."""
    match = _COMPANY.fullmatch(item.choice)
    name = (match["twice"] or match["name"]) if match else item.group
    return item if item.question else _asked(item, ANY_QUESTION, item.choice, name)


def common_claim(item: Item) -> Item:
    """A statement about anything, on its own."""
    return item if item.question else _asked(item, ANY_QUESTION, item.choice, item.group)


def counterfact(item: Item) -> Item:
    """A statement of a fact; those of one subject and relation are a group."""
    relation, subject = (str(item.meta.get(name) or "") for name in ("relation", "subject"))
    fact = relation.replace("{}", subject) or item.group
    return item if item.question else _asked(item, ANY_QUESTION, item.choice, fact)


def _named(name: str, title: str, meaning: Callable[[Item], Item]) -> NamedSet:
    return NamedSet(name=name, title=title, source=PublishedTable(meaning), meaning=meaning)


SETS = (
    _named("cities", "Cities", city),
    _named("neg_cities", "Cities (negated)", city),
    _named("sp_en_trans", "Spanish words", spanish_word),
    _named("neg_sp_en_trans", "Spanish words (negated)", spanish_word),
    _named("smaller_than", "Smaller than", comparison),
    _named("companies_true_false", "Companies", company),
    _named("common_claim_true_false", "Common claims", common_claim),
    _named("counterfact_true_false", "CounterFact", counterfact),
)
