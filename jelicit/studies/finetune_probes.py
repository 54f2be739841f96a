"""Probes on the hidden states of a model before and after it was fine-tuned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jelicit.studies import scoring
from jelicit.studies.fit_settings import FitSettings
from jelicit.studies.icm_run import Run
from jelicit.studies.icm_tasks import drawn
from jelicit.studies.measuring import Measured, measure
from jelicit.studies.model import Model
from jelicit.studies.situation import Runs
from jelicit.studies.states import States


def check_layer(settings: Any, model: Model) -> None:
    """Refuses a layer that the model does not have.

    Raises:
        ValueError: Saying which it has.
    """
    if settings.probes and (settings.layer or 0) > (blocks := model.n_blocks):
        raise ValueError(
            f"--layer {settings.layer}: {model.name} has {blocks} blocks, so allowed are 0 "
            f"(embeddings) to {blocks} (after the final norm)"
        )


def layer_of(model: Model, run: Run) -> int:
    """The layer that was asked for, or the best one for CCS in a model, the same for every seed.

    The choice looks at the train labels of seed 0, so it is an ORACLE.

    Args:
        model: The model before it is trained.
        run: Whose settings and set.
    """
    settings, situation = run.session.settings, run.task.situation
    if settings.layer is not None:
        return settings.layer
    items = drawn(situation.train, settings.n, seed=0)
    store = model.store(f"{situation.dataset}-layers", items, situation.format, None)
    areas = scoring.ccs_by_layer(
        {layer: store.pairs(layer) for layer in store.layers if layer > 0},
        replace(situation, train=items).asked,
        subsets=np.ones((1, len(items)), bool),
        seeds=np.zeros(1, int),
        config=FitSettings().config(["ccs"]),
    )
    # A fit that failed has no AUROC.
    return int(max(areas, key=lambda layer: np.nan_to_num(areas[layer], nan=-1.0)))


def probes_of(model: Model, run: Run, suffix: str, *, layer: int) -> Measured:
    """Rows of probes on the hidden states of a run's items, as a model has them.

    Args:
        model: The model.
        run: Its items are the train rows; no probe but a supervised one sees a label.
        suffix: What follows a probe's name in rows.
        layer: Which hidden states.
    """
    settings = run.session.settings
    situation = replace(run.task.situation, train=run.pool.items)
    stores = (
        model.store(f"{situation.dataset}-{split}", items, situation.format, (layer,))
        for split, items in (("pool", situation.train), ("test", situation.test))
    )
    every = np.ones((1, len(situation.train)), bool)
    measured = measure(
        situation,
        Runs(about=({"seed": run.seed},), subsets=every),
        States.of_stores(*stores),
        FitSettings().config(settings.probes),
        orientations=("oracle",),
        boot=settings.boot,
        names={name: f"{name}{suffix}" for name in settings.probes},
    )
    # One run each: seeds are put together by whoever has them all.
    measured.scores = [(about, scores[0]) for about, scores in measured.scores]
    return measured
