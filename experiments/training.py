"""What the experiments share about training a model: how, and which model can be trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import tyro
from common import ModelSettings

from extract.finetune_settings import FinetuneSettings
from jelicit.studies.checks import given

OPENER = "extract.trainable:open_trainable"
"""What opens models that can be trained."""


@dataclass(frozen=True, kw_only=True)
class Training(FinetuneSettings):
    """How models are trained.

    Attributes:
        seed: Not asked here: that of the run.
        merge: Not asked here.
    """

    seed: tyro.conf.Suppress[int] = 0
    merge: tyro.conf.Suppress[bool] = False

    def idle(self) -> list[str]:
        """Problems of options that do nothing where nothing is trained."""
        options = given(self, [each.name for each in fields(self)])
        return [f"{option} does nothing without --finetune" for option in options]

    def open(self, run_on: ModelSettings) -> Any:
        """The model of a command, with these settings for its trainings."""
        return run_on.open(opener=OPENER, settings=self)
