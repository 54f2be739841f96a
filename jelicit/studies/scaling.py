"""Does what a method finds grow with the model?

Figure 4 of Wen et al. 2025, and probes beside it. The same claims are asked of several models: the
model's own answer, probes on its hidden states, and prompts that show examples with golden, random
and turned-round labels, and with ICM's.

    from extract import open_model
    from jelicit.studies import scaling
    from jelicit.studies.models import Models

    models = Models([open_model(folder) for folder in ("small", "large")])
    result = scaling.run(models, dataset=("pocket/facts",))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from jelicit import figures
from jelicit.results import print_sweep
from jelicit.studies import icm, salience
from jelicit.studies.checks import given
from jelicit.studies.icm_tasks import Task
from jelicit.studies.models import Models, SizedModel, family_of
from jelicit.studies.scaling_findings import scaling_findings
from jelicit.studies.session import Session
from jelicit.studies.settings import PromptSettings
from jelicit.studies.study import Study

SHOWN = ("random_many_shot", "golden_many_shot", icm.WRONG, "icm")
OF_EXAMPLES = ("n", "tests", "search_seeds")


@dataclass(frozen=True, kw_only=True)
class Settings(salience.Settings):
    """Measure methods on models of several sizes; options of probes as of salience.

    Attributes:
        layers: "best" alone: models of several depths have no layer in common.
        examples: Methods that show examples, as of icm; none with --examples none.
        n: Train items that are shown as examples, and that ICM labels.
        tests: Test items of methods that show examples.
        search_seeds: Runs of methods that show examples.
    """

    prompts: tyro.conf.OmitArgPrefixes[PromptSettings] = field(
        default_factory=lambda: PromptSettings(prompting=("none",))
    )
    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/larger_than")
    features: tuple[str, ...] = ("none",)
    methods: tuple[str, ...] = ("ccs", "pca", "supervised")
    seeds: int = 3
    examples: tuple[str, ...] = SHOWN
    n: int = 16
    tests: int = 64
    search_seeds: int = 1

    @property
    def shows(self) -> bool:
        """Whether any method shows examples."""
        return self.examples != ("none",)

    def of_icm(self) -> icm.Settings:
        """The settings of the methods that show examples."""
        settings = icm.Settings(
            dataset=self.dataset,
            n=self.n,
            tests=self.tests,
            methods=self.examples,
            seeds=self.search_seeds,
            hub_root=self.hub_root,
            format=self.format,
            overlap=self.overlap,
            boot=self.boot,
            out=self.out,
        )
        # A search of few items begins with as many of them as there are.
        return replace(settings, initial=self.n) if self.n < settings.initial else settings

    def for_model(self, trained_length: int | None) -> Self:
        """As they are: what is left to the model is left to each model in its turn."""
        return self

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if self.layers != ("best",):
            problems.append(
                f"--layers {' '.join(self.layers)}: models of several depths have no layer in "
                "common; allowed is best"
            )
        if self.format is not None and len(self.format) > 1:
            problems.append(f"--format {' '.join(self.format)}: give one for all models")
        if not self.shows:
            options = given(self, OF_EXAMPLES)
            return problems + [f"{option} does nothing with --examples none" for option in options]
        of_icm = [
            line.replace("--methods", "--examples").replace("--seeds", "--search-seeds")
            for line in self.of_icm().problems()
        ]
        return problems + [line for line in of_icm if line not in problems]


@dataclass(frozen=True)
class Asked:
    """What every model is asked, with all text loaded.

    Attributes:
        plans: Situations for probes, set by set.
        tasks: Sets for methods that show examples; none where no such method is asked for.
    """

    plans: Sequence[salience.Plan]
    tasks: Sequence[Task]


def plan(settings: Settings, session: Session) -> list[Asked]:
    """What is asked of every model, with all text loaded and nothing extracted.

    Raises:
        TypeError: The model is not `Models`.
        ValueError: Two models are the same (`Models.check_different`). See `salience.plan` and
            `icm.plan`.
    """
    if not isinstance(session.model, Models):
        raise TypeError(
            f"scaling compares models, and was given {type(session.model).__name__}: give "
            "jelicit.studies.models.Models([open_model(...), ...])"
        )
    session.model.check_different()
    plans = salience.plan(settings, session)
    if not settings.shows:
        return [Asked(plans, ())]
    of_icm = settings.of_icm()
    asked = Session(session.model, of_icm, session.folder, session.console)  # type: ignore[arg-type]
    return [Asked(plans, icm.plan(of_icm, asked))]


def measure(parts: Sequence[Asked], session: Session) -> None:
    """Ask every model the same; one is in memory at a time."""
    [asked] = parts
    models: Any = session.model
    for model in models.in_turn():
        _measure_model(model, asked, session)
        # Sets are described once, not for every model.
        asked = replace(asked, plans=[replace(each, dataset=None) for each in asked.plans])


def _measure_model(model: SizedModel, asked: Asked, session: Session) -> None:
    settings, folder = session.settings, session.folder.part(model.name)
    about = {"parameters": float(model.n_parameters), "family": family_of(model)}

    def of_model(own: Any) -> Session:
        return Session(model, own, folder, session.console, about=about)

    prompts = settings.prompts.fitting(model.trained_length)
    probed = of_model(replace(settings, prompts=prompts))
    for each in asked.plans:
        salience.measure_set(each, probed)
    if asked.tasks:
        icm.measure(asked.tasks, of_model(settings.of_icm().for_model(model.trained_length)))


# --- what is shown -------------------------------------------------------------------------------


def label_reading(rows: pd.DataFrame) -> pd.DataFrame:
    """How far verdicts follow the labels that examples show, per model and set.

    The mean of the accuracy under golden labels and of what is wrong under the same labels turned
    round: 1 where the model says what the examples say, 0.5 where it does not look at them.

    Args:
        rows: Of this study, with golden_many_shot and wrong_many_shot.

    Returns:
        Columns model, parameters, family, dataset, label_reading; empty where either is missing.
    """
    of = ["model", "parameters", "family", "dataset"]
    shown = rows.loc[rows["method"].isin(["golden_many_shot", icm.WRONG])]
    means = shown.groupby([*of, "method"], sort=False)["accuracy"].mean().unstack("method")
    if not {"golden_many_shot", icm.WRONG} <= set(means.columns):
        return pd.DataFrame(columns=[*of, "label_reading"])
    reading = (means["golden_many_shot"] + 1 - means[icm.WRONG]) / 2
    return reading.rename("label_reading").reset_index()


def show(rows: pd.DataFrame, session: Session) -> None:
    """A table per set and feature, models across by size; and whether labels are read."""
    truth = rows.loc[rows["role"] == "truth"]
    place_of = truth["dataset"] + ", " + truth["feature"]
    for place, here in truth.groupby(place_of, sort=False):
        in_millions = here.assign(size=np.round(np.asarray(here["parameters"], float) / 1e6, 1))
        title = f"AUROC by millions of parameters: {place}"
        print_sweep(in_millions, across="size", title=title, console=session.console)
    for row in label_reading(rows).to_dict("records"):
        session.say(
            f"{row['model']} ({row['parameters'] / 1e6:.1f} M), {row['dataset']}: verdicts follow "
            f"the labels shown in {row['label_reading']:.2f} of cases (0.50: not at all)"
        )


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """One figure: a line of panels per set, a column per family of models."""
    return {"scaling": figures.scaling_figure(rows)}


STUDY = Study(
    name="scaling",
    title="What methods find, by the size of the model",
    lead=(
        "Does what a method finds grow with the model? The same claims are asked of several "
        "models: the model's own answer, probes on its hidden states at the layer that CCS likes "
        "best on train rows (an oracle), and prompts that show examples with golden, random and "
        "turned-round labels, and with the labels that ICM finds."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=scaling_findings,
)
run = STUDY.run
