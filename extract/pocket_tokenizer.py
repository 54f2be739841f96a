"""The pocket model's tokenizer: byte-level BPE, trained on the pocket world's own text.

Words are cut by one plain pattern (``WORDS``) before any merge, so that text tokenises apart at
word boundaries as it does together, every newline is a token of its own, and a number below 100 is
one word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from jelicit.pocket.corpus import WORDS as ASCII_WORDS
from jelicit.pocket.corpus import WordEncoder
from jelicit.pocket.world import world_texts

BOS, PAD = "<|bos|>", "<|pad|>"
WORDS = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 1024) -> Tokenizer:
    """Train the tokenizer.

    Args:
        texts: Documents of the pocket world.
        vocab_size: Number of tokens, special tokens and the 256 bytes included.

    Returns:
        A tokenizer that puts ``BOS`` in front of a text.

    Raises:
        ValueError: A vocabulary that cannot hold the bytes and the special tokens.
    """
    if vocab_size < 258:
        raise ValueError(f"vocab_size={vocab_size} cannot hold 256 bytes and 2 special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(PAD, special=True), AddedToken(BOS, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def word_table(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, list[int]]:
    """Token ids of single words (cut by ``WORDS``), without BOS."""
    unique = sorted(set(words))
    encodings = tokenizer.encode_batch(unique, add_special_tokens=False)
    return {word: encoding.ids for word, encoding in zip(unique, encodings, strict=True)}


def encoder(tokenizer: Tokenizer) -> WordEncoder:
    """The tokenizer as a table of all words of the pocket world: many times faster."""
    words = itertools.chain.from_iterable(map(ASCII_WORDS.findall, world_texts()))
    [bos] = tokenizer.encode("").ids
    return WordEncoder(word_table(tokenizer, words), bos)
