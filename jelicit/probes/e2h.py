"""E2H (paper A): the supervised fit on the labelled easy set, read on the hard one."""

import jax
import jax.numpy as jnp

from jelicit.method_groups import EASY_TO_HARD
from jelicit.probes import together
from jelicit.probes.linear import LinearProbe
from jelicit.probes.losses import bce_loss
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.supervised import fit_supervised, validation_rows
from jelicit.probes.training import TrainingInfo
from jelicit.probes.training_settings import LabelTraining, vectors_trained


def _fit(run: Run, data: Data, settings: LabelTraining) -> tuple[LinearProbe, TrainingInfo]:
    return fit_supervised(
        run.key,
        *data.easy_set(),
        validation_share=settings.validation_share,
        descent=settings.label_descent(),
    )


def _problem(run: Run, data: Data, settings: LabelTraining) -> together.Problem:
    _, normaliser, targets = data.easy_set()
    key_start, key_split = jax.random.split(run.key)
    every = jnp.ones_like(targets)
    held_out = validation_rows(key_split, every, share=settings.validation_share)
    train, validation = every * ~held_out, every * held_out
    return together.Problem(
        key=key_start,
        descent=settings.label_descent(),
        reads={together.EASY: normaliser},
        losses=lambda signs: (
            bce_loss(*signs[together.EASY], targets, train),
            bce_loss(*signs[together.EASY], targets, validation),
        ),
        validated=True,
    )


E2H = Method(
    name="e2h",
    title="E2H",
    group=EASY_TO_HARD,
    fit=_fit,
    trained=together.Trained(problem=_problem, descent=LabelTraining.label_descent, validated=True),
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=LabelTraining,
    info=TrainingInfo,
    by_subset=False,
    vectors=vectors_trained,
)
