"""Items of the pocket world: every kind as a dataset with held-out questions.

`SETS` is what the world's entry point in pyproject.toml names: the core finds the sets there, as it
finds those of any installed package.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import product

from jelicit.data.items import Item
from jelicit.data.named_sets import NamedSet, Request
from jelicit.pocket.world.formats import WORLD_FORMATS
from jelicit.pocket.world.kinds import KINDS, Key, Kind

DEFAULT_ROWS = {"train": 1000, "test": 300}


def _attribute_pairs(kind: Kind) -> list[tuple[bool, bool]]:
    """The (truth, other) cells that every question of a kind is asked in."""
    if not kind.has_truth:
        return [(False, True), (False, False)]
    if not kind.other or kind.name == "commands":
        return [(True, False), (False, False)]
    return [(truth, other) for truth, other in product((True, False), repeat=2)]


def dataset_items(kind: str, split: str, *, n: int | None = None, seed: int = 0) -> list[Item]:
    """Items of one kind of the pocket world.

    Every question drawn appears with both truth values (and, where the kind has a second
    attribute, in all four cells), so that label and attribute are exactly balanced and
    independent. Items of the "test" split ask questions that no judged example of pretraining
    asked.

    Args:
        kind: A name of ``KINDS``.
        split: "train" or "test".
        n: Most rows; by default ``DEFAULT_ROWS[split]``, or as many as the kind's questions give.
            Rounded down to whole questions.
        seed: Seed of the draw of questions and words.

    Raises:
        ValueError: An unknown kind or split, or ``n`` that does not hold one question.
    """
    if kind not in KINDS:
        raise ValueError(f"pocket kind {kind!r} is unknown; the world has {', '.join(KINDS)}")
    spec = KINDS[kind]
    cells = _attribute_pairs(spec)
    rng = random.Random(f"{kind}/{split}/{seed}")
    keys = _in_equal_strata(spec, rng.sample(spec.keys(split), len(spec.keys(split))))
    wanted = DEFAULT_ROWS[split] if n is None else n
    if wanted < len(cells):
        raise ValueError(
            f"n={n} is too few: one question of pocket/{kind} makes {len(cells)} items"
        )
    items = [
        _item(spec, split, rng, key, truth, other)
        for key in keys[: wanted // len(cells)]
        for truth, other in cells
    ]
    rng.shuffle(items)
    return items


def _in_equal_strata(kind: Kind, keys: Sequence[Key]) -> list[Key]:
    """The keys in turn from every stratum, as far as the smallest goes; one stratum keeps order."""
    strata: dict[Hashable, list[Key]] = {}
    for key in keys:
        strata.setdefault(kind.stratum(key), []).append(key)
    return [key for together in zip(*strata.values(), strict=False) for key in together]


def _item(spec: Kind, split: str, rng: random.Random, key: tuple, truth: bool, other: bool) -> Item:
    example = spec.make(rng, key, truth, other)
    group = "/".join(str(part) for part in key)
    cell = f"{truth:d}{other:d}" if spec.other else f"{truth:d}"
    return Item(
        id=f"pocket/{spec.name}/{split}/{group}/{cell}",
        question=example.question,
        choice=example.choice,
        choice_2=example.choice_2,
        label=example.truth,
        answer=example.answer,
        group=group,
        alt_labels={} if example.other is None else {spec.other: example.other},
        dataset=f"pocket/{spec.name}",
        split=split,
        origin="pocket",
        meta={"topic": topic} if (topic := spec.topic(key)) else {},
    )


def _splits(kind: str, request: Request) -> dict[str, list[Item]]:
    wanted = {"train": request.max_train, "test": request.max_test}
    return {
        split: dataset_items(kind, split, n=most, seed=request.seed)
        for split, most in wanted.items()
    }


def _named(kind: Kind) -> NamedSet:
    return NamedSet(
        name=f"pocket/{kind.name}",
        title=f"{kind.name.capitalize().replace('_', ' ')} (pocket)",
        source=partial(_splits, kind.name),
        formats={
            "label" if attribute == "truth" else attribute: WORLD_FORMATS[format]
            for attribute, format in kind.target_formats
        },
        # No set is its own easy set, and comparisons are the easiest but one.
        easy="pocket/arithmetic" if kind.name == "larger_than" else "pocket/larger_than",
    )


SETS = tuple(map(_named, KINDS.values()))
"""Every kind of the world as a named set."""
