"""Prompting methods: zero-shot, random, bootstrapped and golden few-shot (Canavan et al. 2026).

All of them score an item by log P(true) - log P(false) at the end of a prompt; they differ in the
examples that stand before it. The scorer is an argument: `extract.local_scorer.LocalScorer`, a
model server, or a function of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jelicit.data.items import Item, digest, known_label, label_of
from jelicit.data.prompts import PromptFormat, few_shot, get_format, segments
from jelicit.prompting.calibrated import CONTENT_FREE, calibrated_scores
from jelicit.prompting.consistency import Rule, get_rule, most_likely
from jelicit.prompting.run_journal import RunJournal, run_key
from jelicit.prompting.scorer import Scorer, truth_scores

ALGORITHM = 1
"""Raised whenever draws, labels or scores come out otherwise: rows of another are not read back."""

PAPER_SHOTS = (2, 32)
"""Examples in a prompt, round by round, in Canavan et al. 2026."""

PAPER_POOL = 512
"""Train items that are labelled in their bootstrapping."""


METHODS = ("random_few_shot", "bootstrapped", "bootstrapped_consistent", "golden_few_shot")
"""The prompting methods that read a pool of train items; zero-shot prompting reads none."""

_CALIBRATED = "_calibrated"

CALIBRATED = tuple(f"{method}{_CALIBRATED}" for method in METHODS)
"""The same, every truth score less what its prompt says of no claim (`calibrated_scores`).
Bootstrapping labels the pool by calibrated scores, too."""

ZERO_SHOT_CALIBRATED = f"zero_shot{_CALIBRATED}"
"""What zero-shot prompting with calibrated scores is called."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of bootstrapping: the pool labelled by prompts with the labels of the round before.

    Attributes:
        shots: Examples in each prompt.
        scores: Truth score of every item of the pool [N].
        labels: The labels made of them [N].
    """

    shots: int
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """What prompts with examples from a pool give.

    Attributes:
        scores: Truth score of every target [n].
        start: The labels of the pool that it began with [N]: random ones, or (of golden few-shot)
            its own, nan where an item has no truth value.
        rounds: The rounds that relabelled the pool, in order.
    """

    scores: np.ndarray
    start: np.ndarray
    rounds: tuple[Round, ...]

    @property
    def labels(self) -> np.ndarray:
        """The labels whose examples the targets were shown [N]."""
        return self.rounds[-1].labels if self.rounds else self.start

    @property
    def history(self) -> tuple[np.ndarray, ...]:
        """The labels of the pool [N] at the start and after each round."""
        return self.start, *(one.labels for one in self.rounds)

    def accuracies(self, truth: Sequence[bool | None] | np.ndarray) -> list[float]:
        """Share of right labels in the pool at the start and after each round.

        Args:
            truth: [N]; items without a truth value (None or nan) are left out.
        """
        values = [known_label(value) for value in truth]
        known = np.array([value is not None for value in values])
        if not known.any():
            raise ValueError("no item of the pool has a truth value")
        right = np.array([bool(value) for value in values])
        return [float((labels == right)[known].mean()) for labels in self.history]


def zero_shot_scores(
    scorer: Scorer,
    targets: Sequence[Item],
    format: str | PromptFormat,
    *,
    calibrated: bool = False,
) -> np.ndarray:
    """Truth scores [n] without examples: log P(true | x_i) - log P(false | x_i).

    Args:
        scorer: The model.
        targets: n items.
        format: How items are shown.
        calibrated: Whether what the format says of no claim is taken off (`calibrated_scores`).
    """
    format = get_format(format)
    prompts = [segments(item, format) for item in targets]
    scored = calibrated_scores if calibrated else truth_scores
    return scored(scorer, prompts, format, items=targets)


def few_shot_scores(
    scorer: Scorer,
    targets: Sequence[Item],
    pool: Sequence[Item],
    labels: Sequence[bool | None] | np.ndarray,
    format: str | PromptFormat,
    *,
    shots: int,
    seed: int | Sequence[int] = 0,
    calibrated: bool = False,
) -> np.ndarray:
    """Truth scores [n] of targets after examples from a pool with the labels given.

    Args:
        scorer: The model.
        targets: n items.
        pool: N items that examples are drawn from, for every target anew (`draw_examples`).
        labels: [N]; None or nan = "has no truth value", shown with the format's third word.
        format: How items are shown.
        shots: Examples in a prompt.
        seed: Of the draws. An item's examples depend on its place among the targets.
        calibrated: Whether what the same examples make the model say of no claim is taken off
            (`calibrated_scores`).

    Raises:
        ValueError: As of `draw_examples`, `jelicit.data.prompts.few_shot`, `truth_scores` and
            `calibrated_scores`.
    """
    format = get_format(format)
    draws = _Draws(pool, labels)
    prompts = [
        few_shot(item, draws.examples(item, shots, _seed(seed, place)), format)
        for place, item in enumerate(targets)
    ]
    scored = calibrated_scores if calibrated else truth_scores
    return scored(scorer, prompts, format, items=targets)


def prompted(
    method: str,
    scorer: Scorer,
    targets: Sequence[Item],
    pool: Sequence[Item],
    format: str | PromptFormat,
    *,
    shots: Sequence[int] = PAPER_SHOTS,
    rule: str | Rule = "answer",
    seed: int = 0,
    journal: Path | None = None,
) -> Bootstrapped:
    """Targets judged by one of the prompting methods, with the labels that the pool went through.

    Random few-shot prompts have the first number of shots, golden ones the last (2 and 32 in
    Canavan et al. 2026); bootstrapping goes through all of them.

    Args:
        method: Which of `METHODS` or `CALIBRATED`.
        scorer: The model.
        targets: n items.
        pool: Train items to draw examples from. Their own labels are read by golden prompts only:
            the label that the format asks for.
        format: How items are shown.
        shots: Examples in a prompt, rising.
        rule: Of bootstrapped_consistent.
        seed: Of labels and draws.
        journal: File of finished rounds; see `bootstrapped`.

    Raises:
        ValueError: If the method is unknown, or as of `bootstrapped` and `few_shot_scores`.
    """
    known = (*METHODS, *CALIBRATED)
    if method not in known:
        raise ValueError(f"unknown prompting method {method!r}; known: {known}")
    calibrated, method = method in CALIBRATED, uncalibrated(method)
    if method == "golden_few_shot":
        form = get_format(format)
        return _golden(scorer, targets, pool, form, shots[-1], seed, journal, calibrated=calibrated)
    return bootstrapped(
        scorer,
        targets,
        pool,
        format,
        shots=shots[:1] if method == "random_few_shot" else shots,
        rule=rule if method == "bootstrapped_consistent" else "none",
        seed=seed,
        journal=journal,
        calibrated=calibrated,
    )


def uncalibrated(method: str) -> str:
    """The method that one of `CALIBRATED` calibrates; any other as it is."""
    return method.removesuffix(_CALIBRATED)


def _golden(
    scorer: Scorer,
    targets: Sequence[Item],
    pool: Sequence[Item],
    format: PromptFormat,
    shots: int,
    seed: int,
    journal: Path | None,
    *,
    calibrated: bool,
) -> Bootstrapped:
    gold = golden_labels(pool, format.target)
    # Items do not tell which of their labels were shown.
    shown = json.dumps(gold)
    about = (format, seed, shots, shown, *_mark(calibrated=calibrated))
    record = _journal(journal, scorer, get_rule("none"), targets, pool, *about)
    score = partial(few_shot_scores, scorer, targets, pool, gold, format, calibrated=calibrated)
    scores = _round_scores(record, 1, partial(score, shots=shots, seed=seed))
    start = np.array([np.nan if label is None else float(label) for label in gold])
    return Bootstrapped(scores=scores, start=start, rounds=())


def random_labels(n: int, *, seed: int | Sequence[int]) -> np.ndarray:
    """N random labels, as many true as false (one more is false where n is odd): bool [n]."""
    return np.random.default_rng(seed).permutation(n) < n // 2


def golden_labels(pool: Sequence[Item], target: str = "label") -> list[bool | None]:
    """The pool's own labels for a target: the ceiling of what examples can teach."""
    return [label_of(item, target) for item in pool]


def bootstrapped(
    scorer: Scorer,
    targets: Sequence[Item],
    pool: Sequence[Item],
    format: str | PromptFormat,
    *,
    shots: Sequence[int] = PAPER_SHOTS,
    rule: str | Rule = "none",
    seed: int = 0,
    journal: Path | None = None,
    calibrated: bool = False,
) -> Bootstrapped:
    """Few-shot prompting with labels that the model gave itself; no label of anybody is used.

    The pool begins with random labels. In every round but the last its items are scored after
    examples with the labels of the round before, and labelled anew: true where the score is above
    0 or, with a rule, the most likely labels that the rule allows (bootstrapping + consistency).
    The last round scores the targets. One entry of `shots` is random few-shot prompting.

    Args:
        scorer: The model.
        targets: n items.
        pool: N train items (the paper takes 512).
        format: How items are shown.
        shots: Examples in each prompt, round by round.
        rule: Consistency rule between labels of one group.
        seed: Of the first labels and of every draw.
        journal: File of finished rounds. A run that was killed goes on after the last of them;
            rounds of other settings in it are left alone. The scorer must have a `name` that pins
            its model, and the rule must be one of `RULES`.
        calibrated: Whether scores are calibrated in every round (`calibrated_scores`).

    Raises:
        ValueError: If there are no shots, the pool has too few groups for them, the journal cannot
            tell this run from others, or as of `few_shot_scores`.
    """
    shots, seed = [int(count) for count in shots], int(seed)
    if not shots:
        raise ValueError("shots is empty; give at least one number of examples")
    format, rule = get_format(format), get_rule(rule)
    _check_groups(targets, pool, shots)
    start = random_labels(len(pool), seed=[seed, 0])
    about = (format, seed, shots, *_mark(calibrated=calibrated))
    record = _journal(journal, scorer, rule, targets, pool, *about)
    made = _Rounds(scorer, pool, format, shots, seed, record, calibrated)
    labels, rounds = start, []
    for number, count in enumerate(shots[:-1], start=1):
        scores = made.scores(number, pool, labels)
        labels = most_likely(pool, scores, rule)
        rounds.append(Round(shots=count, scores=scores, labels=labels))
    scores = made.scores(len(shots), targets, labels)
    return Bootstrapped(scores=scores, start=start, rounds=tuple(rounds))


@dataclass(frozen=True)
class _Rounds:
    """The rounds of one run of bootstrapping: read from its journal, or made and written."""

    scorer: Scorer
    pool: Sequence[Item]
    format: PromptFormat
    shots: Sequence[int]
    seed: int
    record: RunJournal
    calibrated: bool

    def scores(self, number: int, asked: Sequence[Item], labels: np.ndarray) -> np.ndarray:
        """Truth scores [n] of items after examples with these labels of the pool, in a round."""
        score = partial(
            few_shot_scores,
            *(self.scorer, asked, self.pool, labels, self.format),
            shots=self.shots[number - 1],
            seed=[self.seed, number],
            calibrated=self.calibrated,
        )
        return _round_scores(self.record, number, score)


def _round_scores(record: RunJournal, number: int, score: Callable[[], np.ndarray]) -> np.ndarray:
    """Scores of a round: read from the journal, or made and written there."""
    finished = record.get(number)
    if finished is not None:
        return np.array(finished["scores"])
    scores = score()
    record.put(number, scores=scores.tolist())
    return scores


def _check_groups(targets: Sequence[Item], pool: Sequence[Item], shots: Sequence[int]) -> None:
    """Refuses, before any round is scored, a pool with too few groups for one of them."""
    groups = {item.group for item in pool}
    most = max(shots[:-1], default=0)
    if most and len(groups) < most + 1:
        raise ValueError(
            f"{most} examples beside each item of the pool: it has {len(groups)} groups (no two "
            "examples share one); use fewer shots or a larger pool"
        )
    beside = min((len(groups - {item.group}) for item in targets), default=len(groups))
    if beside < shots[-1]:
        raise ValueError(
            f"{shots[-1]} examples for each target: the pool has {beside} groups beside a target's "
            "own (no two examples share one); use fewer shots or a larger pool"
        )


# --- examples ------------------------------------------------------------------------------------


def draw_examples(
    target: Item,
    pool: Sequence[Item],
    labels: Sequence[bool | None] | np.ndarray,
    *,
    shots: int,
    seed: int | Sequence[int],
) -> list[tuple[Item, bool | None]]:
    """Examples for one target, in the order shown.

    As many of each class that occurs among the labels, as nearly as `shots` allows; where a class
    runs out, the others fill up. No example shares its group (its question) with the target or with
    another example.

    Args:
        target: The item that is judged after them.
        pool: N items.
        labels: [N].
        shots: How many.
        seed: Same arguments, same examples.

    Raises:
        ValueError: If there are not as many labels as items, or the pool has too few other groups.
    """
    return _Draws(pool, labels).examples(target, shots, seed)


class _Draws:
    """A pool, sorted by class once for many draws."""

    def __init__(self, pool: Sequence[Item], labels: Sequence[bool | None] | np.ndarray) -> None:
        if len(labels) != len(pool):
            raise ValueError(f"{len(labels)} labels for a pool of {len(pool)} items")
        self.pool = pool
        self.labels = [known_label(label) for label in labels]
        self.classes = [
            np.array(rows)
            for value in (True, False, None)
            if (rows := [row for row, label in enumerate(self.labels) if label is value])
        ]

    def examples(
        self, target: Item, shots: int, seed: int | Sequence[int]
    ) -> list[tuple[Item, bool | None]]:
        if shots < 0:
            raise ValueError(f"shots is {shots}; allowed: 0 or more")
        rng = np.random.default_rng(seed)
        queues = [iter(rng.permutation(rows).tolist()) for rows in self.classes]
        # Who gets the odd one out is drawn, too.
        order = rng.permutation(len(queues)).tolist()
        taken, groups = [], {target.group}
        while len(taken) < shots and order:
            for place in list(order):
                if len(taken) == shots:
                    break
                row = next((r for r in queues[place] if self.pool[r].group not in groups), None)
                if row is None:
                    order.remove(place)
                    continue
                taken.append(row)
                groups.add(self.pool[row].group)
        if len(taken) < shots:
            raise ValueError(
                f"{shots} examples for item {target.id!r}: the pool of {len(self.pool)} items has "
                f"only {len(taken)} groups beside its own; use fewer shots or a larger pool"
            )
        return [(self.pool[row], self.labels[row]) for row in rng.permutation(taken).tolist()]


def _seed(seed: int | Sequence[int], place: int) -> list[int]:
    return [*map(int, np.atleast_1d(np.asarray(seed))), place]


def _mark(*, calibrated: bool) -> tuple[str, ...]:
    """What sets the key of a calibrated run apart; keys of others are as they always were."""
    return ("calibrated", *CONTENT_FREE) if calibrated else ()


def _journal(
    path: Path | None,
    scorer: Scorer,
    rule: Rule,
    targets: Sequence[Item],
    pool: Sequence[Item],
    *rest: PromptFormat | int | str | list[int],
) -> RunJournal:
    """The rounds of one run, under a key that names everything that decides their scores."""
    if path is None:
        return RunJournal(None, "", part="round")
    settings = [asdict(one) if isinstance(one, PromptFormat) else one for one in rest]
    key = run_key(scorer, rule, digest(targets), digest(pool), *settings)
    return RunJournal(path, key, part="round")
