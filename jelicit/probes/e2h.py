"""E2H (paper A): the supervised fit on the labelled easy set, read on the hard one."""

from jelicit.method_groups import EASY_TO_HARD
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.supervised import fit_supervised
from jelicit.probes.training import TrainingInfo
from jelicit.probes.training_settings import LabelTraining, vectors_trained


def _fit(run: Run, data: Data, settings: LabelTraining) -> tuple[LinearProbe, TrainingInfo]:
    return fit_supervised(
        run.key,
        *data.easy_set(),
        validation_share=settings.validation_share,
        descent=settings.label_descent(),
    )


E2H = Method(
    name="e2h",
    title="E2H",
    group=EASY_TO_HARD,
    fit=_fit,
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=LabelTraining,
    info=TrainingInfo,
    by_subset=False,
    vectors=vectors_trained,
)
