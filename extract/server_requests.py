"""Requests under way: some at a time, some after others, none any more once one has failed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

Answered = TypeVar("Answered")


def answers(
    after: Sequence[int | None], send: Callable[[int, Event], Answered], *, concurrency: int
) -> Iterator[tuple[int, Answered]]:
    """Sends requests, each after the one that it waits for, and yields answers as they come.

    Of those that may be sent, the first in the order goes first: depth first, so that what a server
    keeps is soon used. When one fails, or whoever reads the answers stops, no more are sent; those
    under way are still yielded, then the error is raised.

    Args:
        after: For every request, the number of the one that must be answered before it, or None.
        send: Sends the request of a number; when the event is set, nothing is to be repeated.
        concurrency: Most requests under way.
    """
    below: dict[int | None, list[int]] = {}
    for place, before in enumerate(after):
        below.setdefault(before, []).append(place)
    ready = below.get(None, [])  # in rising order, so it is a heap
    running: dict[Future[Answered], int] = {}
    stop, failed = Event(), None
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while running or (ready and failed is None):
                while ready and failed is None and len(running) < concurrency:
                    place = heapq.heappop(ready)
                    running[pool.submit(send, place, stop)] = place
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place, error = running.pop(future), future.exception()
                    if error is not None:
                        failed = failed or error
                        stop.set()
                        continue
                    for child in below.get(place, []):
                        heapq.heappush(ready, child)
                    yield place, future.result()
        finally:
            stop.set()
    if failed is not None:
        raise failed
