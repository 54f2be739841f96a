"""Ensembles over prompts: what every method says of an item, averaged over prompt formats.

Each prompt's probes are fitted, and their signs picked, in that prompt alone; what is averaged is

    s_i = 1/P sum_p s_ip / sigma_p

with sigma_p the standard deviation of the probe's scores of its own train rows: scores have no
unit, and no prompt is to decide because its numbers are larger. Zero-shot scores are
log-odds, and are averaged as they are. ("Full" ensembling of EleutherAI's elk is the mean over
templates, too, of one probe for all of them.) Farquhar et al. 2023 (arXiv 2312.10029) find that
several templates bring nothing systematic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jelicit.studies import scoring
from jelicit.studies.formats import ENSEMBLE
from jelicit.studies.measuring import Measured, Score
from jelicit.studies.session import Session
from jelicit.studies.situation import Situation, named
from jelicit.studies.states import States

ALGORITHM = 1
"""Raised whenever an ensemble's numbers change, or what is kept of its members (their scale)."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A situation in one prompt format, once it is measured.

    Attributes:
        situation: What was measured.
        layers: Where; they may differ from format to format.
        run: Its run, whose members' scores are kept.
        states: Its hidden states.
    """

    situation: Situation
    states: States
    layers: tuple[int, ...]
    run: str


class _Key(NamedTuple):
    """What members of one ensemble share; the place among a format's layers, None of no layer."""

    method: str
    orientation: str
    place: int | None
    target: str
    seed: int


class _Said(NamedTuple):
    scores: np.ndarray
    n_train: int


def mean_over_prompts(scores: Sequence[np.ndarray]) -> np.ndarray:
    """The mean [n] of P prompts' scores [n], to the last bit whatever their order."""
    return np.sort(np.stack(scores).astype(np.float64), axis=0).mean(0)


def measure_ensembles(members: Sequence[Member], session: Session) -> None:
    """Rows of every set and feature that several formats show; none of what one format shows.

    Intervals are of the same bootstrap draws as those of each prompt's own rows.

    Args:
        members: All situations of the study.
        session: The run.
    """
    for of in together(members, session):
        first = of[0].situation
        situation = replace(first, prompt=ENSEMBLE)
        chosen = {
            "dataset": first.dataset,
            "feature": first.feature,
            "asked": named(first.target),
            "boot": session.settings.boot,
            "ensemble": ALGORITHM,
            "of": [f"{each.situation.prompt}, {_layers(each)}" for each in of],
            "runs": sorted(each.run for each in of),
        }
        session.keep(situation, chosen, lambda of=of, s=situation: _measured(of, s, session))


def _layers(member: Member) -> str:
    return f"layer {' '.join(map(str, member.layers))}"


def together(members: Sequence[Member], session: Session) -> Iterator[list[Member]]:
    """Members that show the same test items, from two on."""
    by_case: dict[tuple[Any, ...], list[Member]] = {}
    for each in members:
        own = each.situation
        case = (own.dataset, own.feature, own.target, own.spurious)
        by_case.setdefault(case, []).append(each)
    for case in by_case.values():
        shown = {tuple(item.id for item in each.situation.test) for each in case}
        if len(shown) > 1 or len({len(each.layers) for each in case}) > 1:
            first = case[0].situation
            session.say(
                f"{first.dataset}, {first.feature}: no ensemble over prompts, which do not show "
                "the same test items or layers"
            )
        elif len(case) > 1:
            yield sorted(case, key=lambda each: each.situation.prompt)


def _measured(members: Sequence[Member], situation: Situation, session: Session) -> Measured:
    """Rows and item scores of an ensemble."""
    tables = [_said(each, session) for each in members]
    shared = [key for key in tables[0] if all(key in other for other in tables[1:])]
    layers = tuple(min(places) for places in zip(*(each.layers for each in members), strict=True))
    boot, measured = situation.boot(session.settings.boot), Measured()
    means = {key: mean_over_prompts([of[key].scores for of in tables]) for key in shared}
    for target in situation.targets():
        keys = [key for key in shared if key.target == target.name]
        columns = scoring.measured(np.stack([means[key] for key in keys]), target.test, boot)
        measured.rows += [
            {
                "method": key.method,
                "orientation": key.orientation,
                "seed": key.seed,
                "target": target.name,
                "role": target.role,
                "layer": layer,
                "n_train": min(of[key].n_train for of in tables),
                **{name: float(values[place]) for name, values in columns.items()},
            }
            for place, key in enumerate(keys)
            # What has no layer stands beside the probes of each.
            for layer in (layers if key.place is None else layers[key.place : key.place + 1])
        ]
    asked = situation.targets()[0].name
    measured.scores = _item_scores({k: v for k, v in means.items() if k.target == asked}, layers)
    return measured


def _said(member: Member, session: Session) -> dict[_Key, _Said]:
    """What the methods of a member said, seed by seed."""
    kept = session.folder.members.read(member.run)
    said = {}
    for column, about in enumerate(kept.settings):
        layer = about["layer"]
        key = _Key(
            method=about["method"],
            orientation=about["orientation"],
            place=None if layer is None else member.layers.index(layer),
            target=about["target"],
            seed=about["seed"],
        )
        said[key] = _Said(kept.scores[:, column], about["n_train"])
    return said


def _item_scores(means: dict[_Key, np.ndarray], layers: tuple[int, ...]) -> list[Score]:
    """Scores [seeds, n] of each method, orientation and layer."""
    by_method: dict[tuple[str, str, int | None], list[np.ndarray]] = {}
    for key, scores in means.items():
        by_method.setdefault((key.method, key.orientation, key.place), []).append(scores)
    return [
        (
            {
                "method": method,
                "orientation": orientation,
                **({} if place is None else {"layer": layers[place]}),
            },
            np.stack(seeds),
        )
        for (method, orientation, place), seeds in by_method.items()
    ]
