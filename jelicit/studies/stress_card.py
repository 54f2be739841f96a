"""The scorecard: worst cases, losses, shares of the ceiling, and who survives, with intervals.

All is made of one bootstrap of questions: a resample draws the questions of a set once for all
methods and all challenges, so that differences between methods, and between the plain claims and a
challenge, are paired. The value of a method in a case is the mean over seeds of its AUROC a. With
a_0 its value on the plain claims of the same set and c that of the supervised probe (the ceiling),

    loss = a_0 - a,        share of the ceiling = (a - 0.5) / (c - 0.5).

The ceiling is of the same case; where the train rows themselves are the challenge (imbalance,
transfer), of the plain claims. Intervals are the 2.5 % and 97.5 % quantiles over the resamples.
The worst case of a challenge is the one with the lowest share of the ceiling, since a lower AUROC
may be of claims of which the hidden states hold less; its interval is of that case, and knows
nothing of the choice. Of the methods that see the same labels, the best is the one with the highest
share in its worst case; how far others are behind is in shares, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jelicit import metrics
from jelicit.results.intervals import with_interval
from jelicit.studies.near_best import block_of
from jelicit.studies.stress_cases import PLAIN, TAUGHT_APART, Case, Key

ALGORITHM = 3
"""Of the scorecard; raised whenever its numbers change."""

COUNTS = 0.75
"""The AUROC of the supervised probe from which a case can be held against a method."""

KEPT = 2 / 3
"""The share of the ceiling that tells failing from surviving.

Not 1/2: scores that are led by an independent feature, and by the truth among claims whose feature
is alike, have an AUROC on the truth of 3/4 exactly, half of what can be had. A rule that lies there
is a coin's throw for just the failure that it is about. Of scores that both lead alike it is 7/8.
"""

CEILING: Key = ("supervised", "none")

CEILS = "ceiling"
"""The verdict on what is its own ceiling: none."""

RULE = (
    "In its worst case a method survives where the whole 95 % interval of its share of the ceiling "
    "lies at two thirds or above, and fails where the whole interval lies below; otherwise these "
    f"questions leave it open. A case counts where the supervised probe reaches {COUNTS:g}: nobody "
    "finds what the hidden states do not hold."
)
"""How `verdict_of` and the choice of cases decide, in words."""


class Area(NamedTuple):
    """The AUROC of a method in a case: the mean over seeds, and that of every resample [B]."""

    value: float
    samples: np.ndarray
    seed_sd: float = np.nan
    """Its standard deviation over seeds; nan of one seed. It is no part of the intervals."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A method in a case, beside what it is compared with.

    Attributes:
        case: The case.
        key: The method and its sign.
        area: Its AUROC.
        plain: Its AUROC on the plain claims of the set; None where those were not measured.
        ceiling: The AUROC of the supervised probe; None where that was not measured.
    """

    case: Case
    key: Key
    area: Area
    plain: Area | None
    ceiling: Area | None

    @property
    def counted(self) -> bool:
        """Whether the case can be held against a method: labels would find the truth."""
        return self.ceiling is not None and self.ceiling.value >= COUNTS


def verdict_of(low: float, high: float) -> str:
    """What an interval of the share of the ceiling in the worst case says; see `RULE`.

    No number at all, of fits that all failed, is no survival.
    """
    if np.isnan(low) or high < KEPT:
        return "fails"
    return "survives" if low >= KEPT else "open"


# --- areas ---------------------------------------------------------------------------------------


class Draws:
    """Resamples of questions, one for all cases that have claims of a set."""

    def __init__(self, cases: Iterable[Case], samples: int):
        """All cases, since the questions of a set are those of all of them together."""
        names: dict[str, set[str]] = {}
        for case in cases:
            names.setdefault(case.dataset, set()).update(case.groups.tolist())
        self._names = {dataset: np.array(sorted(of)) for dataset, of in names.items()}
        self._drawn = {
            dataset: np.asarray(metrics.group_bootstrap(jax.random.key(0), of, samples))
            for dataset, of in self._names.items()
        }

    def weights(self, case: Case) -> np.ndarray:
        """How often each row of a case was drawn in each resample [B, n]."""
        place = np.searchsorted(self._names[case.dataset], case.groups)
        return self._drawn[case.dataset][:, place]


def areas_by_seed(case: Case, draws: Draws) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
    """The AUROC of every method of a case, seed by seed [S], and that of every resample [S, B]."""
    every = np.concatenate(list(case.scores.values()))
    values = np.asarray(metrics.auroc(every, case.labels), float)
    samples = np.asarray(metrics.auroc_samples(every, case.labels, draws.weights(case)), float)
    ends = np.cumsum([len(seeds) for seeds in case.scores.values()])[:-1]
    of_keys = zip(np.split(values, ends), np.split(samples, ends), strict=True)
    return dict(zip(case.scores, of_keys, strict=True))


def areas_of(case: Case, draws: Draws) -> dict[Key, Area]:
    """The AUROC of every method of a case; seeds whose fit failed do not count."""
    areas = {}
    for key, (values, samples) in areas_by_seed(case, draws).items():
        known = values[~np.isnan(values)]
        spread = float(known.std(ddof=1)) if len(known) > 1 else np.nan
        areas[key] = Area(float(_mean(values)), _mean(samples), spread)
    return areas


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over seeds of what is a number; nan where none is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(0)
    return np.divide(total, known.sum(0), out=np.full_like(total, np.nan), where=known.any(0))


def entries_of(cases: Sequence[Case], *, boot: int, sign: str = "oracle") -> list[Entry]:
    """Every method in every case, beside its plain claims and its ceiling.

    Args:
        cases: Of all challenges. Where the claims of a set were measured plain more than once, the
            first counts.
        boot: Resamples B.
        sign: Who picks the sign of unlabelled directions: "oracle" or "easy".
    """
    plain: dict[str, Case] = {}
    for case in cases:
        if case.challenge == PLAIN:
            plain.setdefault(case.dataset, case)
    kept = [case for case in cases if case.challenge != PLAIN or plain[case.dataset] is case]
    draws = Draws(kept, boot)
    areas = {id(case): areas_of(case, draws) for case in kept}
    entries = []
    for case in kept:
        own, home = areas[id(case)], plain.get(case.dataset)
        before = {} if home is None else areas[id(home)]
        taught = before if case.challenge in TAUGHT_APART else own
        entries += [
            Entry(
                case=case,
                key=key,
                area=area,
                plain=before.get(key),
                ceiling=taught.get(CEILING),
            )
            for key, area in own.items()
            if key[1] in ("none", sign)
        ]
    return entries


# --- rows ----------------------------------------------------------------------------------------


def card_rows(
    cases: Sequence[Case], *, boot: int, sign: str = "oracle", model: str = ""
) -> list[dict[str, Any]]:
    """A row per case and method; those of worst cases are the scorecard.

    Args:
        cases: Of all challenges.
        boot: Resamples.
        sign: Who picks the sign of unlabelled directions.
        model: What rows call the model.
    """
    entries = entries_of(cases, boot=boot, sign=sign)
    worst = _worst(entries)
    best = _best(worst.values())
    rows = []
    for entry in entries:
        at = (entry.case.challenge, entry.key)
        is_worst = worst.get(at) is entry
        row = {"model": model, **_measured(entry), "worst": is_worst, "verdict": ""}
        if is_worst:
            # A share of itself is 1 whatever is done to it.
            own = entry.area is entry.ceiling
            said = CEILS if own else verdict_of(row["share_low"], row["share_high"])
            row["verdict"] = said
            row |= _behind(entry, best[at[0], block_of(entry.key[0])])
        rows.append(row)
    return rows


def scorecard(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of worst cases alone: one per challenge and method."""
    return pd.DataFrame(rows.loc[rows["worst"].astype(bool)]).reset_index(drop=True)


def _worst(entries: Iterable[Entry]) -> dict[tuple[str, Key], Entry]:
    """The case of each challenge in which each method is worst, among those that count.

    Nothing is worse than no number: a method whose fits all failed there has not survived.
    """
    worst: dict[tuple[str, Key], Entry] = {}
    for entry in filter(lambda entry: entry.counted, entries):
        at = (entry.case.challenge, entry.key)
        if at not in worst or _height(entry) < _height(worst[at]):
            worst[at] = entry
    return worst


def _height(entry: Entry) -> tuple[float, float]:
    """The share of the ceiling of a case that counts, and of equal ones the AUROC."""
    share, _ = _shares(entry)
    return (-np.inf, -np.inf) if np.isnan(share) else (share, entry.area.value)


def _best(worst: Iterable[Entry]) -> dict[tuple[str, str], Entry]:
    """Challenge and block -> the method with the highest share in its worst case."""
    best: dict[tuple[str, str], Entry] = {}
    for entry in worst:
        at = (entry.case.challenge, block_of(entry.key[0]))
        if at not in best or _height(entry) > _height(best[at]):
            best[at] = entry
    return best


def _measured(entry: Entry) -> dict[str, Any]:
    case, area = entry.case, entry.area
    method, orientation = entry.key
    row: dict[str, Any] = {
        "method": method,
        "orientation": orientation,
        "block": block_of(method),
        "challenge": case.challenge,
        "dataset": case.dataset,
        "feature": case.name,
        "target": "truth",
        "role": "truth",
        "seed": 0,
        "n_test": len(case.labels),
        "counted": entry.counted,
        **with_interval("auroc", area.value, area.samples),
        "seed_sd": area.seed_sd,
    }
    if entry.plain is not None:
        lost = entry.plain.samples - area.samples
        row |= with_interval("loss", entry.plain.value - area.value, lost)
    if entry.ceiling is not None:
        row["ceiling"] = entry.ceiling.value
        # Of a ceiling near chance there is no share to speak of.
        if entry.counted:
            row |= with_interval("share", *_shares(entry))
    return row


def _shares(entry: Entry) -> tuple[float, np.ndarray]:
    """The share of the ceiling of a case that counts, and that of every resample [B]."""
    assert entry.ceiling is not None
    of = ((entry.area.value, entry.ceiling.value), (entry.area.samples, entry.ceiling.samples))
    value, samples = (_share(*each) for each in of)
    return value, samples


def _share(area: Any, ceiling: Any) -> Any:
    return (area - 0.5) / (ceiling - 0.5)


def _behind(entry: Entry, best: Entry) -> dict[str, Any]:
    """How far a method is behind the best of its block, and whether that is more than noise."""
    behind = _shares(best)[1] - _shares(entry)[1]
    row = with_interval("behind", _shares(best)[0] - _shares(entry)[0], behind)
    return {**row, "near_best": bool(row["behind_low"] <= 0)}


def verdicts(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Key, str, list[str]]]:
    """Of each method: its key, its block, and its verdicts beside the plain claims."""
    of: dict[Key, tuple[str, list[str]]] = {}
    for row in rows:
        key = (row["method"], row["orientation"])
        _, said = of.setdefault(key, (row["block"], []))
        if row["challenge"] != PLAIN and row["verdict"] != CEILS:
            said.append(row["verdict"])
    for key, (block, said) in of.items():
        yield key, block, said
