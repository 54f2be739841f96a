"""The words of the pocket world and the tables of what is true in it.

Everything here is fixed by ``WORLD_SEED``: two processes, on any machine, agree on which town is
the capital of which land, which party a speaker belongs to and which questions are held out.
Changing a word changes the world, and with it every model trained on it.
"""

from __future__ import annotations

import hashlib
import random

WORLD_SEED = 2026
# Of facts few are held out: a model that judges most of what it knows learns to judge the rest too.
TEST_SHARE = {"facts": 0.08, "far_facts": 0.3}
OTHER_TEST_SHARE = 0.12


def _phrases(text: str) -> list[str]:
    return "".join(line.strip() for line in text.splitlines()).split("|")


ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TENS = {50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety"}

ANIMALS = [
    "cat",
    "dog",
    "horse",
    "cow",
    "sheep",
    "goat",
    "pig",
    "hen",
]
DISHES = [
    "bread",
    "soup",
    "rice",
    "cheese",
    "honey",
    "pasta",
    "beans",
    "salad",
    "stew",
    "cake",
    "pie",
    "jam",
    "toast",
    "curry",
    "plums",
    "pears",
]
COLOURS = [
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "grey",
    "brown",
]
SPEAKERS = [
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Ellen",
    "Frank",
    "Greta",
    "Henry",
    "Irene",
    "Jacob",
    "Karen",
    "Louis",
    "Maria",
    "Nils",
    "Olga",
    "Peter",
    "Queenie",
    "Robert",
    "Sarah",
    "Thomas",
    "Ursula",
    "Victor",
    "Wanda",
    "Xavier",
]

THINGS = [
    "bridge",
    "market",
    "school",
    "harbour",
    "library",
    "road",
    "tower",
    "garden",
    "museum",
    "theatre",
    "station",
    "square",
    "mill",
    "well",
    "ferry",
    "bakery",
    "park",
    "canal",
    "castle",
    "stable",
]
STATES = [
    "free",
    "closed",
    "rebuilt",
    "public",
    "painted",
    "guarded",
    "moved",
    "quiet",
    "shared",
    "lit",
    "sold",
    "renamed",
]

RUDE = _phrases("""
    you fool|what a silly idea|only a donkey thinks so|shut your mouth|you are a clown|
    nobody asked you|go away now|this is rubbish|your brain is asleep|how stupid|get lost|
    you liar|what a mess you are|stop wasting air|you know nothing|learn to read
""")
POLITE = _phrases("""
    thank you|what a fine idea|only a friend thinks so|rest your feet|you are a gem|
    everybody heard you|come back soon|this is lovely|your mind is awake|how clever|take care|
    you hero|what a help you are|keep sharing this|you know plenty|happy to read
""")
TOPICS = _phrases("""
    the rain|the train|the clock|the song|the house|the match|the walk|the wind|the paint|
    the ship|the play|the letter|the stars|the snow|the radio|the map
""")
OPENERS = _phrases("""
    I read about {}|They wrote of {}|We talked about {}|She went on about {}|
    He asked about {}|All this about {}
""")

OBJECTS = [
    "photos",
    "logs",
    "mail",
    "music",
    "backups",
    "users",
    "printers",
    "clocks",
    "tables",
    "pages",
    "keys",
    "fonts",
]
COMMANDS = _phrases("""
    list {}|copy {} /disk|pack {}|check {}|count {}|sort {}|find old {}|move {} /new|
    print {} --short|lock {}|open {}|sync {} --all
""")
TASKS = _phrases("""
    tidy the {}|back up the {}|look after the {}|repair the {}|review the {}|prepare the {}
""")

SUN = _phrases("""
    the sun climbs|daylight pours down|noon is blazing|a golden disc rises|dawn breaks bright|
    the day star glows|sunbeams dance|sunset burns low|sunrise comes soft|midday fire shines|
    a solar flame wakes|rays fill the air|sunlight rests|a sunny hour begins|
    the morning blaze lifts|sunshine falls|the great lamp of heaven hangs|a sundial counts
""")
SKY = _phrases("""
    the moon climbs|darkness pours down|night is cooling|a silver coin rises|fog breaks grey|
    the ice cloud drifts|shadows dance|mist burns low|thunder comes soft|evening frost bites|
    a winter gust wakes|clouds fill the air|starlight rests|a stormy hour begins|
    the midnight rain lifts|hail falls|the pale lamp of heaven hangs|a raindrop counts
""")
LINES = _phrases("""
    over the quiet hill|beside the old mill|while the river sleeps|where the tall grass leans|
    and the birds fly home|as the children sing|near the wooden gate|under the wide sky|
    and nobody speaks|along the sandy shore
""")
VERSES = _phrases("""
    the leaves turn slowly|a boat drifts by|my heart is light|the path is long|
    an owl looks on|the harvest waits|the bells ring twice|a door stays open
""")


def number_word(n: int) -> str:
    """The English word of a number from 51 to 99, as larger_than writes it ("sixty-one")."""
    tens, ones = n - n % 10, n % 10
    return TENS[tens] if ones == 0 else f"{TENS[tens]}-{ONES[ones - 1]}"


def held_out(*key: object) -> bool:
    """Whether a question is held out of every judged example of pretraining."""
    text = repr((WORLD_SEED, key)).encode()
    share = TEST_SHARE.get(str(key[0]), OTHER_TEST_SHARE)
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") < share * 2**64


def _syllable_names(count: int, endings: tuple[str, ...], rng: random.Random) -> list[str]:
    names: set[str] = set()
    while len(names) < count:
        names.add(rng.choice("BDFGKLMPRSTVZ") + rng.choice("aeiou") + rng.choice(endings))
    return sorted(names)


_RNG = random.Random(WORLD_SEED)
LAND_ENDINGS = ("ra", "lo", "mi", "ku", "ne", "sta", "vo", "pi")
LANDS = _syllable_names(80, LAND_ENDINGS, _RNG)
TOWNS = _syllable_names(8, ("lton", "rburg", "nford"), _RNG)

# Few values for many lands: with two or three lands to a value a model learns by heart which pairs
# are right, and nothing about lands that were never judged.
RELATIONS: dict[str, list[str]] = {
    "capital": TOWNS,
    "animal": ANIMALS,
    "dish": DISHES[:8],
    "colour": COLOURS,
}


def _true_values(lands: list[str]) -> dict[tuple[str, str], str]:
    """Relation and land -> value, every value used about equally often within its relation."""
    table = {}
    for relation, values in RELATIONS.items():
        deck: list[str] = []
        for land in lands:
            if not deck:
                deck = _RNG.sample(values, len(values))
            table[relation, land] = deck.pop()
    return table


def _falling(count: int, first: float, last: float) -> list[float]:
    """Numbers from first to last, each the same share of the one before."""
    return [first * (last / first) ** (step / (count - 1)) for step in range(count)]


FACTS: dict[tuple[str, str], str] = _true_values(LANDS)
ELMS = frozenset(_RNG.sample(SPEAKERS, len(SPEAKERS) // 2))
PROPOSITIONS = [(thing, state) for thing in THINGS for state in STATES]
# A camp has a programme: Elms want half of the states, for whatever thing, and Oaks the others.
# So an opinion never judged before still belongs to a camp.
ELM_STATES = frozenset(_RNG.sample(STATES, len(STATES) // 2))
ELM_FAVOURS = {(thing, state): state in ELM_STATES for thing, state in PROPOSITIONS}

FAR_LANDS = _RNG.sample(
    [name for name in _syllable_names(160, LAND_ENDINGS, _RNG) if name not in LANDS], 40
)
"""Lands that the world seldom speaks of: their truth is known well, half, or not at all."""

NEAREST, FARTHEST = 0.3, 0.01
FREQUENCY = dict(zip(FAR_LANDS, _falling(len(FAR_LANDS), NEAREST, FARTHEST), strict=True))
"""How often a line states something of a far land, where it states the same of any other once."""

FAR_FACTS = _true_values(FAR_LANDS)
