"""Limits of a server: tokens that may be sent, and pauses that it asks for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from stub_server import serve
from test_server_scorer import WORDS, Waiting, connect, examples, stub

from extract.server_limits import SpentError, seconds_asked
from jelicit.data.items import Item
from jelicit.data.prompts import few_shot
from jelicit.icm import SearchSettings, search
from jelicit.icm.forecast import most_labellings, most_prompts
from jelicit.prompting import METHODS, prompted, zero_shot_scores
from jelicit.prompting.forecast import Need, forecast, need_of, need_of_method
from jelicit.studies.prompted import measure_prompting
from jelicit.studies.settings import PromptSettings
from jelicit.studies.situation import Runs, Situation

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


# --- what a run will need ------------------------------------------------------------------------


def claims(n, *, group=1):
    return [
        Item(id=f"i{k}", question=f"q{k // group}", choice="ab " * (1 + k % 5), label=k % 2 == 0)
        for k in range(n)
    ]


@pytest.mark.parametrize("match", ["words", "tokens"])
@pytest.mark.parametrize("worth", [1, 512])
def test_what_prompts_cost_is_said_before_they_are_sent(match, worth):
    """Prompts of the most examples that there are: the forecast is never less than what is sent."""
    items, server = claims(12), stub()
    with serve(server) as url:
        scorer = connect(url, match=match, worth_a_request=worth)
        targets, pool = items[:4], items[4:]
        need = need_of_method("golden_few_shot", scorer, targets, pool, "claim", shots=(3,))
        first, before = len(server.sent), tokens(server)
        prompted("golden_few_shot", scorer, targets, pool, "claim", shots=(3,))
        requests, sent = len(server.sent) - first, tokens(server) - before
        most = scorer.sent_for(need.requests, need.tokens, longest=need.longest)
    assert 0 < requests <= most[0]
    assert 0 < sent <= most[1]
    if match == "words" and worth == 512:
        assert (need.requests, most[0]) == (4, 4)
        every = [few_shot(t, [(one, True) for one in pool], "claim") for t in targets]
        assert sent <= most[1] < 4 * max(scorer.costs(every, WORDS)[1])


def test_zero_shot_prompts_of_one_length_cost_what_is_said():
    items, server = claims(20)[::5], stub()
    with serve(server) as url:
        scorer = connect(url)
        need = need_of(scorer, 4, items, "claim")
        before = tokens(server)
        zero_shot_scores(scorer, items, "claim")
        assert tokens(server) - before == need.tokens == 4 * need.longest


def test_a_forecast_tells_of_a_limit_that_is_less(tmp_path):
    journal, less = tmp_path / "answers.jsonl", "--max-tokens-total 50 is less"
    with serve(stub()) as url:
        need = Need(requests=2, tokens=60, longest=30)
        for most, told in [(None, False), (60, False), (50, True)]:
            scorer = connect(url, journal=journal, max_tokens_total=most)
            line = forecast(scorer, need)
            assert line.startswith("at most 2 requests and 60 tokens")
            assert (less in line) == told
        connect(url, journal=journal).score(PROMPTS[:1], WORDS)
        scorer = connect(url, journal=journal, max_tokens_total=60)
        assert f"{scorer.limit.spent} tokens are spent" in forecast(scorer, need)
        assert "--max-tokens-total 60 is less" in forecast(scorer, need)


@pytest.mark.parametrize(
    ("group", "rule", "judged"),
    [(1, "answer", 2), (2, "none", 2), (2, "answer", 5), (4, "answer", 17), (12, "answer", 49)],
)
def test_a_search_asks_for_no_more_prompts_than_are_foreseen(group, rule, judged):
    """Also of a model that changes its mind all the time."""
    items = [replace(one, group=one.question, answer=one.id) for one in claims(12, group=group)]

    class Fickle:
        def score(self, prompts, verdicts):
            rng = np.random.default_rng([len(prompts), *map(ord, prompts[0][-1])])
            return rng.normal(size=(len(prompts), 2))

    for seed in range(3):
        settings = SearchSettings(
            seed=seed, rule=rule, draws=30, initial_temperature=1e9, patience=99
        )
        found = search(Fickle(), items, "claim", settings)
        assert most_labellings(items, settings) == judged
        assert max(step.judged for step in found.history) <= judged
        assert 0 < found.reading.prompts <= most_prompts(items, settings)


def test_few_shot_methods_of_a_study_say_what_they_need(tmp_path):
    items, server, said = claims(24), stub(), []
    situation = Situation(
        dataset="claims", format="claim", train=tuple(items[:16]), test=tuple(items[16:])
    )
    runs = Runs(about=({"seed": 0}, {"seed": 1}), subsets=np.ones((2, 16), bool))
    settings = PromptSettings(prompting=METHODS, shots=(1, 3), pool=10, prompt_tests=6)
    with serve(server) as url:
        scorer = connect(url, worth_a_request=10**6)
        first = len(server.sent)
        measure_prompting(
            situation,
            runs,
            scorer,
            settings,
            boot=5,
            journals=tmp_path,
            say=lambda line: said.append((line, len(server.sent) - first)),
        )
        sent = len(server.sent) - first
    line, before = said[0]
    assert before == 0
    # Random and golden prompts ask about tests, bootstrapping about the pool before that.
    assert "before the first request: at most 88 requests" in line  # 2 x (6 + 6 + 16 + 16)
    assert 60 < sent <= 88
