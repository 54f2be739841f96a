"""What a sweep refuses before its first fit, and what it says of it."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jelicit.pairs import Pairs, check_finite, check_shapes
from jelicit.probes.config import RATES, SWEEP_SETTINGS, SweepConfig
from jelicit.probes.method import EASY, TARGETS, Method
from jelicit.probes.registry import needing, own_settings
from jelicit.probes.sweep.data import LayerPairs, SweepData
from jelicit.probes.sweep.devices import doubles_device
from jelicit.probes.sweep.family import families
from jelicit.probes.sweep.prepare import kept_rows
from jelicit.typed import is_whole


def check(data: SweepData, config: SweepConfig) -> None:
    """Refuse what `sweep` cannot fit, as far as that shows without reading a layer; see there.

    Of hidden states in a mapping every layer is looked at; those of a reader are for `check_layer`.
    """
    check_config(config)
    _check_types(data)
    _check_runs(data)
    _check_rates(config, len(data.seeds))
    if labelled := needing(config.methods, TARGETS):
        _check_targets(data, labelled)
    if transferring := needing(config.methods, EASY):
        _check_easy_labels(data, transferring)
    if not isinstance(data.layers, Sequence | range) or isinstance(data.layers, str | bytes):
        raise ValueError(f"layers={data.layers!r}; give a sequence of layers.")
    if len(set(data.layers)) != len(data.layers) or not data.layers:
        raise ValueError(f"layers={data.layers}; name at least one layer, each once.")
    _check_wordings(data)
    for layer in data.layers:
        hard = at_hand(data.hard, layer, "hard")
        easy = None
        if transferring and data.easy is not None:
            easy = at_hand(data.easy, layer, "easy")
        if hard is not None and not read_late(data, config):
            check_layer(data, config, layer, hard, easy)


def read_late(data: SweepData, config: SweepConfig) -> bool:
    """Whether layers are read one by one, so that `check` cannot look at them before any fit."""
    return callable(data.hard) or (callable(data.easy) and bool(needing(config.methods, EASY)))


def at_hand(pairs: LayerPairs, layer: int, name: str) -> Pairs | None:
    """The pairs of a layer if they are there already; None if they have to be read."""
    if callable(pairs):
        return None
    if layer not in pairs:
        raise ValueError(f"The {name} pairs lack layer {layer}; they have {sorted(pairs)}.")
    return pairs[layer]


def check_layer(
    data: SweepData, config: SweepConfig, layer: int, hard: Pairs, easy: Pairs | None
) -> None:
    """Refuse hidden states of a layer that cannot be fitted.

    Raises:
        ValueError: One is not finite (naming item, layer and sign), sizes disagree, or a run takes
            more than the memory budget.
    """
    n, d = _check_hard(data, layer, hard)
    easy_n = 0
    if needing(config.methods, EASY):
        assert easy is not None
        easy_n = _check_easy(data, layer, easy, d)
    kept = kept_rows(data.subsets)
    _check_budget(config, n if kept is None else int(kept.sum()), d, easy_n)


def _check_types(data: SweepData) -> None:
    for name in ("subsets", "seeds", "hard_targets", "easy_labels"):
        value = getattr(data, name)
        wanted = name in ("subsets", "seeds") or value is not None
        if wanted and not isinstance(value, np.ndarray | jax.Array):
            raise ValueError(f"{name} is a {type(value).__name__}; give an array.")
    for name in ("hard", "easy"):
        pairs = getattr(data, name)
        if not (isinstance(pairs, Mapping) or callable(pairs) or (name == "easy" and not pairs)):
            raise ValueError(
                f"{name} is a {type(pairs).__name__}; give the pairs of each layer as a mapping, "
                "or a function from a layer to them."
            )


def _check_hard(data: SweepData, layer: int, hard: Pairs) -> tuple[int, int]:
    n, d = _check_states(hard, layer, "hard", data.hard_ids)
    if n != data.subsets.shape[1]:
        raise ValueError(
            f"Layer {layer} has {n} hard rows, but subsets has {data.subsets.shape[1]} columns."
        )
    return n, d


def _check_easy(data: SweepData, layer: int, easy: Pairs, d: int) -> int:
    assert data.easy_labels is not None
    easy_n, easy_d = _check_states(easy, layer, "easy", data.easy_ids)
    if easy_n != len(data.easy_labels):
        raise ValueError(
            f"Layer {layer} has {easy_n} easy rows for {len(data.easy_labels)} easy_labels."
        )
    if easy_d != d:
        raise ValueError(f"Layer {layer}: easy pairs have d={easy_d}, hard pairs d={d}.")
    return easy_n


def check_config(config: SweepConfig) -> None:
    """Refuse settings that no data could be fitted with.

    Raises:
        ValueError: Naming the setting, and what it allows.
    """
    methods = config.resolved()
    # All of them, whether or not a wanted method reads them: a slip must not pass in silence.
    for setting in SWEEP_SETTINGS.values():
        setting.check(getattr(config, setting.name))
    _check_own(config, methods)
    _check_doubles(methods)
    if not is_whole(config.devices) or not 0 <= config.devices <= len(jax.local_devices()):
        raise ValueError(
            f"devices={config.devices!r}; this machine has {len(jax.local_devices())} (0 takes "
            "all)."
        )
    if not is_whole(config.memory_budget) or config.memory_budget < 1:
        raise ValueError(f"memory_budget={config.memory_budget!r}; allowed: bytes, from 1.")


def _check_doubles(methods: Sequence[Method]) -> None:
    if not (doubles := [method.name for method in methods if method.double]):
        return
    try:
        doubles_device()
    except RuntimeError as error:
        backend = jax.default_backend()
        raise ValueError(
            f"{', '.join(doubles)}: fitted in float64, whose matrices {backend} does not decompose "
            f"and no CPU that JAX sees does instead. Set JAX_PLATFORMS={backend},cpu, or leave "
            "them out."
        ) from error


def _check_own(config: SweepConfig, methods: Sequence[Method]) -> None:
    """Refuse settings beside the fields that no method has, or that are out of range."""
    if not isinstance(config.own, Mapping):
        raise ValueError(f"own is {config.own!r}; give a mapping of settings by name.")
    own = own_settings(methods)
    for name in config.own:
        if name in SWEEP_SETTINGS:
            raise ValueError(f"own has {name!r}, a setting of the sweep itself: give {name}=... .")
        if name not in own:
            has = f"they have {', '.join(own)}" if own else "they have none"
            raise ValueError(
                f"own has {name!r}, which is no setting of {', '.join(map(str, methods))}: {has} "
                "beside those built in."
            )
        for setting in own[name]:
            setting.check(config.own[name])


def _check_budget(config: SweepConfig, n: int, d: int, easy: int) -> None:
    for family in families(config):
        size = family.bytes_each(n, d, easy)
        if size > config.memory_budget:
            names = ", ".join(map(repr, family.names))
            raise ValueError(
                f"memory_budget={config.memory_budget} bytes; a run of {names} takes about {size} "
                f"at {n} rows of width {d}. Allow at least that much."
            )


def _check_states(
    states: Pairs, layer: int, name: str, ids: Sequence[str] | None
) -> tuple[int, int]:
    shape = check_shapes(states, name=f"{name} pairs of layer {layer}")
    if ids is not None and (not isinstance(ids, Sequence | np.ndarray) or len(ids) != shape[0]):
        raise ValueError(f"{name}_ids must hold one id for each of the {shape[0]} {name} rows.")
    check_finite(states, ids, layer)
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
    rates = {name: getattr(config, name) for name in RATES}
    for name, value in {**rates, **config.own}.items():
        shape = np.shape(value)
        if shape not in ((), (runs,)):
            raise ValueError(
                f"{name} has shape {shape}; give one number, or one for each of the {runs} runs."
            )


def _check_targets(data: SweepData, needing: list[str]) -> None:
    n = data.subsets.shape[1]
    if data.hard_targets is None or data.hard_targets.shape != (n,):
        got = "missing" if data.hard_targets is None else f"of shape {data.hard_targets.shape}"
        raise ValueError(
            f"{needing} learn from hard_targets [{n}], which is {got}. "
            "Give them, or leave those methods out."
        )
    used = data.used()
    bad = np.flatnonzero(used & ~((data.hard_targets >= 0) & (data.hard_targets <= 1)))
    if bad.size:
        raise ValueError(
            f"hard_targets[{bad[0]}] is {data.hard_targets[bad[0]]} in a row that a run uses; it "
            "must lie in [0, 1], with 0.5 for an item without a truth value."
        )


def _check_wordings(data: SweepData) -> None:
    n = data.subsets.shape[1]
    if data.wordings is not None and np.shape(data.wordings) != (n,):
        raise ValueError(
            f"wordings has shape {np.shape(data.wordings)}; it must name an item for each of the "
            f"{n} hard rows."
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
