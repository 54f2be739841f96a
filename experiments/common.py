"""What the experiments share: the model, its activation stores, and where results go."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import rich

from extract.hidden_states import extract
from extract.models import LanguageModel, load
from jelicit.activations import ActivationStore
from jelicit.data.items import Item, digest
from jelicit.data.prompts import FORMATS

console = rich.get_console()


def prepare() -> None:
    """Settings of the process that every experiment wants; call before any computing."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Compiled once per machine: later runs of the same shapes start at once.
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "runs/compiled")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def slug(name: str) -> str:
    """A name as part of a path: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which language model, and how it runs.

    Attributes:
        model: "pocket" (ships with the project), a Hugging Face id such as
            meta-llama/Llama-3.1-8B, or a folder.
        dtype: Of weights and hidden states; auto = as the weights were saved.
        device: auto = a GPU if there is one; "spread" splits a large model over all GPUs.
        threads: CPU threads of the extraction; None = chosen by the size of the model.
        token_budget: Tokens per forward pass. Lower it when the device runs out of memory.
        stores: Where activations are kept; they are reused between runs.
    """

    model: str = "pocket"
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    token_budget: int = 8192
    stores: Path = Path("runs/stores")


class Extractor:
    """Activation stores of one model, made when they are missing."""

    def __init__(self, settings: ModelSettings):
        self.settings = settings

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        s = self.settings
        lm = load(s.model, dtype=s.dtype, device=s.device, threads=s.threads)  # type: ignore[arg-type]
        console.print(lm.describe())
        return lm

    def store(
        self, name: str, items: Sequence[Item], format: str, layers: Sequence[int] | str
    ) -> ActivationStore:
        """The store of these items under this prompt format; extracted if it is not there."""
        layers_name = layers if isinstance(layers, str) else "-".join(map(str, layers))
        folder = (
            self.settings.stores
            / f"{slug(self.settings.model)}-{self.lm.digest[:8]}"
            / f"{slug(name)}-{slug(format)}-{layers_name}-{digest(items)[:12]}"
        )
        return extract(
            self.lm,
            items,
            FORMATS[format],
            folder,
            layers="all" if layers == "all" else tuple(int(layer) for layer in layers),
            token_budget=self.settings.token_budget,
        )


def as_settings(value: object) -> dict[str, object]:
    """A settings dataclass as plain values, for result rows and run ids."""
    assert dataclasses.is_dataclass(value)
    assert not isinstance(value, type)
    return {
        key: str(item) if isinstance(item, Path) else item
        for key, item in dataclasses.asdict(value).items()
    }
