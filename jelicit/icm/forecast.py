"""How many prompts a search asks for at most, counted before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jelicit.data.items import Item
from jelicit.icm.fix import TOGETHER
from jelicit.icm.settings import SearchSettings
from jelicit.prompting.consistency import RULES

PAIR = 4
"""Labellings of a pair that a repair tries at most."""


def most_prompts(items: Sequence[Item], settings: SearchSettings) -> int:
    """Prompts of one search at most: every draw foresees all labels and changes some.

    A draw asks for the predictions of N items, and each labelling that it judges for N verdicts
    (`objective.Judgement`). Repairs of the first labels are draws without a prediction.

    Args:
        items: N items of one search.
        settings: Of the search.
    """
    n = len(items)
    judged = most_labellings(items, settings)
    begun = min(settings.initial, n) // 2  # groups whose first labels may contradict each other
    return settings.most_draws(n) * n * (1 + judged) + begun * n * judged


def most_labellings(items: Sequence[Item], settings: SearchSettings) -> int:
    """Labellings of one group that a draw judges at most; two where no rule binds any items."""
    largest = max(Counter(item.group for item in items).values(), default=1)
    if largest == 1 or settings.rule in ("none", RULES["none"]):
        return 2
    return min(1 + 2**largest, 1 + TOGETHER + PAIR * settings.fix_rounds)
