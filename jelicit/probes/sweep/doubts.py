"""What a reader of fits has to know of them: before they are made, and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jelicit.probes.config import SweepConfig
from jelicit.probes.method import EASY
from jelicit.probes.sweep.result import SweepResult
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
        if not isinstance(own, LabelTraining):
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
        "little; use more train items"
    )


def unsigned(config: SweepConfig, subsets: np.ndarray, labels: np.ndarray) -> list[str]:
    """A line if train labels cannot pick the sign of some directions, since all are alike.

    Args:
        config: Which methods.
        subsets: Train rows of the runs [R, N].
        labels: Of the rows [N]: 1, 0, or nan for no truth value.
    """
    free = [method.name for method in config.resolved() if method.free_sign]
    alike = sum(len(np.unique(seen[~np.isnan(seen)])) < 2 for seen in (labels[r] for r in subsets))
    if not free or not alike:
        return []
    return [
        f"{', '.join(free)}: in {alike} of {len(subsets)} runs all train labels are alike and pick "
        "no sign (oracle): a direction keeps the one that it came with, and an AUROC far below 0.5 "
        "is the truth turned round"
    ]


def failures(fits: SweepResult, about: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each method some of whose fits ended in no numbers, with what these share.

    Args:
        fits: The fits.
        about: What sets the runs apart [R]: seeds and settings.
    """
    lines = []
    for method in fits.methods:
        lost = ~np.asarray(fits.info[method].finite)  # [layers, R]
        if not lost.any():
            continue
        layers, runs = np.atleast_1d(lost.any(axis=1)), np.atleast_1d(lost.any(axis=0))
        at = [str(layer) for layer, failed in zip(fits.layers, layers, strict=True) if failed]
        where = f"layer{'s' * (len(at) > 1)} {' '.join(at)}"
        shared = _shared(about, runs)
        lines.append(
            f"{method}, {where}: {lost.sum()} of {lost.size} fits ended in numbers that are not "
            f"finite{shared and f' ({shared})'}: they have no scores and no AUROC (training "
            "diverged: a lower learning rate helps; or all rows are alike)"
        )
    return lines


def _shared(about: Sequence[Mapping[str, Any]], failed: np.ndarray) -> str:
    """The settings that all runs that failed have in common, and that others have otherwise."""
    settings = {name: [run[name] for run in about] for name in about[0] if name != "seed"}
    words = []
    for name, values in settings.items():
        of_failed = {value for value, lost in zip(values, failed, strict=True) if lost}
        if len(of_failed) == 1 < len(set(values)):
            value = of_failed.pop()
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)
