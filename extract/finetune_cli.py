"""`python -m extract finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from extract.finetune_settings import FinetuneSettings
from extract.printable import printable
from jelicit.data.datasets import Dataset, load_dataset
from jelicit.data.items import Item, label_of, load_items, with_target
from jelicit.data.prompts import get_format


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a model to give the verdict after zero-shot prompts, from labels.

    The labels are a set's own, or those of a file, as `experiments/icm.py` writes the ones that it
    found. What is left is a model for every other command: an adapter (LoRA), or the whole model.
    An interrupted training goes on where it stopped: give the same command again.

    On a set's labels: `extract finetune --dataset pocket/facts --out runs/tuned`.

    On labels found: `extract finetune --dataset pocket/facts --labels
    runs/icm/labels/pocket-facts-seed0-icm.jsonl --out runs/tuned`.
    """

    out: Path
    """Folder for the model."""
    model: str = "pocket"
    """"pocket", a Hugging Face id, a folder, or a GGUF file; no adapter."""
    dataset: str = "pocket/facts"
    """A set by name, or a folder or file of items: its train split is learnt, and its test split
    held out: no train item may have its texts or questions."""
    labels: Path | None = None
    """Items with the labels to learn (JSONL); default: the train split with the set's own."""
    format: str | None = None
    """Prompt format, which also says which label is learnt; default: the data set's first."""
    max_items: int | None = None
    """At most this many items, drawn in whole question groups. Default: all."""
    hub_root: Path | None = None
    """Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...)."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    chat: bool = False
    """Train in the model's own chat template; ask it with --chat, too, then."""
    device: str = "auto"
    """cpu, mps, cuda:0, ...; auto = a GPU if there is one."""
    threads: int | None = None
    """CPU threads."""
    settings: tyro.conf.OmitArgPrefixes[FinetuneSettings] = field(default_factory=FinetuneSettings)
    """How it is trained."""

    def main(self) -> None:
        """Trains, and prints where the model is."""
        dataset = load_dataset(
            self.dataset, max_train=self.max_items, seed=self.settings.seed, hub_root=self.hub_root
        )
        form = get_format(self.format or dataset.formats[dataset.targets[0]])
        items, labels, origin = self._to_learn(dataset, form.target)
        from extract.finetune import finetune

        folder = finetune(
            self.model,
            items,
            labels,
            form,
            self.out,
            settings=self.settings,
            held_out=dataset.test,
            origin=origin,
            revision=self.revision,
            device=self.device,
            threads=self.threads,
            chat=self.chat,
        )
        print(printable(f"{folder}: a model for every command; for example --model {folder}"))

    def _to_learn(self, dataset: Dataset, target: str) -> tuple[list[Item], list[bool | None], str]:
        """Items, their labels, and where these came from."""
        if self.labels is None:
            items = with_target(dataset.train, target)
            if not items:
                raise ValueError(
                    f"--dataset {self.dataset}: no train item has a label {target!r} to learn; "
                    "give labels with --labels FILE"
                )
            return items, [label_of(item, target) for item in items], f"{dataset.name}, its own"
        if self.max_items is not None:
            raise ValueError("--max-items is for a set's own labels: leave it out with --labels")
        items = load_items(self.labels)
        return items, [item.label for item in items], f"the file {self.labels.name}"
