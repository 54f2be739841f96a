"""The server scorer against a stub that answers as llama.cpp's `llama-server` does."""

import numpy as np
import pytest
from stub_server import LlamaCppStub, Stub, serve
from test_server_scorer import LONG, SEVERAL, WORDS, connect, expected_words, mixed, stub, texts

VOCABULARY = 10**6  # it shows any number of tokens


def llama(**options):
    likely = stub().likely
    return LlamaCppStub(texts(), likely=likely, most=VOCABULARY, **options)


@pytest.mark.parametrize("match", ["words", "tokens"])
@pytest.mark.parametrize("top_logprobs", [5, 40])
def test_scores_and_bounds_are_those_of_the_other_shape(match, top_logprobs):
    words = SEVERAL if match == "words" else LONG
    found = []
    for server in (stub(exact=False, most=top_logprobs), llama()):
        with serve(server) as url:
            scorer = connect(url, match=match, top_logprobs=top_logprobs)
            found.append((scorer.score(mixed(), words), scorer.bounded))
            assert (scorer.able.token_ids, scorer.able.exact) == (True, False)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] > 0


def test_it_is_asked_for_so_many_tokens_that_scores_are_the_models():
    server = llama()
    with serve(server) as url:
        scorer = connect(url)
        found = scorer.score(mixed(), SEVERAL)
    np.testing.assert_allclose(found, expected_words(server, mixed(), SEVERAL), atol=1e-5)
    assert (scorer.server.top_logprobs, scorer.bounded) == (1000, 0)
    with serve(stub(exact=False)) as url:
        assert connect(url).server.top_logprobs == 20


def test_a_server_that_shows_its_whole_vocabulary_is_not_taken_for_one_that_shows_chosen_tokens():
    server = llama()
    with serve(server) as url:
        scorer = connect(url, top_logprobs=VOCABULARY)
        found = scorer.score(mixed(), SEVERAL)
    assert (scorer.able.exact, len(scorer.able.likeliest)) == (False, len(texts()))
    np.testing.assert_allclose(found, expected_words(server, mixed(), SEVERAL), atol=1e-5)


def test_one_that_shows_nothing_at_start_is_explained():
    server, said = llama(partial=range(len(texts()))), r"\(llama.cpp\) shows no .* at start.*--tok"
    with serve(server) as url, pytest.raises(ValueError, match=said):
        connect(url)


def test_it_says_how_long_a_prompt_may_be_and_what_its_model_was_trained_on():
    with serve(llama(context=2048, trained=512)) as url:
        scorer = connect(url)
    assert (scorer.context, scorer.trained_length) == (2047, 512)


@pytest.mark.parametrize(("slots", "concurrency"), [(1, 1), (4, 4), (64, 32), (None, 32)])
def test_it_is_sent_no_more_at_a_time_than_it_has_slots(slots, concurrency):
    with serve(llama(slots=slots)) as url:
        assert connect(url).concurrency == concurrency


def test_one_slot_reads_one_prompt_at_a_time():
    server = llama(slots=1)
    with serve(server) as url:
        connect(url).score(mixed(), WORDS)
    assert [what for what, _ in server.events] == ["start", "end"] * (len(server.events) // 2)


def test_an_address_without_v1_is_named():
    with (
        serve(llama()) as url,
        pytest.raises(ValueError, match=r"llama.cpp's own shape; give .* ends in /v1"),
    ):
        connect(url.removesuffix("/v1"))


def test_a_prompt_before_a_part_of_a_character_is_told_at_once():
    server = llama()
    with serve(server) as url:
        scorer = connect(url)
        server.partial = range(len(texts()))
        before = len(server.sent)
        with pytest.raises(ValueError, match="the likeliest next token is a part of a character"):
            scorer.score([("What is",)], WORDS)
    assert len(server.sent) == before + 1


def test_a_space_that_a_tokenizer_leaves_out_makes_it_no_other_one():
    """SentencePiece tokenizers decode a token that stands alone without the space before it."""
    server = LlamaCppStub([f" {text}" for text in texts()], likely=stub().likely, most=VOCABULARY)
    with serve(server) as url:
        found = connect(url).score(mixed(), WORDS)
    np.testing.assert_allclose(found, expected_words(server, mixed(), WORDS), atol=1e-5)


def test_a_server_that_takes_no_token_ids_is_named():
    class TextsAlone(Stub):
        def _complete(self, body):
            return 422, {"error": {"message": "Input should be a valid string", "code": None}}

    with serve(TextsAlone(texts())) as url, pytest.raises(ValueError, match="takes no token ids"):
        connect(url)
