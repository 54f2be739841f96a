"""Several models in the place of one, for studies that compare them: one is in memory at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jelicit.studies.model import Model
from jelicit.studies.settings import SHORT

POCKET, OTHERS = "pocket models", "language models"


class SizedModel(Model, Protocol):
    """A model that says how large it is, and can be put away."""

    @property
    def n_parameters(self) -> int:
        """Its parameters; tied ones count once."""
        ...

    def release(self) -> None:
        """Give its memory back; whoever asks it again waits until it is loaded again."""
        ...


@dataclass(frozen=True)
class Models:
    """Models that a study compares, in the order in which they are asked.

    Attributes:
        models: At least one; no two may share a name.
    """

    models: Sequence[SizedModel]

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("there is no model to compare; give at least one")

    @property
    def name(self) -> str:
        """What messages call them."""
        return f"{len(self.models)} models"

    def in_turn(self) -> Generator[SizedModel]:
        """The models one by one; each is put away when the next one is asked for, and at the end.

        Raises:
            ValueError: When a model comes that is called as one before it.
        """
        names: set[str] = set()
        for model in self.models:
            try:
                if model.name in names:
                    raise ValueError(
                        f"two models are called {model.name!r}, and rows tell models apart by "
                        "name: rename a folder or file"
                    )
                names.add(model.name)
                yield model
            finally:
                model.release()


def family_of(model: Model) -> str:
    """The series that a model belongs to: pocket models, or all others.

    Pocket models say how long the texts were that they were trained on.
    """
    length = model.trained_length
    return POCKET if length is not None and length < SHORT else OTHERS
