"""Cases of the stress test: what every method says, seed by seed, of the claims of one situation.

The studies keep an item's score averaged over seeds. Here every seed's is kept beside it, so that
intervals are of what tables show: the mean over seeds of the AUROC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jelicit import metrics
from jelicit.results import ItemScores, ItemScoreStore
from jelicit.studies.better_sign import picks_none
from jelicit.studies.measuring import Measured, Score
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.situation import Situation

PLAIN = "plain"
"""The challenge that is none: claims as they are, train rows balanced."""

TAUGHT_APART = frozenset({"imbalance", "transfer"})
"""Challenges whose train rows are not those that labels would be taught with: the ceiling of a case
is the supervised probe of the plain claims, which are the same claims in the same words."""

Key = tuple[str, str]
"""A method and who picked its sign ("none" of a method that knows it)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """The claims of one set in one situation, and what methods say of them.

    Attributes:
        challenge: Which part of the stress test it belongs to.
        dataset: The set of the claims that have a truth value.
        name: What is done to them, or to the train rows; "none" of plain claims.
        labels: What the prompt asks for [n], 1 or 0.
        groups: What belongs to one question [n].
        scores: Truth scores [S, n] over S seeds, by method and sign.
        untrained: Those of them that no train rows decide.
    """

    challenge: str
    dataset: str
    name: str
    labels: np.ndarray
    groups: np.ndarray
    scores: Mapping[Key, np.ndarray]
    untrained: frozenset[Key] = field(default=frozenset())


class SeedFolder(RunFolder):
    """A run folder that keeps every seed's item scores, too (folder `by_seed`).

    A run without them counts as not there: a study that was run by itself is measured again.
    """

    def __init__(self, study: str, folder: Path):
        """The study's name and its folder, which `begin` makes."""
        super().__init__(study, folder)
        self.by_seed = ItemScoreStore(folder / "by_seed")

    def has(self, situation: Situation, settings: Mapping[str, Any]) -> bool:
        """Whether `run` would find everything there."""
        return super().has(situation, settings) and self.by_seed.has(
            self.name_of(situation, settings)
        )

    def run(
        self,
        situation: Situation,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        measure: Callable[[], Measured],
    ) -> tuple[str, bool]:
        """As of `RunFolder`, every seed's scores kept before all else."""

        def kept() -> Measured:
            measured = measure()
            seeds = ItemScores.of(
                situation.test, _seed_by_seed(measured.scores), target=situation.target
            )
            self.by_seed.write(self.name_of(situation, settings), seeds)
            return measured

        return super().run(situation, settings, about, kept)


def _seed_by_seed(scores: Sequence[Score]) -> list[Score]:
    return [
        ({**about, "seed": seed}, one)
        for about, runs in scores
        for seed, one in enumerate(np.atleast_2d(runs))
    ]


def read_cases(challenge: str, folder: SeedFolder) -> list[Case]:
    """The cases of a challenge, from what its study left in a folder."""
    found = [case for run in folder.runs for case in _cases_of(challenge, folder, run)]
    if challenge != "transfer":
        return found
    # What is not trained is measured where a set's own probes are, and is the same from elsewhere.
    at_home = {case.dataset: case for case in found if case.challenge == PLAIN}
    return [
        replace(case, scores={**case.scores, **_untrained(at_home[case.dataset])}) for case in found
    ]


def _untrained(case: Case) -> dict[Key, np.ndarray]:
    return {key: case.scores[key] for key in case.untrained}


def _cases_of(challenge: str, folder: SeedFolder, run: str) -> Iterator[Case]:
    """The cases of a run: one, or one per class share."""
    # The first rows of a run may be of no training, which transfer calls "none".
    about = folder.results.read(run).to_dict("records")[-1]
    if "asked for" in str(about["feature"]) and about["asked"] != "truth":
        return  # of two labels, the prompt asks for the other one
    scored = folder.by_seed.read(run)
    labels = scored.items["label"].to_numpy(float)
    known = ~np.isnan(labels)
    shares = sorted({s["class_share"] for s in scored.settings if "class_share" in s})
    for share in shares or [None]:
        columns: dict[Key, list[np.ndarray]] = {}
        untrained: set[Key] = set()
        for own, column in zip(scored.settings, scored.scores.T, strict=True):
            key = (str(own["method"]), str(own["orientation"]))
            if own.get("class_share", share) == share:
                columns.setdefault(key, []).append(column[known])
            if "layer" not in own:
                untrained.add(key)
        name = _name(challenge, about, share)
        is_plain = name == "none"
        yield Case(
            challenge=PLAIN if is_plain else challenge,
            dataset=_tested(about),
            name=name,
            labels=labels[known],
            groups=scored.items["group"].to_numpy(str)[known],
            scores={
                key: with_sign(np.stack(of), labels[known], key, share)
                for key, of in columns.items()
            },
            untrained=frozenset(untrained),
        )


def with_sign(scores: np.ndarray, labels: np.ndarray, key: Key, share: float | None) -> np.ndarray:
    """Scores [S, n], those of an oracle's sign turned where train labels could not pick it.

    There the test labels [n] are the oracle, run by run; see `better_sign`.
    """
    if not picks_none(key[1], share):
        return scores
    return np.asarray(metrics.orient(scores, labels), float)[:, None] * scores


def _tested(about: Mapping[Any, Any]) -> str:
    """The set whose claims have a truth value: of a mixture, the first."""
    return str(about["dataset"]).partition(" + ")[0]


def _name(challenge: str, about: Mapping[Any, Any], share: float | None) -> str:
    """What sets a case apart from the plain claims; "none" of those."""
    if challenge == "imbalance":
        return f"share {share:g}"
    if challenge == "impossible":
        return f"with {str(about['dataset']).partition(' + ')[2] or 'others'}"
    if challenge == "transfer":
        return "none" if about["train"] == about["dataset"] else f"from {about['train']}"
    if challenge == "prompts":
        return f"as {about['format']}"
    return str(about["feature"])
