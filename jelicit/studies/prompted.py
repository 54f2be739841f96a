"""Prompting methods in a situation: few-shot with random, bootstrapped and golden labels.

Calibrated or not; of zero-shot prompting, whose scores come with the hidden states, what calibrates
them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jelicit.data.items import Item, labels
from jelicit.disk import write_text
from jelicit.named import slug
from jelicit.prompting import (
    ZERO_SHOT_CALIBRATED,
    Bootstrapped,
    Scorer,
    prompted,
    zero_shot_offset,
)
from jelicit.prompting.forecast import Metered, Need, forecast, need_of_method
from jelicit.studies import scoring
from jelicit.studies.measuring import Measured
from jelicit.studies.settings import PromptSettings
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States


def measure_zero_shot_calibrated(
    situation: Situation,
    states: States,
    scorer: Scorer,
    *,
    boot: jax.Array,
    say: Callable[[str], None] = print,
) -> Measured:
    """The zero-shot scores of the test items, less what the format says of no claim.

    Three prompts are asked; if somebody pays for them, what they take is told before. Nothing
    where nobody knows the zero-shot scores: they have no row then.

    Args:
        situation: What is measured.
        states: With the zero-shot scores.
        scorer: The same model, in the unit of the zero-shot scores: a verdict's own tokens.
        boot: Bootstrap weights [B, n].
        say: Told what is taken off.
    """
    odds = states.test_log_probs
    if odds is None:
        return Measured()
    if isinstance(scorer, Metered):
        need = need_of_method(ZERO_SHOT_CALIBRATED, scorer, (), (), situation.format, shots=())
        _tell_forecast(situation, "zero-shot, calibrated", scorer, need, say)
    offset = zero_shot_offset(scorer, situation.format)
    scores = odds[:, 0].astype(np.float64) - odds[:, 1] - offset
    rows = scoring.fixed_rows({ZERO_SHOT_CALIBRATED: scores}, situation.targets(), boot)
    say(
        f"{situation.title}: of no claim the prompt says {'True' if offset > 0 else 'False'} "
        f"(log-odds {offset:+.2f}); accuracy without that {rows[0]['accuracy']:.2f}"
    )
    return Measured(rows, [({"method": ZERO_SHOT_CALIBRATED, "orientation": "none"}, scores)])


def measure_prompting(
    situation: Situation,
    runs: Runs,
    scorer: Scorer,
    settings: PromptSettings,
    *,
    boot: int,
    journals: Path,
    say: Callable[[str], None] = print,
) -> Measured:
    """Prompting methods: the pool is drawn from each run's train rows, targets are test items.

    Args:
        situation: What is measured.
        runs: The runs of the prompting methods, each with the train rows that its pool is from.
        scorer: The model.
        settings: With numbers (`PromptSettings.fitting`).
        boot: Bootstrap samples.
        journals: Folder of finished rounds: a run that was killed goes on after them. The labels
            of every round are written beside them.
        say: Told how each method did.
    """
    measured, told = Measured(), []
    few, chosen = with_few_tests(situation, settings.prompt_tests)
    weights = few.boot(boot)
    if isinstance(scorer, Metered):
        need = _need(scorer, few, runs, settings)
        _tell_forecast(situation, "few-shot prompts", scorer, need, say)
    for run, subset in zip(runs.about, runs.subsets, strict=True):
        drawn = np.random.default_rng(run["seed"]).permutation(np.flatnonzero(subset))
        pool = [situation.train[row] for row in drawn[: settings.pool]]
        for method in settings.few_shot_asked:
            begin = time.perf_counter()
            done = _prompted(method, scorer, few, pool, settings, run["seed"], journals)
            right = done.accuracies(labels(pool, situation.target))
            told += label_rounds(done, right, pool, {"method": method, **run})
            rows = scoring.fixed_rows({method: done.scores}, few.targets(), weights)
            own = {"n_train": len(pool), "n_test": len(few.test), "label_accuracy": right[-1]}
            measured.rows += [{**row, **run, **own} for row in rows]
            about = {k: v for k, v in run.items() if k != "seed"}
            every = np.full(len(situation.test), np.nan)
            every[chosen] = done.scores
            measured.scores.append(({"method": method, "orientation": "none", **about}, every))
            words = ", ".join(f"{k} {v:g}" for k, v in run.items())
            took = time.perf_counter() - begin
            say(
                f"{situation.title}, {words}, {method}: AUROC {rows[0]['auroc']:.2f}, labels right "
                f"{' -> '.join(f'{share:.2f}' for share in right)} ({took:.1f} s)"
            )
    path = journals / f"{slug(situation.title)}-labels.jsonl"
    write_text(path, "".join(json.dumps(line) + "\n" for line in told))
    return merged_seeds(measured)


def _tell_forecast(
    situation: Situation, what: str, scorer: Metered, need: Need, say: Callable[[str], None]
) -> None:
    say(f"{situation.title}, {what}, before the first request: {forecast(scorer, need)}")


def _need(scorer: Metered, few: Situation, runs: Runs, settings: PromptSettings) -> Need:
    """What all runs of all methods send at most; their pools are of any train rows."""
    assert settings.shots is not None
    needs = [
        need_of_method(
            method,
            scorer,
            few.test,
            few.train,
            few.format,
            shots=settings.shots,
            size=settings.pool,
        )
        for method in settings.few_shot_asked
    ]
    return sum(len(runs.about) * needs, Need())


def _prompted(
    method: str,
    scorer: Scorer,
    few: Situation,
    pool: Sequence[Item],
    settings: PromptSettings,
    seed: int,
    journals: Path,
) -> Bootstrapped:
    assert settings.shots is not None
    return prompted(
        method,
        scorer,
        few.test,
        pool,
        few.format,
        shots=settings.shots,
        rule=settings.rule,
        seed=seed,
        journal=journals / f"{slug(few.title)}.jsonl",
    )


def with_few_tests(situation: Situation, count: int | None) -> tuple[Situation, np.ndarray]:
    """A situation with some of its test items, and their places among all of them."""
    # A draw, since test items may stand in order of their source.
    order = np.random.default_rng(0).permutation(len(situation.test))
    chosen = np.sort(order[:count])
    return replace(situation, test=tuple(situation.test[place] for place in chosen)), chosen


def label_rounds(
    done: Bootstrapped, right: Sequence[float], pool: Sequence[Item], run: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the pool was labelled in every round of a run, and how much of it is right.

    Args:
        done: The run.
        right: Share of right labels, round by round; the first are the labels it began with.
        pool: The items that were labelled.
        run: What each line says of the run.
    """
    ids = [item.id for item in pool]
    return [
        {
            **run,
            "round": number,
            "label_accuracy": share,
            "labels": {i: None if x != x else bool(x) for i, x in zip(ids, made, strict=True)},
        }
        for number, (share, made) in enumerate(zip(right, done.history, strict=True))
    ]


def merged_seeds(measured: Measured) -> Measured:
    """Scores of one method and setting under several seeds as one entry [seeds, n]."""
    kept: dict[str, tuple[dict[str, Any], list[np.ndarray]]] = {}
    for about, scores in measured.scores:
        kept.setdefault(repr(sorted(about.items())), (about, []))[1].append(scores)
    scores = [(about, np.stack(runs)) for about, runs in kept.values()]
    return Measured(measured.rows, scores, doubts=measured.doubts)
