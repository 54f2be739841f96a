"""Several models in the place of one, for studies that compare them: one is in memory at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from jelicit.studies.model import Model
from jelicit.studies.settings import SHORT

POCKET, OTHERS = "pocket models", "language models"


class Foreseen(Protocol):
    """What is known of a model before it is loaded."""

    @property
    def source(self) -> str:
        """As the user named it: an id or a path."""
        ...

    @property
    def name(self) -> str:
        """What rows will call it."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of its files; None where they are not here."""
        ...

    @property
    def digest(self) -> str | None:
        """Of its files; None where they are not here. Reads all of them."""
        ...


class SizedModel(Model, Protocol):
    """A model that says how large it is, and can be put away."""

    @property
    def foreseen(self) -> Foreseen | None:
        """What is known of it before it is loaded; None = nothing is."""
        ...

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

    def check_different(self) -> None:
        """Refuses two models of one name, or of the same files, as far as paths tell.

        Files are read only where two models have as many bytes. What only loading tells is found
        out by `in_turn`.

        Raises:
            ValueError: Naming both as the user did.
        """
        foreseen = [known for model in self.models if (known := model.foreseen) is not None]
        for first, second in combinations(foreseen, 2):
            both = f"{first.source} and {second.source}"
            if first.name == second.name:
                raise ValueError(
                    f"{both} are both called {first.name!r}, and rows tell models apart by name: "
                    "rename a folder or file, or leave one out"
                )
            # Reading gigabytes is worth it only where sizes do not tell.
            alike = first.size is not None and first.size == second.size
            if alike and first.digest == second.digest:
                raise ValueError(f"{both} are the same model, byte for byte: leave one out")

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
