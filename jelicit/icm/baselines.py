"""What ICM is compared with (Wen et al. 2025): other labels for the same prompts, other starts.

All score test items with the same scorer and format. A chat model is zero-shot prompting with
another scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from jelicit.data.items import Item, known_label
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.icm.many_shot import many_shot_scores
from jelicit.icm.objective import Label
from jelicit.icm.search import initial_labels
from jelicit.icm.settings import SearchSettings
from jelicit.prompting import (
    PAPER_SHOTS,
    Scorer,
    golden_labels,
    prompted,
    random_labels,
    zero_shot_scores,
)
from jelicit.prompting.consistency import Rule
from jelicit.prompting.context import examples_that_fit

BASELINES = (
    "zero_shot",
    "zero_shot_assistant",
    "random_many_shot",
    "golden_many_shot",
    "bootstrapped",
    "bootstrapped_consistent",
)
"""Methods of `baseline_scores`. "zero_shot_assistant" is what the paper calls zero-shot."""

VARIANTS = ("icm", "icm_golden_start", "icm_wrong_start", "icm_no_consistency")
"""Searches of `variant`."""

PREAMBLE = (
    "What follows was written by an assistant that is helpful, honest and careful. It is shown "
    "material and says what it thinks of it. It looks closely before it judges, knows a great "
    "deal, and never states what it does not believe."
)
"""Stands before everything in "zero_shot_assistant"; words of our own."""


def with_preamble(format: str | PromptFormat) -> PromptFormat:
    """The format with the assistant's preamble before its own system text."""
    format = get_format(format)
    system = f"{PREAMBLE}\n{format.system}" if format.system else PREAMBLE
    return replace(format, name=f"{format.name}+assistant", system=system)


def baseline_scores(
    method: str,
    scorer: Scorer,
    targets: Sequence[Item],
    pool: Sequence[Item],
    format: str | PromptFormat,
    *,
    seed: int = 0,
    rule: str | Rule = "answer",
    shots: Sequence[int] = PAPER_SHOTS,
    limit: int | None = None,
    journal: Path | None = None,
) -> np.ndarray:
    """Truth scores [n] of targets by one of `BASELINES`.

    Args:
        method: Which.
        scorer: The model.
        targets: n items.
        pool: Train items. Many-shot prompts show as many of them as fit, from the first on.
            golden_many_shot alone reads their labels: the one that the format asks for.
        format: How items are shown.
        seed: Of random labels, draws and the order of examples.
        rule: Of bootstrapped_consistent.
        shots: Of bootstrapping.
        limit: Most tokens in a many-shot prompt, where that is less than the model's context.
        journal: Of bootstrapping.

    Raises:
        ValueError: If the method is unknown, or as of `many_shot_scores` and
            `jelicit.prompting.bootstrapped`.
    """
    format = get_format(format)
    if method == "zero_shot":
        return zero_shot_scores(scorer, targets, format)
    if method == "zero_shot_assistant":
        return zero_shot_scores(scorer, targets, with_preamble(format))
    if method in ("random_many_shot", "golden_many_shot"):
        fit = examples_that_fit(scorer, pool, format, targets=targets, limit=limit)
        shown = pool[:fit]
        golden = method == "golden_many_shot"
        labels = golden_labels(shown, format.target) if golden else random_labels(fit, seed=seed)
        return many_shot_scores(scorer, targets, shown, labels, format, seed=seed)
    if method not in BASELINES:
        raise ValueError(f"unknown baseline {method!r}; known: {', '.join(BASELINES)}")
    return prompted(
        method, scorer, targets, pool, format, shots=shots, rule=rule, seed=seed, journal=journal
    ).scores


# --- ablations -----------------------------------------------------------------------------------


def perturbed(gold: Sequence[bool] | np.ndarray, *, accuracy: float, seed: int) -> np.ndarray:
    """Gold labels of which random ones are flipped until that share is right: bool [N].

    Labels that are as good as ICM's but wrong at random: what its coherence is worth beyond its
    accuracy.

    Raises:
        ValueError: If accuracy is not between 0 and 1, or an item has no truth value.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is {accuracy}; allowed: between 0 and 1")
    known = [known_label(label) for label in gold]
    if None in known:
        raise ValueError(
            f"gold has no truth value for item {known.index(None)}; leave such items out"
        )
    labels = np.array(known, bool)
    wrong = round((1 - accuracy) * len(labels))
    rows = np.random.default_rng(seed).permutation(len(labels))[:wrong]
    labels[rows] = ~labels[rows]
    return labels


def start_labels(
    gold: Sequence[bool | None] | np.ndarray,
    kind: Literal["golden", "wrong"],
    *,
    count: int,
    seed: int,
) -> tuple[Label, ...]:
    """Labels to begin a search with, for the items that its random labels would go to: [N].

    Args:
        gold: [N] true labels; items without a truth value (None or nan) are not labelled.
        kind: "golden", or "wrong": all of them the opposite.
        count: K.
        seed: Of the search.
    """
    random = initial_labels(len(gold), count=count, seed=seed)
    return tuple(
        None if drawn is None or truth is None else truth == (kind == "golden")
        for drawn, truth in zip(random, map(known_label, gold), strict=True)
    )


def variant(
    name: str, settings: SearchSettings, gold: Sequence[bool | None] | np.ndarray
) -> tuple[SearchSettings, tuple[Label, ...] | None]:
    """(settings, start) of one of `VARIANTS`: other labels to begin with, or no rule.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == "icm":
        return settings, None
    if name == "icm_no_consistency":
        return replace(settings, rule="none"), None
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}; known: {', '.join(VARIANTS)}")
    kind = "golden" if name == "icm_golden_start" else "wrong"
    return settings, start_labels(gold, kind, count=settings.initial, seed=settings.seed)
