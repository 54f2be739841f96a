"""Generated bad inputs: each ends in one line that says what is wrong, or in the right result.

A kind of input says what can be changed about a good one, and what is wrong with how a command took
the changed one: a traceback, more than a line, a hang, a file that is not named, something that is
half-written, or numbers that are silently others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from children import Ended
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

MOST = 3000
"""Characters that an error may have."""


class Kind(Protocol):
    """One kind of input."""

    name: str
    slow: bool
    """Whether looking for a small input among new ones takes too long."""

    def changes(self) -> st.SearchStrategy[Any]:
        """What can be done to a good input."""
        ...

    def wrong(self, change: Any) -> str:
        """What is wrong with how a change was taken; "" = nothing."""
        ...


@dataclass
class Tried:
    """Of one kind.

    Attributes:
        tried: Inputs.
        failures: (input, what is wrong) of each that failed.
        smallest: For each thing that is wrong, the smallest input that was found for it.
    """

    tried: int = 0
    failures: list[tuple[Any, str]] = field(default_factory=list)
    smallest: dict[str, Any] = field(default_factory=dict)


def try_many(kind: Kind, count: int, *, start: int) -> Tried:
    """Tries so many changes of one kind, all of them whatever fails; then looks for small ones.

    Args:
        kind: The kind.
        count: How many; fewer where there are not so many different ones.
        start: Seed of what is drawn.
    """
    told = Tried()

    def once(change: Any) -> None:
        told.tried += 1
        if wrong := kind.wrong(change):
            told.failures.append((change, wrong))

    seed(start)(_settings(count, Phase.generate)(given(kind.changes())(once)))()
    for wrong in dict.fromkeys(_sort_of(wrong) for _, wrong in told.failures):
        told.smallest[wrong] = _smallest(kind, wrong, told)
    return told


def _smallest(kind: Kind, wrong: str, told: Tried) -> Any:
    known = [change for change, what in told.failures if _sort_of(what) == wrong]
    known.sort(key=lambda change: len(repr(change)))
    if kind.slow:
        return known[0]
    try:
        return find(
            kind.changes(),
            lambda change: _sort_of(kind.wrong(change)) == wrong,
            settings=_settings(60, Phase.generate, Phase.shrink),
        )
    except NoSuchExample:  # a rare one
        return known[0]


def _settings(count: int, *phases: Phase) -> settings:
    return settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def _sort_of(wrong: str) -> str:
    """What is wrong without the numbers and names of one case."""
    return re.sub(r"\d+|'[^']*'", "_", wrong)[:70]


def wrong_ending(ended: Ended, *, names: tuple[str, ...] = ()) -> str:
    """What is wrong with how a command ended that was not to end well.

    Args:
        ended: How it ended.
        names: One of these must be in the message.
    """
    told = ended.err.strip()
    if ended.code is None:
        return "it hangs"
    if "Traceback" in told:
        return f"a traceback: {told.splitlines()[-1][:200]}"
    if ended.code not in (1, 2):
        return f"exit code {ended.code}: {told[-200:]}"
    if len(told) > MOST:
        return f"{len(told)} characters: {told[:100]}"
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    # What reads the options draws a box around its own errors (exit code 2).
    if ended.code == 1 and len(errors) != 1:
        return f"not one line: {told[-300:]}"
    # A box breaks what it says over lines.
    joined = re.sub(r"[\s│]+", "", told)
    if names and not any(re.sub(r"\s+", "", name) in joined for name in names):
        return f"none of {', '.join(names)[:80]} is named: {(errors or [told])[0][:300]}"
    return ""


Judge = Callable[[Ended], str]
