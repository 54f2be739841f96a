"""A language model as studies ask for one: stores of hidden states, and a scorer of prompts."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property

from extract.foreseen import Foreseen, foresee
from extract.hidden_states import LAYOUT, extract
from extract.local_scorer import LocalScorer
from extract.models import Dtype, LanguageModel, load, trained_length
from extract.verdicts import Match
from jelicit.activations import ActivationStore
from jelicit.data.items import Item, digest
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.named import slug


def open_model(
    model: str = "pocket",
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    threads: int | None = None,
    token_budget: int | None = None,
    stores: str = "runs/stores",
    chat: bool | None = False,
    say: Callable[[str], None] = print,
) -> OpenedModel:
    """A model for `jelicit.studies`, loaded when it is first needed.

    Args:
        model: "pocket" (ships with the project), a Hugging Face id such as
            meta-llama/Llama-3.1-8B, a folder, or a GGUF file.
        dtype: Of weights and hidden states; auto = as the weights were saved (GGUF: float32; from
            30 M parameters bfloat16 where the processor computes in it).
        device: auto = a GPU if there is one; "spread" splits a large model over all GPUs.
        threads: CPU threads; None = one for a small model, else all.
        token_budget: Tokens per forward pass; None = 2048 on a CPU, else 8192.
        stores: Folder or URL where activations are kept; they are reused.
        chat: Put the model's own chat template around every prompt (`extract.chat`): for models
            tuned for chat. None = where it has one.
        say: Told what was loaded.
    """

    def loaded() -> LanguageModel:
        lm = load(model, dtype=dtype, device=device, threads=threads, chat=chat)
        say(lm.describe())
        return lm

    return OpenedModel(
        loaded,
        stores.rstrip("/"),
        token_budget=token_budget,
        trained_length=trained_length(model),
        foresee=lambda: foresee(model),
    )


class OpenedModel:
    """Activation stores of one model, made when they are missing, and its scorer.

    Args:
        load: Gives the model when it is first asked for.
        stores: Folder or URL where activations are kept.
        token_budget: Tokens per forward pass; None = 2048 on a CPU, else 8192.
        trained_length: Longest text that it was trained on, in tokens, if anything says so.
        foresee: Gives what is known of it without loading it; None = nothing is.
    """

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        stores: str,
        *,
        token_budget: int | None = None,
        trained_length: int | None = None,
        foresee: Callable[[], Foreseen] | None = None,
    ):
        self._load, self._stores, self._token_budget = load, stores, token_budget
        self.trained_length, self._foresee = trained_length, foresee

    @property
    def foreseen(self) -> Foreseen | None:
        """What is known of it before it is loaded; None = nothing is."""
        return None if self._foresee is None else self._foresee()

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        return self._load()

    @property
    def name(self) -> str:
        """What rows call it."""
        return self.lm.name if self.lm.chat is None else f"{self.lm.name} (chat)"

    @property
    def n_blocks(self) -> int:
        """Blocks; hidden states have the indices 0 (embeddings) to n_blocks."""
        return self.lm.n_blocks

    @property
    def n_parameters(self) -> int:
        """Its parameters; tied ones count once."""
        return self.lm.n_parameters

    def release(self) -> None:
        """Give the model's memory back; it is loaded again when it is asked for again."""
        self.__dict__.pop("lm", None)
        gc.collect()

    def scorer(self, *, progress: bool = False, match: Match = "words") -> LocalScorer:
        """The model as a scorer of prompts, with a bar for every call if progress is wanted.

        Args:
            progress: Whether it is.
            match: What counts as a verdict (`LocalScorer`); `log_probs` of stores are of "tokens".
        """
        return LocalScorer(self.lm, match=match, token_budget=self._token_budget, progress=progress)

    def store(
        self,
        name: str,
        items: Sequence[Item],
        format: str | PromptFormat,
        layers: Sequence[int] | None,
    ) -> ActivationStore:
        """The store of these items under this prompt format; extracted if it is not there.

        Args:
            name: For the folder's name.
            items: What to extract.
            format: The prompt format.
            layers: Hidden-state indices; None = all.
        """
        form = get_format(format)
        # Every setting that changes the numbers is in the folder's name: another setting is
        # another store, never a refusal.
        made_by = {
            "model": self.lm.digest,
            "dtype": self.lm.dtype,
            "device": self.lm.device,
            "token_budget": self._token_budget,
            "format": vars(form),
            "layers": None if layers is None else list(layers),
            "items": digest(items),
            "layout": LAYOUT,
            **({} if self.lm.chat is None else {"chat": self.lm.chat.digest}),
        }
        key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
        folder = f"{self._stores}/{slug(self.lm.name)}/{slug(name)}-{slug(form.name)}-{key}"
        return extract(
            self.lm,
            items,
            form,
            folder,
            layers="all" if layers is None else tuple(layers),
            token_budget=self._token_budget,
        )
