"""Challenge 3 of Canavan et al. 2026: what is said of claims that are neither true nor false?

The train set mixes claims that have a truth value with claims that have none (opinions). Measured
are AUROC on the claims that have one, and how much of the scores' variance comes from those: a
method that knew what it cannot know would score all others alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.datasets import Dataset
from jelicit.data.describe import describe, table
from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item, with_target
from jelicit.data.overlap import held_out
from jelicit.data.prompts import get_format
from jelicit.method_names import readable
from jelicit.named import slug
from jelicit.prompting.few_shot import uncalibrated
from jelicit.results import print_table
from jelicit.studies.checks import no_sets, refuse, same_names
from jelicit.studies.findings import impossible_findings
from jelicit.studies.format_rows import by_set_alone, print_formats
from jelicit.studies.formats import (
    check_asks,
    check_shown,
    compared_as,
    formats_asked,
    held_out_as_shown,
    tell_ambiguous,
)
from jelicit.studies.measuring import Measured
from jelicit.studies.model import Cases
from jelicit.studies.session import Session
from jelicit.studies.sets import check_measurable, easy_for, read_set
from jelicit.studies.settings import PromptedStudySettings
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States
from jelicit.studies.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYER_RUNS = 3
GOLDEN = "golden_few_shot"


@dataclass(frozen=True, kw_only=True)
class Settings(PromptedStudySettings):
    """Measure every method on a mixture of claims with and without a truth value.

    Golden examples of claims without a truth value are shown as Indeterminate.

    Attributes:
        dataset: Sets with a truth value, each mixed with the other one in turn.
        impossible: The set without: pocket/opinions, political_normative, or a folder.
        max_rows: Most rows of either set per split.
    """

    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/larger_than")
    impossible: str = "pocket/opinions"
    max_rows: int = 400

    @property
    def sets_read(self) -> tuple[str | None, ...]:
        """The sets that were named, the one without truth values among them."""
        return (*super().sets_read, self.impossible)

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + no_sets(self.dataset)
        if self.impossible in self.dataset:
            problems.append(f"--impossible {self.impossible} is among --dataset, too")
        return problems


def plan(settings: Settings, session: Session) -> list[Situation]:
    """Every set mixed with the impossible one, with all text loaded and nothing extracted.

    Raises:
        ValueError: One set has no claim with a truth value, the other has one, or two mixtures
            share a name.
    """
    if isinstance(session.model, Cases):
        return [_with_unknown(situation) for situation, _ in session.model.cases]
    situations = [each for name in settings.dataset for each in _mixtures(name, settings, session)]
    refuse(same_names([situation.title for situation in situations]))
    return situations


def _with_unknown(situation: Situation) -> Situation:
    """A situation of one's own, if some of its test rows have no truth value."""
    unknown = np.isnan(situation.targets()[0].test)
    if unknown.any() and not unknown.all():
        return situation
    raise ValueError(
        f"{situation.title}: {unknown.sum()} of {len(unknown)} test rows have no truth value "
        "(nan); this study compares rows with one and rows without: give both"
    )


def _mixtures(name: str, settings: Settings, session: Session) -> Iterator[Situation]:
    """A set mixed with the impossible one, in each format."""
    rows = settings.max_rows
    possible = read_set(name, session, max_rows=rows)
    other = read_set(settings.impossible, session, max_rows=rows)
    target = possible.targets[0]
    if target != "label":
        raise ValueError(f"{name}: its first target is {target!r}; use a set with a truth value")
    session.console.print(table([*describe(possible), *describe(other)]))
    train, test = (
        mixed(
            with_target(getattr(possible, split), target),
            getattr(other, split),
            split=split,
            names=(name, settings.impossible),
        )
        for split in ("train", "test")
    )
    own = _common(possible.formats[target], other, (*train, *test))
    for form in formats_asked(settings):
        situation = Situation(
            dataset=f"{possible.name} + {other.name}",
            format=form or own,
            prompt=compared_as(form, settings),
            train=_held_out(name, train, test, form, session),
            test=test,
        )
        check_measurable(name, test, say=session.doubt)
        _check_third_word(get_format(situation.format), settings)
        yield replace(situation, easy=easy_for(possible, session, test=test))


def _held_out(
    name: str,
    train: tuple[Item, ...],
    test: tuple[Item, ...],
    form: PromptFormat | None,
    session: Session,
) -> tuple[Item, ...]:
    """Train rows that are no test rows, after a format of the settings was seen to fit them."""
    policy, say = session.settings.overlap, partial(session.doubt, of=name)
    if form is None:
        return held_out(train, test, policy=policy, say=say)
    check_asks(form, "label")
    check_shown(name, (*train, *test), form)
    tell_ambiguous(name, with_target((*train, *test), "label"), form, "label", session.doubt)
    return held_out_as_shown(train, test, form, policy=policy, say=say)


def _common(format: str, other: Dataset, items: Sequence[Item]) -> str:
    """One format for both sets, or the prompt would tell them apart."""
    if format in other.formats.values():
        return format
    return "claim" if all(item.question for item in items) else "statement"


def _check_third_word(form: PromptFormat, settings: Settings) -> None:
    """Refuses, before anything is extracted, golden examples that the format has no word for."""
    asked = settings.prompts.methods_asked
    if form.third_word is None and GOLDEN in map(uncalibrated, asked):
        left = " ".join(m for m in asked if uncalibrated(m) != GOLDEN) or "none"
        raise ValueError(
            f"the prompt format {form.name!r} has no third word, which {GOLDEN} shows for claims "
            f"without a truth value: add third_word to it, or give --prompting {left}"
        )


def mixed(
    known: Sequence[Item], unknown: Sequence[Item], *, split: str, names: tuple[str, str]
) -> tuple[Item, ...]:
    """As many of each, since the share of variance depends on how many there are."""
    if not known or any(item.label is not None for item in unknown):
        wrong = names[0] if not known else names[1]
        has = "no item with" if not known else "items with"
        raise ValueError(f"{wrong}: {split} has {has} a truth value; exchange the sets")
    each = min(len(known), len(unknown))
    return (*known[:each], *(replace(item, label=None) for item in unknown[:each]))


def measure(situations: Sequence[Situation], session: Session) -> None:
    """Extract, fit and measure every mixture unless its rows are there."""
    for situation in situations:
        known = replace(situation, train=tuple(with_target(situation.train, situation.target)))
        layers = session.layers_of(
            situation if isinstance(session.model, Cases) else known,
            Runs.balanced(known, LAYER_RUNS),
            name="known",
        )
        states = session.states(situation, layers, name=f"{situation.dataset}-mixed")
        session.run(
            situation,
            states,
            {},
            lambda situation=situation, states=states: _measured(situation, states, session),
        )


def _measured(situation: Situation, states: States, session: Session) -> Measured:
    # All train rows in every run, as in paper A.
    settings = session.settings
    measured = session.methods(situation, Runs.of_all_rows(situation, settings.seeds), states)
    if session.prompts_asked:
        runs = Runs.of_all_rows(situation, settings.prompts.runs)
        measured += session.prompts(situation, runs)
    return measured


def show(rows: pd.DataFrame, session: Session) -> None:
    """Two tables per mixture and layer: AUROC, and the share of variance."""
    by_place = rows.dropna(subset="layer").groupby(["dataset", "layer"])
    for (dataset, layer), of_set in by_place:  # type: ignore[misc]
        here = pd.concat([of_set, rows[(rows["dataset"] == dataset) & rows["layer"].isna()]])
        for value, said in (("auroc", "AUROC"), ("variance_share", "share of variance")):
            title = f"{said} of claims with a truth value: {dataset}, layer {layer:g}"
            shown = by_set_alone(pd.DataFrame(here))
            print_table(shown, value=value, title=title, console=session.console)
    print_formats(rows, session.console)


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Per mixture and layer: truth against share of variance, and the scores by source."""
    drawn = {}
    for run in session.folder.runs:
        scores = session.folder.items.read(run)
        of_set = rows.loc[rows["run_id"] == run]
        dataset = str(of_set["dataset"].iloc[0])
        layers = of_set["layer"].dropna().unique()
        for layer in layers:
            here = of_set.loc[(of_set["layer"] == layer) | of_set["layer"].isna()]
            stem = f"{slug(dataset)}-layer{int(layer)}" if len(layers) > 1 else slug(dataset)
            drawn[f"impossible-{stem}"] = figures.variance_figure(here, dataset)
            drawn[f"scores-{stem}"] = figures.histograms_figure(
                scores, layer=int(layer), title=readable(dataset) if "format" in here else None
            )
    return drawn


STUDY = Study(
    name="impossible",
    title="Claims that are neither true nor false",
    lead=(
        "What do methods say of claims that are neither true nor false? The train rows mix claims "
        "that have a truth value with opinions, which have none. AUROC is measured on the first; "
        "the share of variance says how much of what sets scores apart comes from them. At the "
        "share of those claims among all (one half), a method is as sure of opinions as of facts; "
        "at 1 it knows what it cannot know."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=impossible_findings,
)
run = STUDY.run
