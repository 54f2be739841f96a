"""Studies: which question is asked of a model, what is measured, and what comes out.

Each study is a module with a `run`:

    from extract import open_model
    from jelicit.studies import salience

    result = salience.run(open_model("pocket"), dataset=("pocket/arithmetic",), seeds=3)
    result.rows, result.figures, result.report("report.html")

The model is an argument: one of `extract.open_model`, anything else with the methods of
`jelicit.studies.model.Model`, or `Cases`: hidden states of one's own with their situations.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jelicit.studies.measuring import Measured, measure
    from jelicit.studies.model import Cases, Model
    from jelicit.studies.session import Session
    from jelicit.studies.settings import PromptedStudySettings, StudySettings
    from jelicit.studies.situation import EasySet, Runs, Situation
    from jelicit.studies.states import States
    from jelicit.studies.study import Study, StudyResult

STUDIES = (
    *("salience", "imbalance", "impossible", "layers", "transfer", "icm", "scaling"),
    "stress",
    *("reward", "assistant"),
)
"""The modules of the studies that ship with the project."""

_HOME = {
    "Cases": "model",
    "EasySet": "situation",
    "Measured": "measuring",
    "Model": "model",
    "PromptedStudySettings": "settings",
    "Runs": "situation",
    "Session": "session",
    "Situation": "situation",
    "States": "states",
    "Study": "study",
    "StudyResult": "study",
    "StudySettings": "settings",
    "measure": "measuring",
}

__all__ = [
    "STUDIES",
    "Cases",
    "EasySet",
    "Measured",
    "Model",
    "PromptedStudySettings",
    "Runs",
    "Session",
    "Situation",
    "States",
    "Study",
    "StudyResult",
    "StudySettings",
    "measure",
]


def __getattr__(name: str) -> Any:
    # On demand: whoever only fits probes does not wait for figures and reports.
    if name in _HOME:
        return getattr(import_module(f"jelicit.studies.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jelicit.studies' has no attribute {name!r}")
