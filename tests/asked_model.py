"""A model for studies that keeps what it was asked, and whose numbers are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jelicit.data.items import Item
from jelicit.data.prompts import contrast_pair, get_format
from jelicit.pairs import Pairs


class AskedStore:
    """Hidden states drawn from the texts of the prompts: other texts, other numbers."""

    layers = (1,)

    def __init__(self, prompts: Sequence[tuple[str, str]]):
        drawn = [[_numbers(text, 6) for text in pair] for pair in prompts]
        self._states = np.array(drawn, np.float32)
        self.log_probs = self._states[:, :, 0] - 3

    def pairs(self, layer: int) -> Pairs:
        """The pairs of the one layer."""
        return Pairs(self._states[:, 0, :5], self._states[:, 1, :5])


class AskedModel:
    """Keeps the contrast pairs and the prompts that it was asked.

    Its stores have no account of themselves (`spec`), as those of another reader may have none.
    """

    name, trained_length, n_blocks = "asked", 512, 1

    def __init__(self) -> None:
        self.read: dict[str, list[tuple[str, str]]] = {}
        self.scored: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def store(self, name: str, items: Sequence[Item], format: Any, layers: Any) -> AskedStore:
        """The states of these items."""
        pairs = [contrast_pair(item, format) for item in items]
        self.read[f"{name} {get_format(format).name}"] = pairs
        return AskedStore(pairs)

    def scorer(self, *, progress: bool = False, match: str = "words") -> AskedModel:
        """Itself."""
        return self

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Drawn log-probabilities [n, k]."""
        self.scored += [(tuple(prompt), tuple(verdicts)) for prompt in prompts]
        texts = ["".join(prompt) for prompt in prompts]
        return np.array([_numbers(text, len(verdicts)) for text in texts], np.float32) - 3


def _numbers(text: str, count: int) -> list[float]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(count).tolist()
