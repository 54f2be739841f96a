"""How probes are fitted, as a command line says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import Divisor

Optimiser = Literal["adamw", "lbfgs"]
Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How probes are fitted.

    Attributes:
        optimiser: adamw, as paper A has it, or lbfgs, to the optimum of the penalised loss.
        precision: Of the products with the hidden states: float32, tf32 or bfloat16 (faster on
            accelerators).
        divisor: What normalises hidden states: paper, norm, burns or std; see `fit_normaliser`.
        restarts: Starts of CCS and UE+E2H; the lowest final loss wins.
        devices: Devices that share the runs; 0 takes all.
        memory_gb: What runs that are fitted together may take beside the hidden states.
    """

    optimiser: Optimiser = "adamw"
    precision: Precision = "float32"
    divisor: Divisor = "paper"
    restarts: int = 1
    devices: int = 1
    memory_gb: float = 2.0

    def config(self, methods: Sequence[str]) -> SweepConfig:
        """The settings of a sweep over these methods."""
        return SweepConfig(
            methods=tuple(methods),
            optimiser=self.optimiser,
            precision=self.precision,
            divisor=self.divisor,
            restarts=self.restarts,
            devices=self.devices,
            memory_budget=int(self.memory_gb * 2**30),
        )


def crossed(words: Sequence[str], fit: FitSettings) -> dict[str, tuple[Any, ...]]:
    """The settings that a grid crosses, from words such as "easy_share=0.25,0.5".

    Args:
        words: A setting's name and its values each.
        fit: The settings of all fits; what is crossed cannot be given there, too.

    Raises:
        ValueError: An unknown setting, one that is named twice, or a value of another type.
    """
    from jelicit.studies.grid import SETTINGS

    found: dict[str, tuple[Any, ...]] = {}
    given = {f.name for f in fields(fit) if getattr(fit, f.name) != f.default}
    for word in words:
        name, _, values = word.partition("=")
        if name not in SETTINGS or not values:
            raise ValueError(
                f"--settings {word}: give NAME=VALUE,VALUE,... with a name of {', '.join(SETTINGS)}"
            )
        if name in found or name in given:
            raise ValueError(f"{name} is given twice; name all its values in one --settings word")
        default = getattr(SweepConfig(), name)
        found[name] = tuple(_value(name, text, default) for text in values.split(","))
    return found


_KINDS = {bool: "true or false", int: "whole numbers", float: "numbers"}
_WORDS = {
    "optimiser": get_args(Optimiser),
    "precision": get_args(Precision),
    "divisor": get_args(Divisor),
}


def _value(name: str, text: str, default: bool | int | float | str) -> bool | int | float | str:
    """A value of the default's type."""
    kind = type(default)
    if name in _WORDS and text not in _WORDS[name]:
        raise ValueError(f"--settings {name}={text}: {name} is one of {', '.join(_WORDS[name])}")
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"--settings {name}={text}: {name} takes {_KINDS[kind]}, parted by commas"
        ) from error
