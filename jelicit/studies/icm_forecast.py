"""What a run of icm asks of servers at most, told before the first request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jelicit.icm import VARIANTS
from jelicit.icm.baselines import with_preamble
from jelicit.icm.forecast import most_prompts
from jelicit.prompting.forecast import Metered, Need, forecast, need_of, need_of_method
from jelicit.studies.icm_pool import Pool
from jelicit.studies.icm_tasks import Task
from jelicit.studies.session import Session


def tell_need(
    pools: Mapping[int, Sequence[Pool]], tasks: Sequence[Task], scorer: Any, session: Session
) -> None:
    """Says what is sent to the server of the model that labels; nothing of a model here.

    Args:
        pools: Of every task that is to be measured, by its place among the tasks: a pool per seed.
        tasks: The sets.
        scorer: The model that labels.
        session: Its settings say which methods.
    """
    if not (isinstance(scorer, Metered) and pools):
        return
    methods = session.settings.methods
    needs = {
        method: sum(
            (
                _need(method, tasks[place], pool, scorer, session, seed)
                for place, of_task in pools.items()
                for seed, pool in enumerate(of_task)
            ),
            Need(),
        )
        for method in methods
    }
    searches = sum((needs[name] for name in methods if name in VARIANTS), Need())
    total = sum(needs.values(), Need())
    session.say(f"before the first request: {forecast(scorer, total, searches=searches)}")


def tell_need_of_chat(tasks: Sequence[Task], chat: Any, session: Session) -> None:
    """Says what is sent to the server of the chat model, which every set's test items ask once.

    Args:
        tasks: The sets that are to be measured.
        chat: The chat model; nothing is said of one here.
        session: Where it is said.
    """
    if not (isinstance(chat, Metered) and tasks):
        return
    # Seeds ask the same, which is not sent again.
    needs = [_before(chat, task, task.situation.format) for task in tasks]
    session.say(f"before the first chat request: {forecast(chat, sum(needs, Need()))}")


def _before(scorer: Metered, task: Task, format: Any, **examples: Any) -> Need:
    """Of the test items, each after examples."""
    test = task.situation.test
    return need_of(scorer, len(test), test, format, **examples)


def _need(
    method: str, task: Task, pool: Pool, scorer: Metered, session: Session, seed: int
) -> Need:
    """Of one method with one seed."""
    form = task.situation.format
    if method == "zero_shot_chat":
        return Need()
    if method == "zero_shot":
        return _before(scorer, task, form)
    if method == "zero_shot_assistant":
        return _before(scorer, task, with_preamble(form))
    if method.startswith("bootstrapped"):
        shots, test = session.settings.shots, task.situation.test
        return need_of_method(method, scorer, test, pool.items, form, shots=shots)
    need = _before(scorer, task, form, examples=pool.items, shots=pool.shown)
    if method not in VARIANTS:
        return need
    settings = session.settings.search(seed, task.rule)
    for batch in pool.batches:
        items = [pool.items[number] for number in batch]
        prompts = most_prompts(items, settings)
        need += need_of(scorer, prompts, items, form, examples=items, shots=len(items) - 1)
    return need
