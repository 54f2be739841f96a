"""What a study asks of a language model: hidden states of items, and scores of prompts.

`extract.open_model` gives one for any model of the Hugging Face hub, a folder, or the pocket model;
`Cases` stands for a model of which only hidden states are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat
from jelicit.prompting import Scorer
from jelicit.studies.situation import Situation
from jelicit.studies.states import States, Store


class Prompted(Protocol):
    """A model that can be asked."""

    @property
    def name(self) -> str:
        """What rows call it."""
        ...

    @property
    def trained_length(self) -> int | None:
        """Longest text that it was trained on, in tokens; None where nothing says so."""
        ...

    def scorer(self, *, progress: bool = False) -> Scorer:
        """The model as a scorer of prompts, with a bar for every call if progress is wanted."""
        ...


class Model(Prompted, Protocol):
    """A model that can be asked and looked into."""

    def scorer(
        self, *, progress: bool = False, match: Literal["words", "tokens"] = "words"
    ) -> Scorer:
        """The model as a scorer of prompts, with a bar for every call if progress is wanted.

        Args:
            progress: Whether it is.
            match: What counts as a verdict: every spelling of the word, or its own tokens alone,
                which are what the stores' `log_probs` are of.
        """
        ...

    @property
    def n_blocks(self) -> int:
        """Blocks; hidden states have the indices 0 (embeddings) to n_blocks."""
        ...

    def store(
        self,
        name: str,
        items: Sequence[Item],
        format: str | PromptFormat,
        layers: Sequence[int] | None,
    ) -> Store:
        """Activations of these items under a prompt format: made, or read where they are.

        Args:
            name: For whoever looks at the folder; two sets of items may share it.
            items: What to extract.
            format: The prompt format.
            layers: Hidden-state indices; None = all.
        """
        ...


@dataclass(frozen=True)
class Cases:
    """Hidden states of one's own in the place of a model: situations, each with its states.

    A study then measures these situations, whatever its settings say of sets and layers. Nobody can
    be asked, so there are no prompting methods.

    Attributes:
        cases: (situation, states) each.
        name: What rows call the model.
    """

    cases: Sequence[tuple[Situation, States]]
    name: str = "arrays"

    def states(self, situation: Situation) -> States:
        """The states of one of the situations."""
        return next(states for own, states in self.cases if own is situation)
