"""The server scorer against a server whose every log-probability is known."""

import functools
import itertools
import json
import logging
import math
import random
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from left_out import asked, leave_one_out
from stub_server import FAULTS, Proxy, Stub, _serving, serve, spoiling
from transformers import AutoTokenizer

from extract.prefixes import in_tree_order
from extract.server_client import Server
from extract.server_scorer import SLACK, ServerScorer
from extract.verdicts import EPSILON, encode
from jelicit.data.datasets import load_dataset
from jelicit.icm import SearchSettings, search

WORDS = (" True", " False")
SEVERAL = (" yes", " no")  # more than one token of the vocabulary reads as each
LONG = (" True indeed", " not True at all", " not")
POCKET = Path(__file__).resolve().parents[1] / "extract" / "pocket"
SOON: dict[str, Any] = {"backoff": 0.01, "timeout": 10.0}


@functools.cache
def tokenizer():
    return AutoTokenizer.from_pretrained(POCKET)


@functools.cache
def texts():
    return tokenizer().batch_decode([[token] for token in range(len(tokenizer()))])


def reading(word):
    """Tokens that read as a word, looked at one by one."""
    return [t for t, text in enumerate(texts()) if text.strip().lower() == word.strip().lower()]


def stub(**options):
    likely = [token for word in (*WORDS, *SEVERAL) for token in reading(word)]
    return Stub(texts(), likely=likely, **options)


def connect(url, **options):
    return ServerScorer(url, tokenizer=tokenizer(), **(SOON | options))


def examples(n):
    rng = random.Random(0)
    return [
        f"Question: What is {row} + {rng.randrange(90)}?\n"
        f"I think this claim is{rng.choice(WORDS)}\n\n"
        for row in range(n)
    ]


def mixed():
    """Prompts in no order, one of them twice, one the beginning of another."""
    shown = examples(6)
    prompts = [*leave_one_out(shown), *((asked(one),) for one in shown), (asked(shown[0]), " so")]
    random.Random(0).shuffle(prompts)
    return [*prompts, prompts[0]]


def expected_words(server, prompts, words):
    """log(1e-5 + sum of P over the tokens that read as the word)."""
    rows = [
        [np.exp(server.truth(item.prompt)[reading(word)]).sum() for word in words]
        for item in encode(tokenizer(), prompts, words)
    ]
    return np.log(EPSILON + np.array(rows))


def expected_tokens(server, prompts, words):
    """Sum of log P over the verdict's own tokens."""
    return np.array(
        [
            [
                sum(server.truth(item.prompt + v[:step])[token] for step, token in enumerate(v))
                for v in item.verdicts
            ]
            for item in encode(tokenizer(), prompts, words)
        ]
    )


# --- the numbers ---------------------------------------------------------------------------------


def test_words_are_every_token_that_reads_as_them():
    server = stub()
    with serve(server) as url:
        scorer = connect(url)
        found = scorer.score(mixed(), SEVERAL)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_words(server, mixed(), SEVERAL), atol=1e-5)
    assert [len(reading(word)) for word in SEVERAL] == [2, 3]
    assert (scorer.able.exact, scorer.bounded) == (True, 0)


@pytest.mark.parametrize("words", [WORDS, LONG])
def test_tokens_are_the_verdicts_own(words):
    server = stub()
    with serve(server) as url:
        found = connect(url, match="tokens").score(mixed(), words)
    np.testing.assert_allclose(found, expected_tokens(server, mixed(), words), atol=1e-5)


def test_tokens_that_no_text_joins_are_refused_as_in_process():
    merged = [("the sum w",)]
    with serve(stub()) as url:
        with pytest.raises(ValueError, match="for 1 of 1 the verdict would be one word"):
            connect(url, match="tokens").score(merged, ("as", "ere"))
        assert connect(url).score(merged, WORDS).shape == (1, 2)  # words may follow anyhow


def shown_by(server, tokens):
    """P by token: by id, or by text, of which each is shown once."""
    truth = server.truth(tokens)
    shown = {}
    for token in np.argsort(-truth)[:20].tolist():
        shown.setdefault(token if server.token_ids else texts()[token], np.exp(truth[token]))
    return shown


@pytest.mark.parametrize("token_ids", [True, False])
@pytest.mark.parametrize("match", ["words", "tokens"])
def test_a_verdict_that_is_not_shown_is_bounded_and_counted(match, token_ids):
    """A server that shows the 20 likeliest tokens only, by their ids or by their texts."""
    server, words = stub(exact=False, token_ids=token_ids), SEVERAL if match == "words" else WORDS
    prompts = [(asked(one),) for one in examples(40)]
    with serve(server) as url:
        scorer = connect(url, match=match)
        found = scorer.score(prompts, words)
    assert (scorer.able.token_ids, scorer.able.exact) == (token_ids, False)
    count = 0
    for row, item in enumerate(encode(tokenizer(), prompts, words)):
        shown, truth = shown_by(server, item.prompt), np.exp(server.truth(item.prompt))
        for column, own in enumerate(item.verdicts):
            wanted = reading(words[column]) if match == "words" else list(own)
            parts = [shown.get(t if token_ids else texts()[t], 0.0) for t in wanted]
            p = sum(parts)
            if not p:
                count += 1
                left = 1 - sum(shown.values()) + SLACK
                p = min(len(wanted) * min(shown.values()), left)
                assert p >= truth[wanted].sum()
            expected = np.log(EPSILON + p) if match == "words" else np.log(p)
            assert found[row, column] == pytest.approx(expected, abs=1e-4)
    assert scorer.bounded == count
    assert 5 < count < 75


def test_what_is_left_of_one_bounds_a_verdict_too():
    """20 tokens share all but a millionth, so that no other can have a twentieth, as they have."""
    server = stub(exact=False)
    server.truth = lambda tokens: np.where(np.arange(len(texts())) < 20, np.log(0.05), -20.0)
    with serve(server) as url:
        scorer = connect(url, match="tokens")
        found = scorer.score([("a",)], WORDS)
    assert scorer.bounded == 2
    np.testing.assert_allclose(found, math.log(SLACK), atol=1e-3)


def test_the_ids_are_those_of_the_rule():
    server = stub()
    with serve(server) as url:
        connect(url, worth_a_request=10**9).score(mixed(), WORDS)
    prompts = {item.prompt for item in encode(tokenizer(), mixed(), WORDS)}
    sent = server.sent[-len(prompts) :]
    assert set(sent) == prompts
    assert all(prompt[0] == tokenizer().bos_token_id for prompt in sent)


@pytest.mark.parametrize("match", ["words", "tokens"])
def test_lengths_are_those_of_what_is_sent(match):
    server = stub(context=300)
    prompts = [(asked(one),) for one in examples(5)]
    with serve(server) as url:
        scorer = connect(url, match=match, worth_a_request=10**9)
        skip = len(server.sent)
        scorer.score(prompts, SEVERAL if match == "words" else LONG)
        sent = server.sent[skip:]
        found = scorer.lengths(prompts, SEVERAL if match == "words" else LONG)
    starts = [item.prompt for item in encode(tokenizer(), prompts, WORDS)]
    longest = [max(len(one) for one in sent if one[: len(start)] == start) for start in starts]
    assert found.tolist() == longest
    assert scorer.context == 299


# --- the order -----------------------------------------------------------------------------------

sequences = st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), max_size=25)


@given(sequences, st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_every_sequence_is_sent_once_and_after_its_beginnings(wanted, worth):
    nodes = in_tree_order(sorted(wanted), worth=worth)
    assert sorted(node.tokens for node in nodes if node.asked) == sorted(wanted)
    for place, node in enumerate(nodes):
        start = () if node.after is None else nodes[:place][node.after].tokens
        assert node.tokens[: len(start)] == start
        # Nothing that was sent before is a longer beginning of it.
        assert not any(
            len(start) < len(other.tokens) and node.tokens[: len(other.tokens)] == other.tokens
            for other in nodes[:place]
        )


@given(sequences)
@settings(max_examples=200, deadline=None)
def test_with_every_beginning_sent_alone_each_token_is_read_once(wanted):
    nodes = in_tree_order(sorted(wanted), worth=0)
    read = sum(
        len(node.tokens) - (len(nodes[node.after].tokens) if node.after is not None else 0)
        for node in nodes
    )
    assert read == len({tokens[:k] for tokens in wanted for k in range(1, len(tokens) + 1)})


def test_a_beginning_is_sent_alone_where_it_spares_more_than_a_request():
    shared = tuple(range(10))
    prompts = [(*shared, 50 + n) for n in range(4)]
    assert [node.tokens for node in in_tree_order(prompts, worth=30)] == [shared, *prompts]
    assert [node.tokens for node in in_tree_order(prompts, worth=31)] == prompts


def test_no_prompt_is_sent_before_its_beginning_was_answered():
    server = stub(pause=0.01)
    prompts = leave_one_out(examples(16))
    with serve(server) as url:
        scorer = connect(url, concurrency=5, worth_a_request=8)
        skip = len(server.events)
        scorer.score(prompts, WORDS)
    running, done, most = set(), set(), 0
    ids = [item.prompt for item in encode(tokenizer(), prompts, WORDS)]
    after = {
        node.tokens: nodes[node.after].tokens
        for nodes in [in_tree_order(ids, worth=8)]
        for node in nodes
        if node.after is not None
    }
    assert len(after) > 20
    for what, tokens in server.events[skip:]:
        if what == "start":
            assert tokens not in after or after[tokens] in done
            running.add(tokens)
            most = max(most, len(running))
        else:
            running.remove(tokens)
            done.add(tokens)
    assert 2 < most <= 5


def test_the_recursive_order_reads_n_log_n_examples_with_a_cache():
    server = stub(block=1)
    shown = examples(32)
    prompts = leave_one_out(shown)
    ids = [item.prompt for item in encode(tokenizer(), prompts, WORDS)]
    with serve(server) as url:
        scorer = connect(url, worth_a_request=0)
        skip = len(server.cached)
        scorer.score(prompts, WORDS)
        assert scorer.requests == len(server.cached) - skip
        assert scorer.cached_tokens == sum(server.cached[skip:])
    tree = {prompt[:k] for prompt in ids for k in range(1, len(prompt) + 1)}
    # A request always reads its last token; all others are read once (the first at the start).
    assert scorer.prompt_tokens > 4 * len(tree)
    assert len(tree) - 1 <= scorer.tokens_read <= len(tree) + scorer.requests


def test_what_is_cached_can_be_kept_apart_or_left_alone():
    server = stub(block=1)
    prompts = leave_one_out(examples(8))
    with serve(server) as url:
        before = connect(url)
        expected = before.score(prompts, WORDS)
        own, none = connect(url, cache="own"), connect(url, cache="none")
        np.testing.assert_array_equal(own.score(prompts, WORDS), expected)
        np.testing.assert_array_equal(none.score(prompts, WORDS), expected)
        # What others had read counts for neither; what it read itself counts for "own".
        assert own.cached_tokens == before.cached_tokens > 0
        assert none.cached_tokens == 0
        again = own.cached_tokens
        own.score(prompts, WORDS)
        asked_alone = sum(len(prompt) - 1 for prompt in {*server.sent[-len(prompts) :]})
        assert own.cached_tokens - again >= asked_alone
    with pytest.raises(ValueError, match="cache is 'mine'; allowed: shared, own, none"):
        connect(url, cache="mine")


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_with_every_fifth_request_spoiled_the_scores_are_the_same(exact):
    prompts = leave_one_out(examples(24))
    with serve(stub(exact=exact)) as straight:
        proxy = Proxy(straight)
        with spoiling(proxy) as url:
            scorer = connect(url, timeout=0.4, worth_a_request=16)
            found = scorer.score(prompts, WORDS)
        whole = connect(straight)
        np.testing.assert_array_equal(found, whole.score(prompts, WORDS))
    assert set(proxy.spoiled) == set(FAULTS)
    assert scorer.retried >= 5
    assert whole.retried == 0


def test_with_every_fifth_request_spoiled_a_search_ends_with_the_same_labels():
    items = load_dataset("pocket/arithmetic", seed=0, max_train=8).train
    searched = SearchSettings(draws=4, initial=4)
    with serve(stub()) as straight:
        proxy = Proxy(straight)
        with spoiling(proxy) as url:
            scorer = connect(url, timeout=0.4)
            found = search(scorer, items, "claim", searched)
        whole = search(connect(straight), items, "claim", searched)
    assert found.labels == whole.labels
    assert found.history == whole.history
    assert scorer.retried >= 5
    assert set(proxy.spoiled) == set(FAULTS)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("429", "status 429"),
        ("500", "status 500"),
        ("stall", "no answer within the time limit"),
        ("cut", "no connection, or a cut one"),
        ("wrong JSON", "its answer is no JSON"),
    ],
)
def test_a_server_that_keeps_failing_is_named_with_the_fault(fault, named):
    with serve(stub()) as straight:
        proxy = Proxy(straight, every=0)
        with spoiling(proxy) as url:
            scorer = connect(url, timeout=0.1, retries=2)
            proxy.every, proxy.faults = 1, (fault,)
            with pytest.raises(ConnectionError, match=f"{url} failed 3 times, .*: {named}"):
                scorer.score([("a",)], WORDS)
    assert proxy.spoiled[fault] == 3


def test_it_waits_as_long_as_the_server_asks(monkeypatch):
    waits = told_waits(monkeypatch)
    with serve(stub()) as straight:
        proxy = Proxy(straight, every=2, faults=("429", "500"))
        with spoiling(proxy) as url:
            connect(url, backoff=0.001)
    assert 0.01 < waits[0] <= 0.02  # the proxy's Retry-After
    assert 0.0005 <= waits[1] <= 0.001


def told_waits(monkeypatch):
    """Seconds that clients of this process wait, which pass at once."""
    waits: list[float] = []
    monkeypatch.setattr("extract.server_client.Event", lambda: Waiting(waits))
    monkeypatch.setattr(
        "extract.server_pace.monotonic", lambda: time.monotonic() + math.fsum(waits)
    )
    return waits


class Waiting:
    def __init__(self, waits):
        self.waits = waits

    def wait(self, seconds):
        self.waits.append(seconds)
        return False


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found["choices"].clear(),
        lambda found: found.update(choices=None),
        lambda found: found["choices"][0].update(logprobs=None),
        lambda found: found["choices"][0]["logprobs"].update(top_logprobs=[{"token_id:5": -1.0}]),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_an_answer_that_is_none_is_asked_for_again(exact, damage):
    """One that lacks what was asked for is none, either: vLLM gives such ones in mixed batches."""
    server = stub(exact=exact)
    with serve(server) as url:
        scorer, whole = connect(url), connect(url).score([("a",)], WORDS)
        spoiled = iter([True, True, False])

        def change(status, found):
            if next(spoiled):
                damage(found)
            return status, found

        server.change = change
        np.testing.assert_array_equal(scorer.score([("a",)], WORDS), whole)
    assert scorer.retried == 2


@pytest.mark.parametrize("value", [None, math.nan, 3.0, "-1", True])
def test_a_log_probability_that_is_none_is_one_line_at_once(value):
    server = stub()
    with serve(server) as url:
        scorer = connect(url)

        def change(status, found):
            for choice in found.get("choices", []):
                choice["logprobs"]["top_logprobs"][0]["token_id:5"] = value
            return status, found

        server.change, before = change, len(server.headers)
        told = rf"{url} gives {value!r} as the log-probability of the token 5; .*overflow"
        with pytest.raises(ValueError, match=told):
            scorer.score([("a",)], WORDS)
        assert len(server.headers) == before + 1
        with pytest.raises(ValueError, match="overflow"):
            connect(url)
        assert len(server.headers) == before + 3  # its models, and one prompt


def changed(change):
    """What a scorer that connects to a server with changed completions is told."""

    def completions(status, found):
        return (
            change(status, found) if found.get("object") == "text_completion" else (status, found)
        )

    with serve(stub(change=completions)) as url, pytest.raises(ValueError) as error:  # noqa: PT011
        connect(url)
    return str(error.value)


def test_numbers_of_tokens_that_are_none_are_one_line():
    def usage(**values):
        return changed(lambda status, found: (status, {**found, "usage": values}))

    assert "says that usage.prompt_tokens is '7'; allowed: a whole number" in usage(
        prompt_tokens="7"
    )
    told = usage(prompt_tokens_details={"cached_tokens": [1]})
    assert "usage.prompt_tokens_details.cached_tokens is [1]" in told


def test_answers_nested_without_end_are_one_line_at_once():
    def nested(handler, content):
        handler.write(200, b"[" * 100_000 + b"]" * 100_000)

    with _serving(nested) as url, pytest.raises(ValueError, match="nested too deeply to be read"):
        connect(url)

    def refusing(handler, content):
        handler.write(400, b"[" * 100_000 + b"]" * 100_000)

    with _serving(refusing) as url, pytest.raises(ValueError, match=r"nested too|status 400"):
        connect(url)


def as_llama_cpp(status, found):
    """Its shape of a completion's log-probabilities: that of the chat API, with ids."""
    for choice in found.get("choices", []):
        (shown,) = choice["logprobs"]["top_logprobs"]
        ids = [
            int(text[9:]) if text.startswith("token_id:") else texts().index(text) for text in shown
        ]
        entries = [
            {"id": token, "token": texts()[token], "bytes": [], "logprob": log_p}
            for token, log_p in zip(ids, shown.values(), strict=True)
        ]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    return status, found


def test_the_shape_of_llama_cpp_is_understood():
    prompts = [(asked(one),) for one in examples(9)]
    with serve(stub(exact=False)) as url:
        expected = connect(url, match="tokens").score(prompts, WORDS)
    with serve(stub(exact=False, change=as_llama_cpp)) as url:
        scorer = connect(url, match="tokens")
        assert (scorer.able.token_ids, scorer.able.exact) == (True, False)
        np.testing.assert_allclose(scorer.score(prompts, WORDS), expected, atol=1e-6)


def test_the_shape_of_an_old_llama_cpp_is_named():
    def old(status, found):
        found["choices"][0]["logprobs"] = None
        return status, {**found, "completion_probabilities": [{"content": "a", "probs": []}]}

    assert "completion_probabilities, an old llama.cpp" in changed(old)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_for_chat_alone_is_named_at_once(status):
    told = changed(lambda *_: (status, {"error": {"message": "no such thing"}}))
    assert f"lists its models but has no completions API (status {status})" in told
    assert "chat alone" in told


def test_a_huge_text_in_an_error_is_cut():
    told = changed(lambda *_: (400, {"error": {"message": "x" * 2_000_000}}))
    assert len(told) < 1000


@pytest.mark.parametrize("key", ["schlüssel", "sesame\n", " sesame"])
@pytest.mark.parametrize("name", ["JELICIT_API_KEY", "OPENAI_API_KEY"])
def test_a_key_that_cannot_be_sent_is_told_before_any_request(monkeypatch, name, key):
    monkeypatch.delenv("JELICIT_API_KEY", raising=False)
    monkeypatch.setenv(name, key)
    server = stub()
    with serve(server) as url, pytest.raises(ValueError, match=f"variable {name} holds a") as told:
        connect(url)
    assert key.strip() not in str(told.value)
    assert server.headers == []


# --- a proxy of the environment ------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch):
    """Answers 403 or 503 to everything, as the proxies of companies do."""
    said = {"status": 403, "asked": 0}

    def refuse(handler, content):
        said["asked"] += 1
        handler.write(said["status"], b"<html>Access denied by policy</html>")

    for name in ("NO_PROXY", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with _serving(refuse) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1").replace("//", "//me:secret@"))
        yield said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_not_asked_for_through_a_proxy(proxy, host):
    with serve(stub()) as url:
        assert connect(url.replace("127.0.0.1", host)).score([("a",)], WORDS).shape == (1, 2)
    assert proxy["asked"] == 0


@pytest.mark.parametrize(("status", "kind"), [(403, ValueError), (503, ConnectionError)])
def test_what_a_proxy_says_is_told_as_its_own(proxy, status, kind):
    proxy["status"] = status
    with pytest.raises(kind, match=rf"status {status}; that is said by the proxy") as error:
        connect("http://models.example/v1")
    assert "NO_PROXY=models.example" in str(error.value)
    assert "secret" not in str(error.value)
    assert "key" not in str(error.value)
    assert proxy["asked"] > 0


# --- patience ------------------------------------------------------------------------------------


def test_waiting_has_an_end_and_long_waits_are_told(monkeypatch, caplog):
    waits = []
    monkeypatch.setattr("extract.server_client.Event", lambda: Waiting(waits))
    server = stub()
    with serve(server) as url:
        client = Server(url, retries=8, backoff=8.0, patience=14.0)
        server.change = lambda status, found: (503, found)
        before = len(server.headers)
        with pytest.raises(ConnectionError, match=r"status 503; look at the server's log"):
            client.probe((1, 2), vocabulary=5)
    # 4 to 8, 8 to 16, then 15 to 30: waits are not real here, so a pause over 14 s ends it, which
    # is the third one at the latest.
    assert 2 <= len(server.headers) - before <= 3
    assert max(waits) < 14
    assert "status 503; asked again in" in caplog.text


def test_nothing_is_repeated_that_would_fail_again():
    server = stub()
    with serve(server) as url:
        scorer = connect(url)
        server.model = "another"
        before = len(server.headers)
        with pytest.raises(
            ValueError, match=r"refuses a request \(status 404\): .*`stub` does not"
        ):
            scorer.score([("a",)], WORDS)
    assert len(server.headers) == before + 1


# --- the journal ---------------------------------------------------------------------------------


def test_a_run_that_was_cut_goes_on_where_it_stopped(tmp_path):
    server, prompts = stub(), leave_one_out(examples(16))
    journal = tmp_path / "new" / "answers.jsonl"
    with serve(server) as url:
        wanted = connect(url).score(prompts, WORDS)
        first = connect(url, retries=0, journal=journal, concurrency=3)
        left = iter(range(9))
        server.change = lambda status, found: (
            status if next(left, None) is not None else 500,
            found,
        )
        with pytest.raises(ConnectionError):
            first.score(prompts, WORDS)
        server.change = Stub.change
        answered = len(journal.read_text().splitlines())
        assert 0 < answered <= 9
        second = connect(url, journal=journal, worth_a_request=10**9)
        np.testing.assert_array_equal(second.score(prompts, WORDS), wanted)
        assert second.requests == len(prompts) - answered
        third = connect(url, journal=journal)
        np.testing.assert_array_equal(third.score(prompts, WORDS), wanted)
        assert third.requests == 0
        # Other verdicts, another match, another server: other answers.
        third.score(prompts, (WORDS[0],))
        assert third.requests > 0
        assert connect(url, journal=journal, match="tokens").name != third.name


def test_what_is_under_way_when_a_request_fails_is_not_lost(tmp_path):
    server, failed = stub(), threading.Event()
    journal = tmp_path / "answers.jsonl"
    with serve(server) as url:
        scorer = connect(url, retries=0, journal=journal, concurrency=2)
        order = itertools.count()

        def change(status, found):
            if next(order):
                failed.set()
                return 500, found
            failed.wait(10)
            time.sleep(0.2)  # until the failure was seen
            return status, found

        server.change = change
        with pytest.raises(ConnectionError, match="failed 1 times, the last time with: status 500"):
            scorer.score([("a",), ("b",), ("c",)], WORDS)
    assert len(journal.read_text().splitlines()) == scorer.requests == 1


def test_bounds_are_counted_from_the_journal_too(tmp_path):
    prompts = [(asked(one),) for one in examples(9)]
    with serve(stub(exact=False)) as url:
        scorers = [connect(url, journal=tmp_path / "answers.jsonl") for _ in range(1)]
        scorers[0].score(prompts, WORDS)
        scorers.append(connect(url, journal=tmp_path / "answers.jsonl"))
        scorers[1].score(prompts, WORDS)
    assert scorers[0].bounded == scorers[1].bounded > 0
    assert scorers[1].requests == 0


def test_a_torn_last_line_is_asked_for_again_and_a_damaged_one_is_named(tmp_path):
    prompts = [(asked(one),) for one in examples(5)]
    journal = tmp_path / "answers.jsonl"
    with serve(stub()) as url:
        wanted = connect(url, journal=journal).score(prompts, WORDS)
        journal.write_bytes(journal.read_bytes()[:-30])
        scorer = connect(url, journal=journal)
        np.testing.assert_array_equal(scorer.score(prompts, WORDS), wanted)
        assert scorer.requests == 1
        assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 5
        journal.write_text(journal.read_text().replace("log_p", "score", 1))
        with pytest.raises(ValueError, match=r"answers\.jsonl, line 1 is no answer"):
            connect(url, journal=journal)


# --- at start ------------------------------------------------------------------------------------


def refused(message, url=None, *, options=None, **about):
    with serve(stub(**about)) as own, pytest.raises(ValueError, match=message) as error:
        connect(url or own, **(options or {}))
    return str(error.value)


def test_a_server_that_gives_no_log_probabilities_is_named():
    """`transformers serve` leaves them out without a word."""
    refused("answers without log-probabilities.*serve the model with vLLM", log_probs=False)


def test_another_model_is_named():
    options = {"model": "llama"}
    refused("serves stub, not 'llama'; choose", options=options)
    refused(r"serves a, b, stub; name one of them: --served \(model=\)", others=("a", "b"))
    with serve(stub(others=("a",))) as url:
        assert connect(url, model="stub").server.model == "stub"


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_sent():
    server = stub(context=60)
    with serve(server) as url:
        scorer = connect(url)
        before = len(server.sent)
        with pytest.raises(
            ValueError, match=r"prompt 1 has 60 tokens .* reads at most 59; use few"
        ):
            scorer.score([("a",), (" is" * 59,)], WORDS)
        assert len(server.sent) == before
        scorer.score([(" is" * 58,)], WORDS)  # and BOS
    assert max(map(len, server.sent)) == 59


def test_a_server_that_changes_prompts_is_named():
    refused(r"counted (\d+) tokens in a prompt of \d+ token ids: it changes prompts", added=1)


def test_another_tokenizer_is_named():
    server = stub()
    server.texts = random.Random(0).sample(texts(), len(texts()))
    for token_ids in (True, False):
        server.token_ids = token_ids
        if not token_ids:
            server.texts = [f"<{text}>" for text in texts()]
        with serve(server) as url, pytest.raises(ValueError, match="has another tokenizer: after"):
            connect(url)


def test_a_tokenizer_that_is_nowhere_is_asked_for():
    with serve(stub(model="./no/such/model")) as url:
        with pytest.raises(ValueError, match=r"no tokenizer for \./no/such/model .*tokenizer="):
            ServerScorer(url, **SOON)
        assert ServerScorer(url, tokenizer=POCKET, **SOON).score([("a",)], WORDS).shape == (1, 2)
    with serve(stub(model="pocket")) as url:
        assert len(ServerScorer(url, **SOON).tokenizer) == len(texts())


def test_a_missing_gguf_file_is_not_looked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("asked"))
    with (
        serve(stub()) as url,
        pytest.raises(ValueError, match=r"Tried: no/such\.gguf \(there is no such file\)"),
    ):
        ServerScorer(url, tokenizer="no/such.gguf", **SOON)


def test_an_alias_is_not_looked_for_again_and_again(monkeypatch):
    asked_for = []

    def away(self, name, **_options):
        asked_for.append(name)
        raise RuntimeError("Connection refused")

    def never(*_args, **_options):
        raise AssertionError("the tokenizer's own loading repeats for minutes")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    with serve(stub(model="my-alias")) as url, monkeypatch.context() as patch:
        patch.setattr("transformers.AutoTokenizer.from_pretrained", never)
        told = r"no tokenizer for my-alias .*--tokenizer \(tokenizer=\)\. Tried: my-alias \(the hub"
        with pytest.raises(ValueError, match=told):
            ServerScorer(url, **SOON)
    assert asked_for == ["my-alias"]


def test_the_tokenizer_of_an_adapter_is_that_of_its_parent():
    def lora(status, found):
        if found.get("object") == "list":
            entry = found["data"][0]
            base = {**entry, "id": "base", "root": str(POCKET)}
            found["data"] = [{**entry, "root": "./no/such/adapter", "parent": "base"}, base]
        return status, found

    with serve(stub(change=lora)) as url:
        scorer = ServerScorer(url, model="stub", **SOON)
        assert scorer.server.origins == ("./no/such/adapter", "stub", str(POCKET), "base")
        assert len(scorer.tokenizer) == len(texts())


@pytest.mark.parametrize("strict", [True, False])
def test_a_service_that_shows_five_is_asked_for_five_unless_the_user_says_how_many(strict, caplog):
    server = stub(most=5, exact=False, token_ids=not strict, strict=strict)
    with serve(server) as url:
        scorer = connect(url)
        found = scorer.score(mixed(), WORDS)
        assert "refuses to show 20 log-probabilities; it is asked for 5" in caplog.text
        assert caplog.text.count("\n") == 1
        told = connect(url, top_logprobs=5)
        np.testing.assert_array_equal(found, told.score(mixed(), WORDS))
        assert scorer.name == told.name
        assert scorer.name.endswith("/top5")
        assert caplog.text.count("\n") == 1
        with pytest.raises(ValueError, match="Requested sample logprobs of 20, max 5"):
            connect(url, top_logprobs=20)


def test_where_the_number_is_not_the_reason_the_refusal_is_that_of_twenty(caplog):
    with serve(stub(most=3)) as url, pytest.raises(ValueError, match="logprobs of 20, max 3"):
        connect(url)
    assert caplog.text == ""


def test_more_log_probabilities_than_the_server_gives_are_refused_with_its_words():
    message = r"refuses a request \(status 400\): .*Requested sample logprobs of 21, max 20"
    refused(message, options={"top_logprobs": 21})


def test_a_server_that_refuses_what_it_does_not_know_is_asked_plainly():
    server = stub(strict=True, token_ids=False, exact=False)
    with serve(server) as url:
        scorer = connect(url)
        assert (scorer.able.token_ids, scorer.able.exact) == (False, False)
        assert scorer.score([("a",)], WORDS).shape == (1, 2)


def test_addresses_that_are_none_are_refused():
    with serve(stub()) as url:
        short = url.removesuffix("/v1")
        refused(f"status 404.*did you mean {short}/v1", short)
    refused("'localhost:8000' is no server's URL; give one like http://", "localhost:8000")
    with pytest.raises(ConnectionError, match=r"failed 3 times.*is it running"):
        connect(short)
    for options in ({"match": "letters"}, {"concurrency": 0}):
        refused("allowed: ", options=options)


def test_what_cannot_be_scored_is_refused_by_name():
    with serve(stub()) as url:
        scorer = connect(url)
        assert scorer.score([], WORDS).shape == (0, 2)
        with pytest.raises(ValueError, match="no verdicts"):
            scorer.score([("a",)], ())
        with pytest.raises(ValueError, match="prompt 1 is 'a'; give a tuple"):
            scorer.score([("a",), "a"], WORDS)  # type: ignore[list-item]
        with pytest.raises(ValueError, match="no token of stub reads as 'surely so'"):
            scorer.score([("a",)], (" surely so", " a"))
        with pytest.raises(ValueError, match="two are the same word"):
            scorer.score([("a",)], (" True", "true"))


def test_the_name_tells_models_servers_and_matches_apart():
    names = set()
    for server in (stub(), stub(model="other"), stub(exact=False)):
        with serve(server) as url:
            names |= {connect(url, match=match).name for match in ("words", "tokens")}
            assert all("127.0.0.1" not in name for name in names)
    with serve(stub(exact=False, most=30)) as url:
        names.add(connect(url, top_logprobs=30).name)
    assert len(names) == 7
    assert any("stub-1" in name for name in names)


# --- the key -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"JELICIT_API_KEY": "sesame-1", "OPENAI_API_KEY": "sesame-2"}, "sesame-1"),
        ({"OPENAI_API_KEY": "sesame-2"}, "sesame-2"),
        ({}, "none"),
    ],
)
def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    variables, sent, monkeypatch, tmp_path, caplog
):
    for name in ("JELICIT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server, journal = stub(key=sent), tmp_path / "answers.jsonl"
    with caplog.at_level(logging.DEBUG), serve(server) as url:
        scorer = connect(url, journal=journal)
        scorer.score([("a",)], WORDS)
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {sent}"}
        server.change = lambda *_: (400, {"error": {"message": f"not with {sent}"}})
        with pytest.raises(ValueError, match=r"status 400\): .*not with \(the key\)") as refusal:
            scorer.score([("b",)], WORDS)
        server.change = lambda *_: (401, {"error": {"message": f"not with {sent}"}})
        with pytest.raises(ValueError, match=r"refuses the API key.*JELICIT_API_KEY") as error:
            connect(url)
    seen = [caplog.text, journal.read_text(), scorer.name, repr(scorer), str(scorer.server)]
    seen += [repr(scorer.server), repr(scorer.able), *map(traceback_of, (error, refusal))]
    assert caplog.text
    assert not [text for text in seen if "sesame" in text]


def traceback_of(error):
    return "".join(traceback.format_exception(error.value))


def test_a_key_in_the_address_is_refused_and_not_repeated():
    message = refused("user name or password; a key is taken from the env", "http://u:sesame@h/v1")
    assert "sesame" not in message


def test_the_scorer_hands_its_patience_to_the_server(monkeypatch):
    class Asked(Exception):  # noqa: N818
        """The server was asked for; nothing is sent."""

    def server(url, **options):
        raise Asked(options["patience"])

    monkeypatch.setattr("extract.server_scorer.Server", server)
    with pytest.raises(Asked, match=r"^5\.0$"):
        ServerScorer("http://localhost:9/v1", patience=5.0)
