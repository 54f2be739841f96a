"""The sets that ship with the project: a file here declares one `SET`, or several `SETS`."""

from __future__ import annotations

import importlib
import pkgutil

from jelicit.data.named_sets import NamedSet


def _declared() -> dict[str, NamedSet]:
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    single = [module.SET for module in modules if hasattr(module, "SET")]
    several = [named for module in modules for named in getattr(module, "SETS", ())]
    return {named.name: named for named in (*single, *several)}


SETS: dict[str, NamedSet] = _declared()
"""The sets by name."""
