"""What a campaign tried, what survived, and the smallest inputs that did not: counts and words."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parents[2] / "docs/results/campaign.json"
"""What the manual shows (docs/trust.md); a test compares the two."""


@dataclass
class Count:
    """Of one thing that was tried.

    Attributes:
        tried: How often.
        survived: How often all was as it must be.
    """

    tried: int = 0
    survived: int = 0


@dataclass
class Tally:
    """A whole campaign.

    Attributes:
        seed: Of everything that was drawn.
        counts: By part ("kills", "inputs", "requests") and what was tried.
        failures: One line for each thing that went wrong, with the smallest input, or the words
            that repeat it.
    """

    seed: int
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, part: str, what: str, *, tried: int, survived: int) -> None:
        """Counts of one more thing; also told at once, since the whole takes long."""
        self.counts.setdefault(part, {})[what] = Count(tried, survived)
        print(f"{part}, {what}: {tried} tried, {survived} survived", file=sys.stderr, flush=True)

    def lines(self) -> list[str]:
        """What is printed at the end: a line for each part, then the failures."""
        lines = [f"seed {self.seed}"]
        for part, counts in self.counts.items():
            tried = sum(count.tried for count in counts.values())
            survived = sum(count.survived for count in counts.values())
            lines.append(f"{part}: {tried} tried, {survived} survived")
        return lines + [f"FAILED {failure}" for failure in self.failures]

    def to_json(self) -> dict[str, Any]:
        """What is committed: counts alone."""
        counts = {
            part: {what: vars(count) for what, count in counts.items()}
            for part, counts in self.counts.items()
        }
        return {"seed": self.seed, **counts}

    def write(self, path: Path = RESULT) -> None:
        """Writes the counts, for the manual; parts that were not tried keep what they have."""
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**before, **self.to_json()}, indent=1) + "\n", encoding="utf-8")
