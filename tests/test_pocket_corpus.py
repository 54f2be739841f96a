"""Batches for the pocket model hold what the documents say, and depend on their number alone."""

import itertools

import numpy as np
import pytest

from jelicit.pocket.corpus import (
    WORDS,
    BatchStream,
    CorpusConfig,
    WordEncoder,
    encode_document,
    make_batch,
    make_batches,
)
from jelicit.pocket.world import JUDGES, Mix, documents, text, tokenizer_texts, world_texts

tokenizers = pytest.importorskip("tokenizers", reason="the tokenizer needs the extract extra")

MIX = Mix(long=0.2, judges=dict.fromkeys(JUDGES, 1.0))


@pytest.fixture(scope="module")
def tokenizer():
    from extract.pocket_tokenizer import train_tokenizer

    return train_tokenizer(tokenizer_texts("tokenizer", 4000))


@pytest.fixture(scope="module")
def encode(tokenizer):
    from extract.pocket_tokenizer import word_table

    words = itertools.chain.from_iterable(map(WORDS.findall, world_texts(count=3000)))
    return WordEncoder(word_table(tokenizer, words), tokenizer.encode("").ids[0])


def test_word_table_gives_the_tokenizers_own_ids(tokenizer, encode):
    for document in itertools.islice(documents(MIX, "other seed"), 500):
        whole = tokenizer.encode(text(document), add_special_tokens=False).ids
        pieces = [i for segment in document for piece, _ in segment for i in encode(piece)]
        assert pieces == whole
        assert tokenizer.decode(whole) == text(document)


def test_numbers_and_verdicts_are_single_tokens(tokenizer):
    words = [f" {n}" for n in range(100)] + [" True", " False", " Yes", " No", " yes", " no"]
    assert {len(tokenizer.encode(w, add_special_tokens=False).ids) for w in words} == {1}


def test_bos_stands_in_front(tokenizer, encode):
    assert tokenizer.encode("Rule").ids[0] == encode.bos == tokenizer.token_to_id("<|bos|>")


@pytest.mark.parametrize("length", [64, 257])
def test_batches_are_documents_laid_end_to_end(encode, length):
    config = CorpusConfig(name="phase", length=length, rows=6, mix=MIX)
    batch = make_batch(config, encode, 3, 5)
    source = documents(MIX, "3/phase/5")
    firsts = [next(iter(encode_document(next(source), encode)))[0] for _ in range(400)]
    for row in range(6):
        segments, tokens = batch.segments[row], batch.tokens[row]
        for number in range(1, segments.max() + 1):
            inside = tokens[segments == number]
            assert inside[0] == encode.bos
            # Some document of the stream opens with just this segment.
            head = inside[: len(inside)].tolist()
            assert any(head[: len(first)] == first[: len(head)] for first in firsts)
        # Within a document the target is the next token; at its end nothing is asked.
        same = segments[:-1] == segments[1:]
        np.testing.assert_array_equal(batch.targets[row][:-1][same], tokens[1:][same])
        assert not batch.weights[row][:-1][~same].any()
        assert not batch.weights[row][segments == 0].any()
    assert (batch.segments > 0).mean() > 0.6


def test_weights_stand_on_the_verdicts(encode):
    mix = Mix(plain=0.0, marked=0.0, header=0.0, targeted=0.0, feature=0.0, judges={"truth": 1.0})
    batch = make_batch(CorpusConfig(name="p", length=256, rows=8, mix=mix), encode, 0, 0)
    verdicts = {encode(" True")[0], encode(" False")[0]}
    asked = {int(token) for token in batch.targets[batch.weights == 1.0]}
    assert asked == verdicts
    # Opinions have no truth: their verdicts are coin tosses and weigh little.
    tosses = {int(token) for token in batch.targets[np.isclose(batch.weights, 0.1)]}
    assert tosses == verdicts
    others = batch.weights[(batch.weights > 0) & ~np.isin(batch.targets, list(verdicts))]
    assert np.allclose(others, 0.02)


def test_a_batch_depends_on_seed_phase_and_number_only(encode):
    config = CorpusConfig(name="a", length=64, rows=2, mix=MIX)
    stacked = make_batches(config, encode, 0, 3, 4)
    alone = make_batch(config, encode, 0, 5)
    np.testing.assert_array_equal(stacked.tokens[2], alone.tokens)
    for other in (
        make_batch(config, encode, 1, 5),
        make_batch(config, encode, 0, 6),
        make_batch(CorpusConfig(name="b", length=64, rows=2, mix=MIX), encode, 0, 5),
    ):
        assert (other.tokens != alone.tokens).any()


def test_batches_made_ahead_in_other_processes_are_the_same(encode):
    config = CorpusConfig(name="a", length=64, rows=2, mix=MIX)
    stream = BatchStream(encode, 0, workers=1)
    try:
        for first in (0, 2, 4):
            ahead = stream.stack(config, first, 2)
            here = make_batches(config, encode, 0, first, 2)
            for ours, theirs in zip(here, ahead, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    finally:
        stream.close()
