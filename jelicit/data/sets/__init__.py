"""The sets that ship with the project: every file here that declares a `SET` is one of them."""

from __future__ import annotations

import importlib
import pkgutil

from jelicit.data.named_sets import NamedSet


def _declared() -> dict[str, NamedSet]:
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    declared = (module.SET for module in modules if hasattr(module, "SET"))
    return {named.name: named for named in declared}


SETS: dict[str, NamedSet] = _declared()
"""The sets by name."""
