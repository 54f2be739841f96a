"""Thousands of fits at once: the one place that vmaps over runs."""

from jelicit.probes.sweep.fitstore import FitStore
from jelicit.probes.sweep.sweeping import (
    LayerPairs,
    SweepConfig,
    SweepData,
    SweepResult,
    check,
    check_config,
    sweep,
)

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
