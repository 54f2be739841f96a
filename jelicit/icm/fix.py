"""Algorithm 2 of Wen et al. 2025: make the labels of a group consistent where U rises by it."""

from __future__ import annotations

from collections.abc import Sequence

from jelicit.icm.objective import Judgement, Labelling

TOGETHER = 8
"""Labellings that are judged in one traversal before any of them is known to be needed."""


def fix(
    judgement: Judgement, start: Labelling, pairs: Sequence[tuple[int, int]], *, rounds: int
) -> Labelling:
    """The labelling that repairing inconsistent pairs leads to.

    Up to `rounds` times: take an inconsistent pair, try every consistent labelling of it, keep the
    best of them if U rises. A pair whose repair did not pay is not tried again before another's
    did: in one order the answer would be the same. Pairs of other groups are left alone; they have
    their turn when their own group is under reconsideration.

    Args:
        judgement: The order that all of it happens in. The present labelling, `start` and the
            first labellings that may be tried are judged together.
        start: Where it begins.
        pairs: All pairs of places in the group, in the order in which they are taken.
        rounds: M.
    """
    judgement.judge([judgement.present, *_within_reach(judgement, start)])
    best, in_vain = start, set()
    for _ in range(rounds):
        bad = set(judgement.inconsistent(best)) - in_vain
        pair = next((pair for pair in pairs if pair in bad), None)
        if pair is None:
            break
        options = judgement.repaired(best, pair)
        judgement.judge(options)
        found = max(options, key=lambda one: judgement.utility(one).value, default=best)
        if judgement.utility(found).gain_over(judgement.utility(best)) > 0:
            best, in_vain = found, set()
        else:
            in_vain.add(pair)
    return best


def _within_reach(judgement: Judgement, start: Labelling) -> list[Labelling]:
    """The first labellings that a repair of `start`, or of its repairs, may try."""
    found = {start: None}
    waiting = [start]
    while waiting and len(found) < TOGETHER:
        one = waiting.pop(0)
        for pair in judgement.inconsistent(one):
            for option in judgement.repaired(one, pair):
                if option not in found and len(found) < TOGETHER:
                    found[option] = None
                    waiting.append(option)
    return list(found)
