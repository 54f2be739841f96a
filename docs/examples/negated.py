"""The negated twin of a set: "Lodz is in Chile." becomes "Lodz is not in Chile.", which is true.

    python docs/examples/negated.py cities.csv neg_cities
    python experiments/transfer.py --dataset cities.csv ./neg_cities

Probes of the truth carry over from statements to their negations only if they found the truth, not
what goes with it in statements of one polarity (Marks and Tegmark, 2023). Writes a folder of items;
groups and splits are those of the set, so no city is trained on in one and tested in the other.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, save_items

NEGATIONS = {" is in ": " is not in ", " means ": " does not mean "}
"""How statements of these sets are negated."""


@dataclass(frozen=True)
class Settings:
    """Write the negated twin of a set.

    Attributes:
        dataset: A set's name, or a folder or file of items.
        out: Folder to write; its name is the new set's.
    """

    dataset: tyro.conf.Positional[str]
    out: tyro.conf.Positional[Path]


def negated(item: Item, name: str) -> Item:
    """The item with its statement negated and its label turned round.

    Raises:
        ValueError: If the statement has none of the `NEGATIONS`, or more than one.
    """
    found = [phrase for phrase in NEGATIONS if item.choice.count(phrase) == 1]
    if len(found) != 1:
        raise ValueError(f"item {item.id!r}: {item.choice!r} needs one of {sorted(NEGATIONS)}")
    choice = item.choice.replace(found[0], NEGATIONS[found[0]])
    label = None if item.label is None else not item.label
    return replace(item, id=f"{name}/{item.id}", dataset=name, choice=choice, label=label)


def main(settings: Settings) -> None:
    found = load_dataset(settings.dataset)
    for split, items in (("train", found.train), ("test", found.test)):
        save_items(settings.out / f"{split}.jsonl", [negated(i, settings.out.name) for i in items])


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
