"""What the libraries' trainers are told: where they compute, in what, how fast, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from extract import dtype_trial
from extract.finetune_settings import ALL_BELOW
from extract.models import LanguageModel

CHECKPOINTS = 10
"""Times that a training is written to disk, from which it goes on if it is killed."""

RANK = 16
"""Of LoRA, where no rank is given and the model is no small one."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How weights are fitted; what is None is left to the model.

    Attributes:
        seed: Of the new weights, the order of rows, and everything that is drawn.
        learning_rate: Of AdamW, at its highest; it rises over the first tenth of the steps, where
            there are ten or more, and falls to 0 in a line. None = 3e-4 for models below 30 M
            parameters, else 1e-4 with LoRA and 1e-5 without.
        batch: Rows of one step.
        rank: Of LoRA (on all linear layers); 0 = all weights are trained; None = all for models
            below 30 M parameters, else 16.

    Raises:
        ValueError: A value that makes no sense; the message names it.
    """

    seed: int = 0
    learning_rate: float | None = None
    batch: int = 16
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; allowed: above 0, or None")
        least = {"seed": 0, "batch": 1, "rank": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} is {value}; allowed: {low} or more")

    def lora(self, lm: LanguageModel) -> int:
        """The rank of LoRA for a model; 0 = all weights."""
        if self.rank is not None:
            return self.rank
        return 0 if lm.n_parameters < ALL_BELOW else RANK

    def rate(self, lm: LanguageModel) -> float:
        """The learning rate for a model."""
        if self.learning_rate is not None:
            return self.learning_rate
        if lm.n_parameters < ALL_BELOW:
            return 3e-4
        return 1e-4 if self.lora(lm) else 1e-5

    def arguments(self, lm: LanguageModel, steps: int) -> dict[str, Any]:
        """What all trainers of the library take.

        Args:
            lm: The model.
            steps: How many there will be.
        """
        return {
            **library_arguments(lm),
            "seed": self.seed,
            "data_seed": self.seed,
            "learning_rate": self.rate(lm),
            "lr_scheduler_type": "linear",
            # The first step of a rise is at rate 0: of a few steps it would be a large part.
            "warmup_steps": steps // 10,
            "per_device_train_batch_size": self.batch,
            # None, not False: the library warns of every value but that.
            "gradient_checkpointing": True if lm.n_parameters > 1_000_000_000 else None,
            "save_steps": max(1, steps // CHECKPOINTS),
        }


def precision_of(lm: LanguageModel) -> str:
    """What the passes of a model's training compute in; its weights stay in float32.

    16 bits on an NVIDIA GPU, and bfloat16 on a CPU that multiplies tiles of it (AMX). No trial
    decides: the same command on the same machine shall train the same weights, and go on where it
    was killed, however busy the machine is. Models below 30 M parameters are float32 on every CPU:
    they gain little, and give the same numbers on all of them.
    """
    if lm.device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    large = lm.n_parameters >= ALL_BELOW
    return "bfloat16" if lm.device == "cpu" and large and dtype_trial.has_tiles() else "float32"


def library_arguments(lm: LanguageModel) -> dict[str, Any]:
    """What every trainer is told, whatever it trains: where it computes, in what, and no words."""
    precision, device = precision_of(lm), lm.device
    return {
        "bf16": precision == "bfloat16",
        "fp16": precision == "float16",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device.startswith("cuda"),
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,  # a bar of our own, which says what is trained
        "save_strategy": "steps",
        "save_total_limit": 2,
    }


def on_one_gpu(arguments: Any) -> Any:
    """A trainer's arguments, with one GPU: of several, each would take a batch of its own.

    Several GPUs are for `accelerate launch`, which starts a process for each.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def lora_config(rank: int, task: str) -> Any:
    """LoRA on all linear layers; None for rank 0."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type=task
    )
