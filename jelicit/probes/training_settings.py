"""Settings that trained probes share: how they descend, on the loss of CCS or on labels."""

from __future__ import annotations

from dataclasses import dataclass

from jelicit.probes.linear import PRECISIONS
from jelicit.probes.settings import PerRun, choice, count, rate
from jelicit.probes.training import Descent


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Of every trained probe; the defaults are paper A's."""

    weight_decay: PerRun = rate(0.01, least=0, help="Of AdamW, decoupled.")
    max_gradient_norm: PerRun = rate(
        1.0, above=0, help="Of AdamW: a longer gradient is cut to this norm."
    )
    precision: str = choice(
        "float32", PRECISIONS, help="What the products with the hidden states are rounded to."
    )


@dataclass(frozen=True, kw_only=True)
class CCSTraining(TrainingSettings):
    """Of probes that are trained on the loss of CCS, alone or beside another."""

    ccs_learning_rate: PerRun = rate(0.01, above=0, help="Of CCS and UE+E2H.")
    ccs_steps: int = count(1000, help="Of CCS and UE+E2H.")
    restarts: int = count(1, help="Starts of CCS and UE+E2H; the lowest final loss wins.")

    def ccs_descent(self) -> Descent:
        """How the loss is descended: a fixed number of steps."""
        return Descent(
            learning_rate=self.ccs_learning_rate,
            weight_decay=self.weight_decay,
            max_gradient_norm=self.max_gradient_norm,
            steps=self.ccs_steps,
            precision=self.precision,
        )


@dataclass(frozen=True, kw_only=True)
class LabelTraining(TrainingSettings):
    """Of probes that are trained on labels alone, and stopped by the validation loss."""

    bce_learning_rate: PerRun = rate(0.03, above=0, help="Of E2H and supervised.")
    bce_steps: int = count(1000, help="Of E2H and supervised, at most.")
    patience: int = count(
        100,
        help="Steps without a new lowest validation loss after which E2H and supervised stop.",
    )
    validation_share: PerRun = rate(
        0.2, least=0, below=1, help="Of the items, held out by E2H and supervised."
    )

    def label_descent(self) -> Descent:
        """How the loss is descended: until validation stops it."""
        return Descent(
            learning_rate=self.bce_learning_rate,
            weight_decay=self.weight_decay,
            max_gradient_norm=self.max_gradient_norm,
            steps=self.bce_steps,
            patience=self.patience,
            precision=self.precision,
        )


def vectors_trained(settings: TrainingSettings) -> int:
    """Vectors that training holds; see `Method.vectors`."""
    # Starts are trained side by side.
    return 12 * getattr(settings, "restarts", 1)
