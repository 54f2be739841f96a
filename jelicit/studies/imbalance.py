"""Challenge 2 of Canavan et al. 2026: what if nearly all, or all, train claims are true or false?

Every method is fitted at several shares of true claims among the train rows; the test rows stay the
same. A method that finds the truth by its contrast loses it where there is no contrast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from jelicit import figures
from jelicit.data.concerns import unmeasurable
from jelicit.data.datasets import Dataset
from jelicit.data.describe import describe, table
from jelicit.data.formats import PromptFormat
from jelicit.named import slug
from jelicit.probes.methods import METHODS
from jelicit.results import print_sweep
from jelicit.studies.checks import no_sets, refuse, same_names
from jelicit.studies.findings import imbalance_findings
from jelicit.studies.formats import formats_asked
from jelicit.studies.grid import Grid
from jelicit.studies.measuring import Measured
from jelicit.studies.model import Cases
from jelicit.studies.session import Session
from jelicit.studies.sets import asking, easy_for, read_set
from jelicit.studies.settings import REBALANCED, PromptedStudySettings
from jelicit.studies.situation import Runs, Situation, named
from jelicit.studies.states import States
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SETS = ("pocket/arithmetic", "pocket/commands")
SHARES = (0.0, 0.01, *(round(0.1 * k, 1) for k in range(1, 10)), 0.99, 1.0)
"""Paper A's, for claims."""

SAFE_SHARES = (0.5, 0.99, 1.0)
"""Paper A's, for sequences of commands: suspicious ones are rare in the field."""

LAYER_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method at several shares of true claims in the train set.

    Attributes:
        shares: Shares of true claims; default: paper A's 13, of command sequences 0.5, 0.99 and 1
            safe.
        prompt_shares: Shares at which prompting methods are measured; default: all. Every one of
            their prompts is a pass through the model, so they cost more than all probes.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    methods: tuple[str, ...] = (*METHODS, *REBALANCED)
    shares: tuple[float, ...] | None = None
    prompt_shares: tuple[float, ...] | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + no_sets(self.dataset)
        problems += self.prompts.idle(["prompt_shares"], of=self)
        asked = {"--shares": self.shares, "--prompt-shares": self.prompt_shares}
        for option, shares in asked.items():
            wrong = [share for share in shares or () if not 0 <= share <= 1]
            if wrong or len(set(shares or ())) < len(shares or ()):
                problems.append(f"{option} {shares}: allowed are numbers from 0 to 1, each once")
        return problems


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One set: what is measured on it, and at which shares of the asked-for label.

    Attributes:
        situation: Its labelled items.
        shares: Shares of the asked-for label among the train rows.
        dataset: The set, to be described; None of cases of one's own, and where an earlier plan
            has it.
    """

    situation: Situation
    shares: tuple[float, ...]
    dataset: Dataset | None = None


def plan(settings: Settings, session: Session) -> list[Plan]:
    """What is measured on every set, with all text loaded and nothing extracted.

    Raises:
        ValueError: A class is empty in train or test, or two sets share a name.
    """
    if isinstance(session.model, Cases):
        shares = settings.shares or SHARES
        return [Plan(situation=each, shares=shares) for each, _ in session.model.cases]
    plans = [each for name in settings.dataset for each in _plans(name, settings, session)]
    refuse(same_names([each.situation.title for each in plans]))
    return plans


def _plans(name: str, settings: Settings, session: Session) -> Iterator[Plan]:
    """A set in each format."""
    dataset = read_set(name, session, max_rows=settings.max_rows)
    for place, form in enumerate(formats_asked(settings)):
        plan = _plan(dataset, form, settings, session)
        yield plan if place == 0 else replace(plan, dataset=None)


def _plan(
    dataset: Dataset, form: PromptFormat | None, settings: Settings, session: Session
) -> Plan:
    # Of command sequences the share is that of safe ones, so that is what is asked for.
    own = "safe" if "safe" in dataset.targets else dataset.targets[0]
    target = own if form is None else form.target
    situation = asking(dataset, target, session, form=form)
    if wrong := unmeasurable(situation.train, target, where="train"):
        raise ValueError(f"{dataset.name}: {wrong}; there are no shares to draw")
    easy = easy_for(dataset, session, test=situation.test)
    shares = settings.shares or (SAFE_SHARES if target == "safe" else SHARES)
    return Plan(dataset=dataset, situation=replace(situation, easy=easy), shares=shares)


def measure(plans: Sequence[Plan], session: Session) -> None:
    """Extract, fit and measure every set unless its rows are there."""
    for each in plans:
        if each.dataset is not None:
            session.console.print(table(describe(each.dataset)))
        situation = each.situation
        layers = session.layers_of(situation, Runs.balanced(situation, LAYER_RUNS))
        states = session.states(situation, layers)
        session.run(
            situation,
            states,
            {
                "asked": named(situation.target),
                "shares": list(each.shares),
                "prompt_shares": list(prompted_shares(each, session.settings)),
            },
            lambda each=each, states=states: _measured(each, states, session),
        )


def _measured(plan: Plan, states: States, session: Session) -> Measured:
    situation, settings = plan.situation, session.settings
    measured = session.methods(situation, runs_at(situation, plan.shares, settings.seeds), states)
    shares = prompted_shares(plan, settings)
    if shares and session.prompts_asked:
        measured += session.prompts(situation, runs_at(situation, shares, settings.prompts.runs))
    return measured


def runs_at(situation: Situation, shares: tuple[float, ...], seeds: int) -> Runs:
    """A run for every share and seed."""
    return Grid(seeds=range(seeds), class_shares=shares).runs_on(situation.asked)


def prompted_shares(plan: Plan, settings: Settings) -> tuple[float, ...]:
    """The shares of a set at which prompting methods are measured."""
    asked = plan.shares if settings.prompt_shares is None else settings.prompt_shares
    return tuple(share for share in asked if share in plan.shares)


def show(rows: pd.DataFrame, session: Session) -> None:
    """A table per set and layer, shares across, of the label that is asked for."""
    rows = rows[rows["role"] == "truth"]  # type: ignore[assignment]
    for dataset, of_set in rows.groupby("dataset", sort=False):
        for layer in of_set["layer"].dropna().unique():
            here = of_set[(of_set["layer"] == layer) | of_set["layer"].isna()]
            (asked,) = set(here["asked"])
            asked = "true claims" if asked == "truth" else asked
            title = f"AUROC of {dataset}, layer {layer:g}, by share of {asked} in train"
            print_sweep(here, across="class_share", title=title, console=session.console)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """One figure per set and layer."""
    drawn = {}
    for dataset, of_set in rows.groupby("dataset", sort=False):
        layers = of_set["layer"].dropna().unique()
        for layer in layers:
            suffix = f"-layer{int(layer)}" if len(layers) > 1 else ""
            here = of_set[(of_set["layer"] == layer) | of_set["layer"].isna()]
            name = f"imbalance-{slug(str(dataset))}{suffix}"
            drawn[name] = figures.shares_figure(here, str(dataset))
    return drawn


STUDY = Study(
    name="imbalance",
    title="Imbalanced train sets",
    lead=(
        "What if nearly all, or all, train claims are true or false? Every method is fitted at "
        "several shares of true claims among the train rows (of command sequences: of safe ones); "
        "the test rows stay the same. A method that finds the truth by its contrast loses it where "
        "there is none."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=imbalance_findings,
)
run = STUDY.run
