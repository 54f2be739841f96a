"""A data set of one's own: claims about prime numbers.

    jelicit datasets docs/examples/own_set.py:PRIMES
    python experiments/salience.py --dataset docs/examples/own_set.py:PRIMES

The rows may come from anywhere: a CSV file, a database, a rule as here. Only `id`, `choice` and
`label` are needed; claims about one thing share a `group`, so that no group is both fitted on and
tested on.
"""

from jelicit.data import Item, NamedSet, PromptFormat, Request


def claims(request: Request) -> list[Item]:
    """One true and one false claim about every number; a quarter of the numbers becomes test."""
    numbers = range(2, 202)
    return [
        Item(
            id=f"{number}/{says}",
            choice=f"{number} is {'' if says else 'not '}a prime number.",
            label=says == all(number % factor for factor in range(2, number)),
            alt_labels={"even": number % 2 == 0},
            group=str(number),
        )
        for number in numbers
        for says in (True, False)
    ]


PRIMES = NamedSet(
    name="primes",
    title="Prime numbers",
    source=claims,
    formats={
        "label": PromptFormat(name="primes/truth", text="Mathematics: {choice}\nThis is"),
    },
    easy="pocket/larger_than",
)
