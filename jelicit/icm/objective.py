"""U of labellings, judged inside one order (Wen et al. 2025; docs/methods.md#icm).

    U(D) = alpha P(D) - I(D)

P is mutual predictability: how well the model predicts each label from all the others. I is the
number of pairs of labels that a rule does not allow. The order of the examples moves P, so two
values of U can be compared only if they come from the same order: a `Judgement` is one such order,
and what it says of two labellings is their difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from jelicit.icm.orders import held_out, leave_one_out
from jelicit.icm.prompter import Ask, Example, Prompter
from jelicit.prompting.consistency import Rule, consistent_labellings, get_rule, inconsistent_pairs

Label = bool | None
"""A proposed label; None = not labelled (yet)."""

Labelling = tuple[Label, ...]
"""Proposed labels of the items under reconsideration, in their order."""

Predictability = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """U = alpha P - I.

    Attributes:
        alpha: Weight of P; 50 and initial temperature 10 belong together (20 to 30 where the
            search is slow).
        predictability: What P is, with l_i the label of item i and D_i all the other labels.
            "mean", as in the released code: the mean over labelled items of the signed log-odds,
            s_i (log p(True | x_i, D_i) - log p(False | x_i, D_i)), s_i = +1 for True, -1 for False.
            "sum", as the paper prints it: the sum of log p(l_i | x_i, D_i), with alpha / N in place
            of alpha, N being the number of all items.
        rule: Which pairs of labels are inconsistent: a name in
            `jelicit.prompting.consistency.RULES`, or a rule of one's own.

    Raises:
        ValueError: If alpha is negative, or predictability or rule is unknown.
    """

    alpha: float = 50.0
    predictability: Predictability = "mean"
    rule: str | Rule = "answer"

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"alpha is {self.alpha}; allowed: 0 or more")
        if self.predictability not in ("mean", "sum"):
            raise ValueError(f"predictability is {self.predictability!r}; allowed: mean, sum")
        object.__setattr__(self, "rule", get_rule(self.rule))

    def weighted(self, log_probs: np.ndarray, labels: Sequence[bool], *, n_items: int) -> float:
        """Alpha P of labelled items.

        Args:
            log_probs: [n, 2] log-probabilities of the true and the false verdict.
            labels: [n].
            n_items: N, of all items, labelled or not.
        """
        if not len(labels):
            return 0.0
        signs = np.asarray(labels)
        if self.predictability == "sum":
            own = np.where(signs, log_probs[:, 0], log_probs[:, 1])
            return float(self.alpha / n_items * own.sum())
        odds = log_probs[:, 0] - log_probs[:, 1]
        return float(self.alpha * np.where(signs, odds, -odds).mean())


@dataclass(frozen=True)
class Utility:
    """U of one labelling, in one order.

    Attributes:
        value: U = alpha P - I.
        inconsistent: I, over all items.
        order: The judgement that it belongs to.
    """

    value: float
    inconsistent: int
    order: Judgement

    def gain_over(self, other: Utility) -> float:
        """U of this labelling minus U of the other.

        Raises:
            ValueError: If the two come from different orders.
        """
        if self.order is not other.order:
            raise ValueError(
                "values of U from different orders cannot be compared: the order itself moves "
                "them; judge both labellings in one judgement"
            )
        return self.value - other.value


def predict_all(
    prompter: Prompter, labels: Sequence[Label], order: Sequence[int]
) -> tuple[bool, ...]:
    """argmax_y p(y | x, D without x) for every item, labelled or not, in one traversal: [N].

    Args:
        prompter: Items and scorer.
        labels: [N] present labels.
        order: The labelled items, in the order to show them.
    """
    asks: list[Ask] = []
    for context, number in held_out(order):
        examples = tuple((other, bool(labels[other])) for other in context)
        unlabelled = (n for n, label in enumerate(labels) if label is None)
        asks += [(examples, target) for target in ([number] if number is not None else unlabelled)]
    log_probs = prompter.ask(asks)
    found = {target: bool(a > b) for (_, target), (a, b) in zip(asks, log_probs, strict=True)}
    return tuple(found[number] for number in range(len(labels)))


class Judgement:
    """One order, in which any number of labellings of one group are compared.

    The labels of all other items stay. The group stands last in every context, so the contexts
    before it are read once for all labellings that are judged together, and each labelling adds its
    own few examples and the judged items.

    Attributes:
        others: Numbers of the other labelled items, in the order they are shown.
        group: Numbers of the items under reconsideration, in the order they are shown.
        present: The group's present labels.
    """

    def __init__(
        self,
        prompter: Prompter,
        objective: Objective,
        labels: Sequence[Label],
        *,
        others: Sequence[int],
        group: Sequence[int],
    ) -> None:
        """An order.

        Args:
            prompter: Items and scorer.
            objective: What U is.
            labels: [N] present labels of all items.
            others: Every labelled item that is not in the group, in the order to show them.
            group: All items of one group that are labelled or may be, in the order to show them.

        Raises:
            ValueError: If `others` are not the labelled items outside the group, or rules could
                bind an item of the group to one outside.
        """
        self._prompter, self._objective = prompter, objective
        self.others, self.group = tuple(others), tuple(group)
        labelled = {number for number, label in enumerate(labels) if label is not None}
        if sorted(self.others) != sorted(labelled - set(self.group)):
            raise ValueError("others must be the labelled items outside the group, each once")
        names = {prompter.items[number].group for number in self.group}
        if any(prompter.items[number].group in names for number in self.others):
            raise ValueError("a labelled item shares its group with one under reconsideration")
        self.present: Labelling = tuple(labels[number] for number in self.group)
        self._shown = {number: bool(labels[number]) for number in self.others}
        self._members = [prompter.items[number] for number in self.group]
        # Rules are asked in the items' order, whatever the order of the examples.
        self._in_items_order = sorted(range(len(self.group)), key=self.group.__getitem__)
        self._found: dict[Ask, np.ndarray] = {}
        self._utilities: dict[Labelling, Utility] = {}

    def predict(self, place: int) -> bool:
        """argmax_y p(y | x, D without x) for an item of the group, by the group's present labels.

        Args:
            place: Of the item in `group`.
        """
        shown = [(n, self._shown[n]) for n in self.others]
        rest = [
            (number, label)
            for at, (number, label) in enumerate(zip(self.group, self.present, strict=True))
            if at != place and label is not None
        ]
        ask = ((*shown, *rest), self.group[place])
        self._ask([ask])
        true, false = self._found[ask]
        return bool(true > false)

    def inconsistent(self, labelling: Labelling) -> list[tuple[int, int]]:
        """Pairs of places in the group (i < j) whose labels the rule does not allow."""
        places = self._in_items_order
        members, labels = [self._members[i] for i in places], [labelling[i] for i in places]
        found = inconsistent_pairs(members, labels, self._objective.rule)
        pairs = [(places[i], places[j]) for i, j in found]
        return sorted((min(pair), max(pair)) for pair in pairs)

    def repaired(self, labelling: Labelling, pair: tuple[int, int]) -> list[Labelling]:
        """The labelling with every pair of labels that two of its items may have together."""
        i, j = sorted(pair, key=self.group.__getitem__)
        made = []
        for pair_labels in consistent_labellings(
            self._members[i], self._members[j], self._objective.rule
        ):
            new = list(labelling)
            new[i], new[j] = pair_labels
            made.append(tuple(new))
        # True before False at the pair's first place, then at its second.
        return sorted(made, key=lambda one: [one[place] for place in pair], reverse=True)

    def judge(self, labellings: Iterable[Labelling]) -> None:
        """Judges labellings together: one traversal, one call of the scorer."""
        new = [one for one in dict.fromkeys(labellings) if one not in self._utilities]
        if not new:
            return
        self._ask(self._asks(new))
        for labelling in new:
            self._utilities[labelling] = self._utility(labelling)

    def utility(self, labelling: Labelling) -> Utility:
        """U of a labelling; judged now if it was not before."""
        self.judge([labelling])
        return self._utilities[labelling]

    @property
    def judged(self) -> int:
        """How many labellings were judged."""
        return len(self._utilities)

    # --- one traversal ---------------------------------------------------------------------------

    @cached_property
    def _contexts(self) -> list[tuple[tuple[Example, ...], int | None]]:
        """Contexts of the others, and who is held out of them."""
        return [
            (tuple((other, self._shown[other]) for other in context), number)
            for context, number in held_out(self.others)
        ]

    @cached_property
    def _inconsistent_others(self) -> int:
        numbers = sorted(self.others)
        items = [self._prompter.items[number] for number in numbers]
        labels = [self._shown[number] for number in numbers]
        return len(inconsistent_pairs(items, labels, self._objective.rule))

    def _asks(self, labellings: Sequence[Labelling]) -> list[Ask]:
        """What the labellings need to know, in trie order, each once."""
        asks: dict[Ask, None] = {}
        for before, number in self._contexts:
            ends = {end for one in labellings for end in self._ends(one, number)}
            # Sorted, the group's own examples are in trie order, too.
            for examples, target in sorted(ends, key=self._rank):
                asks[(*before, *examples), target] = None
        return list(asks)

    def _ends(self, labelling: Labelling, number: int | None) -> list[Ask]:
        """The group's examples and who is judged after them: another item, or each of its own."""
        examples = self._examples(labelling)
        if number is not None:
            return [(examples, number)]
        return [(shown, target) for shown, (target, _) in leave_one_out(examples)]

    def _rank(self, end: Ask) -> tuple[list[Example], int]:
        examples, target = end
        return [(self.group.index(number), label) for number, label in examples], target

    def _examples(self, labelling: Labelling) -> tuple[Example, ...]:
        pairs = zip(self.group, labelling, strict=True)
        return tuple((number, label) for number, label in pairs if label is not None)

    def _ask(self, asks: Sequence[Ask]) -> None:
        new = [ask for ask in asks if ask not in self._found]
        self._found.update(zip(new, self._prompter.ask(new), strict=True))

    def _utility(self, labelling: Labelling) -> Utility:
        labels = self._shown | dict(self._examples(labelling))
        asks = self._asks([labelling])
        weighted = self._objective.weighted(
            np.array([self._found[ask] for ask in asks]).reshape(-1, 2),
            [labels[target] for _, target in asks],
            n_items=len(self._prompter.items),
        )
        inconsistent = self._inconsistent_others + len(self.inconsistent(labelling))
        return Utility(weighted - inconsistent, inconsistent, self)
