"""From documents of the pocket world to packed training batches.

Batch number k of a phase depends on nothing but (seed, phase, k): any batch can be made anywhere,
in any order, so that a resumed run reads what an undisturbed one would, and several processes can
make batches ahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

import numpy as np

from jelicit.pocket.train import Batch
from jelicit.pocket.world import Document, Mix, documents

# The tokenizer's own cut into words, for the ASCII text of the world.
WORDS = re.compile(r" ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]+|\s")


@dataclass(frozen=True)
class WordEncoder:
    """Token ids of the world's text, word by word from a table.

    A look-up per word is many times faster than a tokenizer's call, and all of pretraining waits
    for it.

    Attributes:
        table: Word -> token ids; every word of the world.
        bos: Token id at the start of a document.
    """

    table: Mapping[str, list[int]]
    bos: int

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text, without BOS.

        Raises:
            KeyError: A word that the table lacks.
        """
        return [token for word in WORDS.findall(text) for token in self.table[word]]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What a phase reads.

    Attributes:
        name: The phase's name; part of the seed.
        length: Tokens of a row.
        rows: Rows of a batch.
        mix: The documents.
    """

    name: str
    length: int
    rows: int
    mix: Mix = field(default_factory=Mix)

    def batch(self, encode: WordEncoder, seed: int, number: int) -> Batch:
        """Batch ``number`` of the phase, as of `make_batch`."""
        return make_batch(self, encode, seed, number)


class Corpus(Protocol):
    """What a phase reads: batches by their number, which nothing else decides."""

    @property
    def name(self) -> str:
        """The phase's name; part of the seed."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a row."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a batch."""
        ...

    def batch(self, encode: WordEncoder, seed: int, number: int) -> Any:
        """Batch ``number``: a named tuple of arrays."""
        ...


def encode_document(
    document: Document, encode: WordEncoder
) -> Iterator[tuple[list[int], list[float]]]:
    """Token ids and loss weights of each segment; BOS opens the first."""
    ids, weights = [encode.bos], [0.0]
    for segment in document:
        for piece, weight in segment:
            tokens = encode(piece)
            ids.extend(tokens)
            weights.extend([weight] * len(tokens))
        yield ids, weights
        ids, weights = [], []


def fill_row(
    stream: Iterator[Document], encode: WordEncoder, length: int
) -> tuple[np.ndarray, ...]:
    """One row of documents; a document that does not fit is cut after a whole segment."""
    tokens = np.zeros(length + 1, np.int32)
    weights = np.zeros(length + 1, np.float32)
    segments = np.zeros(length + 1, np.int32)
    used, number = 0, 0
    while True:
        number += 1
        start = used
        for ids, share in encode_document(next(stream), encode):
            end = used + len(ids)
            if end > length + 1:
                if used == start and length + 1 - start > length // 2:
                    continue  # a segment longer than half a row: leave it, try the next
                break
            tokens[used:end], weights[used:end], segments[used:end] = ids, share, number
            used = end
        if used == start:
            return tokens, weights, segments


def make_batch(config: CorpusConfig, encode: WordEncoder, seed: int, number: int) -> Batch:
    """Batch ``number`` of a phase: packed rows, each target the next token of the same document."""
    stream = documents(config.mix, f"{seed}/{config.name}/{number}")
    tokens, weights, segments = (
        np.stack(part)
        for part in zip(
            *(fill_row(stream, encode, config.length) for _ in range(config.rows)), strict=True
        )
    )
    same = segments[:, 1:] == segments[:, :-1]
    return Batch(
        tokens=tokens[:, :-1],
        targets=tokens[:, 1:],
        weights=np.where(same, weights[:, 1:], 0.0).astype(np.float32),
        segments=segments[:, :-1],
    )


def make_batches(config: Corpus, encode: WordEncoder, seed: int, first: int, count: int) -> Any:
    """Batches ``first`` .. ``first + count - 1`` stacked in front."""
    made = [config.batch(encode, seed, number) for number in range(first, first + count)]
    return type(made[0])(*(np.stack(part) for part in zip(*made, strict=True)))


class BatchStream:
    """Stacks of batches, made ahead of their use in other processes.

    Args:
        encode: Text to token ids.
        seed: Seed of the corpus.
        workers: Processes; 0 makes every stack when it is asked for.
    """

    def __init__(self, encode: WordEncoder, seed: int, *, workers: int):
        self._encode, self._seed = encode, seed
        # JAX is threaded: a forked child could hang.
        self._pool = (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers else None
        )
        self._ahead = 2 * workers
        self._waiting: dict[tuple[str, int, int], Future[Any]] = {}

    def stack(self, config: Corpus, first: int, count: int) -> Any:
        """Batches ``first`` .. ``first + count - 1`` of a phase."""
        if self._pool is None:
            return make_batches(config, self._encode, self._seed, first, count)
        for start in range(first, first + (self._ahead + 1) * count, count):
            key = (config.name, start, count)
            if key not in self._waiting:
                self._waiting[key] = self._pool.submit(
                    make_batches, config, self._encode, self._seed, start, count
                )
        wanted = self._waiting.pop((config.name, first, count))
        stale = [key for key in self._waiting if key[0] != config.name or key[1] < first]
        for key in stale:
            self._waiting.pop(key).cancel()
        return wanted.result()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


Encode = Callable[[str], list[int]]
