"""Log-probabilities of verdicts after many prompts, from a model server (vLLM) over HTTP.

The same token ids as in process (`extract.local_scorer`), and the same scores. What prompts begin
with alike is sent once and alone before the prompts themselves (`extract.prefixes`), so that a
server with a prefix cache reads it once; everything else is asked at the same time.

vLLM 0.32 (its V1 model runner) shows a request for the *likeliest* tokens nothing but the first of
them where another request of the same batch names *chosen* tokens, as this scorer does. Here such
an answer is noticed and asked for again; another program that asks the same server at the same time
for the likeliest tokens may not notice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple, get_args

import numpy as np
from tqdm import tqdm

from extract.models import trained_length
from extract.prefixes import Node, in_tree_order
from extract.server_answers import Answer
from extract.server_client import Cache, Server
from extract.server_limits import TokenLimit
from extract.server_requests import answers
from extract.server_tokenizer import tokenizer_for
from extract.token_trees import Tokens
from extract.verdicts import (
    EPSILON,
    Match,
    as_word,
    bos,
    check_joints,
    check_prompts,
    distinct,
    encode,
    lengths_read,
    reading_as,
    readings,
)
from jelicit.data.long_prompts import LongPromptError
from jelicit.disk import Journal

PROBE = "The capital of France is"
"""What a server is asked at start, to see what it understands."""

SLACK = 1e-6
"""Added to what the shown probabilities leave of 1: they are rounded to float32."""


class ServerScorer:
    """Scores verdicts after prompts with a language model behind the OpenAI completions API.

    A verdict whose tokens the server does not show (a server that knows no `logprob_token_ids`
    shows the `top_logprobs` likeliest tokens) gets the most that its probability can be: each of
    its m tokens is no likelier than the least likely token shown, and all of them together no
    likelier than what the shown ones leave of 1. Such scores are counted in `bounded`.

    Attributes:
        server: The server and its model.
        able: What the server understands.
        match: What counts as a verdict, "words" or "tokens"; see `extract.local_scorer`. Where a
            server does not name tokens by ids, tokens that read alike count as one.
        tokenizer: Hugging Face tokenizer of the model.
        requests: Completions that were answered so far.
        retried: Requests that failed and were repeated so far.
        prompt_tokens: Tokens of those prompts.
        cached_tokens: Those of them that the server had in its prefix cache (vLLM says so if it
            was started with `--enable-prompt-tokens-details`).
        limit: Tokens that may be sent, and how many were; those of earlier runs with the same
            journal count, the few of the requests that try the server out at start do not.
        bounded: Verdicts of different prompts so far whose score is a bound.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        tokenizer: Any = None,
        match: Match = "words",
        top_logprobs: int | None = None,
        concurrency: int = 32,
        worth_a_request: int = 512,
        cache: Cache = "shared",
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 0.5,
        patience: float = 600.0,
        journal: str | os.PathLike[str] | None = None,
        max_tokens_total: int | None = None,
        progress: bool = False,
    ) -> None:
        """Connects, and tries the server out.

        An API key is taken from the environment: JELICIT_API_KEY, else OPENAI_API_KEY.

        Args:
            url: Address of the API; for vLLM, it ends in /v1.
            model: Name under which the model is served; None = the only one that is.
            tokenizer: A Hugging Face tokenizer, or a hub id, folder or GGUF file that has it; None
                = that of the model as the server names it.
            match: See above.
            top_logprobs: Tokens to be shown by servers that cannot show chosen ones; None = 20,
                which vLLM allows unless it was started with more (`--max-logprobs`), 5 where 20 are
                refused (OpenAI allows 5), and 1,000 of llama.cpp, which shows as many as it is
                asked for.
            concurrency: Most requests under way; of llama.cpp no more than it has slots, since
                others would wait there in vain until their time is over.
            worth_a_request: Tokens that sending a shared beginning by itself must spare. (vLLM 0.32
                even shares what requests of one batch begin with, so little is lost by a high
                number: of 64 prompts with 63 examples each, the pocket model read 11,680 tokens
                with nothing sent alone, 11,707 at 512 and 12,528 at 128; 102,528 are sent.)
            cache: "own" keeps apart from what others made the server read, "none" makes it read
                every prompt whole (for measuring; vLLM).
            timeout: Seconds that the server may be silent.
            retries: Times that a request is repeated after 429, 5xx, timeouts, cut connections and
                answers that are none.
            backoff: Seconds before the first repetition, doubled for each further one.
            patience: Seconds after a request was first sent from which on it is not repeated.
            journal: File of what was answered. A run that was killed asks only for the rest.
            max_tokens_total: Most tokens to be sent, over all runs with this journal; a request
                that would exceed it is not sent, and `score` raises a ValueError.
            progress: Show a progress bar.

        Raises:
            ValueError: If the server does not serve the model, gives no log-probabilities or
                refuses the key; if the tokenizer is missing or another than the server's; or if
                an option or the journal makes no sense.
            ConnectionError: If there is no answer.
        """
        _check_options(match, cache, concurrency)
        self._journal, spent = _journal(journal)
        self.limit = TokenLimit(max_tokens_total, spent=spent)
        self.server = Server(
            url,
            model=model,
            top_logprobs=top_logprobs,
            cache=cache,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            patience=patience,
        )
        self.tokenizer = tokenizer_for(tokenizer, self.server)
        self.match: Match = match
        self.concurrency = min(concurrency, self.server.slots or concurrency)
        # Without a cache nothing is gained by sending a beginning first.
        self.worth_a_request = sys.maxsize if cache == "none" else worth_a_request
        self.progress = progress
        self._vocabulary = _Vocabulary.of(self.tokenizer, match)
        probe = (*bos(self.tokenizer), *self.tokenizer(PROBE, add_special_tokens=False).input_ids)
        self.able = self.server.probe(probe, vocabulary=len(self.tokenizer))
        self._check_tokenizer(probe)
        self.requests = self.retried = self.prompt_tokens = self.cached_tokens = self.bounded = 0

    @property
    def name(self) -> str:
        """Pins what the scores depend on, as far as the server says: model, its state, settings."""
        shown = "exact" if self.able.exact else f"top{self.server.top_logprobs}"
        vocabulary = self._vocabulary.digest
        parts = (self.server.model, self.able.fingerprint, vocabulary, self.match, shown)
        return "/".join(part for part in parts if part)

    @property
    def context(self) -> int | None:
        """Most tokens of a prompt, or None where the server does not say."""
        return self.server.context

    @property
    def trained_length(self) -> int | None:
        """Longest text the model was trained on, where its config here or the server says so."""
        here = trained_length(self.server.root) or trained_length(self.server.model)
        return here or self.server.trained_length

    @property
    def tokens_read(self) -> int:
        """Tokens that the server has read so far for this scorer; those in its cache it did not."""
        return self.prompt_tokens - self.cached_tokens

    def lengths(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Tokens [n] that `score` would send of each prompt, with its longest verdict's share."""
        prompts, words = check_prompts(prompts, verdicts)
        encoded = encode(self.tokenizer, prompts, words)
        return np.array(lengths_read(encoded, self.match), np.int64)

    def costs(
        self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]
    ) -> tuple[int, np.ndarray]:
        """Requests of a prompt, and tokens [n] that those of each take together, at most.

        Every request makes one token. Words are read off the token after the prompt; tokens are
        asked for one by one.
        """
        prompts, words = check_prompts(prompts, verdicts)
        encoded = encode(self.tokenizer, prompts, words)
        each = 1
        if self.match == "tokens":
            each = max((sum(map(len, item.verdicts)) for item in encoded), default=1)
        return each, each * (np.array(lengths_read(encoded, self.match), np.int64) + 1)

    def sent_for(self, requests: int, tokens: int, *, longest: int) -> tuple[int, int]:
        """Requests and tokens that these take at most, with beginnings that are sent alone.

        Each of those spares `worth_a_request` tokens, and has two requests or more below it.

        Args:
            requests: That ask for verdicts.
            tokens: Of all of them.
            longest: Of the longest.
        """
        alone = min(requests, tokens // self.worth_a_request)
        return requests + alone, tokens + min(tokens, alone * longest)

    def score(self, prompts: Sequence[tuple[str, ...]], verdicts: Sequence[str]) -> np.ndarray:
        """Log-probabilities [n, k], float32, of k verdicts after n prompts.

        Args:
            prompts: Each a tuple of text segments, which end just before the verdict. The segments
                are tokenised one by one (see `extract.verdicts`). Any order; equal prompts are
                asked about once.
            verdicts: Words with their own leading space, for example (" True", " False").

        Raises:
            ValueError: If there is no verdict, a prompt is no tuple of texts or does not fit the
                server's context (the message says which), two verdicts are the same, no token of
                the vocabulary reads as a verdict (matching words), verdicts do not follow their
                prompts as a text would (matching tokens), or the server refuses a request.
            ConnectionError: If a request failed, and failed again when repeated. What was answered
                is in the journal.
            SpentError: A ValueError, if a request would exceed `max_tokens_total`; likewise.
        """
        prompts, words = check_prompts(prompts, verdicts)
        if not prompts:
            return np.zeros((0, len(words)), np.float32)
        unique, places, rows = distinct(prompts)
        asked = self._asked(unique, words, places)
        found = self._found(asked)
        sums = np.zeros((len(unique), len(words)))
        bounded = np.zeros(sums.shape, bool)
        for tokens, targets in asked.items():
            for row, column, wanted in targets:
                log_p, is_bound = found[tokens][wanted]
                sums[row, column] += log_p
                bounded[row, column] |= is_bound
        self.bounded += int(bounded.sum())
        if self.match == "words":
            sums = np.log(EPSILON + np.exp(sums))
        return sums[rows].astype(np.float32)

    # --- what is asked ---------------------------------------------------------------------------

    def _asked(
        self, prompts: Sequence[tuple[str, ...]], words: tuple[str, ...], numbers: Sequence[int]
    ) -> dict[Tokens, list[_Target]]:
        """By the sequence to send, what is to be read off its next token."""
        asked: dict[Tokens, list[_Target]] = {}
        model = self.server.model
        encoded = encode(self.tokenizer, prompts, words)
        if self.match == "tokens":  # words are whatever token comes next, however it is joined
            check_joints(encoded, words)
        for row, item in enumerate(encoded):
            if self.match == "words":
                steps = [
                    (item.prompt, column, reading_as(self._vocabulary.words, word, model=model))
                    for column, word in enumerate(words)
                ]
            else:
                if len(set(item.verdicts)) < len(words):
                    raise ValueError(f"of the verdicts {words}, two have the same tokens")
                steps = [
                    (item.prompt + verdict[:step], column, (token,))
                    for column, verdict in enumerate(item.verdicts)
                    for step, token in enumerate(verdict)
                ]
            for tokens, column, wanted in steps:
                self._check_length(numbers[row], len(tokens))
                asked.setdefault(tokens, []).append(_Target(row, column, wanted))
        return asked

    def _check_length(self, number: int, length: int) -> None:
        limit = self.context
        if limit is not None and length > limit:
            raise LongPromptError(
                number,
                f"has {length} tokens (with its verdict, where that is read), but "
                f"{self.server.model} at {self.server.url} reads at most {limit}; use fewer or "
                "shorter examples, or serve it with a longer context (vLLM: --max-model-len)",
            )

    # --- asking ----------------------------------------------------------------------------------

    def _found(self, asked: Mapping[Tokens, Sequence[_Target]]) -> dict[Tokens, _Found]:
        """Log-probabilities of what is asked, from the journal or the server."""
        found: dict[Tokens, _Found] = {}
        left: dict[Tokens, list[Tokens]] = {}
        for tokens, targets in asked.items():
            wanted = sorted({target.wanted for target in targets})
            known = self._journal.get(self._key(tokens, wanted))
            if known is None:
                left[tokens] = wanted
            else:
                found[tokens] = dict(zip(wanted, known, strict=True))
        nodes = in_tree_order(list(left), worth=self.worth_a_request)

        def send(place: int, stop: Event) -> Answer:
            node = nodes[place]
            self.limit.take(len(node.tokens) + 1)
            if not node.asked:
                return self.server.warm(node.tokens, stop)
            all_wanted = sorted({token for group in left[node.tokens] for token in group})
            return self.server.ask(node.tokens, all_wanted, self.able, stop)

        with tqdm(total=len(left), unit="text", disable=not self.progress, leave=False) as bar:
            after = [node.after for node in nodes]
            for place, answer in answers(after, send, concurrency=self.concurrency):
                node = nodes[place]
                self._count(node, answer)
                if node.asked:
                    wanted = left[node.tokens]
                    values = [self._read_off(answer.log_probs, group) for group in wanted]
                    log_p, bound = zip(*values, strict=True)
                    self._keep(node, wanted, log_p, bound)
                    found[node.tokens] = dict(zip(wanted, values, strict=True))
                    bar.update()
                else:
                    self._keep(node, [], [], [])
        return found

    def _keep(
        self, node: Node, wanted: Sequence[Tokens], log_p: Sequence[float], bound: Sequence[bool]
    ) -> None:
        """Writes an answer down, and what it cost."""
        key, tokens = self._key(node.tokens, wanted), len(node.tokens) + 1
        self._journal.put(key, log_p=log_p, bound=bound, tokens=tokens)

    def _key(self, tokens: Tokens, wanted: Sequence[Tokens]) -> str:
        return hashlib.sha256(json.dumps([self.name, tokens, wanted]).encode()).hexdigest()

    def _count(self, node: Node, answer: Answer) -> None:
        self.requests += 1
        self.retried += answer.repeated
        self.prompt_tokens += len(node.tokens)
        self.cached_tokens += answer.cached_tokens

    def _read_off(self, shown: Mapping[int | str, float], wanted: Tokens) -> tuple[float, bool]:
        """Log-probability of the wanted tokens together, and whether it is only a bound."""
        if self.able.token_ids:
            parts = [shown[token] for token in wanted if token in shown]
        else:
            read = as_word if self.match == "words" else str
            texts = {read(self._vocabulary.texts[token]) for token in wanted}
            parts = [value for text, value in shown.items() if read(str(text)) in texts]
        if parts:
            return _log_sum(parts), False
        left = max(-math.expm1(_log_sum(list(shown.values()))), 0.0) + SLACK
        return min(math.log(len(wanted)) + min(shown.values()), math.log(left)), True

    # --- at start --------------------------------------------------------------------------------

    def _check_tokenizer(self, probe: Tokens) -> None:
        """Refuses a tokenizer whose tokens read otherwise than the server's.

        Of llama.cpp space around them does not count: it keeps one that some tokenizers leave out.
        """
        texts = self._vocabulary.texts
        if self.able.token_ids:
            ours = {text for token, text in enumerate(texts) if token in self.able.likeliest}
            theirs = self.server.texts(probe)
        else:
            ours, theirs = set(texts), {str(token) for token in self.able.likeliest}
        if self.server.is_llama_cpp:
            ours, theirs = ({text.strip() for text in read} for read in (ours, theirs))
        # Bytes that are no text alone are written in different ways, so not all need agree.
        if len(ours & theirs) < len(theirs) / 2:
            raise ValueError(
                f"{self.server} has another tokenizer: after the same token ids its likeliest "
                f"tokens read {sorted(theirs)[:5]}, in this tokenizer {sorted(ours)[:5]}; give "
                f"that of {self.server.root} (tokenizer=)"
            )


class _Vocabulary(NamedTuple):
    """How the tokens of a tokenizer read."""

    texts: list[str]
    """Of every token, alone."""
    words: dict[str, tuple[int, ...]]
    """Word -> the tokens that read as it; {} where verdicts are matched by their tokens."""
    digest: str
    """Of the texts: a part of the scorer's name."""

    @classmethod
    def of(cls, tokenizer: Any, match: Match) -> _Vocabulary:
        texts: list[str] = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        return cls(
            texts=texts,
            words=readings(tokenizer) if match == "words" else {},
            digest=hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8],
        )


class _Target(NamedTuple):
    """A verdict of a prompt, and tokens whose probability is part of its score."""

    row: int
    column: int
    wanted: Tokens


_Found = dict[Tokens, tuple[float, bool]]
"""By tokens wanted: their log-probability, and whether it is only a bound."""


def _check_options(match: str, cache: str, concurrency: int) -> None:
    """Refuses what makes no sense, before any server is asked."""
    if match not in get_args(Match):
        raise ValueError(f"match is {match!r}; allowed: words, tokens")
    if cache not in get_args(Cache):
        raise ValueError(f"cache is {cache!r}; allowed: shared, own, none")
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; allowed: 1 or more")


def _journal(path: str | os.PathLike[str] | None) -> tuple[Journal, int]:
    """The journal of answers, and the tokens of the requests in it; an old one says none."""
    tokens: list[int] = []

    def read(fields: Mapping[str, Any]) -> list[tuple[float, bool]]:
        tokens.append(int(fields.get("tokens", 0)))
        return _answered(fields)

    return Journal(path, keys=("key",), what="answer of a server", read=read), sum(tokens)


def _answered(fields: Mapping[str, Any]) -> list[tuple[float, bool]]:
    """Log-probabilities, and whether each is only a bound, from a line of the journal."""
    pairs = zip(fields["log_p"], fields["bound"], strict=True)
    return [(float(log_p), bool(bound)) for log_p, bound in pairs]


def _log_sum(values: Sequence[float]) -> float:
    """log(sum(exp(values)))."""
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))
