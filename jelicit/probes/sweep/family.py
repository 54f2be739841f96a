"""Families: methods that are fitted together, with the settings that their fits read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Array

from jelicit.pairs import Pairs
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import Common, Data, Fits, Method, Run, with_info
from jelicit.probes.sweep.data import SweepData
from jelicit.probes.together import EASY, HARD, can_go_together, descend_together
from jelicit.probes.training import Descent

Rates = tuple[dict[str, Any], ...]
"""The rates that each method of a family reads, by name: one number each, or one per run."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Methods that are fitted together, and the settings that shape their program.

    Two families are equal where their compiled programs are.
    """

    methods: tuple[Method, ...]
    settings: tuple[Any, ...]
    """Each method's own; the rates among them are at their defaults, and not these but a run's own
    are what it is fitted with."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its methods by name."""
        return tuple(method.name for method in self.methods)

    @property
    def needs(self) -> frozenset[str]:
        """What any of its methods needs."""
        return frozenset().union(*(method.needs for method in self.methods))

    @property
    def common(self) -> Common | None:
        """The work that its methods share."""
        return self.methods[0].common

    @property
    def host(self) -> Callable[[Pairs, np.ndarray, Any], Any] | None:
        """The work that its only method has done on the host."""
        return self.methods[0].host

    @property
    def stream(self) -> str:
        """The name of its random stream."""
        return self.methods[0].random_stream

    @property
    def reads(self) -> frozenset[str]:
        """Settings that change its fits; the divisor changes all but those by seed alone."""
        return frozenset().union(*(method.reads for method in self.methods))

    @property
    def by_seed(self) -> bool:
        """Whether a fit of any of its methods depends on the seed."""
        return any(method.by_seed for method in self.methods)

    @property
    def by_subset(self) -> bool:
        """Whether a fit of any of its methods depends on the run's rows."""
        pairs = zip(self.methods, self.settings, strict=True)
        return any(method.depends_on_subset(own) for method, own in pairs)

    @property
    def double(self) -> bool:
        """Whether its fits are made in float64; see `doubles_device` for where."""
        return self.methods[0].double

    def fit(self, run: Run, data: Data, rates: Rates) -> Fits:
        """The fits of one run."""
        parts = zip(self.methods, self.settings, rates, strict=True)
        own = {
            method.name: replace(settings, **its_rates) if its_rates else settings
            for method, settings, its_rates in parts
        }
        made = ()
        if self.common is not None:
            made = (self.common.make(run, data.only(self.needs), own),)
        return {
            method.name: with_info(
                method, method.fit(run, data.only(method.needs), own[method.name], *made)
            )
            for method in self.methods
        }

    def fit_drawn(self, key: Callable[[str], Array], run: Run, data: Data, rates: Rates) -> Fits:
        """The fits of one run that draws from its streams: `key` has the one of a name."""
        return self.fit(run._replace(key=key(self.stream)), data, rates)

    @property
    def trained(self) -> tuple[Descent, bool] | None:
        """How its only method descends, and whether on held-out rows, too; None = it does not."""
        if len(self.methods) != 1 or self.double or self.methods[0].trained is None:
            return None
        how = self.methods[0].trained
        return how.descent(self.settings[0]), how.validated

    def rates(self, config: SweepConfig, runs: int) -> Rates:
        """The rates that its methods read, each float32 [runs]."""
        return tuple(
            {
                name: np.broadcast_to(np.asarray(config.value(own), np.float32), (runs,))
                for name, own in method.reads.items()
                if own.per_run
            }
            for method in self.methods
        )

    def bytes_each(self, n: int, d: int, e: int) -> int:
        """Roughly what a run takes while it is fitted on n hard and e easy rows of d."""
        pairs = zip(self.methods, self.settings, strict=True)
        return (
            (8 if self.double else 4)
            * max(method.vectors_held(own) for method, own in pairs)
            * (n + d + e)
        )

    def bytes_of_copies(self, rows: int, d: int) -> int:
        """What a run takes beside for copies of its own rows of d."""
        return (8 if self.double else 4) * self.copies * rows * d

    @property
    def copies(self) -> int:
        """How many copies of its own rows a run holds, where there is memory for them."""
        return max(method.copies for method in self.methods)


@dataclass(frozen=True, kw_only=True)
class Together:
    """Families whose methods are trained side by side; see `jelicit.probes.together`.

    To `fitting` it is one family, whose fits are those of all.
    """

    families: tuple[Family, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their methods by name."""
        return tuple(name for family in self.families for name in family.names)

    @property
    def needs(self) -> frozenset[str]:
        """What any of them needs."""
        return frozenset().union(*(family.needs for family in self.families))

    def fit_drawn(
        self, key: Callable[[str], Array], run: Run, data: Data, rates: tuple[Rates, ...]
    ) -> Fits:
        """The fits of one run; each method draws from its own stream."""
        problems = {}
        for family, (its_rates,) in zip(self.families, rates, strict=True):
            (method,), (settings,) = family.methods, family.settings
            own = run._replace(key=key(family.stream)), data.only(method.needs)
            assert method.trained is not None
            settings = replace(settings, **its_rates) if its_rates else settings
            problems[method.name] = method.trained.problem(*own, settings)
        read = {name for problem in problems.values() for name in problem.reads}
        sets = {HARD: data.hard, EASY: data.easy}
        made = descend_together(
            tuple(problems.values()), {name: sets[name] for name in sorted(read)}
        )
        return dict(zip(problems, made, strict=True))

    def rates(self, config: SweepConfig, runs: int) -> tuple[Rates, ...]:
        """The rates of each."""
        return tuple(family.rates(config, runs) for family in self.families)

    def bytes_each(self, n: int, d: int, e: int) -> int:
        """Roughly what a run takes while all are fitted."""
        return sum(family.bytes_each(n, d, e) for family in self.families)


def side_by_side(
    wanted: Sequence[Family], data: SweepData, config: SweepConfig, sizes: tuple[int, int, int]
) -> list[tuple[Family, ...]]:
    """Which families are fitted in one program: those trained alike, on the same runs.

    Args:
        wanted: In the order in which they are wanted.
        data: What is swept.
        config: The settings; a run of all of them has to fit in its memory budget.
        sizes: Hard rows, width, easy rows.
    """
    groups: list[list[Family]] = []
    for family in wanted:
        homes = (group for group in groups if _joins(family, group, data, config, sizes))
        home = next(homes, None)
        if home is None:
            groups.append([family])
        else:
            home.append(family)
    return [tuple(group) for group in groups]


def _joins(
    family: Family,
    group: Sequence[Family],
    data: SweepData,
    config: SweepConfig,
    sizes: tuple[int, int, int],
) -> bool:
    """Whether a family is trained beside those of a group."""
    all_of_them = (*group, family)
    how = [each.trained for each in all_of_them]
    if None in how or not can_go_together([each for each in how if each is not None]):
        return False
    if Together(families=all_of_them).bytes_each(*sizes) > config.memory_budget:
        return False
    runs = [
        distinct_runs(each, data, each.rates(config, len(data.seeds)))
        for each in (group[0], family)
    ]
    return all(np.array_equal(mine, its) for mine, its in zip(*runs, strict=True))


def families(config: SweepConfig) -> list[Family]:
    """The families of the wanted methods: those with common work together, all others alone."""
    together: dict[Any, list[Method]] = {}
    for method in config.resolved():
        together.setdefault((method.common or method.name, method.double), []).append(method)
    return [
        Family(methods=tuple(methods), settings=tuple(_static(config, each) for each in methods))
        for methods in together.values()
    ]


def _static(config: SweepConfig, method: Method) -> Any:
    """A method's settings without its rates: what its compiled program depends on."""
    own = config.settings_of(method)
    rates = {name: each.default for name, each in method.reads.items() if each.per_run}
    return replace(own, **rates) if rates else own


def distinct_runs(family: Family, data: SweepData, rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """Runs that differ for this family, and for every run the place of its like among them."""
    columns = [np.zeros((len(data.seeds), 1), np.uint8)]
    if family.by_seed:
        columns.append(_bytes(data.seeds.astype(np.int64)))
    if family.by_subset:
        columns.append(np.packbits(data.subsets, axis=1))
    columns += [_bytes(values) for its_rates in rates for values in its_rates.values()]
    rows = np.ascontiguousarray(np.hstack(columns))
    # One opaque value per run: NumPy then sorts whole runs, and not column by column.
    whole = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values)[:, None].view(np.uint8)


def chunks(
    runs: np.ndarray, *, bytes_each: int, budget: int, devices: int = 1
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut runs into equal chunks within the budget; the last is filled up with its last run.

    Yields the runs and how many of them count. Equal chunks compile once. Several devices share a
    chunk, so its size is a multiple of their number.
    """
    number = -(-len(runs) // (budget // bytes_each))
    size = -(-len(runs) // number)
    size = -(-size // devices) * devices
    for begin in range(0, len(runs), size):
        chunk = runs[begin : begin + size]
        yield np.pad(chunk, (0, size - len(chunk)), mode="edge"), len(chunk)
