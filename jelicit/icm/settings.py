"""Settings of a search and its temperatures (Wen et al. 2025)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jelicit.icm.objective import Objective, Predictability
from jelicit.prompting.consistency import Rule
from jelicit.typed import typed

Schedule = Literal["log", "exp"]

DRAWS_PER_ITEM = 12
"""Most draws per item, where no number is given: the released code makes 3,000 for 256 items."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How labels are searched.

    Attributes:
        seed: Of the first labels, every order, every draw and every acceptance.
        alpha: Weight of mutual predictability in U.
        predictability: "mean" or "sum"; see `Objective`.
        rule: Consistency rule between labels of one group: answer, asymmetry, none, or one's own.
        initial: K, random labels to begin with, half of them true.
        initial_temperature: T_0, in units of U.
        final_temperature: T_min.
        schedule: "log": T_0 / (1 + beta log n), as the paper has it. "exp": T_0 beta^(n - 1). n - 1
            is the number of changes accepted so far.
        beta: How fast it cools (the released code takes 2 in the log schedule).
        fix_rounds: M, most repairs of inconsistent pairs per change.
        draws: Most items drawn; None = 12 for each item.
        patience: Stop when every item is labelled and was drawn this many times since the last
            change that was accepted. (The paper's search has no such end.)

    Raises:
        ValueError: If a value makes no sense; the message names it.
    """

    seed: int = 0
    alpha: float = 50.0
    predictability: Predictability = "mean"
    rule: str | Rule = "answer"
    initial: int = 8
    initial_temperature: float = 10.0
    final_temperature: float = 0.01
    schedule: Schedule = "log"
    beta: float = 0.99
    fix_rounds: int = 10
    draws: int | None = None
    patience: int = 1

    def __post_init__(self) -> None:
        typed(self)
        _ = self.objective  # checks its part
        least = {"seed": 0, "initial": 1, "fix_rounds": 0, "draws": 0, "patience": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} is {value}; allowed: {low} or more")
        if not self.initial_temperature >= self.final_temperature > 0:
            raise ValueError(
                f"temperatures are {self.initial_temperature} at first and "
                f"{self.final_temperature} at last; allowed: above 0, the last not above the first"
            )
        if self.schedule not in ("log", "exp"):
            raise ValueError(f"schedule is {self.schedule!r}; allowed: log, exp")
        if not self.beta > 0 or (self.schedule == "exp" and self.beta > 1):
            raise ValueError(f"beta is {self.beta}; allowed: above 0, and up to 1 in schedule exp")

    @property
    def objective(self) -> Objective:
        """What is searched for."""
        return Objective(alpha=self.alpha, predictability=self.predictability, rule=self.rule)

    def temperature(self, accepted: int) -> float:
        """T after a number of accepted changes."""
        if self.schedule == "exp":
            cooled = self.initial_temperature * self.beta**accepted
        else:
            cooled = self.initial_temperature / (1 + self.beta * math.log(accepted + 1))
        return max(self.final_temperature, cooled)

    def deciding(self) -> dict[str, Any]:
        """What decides the steps, as JSON; not how many of them there are, nor the rule."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("draws", "patience", "rule")
        }

    def most_draws(self, n_items: int) -> int:
        """Most draws for a number of items."""
        return DRAWS_PER_ITEM * n_items if self.draws is None else self.draws
