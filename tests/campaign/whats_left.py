"""What a command leaves on the disk, in a form in which two runs of it can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jelicit.probes.files import load_probe

TIMES = {"seconds", "created", "when"}
"""Fields that differ between two undisturbed runs, too."""


def left(folder: Path) -> dict[str, Any]:
    """Every file by its path within the folder, read; a probe or a checkpoint is one thing."""
    things: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_probe(path):
            things[name] = _probe(path)
        elif re.fullmatch(r"(.*/)?checkpoints/[^/]+", name):
            things[name] = "a checkpoint"  # its weights are compared by what the run ends with
        elif path.is_file() and not re.search(r"(^|/)(probes|checkpoints)/[^/]+/", name):
            things[name] = _READ.get(path.suffix, Path.read_bytes)(path)
    return things


def differences(undisturbed: dict[str, Any], disturbed: dict[str, Any]) -> list[str]:
    """One line for everything that is not alike."""
    lines = [f"{name} is missing" for name in undisturbed if name not in disturbed]
    lines += [f"{name} is too much" for name in disturbed if name not in undisturbed]
    for name in undisturbed.keys() & disturbed.keys():
        if not _alike(undisturbed[name], disturbed[name]):
            lines.append(f"{name} differs")
    return sorted(lines)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return one == other


def _is_probe(path: Path) -> bool:
    return path.is_dir() and path.parent.name == "probes" and not path.name.startswith(".")


def _probe(path: Path) -> dict[str, Any]:
    fitted = load_probe(path)
    return {
        "weight": np.asarray(fitted.probe.weight),
        "bias": np.asarray(fitted.probe.bias),
        "settings": dict(fitted.settings),
    }


def _frame(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    return frame.drop(columns=[name for name in frame.columns if name in TIMES])


def _json(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return path.read_bytes()
    return {k: v for k, v in value.items() if k not in TIMES} if isinstance(value, dict) else value


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _drawn(path: Path) -> str:
    """Pages and figures hold times and ids that are drawn: that they are whole is what counts."""
    end = {".html": b"</html>", ".svg": b"</svg>", ".png": b"IEND\xaeB`\x82"}[path.suffix]
    return "whole" if path.read_bytes().rstrip().endswith(end) else "cut"


_READ: dict[str, Callable[[Path], Any]] = {
    ".parquet": _frame,
    ".json": _json,
    ".npz": _arrays,
    **dict.fromkeys((".html", ".svg", ".png"), _drawn),
}
