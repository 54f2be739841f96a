"""Thousands of fits at once.

`sweep` in it is a function; the package bears the same name, so that functions are imported from
here and modules by their own path.
"""

from jelicit.probes.config import SweepConfig
from jelicit.probes.sweep.checks import check, check_config
from jelicit.probes.sweep.data import LayerPairs, SweepData
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.probes.sweep.result import SweepResult
from jelicit.probes.sweep.sweeping import sweep

__all__ = [
    "FitStore",
    "LayerPairs",
    "SweepConfig",
    "SweepData",
    "SweepResult",
    "check",
    "check_config",
    "sweep",
]
