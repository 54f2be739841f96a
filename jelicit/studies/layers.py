"""At which layer is the truth, and who would have chosen that layer?

Every method at every layer, on the truth and on a spurious feature. Paper A reports one layer, the
one with the best CCS AUROC on plain train claims (an oracle); this shows what the choice decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd
import tyro

from jelicit import figures
from jelicit.named import slug
from jelicit.prompting import CALIBRATED, ZERO_SHOT_CALIBRATED
from jelicit.prompting import METHODS as PROMPTING
from jelicit.results import asked_for, print_sweep
from jelicit.studies import salience
from jelicit.studies.model import Cases, Model
from jelicit.studies.session import Session
from jelicit.studies.settings import PromptSettings
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = ("all",)

NO_LAYER = ("zero_shot", ZERO_SHOT_CALIBRATED, *PROMPTING, *CALIBRATED)
"""Methods that ask the model and read no layer, as controls do not."""


@dataclass(frozen=True, kw_only=True)
class Settings(salience.Settings):
    """Measure every method at every layer; options as of salience.

    Attributes:
        layers: Hidden-state indices, or "all" (0 = embeddings).
    """

    prompts: tyro.conf.OmitArgPrefixes[PromptSettings] = field(
        default_factory=lambda: PromptSettings(prompting=("none",))
    )
    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/facts")
    features: tuple[str, ...] = ("none", "sycophancy")
    layers: tuple[str, ...] = ALL

    @property
    def fixed_layers(self) -> tuple[int, ...] | None:
        """The layers asked for by number; None of all, and where the best is to be found."""
        return None if self.layers == ALL else super().fixed_layers

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        if self.layers == ALL:
            return replace(self, layers=("best",)).problems()
        return super().problems()


def plan(settings: Settings, session: Session) -> list[salience.Plan]:
    """The situations of every set, as of salience."""
    return salience.plan(settings, session)


def measure(plans: Sequence[salience.Plan], session: Session) -> None:
    """Extract, fit and measure every situation at every layer."""
    model = session.model
    if session.settings.layers == ALL:
        every = tuple(str(layer) for layer in _every_layer(model))
        session.settings = replace(session.settings, layers=every)
    for each in plans:
        salience.measure_set(each, session)
        if not isinstance(model, Cases):
            # Which layer would have been chosen is said, too.
            session.best_layer(each.plain, salience.runs_on_plain(each, session.settings))


def _every_layer(model: Model | Cases) -> Sequence[int]:
    if isinstance(model, Cases):
        return sorted({layer for _, states in model.cases for layer in states.layers})
    return range(model.n_blocks + 1)


def show(rows: pd.DataFrame, session: Session) -> None:
    """A table per set, feature and label, layers across."""
    place_of = rows["dataset"] + ", " + rows["feature"]
    for (place, role), here in rows.groupby([place_of, "role"], sort=False):  # type: ignore[misc]
        said = asked_for(here) if role == "truth" else "the spurious label"
        # The model's own answer has no layer; its rows say the same at each.
        title = f"AUROC on {said} by layer: {place}"
        print_sweep(here, across="layer", title=title, console=session.console)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """One figure per set."""
    no_layer = rows["method"].isin(NO_LAYER) | rows["method"].str.startswith("control_")
    shown = rows.assign(layer=rows["layer"].where(~no_layer))
    point = ["dataset", "feature", "role", "method", "orientation", "seed", "layer"]
    per_set = shown.drop_duplicates(point).groupby("dataset", sort=False)
    return {
        f"layers-{slug(str(dataset))}": figures.layers_figure(of_set) for dataset, of_set in per_set
    }


STUDY = Study(
    name="layers",
    title="Where the truth is: every method at every layer",
    lead=(
        "At which layer is the truth, and who would have chosen that layer? Every probe at every "
        "layer, on the truth and on a spurious feature. Paper A reports one layer, the one with "
        "the best CCS AUROC on plain train claims (an oracle)."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
)
run = STUDY.run
