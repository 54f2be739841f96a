"""`jelicit datasets`: which sets there are, and what each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from jelicit.commands.ending import stopping_at_once

if TYPE_CHECKING:
    from jelicit.data.datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """Say which data sets there are, or describe some of them.

    Without names: all named sets. With names, folders or files (JSONL, CSV, TSV, JSON, Parquet):
    rows, groups, share of true labels, how much every other label says of the label, and the AUROC
    of bare length, split by split. What length alone can tell, no method deserves credit for.

    For example: `jelicit datasets pocket/facts pocket/comments`.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which sets: pocket/..., a set of the hub, a folder or file, or file.py:SET."""
    show: int = 0
    """Test items to print of each."""
    hub_root: Path | None = None
    """Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...), or a clone
    of geometry-of-truth; the hub is not asked for sets then."""

    def main(self) -> None:
        """Prints the sets.

        Raises:
            ValueError: A set that cannot be read; --show that shows nothing; or --hub-root that
                is no folder, or that no set reads.
        """
        with stopping_at_once():
            from jelicit.commands.said import say
            from jelicit.data.datasets import known_names

        if self.show < 0:
            raise ValueError(f"--show {self.show}: allowed are whole numbers from 0")
        if self.hub_root is not None:
            _check_read(self.hub_root, self.names)
        if self.names:
            _describe([_load(name, self.hub_root) for name in self.names], self.show)
            return
        if self.show:
            raise ValueError(
                f"--show {self.show} shows items of the sets that are named: jelicit datasets NAME"
            )
        for name in known_names():
            say(name)
        say(
            "or a folder with train.jsonl and test.jsonl, or a file (JSONL, CSV, TSV, JSON, "
            "Parquet); describe: jelicit datasets NAME..."
        )


def _check_read(hub_root: Path, names: Sequence[str]) -> None:
    from jelicit.data.datasets import reads_mirror

    if not hub_root.is_dir():
        raise ValueError(f"--hub-root {hub_root}: there is no such folder")
    if not any(map(reads_mirror, names)):
        raise ValueError(
            f"--hub-root {hub_root} does nothing without the name of a set of the hub, or of one "
            "of the tables of Marks and Tegmark: name one, or leave it out"
        )


def _load(name: str, hub_root: Path | None) -> Dataset:
    from jelicit.data.datasets import load_dataset, reads_mirror

    return load_dataset(name, hub_root=hub_root if reads_mirror(name) else None)


def _describe(sets: Sequence[Dataset], show: int) -> None:
    from rich.console import Console

    from jelicit.commands.said import say
    from jelicit.data.concerns import concerns
    from jelicit.data.describe import describe, table
    from jelicit.data.prompts import zero_shot

    Console().print(table([row for dataset in sets for row in describe(dataset)]))
    for dataset in sets:
        for line in (*dataset.notes, *concerns(dataset)):
            say(f"{dataset.name}: {line}")
    for dataset in sets:
        form = next(iter(dataset.formats.values()))
        for item in dataset.test[:show]:
            say(f"--- {item.id}, label {item.label}\n{zero_shot(item, form)}")
