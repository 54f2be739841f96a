"""The one place that vmaps over runs.

A run is a seed and a subset of the hard rows; its normaliser is folded into its probe and its
subset is a vector of row weights. So all runs share the hidden states X+ and X- of a layer, as far
as any run uses their rows, and `jax.vmap` turns X w into one matmul X W: no array of runs x rows x
d exists.
"""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt

from jelicit.pairs import Pairs
from jelicit.probes import gram
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import Data, Fits, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.sweep.data import SweepData
from jelicit.probes.sweep.devices import mesh_of, on_host, spread
from jelicit.probes.sweep.family import Family, Together, chunks, distinct_runs
from jelicit.probes.sweep.prepare import columns, filled_up, own_places

ALGORITHM = 1
"""Raised whenever runs draw other random numbers, or are handed other rows: kept fits of another
number are not read back."""


@partial(jax.jit, static_argnames="family")
def fit_runs(
    seeds: UInt[Array, " r"],
    rows: Bool[Array, "r n"],
    normalisers: Normaliser,
    data: Data,
    layer: Int[Array, ""],
    rates: Any,
    made: Any = None,
    places: Int[Array, "r m"] | None = None,
    *,
    family: Family | Together,
) -> Fits:
    """The fits of r runs, stacked; every rate is [r], and so is all that was made on the host.

    One random stream per (name, seed, layer).
    """

    def one_run(seed, chosen, normaliser, its_rates, on_its_host, its_places):
        def key(stream: str) -> Array:
            # Not Python's hash, which is another in every process.
            salt = zlib.crc32(stream.encode())
            return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), salt), layer)

        rows = chosen.astype(data.hard.pos.dtype)
        run = Run(jax.random.key(seed), rows, normaliser, on_its_host, its_places)
        return family.fit_drawn(key, run, data, its_rates)

    return jax.vmap(one_run)(seeds, rows, normalisers, rates, made, places)


def _single(leaf: jax.Array) -> np.ndarray:
    """An array on the host, in the precision that fits are kept in."""
    array = np.asarray(leaf)
    return array.astype(_KEPT.get(array.dtype, array.dtype), copy=False)


_KEPT = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}


def work_on_host(family: Family, hard: Pairs, rows: Bool[Array, "r n"]) -> Any:
    """What a family's method has made of the rows of r runs on the host, stacked."""
    assert family.host is not None
    states, done = Pairs(*map(np.asarray, hard)), {}
    places = []
    for chosen in np.asarray(rows):
        place = done.setdefault(chosen.tobytes(), len(done))
        places.append(place)
    distinct = [np.frombuffer(chosen, bool) for chosen in done]
    made = [family.host(states, chosen, family.settings[0]) for chosen in distinct]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)[places]), *made)


class _Room(NamedTuple):
    """How the runs of a family are fitted within the memory budget."""

    shared: Data
    copied: int
    """Rows that every run holds copies of; 0 = it makes none."""
    bytes_each: int
    budget: int


def rows_copied(family: Family, data: SweepData, shared: Data) -> int:
    """Rows that every run of a family may hold copies of; 0 = it makes none.

    As many as the largest run has, filled up so that runs of other sizes seldom compile anew.
    """
    if not family.copies:
        return 0
    return min(len(shared.hard.pos), filled_up(int(data.subsets.sum(axis=1).max())))


def _room(
    family: Family | Together,
    data: SweepData,
    shared: Data,
    normalisers: Normaliser,
    runs: int,
    budget: int,
) -> _Room:
    """Copies of the runs' rows, and the products of all rows, as far as they help and fit."""
    n, d = shared.hard.pos.shape
    size = family.bytes_each(n, d, 0 if shared.easy is None else len(shared.easy.pos))
    if isinstance(family, Together):
        return _Room(shared, 0, size, budget)
    copied = rows_copied(family, data, shared)
    with_copies = size + family.bytes_of_copies(copied, d)
    if not copied or with_copies > budget:
        return _Room(shared, 0, size, budget)
    left = budget - 3 * n**2 * shared.hard.pos.dtype.itemsize
    one_number = normalisers.scale_pos.ndim == 1
    if one_number and left >= with_copies and gram.pays(n, d, copied, runs):
        products = gram.pool_gram(shared.hard)
        return _Room(shared._replace(products=products), copied, with_copies, left)
    return _Room(shared, copied, with_copies, budget)


def fit_together(
    families: Sequence[Family],
    data: SweepData,
    layer: int,
    shared: Data,
    normalisers: Normaliser,
    config: SweepConfig,
) -> list[Fits]:
    """The fits of each family: distinct runs in chunks, every run handed its own.

    Args:
        families: One, or those of one group of `side_by_side`, which become one program.
        data: What is swept.
        layer: Which layer.
        shared: Of the layer, for all runs.
        normalisers: Of the runs.
        config: The settings.
    """
    family = families[0] if len(families) == 1 else Together(families=tuple(families))
    rates = family.rates(config, len(data.seeds))
    distinct, place = distinct_runs(families[0], data, families[0].rates(config, len(data.seeds)))
    mesh = mesh_of(config.devices)
    # Only what it needs: a program is then the same whatever else is swept.
    shared, copied, size, budget = _room(
        *(family, data, shared.only(family.needs), normalisers),
        *(len(distinct), config.memory_budget),
    )
    parts = []
    for chunk, wanted in chunks(
        distinct, bytes_each=size, budget=budget * mesh.size, devices=mesh.size
    ):
        rows = columns(data.subsets[chunk], shared.kept)
        own = (
            jnp.asarray(data.seeds[chunk].astype(np.uint32)),
            jnp.asarray(rows),
            on_host(lambda leaf: leaf[chunk], normalisers),  # noqa: B023
        )
        its_rates = on_host(lambda leaf: leaf[chunk], rates)  # noqa: B023
        made = None
        if isinstance(family, Family) and family.host is not None:
            made = work_on_host(family, shared.hard, own[1])
        places = jnp.asarray(own_places(rows, copied)) if copied else None
        fits = fit_runs(
            *spread(own, mesh, "runs"),
            shared,
            spread(jnp.asarray(layer), mesh),
            *(spread(each, mesh, "runs") for each in (its_rates, made, places)),
            family=family,
        )
        # To the host at once, which frees the device for the next chunk; fillers go.
        parts.append(jax.tree.map(lambda leaf: _single(leaf)[:wanted], fits))  # noqa: B023
    fits = jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *parts)
    return [{name: fits[name] for name in each.names} for each in families]
