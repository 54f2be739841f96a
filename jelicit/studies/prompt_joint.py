"""One probe for several prompts at once: every claim is a train row in each of them.

Hidden states of each format are normalised by that format's own train rows, signs apart, so that no
probe can tell formats by their mean. Methods that ask for it know which rows are wordings of one
claim: VINC takes the variance over wordings from what it maximises, CCS over wordings adds it to
its loss. A test claim's states are the mean over formats, so the score of a linear probe is the
mean of its scores ("full" in EleutherAI's elk).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jelicit.pairs import Pairs
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.studies.formats import JOINT
from jelicit.studies.measuring import Measured
from jelicit.studies.prompt_ensembles import Member, together
from jelicit.studies.session import Session
from jelicit.studies.settings import REBALANCED
from jelicit.studies.situation import Runs, Situation, named
from jelicit.studies.states import States, at_layer

ALGORITHM = 1
"""Raised whenever numbers of joint probes change."""


def measure_joint(members: Sequence[Member], session: Session, *, size: int | None = None) -> None:
    """Rows of probes of all formats at once, for every set and feature that several formats show.

    Without an easy set, whose own prompt is one: easy-to-hard methods are left out.

    Args:
        members: All situations of the study.
        session: The run.
        size: Train claims of a run; None = 80 % of the largest balanced subset.
    """
    for of in together(members, session):
        first = of[0].situation
        if len({tuple(item.id for item in each.situation.train) for each in of}) > 1:
            session.say(f"{first.title}: no joint probes of prompts that show other train items")
            continue
        situation = replace(first, prompt=JOINT, easy=None, train=len(of) * first.train)
        chosen = {
            "dataset": first.dataset,
            "feature": first.feature,
            "asked": named(first.target),
            "boot": session.settings.boot,
            "joint": ALGORITHM,
            "of": [f"{each.situation.prompt}, {each.layers}" for each in of],
            "runs": sorted(each.run for each in of),
        }
        session.keep(
            situation, chosen, lambda of=of, s=situation: _measured(of, s, session, size=size)
        )


def _measured(
    members: Sequence[Member], situation: Situation, session: Session, *, size: int | None
) -> Measured:
    """The probes of a situation that has every train row in each format."""
    settings = session.settings
    of_claims = Runs.balanced(members[0].situation, settings.seeds, size=size)
    runs = replace(of_claims, subsets=np.tile(of_claims.subsets, (1, len(members))))
    probes = tuple(name for name in settings.methods if name not in REBALANCED)
    boot = situation.boot(settings.boot)
    return session.probes(situation, runs, joint_states(members), probes, boot)


def joint_states(members: Sequence[Member]) -> States:
    """Train rows [P N, d] of P formats one after the other, and the mean [n, d] of the test rows.

    A place among the layers is called by the lowest layer that a format has there.
    """
    train, test = {}, {}
    for place, layers in enumerate(zip(*(each.layers for each in members), strict=True)):
        made = [_normalised(each, each.layers[place]) for each in members]
        of_train, of_test = zip(*made, strict=True)
        train[min(layers)] = _each_sign(np.concatenate, of_train)
        test[min(layers)] = _each_sign(lambda rows: np.mean(rows, axis=0), of_test)
    return States.of_arrays(train, test, layers=tuple(train))


def _each_sign(join: Callable[[Sequence[np.ndarray]], np.ndarray], pairs: Sequence[Pairs]) -> Pairs:
    """Both signs of several pairs, joined."""
    return Pairs(*(join([np.asarray(each[sign]) for each in pairs]) for sign in (0, 1)))


def _normalised(member: Member, layer: int) -> tuple[Pairs, Pairs]:
    """Train and test rows of a format, by the statistics of its train rows."""
    assert member.states.test is not None
    train, test = (at_layer(of, layer) for of in (member.states.train, member.states.test))
    normaliser = fit_normaliser(train, fitted_on="train rows of a format")
    own, other = (Pairs(*map(np.asarray, normalise(normaliser, of))) for of in (train, test))
    return own, other
