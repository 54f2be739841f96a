"""The train items of a seed: which are labelled, which of them together, and which are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jelicit.data.items import Item
from jelicit.icm import Measures, examples_that_fit, most_tokens, split_in_batches, tokens_needed
from jelicit.prompting import Scorer
from jelicit.studies.icm_tasks import Task, drawn
from jelicit.studies.session import Session


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The train items of one seed.

    Attributes:
        items: What is labelled: whole groups.
        size: Most items in one search; as many as there are where one search has all.
        shown: How many items, from the first on, prompts for test items show.
    """

    items: tuple[Item, ...]
    size: int
    shown: int

    @property
    def batches(self) -> list[tuple[int, ...]]:
        """Numbers of the items that are searched together."""
        return split_in_batches(self.items, size=self.size)


def to_label(task: Task, scorer: Scorer, session: Session, *, seed: int) -> Pool:
    """The train items of one seed; where they are fewer than n, or in batches, that is said.

    Args:
        task: The set.
        scorer: The model.
        session: Its settings say how many items (`n`), how many in one search (`batch`: fewer where
            they do not fit; None: one search has all items, and those that do not fit are left
            out), and how many tokens a prompt may have (`limit`).
        seed: Of the draw.

    Raises:
        ValueError: Hardly any item fits, or a question has more items than asked for.
    """
    n, batch, say = session.settings.n, session.settings.batch, session.say
    situation, room = task.situation, _Room(task, scorer, session.settings.limit)
    asked = drawn(situation.train, n, seed=seed)
    if len(asked) < 2:
        raise ValueError(
            f"{situation.dataset}: --n {n} takes {len(asked)} of its {len(situation.train)} train "
            "items, since those of one question stay together; give a larger --n, or choose "
            "another set"
        )
    title = f"{situation.title}, seed {seed}"
    if batch is not None:
        pool = room.batched(asked, batch)
        say(
            f"{title}: {len(asked)} items in {len(pool.batches)} searches of at most {pool.size}; "
            f"prompts for test items show the first {pool.shown}"
        )
        return pool
    items = room.together(asked, n, seed=seed)
    if len(items) < len(asked):
        say(
            f"{title}: {len(items)} of --n {n} items are labelled, no more fit a prompt of "
            f"{room.most:,} tokens; --batch {n} labels all in several searches{room.more}"
        )
    return Pool(items=items, size=len(items), shown=len(items))


@dataclass(frozen=True)
class _Room:
    """What fits the prompts of one set."""

    task: Task
    scorer: Scorer
    limit: int | None

    @property
    def most(self) -> int:
        """Most tokens of a prompt; asked for only where something did not fit."""
        most = most_tokens(self.scorer, limit=self.limit)
        assert most is not None
        return most

    @property
    def more(self) -> str:
        """What a larger --limit could do, for messages."""
        assert isinstance(self.scorer, Measures)
        reads = self.scorer.context
        if reads is None:
            return ", or raise --limit"
        return f", or raise --limit (the model reads {reads:,})" if reads > self.most else ""

    def together(self, asked: Sequence[Item], n: int, *, seed: int) -> tuple[Item, ...]:
        """As many items as fit one search, and one prompt before every test item."""
        train = self.task.situation.train
        least = next(c for c in range(2, n + 1) if len(drawn(train, c, seed=seed)) >= 2)
        count = n
        while count >= least:
            items = drawn(train, count, seed=seed)
            fit = min(self._among(items), self._before_tests(items))
            if fit >= len(items):
                return items
            count = min(count - 1, max(fit, least))
        few, tests = drawn(train, least, seed=seed), self.task.situation.test
        needed = max(self._needed(few, targets) for targets in (None, tests))
        raise self._too_long(len(few), needed, asked)

    def batched(self, asked: tuple[Item, ...], most: int) -> Pool:
        """All items, in batches of which each fits one search; as even as their groups allow."""
        name, largest = Counter(item.group for item in asked).most_common(1)[0]
        if most < largest:
            raise ValueError(
                f"{self.task.situation.dataset}: --batch {most} is less than the {largest} items "
                f"of question {name!r}, which stay together; give at least {largest}"
            )
        least = max(largest, 2)
        size = min(most, len(asked))
        while size > least and (fit := self._smallest_fit(asked, size)) is not None:
            size = min(size - 1, max(fit, least))
        shown = self._before_tests(asked)
        if shown < 2 or self._smallest_fit(asked, size) is not None:
            batches = [self._needed(batch, None) for batch in _split(asked, least)]
            needed = max(*batches, self._needed(asked[:2], self.task.situation.test))
            raise self._too_long(least, needed, asked)
        return Pool(items=asked, size=self._evened(asked, size), shown=shown)

    def _smallest_fit(self, items: Sequence[Item], size: int) -> int | None:
        """How many items fit of the batch of which fewest do; None where all batches fit."""
        fits = [(self._among(batch), len(batch)) for batch in _split(items, size)]
        return min((fit for fit, length in fits if fit < length), default=None)

    def _evened(self, items: Sequence[Item], size: int) -> int:
        """The smallest size that makes no more batches: the last one is not left with a few."""
        count = len(_split(items, size))
        largest = max(Counter(item.group for item in items).values())
        for smaller in range(max(-(-len(items) // count), largest), size):
            fewer = len(_split(items, smaller)) == count
            if fewer and self._smallest_fit(items, smaller) is None:
                return smaller
        return size

    def _among(self, items: Sequence[Item]) -> int:
        """How many items, from the first on, fit after each other."""
        form = self.task.situation.format
        return examples_that_fit(self.scorer, items, form, limit=self.limit)

    def _before_tests(self, items: Sequence[Item]) -> int:
        """How many items, from the first on, fit before every test item."""
        situation = self.task.situation
        return examples_that_fit(
            self.scorer, items, situation.format, targets=situation.test, limit=self.limit
        )

    def _needed(self, items: Sequence[Item], targets: Sequence[Item] | None) -> int:
        """Tokens of a prompt of all the items before a target, or after each other (None)."""
        assert isinstance(self.scorer, Measures)
        form = self.task.situation.format
        return int(tokens_needed(self.scorer, items, form, targets=targets)[-1])

    def _too_long(self, count: int, least: int, asked: Sequence[Item]) -> ValueError:
        """What to say where not even `count` items fit, which need `least` tokens."""
        situation = self.task.situation
        assert isinstance(self.scorer, Measures)
        everything = max(self._needed(asked, targets) for targets in (None, situation.test))
        said = (
            f"{situation.dataset}: a prompt of {self.most:,} tokens holds too few of its items: "
            f"{count} of them with an item to judge need {least:,}, all {len(asked)} need "
            f"{everything:,}"
        )
        reads = self.scorer.context
        if reads is not None and reads < least:
            return ValueError(f"{said}, and the model reads {reads:,}; choose another set or model")
        return ValueError(f"{said}; raise --limit to {least:,} or more, or choose another set")


def _split(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [[items[n] for n in batch] for batch in split_in_batches(items, size=size)]
