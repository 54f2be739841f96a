"""Figures for papers, from tidy result rows: PNG and SVG, readable in print and in grey."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jelicit.figures.assistant import assistant_figure
    from jelicit.figures.calibration import calibration_figure
    from jelicit.figures.icm import accuracy_figure, bars_figure, search_figure
    from jelicit.figures.impossible import histograms_figure, variance_figure
    from jelicit.figures.parts import save
    from jelicit.figures.salience import salience_figure, salience_scatter
    from jelicit.figures.scaling import scaling_figure
    from jelicit.figures.stress import stress_figure
    from jelicit.figures.sweeps import layers_figure, shares_figure
    from jelicit.figures.training import cost_figure, training_figure
    from jelicit.figures.transfer import transfer_figure
    from jelicit.figures.warning_signs import warnings_figure

_MODULES = {
    "accuracy_figure": "icm",
    "assistant_figure": "assistant",
    "bars_figure": "icm",
    "calibration_figure": "calibration",
    "cost_figure": "training",
    "histograms_figure": "impossible",
    "layers_figure": "sweeps",
    "salience_figure": "salience",
    "salience_scatter": "salience",
    "save": "parts",
    "scaling_figure": "scaling",
    "search_figure": "icm",
    "shares_figure": "sweeps",
    "stress_figure": "stress",
    "training_figure": "training",
    "transfer_figure": "transfer",
    "variance_figure": "impossible",
    "warnings_figure": "warning_signs",
}

__all__ = [
    "accuracy_figure",
    "assistant_figure",
    "bars_figure",
    "calibration_figure",
    "cost_figure",
    "histograms_figure",
    "layers_figure",
    "salience_figure",
    "salience_scatter",
    "save",
    "scaling_figure",
    "search_figure",
    "shares_figure",
    "stress_figure",
    "training_figure",
    "transfer_figure",
    "variance_figure",
    "warnings_figure",
]


def __getattr__(name: str) -> Any:
    # On demand: whoever asks a study for its help does not wait for matplotlib.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
