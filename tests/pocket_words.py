"""An encoder of the pocket world in which every word is a token, and its way back."""

import itertools
from functools import cache

import numpy as np

from jelicit.pocket.corpus import WORDS, WordEncoder
from jelicit.pocket.world import world_texts

BOS, FIRST_WORD = 1, 2


@cache
def words() -> list[str]:
    """Every word of the world; a word is a token here."""
    texts = map(WORDS.findall, world_texts(count=3000))
    return sorted(set(itertools.chain.from_iterable(texts)))


def encoder() -> WordEncoder:
    return WordEncoder({word: [n] for n, word in enumerate(words(), FIRST_WORD)}, BOS)


def decode(tokens: np.ndarray) -> str:
    return "".join(words()[token - FIRST_WORD] for token in tokens if token >= FIRST_WORD)
