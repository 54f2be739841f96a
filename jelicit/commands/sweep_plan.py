"""What a sweep works on: its stores' rows, labels, layers and grid, checked before any fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jelicit.commands.said import warn
from jelicit.commands.stores import (
    StoreRows,
    label_problems,
    layer_of,
    told_of_other_model,
    told_of_other_prompts,
)
from jelicit.commands.sweep import Sweep
from jelicit.commands.sweep_problems import crossed_settings, methods_of, orientations_of
from jelicit.data.concerns import few_rows, unmeasurable
from jelicit.probes.sweep.doubts import doubts
from jelicit.results import run_id
from jelicit.studies import scoring
from jelicit.studies.checks import refuse
from jelicit.studies.grid import Grid
from jelicit.studies.settings import fit_identity
from jelicit.studies.states import States


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep, ready to run.

    Attributes:
        options: Of the command.
        grid: What to sweep.
        train: Rows to fit on.
        test: Rows to measure on.
        easy: Rows of the easy set, or None.
        target: The label that is asked for.
        doubts: What speaks against the numbers, a line each: it was told, and is in the report.
    """

    options: Sweep
    grid: Grid
    train: StoreRows
    test: StoreRows
    easy: StoreRows | None
    target: str
    doubts: tuple[str, ...] = ()

    @property
    def others(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Further labels by name: of train and of test rows."""
        return {
            name: (self.train.labels(name), self.test.labels(name)) for name in self.options.others
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes a number of the rows, and nothing that does not."""
        options, grid = self.options, self.grid
        return {
            "experiment": "sweep",
            "target": self.target,
            "others": list(options.others),
            "seeds": options.seeds,
            "class_shares": list(options.class_shares),
            "train_size": options.train_size,
            "layers": list(grid.layers or ()),
            "crossed": {name: list(values) for name, values in grid.settings.items()},
            "orientations": list(grid.orientations),
            "boot": options.boot,
            "sweep": fit_identity(grid.base),
            "extraction": States.of_stores(self.train, self.test, self.easy).origin,
            **self._left_out,
        }

    @property
    def _left_out(self) -> dict[str, Any]:
        """Rows that the overlap policy took; what took none is no part of the identity."""
        rows = {"train": self.train, "easy": self.easy}
        ids = {name: of.left_out_ids for name, of in rows.items() if of is not None}
        return {"left_out": ids} if any(ids.values()) else {}

    @property
    def run(self) -> str:
        """The id of its rows."""
        data = f"{self.train.spec.item_digest}{self.test.spec.item_digest}"
        return run_id(self.identity, data, {"rows": scoring.ALGORITHM})


def plan_of(options: Sweep) -> SweepPlan:
    """Open the stores, hold test rows out, and check that everything fits together.

    What a reader of the results has to know is told on the way, and kept for the report.

    Raises:
        ValueError: Naming every option that does not fit the stores, or see `StoreRows`.
    """
    train, test = StoreRows.open(options.train), StoreRows.open(options.test)
    easy = None if options.easy is None else StoreRows.open(options.easy)
    asked = options.target
    target = str(train.spec.prompt_format["target"]) if asked is None else asked
    stores = [train, test, *([] if easy is None else [easy])]
    layers, wrong = _layers(options.layers, stores)
    refuse([*wrong, *_wrong_labels(options, train, test, easy, target=target)])
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        warn(line)

    for line in filter(None, _doubts(options, train, test, target)):
        tell(line)
    train = train.held_out_from(test, options.overlap, what="train", say=tell)
    if easy is not None:
        easy = easy.held_out_from(test, options.overlap, what="easy", say=tell)
    grid = _grid(options, layers)
    subsets = grid.subsets(train.labels(target))
    fitted = replace(grid.base, methods=tuple(grid.methods))
    for line in doubts(fitted, subsets, easy_rows=0 if easy is None else len(easy.items)):
        tell(line)
    parts = {"train": train, "test": test, "easy": easy}
    return SweepPlan(options=options, grid=grid, **parts, target=target, doubts=tuple(told))


def _grid(options: Sweep, layers: tuple[int, ...]) -> Grid:
    methods = methods_of(options)
    return Grid(
        methods=methods,
        seeds=range(options.seeds),
        class_shares=options.class_shares or (None,),
        train_size=options.train_size,
        settings=crossed_settings(options),
        orientations=orientations_of(options),
        base=options.fit.config(methods),
        layers=layers,
    )


def _layers(asked: Sequence[int], stores: Sequence[StoreRows]) -> tuple[tuple[int, ...], list[str]]:
    """The layers to sweep, and what is wrong with those that were asked for."""
    shared = sorted(set.intersection(*(set(rows.layers) for rows in stores)))
    if not shared:
        had = "; ".join(f"{rows.path}: {tuple(rows.layers)}" for rows in stores)
        return (), [f"the stores have no layer in common; they have {had}"]
    if not asked:
        # Embeddings of the verdict word are the same for every item.
        return tuple(layer for layer in shared if layer > 0) or (0,), []
    chosen, wrong = [], []
    for number in asked:
        try:
            layer = layer_of(number, stores[0].spec, option="--layers")
        except ValueError as error:
            wrong.append(str(error))
            continue
        if layer not in shared:
            of = f" (layer {layer})" if layer != number else ""
            wrong.append(
                f"--layers {number}{of}: the stores have in common {', '.join(map(str, shared))}"
            )
        elif layer in chosen:
            wrong.append(f"--layers {number} is layer {layer}, which is named twice")
        chosen.append(layer)
    return tuple(chosen), wrong


def _wrong_labels(
    options: Sweep, train: StoreRows, test: StoreRows, easy: StoreRows | None, *, target: str
) -> list[str]:
    wrong = label_problems("--target", target, [train, test])
    # Rows call the label that was asked for "truth".
    if {"truth", target} & set(options.others) or len(set(options.others)) < len(options.others):
        wrong.append(
            f"--others {' '.join(options.others)}: name each label once, and neither truth nor "
            f"{target}, which is measured anyway"
        )
    for name in options.others:
        wrong += label_problems("--others", name, [train, test])
    if not wrong and (why := unmeasurable(test.items, target, where=f"--test {test.path}")):
        wrong.append(why)
    if easy is not None and not np.isfinite(easy.labels("label")).any():
        wrong.append(f"--easy {easy.path}: no row has a truth value to learn from")
    return wrong


def _doubts(options: Sweep, train: StoreRows, test: StoreRows, target: str) -> Iterator[str | None]:
    """What makes measures on these test rows say little, or nothing, or something else."""
    of = f"the probes of {train.path}"
    yield told_of_other_model(test.store, options.test, train.spec, of)
    yield from told_of_other_prompts(test.store, options.test, train.spec, train.path)
    where = f"--test {test.path}"
    yield few_rows(test.items, target, where=where)
    for name in options.others:
        why = unmeasurable(test.items, name, where=where)
        yield f"{why} (--others {name})" if why else few_rows(test.items, name, where=where)
