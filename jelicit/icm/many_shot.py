"""Many-shot prompting: test items judged after all labelled items, as the paper evaluates labels.

All targets see the same examples in the same order, so a scorer that keeps what prompts begin with
reads the examples once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jelicit.data.items import Item, known_label
from jelicit.data.prompts import PromptFormat, few_shot, get_format
from jelicit.prompting import Scorer, truth_scores
from jelicit.prompting.context import examples_that_fit


def many_shot_scores(
    scorer: Scorer,
    targets: Sequence[Item],
    examples: Sequence[Item],
    labels: Sequence[bool | None] | np.ndarray,
    format: str | PromptFormat,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Truth scores [n] of targets, log P(true) - log P(false), after all labelled examples.

    Args:
        scorer: The model.
        targets: n items.
        examples: N items.
        labels: [N]; unlabelled ones (None or nan) are not shown.
        format: How items are shown.
        seed: Of the order of the examples.

    Raises:
        ValueError: If there are not as many labels as examples, a target shares its group with an
            example, or the examples do not fit the model's context (the message says how many do).
    """
    if len(labels) != len(examples):
        raise ValueError(f"{len(labels)} labels for {len(examples)} examples")
    format = get_format(format)
    shown = [
        (item, label)
        for item, label in zip(examples, map(known_label, labels), strict=True)
        if label is not None
    ]
    _check_groups(targets, [item for item, _ in shown])
    shown = [shown[place] for place in np.random.default_rng(seed).permutation(len(shown))]
    fit = examples_that_fit(scorer, [item for item, _ in shown], format, targets=targets)
    if fit < len(shown):
        raise ValueError(
            f"{len(shown)} examples and a target do not fit the model's context; {fit} examples do"
        )
    prompts = [few_shot(item, shown, format) for item in targets]
    return truth_scores(scorer, prompts, format, items=targets)


def _check_groups(targets: Sequence[Item], examples: Sequence[Item]) -> None:
    groups = {item.group for item in examples}
    leaks = [item.id for item in targets if item.group in groups]
    if leaks:
        raise ValueError(
            f"{len(leaks)} of {len(targets)} targets share their group (their question) with an "
            f"example, {leaks[0]!r} for one; leave those targets or those examples out"
        )
