"""The better of both signs, where train labels of one class could not pick one.

Under "oracle" train labels pick the sign of an unlabelled direction (`metrics.orient`). Where all
train rows are of one class they pick nothing, and a direction of the truth may come out upside
down. The oracle is there so that no sign is held against a method: what judges methods takes the
better sign there, run by run. At chance that is worth less than one standard error of an AUROC.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ONE_CLASS = (0.0, 1.0)
"""Shares of true claims at which train labels pick no sign."""


def picks_none(orientation: Any, class_share: Any) -> np.ndarray:
    """Whether labels that should pick a sign could not.

    Args:
        orientation: Who picked the sign [...].
        class_share: Shares of true claims among the train rows [...]; None or nan: as they are.
    """
    return (np.asarray(orientation) == "oracle") & np.isin(np.asarray(class_share), ONE_CLASS)


def better(areas: Any) -> np.ndarray:
    """AUROCs [...] under the sign that is better for each."""
    areas = np.asarray(areas, float)
    return np.maximum(areas, 1 - areas)
