"""Command line: `python -m extract run|info|verify|card`."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jelicit.activations import ActivationStore
from jelicit.data.datasets import load_dataset
from jelicit.data.features import add_feature
from jelicit.data.items import Item
from jelicit.data.prompts import get_format


@dataclass(frozen=True, kw_only=True)
class Run:
    """Write the hidden states of contrast pairs to disk (an activation store).

    Each item is shown twice, with the true and with the false verdict appended. Kept are the hidden
    states at the last token, per layer, and the log-probabilities of both verdicts. Probes are
    fitted on the store, without the model. An interrupted run goes on where it stopped: give the
    same command again.

    A small one, on a CPU: `extract run --dataset pocket/larger_than --features sycophancy`.

    The paper's: `extract run --model meta-llama/Llama-3.1-8B --dataset gsm8k --layers 18`.
    """

    model: str = "pocket"
    """"pocket" (ships with the package, runs on a CPU), a Hugging Face id, or a folder."""
    dataset: str = "pocket/arithmetic"
    """"pocket/<kind>", a hub set such as gsm8k or liar, or a folder or file of items in JSONL."""
    split: Literal["train", "valid", "test"] = "train"
    """Which part of the data set. Normalisers and probes are fitted on train rows."""
    features: tuple[str, ...] = ()
    """Spurious features to add, in order: sycophancy, punctuation, tense. None by default."""
    format: str | None = None
    """Prompt format, which also says which label is asked for; default: the data set's first."""
    layers: tuple[int, ...] = ()
    """Hidden states to keep: 0 = embeddings, l = after block l, the last = after the final norm;
    negative ones count from the end. Default: all (each costs 2 * items * width numbers)."""
    out: Path | None = None
    """Folder of the store; default: activations/<model>_<dataset>_<split>_<features>_<format>."""
    max_items: int | None = None
    """At most this many items, drawn in whole question groups. Default: all."""
    seed: int = 0
    """Seed of that draw and of the features' values."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of weights and hidden states. auto = as the weights were saved; float16 may overflow."""
    device: str = "auto"
    """cpu, cuda:0, ...; auto = a GPU if there is one; spread = one model over all GPUs."""
    threads: int | None = None
    """CPU threads. Default: 1 for small models, which are slower with more, else one per core
    that this process may use."""
    token_budget: int = 8192
    """Most tokens in a batch, padding included. Lower it when memory runs out."""
    shard_size: int = 512
    """Items per file: what an interrupted run may lose."""
    method: Literal["auto", "shared", "separate"] = "auto"
    """shared = read each prompt once and both verdicts from its cache; separate = twice."""

    def main(self) -> None:
        """Loads items and model, extracts, and prints what was written."""
        from extract.hidden_states import extract
        from extract.models import load

        items, format_name = self.items()
        lm = load(
            self.model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
        )
        out = self.out or Path("activations") / default_name(
            self.model, self.dataset, self.split, *self.features, format_name
        )
        print(f"{lm.describe()}\n{len(items)} items in the format {format_name!r} -> {out}")
        number, count = _worker()
        store = extract(
            lm,
            items,
            get_format(format_name),
            out,
            layers=self.layers or "all",
            token_budget=self.token_budget,
            shard_size=self.shard_size,
            method=self.method,
            worker=(number, count),
            progress=number == 0,
        )
        state = "complete" if store.complete else "this worker is done, others are not"
        print(f"{out}: {state}; look at it with `python -m extract info {out}`")

    def items(self) -> tuple[list[Item], str]:
        """The items with features, and the name of the prompt format."""
        if self.split == "valid" and self.max_items is not None:
            raise ValueError("max_items is for the splits train and test")
        dataset = load_dataset(
            self.dataset,
            seed=self.seed,
            max_train=self.max_items if self.split == "train" else None,
            max_test=self.max_items if self.split == "test" else None,
        )
        items = list(getattr(dataset, self.split))
        if not items:
            raise ValueError(f"{self.dataset} has no {self.split} items")
        for feature in self.features:
            items = add_feature(items, feature, seed=self.seed)
        return items, self.format or next(iter(dataset.formats.values()))


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show what a store holds, and numbers that tell whether the model understood the prompts."""

    store: Annotated[Path, tyro.conf.Positional]
    """Folder of the store."""

    def main(self) -> None:
        """Prints two tables."""
        store = ActivationStore.open(self.store)
        console = Console()
        console.print(_facts(store))
        if store.complete:
            console.print(_norms(store))


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read every byte of a store and compare it with the checksums in its manifest."""

    store: Annotated[Path, tyro.conf.Positional]
    """Folder of the store."""

    def main(self) -> None:
        """Prints one line; a damaged store is an error."""
        store = ActivationStore.open(self.store)
        store.verify()
        shards = len(store.spec.shards)
        print(f"{self.store}: {shards} shard(s) and {len(store)} items are as they were written")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Measure what a pocket model knows and write its card (card.json, README.md) beside it.

    Accuracy zero-shot and few-shot, probes and salience at every layer, shortcuts of the world: all
    on held-out questions.
    """

    model: str = "pocket"
    """"pocket" (the one that ships) or a folder that experiments/pretrain_pocket.py exported."""
    beside: tuple[Path, ...] = ()
    """Other exported models (seeds, sizes, the ablation) to measure for the table of runs."""
    larger_than: Path | None = None
    """Folder of the real larger_than set; without it that number is left out."""
    out: Path | None = None
    """Where to write; default: the model's own folder."""

    def main(self) -> None:
        """Measures, writes, and prints what was missed."""
        from extract import card

        folders = [card.model_folder(str(model)) for model in (self.model, *self.beside)]
        found = [card.measure_card(f, larger_than=self.larger_than) for f in folders]
        out = self.out or folders[0]
        out.mkdir(parents=True, exist_ok=True)
        card.write(out, found[0], found[1:])
        print("\n".join(card.verdicts(found[0])))
        print(f"{out / 'README.md'} and {out / 'card.json'}: written")


def default_name(*parts: str) -> str:
    """A folder name made of the parts: letters, digits, "-", "." and "_" only, no leading dot."""
    clean = (re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-.") for part in parts)
    return "_".join(part for part in clean if part)


def _worker() -> tuple[int, int]:
    """Number of this process and their count, under `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _facts(store: ActivationStore) -> Table:
    spec, texts = store.spec, store.spec.texts
    lengths = texts.get("prompt_tokens", {})
    table = Table(title=str(store.folder), show_header=False)
    rows = {
        "model": f"{spec.model} {spec.revision[:12]}".strip(),
        "prompt format": spec.prompt_format.get("name", "?"),
        "items": str(len(store)),
        "shards": f"{len(spec.shards)}, complete" if store.complete else _incomplete(store),
        "layers": f"{_span(spec.layers)} of 0..{spec.n_blocks}, width {spec.d_model}, {spec.dtype}",
        "size": f"{store.size / 1e6:.1f} MB",
        "prompt tokens": f"{lengths.get('least')} to {lengths.get('most')}, "
        f"median {lengths.get('median')}",
        "beyond trained length": f"{texts.get('beyond_trained_length')} prompts "
        f"(trained length: {texts.get('trained_length') or 'not known'})",
        "letters spelled in bytes": f"{texts.get('byte_share', float('nan')):.1%}",
        "batches": ", ".join(f"{key} {value}" for key, value in spec.settings.items()),
        "made on": ", ".join(f"{key} {value}" for key, value in spec.machine.items()),
    }
    if store.complete:
        mass = np.exp(store.log_probs.astype(np.float64)).sum(1).mean()
        rows["verdict mass"] = f"{mass:.3f} (mean of P(true) + P(false); near 0: wrong prompt)"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _incomplete(store: ActivationStore) -> str:
    missing = store.missing()
    return f"{len(store.spec.shards)}, INCOMPLETE: {missing or 'not finished'}; run it again"


def _span(layers: tuple[int, ...]) -> str:
    if len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}..{layers[-1]}"
    return ", ".join(map(str, layers))


def _norms(store: ActivationStore) -> Table:
    table = Table(title="mean norm of the hidden states")
    for column in ("layer", "phi+", "phi-", "phi+ - phi-"):
        table.add_column(column, justify="right")
    for layer in store.layers:
        pairs = store.pairs(layer)
        pos, neg = np.asarray(pairs.pos), np.asarray(pairs.neg)
        norms = (np.linalg.norm(x, axis=1).mean() for x in (pos, neg, pos - neg))
        table.add_row(str(layer), *(f"{norm:.4g}" for norm in norms))
    return table


def main() -> None:
    """Runs the command; a user's mistake ends in one line on stderr and exit code 1."""
    command = tyro.cli(Run | Info | Verify | Card, prog="python -m extract", description=__doc__)  # type: ignore[arg-type]
    try:
        command.main()
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
