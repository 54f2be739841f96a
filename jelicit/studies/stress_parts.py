"""The studies behind the stress test: each challenge is one of them, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from rich.console import Console

from jelicit.data.prompts import get_format
from jelicit.studies import imbalance, impossible, salience, transfer
from jelicit.studies.checks import mirror_problems
from jelicit.studies.formats import check_shown
from jelicit.studies.model import Cases
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.session import Session
from jelicit.studies.settings import REBALANCED, PromptSettings, StudySettings
from jelicit.studies.situation import Situation
from jelicit.studies.stress_cases import PLAIN, Case, SeedFolder, read_cases
from jelicit.studies.study import Study


def _plain_claims(settings: salience.Settings, session: Session) -> list[salience.Plan]:
    """Every set's claims as they are, also where a set has two labels of its own."""
    plans = salience.plan(settings, session)
    return [replace(each, situations=(each.plain,)) for each in plans]


# The worst prompt is the challenge; what the mean of all says is no case of it.
_PLAIN_CLAIMS = replace(salience.STUDY, plan=_plain_claims, measure=salience.measure_apart)

STUDIES: Mapping[str, Study] = {
    PLAIN: _PLAIN_CLAIMS,
    "salience": salience.STUDY,
    "imbalance": imbalance.STUDY,
    "impossible": impossible.STUDY,
    "transfer": transfer.STUDY,
    "prompts": _PLAIN_CLAIMS,
}
"""What is measured -> the study that does; plain claims first, which all else is compared with."""

CHALLENGES = tuple(name for name in STUDIES if name != PLAIN)

FORMATS = ("claim", "statement", "asking")
"""Prompts to compare, of those that fit all sets: one that shows the question, one that does not,
and one that asks for the verdict."""

TWINS = {
    "cities": "neg_cities",
    "neg_cities": "cities",
    "sp_en_trans": "neg_sp_en_trans",
    "neg_sp_en_trans": "sp_en_trans",
}
"""Sets of one polarity -> the same statements in the other."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A challenge, or the plain claims, planned.

    Attributes:
        challenge: Its name.
        study: What measures it.
        session: Its run, in the folder of that name.
        planned: What the study planned.
    """

    challenge: str
    study: Study
    session: Session
    planned: Sequence[Any]

    def carry_out(self) -> None:
        """Measure, or read back, and write the study's own report."""
        self.session.folder.begin()
        self.study.carry_out(self.planned, self.session)

    def cases(self) -> list[Case]:
        """What methods said, once it was carried out."""
        folder = self.session.folder
        assert isinstance(folder, SeedFolder)
        return read_cases(self.challenge, folder)


def with_twins(names: Sequence[str]) -> tuple[str, ...]:
    """Sets, and those that say the same in the other polarity."""
    every = [each for name in names for each in (name, TWINS.get(name, name))]
    return tuple(dict.fromkeys([*names, *every]))


def settings_of(challenge: str, settings: Any) -> StudySettings:
    """The settings of a challenge's study, from those of the stress test."""
    own = {each.name: getattr(settings, each.name) for each in fields(StudySettings)}
    own["methods"] = settings.measured
    own["out"] = None if settings.out is None else settings.out / challenge
    made = _made(challenge, own, settings)
    unread = mirror_problems(made.hub_root, made.sets_read)
    return replace(made, hub_root=None) if unread else made


def _made(challenge: str, own: dict[str, Any], settings: Any) -> StudySettings:
    silent = PromptSettings(prompting=("none",))
    if challenge == "salience":
        return salience.Settings(**own, prompts=silent, features=settings.features)
    if challenge == "imbalance":
        return imbalance.Settings(**own, prompts=silent, shares=settings.shares)
    if challenge == "impossible":
        return impossible.Settings(**own, prompts=silent, impossible=settings.impossible)
    if challenge == "transfer":
        own["dataset"] = settings.sets_of_transfer
        own["methods"] = tuple(each for each in settings.measured if each not in REBALANCED)
        return transfer.Settings(**own)
    if challenge == "prompts":
        own["format"] = settings.formats or FORMATS
    return salience.Settings(**own, prompts=silent, features=("none",))


def plan_part(challenge: str, settings: Any, session: Session) -> Part | None:
    """A challenge with all text loaded and nothing extracted; None = it does not arise here, told.

    Raises:
        ValueError: What the challenge's study refuses.
    """
    study, model = STUDIES[challenge], _model_of(challenge, session)
    own = settings_of(challenge, settings)
    if model is None or (challenge == "transfer" and len(own.dataset) < 2):
        session.say(f"{challenge}: left out, {_MISSING[challenge]}")
        return None
    if challenge == "prompts":
        own = _fitting(own, settings, session)
        if own is None:
            session.say(f"{challenge}: left out, {_MISSING[challenge]}")
            return None
    own.check()
    own = own.for_model(getattr(model, "trained_length", None))
    folder = SeedFolder(study.name, session.folder.folder / challenge)
    folder.layers = session.folder.layers  # chosen once for all challenges
    run = Session(model, own, folder, session.console)
    return Part(challenge=challenge, study=study, session=run, planned=study.plan(own, run))


_MISSING = {
    PLAIN: "no plain situation",
    "salience": "no situation with a feature",
    "imbalance": "no plain situation",
    "impossible": "no situation with rows that have no truth value",
    "transfer": "it takes two plain sets",
    "prompts": "it takes a model that is asked, and two formats that show what all sets have",
}


def _fitting(own: Any, settings: Any, session: Session) -> Any:
    """Settings with the formats that fit all sets; None where fewer than two do.

    Formats that were asked for are the study's to refuse.
    """
    if settings.formats:
        return own
    as_it_is = replace(own, format=settings.format)
    # Only the items are wanted: what is to be said of them is said where they are measured.
    silent = Session(
        session.model,
        as_it_is,
        RunFolder(session.folder.study, session.folder.folder),
        Console(quiet=True),
    )
    plain = [each.plain for each in salience.plan(as_it_is, silent)]
    fitting = tuple(name for name in FORMATS if all(_fits(name, each) for each in plain))
    return replace(own, format=fitting) if len(fitting) > 1 else None


def _fits(name: str, situation: Situation) -> bool:
    form = get_format(name)
    if form.target != situation.target:
        return False
    try:
        check_shown(situation.dataset, (*situation.train, *situation.test), form)
    except ValueError:
        return False
    return True


# --- hidden states of one's own ------------------------------------------------------------------


def _model_of(challenge: str, session: Session) -> Any:
    """The model, or those of the user's own situations in which a challenge arises; None = none."""
    if not isinstance(session.model, Cases):
        return session.model
    for situation, states in session.model.cases:
        if len(states.layers) > 1:
            raise ValueError(
                f"{situation.title}: hidden states of {len(states.layers)} layers "
                f"({', '.join(map(str, states.layers))}); the stress test is about one, so name "
                "it: States.of_arrays(..., layers=(LAYER,))"
            )
    fits, least = _ARISES[challenge]
    cases = [case for case in session.model.cases if fits(case[0])]
    return Cases(cases, session.model.name) if len(cases) >= least else None


def _known(situation: Situation) -> bool:
    return not np.isnan(situation.targets()[0].test).any()


def _plain(situation: Situation) -> bool:
    return _known(situation) and situation.feature == "none"


_ARISES: dict[str, tuple[Callable[[Situation], bool], int]] = {
    PLAIN: (_plain, 1),
    "salience": (lambda situation: _known(situation) and situation.feature != "none", 1),
    "imbalance": (_plain, 1),
    "impossible": (lambda situation: not _known(situation), 1),
    "transfer": (_plain, 2),
    "prompts": (lambda situation: False, 1),
}
"""In which situations a challenge arises, and how many of them it takes."""
