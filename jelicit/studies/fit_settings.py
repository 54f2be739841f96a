"""How probes are fitted, as a command line says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jelicit.probes.config import SweepConfig
    from jelicit.probes.method import Method

# Written out, and probes imported on demand: a command's help need not wait for JAX.
Precision = Literal["float32", "tf32", "bfloat16"]
Divisor = Literal["paper", "norm", "burns", "std"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How probes are fitted.

    Attributes:
        precision: Of the products with the hidden states: float32, tf32 or bfloat16 (faster on
            accelerators).
        divisor: What normalises hidden states: paper, norm, burns or std; see `fit_normaliser`.
        restarts: Starts of CCS and UE+E2H; the lowest final loss wins.
        devices: Devices that share the runs; 0 takes all.
        memory_gb: What runs that are fitted together may take beside the hidden states.
    """

    precision: Precision = "float32"
    divisor: Divisor = "paper"
    restarts: int = 1
    devices: int = 1
    memory_gb: float = 2.0

    def config(self, methods: Sequence[str | Method]) -> SweepConfig:
        """The settings of a sweep over these methods.

        Raises:
            ValueError: The memory is no number above 0.
        """
        if not 0 < self.memory_gb < float("inf"):
            raise ValueError(f"--memory-gb {self.memory_gb}: allowed are numbers above 0")
        from jelicit.probes.config import SweepConfig

        return SweepConfig(
            methods=tuple(methods),
            precision=self.precision,
            divisor=self.divisor,
            restarts=self.restarts,
            devices=self.devices,
            memory_budget=int(self.memory_gb * 2**30),
        )


def crossed(
    words: Sequence[str], fit: FitSettings, methods: Sequence[str | Method] = ()
) -> dict[str, tuple[Any, ...]]:
    """The settings that a grid crosses, from words such as "easy_share=0.25,0.5".

    Args:
        words: A setting's name and its values each.
        fit: The settings of all fits; what is crossed cannot be given there, too.
        methods: The methods of the grid, whose own settings may be crossed.

    Raises:
        ValueError: An unknown setting, one that is named twice, or a value of another type.
    """
    from jelicit.probes.registry import crossable

    settings = crossable(methods)
    values_of: dict[str, tuple[Any, ...]] = {}
    given = {f.name for f in fields(fit) if getattr(fit, f.name) != f.default}
    for word in words:
        name, _, values = word.partition("=")
        if name not in settings or not values:
            raise ValueError(
                f"--settings {word}: give NAME=VALUE,VALUE,... with a name of {', '.join(settings)}"
            )
        if name in values_of or name in given:
            raise ValueError(f"{name} is given twice; name all its values in one --settings word")
        try:
            values_of[name] = tuple(settings[name].parse(text) for text in values.split(","))
        except ValueError as error:
            raise ValueError(f"--settings {word}: {error}") from error
    return values_of
