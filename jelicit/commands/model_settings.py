"""What commands that ask a language model share: which one, and where compiled programs are kept.

The core opens no model: it is told by name what does (`jelicit.named`), when a command runs.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

from jelicit.commands.ending import stopping_at_once
from jelicit.named import resolve

if TYPE_CHECKING:
    from jelicit.studies.models import SizedModel

OPENER = "extract:open_model"
"""What opens models unless another function is named."""

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which language model, and how it runs.

    Attributes:
        model: "pocket" (ships with the project), a Hugging Face id such as
            meta-llama/Llama-3.1-8B, a folder, or a GGUF file.
        dtype: Of weights and hidden states: float32, float16 or bfloat16; auto = as the weights
            were saved (GGUF: float32; from 30 M parameters bfloat16 where the processor computes in
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

    def open(self, *, opener: str = OPENER, **changes: Any) -> SizedModel:
        """The model, loaded when it is first needed.

        Args:
            opener: The function that opens it, `package.module:NAME` or `file.py:NAME`; it takes
                these settings as keywords, and `say`.
            changes: Other settings of the model.

        Raises:
            ValueError: There is no such function.
        """
        with stopping_at_once():  # here, so that help does not wait for torch
            open_model = resolve(opener, FunctionType, what="opener of models")
        return open_model(**{**vars(self), **changes}, say=say)


def keep_compiled() -> None:
    """What was compiled once on this machine is read back by later runs."""
    import jax

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Whole, since the folder that a process works in may change while it compiles.
    kept = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", "runs/compiled")).absolute()
    jax.config.update("jax_compilation_cache_dir", str(kept))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def collect_rarely() -> None:
    """Python looks for cycles less often, and never among what is imported by now.

    JAX makes millions of objects while it traces, few of them in cycles.
    """
    gc.set_threshold(100_000, 50, 100)
    gc.freeze()


def say(line: str) -> None:
    """One line for the user, never wrapped: paths and run ids can be copied whole."""
    import rich

    from jelicit.data.shown import printable

    rich.get_console().print(printable(line), soft_wrap=True, markup=False, highlight=False)
