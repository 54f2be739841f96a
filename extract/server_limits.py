"""How much a server may be asked: a most of tokens, and the pauses that its answers ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class SpentError(ValueError):
    """No more tokens may be sent."""


class TokenLimit:
    """The most tokens that may be sent, over all runs that keep one journal.

    Attributes:
        most: That many; None = any number.
        spent: Tokens of the requests that were sent, with the one token that each makes.
    """

    def __init__(self, most: int | None, *, spent: int = 0) -> None:
        """A limit of which `spent` tokens were used before.

        Raises:
            ValueError: If `most` is below 1.
        """
        if most is not None and most < 1:
            raise ValueError(f"max_tokens_total is {most}; allowed: 1 or more")
        self.most, self.spent = most, spent
        self._lock = Lock()

    def take(self, tokens: int) -> None:
        """Sets tokens aside for a request that is about to be sent, from any thread.

        Raises:
            SpentError: If it would exceed the limit: it must not be sent.
        """
        with self._lock:
            if self.most is not None and self.spent + tokens > self.most:
                raise SpentError(
                    f"stopped before a request of {tokens:,} tokens, since {self.spent:,} of "
                    f"--max-tokens-total {self.most:,} are spent; what was answered is kept, so "
                    "the same command with a higher limit goes on from here"
                )
            self.spent += tokens

    def settle(self, *, taken: int, used: int) -> None:
        """Counts a request with what it cost, where what was taken for it was a guess."""
        with self._lock:
            self.spent += used - taken


def seconds_asked(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait before the next request; 0 if it names none.

    `retry-after-ms` and `retry-after` (seconds or a date) say it outright. Else OpenAI's
    `x-ratelimit-reset-requests` and `-tokens` ("1s", "6m0s", "20ms") say when a limit is whole
    again; that of a limit of which something is left (`x-ratelimit-remaining-...`) counts only
    where no other is named.

    Args:
        headers: Of the answer that refused the request; names in lower case, or in any case where
            the mapping does not tell cases apart.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name, ""), scale)
        if seconds is not None:
            return seconds
    spent = [seconds for seconds, left in _limits(headers) if left == "0"]
    return max(spent or [seconds for seconds, _ in _limits(headers)])


def seconds_spent(headers: Mapping[str, str]) -> float:
    """Seconds until a limit is whole again of which an answer leaves nothing; 0 if all leave some.

    Args:
        headers: Of an answer that refused nothing.
    """
    return max([seconds for seconds, left in _limits(headers) if left == "0"], default=0.0)


def requests_left(headers: Mapping[str, str]) -> float:
    """Requests that an answer says may be sent still; infinite where it does not say."""
    left = headers.get("x-ratelimit-remaining-requests", "").strip()
    return float(left) if left.isdecimal() else math.inf


def _limits(headers: Mapping[str, str]) -> list[tuple[float, str]]:
    """Of requests and of tokens: seconds until the limit is whole again, and what is left of it."""
    return [
        (
            _duration(headers.get(f"x-ratelimit-reset-{kind}", "")),
            headers.get(f"x-ratelimit-remaining-{kind}", "").strip(),
        )
        for kind in ("requests", "tokens")
    ]


def _number(text: str, scale: float) -> float | None:
    """Seconds from a number or a date; None where it is neither."""
    try:
        return max(float(text) * scale, 0.0)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)


def _duration(text: str) -> float:
    """Seconds from "6m0s", "20ms" or a plain number of seconds; 0 where it is neither."""
    text = text.strip()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _number(text, 1.0) or 0.0
