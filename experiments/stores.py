"""Activations behind the experiments: stores that are made when missing, easy sets, the layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from common import forget, say, slug
from study_settings import FitSettings, ModelSettings, identity

from extract.hidden_states import LAYOUT, extract
from extract.local_scorer import LocalScorer
from extract.models import LanguageModel, load
from jelicit.activations import ActivationStore
from jelicit.commands.progress import progress
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, digest, with_target
from jelicit.data.prompts import get_format
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.results import Results, run_id
from jelicit.studies import evaluation
from jelicit.version import __version__


class Extractor:
    """Activation stores of one model, made when they are missing."""

    def __init__(self, settings: ModelSettings):
        self.settings = settings

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded when it is first asked for."""
        s = self.settings
        lm = load(s.model, dtype=s.dtype, device=s.device, threads=s.threads)
        say(lm.describe())
        return lm

    def scorer(self, *, progress: bool = False) -> LocalScorer:
        """The model as a scorer of prompts, with a bar for every call if progress is wanted."""
        budget = self.settings.token_budget
        return LocalScorer(self.lm, token_budget=budget, progress=progress)

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
        kept = self.settings.stores.rstrip("/")
        folder = f"{kept}/{slug(self.lm.name)}/{slug(name)}-{slug(format)}-{key}"
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
    fits: Path,
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
        fits: Where finished fits are kept until the choice is made.
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
        with progress(f"{name}: CCS at every layer") as report:
            areas = evaluation.ccs_by_layer(
                *(hard, label),
                subsets=subsets,
                seeds=seeds,
                config=config,
                store=FitStore(fits),
                report=report,
            )
        results.write(run, [{"layer": at, "auroc": area} for at, area in areas.items()], chosen)
        forget(fits)
    areas = results.read(run).set_index("layer")["auroc"].to_dict()
    # A fit that failed has no AUROC.
    best = max(areas, key=lambda at: np.nan_to_num(areas[at], nan=-1.0))
    shown = ", ".join(f"{layer}: {area:.2f}" for layer, area in areas.items())
    say(f"{name}: layer {best} (best CCS AUROC on train rows without a feature; by layer {shown})")
    return int(best)


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
