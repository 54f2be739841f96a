"""Which findings of Canavan et al. 2026 do these rows show? Claims, checked by plain rules.

Every rule states its threshold: a method finds a label at AUROC 0.9 or more, loses it below 0.8,
and numbers within 0.05 are alike. AUROCs are means over seeds and layers, under the oracle sign
where a method has none of its own. Only what was found can be lost: a method that did not find the
truth on a set's plain claims, or on its balanced train rows, tells nothing of a challenge there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from types import MappingProxyType

import numpy as np
import pandas as pd

from jelicit.method_names import method_of, readable
from jelicit.results import Finding, asked_for, name_of_targets, summarise
from jelicit.studies.better_sign import ONE_CLASS, better

FINDS, LOSES, ALIKE, NEAR, MORE = 0.9, 0.8, 0.05, 0.03, 0.01
UNSUPERVISED = ("ccs", "pca")
PROMPTED = ("bootstrapped", "bootstrapped_consistent")
PLAIN = ("the truth of plain claims was not found", "plain claims were not measured")
BALANCED = ("the truth was not found on balanced rows", "balanced rows were not measured")
NEITHER = "neither label was found"
NOT_SALIENT = ("pocket/poems",)
"""Sets whose target no judge of the model looks at: only by chance is a label of theirs right."""
CHANCE = 0.15
"""How far from one half is chance: two standard errors at ICM's default size, three seeds of 16
pairs (each in both orders)."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One method in one situation; what was not measured is nan.

    `truth` is the AUROC on the label that the prompt asks for, whose own name is `target`;
    `unsigned` is the mean of what each run has of it under its better sign.
    """

    dataset: str
    feature: str
    method: str
    class_share: float
    truth: float
    unsigned: float
    spurious: float
    variance_share: float
    salience_truth: float
    salience_feature: float
    target: str = "truth"

    @property
    def named_by_prompt(self) -> bool:
        """Whether the set has two labels of its own, of which the prompt names one."""
        return "asked for" in self.feature


def salience_findings(rows: pd.DataFrame) -> list[Finding]:
    """Challenge 1, from the rows of `experiments/salience.py`."""
    cases = cases_of(rows)
    plain = [case for case in cases if case.feature == "none"]
    added = [case for case in cases if case.feature != "none" and not case.named_by_prompt]
    asked = [case for case in cases if case.named_by_prompt]
    lacks = _lacks(plain, PLAIN)
    return [
        _finding(
            "Without an added feature, CCS and PCA find the truth",
            _of(plain, UNSUPERVISED),
            lambda case: case.truth >= FINDS,
        ),
        _finding(
            "With a salient feature added, CCS and PCA follow the feature and lose the truth",
            _of(added, UNSUPERVISED),
            lambda case: case.spurious >= FINDS and case.truth < LOSES,
            reads=("spurious", "truth"),
            lacks=lacks,
        ),
        _finding(
            "The supervised probe keeps the truth beside an added feature",
            _of(added, ("supervised",)),
            lambda case: case.truth >= FINDS,
            lacks=lacks,
        ),
        _falls_with_salience([case for case in _of(added, ("ccs",)) if not lacks(case)]),
        _finding(
            "Where the label that is not asked for is the more salient one, CCS and PCA follow it "
            "rather than the prompt",
            [c for c in _of(asked, UNSUPERVISED) if c.salience_feature > c.salience_truth],
            lambda case: case.spurious > case.truth,
            reads=("spurious", "truth"),
            lacks=lambda case: "" if max(case.spurious, case.truth) >= FINDS else NEITHER,
        ),
    ]


def imbalance_findings(rows: pd.DataFrame) -> list[Finding]:
    """Challenge 2, from the rows of `experiments/imbalance.py`."""
    cases = cases_of(rows)
    ends = [case for case in cases if case.class_share in ONE_CLASS]
    near = [c for c in cases if 0 < min(c.class_share, 1 - c.class_share) <= 0.1]
    middle = [case for case in cases if 0.4 <= case.class_share <= 0.6]
    lacks = _lacks(middle, BALANCED)
    return [
        _finding(
            "On balanced train rows CCS and PCA find the truth",
            _of(middle, UNSUPERVISED),
            lambda case: case.truth >= FINDS,
        ),
        _finding(
            "CCS and PCA lose the truth where all train rows are of one class, whichever sign they "
            "are given",
            # They pick no sign there (`better_sign`): a mean over signs would call that a loss.
            _of(ends, UNSUPERVISED),
            lambda case: case.unsigned < LOSES,
            reads=("unsigned",),
            shows="unsigned",
            lacks=lacks,
        ),
        _finding(
            "They suffer already where 1 to 10 % of the rows are of the rarer class",
            _of(near, UNSUPERVISED),
            lambda case: case.truth < FINDS,
            lacks=lacks,
        ),
        _finding(
            "Bootstrapped prompts suffer where the pool has one class",
            _of(ends, PROMPTED),
            lambda case: case.truth < FINDS,
            lacks=lacks,
        ),
    ]


def impossible_findings(rows: pd.DataFrame) -> list[Finding]:
    """Challenge 3, from the rows of `experiments/impossible.py`."""
    cases = cases_of(rows)
    ceiling = {case.dataset: case.variance_share for case in _of(cases, ("supervised",))}
    return [
        _finding(
            "CCS and PCA find the truth of the questions that have an answer",
            _of(cases, UNSUPERVISED),
            lambda case: case.truth >= FINDS,
        ),
        _finding(
            "CCS and PCA are about as sure of claims without a truth value: less of their scores' "
            "variance comes from the questions with an answer than of the supervised probe's",
            _of(cases, (*UNSUPERVISED, "supervised")),
            lambda case: case.variance_share < ceiling[case.dataset] - ALIKE,
            reads=("variance_share",),
            judged=lambda case: (
                case.method != "supervised" and not isnan(ceiling.get(case.dataset, nan))
            ),
        ),
    ]


def icm_findings(rows: pd.DataFrame) -> list[Finding]:
    """Wen et al. 2025, from the rows of `experiments/icm.py`: means over seeds.

    What labels are worth shows in the accuracy of prompts that hold them, and only where the model
    reads labels: sets where golden ones turned round are worth as much cannot tell. Sets that are
    `NOT_SALIENT` are a control: they have a finding of their own, where they were run, and no part
    in the others.
    """
    sets = rows["set"] if "set" in rows else rows["dataset"]  # "set": of several prompt formats
    is_control = sets.isin(NOT_SALIENT)
    found = _icm_findings(rows.loc[~is_control])
    control = Means(rows.loc[is_control], "label_accuracy", "right labels")
    return [*found, _at_chance(control)] if bool(is_control.to_numpy().any()) else found


def _icm_findings(rows: pd.DataFrame) -> list[Finding]:
    worth = Means(rows, "accuracy", "accuracy")
    right = Means(rows, "label_accuracy", "right labels")
    unread = {
        name: "no labels are read"
        for name, (turned, golden) in worth.pairs("wrong_many_shot", "golden_many_shot").items()
        if turned >= golden - NEAR
    }
    found = [
        _right_labels(right),
        worth.finding(
            "The model reads the labels it is shown: golden ones turned round are worth less (by "
            "more than 3 points)",
            ("wrong_many_shot", "golden_many_shot"),
            lambda ours, other: ours < other - NEAR,
        ),
        worth.finding(
            "ICM's labels are worth about as much as golden ones (within 3 points)",
            ("icm", "golden_many_shot"),
            lambda ours, other: ours >= other - NEAR,
            unread=unread,
        ),
        worth.finding(
            "ICM is better than zero-shot prompting",
            ("icm", "zero_shot"),
            lambda ours, other: ours > other,
        ),
        worth.finding(
            "ICM's labels are worth more than true labels with as many random errors",
            ("icm", "icm_perturbed"),
            lambda ours, other: ours > other,
            unread=by_chance(right, "icm") | unread,
        ),
        right.finding(
            "Wrong first labels do not mislead the search (within 5 points of random ones)",
            ("icm_wrong_start", "icm"),
            lambda ours, other: ours >= other - ALIKE,
        ),
        right.finding(
            "Without consistency the search finds worse labels (by more than 3 points)",
            ("icm_no_consistency", "icm"),
            lambda ours, other: ours < other - NEAR,
        ),
    ]
    return [*found, *_of_batches(right)]


def by_chance(right: Means, method: str) -> dict[str, str]:
    """Sets on which a method's labels are no more right than a coin's (0.55 of them), and so said.

    What as many errors at random are worth is no measure of such labels: of fewer than half right
    ones the better are those that are worth less.
    """
    line = 0.5 + ALIKE
    return {
        name: f"{of[method]:.2f} of ICM's labels are right"
        for name, of in right.of.items()
        if method in of and of[method] <= line
    }


def _of_batches(right: Means) -> list[Finding]:
    """What training between batches is worth, where that was run."""
    claims = {
        "icm_iterative": (
            "A model trained on the batches before finds better labels than searches alone (by "
            "more than 1 point)",
            lambda ours, other: ours > other + MORE,
        ),
        "icm_extended": (
            "One batch searched, and the rest labelled by the model trained on it, is about as "
            "good as searches of all (within 3 points)",
            lambda ours, other: ours >= other - NEAR,
        ),
    }
    return [
        right.finding(claim, (method, "icm"), holds)
        for method, (claim, holds) in claims.items()
        if right.pairs(method, "icm")
    ]


class Means:
    """Means over seeds of one value, by set and method."""

    def __init__(self, rows: pd.DataFrame, value: str, name: str):
        """Rows, the column, and what to call it; without the column there is nothing to compare."""
        self.name = name
        self.of: dict[str, dict[str, float]] = {}
        known = rows.dropna(subset=value) if value in rows else rows.iloc[:0]
        if not known.empty:
            for point in summarise(known, by=["dataset", "method"], value=value).to_dict("records"):
                mine = self.of.setdefault(str(point["dataset"]), {})
                mine[str(point["method"])] = float(point["mean"])

    def pairs(self, first: str, second: str) -> dict[str, tuple[float, float]]:
        """Two methods' means, on the sets that have both."""
        return {
            name: (mine[first], mine[second])
            for name, mine in self.of.items()
            if first in mine and second in mine
        }

    def finding(
        self,
        claim: str,
        methods: tuple[str, str],
        holds: Callable[[float, float], bool],
        *,
        unread: Mapping[str, str] = MappingProxyType({}),
        counted: str = "sets that can tell",
    ) -> Finding:
        """It appears if it holds for two methods on more than half of the sets that have both.

        Args:
            claim: What the paper says.
            methods: The two.
            holds: Whether their means show it.
            unread: Sets on which the comparison says nothing, and why.
            counted: What the others are called.
        """
        pairs = self.pairs(*methods)
        if not pairs:
            return Finding(claim=claim, measured="no such case was measured", appears=None)
        first, second = (method_of(method).name for method in methods)
        shown = "; ".join(
            f"{readable(name)}: {first} {ours:.2f}, {second} {other:.2f}"
            + (f" ({unread[name]})" if name in unread else "")
            for name, (ours, other) in pairs.items()
        )
        telling = [numbers for name, numbers in pairs.items() if name not in unread]
        count = sum(holds(*numbers) for numbers in telling)
        measured = f"{self.name}: {shown} (holds in {count} of {len(telling)} {counted})"
        appears = count > len(telling) / 2 if telling else None
        return Finding(claim=claim, measured=measured, appears=appears)


def _right_labels(right: Means) -> Finding:
    return _of_labels(
        "The labels that ICM finds are right (0.9 or more of them)",
        right,
        lambda share: share >= FINDS,
    )


def _at_chance(right: Means) -> Finding:
    return _of_labels(
        "Where the target is not salient, ICM's labels are right by chance only (control: 0.35 to "
        "0.65 of them)",
        right,
        lambda share: abs(share - 0.5) <= CHANCE,
    )


def _of_labels(claim: str, right: Means, holds: Callable[[float], bool]) -> Finding:
    """It appears if it holds for the share of right labels of ICM on more than half of the sets."""
    shares = {name: mine["icm"] for name, mine in right.of.items() if "icm" in mine}
    if not shares:
        return Finding(claim=claim, measured="no such case was measured", appears=None)
    shown = ", ".join(f"{readable(name)} {share:.2f}" for name, share in shares.items())
    holding = sum(map(holds, shares.values()))
    measured = f"{shown} (holds in {holding} of {len(shares)} sets)"
    return Finding(claim=claim, measured=measured, appears=holding > len(shares) / 2)


def cases_of(rows: pd.DataFrame) -> list[Case]:
    """Rows as cases: means over seeds and layers, both roles side by side."""
    kept = rows.loc[rows["orientation"].isin(["none", "oracle"])]
    for column in ("class_share", "variance_share", "salience_truth", "salience_feature"):
        if column not in kept:
            kept = kept.assign(**{column: nan})
    key = ["dataset", "feature", "method", "class_share"]
    found = []
    for values, of in kept.groupby(key, dropna=False, sort=False):
        truth, spurious = (of.loc[of["role"] == role] for role in ("truth", "spurious"))
        found.append(
            Case(
                **dict(zip(key, values, strict=True)),  # type: ignore[arg-type]
                truth=float(truth["auroc"].mean()),
                unsigned=float(pd.Series(better(truth["auroc"])).mean()),
                spurious=float(spurious["auroc"].mean()),
                variance_share=float(truth["variance_share"].mean()),
                salience_truth=float(of["salience_truth"].mean()),
                salience_feature=float(of["salience_feature"].mean()),
                target=asked_for(of),
            )
        )
    return found


# --- rules ---------------------------------------------------------------------------------------


def _of(cases: Iterable[Case], methods: Sequence[str]) -> list[Case]:
    return [case for case in cases if case.method in methods]


def _lacks(cases: Iterable[Case], why: tuple[str, str]) -> Callable[[Case], str]:
    """What a case lacks to tell of a loss; "" where its method found the truth of its set in these.

    Args:
        cases: Those without the challenge; of several the mean counts.
        why: What is said where the truth was not found, and where nothing was measured.
    """
    truths: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        if not isnan(case.truth):
            truths.setdefault((case.dataset, case.method), []).append(case.truth)

    def lacks(case: Case) -> str:
        mine = truths.get((case.dataset, case.method))
        if mine is None:
            return why[1]
        return "" if np.mean(mine) >= FINDS else why[0]

    return lacks


def _finding(
    claim: str,
    cases: Sequence[Case],
    holds: Callable[[Case], bool],
    *,
    reads: Sequence[str] = ("truth",),
    shows: str = "truth",
    judged: Callable[[Case], bool] = lambda case: True,
    lacks: Callable[[Case], str] = lambda case: "",
) -> Finding:
    """It appears if it holds in more than half of the cases; where it does not is said.

    Args:
        claim: What the paper says.
        cases: Those that it is about.
        holds: Whether a case shows it.
        reads: The numbers that `holds` compares; a case that lacks one of them cannot tell.
        shows: The field of `Case` that is shown as the AUROC on the truth.
        judged: Which of the cases are counted; the others are shown beside them.
        lacks: Why a case cannot tell; "" = it can. Numbers of those that cannot are shown only
            where none can.
    """
    known = [
        case
        for case in cases
        if judged(case) and not any(isnan(getattr(case, name)) for name in reads)
    ]
    if not known:
        return Finding(claim=claim, measured="no such case was measured", appears=None)
    asked = [case for case in known if not lacks(case)]
    shown = [case for case in cases if not (asked and lacks(case))]
    by_method = {
        method: _numbers([case for case in shown if case.method == method], shows)
        for method in dict.fromkeys(case.method for case in shown)
    }
    parts = [f"{method_of(method).name} {said}" for method, said in by_method.items() if said]
    counts = [_count(asked, holds)] if asked else []
    for why in dict.fromkeys(lacks(case) for case in known if lacks(case)):
        others = sum(lacks(case) == why for case in known)
        counts.append(f"in {others} others {why}" if asked else why)
    measured = f"{'; '.join(parts)} ({'; '.join(counts)})"
    appears = sum(map(holds, asked)) > len(asked) / 2 if asked else None
    return Finding(claim=claim, measured=measured, appears=appears)


def _count(asked: Sequence[Case], holds: Callable[[Case], bool]) -> str:
    """In how many cases it holds, and in which it does not, if they are few."""
    against = [_named(case) for case in asked if not holds(case)]
    count = f"holds in {len(asked) - len(against)} of {len(asked)} cases"
    if 0 < len(against) < len(asked) and len(against) <= 4:
        count += f", not for {', '.join(against)}"
    return count


def _numbers(cases: Sequence[Case], shows: str) -> str:
    label = name_of_targets(case.target for case in cases)
    shown = (
        (
            f"{label}, better sign" if shows == "unsigned" else label,
            [getattr(case, shows) for case in cases],
        ),
        ("feature", [case.spurious for case in cases]),
        ("share of variance", [case.variance_share for case in cases]),
    )
    measured = ((name, [v for v in values if not isnan(v)]) for name, values in shown)
    return ", ".join(f"{_range(values)} ({name})" for name, values in measured if values)


def _named(case: Case) -> str:
    words = [method_of(case.method).name, "on", readable(case.dataset)]
    if case.feature != "none":
        words.append(f"({case.feature})")
    if not isnan(case.class_share):
        words.append(f"at {case.class_share:g}")
    return " ".join(words)


def _falls_with_salience(cases: Sequence[Case]) -> Finding:
    claim = "The more salient a feature, the less of the truth CCS keeps"
    known = [c for c in cases if not (isnan(c.salience_feature) or isnan(c.truth))]
    if len(known) < 3:
        measured = (
            "fewer than three features with a measured salience and AUROC, where CCS found the "
            "truth of plain claims"
        )
        return Finding(claim=claim, measured=measured, appears=None)
    saliences, truths = [c.salience_feature for c in known], [c.truth for c in known]
    low, high = min(saliences), max(saliences)
    if high - low < ALIKE or len(set(truths)) == 1:
        measured = f"saliences lie within {low:.2f} to {high:.2f}: too near to order features"
        return Finding(claim=claim, measured=measured, appears=None)
    rank = float(np.corrcoef(pd.Series(saliences).rank(), pd.Series(truths).rank())[0, 1])
    measured = f"rank correlation {rank:.2f} over {len(known)} cases"
    return Finding(claim=claim, measured=measured, appears=rank < -0.5)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
