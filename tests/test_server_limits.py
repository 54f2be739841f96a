"""Limits of a server: tokens that may be sent, and pauses that it asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from stub_server import serve
from test_server_scorer import WORDS, Waiting, connect, examples, stub

from extract.server_limits import SpentError, seconds_asked

PROMPTS = [(shown,) for shown in examples(9)]


def tokens(server):
    """Tokens of what was sent, with the one that every request makes."""
    return sum(len(prompt) + 1 for prompt in server.sent)


def test_nothing_is_sent_beyond_the_limit_and_a_higher_one_goes_on(tmp_path):
    whole, journal = stub(), tmp_path / "answers.jsonl"
    with serve(whole) as url:
        expected = connect(url)
        at_start = tokens(whole)
        scores = expected.score(PROMPTS, WORDS)
        needed = tokens(whole) - at_start
    server, most = stub(), needed // 2
    with serve(server) as url:
        scorer = connect(url, journal=journal, max_tokens_total=most)
        before = tokens(server)
        with pytest.raises(SpentError, match=f"of --max-tokens-total {most:,} are spent; what"):
            scorer.score(PROMPTS, WORDS)
        sent = tokens(server) - before
        assert 0 < sent == scorer.limit.spent <= most
        with pytest.raises(SpentError):  # what earlier runs sent counts
            connect(url, journal=journal, max_tokens_total=most).score(PROMPTS, WORDS)
        again = connect(url, journal=journal, max_tokens_total=needed)
        np.testing.assert_array_equal(again.score(PROMPTS, WORDS), scores)
    assert again.limit.spent == needed


def test_beginnings_that_are_sent_alone_are_counted(tmp_path):
    server, journal = stub(), tmp_path / "answers.jsonl"
    shown = "".join(examples(4))
    prompts = [(shown, f"So {one}") for one in examples(6)]
    with serve(server) as url:
        scorer = connect(url, journal=journal, worth_a_request=1)
        before = tokens(server)
        scorer.score(prompts, WORDS)
        assert scorer.requests > len(prompts)
        assert scorer.limit.spent == tokens(server) - before
        assert connect(url, journal=journal).limit.spent == scorer.limit.spent


@pytest.mark.parametrize("most", [0, -1])
def test_a_limit_below_one_is_refused(most):
    with serve(stub()) as url, pytest.raises(ValueError, match=f"max_tokens_total is {most}; all"):
        connect(url, max_tokens_total=most)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-reset-tokens": "2s"}, 2.0),
        ({"x-ratelimit-reset-tokens": "1.5"}, 1.5),
        ({"x-ratelimit-reset-tokens": "in a while"}, 0.0),
        ({"retry-after": "3", "x-ratelimit-reset-tokens": "9s"}, 3.0),
        (
            {
                **{"x-ratelimit-reset-requests": "8s", "x-ratelimit-remaining-requests": "5"},
                **{"x-ratelimit-reset-tokens": "2s", "x-ratelimit-remaining-tokens": "0"},
            },
            2.0,
        ),
    ],
)
def test_pauses_are_read_from_headers(headers, seconds):
    assert seconds_asked(headers) == pytest.approx(seconds)


def test_a_date_to_wait_for_is_seconds_from_now():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < seconds_asked({"retry-after": date}) <= 30
    assert seconds_asked({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_client_waits_until_its_limit_is_whole_again(monkeypatch):
    waits = []
    monkeypatch.setattr("extract.server_client.Event", lambda: Waiting(waits))
    server = stub(limited=1)
    with serve(server) as url:
        connect(url, backoff=0.001)
    assert waits == [pytest.approx(1.2)]
