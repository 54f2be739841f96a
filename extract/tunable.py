"""A language model as studies ask for one that can be fine-tuned."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from extract.finetune_settings import ALGORITHM, FinetuneSettings
from extract.models import Dtype, LanguageModel, load
from extract.opened import OpenedModel, open_model
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat


def open_tunable(
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
) -> TunableModel:
    """A model for studies that fine-tune it, loaded when it is first needed.

    Args:
        model: As of `extract.open_model`; no adapter.
        settings: How it is trained; a study sets the seed.
        dtype: Of weights and hidden states; trainings choose their own.
        device: As of `open_model`.
        threads: As of `open_model`.
        token_budget: As of `open_model`.
        stores: As of `open_model`.
        chat: As of `open_model`; trainings show prompts in the same way.
        say: Told what was loaded and what is trained.

    Raises:
        ImportError: The libraries that train are not installed.
    """
    for name in ("peft", "accelerate"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"training needs {name} ({error}): pip install 'jelicit[train]'"
            ) from error
    how: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "token_budget": token_budget,
        "stores": stores,
        "chat": chat,
    }
    return TunableModel(model, settings or FinetuneSettings(), how, say)


class TunableModel(OpenedModel):
    """A model that can be asked, looked into and fine-tuned (`jelicit.studies.tuning`).

    Args:
        model: As the user named it.
        settings: How it is trained.
        how: Options of `open_model`.
        say: Told what is trained.
    """

    def __init__(
        self,
        model: str,
        settings: FinetuneSettings,
        how: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._model, self._settings, self._how, self._told = model, settings, how, say
        opened = open_model(model, **how, say=say)
        super().__init__(
            self._loaded,
            how["stores"].rstrip("/"),
            token_budget=how["token_budget"],
            trained_length=opened.trained_length,
            foresee=lambda: opened.foreseen,  # type: ignore[arg-type, return-value]
        )

    def _loaded(self) -> LanguageModel:
        names = ("dtype", "device", "threads", "chat")
        lm = load(self._model, **{name: self._how[name] for name in names})
        self._told(lm.describe())
        return lm

    @property
    def training(self) -> Mapping[str, Any]:
        """All that decides what becomes of a training, beside model, data and seed."""
        left_out = ("seed", "save_every", "merge")
        kept = {k: v for k, v in asdict(self._settings).items() if k not in left_out}
        return {"algorithm": ALGORITHM, **kept}

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

        names = ("device", "threads", "chat")
        made = finetune(
            self._model,
            items,
            labels,
            format,
            folder,
            settings=replace(self._settings, seed=seed),
            held_out=held_out,
            origin=origin,
            say=lambda line: None,
            **{name: self._how[name] for name in names},
        )
        return open_model(str(made), **self._how, say=lambda line: None)
