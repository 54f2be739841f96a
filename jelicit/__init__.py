"""jelicit finds what a language model believes, without labels.

Linear probes on hidden states (CCS, PCA, ensembles, easy-to-hard transfer) fitted by the thousand
in JAX, and the challenges that make them fail.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore
    from jelicit.data.datasets import load_dataset
    from jelicit.data.items import Item
    from jelicit.pairs import Pairs
    from jelicit.probes.config import SweepConfig
    from jelicit.probes.files import FittedProbe, load_probe, save_probe
    from jelicit.probes.linear import LinearProbe, score
    from jelicit.probes.method import Method
    from jelicit.probes.normalise import Normaliser
    from jelicit.probes.sweep import FitStore, SweepData, SweepResult, sweep
    from jelicit.studies.grid import Grid, GridResult, run_grid
    from jelicit.version import __version__

_HOME = {
    "ActivationStore": "jelicit.activations",
    "FitStore": "jelicit.probes.sweep",
    "FittedProbe": "jelicit.probes.files",
    "Grid": "jelicit.studies.grid",
    "GridResult": "jelicit.studies.grid",
    "Item": "jelicit.data.items",
    "LinearProbe": "jelicit.probes.linear",
    "Method": "jelicit.probes.method",
    "Normaliser": "jelicit.probes.normalise",
    "Pairs": "jelicit.pairs",
    "SweepConfig": "jelicit.probes.config",
    "SweepData": "jelicit.probes.sweep",
    "SweepResult": "jelicit.probes.sweep",
    "__version__": "jelicit.version",
    "load_dataset": "jelicit.data.datasets",
    "load_probe": "jelicit.probes.files",
    "run_grid": "jelicit.studies.grid",
    "save_probe": "jelicit.probes.files",
    "score": "jelicit.probes.linear",
    "sweep": "jelicit.probes.sweep",
}

__all__ = [
    "ActivationStore",
    "FitStore",
    "FittedProbe",
    "Grid",
    "GridResult",
    "Item",
    "LinearProbe",
    "Method",
    "Normaliser",
    "Pairs",
    "SweepConfig",
    "SweepData",
    "SweepResult",
    "__version__",
    "load_dataset",
    "load_probe",
    "run_grid",
    "save_probe",
    "score",
    "sweep",
]


def __getattr__(name: str) -> Any:
    # On demand: reading items does not wait for JAX, and Ctrl-C finds nothing half imported.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'jelicit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
