"""Verdicts of a model behind the OpenAI chat API: the baseline of a model that was tuned for chat.

Prompts are sent as messages (`jelicit.data.turns`); the server puts its own chat template around
them, and nobody here needs a tokenizer. The last message asks for one word, since a chat model
would explain itself otherwise. Where the server shows log-probabilities and a verdict is among the
likeliest first tokens, they are the score, as in `extract.server_scorer`; else the verdict is read
from the answer's text; an answer that says neither, or both, scores 0 and is counted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from tqdm import tqdm

from extract.server_answers import DamagedError, checked_log_probs, from_json, whole
from extract.server_client import Raw, RefusedError, Server
from extract.server_limits import TokenLimit
from extract.server_requests import answers
from extract.verdicts import EPSILON, as_word, check_prompts, distinct
from jelicit.data.turns import turns
from jelicit.disk import Journal

Message = dict[str, str]

ANSWER_TOKENS = 16
"""Tokens of an answer: enough for a verdict behind a few words, or in bold."""

STYLES: tuple[Mapping[str, Any], ...] = (
    {"max_tokens": ANSWER_TOKENS, "temperature": 0.0, "logprobs": True, "top_logprobs": 20},
    {"max_tokens": ANSWER_TOKENS, "temperature": 0.0, "logprobs": True, "top_logprobs": 5},
    {"max_tokens": ANSWER_TOKENS, "temperature": 0.0},
    {"max_completion_tokens": ANSWER_TOKENS},
)
"""Ways to ask, best first: services refuse what they do not know. The first that a server takes is
kept."""

TRIAL = "Is the sky blue?"
"""What a server is asked at start."""

_MARKUP = " \t\r\n*_`\"'#>.:"


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer of the chat API.

    Attributes:
        text: What the model says.
        shown: Log-probabilities of the likeliest tokens, by their text, at the first place of the
            answer that has a letter; {} where the server shows none.
        tokens: Tokens of the request and its answer; None where the server does not say.
        fingerprint: What the server calls the state that it is in; "" if it does not say.
    """

    text: str
    shown: Mapping[str, float]
    tokens: int | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an answer is worth.

    Attributes:
        log_p: Log-probability of each verdict word.
        bounded: How many of them are bounds.
        source: Where they are from: "tokens" shown, the "text", or "nothing": it was not to be
            read.
        tokens: What the request cost.
    """

    log_p: tuple[float, ...]
    bounded: int
    source: str
    tokens: int


class ChatServer(Server):
    """A server that is asked through chat completions."""

    def find_style(self) -> tuple[Mapping[str, Any], str]:
        """The best way to ask that the server takes, and what it calls its state.

        Raises:
            ValueError: If it takes none, or refuses the key.
            ConnectionError: If it fails, and fails again when asked again.
        """
        refused: RefusedError | None = None
        messages = [{"role": "user", "content": f"{TRIAL} {_instruction(('Yes', 'No'))}"}]
        for style in STYLES:
            try:
                said, _ = self.say(messages, style, Event())
            except RefusedError as error:
                refused = error
                if error.status in (404, 405, 501):
                    break
                continue
            if said.shown or "logprobs" not in style:
                return style, said.fingerprint
        raise ValueError(f"{refused}; --chat-scorer needs a chat completions API") from refused

    def say(
        self, messages: Sequence[Message], style: Mapping[str, Any], stop: Event
    ) -> tuple[Said, int]:
        """The answer to a conversation, and how often the request had to be repeated.

        Args:
            messages: The conversation.
            style: One of `STYLES`.
            stop: When set, a request that failed is not repeated any more.

        Raises:
            ValueError: If the server refuses the request.
            ConnectionError: If it fails, and fails again when asked again.
        """

        def send() -> Raw:
            return self._client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=list(messages),  # type: ignore[arg-type]
                **style,
            )

        def read(content: bytes) -> Said:
            return read_chat(content, self)

        return self._patiently(send, read, stop, retries=self._retries)


class ChatScorer:
    """Scores verdicts after prompts with a chat model behind the OpenAI chat API.

    Attributes:
        server: The server and its model.
        style: How it is asked: one of `STYLES`.
        requests: Requests that were answered so far.
        retried: Requests that failed and were repeated so far.
        bounded: Verdicts so far whose score is a bound, since the other one was shown alone.
        parsed: Answers so far that were read from their text.
        unparsed: Answers so far that said neither verdict, or both: they score 0.
        limit: Tokens that may be sent and made, and how many were.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 0.5,
        patience: float = 600.0,
        journal: str | os.PathLike[str] | None = None,
        max_tokens_total: int | None = None,
        progress: bool = False,
    ) -> None:
        """Connects, and tries the server out with one to four short requests.

        An API key is taken from the environment: JELICIT_API_KEY, else OPENAI_API_KEY.

        Args:
            url: Address of the API; it mostly ends in /v1.
            model: Name under which the model is served; None = the only one that is.
            concurrency: Most requests under way.
            timeout: Seconds that the server may be silent.
            retries: Times that a request is repeated when it fails in a way that may pass.
            backoff: Seconds before the first repetition, doubled for each further one.
            patience: Seconds after a request was first sent from which on it is not repeated.
            journal: File of what was answered: nothing in it is asked again.
            max_tokens_total: Most tokens to be sent and made, over all runs with this journal. A
                request counts with its bytes until the server says its tokens, which are fewer.
            progress: Show a progress bar.

        Raises:
            ValueError: If the server does not serve the model, has no chat API or refuses the key;
                or if an option or the journal makes no sense.
            ConnectionError: If there is no answer.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; allowed: 1 or more")
        spent: list[int] = []

        def read(fields: Mapping[str, Any]) -> Verdict:
            kept = _kept(fields)
            spent.append(kept.tokens)
            return kept

        self._journal = Journal(journal, keys=("key",), what="answer of a chat model", read=read)
        self._answers: dict[str, Verdict] = {}
        self.limit = TokenLimit(max_tokens_total, spent=sum(spent))
        self.concurrency, self.progress = concurrency, progress
        self.server = ChatServer(
            url, model=model, timeout=timeout, retries=retries, backoff=backoff, patience=patience
        )
        self.style, self._fingerprint = self.server.find_style()
        self.requests = self.retried = self.bounded = self.parsed = self.unparsed = 0

    @property
    def name(self) -> str:
        """Pins what the scores depend on, as far as the server says: model, its state, settings."""
        shown = f"top{self.style['top_logprobs']}" if "logprobs" in self.style else "text"
        parts = (self.server.model, self._fingerprint, "chat", shown)
        return "/".join(part for part in parts if part)

    def costs(
        self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]
    ) -> tuple[int, np.ndarray]:
        """One request for a prompt, and the most tokens [n] of each and its answer: its bytes."""
        prompts, words = check_prompts(prompts, verdicts)
        words = tuple(word.strip() for word in words)
        return 1, np.array([_most_tokens(messages_of(prompt, words)) for prompt in prompts])

    def sent_for(self, requests: int, tokens: int, *, longest: int) -> tuple[int, int]:
        """Requests and tokens that these take: no more than they are."""
        return requests, tokens

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Log-probabilities [n, k], float32, of k verdicts after n prompts.

        Args:
            prompts: Each a tuple of text segments, which end just before the verdict.
            verdicts: Words; space around them does not count.

        Raises:
            ValueError: If there is no verdict, a prompt is no tuple of texts, two verdicts are the
                same, or the server refuses a request.
            ConnectionError: If a request failed, and failed again when repeated. What was answered
                is in the journal.
            SpentError: A ValueError, if a request could exceed `max_tokens_total`; likewise.
        """
        prompts, words = check_prompts(prompts, verdicts)
        if not prompts:
            return np.zeros((0, len(words)), np.float32)
        words = tuple(word.strip() for word in words)
        unique, _, rows = distinct(prompts)
        asked = [messages_of(prompt, words) for prompt in unique]
        keys = [self._key(messages, words) for messages in asked]
        self._ask({key: m for key, m in zip(keys, asked, strict=True) if not self._has(key)}, words)
        found = [self._answers[key] for key in keys]
        self.bounded += sum(verdict.bounded for verdict in found)
        self.parsed += sum(verdict.source == "text" for verdict in found)
        self.unparsed += sum(verdict.source == "nothing" for verdict in found)
        log_p = np.array([verdict.log_p for verdict in found])
        return np.log(EPSILON + np.exp(log_p))[rows].astype(np.float32)

    def _has(self, key: str) -> bool:
        known = self._journal.get(key)
        if known is not None:
            self._answers[key] = known
        return key in self._answers

    def _key(self, messages: Sequence[Message], words: Sequence[str]) -> str:
        content = json.dumps([self.name, ANSWER_TOKENS, list(messages), list(words)])
        return hashlib.sha256(content.encode()).hexdigest()

    def _ask(self, asked: Mapping[str, Sequence[Message]], words: Sequence[str]) -> None:
        """Asks about all of them at once, and keeps the answers."""
        keys, messages = list(asked), list(asked.values())

        def send(place: int, stop: Event) -> tuple[Said, int, int]:
            most = _most_tokens(messages[place])
            self.limit.take(most)
            said, repeated = self.server.say(messages[place], self.style, stop)
            tokens = most if said.tokens is None else said.tokens
            self.limit.settle(taken=most, used=tokens)
            return said, repeated, tokens

        none = [None] * len(keys)  # waits for another one
        with tqdm(total=len(keys), unit="text", disable=not self.progress, leave=False) as bar:
            for place, (said, repeated, tokens) in answers(
                none, send, concurrency=self.concurrency
            ):
                verdict = read_verdict(said, words, tokens=tokens)
                self.requests += 1
                self.retried += repeated
                self._answers[keys[place]] = verdict
                self._journal.put(keys[place], text=said.text, **vars(verdict))
                bar.update()


def _most_tokens(messages: Sequence[Message]) -> int:
    """Of a request and its answer: nobody here knows the server's tokens, but they have bytes."""
    return sum(len(one["content"].encode()) for one in messages) + ANSWER_TOKENS


def messages_of(prompt: Sequence[str], words: Sequence[str]) -> list[Message]:
    """A prompt as messages, of which the last asks for one of the verdict words."""
    *before, last = turns(prompt)
    asked = last._replace(content=f"{last.content}\n\n{_instruction(words)}")
    return [turn._asdict() for turn in (*before, asked)]


def _instruction(words: Sequence[str]) -> str:
    return f"Answer with one word: {', '.join(words[:-1])} or {words[-1]}."


# --- answers -------------------------------------------------------------------------------------


def read_chat(content: bytes, server: object) -> Said:
    """An answer from the body of a chat completion.

    Args:
        content: The body.
        server: Who sent it, for messages.

    Raises:
        DamagedError: If it is none; the next one may be.
        ValueError: If it says something that it would say again.
    """
    body = from_json(content, server)
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        places = (choice.get("logprobs") or {}).get("content") or []
        text = str(choice["message"].get("content") or "")
        shown = _first_shown(places)
        fingerprint = str(body.get("system_fingerprint") or "")
        total = usage.get("total_tokens")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DamagedError("its answer is no chat completion") from error
    log_probs = checked_log_probs(shown, server)
    return Said(
        text=text,
        shown={str(token): value for token, value in log_probs.items()},
        tokens=whole(total, "usage.total_tokens", server),
        fingerprint=fingerprint,
    )


def _first_shown(places: Sequence[Mapping[str, Any]]) -> dict[int | str, Any]:
    """The tokens shown at the first place of an answer that is more than space and markup."""
    for place in places:
        if place["token"].strip(_MARKUP):
            # In falling order: of tokens that read alike the likeliest comes first.
            return {one["token"]: one["logprob"] for one in reversed(place["top_logprobs"])}
    return {}


def read_verdict(said: Said, words: Sequence[str], *, tokens: int) -> Verdict:
    """What an answer says of the verdict words.

    Args:
        said: The answer.
        words: The verdicts, without space around them.
        tokens: What the request cost.
    """
    shares = [
        sum(math.exp(p) for token, p in said.shown.items() if as_word(token) == as_word(word))
        for word in words
    ]
    if any(shares):
        left = max(1.0 - sum(math.exp(p) for p in said.shown.values()), 0.0)
        bound = min(math.exp(min(said.shown.values())), left)
        log_p = [math.log(max(share or bound, EPSILON)) for share in shares]
        return Verdict(log_p=tuple(log_p), bounded=shares.count(0), source="tokens", tokens=tokens)
    chosen = parse(said.text, words)
    if chosen is None:
        even = -math.log(len(words))
        return Verdict(log_p=(even,) * len(words), bounded=0, source="nothing", tokens=tokens)
    sure = tuple(0.0 if place == chosen else math.log(EPSILON) for place in range(len(words)))
    return Verdict(log_p=sure, bounded=0, source="text", tokens=tokens)


def parse(text: str, words: Sequence[str]) -> int | None:
    """Which of the words an answer gives: the one that it begins with, else the only one in it.

    Case and markup do not count, parts of words do not either ("untrue" is not "true").

    Args:
        text: The answer.
        words: The verdicts.

    Returns:
        The word's place; None if there is none, or several.
    """
    found = [re.search(rf"(?i)(?<!\w){re.escape(word)}(?!\w)", text) for word in words]
    for candidates in ([_begins(one, text) for one in found], list(map(bool, found))):
        if sum(candidates) == 1:
            return candidates.index(True)
    return None


def _begins(word: re.Match[str] | None, text: str) -> bool:
    """Whether a text begins with a word that stands for itself: "True." but not "True or false"."""
    if word is None or text[: word.start()].strip(_MARKUP):
        return False
    return not text[word.end() :].lstrip(" *_`\"'")[:1].isalnum()


def _kept(fields: Mapping[str, Any]) -> Verdict:
    """A verdict from a line of the journal."""
    return Verdict(
        log_p=tuple(map(float, fields["log_p"])),
        bounded=int(fields["bounded"]),
        source=str(fields["source"]),
        tokens=int(fields["tokens"]),
    )
