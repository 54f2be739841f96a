"""The name of a unit of work: a hash of all that its fits depend on, and of nothing else."""

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.pairs import Pairs
from jelicit.probes import normalise
from jelicit.probes.config import SweepConfig
from jelicit.probes.method import EASY, TARGETS, WORDINGS, Method
from jelicit.probes.registry import BUILT_IN, get_method
from jelicit.probes.sweep import fitting
from jelicit.probes.sweep.data import SweepData, numbered
from jelicit.probes.sweep.family import Family
from jelicit.probes.sweep.fitstore import pairs_digest, unit_name


def digests_of(hard: Pairs, easy: Pairs | None) -> dict[str, str]:
    """Hashes of the hidden states of a layer."""
    return {"hard": pairs_digest(hard), "easy": "" if easy is None else pairs_digest(easy)}


def unit_name_of(
    family: Family, data: SweepData, layer: int, config: SweepConfig, digests: Mapping[str, str]
) -> str:
    """The name of a family's fits at a layer.

    Methods come in by their algorithm's number, and so do the stages before a fit: fits of another
    algorithm are never read back, those of the same one are, in whatever version of the project.
    """
    pairs = sorted(zip(family.methods, family.settings, strict=True), key=lambda p: p[0].name)
    settings = {
        "algorithms": algorithms_of(method for method, _ in pairs),
        "stream": family.stream,
        "layer": layer,
        "divisor": config.divisor,
        "hard": digests["hard"],
        "settings": {method.name: _static(method, own) for method, own in pairs},
    }
    rates = dict(zip(family.names, family.rates(config, len(data.seeds)), strict=True))
    arrays: dict[str, Any] = {
        f"{method}/{name}": values for method, own in rates.items() for name, values in own.items()
    }
    # A unit holds a fit for every run: their number and order count, too.
    arrays["seeds"] = data.seeds if family.by_seed else np.zeros(len(data.seeds))
    if family.by_subset:
        arrays["subsets"] = data.subsets
    if EASY in family.needs:
        settings["easy"] = digests["easy"]
        arrays["easy_labels"] = data.easy_labels
    if TARGETS in family.needs:
        arrays["targets"] = data.used_targets()
    if WORDINGS in family.needs and data.wordings is not None:
        arrays["wordings"] = numbered(data.wordings)
    return unit_name(settings, arrays)


def algorithms_of(methods: Iterable[str | Method]) -> dict[str, Any]:
    """What decides the numbers of fits beside data and settings, as JSON has it.

    The number of each method's algorithm, and those of the stages that all fits go through.
    """
    stages = {"normaliser": normalise.ALGORITHM, "sweep": fitting.ALGORITHM}
    return {
        "stages": stages,
        "methods": {method.name: _algorithm(method) for method in map(get_method, methods)},
    }


def _static(method: Method, settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name, own in method.reads.items() if not own.per_run}


def _algorithm(method: Method) -> list[Any]:
    """The number of a method's algorithm, and for a user's own a hash of its file.

    A test watches the numbers of the methods that are built in. Nothing watches a user's, who
    changes a fit and runs it again.
    """
    if method in BUILT_IN:
        return [method.algorithm]
    return [method.algorithm, _file_digest(method)]


def _file_digest(method: Method) -> str:
    try:
        file = inspect.getsourcefile(inspect.unwrap(method.fit))
    except TypeError:  # a callable object: its class is where the code is
        file = inspect.getsourcefile(type(method.fit))
    if file is None or not Path(file).is_file():
        return ""  # typed at a prompt
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()
