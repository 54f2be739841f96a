"""A study of one's own: does a probe keep the truth when train rows are few?

from extract import open_model
from own_study import FEW_ROWS

result = FEW_ROWS.run(open_model("pocket"), methods=("ccs", "supervised"), layers=("3",))
result.report("few-rows.html")
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from jelicit import load_dataset
from jelicit.results import print_sweep
from jelicit.studies.model import Cases
from jelicit.studies.sets import asking
from jelicit.studies.settings import StudySettings
from jelicit.studies.situation import Runs
from jelicit.studies.study import Study


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    dataset: tuple[str, ...] = ("pocket/arithmetic",)
    sizes: tuple[int, ...] = (8, 32, 128)


def plan(settings, session):
    if isinstance(session.model, Cases):  # hidden states of one's own
        return [situation for situation, _ in session.model.cases]
    rows = settings.max_rows
    sets = [load_dataset(name, max_train=rows, max_test=rows) for name in settings.dataset]
    return [asking(dataset, "label", session) for dataset in sets]


def measure(situations, session):
    sizes, seeds = session.settings.sizes, session.settings.seeds
    for situation in situations:
        drawn = [Runs.balanced(situation, seeds, size=size) for size in sizes]
        about = [{"size": s, **run} for s, of in zip(sizes, drawn, strict=True) for run in of.about]
        runs = Runs(about=tuple(about), subsets=np.concatenate([of.subsets for of in drawn]))
        states = session.states(situation, session.layers_of(situation, drawn[-1]))
        session.run(  # measured unless its rows are there
            situation,
            states,
            {"sizes": sizes},
            lambda given=(situation, runs, states): session.methods(*given),
        )


def show(rows, session):
    for place, here in rows[rows["role"] == "truth"].groupby("dataset"):
        print_sweep(here, across="size", title=f"AUROC on {place}", console=session.console)


def draw(rows, session):
    probes = rows[rows["role"] == "truth"].dropna(subset="size")
    means = probes.groupby(["dataset", "method", "size"])["auroc"].mean()
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    for (dataset, method), line in means.groupby(level=[0, 1]):
        axes.plot(line.index.get_level_values("size"), line, "o-", label=f"{dataset}, {method}")
    axes.set(xlabel="train rows", ylabel="AUROC", xscale="log")
    axes.legend()
    return {"few-rows": figure}


FEW_ROWS = Study(
    name="few-rows",
    title="Few train rows",
    lead="Does a probe keep the truth when train rows are few?",
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
)
