"""The one place that vmaps over runs.

A run is a seed and a subset of the hard rows; its normaliser is folded into its probe and its
subset is a vector of row weights. So all runs share the hidden states X+ and X- of a layer, as far
as any run uses their rows, and `jax.vmap` turns X w into one matmul X W: no array of runs x rows x
d exists.
"""

import zlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt

from jelicit.pairs import Pairs
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import Data, Fits, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.sweep.data import SweepData
from jelicit.probes.sweep.devices import mesh_of, on_host, spread
from jelicit.probes.sweep.family import Family, Rates, chunks, distinct_runs
from jelicit.probes.sweep.prepare import columns

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
    rates: Rates,
    made: Any = None,
    *,
    family: Family,
) -> Fits:
    """The fits of r runs, stacked; every rate is [r], and so is all that was made on the host.

    One random stream per (name, seed, layer).
    """
    # Not Python's hash, which is another in every process.
    salt = zlib.crc32(family.stream.encode())

    def one_run(seed, chosen, normaliser, its_rates, on_its_host):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), salt), layer)
        run = Run(key, chosen.astype(data.hard.pos.dtype), normaliser, on_its_host)
        return family.fit(run, data, its_rates)

    return jax.vmap(one_run)(seeds, rows, normalisers, rates, made)


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


def fit_family(
    family: Family,
    data: SweepData,
    layer: int,
    shared: Data,
    normalisers: Normaliser,
    config: SweepConfig,
) -> Fits:
    """Fit the distinct runs of a family in chunks, and hand every run its fit."""
    rates = family.rates(config, len(data.seeds))
    distinct, place = distinct_runs(family, data, rates)
    n, d = shared.hard.pos.shape
    size = family.bytes_each(n, d, 0 if shared.easy is None else len(shared.easy.pos))
    mesh = mesh_of(config.devices)
    budget = config.memory_budget * mesh.size
    parts = []
    for chunk, wanted in chunks(distinct, bytes_each=size, budget=budget, devices=mesh.size):
        own = (
            jnp.asarray(data.seeds[chunk].astype(np.uint32)),
            jnp.asarray(columns(data.subsets[chunk], shared.kept)),
            on_host(lambda leaf: leaf[chunk], normalisers),  # noqa: B023
        )
        its_rates = on_host(lambda leaf: leaf[chunk], rates)  # noqa: B023
        made = None if family.host is None else work_on_host(family, shared.hard, own[1])
        fits = fit_runs(
            *spread(own, mesh, "runs"),
            # Only what it needs: a program is then the same whatever else is swept.
            shared.only(family.needs),
            spread(jnp.asarray(layer), mesh),
            spread(its_rates, mesh, "runs"),
            spread(made, mesh, "runs"),
            family=family,
        )
        # To the host at once, which frees the device for the next chunk; fillers go.
        parts.append(jax.tree.map(lambda leaf: _single(leaf)[:wanted], fits))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *parts)
