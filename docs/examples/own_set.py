"""A data set of one's own: claims about prime numbers.

    jelicit datasets docs/examples/own_set.py:PRIMES
    python experiments/salience.py --dataset docs/examples/own_set.py:PRIMES

The rows may come from anywhere: a CSV file, a database, a rule as here. Only `id`, `choice` and
`label` are needed; claims about one thing share a `group`, so that no group is both fitted on and
tested on.
"""

from jelicit.data import Item, NamedSet, PromptFormat, Request


def claims(request: Request) -> list[Item]:
    """A true and a false claim about as many primes as others; a quarter of the numbers is test."""
    odd = range(3, 200, 2)
    primes = [number for number in odd if all(number % factor for factor in range(2, number))]
    others = [number for number in odd if number not in primes][: len(primes)]
    return [
        Item(
            id=f"{number}/{'is' if says else 'is-not'}",
            choice=f"{number} is {'' if says else 'not '}a prime number.",
            label=says == (number in primes),
            group=str(number),
        )
        for number in sorted(primes + others)
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
