"""Limits of a server: tokens that may be sent, and pauses that it asks for."""

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from stub_server import Stub, serve
from test_server_scorer import WORDS, connect, examples, stub, texts, told_waits

from extract.server_client import Server
from extract.server_limits import SpentError, requests_left, seconds_asked, seconds_spent
from extract.server_pace import MOST_FREE, Pace, Tries
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


def test_of_an_answer_only_a_limit_that_is_used_up_counts():
    resets = {"x-ratelimit-reset-requests": "8s", "x-ratelimit-reset-tokens": "2s"}
    left = "x-ratelimit-remaining-requests"
    assert seconds_spent(resets) == 0.0
    assert seconds_spent({**resets, left: "3", "x-ratelimit-remaining-tokens": "0"}) == 2.0
    assert seconds_spent({**resets, left: "0", "x-ratelimit-remaining-tokens": "0"}) == 8.0
    assert [requests_left({left: text}) for text in ("3", " 0 ")] == [3, 0]
    assert [requests_left(one) for one in ({}, {left: "many"}, {left: "-1"})] == [np.inf] * 3


def test_a_date_to_wait_for_is_seconds_from_now():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < seconds_asked({"retry-after": date}) <= 30
    assert seconds_asked({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_client_waits_until_its_limit_is_whole_again(monkeypatch):
    waits = told_waits(monkeypatch)
    server = stub(limited=1)
    with serve(server) as url:
        connect(url, backoff=0.001)
    assert waits == [pytest.approx(1.2, abs=0.1)]


# --- limits of requests --------------------------------------------------------------------------


class Limited(Stub):
    """The stub with a limit of requests in every window of time, which begins with its first.

    It counts the completions that it refused, as `refused`.
    """

    def __init__(self, *args, most=2, seconds=0.3, tells=False, states=True, **options):
        super().__init__(*args, **options)
        self.most_in_window, self.seconds, self.tells, self.states = most, seconds, tells, states
        self.begin, self.count, self.refused = 0.0, 0, 0

    def limit(self, path):
        """Whether a request is let through, and the headers of its answer."""
        if not path.endswith("/completions"):
            return True, {}
        with self.lock:
            if (now := time.monotonic()) >= self.begin + self.seconds:
                self.begin, self.count = now, 0
            left = self.begin + self.seconds - now
            if self.count >= self.most_in_window:
                self.refused += 1
                return False, {"retry_after_ms": f"{1000 * left:.0f}"} if self.states else {}
            self.count += 1
            if not self.tells:
                return True, {}
            return True, {
                "x_ratelimit_remaining_requests": str(self.most_in_window - self.count),
                "x_ratelimit_reset_requests": f"{1000 * left:.0f}ms",
            }


def limited(**options):
    return Limited(texts(), likely=stub().likely, exact=False, **options)


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("most", [1, 3])
def test_a_sustained_limit_is_served_slowly_but_surely(at_once, most):
    """More windows than a request has tries; each costs a refusal, since nothing else tells it."""
    prompts, server = [(one,) for one in examples(24)], limited(most=most, seconds=0.15)
    with serve(server) as url:
        scorer = connect(url, concurrency=at_once, retries=3)
        found = scorer.score(prompts, WORDS)
    np.testing.assert_allclose(found, expected_shown(prompts), atol=1e-5)
    windows = -(-(len(prompts) + 4) // most)
    assert windows / 2 < server.refused <= 2 * windows + at_once


def test_of_a_limit_that_answers_tell_no_request_is_refused():
    prompts, server = [(one,) for one in examples(16)], limited(tells=True, most=2, seconds=0.15)
    with serve(server) as url:
        begin = time.monotonic()
        found = connect(url, concurrency=8).score(prompts, WORDS)
        assert time.monotonic() - begin > 7 * 0.15
    np.testing.assert_allclose(found, expected_shown(prompts), atol=1e-5)
    assert server.refused <= 2  # a window ends here a little sooner than there


def test_a_limit_without_a_stated_time_is_kept_by_all_threads():
    prompts, server = [(one,) for one in examples(12)], limited(states=False, most=2, seconds=0.1)
    with serve(server) as url:
        found = connect(url, concurrency=8, backoff=0.02).score(prompts, WORDS)
    np.testing.assert_allclose(found, expected_shown(prompts), atol=1e-5)
    assert server.refused < 50


def test_a_service_that_lets_nothing_through_is_given_up():
    """It says when to come back, and refuses again then, every time."""
    server = limited(most=10**6)
    with serve(server) as url:
        scorer = connect(url, retries=2)
        server.most_in_window, server.seconds = 0, 0.02
        with pytest.raises(ConnectionError, match="failed 3 times, the last time with: status 429"):
            scorer.score([("a",)], WORDS)
        server.seconds = 3600
        scorer = Server(url, retries=2, patience=0.2)  # an hour is waited for, as patience allows
        with pytest.raises(ConnectionError, match="failed 1 times"):
            scorer.probe((1, 2), vocabulary=5)


def test_waiting_for_others_ends_when_one_fails_for_good():
    server = limited(most=10**6, seconds=30.0)
    with serve(server) as url:
        scorer = connect(url, concurrency=4)
        server.change = lambda status, found: (400, {"error": {"message": "no"}})
        server.most_in_window = server.count + 1
        begin = time.monotonic()
        with pytest.raises(ValueError, match="refuses a request"):
            scorer.score([(one,) for one in examples(12)], WORDS)
    assert time.monotonic() - begin < 10


def expected_shown(prompts):
    """Scores from the same server without a limit."""
    with serve(stub(exact=False)) as url:
        return connect(url).score(prompts, WORDS)


# --- the pace ------------------------------------------------------------------------------------


@pytest.fixture
def now(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("extract.server_pace.monotonic", lambda: clock[0])
    return clock


def entered(pace, turns):
    """Those of the turns that are let through now."""
    return [turn for turn in turns if pace.enter(turn) == 0.0]


def turns_of(pace, number):
    """Places of so many requests, which stay."""
    stack = ExitStack()
    return [stack.enter_context(pace.turn()) for _ in range(number)], stack


def test_without_a_limit_nobody_waits(now):
    pace = Pace()
    turns, stack = turns_of(pace, 40)
    with stack:
        assert entered(pace, turns) == turns


def test_after_a_refusal_nobody_is_let_through_until_the_time_that_it_names(now):
    pace = Pace()
    turns, stack = turns_of(pace, 3)
    with stack:
        assert entered(pace, turns[:2]) == turns[:2]
        assert pace.refuse(turns[0], 20.0) == 20.0
        assert pace.refuse(turns[1], 25.0) == 0.0  # of the same window, a later time
        pace.leave()
        pace.leave()
        assert [pace.enter(turn) for turn in turns] == [25.0] * 3
        now[0] += 24.9
        assert entered(pace, turns) == []
        now[0] += 0.2
        assert entered(pace, reversed(turns)) == turns[:1]  # none passed, so one; the first first


def test_the_next_window_lets_as_many_through_as_the_last_then_one_by_one(now):
    pace = Pace()
    turns, stack = turns_of(pace, 12)
    with stack:
        assert len(entered(pace, turns[:4])) == 4
        for turn in turns[:3]:
            pace.hear(turn, {})
            pace.leave()
        pace.refuse(turns[3], 5.0)
        pace.leave()
        now[0] += 5.1
        assert entered(pace, turns[3:]) == turns[3:6]
        for turn in turns[3:6]:
            assert entered(pace, turns[6:]) == []
            pace.hear(turn, {})
            pace.leave()
        assert entered(pace, turns[6:]) == turns[6:7]
        pace.hear(turns[6], {})  # more than the window before, so two are tried
        pace.leave()
        assert entered(pace, turns[7:]) == turns[7:9]


def test_an_answer_that_leaves_nothing_begins_a_wait_and_one_that_leaves_few_lets_few_through(now):
    pace = Pace()
    turns, stack = turns_of(pace, 9)
    left = "x-ratelimit-remaining-requests"
    with stack:
        entered(pace, turns[:1])
        assert pace.hear(turns[0], {left: "2", "x-ratelimit-reset-requests": "50s"}) == 0.0
        pace.leave()
        assert entered(pace, turns[1:]) == turns[1:3]
        assert pace.hear(turns[1], {left: "0", "x-ratelimit-reset-requests": "50s"}) == 50.0
        pace.leave()
        assert pace.enter(turns[3]) == 50.0
        tokens = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h"}
        assert pace.hear(turns[2], tokens) == 0.0  # the wait had begun; a minute at a time
        assert pace.enter(turns[3]) == 60.0


def test_refusals_do_not_count_while_others_get_through(now):
    pace = Pace()
    (other,), stack = turns_of(pace, 1)
    states = {"retry-after": "20"}
    with stack:
        tries = Tries(pace, retries=1, patience=600.0)
        tries.begin()
        for _ in range(MOST_FREE):
            now[0] += 20.0
            pace.enter(other)
            pace.hear(other, {})
            pace.leave()
            assert tries.refused(states)
            assert not tries.over()
        pace.hear(other, {})
        assert not tries.refused(states)  # there is an end to it
        tries = Tries(pace, retries=1, patience=600.0)
        assert not tries.refused(states)
        assert not tries.refused({})
        assert tries.refused({"retry-after": "3600"})  # not asked in vain: it came back too soon
        now[0] += 601
        assert tries.over()


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
