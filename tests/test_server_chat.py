"""A chat model behind the chat API: what it is sent, what answers are worth, what is counted."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tyro
from experiment_scripts import run, script
from stub_server import Proxy, Stub, _error, serve, spoiling
from test_server_scorer import POCKET, texts

from extract.server_answers import DamagedError
from extract.server_chat import ANSWER_TOKENS, ChatScorer, Said, parse, read_chat, read_verdict
from extract.server_limits import SpentError
from extract.verdicts import EPSILON
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, few_shot, segments
from jelicit.prompting import zero_shot_scores
from jelicit.results import Record

WORDS = (" True", " False")
SOON: dict[str, Any] = {"backoff": 0.01, "timeout": 10.0}
FORM = PromptFormat(name="f", text="Claim: {choice}\nThis claim is", system="Judge claims.")
Top = list[tuple[str, float]]


def sure(messages) -> tuple[str, list[Top]]:
    """The claim's number decides how sure the model is that it is true."""
    number = int(messages[-1]["content"].split("Claim: ")[1].split("\n")[0])
    p = (number + 1) / 20
    return "True", [[("True", p), (" true", 0.04), ("False", 0.9 - p), ("Maybe", 0.01)]]


@dataclass
class ChatStub(Stub):
    """The stub as a service for chat answers.

    Attributes:
        says: (text, per token its likeliest ones) of a conversation.
        refused: Parameters that it refuses.
        asked: Conversations, in the order in which they came.
    """

    says: Callable[[Any], tuple[str, list[Top]]] = sure
    refused: tuple[str, ...] = ()
    asked: list[Any] = field(default_factory=list)
    usage: bool = True

    def answer(self, path, body, headers):
        if path != "/v1/chat/completions":
            return super().answer(path, body, headers)
        if unknown := [name for name in self.refused if name in body]:
            return 400, _error(f"Unsupported parameter: {unknown[0]}")
        if body.get("top_logprobs", 0) > self.most:
            return 400, _error(f"top_logprobs must be at most {self.most}")
        trial = "sky" in body["messages"][-1]["content"]
        if not trial:
            with self.lock:
                self.asked.append(body["messages"])
        text, places = ("Yes", [[("Yes", 0.9)]]) if trial else self.says(body["messages"])
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if self.log_probs and body.get("logprobs"):
            choice["logprobs"] = {
                "content": [
                    {"token": top[0][0], "top_logprobs": list(map(entry, top))} for top in places
                ]
            }
        tokens = sum(len(one["content"].split()) for one in body["messages"]) + 4
        usage = {"usage": {"total_tokens": tokens}} if self.usage else {}
        return 200, {"choices": [choice], "system_fingerprint": "state-1", **usage}


def entry(pair):
    token, p = pair
    return {"token": token, "logprob": math.log(p), "bytes": None}


def connect(url, **options):
    return ChatScorer(url, **(SOON | options))


def claims(n):
    return [Item(id=f"i{k}", choice=str(k), label=k % 2 == 0, group=str(k)) for k in range(n)]


def prompts(n):
    return [segments(item, FORM) for item in claims(n)]


# --- what is sent --------------------------------------------------------------------------------


def test_prompts_are_sent_as_the_turns_of_a_conversation():
    first, second = claims(2)
    server = ChatStub([])
    with serve(server) as url:
        connect(url).score([few_shot(second, [(first, True)], FORM)], WORDS)
    [messages] = server.asked
    assert messages == [
        {"role": "system", "content": "Judge claims."},
        {"role": "user", "content": "Claim: 0\nThis claim is"},
        {"role": "assistant", "content": "True"},
        {
            "role": "user",
            "content": "Claim: 1\nThis claim is\n\nAnswer with one word: True or False.",
        },
    ]


def test_equal_prompts_are_asked_once_and_nothing_twice_with_a_journal(tmp_path):
    server, journal = ChatStub([]), tmp_path / "answers.jsonl"
    with serve(server) as url:
        scorer = connect(url, journal=journal)
        scores = scorer.score([*prompts(3), *prompts(2)], WORDS)
        assert len(server.asked) == scorer.requests == 3
        np.testing.assert_array_equal(scores[3:], scores[:2])
        again = connect(url, journal=journal)
        np.testing.assert_array_equal(again.score(prompts(3), WORDS), scores[:3])
        assert again.requests == 0
        assert again.limit.spent == scorer.limit.spent
        # Other words are another question.
        again.score(prompts(1), (" Yes", " No"))
    assert len(server.asked) == 4


def test_a_run_that_is_stopped_sends_no_more(monkeypatch):
    """Requests cost money: of sixteen, only those under way are still sent."""

    def stopped(*_, **__):
        raise KeyboardInterrupt

    server = ChatStub([])
    with serve(server) as url:
        scorer = connect(url, concurrency=2)
        monkeypatch.setattr(scorer._journal, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            scorer.score(prompts(16), WORDS)
    assert 1 <= len(server.asked) <= 3


# --- what answers are worth ----------------------------------------------------------------------


def test_scores_are_the_log_probabilities_of_what_reads_as_a_verdict():
    with serve(ChatStub([])) as url:
        scorer = connect(url)
        scores = scorer.score(prompts(9), WORDS)
    p = (np.arange(9) + 1) / 20
    expected = np.log(EPSILON + np.stack([p + 0.04, 0.9 - p], 1))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert (scorer.bounded, scorer.parsed, scorer.unparsed) == (0, 0, 0)
    assert scorer.name == "stub/state-1/chat/top20"


def said(text, *shown):
    return Said(text=text, shown={t: math.log(p) for t, p in shown}, tokens=None, fingerprint="")


def test_a_verdict_that_is_not_shown_gets_the_most_that_it_can_have():
    verdict = read_verdict(said("x", ("True", 0.6), ("Well", 0.3)), ("True", "False"), tokens=1)
    assert np.exp(verdict.log_p) == pytest.approx([0.6, 0.1])
    verdict = read_verdict(said("x", ("true", 0.5), ("Well", 0.02)), ("True", "False"), tokens=1)
    assert np.exp(verdict.log_p) == pytest.approx([0.5, 0.02])
    assert (verdict.bounded, verdict.source) == (1, "tokens")


def test_where_no_verdict_is_shown_the_text_decides_and_no_verdict_is_even():
    chosen = read_verdict(said("It is false.", ("It", 0.9)), ("True", "False"), tokens=1)
    assert np.exp(chosen.log_p) == pytest.approx([EPSILON, 1.0])
    assert (chosen.bounded, chosen.source) == (0, "text")
    neither = read_verdict(said("Who knows?"), ("True", "False"), tokens=1)
    assert np.exp(neither.log_p) == pytest.approx([0.5, 0.5])
    assert neither.source == "nothing"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("True", "True"),
        ("false.", "False"),
        ("**False**, since 2 is not 3.", "False"),
        ("The claim is true.", "True"),
        ("True: it is not false.", "True"),
        ("It is not true but false.", None),
        ("True or False", None),
        ("True because it says so", "True"),
        ("It is untrue.", None),
        ("Trueish", None),
        ("", None),
        ("I cannot say.", None),
    ],
)
def test_verdicts_are_read_from_texts(text, word):
    place = parse(text, ("True", "False"))
    assert (None if place is None else ("True", "False")[place]) == word


def test_space_and_markup_before_a_verdict_do_not_count():
    def answer(text, *places):
        tops = [{"token": top[0][0], "top_logprobs": list(map(entry, top))} for top in places]
        choice = {"message": {"content": text}, "logprobs": {"content": tops}}
        return json.dumps({"choices": [choice], "usage": {"total_tokens": 7}}).encode()

    read = read_chat(answer("\n**True", [("\n", 0.9)], [("**", 0.8)], [("True", 0.7)]), "s")
    assert (read.text, read.tokens) == ("\n**True", 7)
    assert read.shown == {"True": pytest.approx(math.log(0.7))}
    # Of tokens that read alike the likeliest stays.
    twice = read_chat(answer("a", [("a", 0.7), ("a", 0.1)]), "s")
    assert twice.shown == {"a": pytest.approx(math.log(0.7))}
    with pytest.raises(DamagedError):
        read_chat(b'{"choices": []}', "s")


def test_answers_without_log_probabilities_are_read_and_counted():
    texts = {0: "True.", 1: "I think it is false", 2: "Hard to say", 3: "true or false"}

    def says(messages):
        return texts[int(messages[-1]["content"].split("Claim: ")[1][0])], []

    with serve(ChatStub([], says=says, log_probs=False)) as url:
        scorer = connect(url)
        scores = zero_shot_scores(scorer, claims(4), FORM)
    most = math.log(1 + EPSILON) - math.log(2 * EPSILON)
    np.testing.assert_allclose(scores, [most, -most, 0, 0], rtol=1e-5)
    assert (scorer.bounded, scorer.parsed, scorer.unparsed) == (0, 2, 2)
    assert scorer.name == "stub/state-1/chat/text"


@pytest.mark.parametrize(
    ("options", "style"),
    [
        ({"most": 20}, {"top_logprobs": 20, "max_tokens": ANSWER_TOKENS}),
        ({"most": 5}, {"top_logprobs": 5, "max_tokens": ANSWER_TOKENS}),
        ({"refused": ("logprobs",)}, {"max_tokens": ANSWER_TOKENS}),
        (
            {"refused": ("logprobs", "max_tokens", "temperature")},
            {"max_completion_tokens": ANSWER_TOKENS},
        ),
    ],
)
def test_a_service_is_asked_in_the_best_way_that_it_takes(options, style):
    with serve(ChatStub([], **options)) as url:
        scorer = connect(url)
        assert style.items() <= scorer.style.items()
        assert ("logprobs" in scorer.style) == ("top_logprobs" in style)
        scores = zero_shot_scores(scorer, claims(2), FORM)
    assert (scores > 0).all() == ("logprobs" not in scorer.style)


# --- limits and failures -------------------------------------------------------------------------


def test_a_server_without_chat_is_one_line():
    with serve(Stub([])) as url, pytest.raises(ValueError, match="needs a chat completions API"):
        connect(url)


@pytest.mark.parametrize(("usage", "most"), [(True, 130), (False, 300)])
def test_nothing_is_sent_beyond_the_limit_and_a_higher_one_goes_on(tmp_path, usage, most):
    server, journal = ChatStub([], usage=usage), tmp_path / "answers.jsonl"
    with serve(server) as url:
        whole = connect(url)
        expected = whole.score(prompts(6), WORDS)
        server.asked.clear()
        scorer = connect(url, journal=journal, max_tokens_total=most, concurrency=1)
        with pytest.raises(SpentError, match=f"of --max-tokens-total {most} are spent"):
            scorer.score(prompts(6), WORDS)
        first = len(server.asked)
        assert 0 < first < 6
        assert scorer.limit.spent <= most
        again = connect(url, journal=journal, max_tokens_total=5000)
        np.testing.assert_array_equal(again.score(prompts(6), WORDS), expected)
    assert again.limit.spent == whole.limit.spent
    assert len(server.asked) == 6


def test_requests_that_fail_are_repeated_and_counted():
    with serve(ChatStub([])) as straight:
        expected = connect(straight).score(prompts(9), WORDS)
        proxy = Proxy(straight, every=4, faults=("500", "429", "cut"))
        with spoiling(proxy) as url:
            scorer = connect(url, concurrency=1)
            before = sum(proxy.spoiled.values())
            scores = scorer.score(prompts(9), WORDS)
            assert scorer.retried == sum(proxy.spoiled.values()) - before > 0
    np.testing.assert_array_equal(scores, expected)


def test_as_many_requests_are_under_way_as_the_command_says(tmp_path):
    words = ["--requests-at-once", "3", "--dataset", "pocket/facts", "--tokenizer", str(POCKET)]
    with serve(ChatStub(texts())) as url, script("icm") as module:
        given = [*words, "--scorer", url, "--chat-scorer", url, "--methods", "zero_shot_chat"]
        asked = tyro.cli(module.Settings, args=given).asked
        assert asked.problems() == asked.idle() == []
        assert asked.chat(tmp_path).scorer().concurrency == 3
        assert asked.model(tmp_path).scorer().concurrency == 3
        alone = tyro.cli(module.Settings, args=[*words[:2], "--chat-scorer", url]).asked
        assert alone.idle() == []
        neither = tyro.cli(module.Settings, args=words[:2]).asked
        assert neither.idle() == ["--requests-at-once does nothing without --scorer URL"]


# --- the study -----------------------------------------------------------------------------------


def test_icm_has_the_chat_baseline_and_tells_what_was_not_read(random_model, tmp_path):
    """Of four answers one is neither; the rows, the last lines and the figure know of it."""

    def says(messages):
        number = sum(map(ord, messages[-1]["content"])) % 4
        return ("True", "False", "So so", "It is true")[number], []

    server = ChatStub([], says=says, log_probs=False)
    words = (
        *("--dataset", "pocket/pairs", "--n", "4", "--tests", "8", "--seeds", "2", "--boot", "9"),
        *("--initial", "2", "--draws", "4"),
        *("--methods", "zero_shot", "zero_shot_chat", "golden_many_shot", "icm"),
    )
    paths = {"stores": tmp_path / "stores", "out": tmp_path / "out"}
    with serve(server) as url, script("icm") as icm:
        words = (*words, "--chat-scorer", url, "--chat-served", "stub")
        done = run(icm, *words, model=random_model, **paths)
    asked = [messages[-1]["content"] for messages in server.asked]
    assert len(asked) == len(set(asked)) == 8  # once for both seeds
    neither = sum(sum(map(ord, content)) % 4 == 2 for content in asked)
    rows = done.rows.set_index("method")
    assert rows.loc["zero_shot_chat", "unparsed"].tolist() == [neither, neither]
    assert rows.loc["zero_shot_chat", "parsed"].tolist() == [8 - neither] * 2
    assert rows.loc["icm", "unparsed"].isna().all()
    told = f"{2 * (8 - neither)} were read from their text, which ranks them no further, and "
    assert f"{told}{2 * neither} gave no verdict" in done.printed
    assert "sent to the chat server: 8 requests" in done.printed
    told = re.search(
        r"before the first chat request: at most 8 requests and ([\d,]+) tok", done.printed
    )
    assert told
    assert (
        int(told[1].replace(",", ""))
        >= sum(len(content.encode()) for content in asked) + 8 * ANSWER_TOKENS
    )
    assert done.printed.index(told[0]) < done.printed.index("zero_shot_chat: accuracy")
    assert "icm-bars.svg" in Record.read(done.out).figures
