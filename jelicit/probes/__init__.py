"""Linear probes on contrast pairs: one method per file, and a sweep that fits thousands at once.

Two functions bear the name of their module and are imported from there, so that neither hides the
other: `jelicit.probes.normalise.normalise` and `jelicit.probes.sweep.sweep`.
"""

from jelicit.probes.ccs import fit_ccs
from jelicit.probes.joint import fit_joint
from jelicit.probes.linear import LinearProbe, combine, score, unfold
from jelicit.probes.method import Data, FitInfo, Method, Run
from jelicit.probes.methods import METHODS, SweepConfig
from jelicit.probes.normalise import Normaliser, fit_normaliser
from jelicit.probes.pca import fit_components, fit_pca
from jelicit.probes.random_probe import random_probe
from jelicit.probes.registry import BUILT_IN, get_method
from jelicit.probes.settings import PerRun, choice, count, flag, rate
from jelicit.probes.supervised import fit_supervised
from jelicit.probes.sweep import SweepData, SweepResult
from jelicit.probes.training import Descent

__all__ = [
    "BUILT_IN",
    "METHODS",
    "Data",
    "Descent",
    "FitInfo",
    "LinearProbe",
    "Method",
    "Normaliser",
    "PerRun",
    "Run",
    "SweepConfig",
    "SweepData",
    "SweepResult",
    "choice",
    "combine",
    "count",
    "fit_ccs",
    "fit_components",
    "fit_joint",
    "fit_normaliser",
    "fit_pca",
    "fit_supervised",
    "flag",
    "get_method",
    "random_probe",
    "rate",
    "score",
    "unfold",
]
