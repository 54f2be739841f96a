"""What a study asks of a model that can be fine-tuned.

`extract.trainable.open_trainable` gives one. Items come without labels of their own and the labels
to learn beside them, so that nothing else can be learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat
from jelicit.studies.models import SizedModel


@runtime_checkable
class Tunable(Protocol):
    """A model of which others can be made by fine-tuning, beside all that a `Model` can do."""

    @property
    def training(self) -> Mapping[str, Any]:
        """All that decides what becomes of a training, as JSON: beside model, data and seed."""
        ...

    def tuned(
        self,
        items: Sequence[Item],
        labels: Sequence[bool | float | None],
        format: str | PromptFormat,
        folder: Path,
        *,
        seed: int,
        held_out: Sequence[Item],
        origin: str,
    ) -> SizedModel:
        """The model fine-tuned to give these labels after zero-shot prompts.

        Args:
            items: n items; no label of their own is read.
            labels: [n] True, False or how likely it is true; None = left out.
            format: The prompt format.
            folder: Where it is written; what is finished there is read back.
            seed: Of the training.
            held_out: What it will be tested on.
            origin: Where the labels came from, for its card.

        Raises:
            ValueError: A train item is held out.
        """
        ...


@runtime_checkable
class Foretells(Protocol):
    """A model that knows beforehand what its trainings would refuse."""

    def check_training(self, items: Sequence[Item], format: str | PromptFormat) -> None:
        """Refuses what a training would: the model, or these prompts and their verdicts.

        Raises:
            ValueError: As of `Tunable.tuned`.
        """
        ...


def check_training(model: Any, items: Sequence[Item], format: str | PromptFormat) -> None:
    """Refuses what a training would refuse when it begins; nothing is computed.

    Args:
        model: As of `trains`.
        items: Whose prompts are read; none of their labels is.
        format: How they are shown.

    Raises:
        ValueError: The model cannot be trained, or not on such prompts.
    """
    asked = trains(model)
    if isinstance(asked, Foretells):
        asked.check_training(items, format)


def trains(model: Any) -> Tunable:
    """The model, if it can be fine-tuned; of two that a study asks (`icm.Scorers`), the first.

    Raises:
        ValueError: It cannot: it is on a server, or hidden states alone are at hand.
    """
    asked = getattr(model, "model", model)
    if isinstance(asked, Tunable):
        return asked
    raise ValueError(
        f"{getattr(model, 'name', 'this model')} cannot be fine-tuned here: give a model of "
        "extract.trainable.open_trainable, which runs in this process"
    )
