"""Thousands of fits at once: the one place that vmaps over runs.

A run is a seed and a subset of the hard rows; its normaliser is folded into its probe and its
subset is a vector of row weights. So all runs share the hidden states X+ and X- of a layer, as far
as any run uses their rows, and `jax.vmap` turns X w into one matmul X W: no array of runs x rows x
d exists. Layers follow one another through the same compiled functions, since no two layers share
an X; the next one is read while the present one is fitted.

A family of methods at one layer is a unit of work. A `FitStore` keeps finished units, so that a
sweep that was killed goes on, and several hosts divide the units among them.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt

from jelicit.pairs import Pairs, check_finite, check_shapes, with_full_floats
from jelicit.probes.linear import PRECISIONS, LinearProbe, score_folded
from jelicit.probes.methods import (
    ALL_METHODS,
    NEEDS_EASY,
    NEEDS_TARGETS,
    RATES,
    Family,
    Fits,
    Run,
    Shared,
    SweepConfig,
    families,
)
from jelicit.probes.normalise import Divisor, Normaliser, compose, fit_normaliser, normalise
from jelicit.probes.ranges import check_values
from jelicit.probes.sweep.fitstore import FitStore, pairs_digest, unit_name
from jelicit.version import __version__

LayerPairs = Mapping[int, Pairs] | Callable[[int], Pairs]


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """What a sweep is fitted on: a pool of hard items, a subset and a seed per run, an easy set."""

    hard: LayerPairs
    """layer -> pairs [N, d] of the pool of hard items, as the model made them."""
    layers: tuple[int, ...]
    subsets: np.ndarray
    """The hard train rows of each run: boolean [R, N]."""
    seeds: np.ndarray
    """The seed of each run: integers [R]."""
    hard_targets: np.ndarray | None = None
    """[N] in [0, 1], for labelled methods alone; 0.5 for an item without a truth value."""
    easy: LayerPairs | None = None
    """layer -> pairs [E, d] of the easy items."""
    easy_labels: np.ndarray | None = None
    """[E], 0 or 1: for "e2h", "ue_e2h" and the ensembles weighted by E2H."""
    hard_ids: Sequence[str] | None = None
    """Names of the hard items, for error messages."""
    easy_ids: Sequence[str] | None = None
    rows_name: str = "hard train rows"
    """What the normalisers call the rows that they are fitted on."""


@partial(jax.jit, static_argnames="family")
def _fit_runs(
    seeds: UInt[Array, " r"],
    rows: Bool[Array, "r n"],
    normalisers: Normaliser,
    shared: Shared,
    layer: Int[Array, ""],
    config: SweepConfig,
    *,
    family: Family,
) -> Fits:
    """The fits of r runs, stacked; every rate of the settings is [r].

    One random stream per (name, seed, layer).
    """
    salt = zlib.crc32(family.key.encode())

    def one_run(seed, chosen, normaliser, settings):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), salt), layer)
        run = Run(key, chosen.astype(shared.hard.pos.dtype), normaliser)
        return family.fit(run, shared, settings, family.methods)

    return jax.vmap(one_run)(seeds, rows, normalisers, config)


# A normaliser's name is static: a name of the data in here would compile every fit anew per set.
@partial(jax.jit, static_argnames="divisor")
def _pooled(
    raw: Pairs, places: Int[Array, " n"] | None = None, *, divisor: Divisor
) -> tuple[Normaliser, Pairs]:
    """Statistics of the whole pool, and its rows at these places (or all) in those coordinates."""
    pool = fit_normaliser(raw, fitted_on="the whole pool", divisor=divisor)
    if places is not None:
        raw = Pairs(raw.pos[places], raw.neg[places])
    return pool, normalise(pool, raw)


@partial(jax.jit, static_argnames="divisor")
def _run_normalisers(hard: Pairs, rows: Float[Array, "r n"], *, divisor: Divisor) -> Normaliser:
    """Statistics of each subset, in the pool's coordinates."""
    fit = partial(fit_normaliser, hard, fitted_on="a run's rows", divisor=divisor)
    return jax.vmap(fit)(rows)


def _kept_rows(subsets: np.ndarray) -> np.ndarray | None:
    """The rows of the pool that fits work on, bool [N]: those that a run uses, and some more.

    None stands for all rows. A step of a fit reads 8 d bytes for every row, used or not. But every
    number of rows compiles each family anew, which takes seconds. So rows are filled up to one of
    four sizes per doubling, by rows that no run uses and at most by a quarter: runs of other seeds
    or class shares then seldom need another size. Where that spares less than an eighth of the
    pool, all of it stays. One choice serves all chunks of runs and all families.
    """
    used = np.asarray(subsets.any(axis=0))
    count = int(used.sum())
    step = 2 ** max(count.bit_length() - 3, 0)
    size = -(-count // step) * step
    if 8 * size > 7 * len(used):
        return None
    used[np.flatnonzero(~used)[: size - count]] = True
    return used


def _distinct(
    data: SweepData, config: SweepConfig, family: Family
) -> tuple[np.ndarray, np.ndarray]:
    """Runs that differ for this family, and for every run the place of its like among them."""
    columns = [np.zeros((len(data.seeds), 1), np.uint8)]
    if family.by_seed:
        columns.append(np.ascontiguousarray(data.seeds, np.int64)[:, None].view(np.uint8))
    if family.by_subset:
        columns.append(np.packbits(data.subsets, axis=1))
    columns += [
        np.ascontiguousarray(getattr(config, name))[:, None].view(np.uint8)
        for name in family.reads
        if name in RATES
    ]
    rows = np.ascontiguousarray(np.hstack(columns))
    whole = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _chunks(
    runs: np.ndarray, *, bytes_each: int, budget: int, devices: int = 1
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut runs into equal chunks within the budget; the last is filled up with its last run.

    Yields the runs and how many of them count. Equal chunks compile once. Several devices share a
    chunk, so its size is a multiple of their number.
    """
    count = -(-len(runs) // (budget // bytes_each))
    size = -(-len(runs) // count)
    size = -(-size // devices) * devices
    for begin in range(0, len(runs), size):
        chunk = runs[begin : begin + size]
        yield np.pad(chunk, (0, size - len(chunk)), mode="edge"), len(chunk)


def _fit_family(
    family: Family,
    data: SweepData,
    layer: int,
    shared: Shared,
    normalisers: Normaliser,
    config: SweepConfig,
) -> Fits:
    """Fit the distinct runs of a family in chunks, and hand every run its fit."""
    distinct, place = _distinct(data, config, family)
    easy_rows = 0 if shared.easy is None else len(shared.easy.pos)
    n, d = shared.hard.pos.shape
    size = family.bytes_each(n, d, easy_rows, config)
    # What only decides which functions run, and how often, must not make them compile again.
    fixed = replace(config, methods=(), memory_budget=0, devices=0)
    parts = []
    mesh = _mesh(config)
    budget = config.memory_budget * mesh.size
    for chunk, count in _chunks(distinct, bytes_each=size, budget=budget, devices=mesh.size):
        own = (
            jnp.asarray(data.seeds[chunk].astype(np.uint32)),
            jnp.asarray(_columns(data.subsets[chunk], shared.kept)),
            _on_host(lambda leaf: leaf[chunk], normalisers),  # noqa: B023
        )
        settings = _on_host(lambda leaf: leaf[chunk], fixed)  # noqa: B023
        fits = _fit_runs(
            *_spread(own, mesh, "runs"),
            shared,
            _spread(jnp.asarray(layer), mesh),
            _spread(settings, mesh, "runs"),
            family=family,
        )
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:count], fits))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *parts)


def _columns(array: np.ndarray, kept: Any) -> np.ndarray:
    """The kept rows of the pool, which are the last axis of an array."""
    return array if kept is None else array[..., np.asarray(kept)]


def _mesh(config: SweepConfig) -> Mesh:
    """The devices that share runs."""
    there = jax.local_devices()
    return Mesh(np.array(there[: config.devices or len(there)]), ("runs",))


def _spread(tree: Any, mesh: Mesh, *axes: str) -> Any:
    """Arrays cut along their first axis over the devices, or (no axis) whole on each of them."""
    if mesh.size == 1:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def _on_host(function: Callable[..., np.ndarray], *trees: Any) -> Any:
    """Map a NumPy function over trees of arrays: JAX would compile for every new shape."""
    return jax.tree.map(
        lambda *leaves: jnp.asarray(function(*(np.asarray(leaf) for leaf in leaves))), *trees
    )


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Probes of unknown sign: one per method, layer and run. `metrics.orient` picks signs."""

    layers: tuple[int, ...]
    methods: tuple[str, ...]
    probes: dict[str, LinearProbe]
    """Per method, stacked [layers, runs, ...], in the coordinates of `normalisers`."""
    info: dict[str, Any]
    """Per method, how the fits went: a named tuple of arrays [layers, runs, ...]."""
    pool: Normaliser
    """Statistics of all hard rows, stacked [layers, ...]."""
    within_pool: Normaliser
    """Statistics of each run's hard train rows in the pool's coordinates, [layers, runs, ...]."""
    rows_name: str
    """What the normalisers call those rows."""

    @property
    def normalisers(self) -> Normaliser:
        """Statistics of each run's hard train rows, for hidden states as the model made them."""
        stacked = jax.vmap(jax.vmap(compose, in_axes=(None, 0)))(self.pool, self.within_pool)
        return replace(stacked, fitted_on=self.rows_name)

    def probe(self, method: str, *, layer: int, run: int) -> tuple[LinearProbe, Normaliser]:
        """One probe and its normaliser, for `score` and for saving.

        Raises:
            ValueError: a method, layer or run that the sweep does not hold.
        """
        if method not in self.probes:
            raise ValueError(f"Method {method!r} was not fitted; there are {list(self.probes)}.")
        place, runs = self._place(layer), self.within_pool.scale_pos.shape[1]
        if not 0 <= run < runs:
            raise ValueError(f"run={run}; this sweep has runs 0 to {runs - 1}.")
        inner = _on_host(lambda leaf: leaf[place, run], self.within_pool)
        outer = _on_host(lambda leaf: leaf[place], self.pool)
        normaliser = compose(outer, inner)
        name = f"{self.rows_name}, layer {layer}, run {run}"
        probe = _on_host(lambda leaf: leaf[place, run], self.probes[method])
        return probe, replace(normaliser, fitted_on=name)

    def score(self, layer: int, pairs: Pairs) -> dict[str, Float[Array, "r n"]]:
        """Truth scores [R, n] of every method, by each run's normaliser; nan where a fit failed.

        A fit failed where its `info` says that it is not finite: its probe means nothing.

        Args:
            layer: which layer the pairs come from.
            pairs: hidden states [n, d] as the model made them.

        Raises:
            ValueError: an unknown layer, or pairs of another width.
        """
        place = self._place(layer)
        d, width = self.pool.mean_pos.shape[1], check_shapes(pairs)[1]
        if width != d:
            raise ValueError(f"Pairs of layer {layer} have d={width}; the probes have d={d}.")
        pick = partial(_on_host, lambda leaf: leaf[place])
        finite = {method: pick(info.finite) for method, info in self.info.items()}
        return _scores(pick(self.probes), finite, pick(self.within_pool), pick(self.pool), pairs)

    def _place(self, layer: int) -> int:
        if layer not in self.layers:
            raise ValueError(f"Layer {layer} was not swept; there are {list(self.layers)}.")
        return self.layers.index(layer)


@jax.jit
def _scores(
    probes: dict[str, LinearProbe],
    finite: dict[str, Bool[Array, " r"]],
    normalisers: Normaliser,
    pool: Normaliser,
    pairs: Pairs,
) -> dict[str, Float[Array, "r n"]]:
    pairs = normalise(pool, pairs)
    score_runs = jax.vmap(lambda probe, normaliser: score_folded(probe, normaliser, pairs))
    return {
        method: jnp.where(finite[method][:, None], score_runs(probe, normalisers), jnp.nan)
        for method, probe in probes.items()
    }


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
    alone, not on what else is swept. Fits that would come out the same (E2H at another subset, PCA
    at another seed, CCS at another share of the easy set) are made once.

    Fits work on the rows that some run uses, not on the whole pool; see `_kept_rows`. A second
    sweep with the same shapes, about as many rows in use, the same number of distinct runs, and the
    same static settings compiles nothing.

    Under `jax.distributed` the hosts divide the units of work among them and meet at the end; each
    gets the whole result. They have to call this alike, with a store in a folder that all see.

    Args:
        data: see `SweepData`. A callable of layers is called twice per layer: all layers are
            checked before the first is fitted.
        config: the settings; None takes the defaults.
        store: finished fits, taken from there and put there; None forgets them.
        report: called with (units done, all units) before the first unit and after each.

    Raises:
        ValueError: before any fit. An unknown method; a hidden state that is not finite (naming
            item, layer and sign); sizes that disagree; a subset of fewer than two rows; a method
            without the easy set or the targets that it needs; labels or rates out of range;
            several hosts without a shared folder.
    """
    config = SweepConfig() if config is None else config
    check(data, config)
    if jax.process_count() > 1 and (store is None or store.folder is None):
        raise ValueError(
            f"{jax.process_count()} hosts share this sweep; give it store=FitStore(folder), with a "
            "folder that all of them see."
        )
    config = _rates_per_run(config, len(data.seeds))
    layers = []
    for layer, hard, easy in _read_ahead(data, config):
        layers.append(_fit_layer(data, layer, hard, easy, config, store, len(layers), report))
    if store is not None and jax.process_count() > 1:
        multihost_utils.sync_global_devices("all units of the sweep are done")
        layers = [made._replace(fits=[store.get(name) for name in made.names]) for made in layers]

    def stack(trees):
        return _on_host(lambda *leaves: np.stack(leaves), *trees)

    stacked = stack([_merged(made.fits) for made in layers])
    return SweepResult(
        layers=tuple(data.layers),
        methods=config.methods,
        probes={method: stacked[method][0] for method in config.methods},
        info={method: stacked[method][1] for method in config.methods},
        pool=stack([made.pool for made in layers]),
        within_pool=stack([made.within_pool for made in layers]),
        rows_name=data.rows_name,
    )


class _Layer(NamedTuple):
    """What a sweep has of one layer."""

    pool: Normaliser
    within_pool: Normaliser
    names: list[str]
    """Of its units of work, in a store."""
    fits: list[Fits]
    """Of its units; several hosts collect them at the end."""


def _fit_layer(
    data: SweepData,
    layer: int,
    hard: Pairs,
    easy: Pairs | None,
    config: SweepConfig,
    store: FitStore | None,
    place: int,
    report: Callable[[int, int], None],
) -> _Layer:
    """Fit the units of one layer, the `place`th, that are this host's and not in the store."""
    wanted = families(config)
    total, before = len(data.layers) * len(wanted), place * len(wanted)
    if place == 0:
        report(0, total)
    pool, within, shared = _prepare(data, hard, easy, config)
    made = _Layer(pool, within, [], [])
    # Of fits that nobody keeps, the data need no name.
    digests = {}
    if store is not None:
        digests = {"hard": pairs_digest(hard), "easy": "" if easy is None else pairs_digest(easy)}
    for done, family in enumerate(wanted, before):
        if store is None:
            made.fits.append(_fit_family(family, data, layer, shared, within, config))
        else:
            name = _unit(family, data, layer, config, digests)
            made.names.append(name)
            if name not in store and done % jax.process_count() == jax.process_index():
                store.put(name, _fit_family(family, data, layer, shared, within, config))
            if jax.process_count() == 1:
                made.fits.append(store.get(name))
        report(done + 1, total)
    return made


def _merged(parts: Iterable[Fits]) -> Fits:
    return {method: fit for fits in parts for method, fit in fits.items()}


def _rates_per_run(config: SweepConfig, runs: int) -> SweepConfig:
    """The settings with every rate as float32 [runs]."""
    rates = {
        name: np.broadcast_to(np.asarray(getattr(config, name), np.float32), (runs,))
        for name in RATES
    }
    return replace(config, **rates)


def _read_ahead(data: SweepData, config: SweepConfig) -> Iterator[tuple[int, Pairs, Pairs | None]]:
    """Layer by layer, its hard and its easy pairs; the next layer is read in a thread."""
    wants_easy = data.easy is not None and bool(NEEDS_EASY & set(config.methods))

    def read(layer: int) -> tuple[int, Pairs, Pairs | None]:
        # As arrays on the device: a memory map would be read only once it is used.
        hard = with_full_floats(_at(data.hard, layer))
        if not wants_easy:
            return layer, hard, None
        assert data.easy is not None
        return layer, hard, with_full_floats(_at(data.easy, layer))

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, data.layers[0])
        for after in (*data.layers[1:], None):
            here = coming.result()
            if after is not None:
                coming = reader.submit(read, after)
            yield here


def _prepare(
    data: SweepData, raw: Pairs, raw_easy: Pairs | None, config: SweepConfig
) -> tuple[Normaliser, Normaliser, Shared]:
    """Pool statistics, run normalisers, and what the runs of a layer share."""
    kept = _kept_rows(data.subsets)
    places = None if kept is None else jnp.asarray(np.flatnonzero(kept))
    # The pool's statistics are those of all its rows, whichever of them the runs use.
    pool, hard = _pooled(raw, places, divisor=config.divisor)
    shared = Shared(hard, None, None, None, None if kept is None else jnp.asarray(kept))
    if NEEDS_TARGETS & set(config.methods) and data.hard_targets is not None:
        targets = _columns(_used_targets(data), kept)
        shared = shared._replace(hard_targets=jnp.asarray(targets, hard.pos.dtype))
    if raw_easy is not None:
        _, easy = _pooled(raw_easy, divisor=config.divisor)
        labels = jnp.asarray(data.easy_labels, easy.pos.dtype)
        shared = shared._replace(easy=easy, easy_labels=labels)
    rows = jnp.asarray(_columns(data.subsets, kept), hard.pos.dtype)
    return (
        pool,
        _run_normalisers(hard, rows, divisor=config.divisor),
        _spread(shared, _mesh(config)),
    )


def _used_targets(data: SweepData) -> np.ndarray:
    # Rows that no run uses may lack a target; NaN would spoil the loss even at weight zero.
    assert data.hard_targets is not None
    return np.where(data.subsets.any(axis=0), data.hard_targets, 0.5)


def _unit(
    family: Family, data: SweepData, layer: int, config: SweepConfig, digests: Mapping[str, str]
) -> str:
    """The name of a unit of work: a hash of all that its fits depend on."""
    settings = {
        "version": __version__,
        "methods": family.methods,
        "stream": family.key,
        "layer": layer,
        "divisor": config.divisor,
        "hard": digests["hard"],
        **{name: getattr(config, name) for name in family.reads if name not in RATES},
    }
    arrays = {name: getattr(config, name) for name in family.reads if name in RATES}
    # A unit holds a fit for every run: their number and order count, too.
    arrays["seeds"] = data.seeds if family.by_seed else np.zeros(len(data.seeds))
    if family.by_subset:
        arrays["subsets"] = data.subsets
    if NEEDS_EASY & set(family.methods):
        settings["easy"] = digests["easy"]
        arrays["easy_labels"] = data.easy_labels
    if NEEDS_TARGETS & set(family.methods):
        arrays["targets"] = _used_targets(data)
    return unit_name(settings, arrays)


def _at(pairs: LayerPairs, layer: int) -> Pairs:
    return pairs(layer) if callable(pairs) else pairs[layer]


def check(data: SweepData, config: SweepConfig) -> None:
    """Refuse what `sweep` cannot fit; see there."""
    check_config(config)
    _check_runs(data)
    _check_rates(config, len(data.seeds))
    if NEEDS_TARGETS & set(config.methods):
        _check_targets(data, [method for method in config.methods if method in NEEDS_TARGETS])
    needing = [method for method in config.methods if method in NEEDS_EASY]
    if needing:
        _check_easy_labels(data, needing)
    if len(set(data.layers)) != len(data.layers) or not data.layers:
        raise ValueError(f"layers={data.layers}; name at least one layer, each once.")
    for layer in data.layers:
        easy_n = 0
        n, d = _check_layer(data.hard, layer, "hard", data.hard_ids)
        if n != data.subsets.shape[1]:
            raise ValueError(
                f"Layer {layer} has {n} hard rows, but subsets has {data.subsets.shape[1]} columns."
            )
        if needing and data.easy is not None and data.easy_labels is not None:
            easy_n, easy_d = _check_layer(data.easy, layer, "easy", data.easy_ids)
            if easy_n != len(data.easy_labels):
                raise ValueError(
                    f"Layer {layer} has {easy_n} easy rows for {len(data.easy_labels)} easy_labels."
                )
            if easy_d != d:
                raise ValueError(f"Layer {layer}: easy pairs have d={easy_d}, hard pairs d={d}.")
        kept = _kept_rows(data.subsets)
        _check_budget(config, n if kept is None else int(kept.sum()), d, easy_n)


def check_config(config: SweepConfig) -> None:
    """Refuse settings that no data could be fitted with.

    Raises:
        ValueError: Naming the setting, and what it allows.
    """
    unknown = [method for method in config.methods if method not in ALL_METHODS]
    if unknown or not config.methods:
        raise ValueError(f"methods={config.methods}; choose some of {list(ALL_METHODS)}.")
    if config.optimiser not in ("adamw", "lbfgs"):
        raise ValueError(f"optimiser={config.optimiser!r}; choose adamw or lbfgs.")
    if config.divisor not in get_args(Divisor):
        raise ValueError(f"divisor={config.divisor!r}; choose one of {get_args(Divisor)}.")
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision!r}; choose one of {PRECISIONS}.")
    if config.optimiser == "lbfgs" and config.precision != "float32":
        # Measured with bfloat16: AUROC of CCS moved by up to 0.2.
        raise ValueError(
            f"precision={config.precision!r} with L-BFGS, which lives on differences of nearby "
            "gradients; use float32, or AdamW."
        )
    check_values(config)
    if not 0 <= config.devices <= len(jax.local_devices()):
        raise ValueError(
            f"devices={config.devices}; this machine has {len(jax.local_devices())} (0 takes all)."
        )


def _check_budget(config: SweepConfig, n: int, d: int, easy: int) -> None:
    for family in families(config):
        size = family.bytes_each(n, d, easy, config)
        if size > config.memory_budget:
            names = ", ".join(map(repr, family.methods))
            raise ValueError(
                f"memory_budget={config.memory_budget} bytes; a run of {names} takes about {size} "
                f"at {n} rows of width {d}. Allow at least that much."
            )


def _check_layer(
    pairs: LayerPairs, layer: int, name: str, ids: Sequence[str] | None
) -> tuple[int, int]:
    if not callable(pairs) and layer not in pairs:
        raise ValueError(f"The {name} pairs lack layer {layer}; they have {sorted(pairs)}.")
    found = _at(pairs, layer)
    shape = check_shapes(found, name=f"{name} pairs of layer {layer}")
    check_finite(found, ids, layer)
    return shape


def _check_runs(data: SweepData) -> None:
    subsets, seeds = data.subsets, data.seeds
    if subsets.ndim != 2 or subsets.dtype != bool or len(subsets) == 0:
        raise ValueError(
            f"subsets is {subsets.dtype} {subsets.shape}; it must be boolean [runs, hard rows]."
        )
    if seeds.shape != (len(subsets),) or not np.issubdtype(seeds.dtype, np.integer):
        raise ValueError(
            f"seeds is {seeds.dtype} {seeds.shape}; it must hold one integer for each of the "
            f"{len(subsets)} runs of subsets."
        )
    if seeds.min() < 0 or seeds.max() >= 2**32:
        raise ValueError(f"seeds run from {seeds.min()} to {seeds.max()}; allowed: 0 to 2**32 - 1.")
    small = np.flatnonzero(subsets.sum(axis=1) < 2)
    if small.size:
        raise ValueError(
            f"subsets[{small[0]}] holds {subsets[small[0]].sum()} rows ({small.size} such runs); "
            "a run needs at least 2."
        )


def _check_rates(config: SweepConfig, runs: int) -> None:
    for name in RATES:
        values = np.asarray(getattr(config, name))
        if values.shape not in ((), (runs,)):
            raise ValueError(
                f"{name} has shape {values.shape}; give one number, or one for each of the {runs} "
                "runs."
            )


def _check_targets(data: SweepData, needing: list[str]) -> None:
    n = data.subsets.shape[1]
    if data.hard_targets is None or data.hard_targets.shape != (n,):
        found = "missing" if data.hard_targets is None else f"of shape {data.hard_targets.shape}"
        raise ValueError(
            f"{needing} learn from hard_targets [{n}], which is {found}. "
            "Give them, or leave those methods out."
        )
    used = data.subsets.any(axis=0)
    bad = np.flatnonzero(used & ~((data.hard_targets >= 0) & (data.hard_targets <= 1)))
    if bad.size:
        raise ValueError(
            f"hard_targets[{bad[0]}] is {data.hard_targets[bad[0]]} in a row that a run uses; it "
            "must lie in [0, 1], with 0.5 for an item without a truth value."
        )


def _check_easy_labels(data: SweepData, needing: list[str]) -> None:
    if data.easy is None or data.easy_labels is None:
        lacking = "easy" if data.easy is None else "easy_labels"
        raise ValueError(f"{needing} need the labelled easy set, but {lacking} is missing.")
    values = np.unique(data.easy_labels)
    if not np.array_equal(values, [0, 1]):
        raise ValueError(
            f"easy_labels holds {values[:5].tolist()}; it must hold 0 and 1, both of them."
        )
