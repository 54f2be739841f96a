"""One pace for all threads that ask a server: when it may be asked again, and by how many at once.

A service that limits requests says so in a refusal (429), or in an answer that leaves none
(`x-ratelimit-remaining-requests: 0`). Then nobody asks until the time that it names, and the next
window begins. How many requests fit into one, a window's own count tells the next: so many are let
through, then one by one, and more with each that is answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic

from extract.server_limits import requests_left, seconds_asked, seconds_spent

LONGEST_HOLD = 60.0
"""Seconds that a server is believed when it says how long to wait, at a time."""

LOOK = 0.05
"""Seconds after which a request that waits for others looks again."""

MOST_FREE = 100
"""Refusals of one request that do not count as tries, at most."""


class Turn:
    """One request's place in the order in which they came, kept when it is refused."""

    def __init__(self, number: int) -> None:
        self.number, self.window = number, 0


class Pace:
    """When the next request may be sent, for any number of threads.

    Attributes:
        answered: Requests that were answered so far.
    """

    def __init__(self) -> None:
        self.answered = 0
        self._lock = Lock()
        self._turns = 0
        self._waiting: set[int] = set()
        self._under_way = 0
        self._until = 0.0
        self._window = 0
        self._passed = 0  # in this window
        self._expected = math.inf  # to pass in this window, as the one before tells
        self._left = math.inf  # in this window, as the server says

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A place for a request that will be sent, and perhaps repeated."""
        with self._lock:
            self._turns += 1
            turn = Turn(self._turns)
        try:
            yield turn
        finally:
            with self._lock:
                self._waiting.discard(turn.number)

    def enter(self, turn: Turn) -> float:
        """0 if the request may be sent now, and is under way; else seconds until to ask again."""
        with self._lock:
            self._waiting.add(turn.number)
            if (seconds := self._until - monotonic()) > 0:
                return seconds
            before = sum(number < turn.number for number in self._waiting)
            if before >= self._at_once() - self._under_way:
                return LOOK
            self._waiting.discard(turn.number)
            self._under_way += 1
            turn.window = self._window
            return 0.0

    def leave(self) -> None:
        """A request is under way no more, whatever became of it."""
        with self._lock:
            self._under_way -= 1

    def hear(self, turn: Turn, headers: Mapping[str, str]) -> float:
        """A request was answered. Seconds of the wait that begins with it; 0 where none does."""
        with self._lock:
            self.answered += 1
            if turn.window == self._window:
                self._passed += 1
                self._left = requests_left(headers)
            elif turn.window == self._window - 1:
                self._expected += 1
            return self._hold(turn, seconds_spent(headers))

    def refuse(self, turn: Turn, seconds: float) -> float:
        """A request was refused. Seconds of the wait that begins with it; 0 where it had begun."""
        with self._lock:
            return self._hold(turn, seconds)

    def _hold(self, turn: Turn, seconds: float) -> float:
        """Lets nothing through for so long; a request of this window begins the next one."""
        seconds = min(seconds, LONGEST_HOLD)
        if seconds <= 0:
            return 0.0
        self._until = max(self._until, monotonic() + seconds)
        if turn.window != self._window:
            return 0.0
        self._window += 1
        self._expected, self._passed, self._left = float(self._passed), 0, math.inf
        return seconds

    def _at_once(self) -> float:
        """Requests that may be under way."""
        ahead = self._expected - self._passed
        return max(1, min(ahead if ahead > 0 else 1 - ahead, self._left))


class Tries:
    """The failures of one request, and whether it is given up.

    A refusal that says when to come back does not count, as long as other requests are answered or
    the time that it names is longer than one waits at once.

    Attributes:
        pause: Seconds until the request may be repeated, after its last failure.
    """

    def __init__(self, pace: Pace, *, retries: int, patience: float) -> None:
        """No failure yet.

        Args:
            pace: Of all requests.
            retries: Failures that count before the request is given up at the next.
            patience: Seconds in vain after which it is given up.
        """
        self.pause = 0.0
        self._pace, self._retries, self._patience = pace, retries, patience
        self._counted = self._free = 0
        self._begin, self._answered = monotonic(), pace.answered

    def begin(self) -> None:
        """The request is sent for the first time."""
        self._begin, self._answered = monotonic(), self._pace.answered

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Whether a refusal does not count; then patience begins anew where others got through."""
        asked, answered = seconds_asked(headers), self._pace.answered
        others = answered > self._answered
        self._answered = answered
        if asked <= 0 or self._free >= MOST_FREE or not (others or asked > LONGEST_HOLD):
            return False
        self._free += 1
        if others:
            self._begin = monotonic()
        return True

    def count(self) -> int:
        """Counts a failure; how many there are now."""
        self._counted += 1
        return self._counted

    def over(self, *_: object) -> bool:
        """Whether the request is not to be repeated."""
        waited = monotonic() - self._begin + self.pause
        return self._counted > self._retries or waited >= self._patience
