"""The probes that `jelicit sweep --save-probes` keeps, for `jelicit probe score`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from jelicit.commands.said import say
from jelicit.commands.sweep_plan import SweepPlan
from jelicit.named import slug
from jelicit.probes.files import load_probe, save_probe
from jelicit.probes.methods import get_method
from jelicit.studies.grid import GridResult


def check_probes(plan: SweepPlan) -> None:
    """Refuses a folder with probes of another sweep: they would be taken for this one's.

    Raises:
        ValueError: Naming one of them.
    """
    folder, origin = _folder(plan), _origin(plan)
    for path in sorted(folder.glob("[!.]*")):
        if ".orbax-checkpoint-tmp" in path.name:  # of a version that left them when killed
            continue
        saved = load_probe(path).settings
        if any(saved.get(name) != value for name, value in origin.items()):
            raise ValueError(
                f"{path} is of another sweep (other stores, settings or model); choose another "
                f"--out, or move {folder} away"
            )


def save_probes(plan: SweepPlan, result: GridResult) -> None:
    """Writes the probes of seed 0 that are not there yet."""
    grid, folder, origin = result.grid, _folder(plan), _origin(plan)
    methods = map(get_method, grid.methods)
    for share, layer, method in product(grid.class_shares, grid.layers or (), methods):
        for values in product(*grid.settings.values()):
            chosen = dict(zip(grid.settings, values, strict=True))
            path = folder / _name(method.name, layer, share, chosen)
            if not path.exists():
                probe = result.probe(method, layer=layer, seed=0, class_share=share, **chosen)
                with suppress(FileExistsError):  # the same sweep, run twice at once
                    save_probe(path, replace(probe, settings={**probe.settings, **origin}))
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
