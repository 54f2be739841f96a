"""What the runs of a layer share: pool statistics, rows in use, and their coordinates."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jelicit.pairs import Pairs
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import EASY, TARGETS, VERDICT, WORDINGS, Data
from jelicit.probes.normalise import Divisor, Normaliser, fit_normaliser, normalise
from jelicit.probes.registry import needing
from jelicit.probes.sweep.data import SweepData, numbered
from jelicit.probes.sweep.devices import mesh_of, spread


# A normaliser's name is static: a name of the data in here would compile every fit anew per set.
def _pooled(
    raw: Pairs, places: Int[Array, " n"] | None = None, *, divisor: Divisor
) -> tuple[Normaliser, Pairs]:
    """Statistics of the whole pool, and its rows at these places (or all) in those coordinates."""
    pool = fit_normaliser(raw, fitted_on="the whole pool", divisor=divisor)
    if places is not None:
        raw = Pairs(raw.pos[places], raw.neg[places])
    return pool, normalise(pool, raw)


pooled = jax.jit(_pooled, static_argnames="divisor")
pooled_over = jax.jit(_pooled, static_argnames="divisor", donate_argnames="raw")
"""`pooled`, written over the raw pairs, which are gone afterwards."""


@partial(jax.jit, static_argnames="divisor")
def run_normalisers(hard: Pairs, rows: Float[Array, "r n"], *, divisor: Divisor) -> Normaliser:
    """Statistics of each subset, in the pool's coordinates."""
    fit = partial(fit_normaliser, hard, fitted_on="a run's rows", divisor=divisor)
    return jax.vmap(fit)(rows)


def kept_rows(subsets: np.ndarray) -> np.ndarray | None:
    """The rows of the pool that fits work on, bool [N]: those that a run uses, and some more.

    None stands for all rows. A step of a fit reads 8 d bytes for every row, used or not. But every
    number of rows compiles each family anew, which takes seconds. So rows are filled up to one of
    four sizes per doubling, by rows that no run uses and at most by a quarter: runs of other seeds
    or class shares then seldom need another size. Where that spares less than an eighth of the
    pool, all of it stays. One choice serves all chunks of runs and all families.
    """
    used = np.asarray(subsets.any(axis=0))
    count = int(used.sum())
    size = filled_up(count)
    if 8 * size > 7 * len(used):
        return None
    used[np.flatnonzero(~used)[: size - count]] = True
    return used


def filled_up(count: int) -> int:
    """A number of rows, or at most a quarter more: one of four sizes per doubling."""
    step = 2 ** max(count.bit_length() - 3, 0)
    return -(-count // step) * step


def own_places(rows: np.ndarray, size: int) -> np.ndarray:
    """Where each run's own rows are, first among `size` places [r, size], of rows [r, n]."""
    return np.argsort(~rows, axis=1, kind="stable")[:, :size].astype(np.int32)


def columns(array: np.ndarray, kept: Any) -> np.ndarray:
    """The kept rows of the pool, which are the last axis of an array."""
    return array if kept is None else array[..., np.asarray(kept)]


def wants_easy(data: SweepData, config: SweepConfig) -> bool:
    """Whether a method reads the easy set, and there is one."""
    return data.easy is not None and bool(needing(config.methods, EASY))


def prepare(
    data: SweepData,
    raw: Pairs,
    raw_easy: Pairs | None,
    config: SweepConfig,
    *,
    overwrite: bool = False,
) -> tuple[Normaliser, Normaliser, Data]:
    """Pool statistics, run normalisers, and what the runs of a layer share.

    Args:
        data: what is swept.
        raw: hard pairs of the layer.
        raw_easy: easy pairs of the layer.
        config: the settings.
        overwrite: the raw pairs are copies that nobody else has; their memory may be used.
    """
    kept = kept_rows(data.subsets)
    places = None if kept is None else jnp.asarray(np.flatnonzero(kept))
    # The pool's statistics are those of all its rows, whichever of them the runs use.
    statistics = pooled_over if overwrite and places is None else pooled
    pool, hard = statistics(raw, places, divisor=config.divisor)
    shared = Data(hard, kept=None if kept is None else jnp.asarray(kept))
    if needing(config.methods, TARGETS):
        targets = columns(data.used_targets(), kept)
        shared = shared._replace(hard_targets=jnp.asarray(targets, hard.pos.dtype))
    if needing(config.methods, VERDICT):
        shared = shared._replace(pool=pool)
    if data.wordings is not None and needing(config.methods, WORDINGS):
        # Of the rows that are kept, so that no number is above them.
        items = numbered(columns(np.asarray(data.wordings), kept))
        shared = shared._replace(wordings=jnp.asarray(items))
    if raw_easy is not None:
        _, easy = (pooled_over if overwrite else pooled)(raw_easy, divisor=config.divisor)
        labels = jnp.asarray(data.easy_labels, easy.pos.dtype)
        shared = shared._replace(easy=easy, easy_labels=labels)
    rows = jnp.asarray(columns(data.subsets, kept), hard.pos.dtype)
    return (
        pool,
        run_normalisers(hard, rows, divisor=config.divisor),
        spread(shared, mesh_of(config.devices)),
    )
