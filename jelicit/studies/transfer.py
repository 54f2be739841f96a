"""Does a probe that was trained on one set find the truth of another?

Every probe is trained on each set and tested on all of them. The hidden states of a set are
normalised by that set's own train rows (no labels needed); signs are picked where the probe was
trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.describe import describe, table
from jelicit.data.items import digest
from jelicit.pairs import Pairs
from jelicit.probes.methods import needing
from jelicit.probes.normalise import Divisor, denormalise, fit_normaliser, normalise
from jelicit.results import asked_for, print_table
from jelicit.studies.checks import refuse, same_names
from jelicit.studies.formats import formats_asked
from jelicit.studies.measuring import Measured, without_training
from jelicit.studies.model import Cases
from jelicit.studies.session import Session
from jelicit.studies.sets import asking, easy_for, read_set
from jelicit.studies.settings import REBALANCED, StudySettings
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, at_layer
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("random", "ccs", "pca", "random_ensemble_consensus", "pca_ensemble_consensus")
LABELLED = ("supervised", "mean_difference", "lda")


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """Train on one set, test on every other one.

    Attributes:
        dataset: Sets by name, or folders; each is trained on and tested on.
        layers: Hidden-state indices, or "best": of the set that is trained on.
        methods: Which probes; those that learn from an easy set (e2h and its kin) learn from a
            set of their own already and are left out unless named.
    """

    dataset: tuple[str, ...] = (
        "pocket/arithmetic",
        "pocket/larger_than",
        "pocket/facts",
        "pocket/comments",
        "pocket/commands",
        "pocket/pairs",
    )
    methods: tuple[str, ...] = (*METHODS, *LABELLED)

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        rebalanced = [name for name in self.methods if name in REBALANCED]
        if rebalanced and not problems:
            problems.append(
                f"--methods {' '.join(rebalanced)}: train rows are balanced here already"
            )
        if len(self.dataset) < 2:
            problems.append("--dataset: name at least two sets")
        if self.fixed_layers is not None and len(self.fixed_layers) > 1 and not problems:
            problems.append(f"--layers {' '.join(self.layers)}: give one, or best")
        return problems


def plan(settings: Settings, session: Session) -> list[Situation]:
    """Every set, with all text loaded and nothing extracted.

    Raises:
        ValueError: No item has a truth value, or two sets share a name.
    """
    if isinstance(session.model, Cases):
        return [situation for situation, _ in session.model.cases]
    situations = [each for name in settings.dataset for each in _plain(name, settings, session)]
    refuse(same_names([situation.title for situation in situations]))
    return situations


def _plain(name: str, settings: Settings, session: Session) -> Iterator[Situation]:
    """A set in each format; a format of the settings says which label is asked for."""
    dataset = read_set(name, session, max_rows=settings.max_rows)
    session.console.print(table(describe(dataset)))
    for form in formats_asked(settings):
        target = dataset.targets[0] if form is None else form.target
        situation = asking(dataset, target, session, form=form)
        if needing(settings.methods, "easy"):
            easy = easy_for(dataset, session, test=situation.test)
            situation = replace(situation, easy=easy)
        yield situation


def measure(situations: Sequence[Situation], session: Session) -> None:
    """Train on every set, test on every set, unless the rows are there."""
    layers = [
        session.layers_of(each, Runs.balanced(each, session.settings.seeds))[0]
        for each in situations
    ]
    every = tuple(sorted(set(layers)))
    states = [session.states(each, every) for each in situations]
    for home, own, layer in zip(situations, states, layers, strict=True):
        for there, theirs in zip(situations, states, strict=True):
            session.run(
                there,
                theirs,
                {
                    "train": home.dataset,
                    "train_items": digest(home.train),
                    "layers": [layer],
                    "extraction": {"home": own.origin, "there": theirs.origin},
                    **{f"train_{k}": v for k, v in session.format_of(home).items()},
                },
                lambda home=home, own=own, there=there, theirs=theirs, layer=layer: measure_on(
                    *(home, own, there, theirs, layer, session)
                ),
                about={"train": home.dataset, **_format(home)},
                note=f"probes of {home.place}",
            )
        session.folder.forget(_kept(home))


def _kept(home: Situation) -> str:
    """What the fits of a set are kept under: made for the first set that they are tested on."""
    return f"from-{home.place}"


def _format(home: Situation) -> dict[str, str]:
    """What rows call the format that was trained on, where several are compared."""
    return {"train_format": home.prompt} if home.prompt else {}


def measure_on(
    home: Situation,
    own: States,
    there: Situation,
    theirs: States,
    layer: int,
    session: Session,
) -> Measured:
    """One set's test items by the probes of another set, or by its own."""
    settings = session.settings
    weights = there.boot(settings.boot)
    measured = Measured()
    if there is home:
        measured += without_training(there, theirs, weights)
        measured.rows = [{**row, "train": "none"} for row in measured.rows]
    # The road is that of every study: home's train rows, with the other's test rows at home there.
    moved = at_home(own, theirs, layer, settings.fit.divisor)
    measured += session.probes(
        tested_on(home, there),
        Runs.balanced(home, settings.seeds),
        replace(own, layers=(layer,), test={layer: moved}, test_log_probs=theirs.test_log_probs),
        settings.methods,
        weights,
        fits=_kept(home),
    )
    return measured


def tested_on(home: Situation, there: Situation) -> Situation:
    """A situation whose train rows are of one set and whose test rows are of another."""
    (asked, *_), (other, *_) = home.targets(), there.targets()
    answers = (replace(asked, test=other.test),)
    return replace(home, test=there.test, answers=answers)


def at_home(own: States, theirs: States, layer: int, divisor: Divisor) -> Pairs:
    """A set's test pairs with their own mean and scale exchanged for those of the home set."""
    assert theirs.test is not None
    away = at_layer(theirs.train, layer)
    of_theirs = fit_normaliser(away, fitted_on="tested set", divisor=divisor)
    of_home = fit_normaliser(at_layer(own.train, layer), fitted_on="home set", divisor=divisor)
    return denormalise(of_home, normalise(of_theirs, at_layer(theirs.test, layer)))


def show(rows: pd.DataFrame, session: Session) -> None:
    """Mean AUROC at home and away, per method; the matrices are in the figure."""
    home = rows["train"] == rows["dataset"]
    where = np.where(home, "home", np.where(rows["train"] == "none", "", "away"))
    probes = rows.assign(where=where).loc[lambda all_rows: all_rows["where"] != ""]
    point = ["method", "orientation", "seed", "where"]
    means = probes.groupby(point, sort=False)["auroc"].mean().reset_index()
    shown = means.assign(
        dataset="Mean over sets", feature=means["where"], role="truth", target=asked_for(probes)
    )
    title = "AUROC of probes on their own set and on others"
    print_table(shown, title=title, console=session.console)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """A matrix of sets per method."""
    return {"transfer": figures.transfer_figure(rows)}


STUDY = Study(
    name="transfer",
    title="Probes on sets that they were not trained on",
    lead=(
        "Does a probe that was trained on one set find the truth of another? Every probe is "
        "trained on each set and tested on all of them. Hidden states are normalised by the "
        "statistics of the tested set's own train rows; the sign of an unlabelled direction is "
        "picked on the set where the probe was trained."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
)
run = STUDY.run
