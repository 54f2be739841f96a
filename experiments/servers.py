"""What the experiments share about model servers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from jelicit.studies.checks import too_small

CALLED = {"served": "model", "requests_at_once": "concurrency"}
"""What scorers call some of the settings."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Which model of a server, and how it is asked.

    Attributes:
        served: Name of the model there; None = the only one that is served.
        tokenizer: Hub id, folder or GGUF file of the model that is served, where its name there is
            an alias.
        top_logprobs: Likeliest tokens that a server shows where it cannot show chosen ones; None =
            20, or 5 where it refuses 20, or 1000 of llama.cpp.
        max_tokens_total: Most tokens sent to the server, over all runs with the same --out: a run
            stops before a request that would exceed it, and goes on with a higher limit. Of a chat
            server as many again.
        patience: Seconds after which a request that keeps failing is given up; None = ten minutes.
        requests_at_once: Most requests under way; None = 32, of a chat server 8, and of llama.cpp
            no more than it has slots.
    """

    served: str | None = None
    tokenizer: str | None = None
    top_logprobs: int | None = None
    max_tokens_total: int | None = None
    patience: float | None = None
    requests_at_once: int | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        most = {
            "--top-logprobs": self.top_logprobs,
            "--max-tokens-total": self.max_tokens_total,
            "--requests-at-once": self.requests_at_once,
        }
        problems = too_small([(name, n, 1) for name, n in most.items() if n is not None])
        if self.patience is not None and not self.patience > 0:
            problems.append(f"--patience {self.patience:g}: allowed are seconds above 0")
        return problems

    def options(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """Those that were given, as `extract.open_server` calls them; only of `names`, if any."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            CALLED.get(name, name): value
            for name, value in given.items()
            if names is None or name in names
        }
