"""What the experiments share: the start of a command, and the model that studies run on."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jelicit.commands.gpu_memory import take_as_needed

take_as_needed()

import jax
import rich
import tyro

from jelicit.commands.ending import ending_in_one_line, stopping_at_once
from jelicit.data.shown import printable
from jelicit.studies.checks import empty_value
from jelicit.studies.study import Study, StudyResult

if TYPE_CHECKING:
    from extract.opened import OpenedModel

console = rich.get_console()
Settings = TypeVar("Settings")
Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which language model, and how it runs.

    Attributes:
        model: "pocket" (ships with the project), a Hugging Face id such as
            meta-llama/Llama-3.1-8B, a folder, or a GGUF file.
        dtype: Of weights and hidden states: float32, float16 or bfloat16; auto = as the weights
            were saved (GGUF: float32; from 1 B parameters bfloat16 where the processor computes in
            it).
        device: auto = a GPU if there is one (NVIDIA's or Apple's, which torch calls cuda and mps);
            "spread" splits a large model over all GPUs.
        threads: CPU threads of the language model; None = one for a small model, which is slow with
            more where other programs run (and, in ICM, 1.7 times as fast with 2 where none does).
        token_budget: Tokens per forward pass; None = 2048 on a CPU, else 8192.
        stores: Folder or URL (s3://..., gs://...) where activations are kept; they are reused
            between runs.
        chat: Put the model's own chat template around every prompt: for models tuned for chat.
    """

    model: str = "pocket"
    dtype: Dtype = "auto"
    device: str = "auto"
    threads: int | None = None
    token_budget: int | None = None
    stores: str = "runs/stores"
    chat: bool = False

    def open(self, **changes: Any) -> OpenedModel:
        """The model, loaded when it is first needed; `changes` are other settings of it."""
        with stopping_at_once():  # here, so that help does not wait for torch
            from extract import open_model

        return open_model(**{**vars(self), **changes}, say=say)


def start(main: Callable[[Settings], Any], settings: type[Settings], *, about: str | None) -> None:
    """Read the command line and run an experiment; a user's mistake ends in one line, not a trace.

    Args:
        main: The experiment.
        settings: Its settings, a dataclass.
        about: Help text above the options.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What was compiled once on this machine is read back by later runs.
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", "runs/compiled")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with ending_in_one_line():
        with stopping_at_once():
            refuse_empty_words(sys.argv[1:])
            given = tyro.cli(settings, description=about)
        main(given)


def refuse_empty_words(words: Sequence[str]) -> None:
    """Refuse empty texts among the words of a command: of a path, one becomes ".".

    Raises:
        ValueError: There is one; the message names the option.
    """
    option = ""
    for word in words:
        if word.startswith("--"):
            option, sign, value = word.partition("=")
            if not sign or value:
                continue
        elif word:
            continue
        raise ValueError(empty_value(option or "the command line"))


def ask(study: Study, model: Any, settings: Any) -> StudyResult:
    """Run a study with the settings of this command."""
    command = shlex.join(["python", f"experiments/{study.name}.py", *sys.argv[1:]])
    return study.run(model, settings, console=console, command=command)


def say(line: str) -> None:
    """One line for the user, never wrapped: paths and run ids can be copied whole."""
    console.print(printable(line), soft_wrap=True, markup=False, highlight=False)
