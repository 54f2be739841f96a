"""`jelicit export`: labels that were found, in the shapes that trainers take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jelicit.commands.ending import stopping_at_once

if TYPE_CHECKING:
    from jelicit.data.items import Item


@dataclass(frozen=True, kw_only=True)
class Export:
    """Hand labels on to trainers: as JSON lines, or as a data set of Hugging Face's.

    Takes files of items with labels (JSONL), as `experiments/icm.py` writes those that it found.
    Only texts and these labels go along, no gold label; where they came from is written beside.

    For example: `jelicit export runs/icm/labels/pocket-pairs-seed0-icm.jsonl --shape pairs --out
    pairs.jsonl`.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files of labelled items."""
    out: Path
    """A file that ends in .jsonl, or a new folder (for `datasets.load_from_disk`)."""
    shape: Literal["items", "verdicts", "pairs"] = "verdicts"
    """verdicts: prompt, completion and label; pairs: prompt, chosen and rejected, of pairs or of
    true and false claims of one question; items: as files of sets have them."""
    format: str | None = None
    """Prompt format of verdicts; default: that of the set that the items name."""

    def main(self) -> None:
        """Writes, and prints what.

        Raises:
            ValueError: Files without labels, or of which nothing of this shape can be made; or
                --out that cannot be written.
        """
        with stopping_at_once():
            from jelicit.commands.outputs import check_out_file
            from jelicit.commands.said import say
            from jelicit.data.export import default_format, export_rows, provenance, write_rows
            from jelicit.data.prompts import get_format
            from jelicit.disk import check_out_folder

        if self.out.suffix == ".jsonl":
            check_out_file(self.out, such_as="labels.jsonl")
        else:
            check_out_folder(self.out.parent)
        items = self._items()
        rows, left_out = export_rows(items, self.shape, format=self.format)
        form = None
        if self.shape == "verdicts":
            form = get_format(
                self.format or default_format(next(i for i in items if i.label is not None))
            )
        about = provenance(self.files, rows, self.shape, left_out=left_out, format=form)
        account = write_rows(self.out, rows, about)
        left = f"; {left_out} items are in none" if left_out else ""
        say(f"{self.out}: {len(rows)} rows of the shape {self.shape}{left}")
        say(f"{account}: where they came from")

    def _items(self) -> list[Item]:
        """The items of all files, each id once.

        Raises:
            ValueError: There is no file, or two have a row of the same id.
        """
        from jelicit.data.items import load_items
        from jelicit.data.shown import shown

        if not self.files:
            raise ValueError("name at least one file of labelled items (JSONL)")
        items = [item for path in self.files for item in load_items(path)]
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ValueError(
                    f"two of the files have a row {shown(item.id)}: labels of several seeds or "
                    "methods are exported one by one"
                )
            seen.add(item.id)
        return items
