"""Thousands of fits at once: layer by layer, unit by unit.

Layers follow one another through the same compiled functions, since no two layers share an X; the
next one is read and checked while the present one is fitted, and there are never more than two.

A family of methods at one layer is a unit of work. A `FitStore` keeps finished units, so that a
sweep that was killed goes on, and several hosts divide the units among them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jelicit.pairs import Pairs, doubled, with_full_floats
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import Fits
from jelicit.probes.normalise import Normaliser
from jelicit.probes.sweep.checks import check, check_layer, read_late
from jelicit.probes.sweep.data import SweepData, pairs_at
from jelicit.probes.sweep.devices import doubling, on_host
from jelicit.probes.sweep.family import Family, families, side_by_side
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.probes.sweep.fitting import fit_together
from jelicit.probes.sweep.identity import digests_of, unit_name_of
from jelicit.probes.sweep.prepare import prepare, wants_easy
from jelicit.probes.sweep.result import SweepResult


def sweep(
    data: SweepData,
    config: SweepConfig | None = None,
    *,
    store: FitStore | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> SweepResult:
    """Fit every method on every layer for every run.

    E2H trains on the easy set normalised by its own statistics; scores always use the normaliser
    of the run's hard train rows. A run's probes depend on its own seed, subset, rates and layer
    alone, not on what else is swept but for rounding: methods that are trained for as many steps on
    the same runs share their products (`jelicit.probes.together`). Fits that would come out the
    same (E2H at another subset, PCA at another seed, CCS at another share of the easy set) are made
    once.

    Fits work on the rows that some run uses, not on the whole pool; see `kept_rows`. A second
    sweep with the same shapes, about as many rows in use (by all runs and by the largest), the same
    number of distinct runs, and the same static settings compiles nothing.

    Memory, in bytes: the layer as it was read and the next one, 8 N d each; the layer in the pool's
    coordinates, 8 n d for the n rows in use (and 16 n d more while methods that are declared
    `double` are fitted, made from a copy of 16 N d that is gone by then); the easy set in the same
    way; and `memory_budget`. Of more layers only the probes take more.

    Under `jax.distributed` the hosts divide the units of work among them and meet at the end; each
    gets the whole result. They have to call this alike, with a store in a folder that all see.

    Args:
        data: see `SweepData`. Layers in a mapping are all checked before the first fit. Those that
            a function reads are read once and checked then: the first before any fit, every other
            one while its predecessor is fitted.
        config: the settings; None takes the defaults.
        store: finished fits, taken from there and put there; None forgets them.
        report: called with (units done, all units) before the first unit and after each; units that
            are found in the store count at once.

    Raises:
        ValueError: before any fit (of layers that a function reads: before a fit of that layer). An
            unknown method; a hidden state that is not finite (naming item, layer and sign); sizes
            that disagree; a subset of fewer than two rows; a method without the easy set or the
            targets that it needs; labels or rates out of range; several hosts without a shared
            folder; a method in float64 where no device decomposes that.
    """
    config = SweepConfig() if config is None else config
    check(data, config)
    _check_hosts(store)
    layers = []
    for layer, hard, easy in _read_ahead(data, config):
        place = len(layers)
        task = _Task(data=data, config=config, store=store, layer=layer, place=place, report=report)
        layers.append(task.fitted(hard, easy))
        # Or it would still be there while the layer after the next is read.
        del hard, easy
    if store is not None and jax.process_count() > 1:
        multihost_utils.sync_global_devices("all units of the sweep are done")
        layers = [made._replace(fits=_collected(store, made, config)) for made in layers]
    return _stacked(data, config, layers)


def _check_hosts(store: FitStore | None) -> None:
    """Refuse several hosts without a folder in which they find each other's fits."""
    if jax.process_count() > 1 and (store is None or store.folder is None):
        raise ValueError(
            f"{jax.process_count()} hosts share this sweep; give it store=FitStore(folder), with a "
            "folder that all of them see."
        )


class _Layer(NamedTuple):
    """What a sweep has of one layer."""

    pool: Normaliser
    within_pool: Normaliser
    names: list[str]
    """Of its units of work, in a store; in the order of the families."""
    fits: list[Fits]
    """Of its units; several hosts collect them at the end."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One layer of a sweep, the `place`th."""

    data: SweepData
    config: SweepConfig
    store: FitStore | None
    layer: int
    place: int
    report: Callable[[int, int], None]

    def fitted(self, hard: Pairs, easy: Pairs | None) -> _Layer:
        """Fit the units of the layer that are this host's and not in the store."""
        wanted = families(self.config)
        total, before = len(self.data.layers) * len(wanted), self.place * len(wanted)
        if self.place == 0:
            self.report(0, total)
        pool, within, shared = prepare(self.data, hard, easy, self.config)
        # Of fits that nobody keeps, the data need no name.
        digests = {} if self.store is None else digests_of(hard, easy)
        names = [self._name(family, digests) for family in wanted]
        to_fit = [
            family
            for number, (family, name) in enumerate(zip(wanted, names, strict=True), before)
            if self._is_mine(name, number)
        ]
        done = before + len(wanted) - len(to_fit)
        if done > before:
            self.report(done, total)
        (n, d), e = shared.hard.pos.shape, 0 if shared.easy is None else len(shared.easy.pos)
        here: dict[tuple[str, ...], Fits] = {}
        for group in side_by_side(to_fit, self.data, self.config, (n, d, e)):
            if group[0].double:
                fits = [self._in_double(group[0], hard, easy)]
            else:
                fits = fit_together(group, self.data, self.layer, shared, within, self.config)
            for family, fit in zip(group, fits, strict=True):
                if self.store is None:
                    here[family.names] = fit
                else:
                    self.store.put(names[wanted.index(family)], fit)
            # Once all of the group are kept: a sweep killed here goes on with the same programs.
            for _ in group:
                done += 1
                self.report(done, total)
        if self.store is None:
            return _Layer(pool, within, [], [here[family.names] for family in wanted])
        made = _Layer(pool, within, names, [])
        return (
            made
            if jax.process_count() > 1
            else made._replace(fits=_collected(self.store, made, self.config))
        )

    def _name(self, family: Family, digests: Mapping[str, str]) -> str:
        """What a unit of work is called in the store."""
        if self.store is None:
            return ""
        return unit_name_of(family, self.data, self.layer, self.config, digests)

    def _is_mine(self, name: str, number: int) -> bool:
        """Whether a unit of work is to be fitted, and by this host.

        Hosts deal the units out by number: nobody waits for anybody before the end.
        """
        if self.store is None:
            return True
        return name not in self.store and number % jax.process_count() == jax.process_index()

    def _in_double(self, family: Family, hard: Pairs, easy: Pairs | None) -> Fits:
        """The fits of a family in float64, from the hidden states themselves.

        In the pool's coordinates of float32 they have lost digits of what sets the signs apart.
        """
        with doubling() as host:
            config = self.config
            if host is not None:
                hard, easy = jax.tree.map(np.asarray, (hard, easy))
                config = replace(config, devices=1)
            hard, easy = doubled(hard), None if easy is None else doubled(easy)
            _, within, shared = prepare(self.data, hard, easy, config, overwrite=True)
            del hard, easy
            return fit_together([family], self.data, self.layer, shared, within, config)[0]


def _collected(store: FitStore, made: _Layer, config: SweepConfig) -> list[Fits]:
    """The fits of a layer that any host has made."""
    pairs = zip(made.names, families(config), strict=True)
    return [store.get(name, family.methods) for name, family in pairs]


def _stacked(data: SweepData, config: SweepConfig, layers: list[_Layer]) -> SweepResult:
    def stack(trees):
        return on_host(lambda *leaves: np.stack(leaves), *trees)

    fits = stack([_merged(made.fits) for made in layers])
    return SweepResult(
        layers=tuple(data.layers),
        methods=config.names,
        probes={method: fits[method][0] for method in config.names},
        info={method: fits[method][1] for method in config.names},
        pool=stack([made.pool for made in layers]),
        within_pool=stack([made.within_pool for made in layers]),
        rows_name=data.rows_name,
    )


def _merged(parts: Iterable[Fits]) -> Fits:
    return {method: fit for fits in parts for method, fit in fits.items()}


def _read_ahead(data: SweepData, config: SweepConfig) -> Iterator[tuple[int, Pairs, Pairs | None]]:
    """Layer by layer, its hard and its easy pairs; the next layer is read in a thread.

    What is wrong with a layer is told when it is its turn, so that the fits of those before it are
    made and kept.
    """
    reads_easy, unchecked = wants_easy(data, config), read_late(data, config)

    def read(layer: int) -> tuple[int, Pairs, Pairs | None]:
        hard, easy = pairs_at(data.hard, layer), None
        if reads_easy:
            assert data.easy is not None
            easy = pairs_at(data.easy, layer)
        if unchecked:
            check_layer(data, config, layer, hard, easy)
        # As arrays on the device: a memory map would be read only once it is used.
        return layer, with_full_floats(hard), None if easy is None else with_full_floats(easy)

    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, data.layers[0])]
        for after in (*data.layers[1:], None):
            # Out of the list: what is read is held here alone, and the layer before it by nobody.
            here = coming.pop().result()
            if after is not None:
                coming.append(reader.submit(read, after))
            yield here
