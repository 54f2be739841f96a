"""What the experiments share: the model, its activation stores, the easy set, error messages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import rich
import tyro

from extract.hidden_states import LAYOUT, extract
from extract.models import LanguageModel, load
from jelicit import __version__, evaluation
from jelicit.activations import ActivationStore
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, digest, with_target
from jelicit.data.prompts import get_format
from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import Divisor
from jelicit.results import Results, run_id

console = rich.get_console()
Settings = TypeVar("Settings")


def start(main: Callable[[Settings], None], settings: type[Settings], *, about: str | None) -> None:
    """Read the command line and run an experiment; a user's mistake ends in one line, not a trace.

    Args:
        main: The experiment.
        settings: Its settings, a dataclass.
        about: Help text above the options.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What was compiled once on this machine is read back by later runs.
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", "runs/compiled")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    given = tyro.cli(settings, description=about)
    try:
        main(given)
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def say(line: str) -> None:
    """One line for the user, never wrapped: paths and run ids can be copied whole."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def machine() -> str:
    """The device that JAX computes on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'' if cores == 1 else 's'}"


def slug(name: str) -> str:
    """A name as part of a path: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which language model, and how it runs.

    Attributes:
        model: "pocket" (ships with the project), a Hugging Face id such as
            meta-llama/Llama-3.1-8B, or a folder.
        dtype: Of weights and hidden states: auto (as the weights were saved), float32, float16 or
            bfloat16.
        device: auto = a GPU if there is one; "spread" splits a large model over all GPUs.
        threads: CPU threads of the extraction; None = chosen by the size of the model.
        token_budget: Tokens per forward pass; None = 2048 on a CPU, else 8192.
        stores: Where activations are kept; they are reused between runs.
    """

    model: str = "pocket"
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    token_budget: int | None = None
    stores: Path = Path("runs/stores")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How probes are fitted.

    Attributes:
        optimiser: adamw, as paper A has it, or lbfgs, to the optimum of the penalised loss.
        precision: Of the products with the hidden states: float32, tf32 or bfloat16 (faster on
            accelerators).
        divisor: What normalises hidden states: paper, norm, burns or std; see `fit_normaliser`.
        restarts: Starts of CCS and UE+E2H; the lowest final loss wins.
        devices: Devices that share the runs; 0 takes all.
        memory_gb: What runs that are fitted together may take beside the hidden states.
    """

    optimiser: Literal["adamw", "lbfgs"] = "adamw"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    divisor: Divisor = "paper"
    restarts: int = 1
    devices: int = 1
    memory_gb: float = 2.0

    def config(self, methods: Sequence[str]) -> SweepConfig:
        """The settings of a sweep over these methods."""
        return SweepConfig(
            methods=tuple(methods),
            optimiser=self.optimiser,
            precision=self.precision,
            divisor=self.divisor,
            restarts=self.restarts,
            devices=self.devices,
            memory_budget=int(self.memory_gb * 2**30),
        )


def identity(config: SweepConfig) -> dict[str, Any]:
    """The settings of a sweep that change its numbers."""
    return {k: v for k, v in asdict(config).items() if k not in ("devices", "memory_budget")}


class Extractor:
    """Activation stores of one model, made when they are missing."""

    def __init__(self, settings: ModelSettings):
        self.settings = settings

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        s = self.settings
        lm = load(s.model, dtype=s.dtype, device=s.device, threads=s.threads)  # type: ignore[arg-type]
        say(lm.describe())
        return lm

    def store(
        self, name: str, items: Sequence[Item], format: str, layers: Sequence[int] | None
    ) -> ActivationStore:
        """The store of these items under this prompt format; extracted if it is not there.

        Args:
            name: For the folder's name.
            items: What to extract.
            format: Name of the prompt format.
            layers: Hidden-state indices; None = all.
        """
        # Every setting that changes the numbers is in the folder's name: another setting is
        # another store, never a refusal.
        made_by = {
            "model": self.lm.digest,
            "dtype": self.lm.dtype,
            "device": self.lm.device,
            "token_budget": self.settings.token_budget,
            "format": vars(get_format(format)),
            "layers": None if layers is None else list(layers),
            "items": digest(items),
            "layout": LAYOUT,
        }
        key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.settings.stores / slug(self.lm.name) / f"{slug(name)}-{slug(format)}-{key}"
        return extract(
            self.lm,
            items,
            get_format(format),
            folder,
            layers="all" if layers is None else tuple(layers),
            token_budget=self.settings.token_budget,
        )


@dataclass(frozen=True, kw_only=True)
class EasySet:
    """The labelled set that easy-to-hard methods learn from: plain items, their own prompt."""

    name: str
    items: tuple[Item, ...]
    format: str


def easy_set(name: str | None, *, task: str, max_rows: int) -> EasySet | None:
    """Load the easy labelled set.

    Args:
        name: A set's name or folder; None or "none" for no easy set.
        task: Name of the set that is tested: it cannot be its own easy set.
        max_rows: Most rows.

    Raises:
        ValueError: The easy set is the task itself, or has no labelled item.
        ConnectionError: It is on the hub, and the hub cannot be reached.
    """
    if name in (None, "none"):
        return None
    try:
        dataset = load_dataset(name, max_train=max_rows)
    except ConnectionError as error:
        raise ConnectionError(
            f"{error}\n  The easy set {name!r} of {task} is needed by easy-to-hard methods and the "
            "easy orientation: name another one (--easy pocket/larger_than, --easy FOLDER), or do "
            "without (--easy none)"
        ) from error
    if dataset.name == task:
        raise ValueError(
            f"the easy set of {task} is {task} itself: its labels would teach the very task; name "
            "another one with --easy, or --easy none"
        )
    target = dataset.targets[0]
    items = tuple(with_target(dataset.train, target))
    if target != "label" or not items:
        raise ValueError(f"easy set {name!r} has no items with a truth value; choose another one")
    return EasySet(name=dataset.name, items=items, format=dataset.formats[target])


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The activations behind one measurement; `easy` is None where there is no easy set."""

    train: ActivationStore
    test: ActivationStore
    easy: ActivationStore | None

    def identity(self) -> dict[str, Any]:
        """What made them, for the identity of the rows that come from them."""
        return {
            "train": extraction(self.train),
            "test": extraction(self.test),
            "easy": None if self.easy is None else extraction(self.easy),
        }


def extract_stores(
    extractor: Extractor,
    name: str,
    train: Sequence[Item],
    test: Sequence[Item],
    easy: EasySet | None,
    *,
    format: str,
    layers: Sequence[int],
) -> Stores:
    """Activations of train, test and easy rows at some layers."""
    return Stores(
        train=extractor.store(f"{name}-train", train, format, layers),
        test=extractor.store(f"{name}-test", test, format, layers),
        easy=None
        if easy is None
        else extractor.store(f"easy-{easy.name}", easy.items, easy.format, layers),
    )


def choose_layer(
    store: ActivationStore,
    label: np.ndarray,
    *,
    subsets: np.ndarray,
    seeds: np.ndarray,
    fit: FitSettings,
    results: Results,
    name: str,
) -> int:
    """The layer of the best CCS AUROC on plain train rows; read back where it was found before.

    Args:
        store: All layers of the train rows as they are.
        label: Their labels: the choice is an oracle.
        subsets: The rows of each run, bool [R, N].
        seeds: The seed of each run.
        fit: How probes are fitted.
        results: Where choices are kept.
        name: Of the set, for the message.
    """
    config = fit.config(["ccs"])
    chosen = {
        "choice": "CCS AUROC on plain train rows",
        "extraction": extraction(store),
        "seeds": seeds.tolist(),
        "subsets": hashlib.sha256(np.packbits(subsets).tobytes()).hexdigest(),
        "sweep": identity(config),
    }
    run = run_id(chosen, store.spec.item_digest, __version__)
    if not results.has(run):
        hard = {layer: store.pairs(layer) for layer in store.spec.layers if layer > 0}
        areas = evaluation.ccs_by_layer(hard, label, subsets=subsets, seeds=seeds, config=config)
        results.write(run, [{"layer": at, "auroc": area} for at, area in areas.items()], chosen)
    areas = results.read(run).set_index("layer")["auroc"].to_dict()
    best = max(areas, key=areas.__getitem__)
    shown = ", ".join(f"{layer}: {area:.2f}" for layer, area in areas.items())
    say(f"{name}: layer {best} (best CCS AUROC on train rows without a feature; by layer {shown})")
    return int(best)


def layer_problems(layers: Sequence[str]) -> list[str]:
    """Problems of --layers: "best" alone, or numbers."""
    numbers = [layer.lstrip("-").isdecimal() for layer in layers]
    if tuple(layers) == ("best",) or (numbers and all(numbers)):
        return []
    return [f"--layers {' '.join(layers)}: give numbers, or best alone"]


def too_small(values: Sequence[tuple[str, int, int]]) -> list[str]:
    """Problems of options (name, value, least) that are below what they allow."""
    return [
        f"{option} {value}: allowed are whole numbers from {least}"
        for option, value, least in values
        if value < least
    ]


def refuse(problems: Sequence[str]) -> None:
    """One error for everything that is wrong with the settings.

    Raises:
        ValueError: There is a problem.
    """
    if problems:
        raise ValueError("; ".join(problems))


def unknown(option: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Problems of an option whose values come from a list: unknown or repeated ones."""
    wrong = [name for name in given if name not in known]
    found = [f"{option} {' '.join(wrong)} is unknown; known: {', '.join(known)}"] if wrong else []
    if len(set(given)) < len(given):
        found.append(f"{option} names {' '.join(given)}: name each once")
    return found if given else [f"{option} is empty; choose from {', '.join(known)}"]


def same_names(names: Sequence[str]) -> list[str]:
    """Problem of two sets under one name, as two folders of the same last name are."""
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"two sets are called {', '.join(twice)}; rename a folder"] if twice else []


def extraction(store: ActivationStore) -> dict[str, Any]:
    """What made a store, for the identity of the rows that come from it."""
    spec = store.spec
    return {
        "model": spec.model,
        "revision": spec.revision,
        "model_digest": spec.model_digest,
        "dtype": spec.dtype,
        "prompt_format": dict(spec.prompt_format),
        "settings": dict(spec.settings),
        "machine": dict(spec.machine),
        "versions": dict(spec.versions),
        "items": spec.item_digest,
    }
