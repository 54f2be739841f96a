"""What Wen et al. 2025 find of reward models and assistants, checked by plain rules.

Means over seeds; numbers within 3 points are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from jelicit.method_names import method_of, readable
from jelicit.results import Finding
from jelicit.studies.findings import NEAR, Means, by_chance

FALLS = 0.05
"""How much true accuracy has to fall, below the start's, to say that the reward was hacked."""


def reward_findings(rows: pd.DataFrame) -> list[Finding]:
    """Reward models, from the rows of `experiments/reward.py`."""
    kept = rows.loc[rows["part"] == "reward"]
    return [
        compared(
            kept,
            "A reward model of ICM's labels is about as good as one of golden labels (within 3 "
            "points)",
            ("reward_icm", "reward_golden"),
            lambda ours, other: ours >= other - NEAR,
        ),
        compared(
            kept,
            "It is better than one of a single annotator's labels (by more than 3 points)",
            ("reward_icm", "reward_human"),
            lambda ours, other: ours > other + NEAR,
        ),
        compared(
            kept,
            "It is better than one of golden labels with as many random errors (by more than 3 "
            "points)",
            ("reward_icm", "reward_perturbed"),
            lambda ours, other: ours > other + NEAR,
            unread=by_chance(Means(kept, "label_accuracy", "right labels"), "reward_icm"),
        ),
        compared(
            kept,
            "Labelling the rest by a first reward model makes it better (by more than 3 points)",
            ("reward_icm", "reward_icm_first"),
            lambda ours, other: ours > other + NEAR,
        ),
    ]


def assistant_findings(rows: pd.DataFrame) -> list[Finding]:
    """Reward models and policies, from the rows of `experiments/assistant.py`."""
    kept = rows.loc[rows["part"] == "assistant"]
    return [
        *reward_findings(rows),
        _wins(kept, "human", "one annotator's labels (the paper: 60 % of the comparisons)", 0.5),
        _wins(kept, "golden", "golden labels, or loses by 3 points at the most", 0.5 - NEAR),
        compared(
            kept,
            "Optimising a policy brings more of its own reward than taking the best of n answers",
            ("policy_icm", "best_of_icm"),
            lambda ours, other: ours > other,
            value="reward",
        ),
        _hacked(kept),
    ]


def compared(
    rows: pd.DataFrame,
    claim: str,
    methods: tuple[str, str],
    holds: Callable[[float, float], bool],
    *,
    value: str = "accuracy",
    unread: Mapping[str, str] | None = None,
) -> Finding:
    """It appears if it holds for two methods' means on more than half of the sets with both.

    Args:
        rows: Of one part of a study.
        claim: What the paper says.
        methods: The two.
        holds: Whether their means show it.
        value: The column.
        unread: Sets on which the comparison says nothing, and why.
    """
    means = Means(rows, value, value)
    return means.finding(claim, methods, holds, counted="sets", unread=unread or {})


def _means(rows: pd.DataFrame, value: str) -> dict[str, dict[str, float]]:
    """Set -> method -> mean over seeds of a column, where it has numbers."""
    return Means(rows, value, value).of


def _wins(rows: pd.DataFrame, other: str, said: str, line: float) -> Finding:
    """Whether the policy of ICM's labels wins more than a share of comparisons with another's."""
    claim = f"The judge prefers the assistant of ICM's labels to that of {said}"
    column = f"win_rate_{other}"
    means = {
        name: of["policy_icm"] for name, of in _means(rows, column).items() if "policy_icm" in of
    }
    if not means:
        return Finding(claim=claim, measured="no such case was measured", appears=None)
    low, high = (_means(rows, f"{column}_{end}") for end in ("low", "high"))
    shown = "; ".join(
        f"{readable(name)}: wins {share:.2f} ({low[name]['policy_icm']:.2f} to "
        f"{high[name]['policy_icm']:.2f} in an average seed)"
        for name, share in means.items()
    )
    count = sum(share > line for share in means.values())
    measured = f"{shown} (holds in {count} of {len(means)} sets)"
    return Finding(claim=claim, measured=measured, appears=count > len(means) / 2)


def _hacked(rows: pd.DataFrame) -> Finding:
    """Whether reward rises while fewer answers are right: known for every reward model."""
    claim = (
        "Optimised far enough, reward is hacked: it rises while fewer answers are true (by more "
        "than 5 points)"
    )
    accuracy, gain = _means(rows, "accuracy"), _means(rows, "reward_gain")
    cases = {
        (name, method): (gain[name][method], of[method] - of["start"])
        for name, of in accuracy.items()
        for method in of
        if method.startswith("policy_") and "start" in of and method in gain.get(name, {})
    }
    if not cases:
        measured = "no set whose true answers are known was measured"
        return Finding(claim=claim, measured=measured, appears=None)
    said = "; ".join(
        f"{method_of(method).name}: reward {reward:+.2f}, true answers {truth:+.2f}"
        for (_, method), (reward, truth) in cases.items()
    )
    count = sum(reward > 0 and truth < -FALLS for reward, truth in cases.values())
    measured = f"{said} (holds in {count} of {len(cases)} cases)"
    return Finding(claim=claim, measured=measured, appears=count > len(cases) / 2)
