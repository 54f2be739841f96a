"""Batches from which the pocket model learns to read labels: torn documents beside usual ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jelicit.pocket.corpus import WordEncoder, fill_row
from jelicit.pocket.world.documents import TEXT, VERDICT, Mix, documents
from jelicit.pocket.world.torn import ATTRIBUTES, Torn, TornDocument, torn_documents

UNKNOWN = -1
"""What stands in a batch where an attribute or a rule is not asked for."""

_GAP = "\n\n"
_SHOWN = 3
"""Examples that must have been read before a verdict counts: earlier ones cannot tell the rule."""


class ReadingBatch(NamedTuple):
    """Packed documents, and what a reader must work out at each token.

    The token before a verdict is called its slot.

    Attributes:
        tokens: Token ids, int32 [b, t].
        targets: The token that follows each, int32 [b, t].
        weights: Weight of each target in the loss, float32 [b, t].
        segments: Number of each token's document within its row, int32 [b, t]; 0 = padding.
        slot_values: What each attribute says of the text, at slots, int8 [b, t, A]; 1, 0 or
            `UNKNOWN`, as are the next two.
        verdict_values: The same at verdicts.
        agrees: Whether each attribute says what the verdict says, at verdicts, int8 [b, t, A].
        rules: The document's rule at slots that three examples precede, int8 [b, t].
        first: 1 at the slot of a torn document's first example, where no label has been read,
            else 0, float32 [b, t].
    """

    tokens: Any
    targets: Any
    weights: Any
    segments: Any
    slot_values: Any
    verdict_values: Any
    agrees: Any
    rules: Any
    first: Any


@dataclass(frozen=True, kw_only=True)
class ReadingCorpus:
    """What a phase of reading reads.

    Attributes:
        name: The phase's name; part of the seed.
        length: Tokens of a row.
        rows: Rows of a batch.
        usual: Rows of them that hold usual documents.
        mix: The usual documents.
        torn: The torn ones.
    """

    name: str
    length: int
    rows: int
    usual: int
    mix: Mix = field(default_factory=Mix)
    torn: Torn = field(default_factory=Torn)

    def __post_init__(self) -> None:
        if not 0 <= self.usual <= self.rows:
            raise ValueError(f"usual={self.usual}; of {self.rows} rows 0 to {self.rows} may be")

    def batch(self, encode: WordEncoder, seed: int, number: int) -> ReadingBatch:
        """Batch ``number`` of the phase; depends on nothing but (seed, phase, number)."""
        key = f"{seed}/{self.name}/{number}"
        usual = documents(self.mix, key)
        torn = torn_documents(self.torn, key)
        rows = [_Row.of_usual(*fill_row(usual, encode, self.length)) for _ in range(self.usual)]
        for _ in range(self.rows - self.usual):
            row = _Row.empty(self.length + 1)
            row.fill(torn, encode)
            rows.append(row)
        return _batch(rows)


@dataclass
class _Row:
    """One row of a batch while it is filled; a token longer than the batch is."""

    tokens: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    slot_values: np.ndarray
    verdict_values: np.ndarray
    agrees: np.ndarray
    rules: np.ndarray
    first: np.ndarray

    @classmethod
    def empty(cls, length: int) -> _Row:
        unknown = np.full((length, len(ATTRIBUTES)), UNKNOWN, np.int8)
        return cls(
            tokens=np.zeros(length, np.int32),
            weights=np.zeros(length, np.float32),
            segments=np.zeros(length, np.int32),
            slot_values=unknown,
            verdict_values=unknown.copy(),
            agrees=unknown.copy(),
            rules=np.full(length, UNKNOWN, np.int8),
            first=np.zeros(length, np.float32),
        )

    @classmethod
    def of_usual(cls, tokens: np.ndarray, weights: np.ndarray, segments: np.ndarray) -> _Row:
        row = cls.empty(len(tokens))
        row.tokens, row.weights, row.segments = tokens, weights, segments
        return row

    def fill(self, stream: Any, encode: WordEncoder) -> None:
        """Lay documents end to end; the last is cut after a whole example."""
        used, number = 0, 0
        while used is not None:
            number += 1
            used = self._add(next(stream), encode, used, number)

    def _add(
        self, document: TornDocument, encode: WordEncoder, start: int, number: int
    ) -> int | None:
        """Put a document at ``start``; where the next begins, or None if the row is full."""
        used = start
        for shown, example in enumerate(document.examples):
            prompt, verdict = encode(example.prompt), encode(example.word)
            opening = [encode.bos] if shown == 0 else []
            ids = [*opening, *prompt, *verdict, *encode(_GAP)]
            if used + len(ids) > len(self.tokens):
                return None
            slot = used + len(opening) + len(prompt) - 1
            self.tokens[used : used + len(ids)] = ids
            self.segments[used : used + len(ids)] = number
            self.weights[used + len(opening) : slot + 1] = TEXT
            self.weights[slot + 1] = VERDICT if shown >= _SHOWN else 0.0
            values = [UNKNOWN if value is None else int(value) for value in example.values]
            self.slot_values[slot] = self.verdict_values[slot + 1] = values
            self.agrees[slot + 1] = [
                UNKNOWN if value is None else int(value == example.verdict)
                for value in example.values
            ]
            if shown >= _SHOWN:
                self.rules[slot] = document.rule
            if shown == 0:
                self.first[slot] = 1.0
            used += len(ids)
        return used


def _batch(rows: list[_Row]) -> ReadingBatch:
    of = {name: np.stack([getattr(row, name) for row in rows]) for name in _Row.__annotations__}
    same = of["segments"][:, 1:] == of["segments"][:, :-1]
    cut = {name: value[:, :-1] for name, value in of.items()}
    return ReadingBatch(
        **cut | {"weights": np.where(same, of["weights"][:, 1:], 0.0).astype(np.float32)},
        targets=of["tokens"][:, 1:],
    )
