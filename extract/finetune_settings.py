"""How a model is fine-tuned: settings alone, so that a command's help waits for no library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

ALGORITHM = 2
"""Raised when the same settings and data lead to another model than before."""

ALL_BELOW = 30_000_000
"""Parameters below which all weights are trained unless settings say otherwise."""

RATES = {"lora": 2e-4, "all": 1e-5, "all of a small model": 5e-4}
"""Learning rates where none is given.

Of a small model: five epochs at 1e-4 did not teach the pocket model 128 labels that were turned
round; ten at 5e-4 did (96 labels, batches of 16), and left it as good as it was where labels were
right, which 1e-3 did not on arithmetic."""

Weights = Literal["auto", "lora", "all"]
Loss = Literal["vocabulary", "verdicts"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a model is fine-tuned.

    Attributes:
        weights: Which weights change: lora (an adapter of all linear layers), all, or auto: all
            below 30 M parameters, else lora.
        loss: vocabulary = cross-entropy over all tokens, as language models are trained, after
            which the verdict is also what the model says; verdicts = over the two verdict words
            alone, which is all that truth scores look at.
        epochs: Times that every item is shown.
        batch_size: Items of an optimiser's step.
        at_once: Items of a forward pass, where a whole batch does not fit the memory; None = all.
        learning_rate: Its peak; None = 2e-4 for an adapter, 1e-5 for all weights, 5e-4 for those
            of a small model (below 30 M parameters).
        weight_decay: Of AdamW.
        warmup: Share of the steps in which the rate rises; from then on it falls, to 0.
        rank: Of the adapter (LoRA's r; its alpha is twice that).
        merge: Write the whole model with the adapter merged into it, not the adapter alone.
        seed: Of the adapter's first weights and the order of the items.
        save_every: Steps between checkpoints, from which a killed training goes on.

    Raises:
        ValueError: If a value makes no sense; the message names it.
    """

    weights: Weights = "auto"
    loss: Loss = "vocabulary"
    epochs: int = 10
    batch_size: int = 16
    at_once: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.1
    warmup: float = 0.15
    rank: int = 8
    merge: bool = False
    seed: int = 0
    save_every: int = 50

    def __post_init__(self) -> None:
        for name, allowed in (("weights", Weights), ("loss", Loss)):
            if (value := getattr(self, name)) not in get_args(allowed):
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(get_args(allowed))}")
        least = {"epochs": 1, "batch_size": 1, "at_once": 1, "rank": 1, "seed": 0, "save_every": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} is {value}; allowed: {low} or more")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; allowed: above 0, or None")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; allowed: from 0 to below 1")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; allowed: 0 or more")
        if self.at_once is not None and self.batch_size % self.at_once:
            raise ValueError(
                f"at_once is {self.at_once}, but batch_size {self.batch_size} is no multiple of "
                "it; choose one that divides it"
            )

    def fitting(self, n_parameters: int) -> FinetuneSettings:
        """With what was left to the model: which weights, and the rate."""
        weights, small = self.weights, n_parameters < ALL_BELOW
        if weights == "auto":
            weights = "all" if small else "lora"
        if weights == "all" and self.merge:
            raise ValueError("merge does nothing where all weights are trained: leave it out")
        kind = "all of a small model" if weights == "all" and small else weights
        rate = RATES[kind] if self.learning_rate is None else self.learning_rate
        return replace(self, weights=weights, learning_rate=rate)
