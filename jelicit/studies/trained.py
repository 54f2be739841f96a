"""What studies of training ask of a model beside its scores: reward models, and policies.

`extract.trainable.open_trainable` gives one for any model of the Hugging Face hub, a folder, or the
pocket model. Whatever is trained lies in a folder; what is there already is read back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jelicit.data.preferences import Comparison
from jelicit.studies.model import Prompted


class Reward(Protocol):
    """A reward model."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def rewards(self, questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Rewards [n] of answers, each to its question; -inf where there is no text."""
        ...

    def release(self) -> None:
        """Give its memory back; it is loaded again when it is asked for again."""
        ...


class Answers(Protocol):
    """Answers to q questions, n of each."""

    @property
    def answers(self) -> list[list[str]]:
        """The texts [q, n]."""
        ...

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each [q, n]."""
        ...

    @property
    def kl(self) -> np.ndarray:
        """Divergence from the start along each [q, n], in nats; nan where none was given."""
        ...


class Answering(Protocol):
    """A model that answers questions."""

    def sample(
        self, questions: Sequence[str], *, n: int, seed: int, start: Any, **options: Any
    ) -> Answers:
        """Answers to questions; see `extract.policy.Policy.sample`."""
        ...


class Trainable(Prompted, Protocol):
    """A model that can be asked and trained.

    Trainings read comparisons, or questions and a reward model, and nothing else: no item, and so
    no label that is not theirs.
    """

    def reward_model(
        self,
        comparisons: Sequence[Comparison],
        folder: Path,
        *,
        about: Mapping[str, Any],
        **fit: Any,
    ) -> Reward:
        """A reward model trained from comparisons; `fit` as of `extract.reward.RewardFit`."""
        ...

    def open_reward(self, folder: Path) -> Any:
        """A reward model that was made before, as of `reward_model`, with its digest."""
        ...

    def start(self, asked: str) -> Answering:
        """The model as it is; `asked` says how a question is put."""
        ...

    def policy(
        self,
        questions: Sequence[str],
        reward: Reward,
        folder: Path,
        *,
        about: Mapping[str, Any],
        **fit: Any,
    ) -> Answering:
        """A policy optimised against a reward model; `fit` as of `extract.policy.PolicyFit`."""
        ...


def check_trainable(model: Any, study: str) -> None:
    """Refuses models that cannot be trained here.

    Raises:
        ValueError: This is one: hidden states, or a model behind a server.
    """
    if not hasattr(model, "reward_model"):
        raise ValueError(
            f"{study} trains the model, and {getattr(model, 'name', 'this one')} cannot be trained "
            "here: give one of extract.trainable.open_trainable"
        )
