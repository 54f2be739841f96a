"""E2H (paper A): the supervised fit on the labelled easy set, read on the hard one."""

import jax.numpy as jnp

from jelicit.method_groups import EASY_TO_HARD
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.supervised import fit_supervised, label_problem
from jelicit.probes.together import EASY as EASY_SET
from jelicit.probes.together import Problem, Trained
from jelicit.probes.training import TrainingInfo
from jelicit.probes.training_settings import LabelTraining, vectors_trained


def _fit(run: Run, data: Data, settings: LabelTraining) -> tuple[LinearProbe, TrainingInfo]:
    return fit_supervised(
        run.key,
        *data.easy_set(),
        validation_share=settings.validation_share,
        descent=settings.label_descent(),
    )


def _problem(run: Run, data: Data, settings: LabelTraining) -> Problem:
    _, normaliser, labels = data.easy_set()
    own = run.key, normaliser, labels, settings
    return label_problem(*own, on=EASY_SET, rows=jnp.ones_like(labels))


E2H = Method(
    name="e2h",
    title="E2H",
    group=EASY_TO_HARD,
    fit=_fit,
    trained=Trained(problem=_problem, descent=LabelTraining.label_descent, validated=True),
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=LabelTraining,
    info=TrainingInfo,
    by_subset=False,
    vectors=vectors_trained,
)
