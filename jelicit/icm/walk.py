"""The state of a search and how it moves: Algorithm 1 of Wen et al. 2025, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np

from jelicit.data.items import Item
from jelicit.icm.fix import fix
from jelicit.icm.objective import Judgement, Label, Labelling, predict_all
from jelicit.icm.prompter import Prompter
from jelicit.icm.settings import SearchSettings
from jelicit.icm.steps import Step
from jelicit.prompting.consistency import inconsistent_pairs

MATE_WEIGHT = 100
"""Weight of an unlabelled item that shares its group with a labelled one; all others weigh 1."""


def draw_weights(items: Sequence[Item], labels: Sequence[Label]) -> np.ndarray:
    """Weights [N] of a draw: 100 for unlabelled items that have a labelled mate, 1 for others."""
    begun = {item.group for item, label in zip(items, labels, strict=True) if label is not None}
    mates = [
        label is None and item.group in begun for item, label in zip(items, labels, strict=True)
    ]
    return np.where(mates, float(MATE_WEIGHT), 1.0)


class Walk:
    """The state of a search. `take` makes the next step, `follow` goes it."""

    def __init__(
        self, prompter: Prompter, settings: SearchSettings, start: Sequence[Label]
    ) -> None:
        self.prompter, self.settings = prompter, settings
        self.labels: list[Label] = list(start)
        self.step = self.draws = self.accepted = 0
        self._idle = False  # whether the last draw changed nothing
        self._foreseen: tuple[bool, ...] = ()  # predictions by the present labels, if made
        self._seen = np.zeros(len(start), int)  # draws of each item since the last change
        self.utility: float | None = None
        pairs = inconsistent_pairs(prompter.items, self.labels, settings.rule)
        self._inconsistent = len(pairs)
        self._to_fix = list(dict.fromkeys(prompter.items[i].group for i, _ in pairs))

    @property
    def finished(self) -> bool:
        """Whether no draws are left, or nothing changes any more."""
        most = self.settings.most_draws(len(self.labels))
        return not self._to_fix and (self.draws >= most or self.settled)

    @property
    def settled(self) -> bool:
        """Whether all items are labelled, and each was drawn often enough since the last change."""
        return None not in self.labels and int(self._seen.min()) >= self.settings.patience

    def follow(self, step: Step) -> None:
        """The state after a step, whether it was just made or read from a journal."""
        self.step += 1
        self.utility, self._inconsistent = step.utility, step.inconsistent
        for number, label in step.changes:
            self.labels[number] = label
        if step.kind == "fix":
            self._to_fix = self._to_fix[1:]
            return
        self.draws += 1
        self.accepted += step.accepted
        self._idle = not step.accepted
        if step.accepted:
            self._seen[:] = 0
            self._foreseen = ()
        else:
            self._seen[step.item] += 1
            self._foreseen = step.foreseen or self._foreseen

    def take(self) -> Step:
        """The next step; a scorer that fails in it leaves the state as it was."""
        rng = np.random.default_rng([self.settings.seed, 1, self.step])
        before = self.prompter.done
        made = self._fix(rng) if self._to_fix else self._draw(rng)
        return replace(made, **asdict(self.prompter.done - before))

    # --- the two kinds of steps ------------------------------------------------------------------

    def _fix(self, rng: np.random.Generator) -> Step:
        order = self._order(rng)
        members = [n for n in order if self.prompter.items[n].group == self._to_fix[0]]
        judgement = self._judgement(order, members)
        new = fix(
            judgement, judgement.present, _pairs(rng, members), rounds=self.settings.fix_rounds
        )
        made = self._judged(judgement, new, kind="fix", item=members[0], accepted=True)
        return replace(made, order=order)

    def _draw(self, rng: np.random.Generator) -> Step:
        items = self.prompter.items
        weights = draw_weights(items, self.labels)
        drawn = int(rng.choice(len(weights), p=weights / weights.sum()))
        uniform, order = rng.random(), self._order(rng)
        mates = [n for n in order if items[n].group == items[drawn].group and n != drawn]
        judgement = self._judgement(order, [*mates, drawn])
        foreseen: tuple[bool, ...] = ()
        if self._idle and not self._foreseen:
            # Labels that stood one draw will probably stand some more: all predictions at once
            # cost little more than a few of them.
            foreseen = predict_all(self.prompter, self.labels, order)
        known = foreseen or self._foreseen
        predicted = known[drawn] if known else judgement.predict(len(mates))
        if predicted is self.labels[drawn]:
            made = self._step("draw", drawn, predicted=predicted)
            return replace(made, foreseen=foreseen, order=() if self._foreseen else order)
        proposed = (*judgement.present[:-1], predicted)
        new = fix(
            judgement, proposed, _pairs(rng, judgement.group), rounds=self.settings.fix_rounds
        )
        gain = judgement.utility(new).gain_over(judgement.utility(judgement.present))
        accepted = gain > 0 or uniform < math.exp(gain / self.temperature)
        made = self._judged(
            judgement, new, kind="draw", item=drawn, predicted=predicted, accepted=accepted
        )
        return replace(made, foreseen=foreseen, order=order)

    def _judged(
        self,
        judgement: Judgement,
        new: Labelling,
        *,
        kind: str,
        item: int,
        accepted: bool,
        predicted: bool | None = None,
    ) -> Step:
        """A step that compared the labelling `new` with the present one."""
        present = judgement.present
        changed = new != present
        gain = judgement.utility(new).gain_over(judgement.utility(present))
        kept = new if accepted else present
        rows = zip(judgement.group, present, kept, strict=True)
        changes = [(number, label) for number, old, label in rows if label is not old]
        return replace(
            self._step(kind, item, predicted=predicted),
            gain=gain if changed else None,
            accepted=accepted and changed,
            changes=tuple((number, bool(label)) for number, label in changes),
            utility=judgement.utility(kept).value,
            inconsistent=judgement.utility(kept).inconsistent,
            labelled=self._labelled() + sum(self.labels[number] is None for number, _ in changes),
            judged=judgement.judged,
        )

    def _step(self, kind: str, item: int, *, predicted: bool | None) -> Step:
        """A step that changes nothing."""
        return Step(
            step=self.step,
            kind=kind,
            item=item,
            predicted=predicted,
            temperature=self.temperature,
            utility=self.utility,
            labelled=self._labelled(),
            inconsistent=self._inconsistent,
        )

    # --- parts -----------------------------------------------------------------------------------

    @property
    def temperature(self) -> float:
        """T of the next step."""
        return self.settings.temperature(self.accepted)

    def _order(self, rng: np.random.Generator) -> tuple[int, ...]:
        """The labelled items in random order."""
        order = rng.permutation(len(self.labels)).tolist()
        return tuple(number for number in order if self.labels[number] is not None)

    def _judgement(self, order: Sequence[int], group: Sequence[int]) -> Judgement:
        return Judgement(
            self.prompter,
            self.settings.objective,
            self.labels,
            others=[number for number in order if number not in group],
            group=group,
        )

    def _labelled(self) -> int:
        return sum(label is not None for label in self.labels)


def _pairs(rng: np.random.Generator, group: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of places in a group, in random order."""
    pairs = list(combinations(range(len(group)), 2))
    return [pairs[place] for place in rng.permutation(len(pairs))]
