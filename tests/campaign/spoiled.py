"""A server of which every fifth request fails, in six ways: the same scores, the same labels."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from stub_server import FAULTS, Proxy, serve, spoiling
from test_server_scorer import connect, stub

from jelicit.data.datasets import load_dataset
from jelicit.icm import SearchSettings, search

SIX = (*(fault for fault in FAULTS if fault != "cut"), "reset", "wrong shape")
"""429 with Retry-After, 500, no answer in time, JSON that is none, a reset connection, and JSON
that is no completion."""


@dataclass
class SixWays(Proxy):
    """As `Proxy`, with a connection that is reset and an answer of another shape."""

    faults: tuple[str, ...] = SIX

    def _spoil(self, handler: Any, content: bytes, fault: str) -> None:
        if fault == "reset":
            # Linger 0: closing sends RST, with nothing before it.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.close_connection = True
            handler.connection.close()
            handler.wfile = handler.rfile = _Nowhere()
        elif fault == "wrong shape":
            handler.write(200, json.dumps({"object": "list", "choices": []}).encode())
        else:
            super()._spoil(handler, content, fault)


class _Nowhere:
    """What is left of a closed connection."""

    closed = True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def write(self, _: bytes) -> int:
        return 0

    def readline(self, _: int = 0) -> bytes:
        return b""


@dataclass(frozen=True)
class Searched:
    """A search through the faults, beside one without.

    Attributes:
        same: Whether labels and every step are alike.
        spoiled: How often each fault happened.
        requests: All requests.
    """

    same: bool
    spoiled: dict[str, int]
    requests: int


def search_through_faults(*, draws: int = 24, seed: int = 0) -> Searched:
    """A small ICM search with every fifth request spoiled, and the same search without."""
    items = load_dataset("pocket/arithmetic", seed=0, max_train=8).train
    searched = SearchSettings(draws=draws, initial=4, seed=seed)
    with serve(stub()) as straight:
        proxy = SixWays(straight)
        with spoiling(proxy) as url:
            through = search(connect(url, timeout=0.4), items, "claim", searched)
        whole = search(connect(straight), items, "claim", searched)
    same = through.labels == whole.labels and through.history == whole.history
    return Searched(same, dict(proxy.spoiled), next(proxy.number))
