"""Figures for papers, from tidy result rows: PNG and SVG, readable in print and in grey."""

from jelicit.figures.calibration import calibration_figure
from jelicit.figures.icm import accuracy_figure, bars_figure, search_figure
from jelicit.figures.impossible import histograms_figure, variance_figure
from jelicit.figures.parts import save
from jelicit.figures.salience import salience_figure, salience_scatter
from jelicit.figures.scaling import scaling_figure
from jelicit.figures.sweeps import layers_figure, shares_figure
from jelicit.figures.training import cost_figure, training_figure
from jelicit.figures.transfer import transfer_figure

__all__ = [
    "accuracy_figure",
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
    "training_figure",
    "transfer_figure",
    "variance_figure",
]
