"""A language model that studies of training ask for: hidden states, scores, and what it is taught.

Each training is a library's, loaded when the first one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from extract.finetune_settings import ALGORITHM, FinetuneSettings
from extract.models import Dtype
from extract.opened import OpenedModel, open_model
from jelicit.data.items import Item
from jelicit.data.preferences import Comparison
from jelicit.data.prompts import PromptFormat, get_format


def open_trainable(
    model: str = "pocket",
    *,
    settings: FinetuneSettings | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    threads: int | None = None,
    token_budget: int | None = None,
    stores: str = "runs/stores",
    chat: bool | None = False,
    say: Callable[[str], None] = print,
) -> TrainableModel:
    """A model for studies that train it, loaded when it is first needed.

    Args:
        model: As of `extract.open_model`; to be fine-tuned, no adapter.
        settings: How it is fine-tuned; a study sets the seed. Reward models and policies are
            trained as the study says.
        dtype: Of weights and hidden states; trainings choose their own.
        device: As of `open_model`.
        threads: As of `open_model`.
        token_budget: As of `open_model`.
        stores: As of `open_model`.
        chat: As of `open_model`; fine-tuning shows prompts in the same way.
        say: Told what was loaded.

    Raises:
        ImportError: The libraries that train are not installed.
    """
    from extract.training_run import require_training

    require_training()
    how: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "token_budget": token_budget,
        "stores": stores,
        "chat": chat,
    }
    opened = open_model(model, **how, say=say)
    return TrainableModel(opened, model, settings or FinetuneSettings(), how)


class TrainableModel(OpenedModel):
    """A model that can be asked, looked into and trained.

    It is `jelicit.studies.tuning.Tunable` and `jelicit.studies.trained.Trainable`.

    Args:
        opened: The model as it is.
        named: What the user called it.
        settings: How it is fine-tuned.
        how: Options of `open_model`, for the models that are fine-tuned.
    """

    def __init__(
        self,
        opened: OpenedModel,
        named: str,
        settings: FinetuneSettings,
        how: Mapping[str, Any],
    ) -> None:
        super().__init__(
            opened._load,
            opened._stores,
            token_budget=opened._token_budget,
            trained_length=opened.trained_length,
            foresee=opened._foresee,
        )
        self._named, self._settings, self._how = named, settings, how

    @property
    def training(self) -> Mapping[str, Any]:
        """All that decides what becomes of a fine-tuning, beside model, data and seed."""
        left_out = ("seed", "save_every", "merge")
        kept = {k: v for k, v in asdict(self._settings).items() if k not in left_out}
        return {"algorithm": ALGORITHM, **kept}

    def check_training(self, items: Sequence[Item], format: str | PromptFormat) -> None:
        """Refuses what a fine-tuning would: this model, or these prompts and their verdicts.

        Raises:
            ValueError: As of `extract.finetune.finetune`.
        """
        from extract.finetune import refuse_adapter
        from extract.verdict_data import examples_of

        refuse_adapter(self.lm, named=self._named)
        examples_of(self.lm, items, [0.0] * len(items), get_format(format))

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
    ) -> OpenedModel:
        """The model fine-tuned to give these labels; see `extract.finetune.finetune`."""
        from extract.finetune import finetune

        made = finetune(
            self._named,
            items,
            labels,
            format,
            folder,
            settings=replace(self._settings, seed=seed),
            held_out=held_out,
            origin=origin,
            say=lambda line: None,
            **{name: self._how[name] for name in ("device", "threads", "chat")},
        )
        return open_model(str(made), **self._how, say=lambda line: None)

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

        return train_reward(self.lm, comparisons, folder, RewardFit(**fit), about=about)

    def open_reward(self, folder: Path) -> Any:
        """A reward model that was made before; it runs where this model does."""
        from extract.reward import open_reward

        return open_reward(folder, device=self.lm.device)

    def start(self, asked: str) -> Any:
        """The model as it is; `asked` says how a question is put."""
        from extract.policy import start_policy

        return start_policy(self.lm, asked)

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

        return train_policy(self.lm, questions, reward, folder, PolicyFit(**fit), about=about)
