"""The server scorer against a stub that answers as llama.cpp's `llama-server` does."""

import sys

import numpy as np
import pytest
from stub_server import LlamaCppStub, Stub, serve
from test_gguf import llama as tiny
from test_gguf import write
from test_server_scorer import LONG, SEVERAL, WORDS, connect, expected_words, mixed, stub, texts

from extract import gguf_cache
from extract.server_scorer import ServerScorer

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


# --- the tokenizer of a GGUF file ----------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "tiny.gguf", tiny(tied=True))


def test_the_tokenizer_is_read_from_the_gguf_file_without_its_weights(file, monkeypatch, tmp_path):
    monkeypatch.setenv(gguf_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(gguf_cache, "_dequantised", lambda *_: pytest.fail("reads weights"))
    own = gguf_cache.tokenizer_of(file)
    words = [own.decode([token]) for token in range(len(own))]
    server, found = LlamaCppStub(words, most=VOCABULARY, model=str(file)), []
    with serve(server) as url:
        for given in (file, str(file.parent), None):  # None: the server names the file itself
            scorer = ServerScorer(url, tokenizer=given, match="tokens", backoff=0.01)
            found.append(scorer.score([("this",)], [" True", " s"]))
    prompt = (own.bos_token_id, *own.encode("this", add_special_tokens=False))
    assert server.sent[-1] == prompt
    truth = server.truth(prompt)[own.convert_tokens_to_ids(["ĠTrue", "Ġs"])]
    for scores in found:
        np.testing.assert_allclose(scores[0], truth, atol=1e-5)
    [kept] = (tmp_path / "cache" / "gguf").iterdir()
    assert kept.name.endswith("-tokenizer")
    assert not list(kept.rglob("*.safetensors"))


def test_a_gguf_file_that_will_not_do_is_one_line(file, monkeypatch, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF no more")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked"))
    with serve(llama()) as url:
        with pytest.raises(ValueError, match=r"GGUF file of the model .*broken.gguf is cut short"):
            ServerScorer(url, tokenizer=broken)
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(ImportError, match=r"pip install 'jelicit\[gguf\]'"):
            ServerScorer(url, tokenizer=file)
