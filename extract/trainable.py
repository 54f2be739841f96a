"""A language model that studies of training ask for: scores, reward models, policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.models import Dtype
from extract.opened import OpenedModel, open_model
from jelicit.data.preferences import Comparison


class TrainableModel:
    """A model that can be asked and trained; see `jelicit.studies.trained.Trainable`.

    Args:
        opened: The model, loaded when it is first needed.
    """

    def __init__(self, opened: OpenedModel):
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        # Stores, scorers and names are those of the model.
        if name == "_opened":
            raise AttributeError(name)
        return getattr(self._opened, name)

    def reward_model(
        self,
        comparisons: Sequence[Comparison],
        folder: Path,
        *,
        about: Mapping[str, Any],
        **fit: Any,
    ) -> Any:
        """A reward model trained from comparisons; `fit` as of `extract.reward.RewardFit`."""
        from extract.reward import RewardFit, train_reward

        return train_reward(self._opened.lm, comparisons, folder, RewardFit(**fit), about=about)

    def start(self, asked: str) -> Any:
        """The model as it is; `asked` says how a question is put."""
        from extract.policy import start_policy

        return start_policy(self._opened.lm, asked)

    def policy(
        self,
        questions: Sequence[str],
        reward: Any,
        folder: Path,
        *,
        about: Mapping[str, Any],
        **fit: Any,
    ) -> Any:
        """A policy optimised against a reward model; `fit` as of `extract.policy.PolicyFit`."""
        from extract.policy import PolicyFit, train_policy

        return train_policy(
            self._opened.lm, questions, reward, folder, PolicyFit(**fit), about=about
        )


def open_trainable(
    model: str = "pocket",
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    threads: int | None = None,
    token_budget: int | None = None,
    stores: str = "runs/stores",
    chat: bool | None = False,
    say: Callable[[str], None] = print,
) -> TrainableModel:
    """A model that can be trained, loaded when it is first needed; arguments as of `open_model`.

    Raises:
        ImportError: The libraries for training are not installed.
    """
    from extract.training_run import require_training

    require_training()
    return TrainableModel(
        open_model(
            model,
            dtype=dtype,
            device=device,
            threads=threads,
            token_budget=token_budget,
            stores=stores,
            chat=chat,
            say=say,
        )
    )
