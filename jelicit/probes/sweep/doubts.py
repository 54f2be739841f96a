"""What a reader of fits has to know of them before they are made."""

from __future__ import annotations

import numpy as np

from jelicit.probes.config import SweepConfig
from jelicit.probes.method import EASY
from jelicit.probes.training_settings import LabelTraining

FEW = 10
"""With fewer validation items than this, the step at which training stops is chance: one item moves
the validation loss by a tenth and more. On 20 train rows a probe so stopped has been seen to rank
its own train rows worse than a coin (AUROC 0.43)."""


def doubts(config: SweepConfig, subsets: np.ndarray, *, easy_rows: int = 0) -> list[str]:
    """One line for each number of train items that is too small to be stopped early on.

    Paper A holds a share of the items out at every size, and so is it done here: its numbers are
    to be had. That they say little is told.

    Args:
        config: The settings.
        subsets: Train rows of the runs [R, N].
        easy_rows: Rows of the easy set; 0 = there is none.
    """
    methods: dict[int, list[str]] = {}
    for method in config.resolved():
        own = config.settings_of(method)
        if not isinstance(own, LabelTraining) or own.optimiser != "adamw":
            continue
        rows = easy_rows if EASY in method.needs else int(subsets.sum(axis=1).min())
        held_out = max(1, round(float(np.min(own.validation_share)) * rows))
        if rows > 0 and held_out < FEW:
            methods.setdefault(rows, []).append(method.name)
    return [_line(config, rows, names) for rows, names in methods.items()]


def _line(config: SweepConfig, rows: int, names: list[str]) -> str:
    share = float(np.min(config.validation_share))
    return (
        f"{', '.join(names)}: {max(1, round(share * rows))} of {rows} train items are held out "
        "(as paper A does), and so few choose the step at which training stops: results say "
        "little; use more train items, or the optimiser lbfgs, which holds none out"
    )
