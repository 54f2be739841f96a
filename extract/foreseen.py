"""What is known of a model before it is loaded: its name, and whether another one is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from extract import gguf_file
from extract.digests import digest_of_paths, files_of
from extract.models import folder_name, local_folder


@dataclass(frozen=True)
class Foreseen:
    """A model that was named and not yet loaded.

    Attributes:
        source: As the user named it.
        name: What rows will call it, without a mark for its chat template.
        files: What it is made of; none of a model on the hub.
    """

    source: str
    name: str
    files: tuple[Path, ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of its files; None on the hub. Models of other sizes are others."""
        return sum(path.stat().st_size for path in self.files) if self.files else None

    @property
    def digest(self) -> str | None:
        """That of the loaded model, which reads all of its files; None on the hub."""
        if (file := gguf_file.find_gguf(self.source)) is not None:
            return gguf_file.sha256_of(file)
        return digest_of_paths(self.files) if self.files else None


def foresee(model: str) -> Foreseen:
    """What is known of a model by its name or path alone.

    Args:
        model: As of `extract.models.load`.

    Raises:
        FileNotFoundError: If a folder was meant, but it holds no model.
        ValueError: If it is a file, or a folder of files, of another kind.
    """
    if (file := gguf_file.find_gguf(model)) is not None:
        return Foreseen(model, gguf_file.name_of(model, file), (file,))
    if (folder := local_folder(model)) is None:
        return Foreseen(model, model)
    name = "pocket" if model == "pocket" else folder_name(folder.resolve())
    return Foreseen(model, name, tuple(files_of(folder)))
