"""The probes that `jelicit sweep --save-probes` keeps, for `jelicit probe score`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.commands.said import say, warn
from jelicit.commands.sweep_plan import SweepPlan
from jelicit.named import slug
from jelicit.probes.files import load_probe, save_probe
from jelicit.probes.kinds import NotLinearError
from jelicit.probes.methods import get_method
from jelicit.studies.grid import GridResult


def check_probes(plan: SweepPlan) -> frozenset[Path]:
    """Refuses a folder with probes of another sweep: they would be taken for this one's.

    Returns:
        The probes of this very sweep that are there.

    Raises:
        ValueError: Naming one of them.
    """
    folder = _folder(plan)
    # Leftovers are of a version that left them when killed.
    there = [p for p in sorted(folder.glob("[!.]*")) if ".orbax-checkpoint-tmp" not in p.name]
    for path in there:
        _check_probe(path, plan)
    return frozenset(there)


def _check_probe(path: Path, plan: SweepPlan) -> None:
    saved = load_probe(path).settings
    if any(saved.get(name) != value for name, value in _origin(plan).items()):
        raise ValueError(
            f"{path} is of another sweep (other stores, settings or model); choose another "
            f"--out, or move {path.parent} away"
        )


def save_probes(
    plan: SweepPlan, result: GridResult, *, known: Collection[Path] = frozenset()
) -> None:
    """Writes the probes of seed 0 that are not there yet, and have numbers.

    Args:
        plan: What was swept.
        result: What was found.
        known: Probes that are there and are of this sweep.

    Raises:
        ValueError: Another sweep has written probes there meanwhile.
    """
    grid, folder, origin = result.grid, _folder(plan), _origin(plan)
    methods = map(get_method, grid.methods)
    for share, layer, method in product(grid.class_shares, grid.layers or (), methods):
        for values in product(*grid.settings.values()):
            chosen = dict(zip(grid.settings, values, strict=True))
            path = folder / _name(method.name, layer, share, chosen)
            if path in known:
                continue
            try:
                probe = result.probe(method, layer=layer, seed=0, class_share=share, **chosen)
            except NotLinearError:
                warn(f"not saved, since files hold linear probes alone: {path.name}")
                continue
            if not np.isfinite(np.asarray(probe.probe.weight)).all():
                warn(f"not saved, since it has no finite numbers: {path.name}")
                continue
            try:
                save_probe(path, replace(probe, settings={**probe.settings, **origin}))
            except FileExistsError:  # another sweep runs at once: the same one, perhaps
                _check_probe(path, plan)
    say(f"probes: {folder}")


def _folder(plan: SweepPlan) -> Path:
    return plan.options.out / "probes"


def _origin(plan: SweepPlan) -> dict[str, str]:
    """What saved probes say of where they are from."""
    spec = plan.train.spec
    return {"sweep": plan.run, "model": spec.model, "model_digest": spec.model_digest}


def _name(method: str, layer: int, share: float | None, chosen: Mapping[str, Any]) -> str:
    words = [method, f"layer{layer}", *([] if share is None else [f"share{share:g}"])]
    words += [f"{name}-{value}" for name, value in chosen.items()]
    return slug("-".join(words))
