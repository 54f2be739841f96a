"""How much of a server scoring takes at most, counted before anything is asked of it.

Services take money for tokens and limit requests, so whoever runs a study wants to know both before
the first of them. A scorer that says what a prompt costs (`Metered`) makes that possible: segments
of a prompt are tokenised one by one, so what examples cost adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, few_shot, get_format
from jelicit.prompting.calibrated import CONTENT_FREE, content_free_items
from jelicit.prompting.context import tokens_needed
from jelicit.prompting.few_shot import CALIBRATED, ZERO_SHOT_CALIBRATED, uncalibrated


@dataclass(frozen=True, kw_only=True)
class Need:
    """What scoring takes at most.

    Attributes:
        requests: Requests that ask for verdicts.
        tokens: Sent and made by them together.
        longest: Tokens of the longest one.
    """

    requests: int = 0
    tokens: int = 0
    longest: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(
            requests=self.requests + other.requests,
            tokens=self.tokens + other.tokens,
            longest=max(self.longest, other.longest),
        )


@runtime_checkable
class Metered(Protocol):
    """A scorer whose requests are counted, since somebody pays for them."""

    @property
    def limit(self) -> Any:
        """Tokens that may be sent (`most`; None = any number) and those that were (`spent`)."""
        ...

    def costs(
        self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]
    ) -> tuple[int, np.ndarray]:
        """Requests of a prompt, and tokens [n] of each prompt's requests together, at most."""
        ...

    def sent_for(self, requests: int, tokens: int, *, longest: int) -> tuple[int, int]:
        """Requests and tokens that it sends for these, with those on its own account."""
        ...


@dataclass(frozen=True)
class _Priced:
    """What `tokens_needed` measures, in tokens that are sent and made."""

    scorer: Metered
    context: int | None = None

    def lengths(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        return self.scorer.costs(prompts, verdicts)[1]


def need_of(
    scorer: Metered,
    prompts: int,
    targets: Sequence[Item],
    format: str | PromptFormat,
    *,
    examples: Sequence[Item] = (),
    shots: int | None = None,
) -> Need:
    """What scoring a number of prompts takes, each of one of the targets after examples.

    Args:
        scorer: Who is asked.
        prompts: How many.
        targets: Items that are judged.
        format: How items are shown.
        examples: What examples are drawn from.
        shots: Examples in a prompt at most; None = all of them.
    """
    if not (prompts and targets):
        return Need()
    form = get_format(format)
    words = (form.true_word, form.false_word)
    requests, alone = scorer.costs([few_shot(item, [], form) for item in targets], words)
    # A target of the least cost: what the examples add is counted, not what it costs itself.
    least = targets[int(np.argmin(alone))]
    total = tokens_needed(_Priced(scorer), examples, form, targets=[least])
    added = np.sort(np.diff(total, prepend=int(alone.min())))
    shown = len(added) if shots is None else min(shots, len(added))
    longest = int(alone.max() + added[len(added) - shown :].sum())
    return Need(requests=prompts * requests, tokens=prompts * longest, longest=longest)


def need_of_method(
    method: str,
    scorer: Metered,
    targets: Sequence[Item],
    pool: Sequence[Item],
    format: str | PromptFormat,
    *,
    shots: Sequence[int],
    size: int | None = None,
) -> Need:
    """What one of `few_shot.METHODS` or `few_shot.CALIBRATED` takes; see `few_shot.prompted`.

    Zero-shot, calibrated, takes the content-free prompts of its format.

    Args:
        method: Which.
        scorer: Who is asked.
        targets: Items that are judged.
        pool: Items that examples are drawn from.
        format: How items are shown.
        shots: Examples in a prompt, round by round.
        size: Items of the pool that are labelled; None = all.
    """
    if method == ZERO_SHOT_CALIBRATED:
        return need_of(scorer, len(CONTENT_FREE), content_free_items(format), format)

    def need(prompts: int, items: Sequence[Item], count: int) -> Need:
        asked = need_of(scorer, prompts, items, format, examples=pool, shots=count)
        if method not in CALIBRATED:
            return asked
        # At most: the empty text is shorter, and two targets may have the same examples.
        blank, more = content_free_items(format), prompts * len(CONTENT_FREE)
        return asked + need_of(scorer, more, blank, format, examples=pool, shots=count)

    labelled = len(pool) if size is None else min(size, len(pool))
    rounds = shots[:-1] if method.startswith("bootstrapped") else ()
    last = shots[0] if uncalibrated(method) == "random_few_shot" else shots[-1]
    needs = [need(labelled, pool, count) for count in rounds]
    return sum(needs, need(len(targets), targets, last))


def forecast(scorer: Metered, need: Need, *, searches: Need | None = None) -> str:
    """One line on what a run sends at most, and whether its limit of tokens is less.

    Args:
        scorer: Who is asked.
        need: Of the whole run.
        searches: That part of it that ends by itself, mostly far earlier.
    """
    limit = scorer.limit
    requests, tokens = scorer.sent_for(need.requests, need.tokens, longest=need.longest)
    line = f"at most {requests:,} requests and {tokens:,} tokens"
    if searches is not None and searches.requests:
        asked = searches.requests, searches.tokens
        n, of_them = scorer.sent_for(*asked, longest=searches.longest)
        line += (
            f"; {n:,} and {of_them:,} of them are for searches that change labels in every draw: "
            "they end when their labels settle, mostly far earlier"
        )
    if limit.spent:
        line += f"; {limit.spent:,} tokens are spent, and what was answered is not asked again"
    if limit.most is not None and tokens > limit.most - limit.spent:
        line += (
            f"; --max-tokens-total {limit.most:,} is less: where it does not suffice, the run "
            "stops before the request that would exceed it, and goes on with a higher one"
        )
    return line
