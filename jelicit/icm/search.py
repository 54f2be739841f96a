"""ICM's search: Algorithm 1 of Wen et al. 2025.

    K items get random labels, and are made consistent (Algorithm 2, `fix`); then, again and again:
    T = temperature of the changes accepted so far
    draw an item x; unlabelled items that share a group with a labelled one weigh 100, others 1
    y = argmax p(y | x, D without x); if that is its label already, go on
    D' = D with (x, y), made consistent
    accept D' if U rises, else with probability exp((U(D') - U(D)) / T)

(The paper's printed line rejects with that probability; its text and its code accept with it.)
Each draw has an order of its own, in which D, D' and all that is between are judged with the group
of x last in every context: see `objective.Judgement`. So the numbers of one draw say nothing about
those of another; and a change that one order speaks against is looked at in another the next time.
Once a draw has left D as it was, the predictions of all items are asked for together, in one
leave-one-out traversal, and hold until D changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from jelicit.data.items import Item, digest, known_label
from jelicit.data.prompts import PromptFormat
from jelicit.icm.objective import Label
from jelicit.icm.prompter import Prompter
from jelicit.icm.settings import SearchSettings
from jelicit.icm.steps import SearchResult, Step, accuracy, from_entry, to_entry
from jelicit.icm.walk import Walk
from jelicit.prompting import Scorer, random_labels
from jelicit.prompting.consistency import get_rule
from jelicit.prompting.context import check_fit
from jelicit.prompting.run_journal import RunJournal, run_key

ALGORITHM = 1
"""Raised when the same settings lead to other steps than before; part of a journal's key."""


def initial_labels(n_items: int, *, count: int, seed: int) -> tuple[Label, ...]:
    """K random items with random labels, half of them true; the others unlabelled: [N]."""
    count = min(count, n_items)
    chosen = np.random.default_rng([seed, 0, 0]).permutation(n_items)[:count]
    labels: list[Label] = [None] * n_items
    for number, label in zip(chosen, random_labels(count, seed=[seed, 0, 1]), strict=True):
        labels[number] = bool(label)
    return tuple(labels)


def search(
    scorer: Scorer,
    items: Sequence[Item],
    format: str | PromptFormat,
    settings: SearchSettings | None = None,
    *,
    start: Sequence[Label] | np.ndarray | None = None,
    journal: Path | None = None,
    gold: Sequence[bool | None] | np.ndarray | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> SearchResult:
    """Labels that the model finds coherent; the items' own labels are taken out first.

    Args:
        scorer: The model. The result is a function of it, the items, the format, the settings and
            the start; a scorer whose numbers vary may lead elsewhere.
        items: N items.
        format: How they are shown.
        settings: Of the search.
        start: [N] labels to begin with in place of random ones; None or nan = unlabelled.
        journal: File of finished steps. A search that was killed, or whose scorer failed, goes on
            after the last of them and ends the same; searches of other settings in it are left
            alone. The scorer must have a `name` that pins its model, and the rule be one of
            `jelicit.prompting.consistency.RULES`.
        gold: [N] true labels (None or nan: no truth value), for `Step.accuracy` alone.
        on_step: Called after every step, those read from the journal included.

    Raises:
        ValueError: If items or labels make no sense, the contexts do not fit the model (the message
            says how many examples do), the journal cannot tell this search from others, or the
            scorer's numbers are not finite.
    """
    settings = settings or SearchSettings()
    check_given(items, start=start, gold=gold)
    prompter = Prompter(scorer, items, format)
    check_fit(scorer, prompter.items, prompter.format)
    if start is None:
        start = initial_labels(len(items), count=settings.initial, seed=settings.seed)
    begun = tuple(known_label(label) for label in start)
    walk = Walk(prompter, settings, begun)
    record = _journal(journal, prompter, settings, begun)
    history: list[Step] = []
    while not walk.finished:
        found = record.get(walk.step)
        step = walk.take() if found is None else from_entry(found)
        if found is None:
            record.put(step.step, **to_entry(step))
        walk.follow(step)
        if gold is not None:
            step = replace(step, accuracy=accuracy(walk.labels, gold))
        history.append(step)
        if on_step is not None:
            on_step(step)
    return SearchResult(
        labels=tuple(walk.labels),
        start=begun,
        history=tuple(history),
        converged=walk.settled,
    )


# --- journal and checks --------------------------------------------------------------------------


def _journal(
    path: Path | None, prompter: Prompter, settings: SearchSettings, start: Sequence[Label]
) -> RunJournal:
    """The steps of one search, under a key that names everything that decides them."""
    if path is None:
        return RunJournal(None, "", part="step")
    key = run_key(
        prompter.scorer,
        get_rule(settings.rule),
        ALGORITHM,
        digest(prompter.items),
        asdict(prompter.format),
        settings.deciding(),
        list(start),
    )
    return RunJournal(path, key, part="step")


def check_given(
    items: Sequence[Item],
    *,
    start: Sequence[Label] | np.ndarray | None,
    gold: Sequence[bool | None] | np.ndarray | None,
) -> None:
    """Refuses no items, and labels that are not one for each item.

    Raises:
        ValueError: Saying how many there are.
    """
    if not items:
        raise ValueError("there are no items to label")
    for name, given in (("start", start), ("gold", gold)):
        if given is not None and len(given) != len(items):
            raise ValueError(f"{name} has {len(given)} labels for {len(items)} items")
