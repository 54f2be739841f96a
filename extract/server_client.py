"""A model server that speaks the OpenAI completions API (vLLM), checked at start, asked patiently.

Prompts are sent as token ids. Two extras of vLLM are used where a server understands them, which is
found out at start: `return_tokens_as_token_ids` (answers name tokens by their ids, so that two that
read alike stay apart) and `logprob_token_ids` (the log-probabilities of chosen tokens, however
unlikely they are; at most 128).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import openai

T = TypeVar("T")

Cache = Literal["shared", "own", "none"]

LONGEST_PAUSE = 30.0
"""Seconds between two attempts, at most; twice that where the server names a time itself."""

NEVER = -9998.0
"""vLLM writes -9999 for a log-probability of minus infinity: such a token was not really shown."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said about the token after a prompt.

    Attributes:
        log_probs: Log-probabilities by token: by its id, or by its text (see `Abilities`).
        prompt_tokens: Tokens of the prompt, as the server counts them; None if it does not say.
        cached_tokens: Those of them that it found in its prefix cache; 0 if it does not say.
        fingerprint: What the server calls the state that it is in; "" if it does not say.
        repeated: Times that the request had to be repeated.
    """

    log_probs: dict[int | str, float]
    prompt_tokens: int | None
    cached_tokens: int
    fingerprint: str
    repeated: int = 0


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a server understands beyond the plain API.

    Attributes:
        token_ids: It names tokens by their ids.
        exact: It gives the log-probabilities of the tokens that one asks for.
        likeliest: The tokens that it showed after the prompt of the trial, by id or text.
        fingerprint: What it calls the state that it is in: "vllm-0.32.0-4e1039cc"; "" if nothing.
    """

    token_ids: bool
    exact: bool
    likeliest: tuple[int | str, ...]
    fingerprint: str


class Server:
    """One model of one server.

    The key is that of the environment: JELICIT_API_KEY, else OPENAI_API_KEY, else none.

    Attributes:
        url: Address of the API.
        model: Name under which the model is served.
        root: Where the server loaded it from, if it says so; else `model`.
        context: Most tokens of a prompt; None if the server does not say.
        top_logprobs: Likeliest tokens to be shown, where the server cannot show chosen ones.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        top_logprobs: int = 20,
        cache: Cache = "shared",
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 0.5,
    ) -> None:
        """Finds the model.

        Args:
            url: Address of the API; it mostly ends in /v1.
            model: Name of the model; None = the only one that is served.
            top_logprobs: See above.
            cache: What of the server's prefix cache is used: "shared" all of it, "own" what this
                object put there, "none" nothing. The last two are for measuring; vLLM can
                (`cache_salt`).
            timeout: Seconds that the server may be silent.
            retries: Times that a request is repeated when it fails in a way that may pass.
            backoff: Seconds before the first repetition; doubled for each further one, up to
                `LONGEST_PAUSE`, and drawn from the upper half of that.

        Raises:
            ValueError: If the address is none, or the model is not served.
            ConnectionError: If there is no answer.
        """
        self.url = _checked_url(url)
        self.top_logprobs = top_logprobs
        self._cache: Cache = cache
        self._own = uuid4().hex
        self._retries, self._backoff = retries, backoff
        self._key = os.environ.get("JELICIT_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.OpenAI(
            base_url=self.url, api_key=self._key, timeout=timeout, max_retries=0
        )
        entry = self._find(model)
        self.model: str = entry["id"]
        self.root: str = entry.get("root") or self.model
        length = entry.get("max_model_len")
        # A request makes one token, and that must fit, too.
        self.context: int | None = None if length is None else length - 1

    def __str__(self) -> str:
        return f"the server at {self.url}"

    def probe(self, tokens: Sequence[int], *, vocabulary: int) -> Abilities:
        """Finds out what the server understands, and that it will do.

        Args:
            tokens: Any prompt.
            vocabulary: Number of tokens that the tokenizer knows.

        Raises:
            ValueError: If the server gives no log-probabilities, reads other tokens than it was
                sent, or refuses the request.
            ConnectionError: If it fails, and fails again when asked again.
        """
        try:
            shown = self._send(tokens, self._likeliest(token_ids=True))
        except ValueError:  # some servers refuse what they do not know
            shown = self._send(tokens, self._likeliest(token_ids=False))
        if not shown.log_probs:
            raise ValueError(
                f"{self} answers without log-probabilities (`transformers serve` does that), but "
                "scores are made of them; serve the model with vLLM: `vllm serve`, or `python -m "
                "extract serve` where there is no GPU"
            )
        token_ids = all(isinstance(token, int) for token in shown.log_probs)
        exact = False
        if token_ids:
            spread = range(0, vocabulary, max(vocabulary // 32, 1))
            unlikely = [token for token in spread if token not in shown.log_probs][:4]
            exact = set(unlikely) <= set(self._send(tokens, _only(unlikely)).log_probs)
        return Abilities(
            token_ids=token_ids,
            exact=exact,
            likeliest=tuple(shown.log_probs),
            fingerprint=shown.fingerprint,
        )

    def texts(self, tokens: Sequence[int]) -> set[str]:
        """The texts of the likeliest next tokens, as the server writes them."""
        return {
            str(token) for token in self._send(tokens, self._likeliest(token_ids=False)).log_probs
        }

    def ask(
        self, tokens: Sequence[int], wanted: Sequence[int], able: Abilities, stop: Event
    ) -> Answer:
        """Log-probabilities of the next token: those that are wanted, or the likeliest.

        Args:
            tokens: The prompt.
            wanted: Tokens that are to be shown, where the server is able to.
            able: What `probe` found.
            stop: When set, a request that failed is not repeated any more.

        Raises:
            ValueError: If the server refuses the request.
            ConnectionError: If it fails, and fails again when asked again.
        """
        if able.exact:
            return self._send(tokens, _only(wanted), needs=frozenset(wanted), stop=stop)
        # Texts may fall together, ids do not: as many as in the trial.
        least = len(able.likeliest) if able.token_ids else 1
        options = self._likeliest(token_ids=able.token_ids)
        return self._send(tokens, options, least=least, stop=stop)

    def warm(self, tokens: Sequence[int], stop: Event) -> Answer:
        """Lets the server read the beginning of prompts that will follow; raises as `ask`."""
        return self._send(tokens, {}, stop=stop)

    # --- requests --------------------------------------------------------------------------------

    def _likeliest(self, *, token_ids: bool) -> dict[str, Any]:
        extra = {"extra_body": {"return_tokens_as_token_ids": True}} if token_ids else {}
        return {"logprobs": self.top_logprobs, **extra}

    def _send(
        self,
        tokens: Sequence[int],
        options: Mapping[str, Any],
        *,
        needs: frozenset[int] = frozenset(),
        least: int = 0,
        stop: Event | None = None,
    ) -> Answer:
        """One completion of one token; `needs` and `least` say what its answer must show."""
        if self._cache != "shared":
            salt = self._own if self._cache == "own" else uuid4().hex
            extra = {**options.get("extra_body", {}), "cache_salt": salt}
            options = {**options, "extra_body": extra}

        def once() -> Answer:
            raw = self._client.completions.with_raw_response.create(
                model=self.model, prompt=list(tokens), max_tokens=1, temperature=0.0, **options
            )
            answer = _read(raw.content)
            if not needs <= answer.log_probs.keys() or len(answer.log_probs) < least:
                raise _DamagedError("log-probabilities are missing in its answer")
            return answer

        answer, repeated = self._patiently(once, stop or Event(), retries=self._retries)
        if answer.prompt_tokens not in (None, len(tokens)):
            raise ValueError(
                f"{self} counted {answer.prompt_tokens} tokens in a prompt of {len(tokens)} token "
                "ids: it changes prompts (adds a token of its own, perhaps), so that its scores "
                "would be those of others; serve the model with vLLM"
            )
        return replace(answer, repeated=repeated)

    def _find(self, model: str | None) -> dict[str, Any]:
        """What the server says about the model."""

        def once() -> dict[str, dict[str, Any]]:
            body = _json(self._client.models.with_raw_response.list().content)
            try:
                return {str(entry["id"]): entry for entry in body["data"]}
            except (KeyError, TypeError) as error:
                raise _DamagedError("it does not list its models") from error

        # Not patient: a wrong address should be named soon.
        served, _ = self._patiently(once, Event(), retries=min(2, self._retries))
        names = ", ".join(sorted(served)) or "no model"
        if model is not None and model not in served:
            raise ValueError(f"{self} serves {names}, not {model!r}; choose what it serves")
        if model is None and len(served) != 1:
            raise ValueError(f"{self} serves {names}; name one of them (model=)")
        return served[next(iter(served)) if model is None else model]

    # --- patience --------------------------------------------------------------------------------

    def _patiently(self, once: Callable[[], T], stop: Event, *, retries: int) -> tuple[T, int]:
        """What `once` returns, and how often it had to be repeated."""
        attempt = 0
        while True:
            asked_for = 0.0
            try:
                return once(), attempt
            except openai.APIStatusError as error:
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise self._refusal(error) from None
                reason, asked_for = f"status {error.status_code}", _retry_after(error)
            except openai.APITimeoutError:
                reason = "no answer within the time limit"
            except openai.APIConnectionError as error:
                reason = f"no connection, or a cut one ({type(error.__cause__).__name__})"
            except _DamagedError as error:
                reason = str(error)
            pause = min(self._backoff * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            if attempt == retries or stop.wait(max(pause, min(asked_for, 2 * LONGEST_PAUSE))):
                raise ConnectionError(
                    f"{self} failed {attempt + 1} times, the last time with: {reason}; is it "
                    "running, and is the address right?"
                ) from None
            attempt += 1

    def _refusal(self, error: openai.APIStatusError) -> ValueError:
        """The error for a request that would fail again; the key is not repeated in it."""
        if error.status_code in (401, 403):
            return ValueError(
                f"{self} refuses the API key (status {error.status_code}); set the environment "
                "variable JELICIT_API_KEY"
            )
        message = str(error.message).replace(self._key, "(the key)")
        versioned = urlsplit(self.url).path.endswith("/v1")
        hint = "" if versioned or error.status_code != 404 else f"; did you mean {self.url}/v1?"
        return ValueError(f"{self} refuses a request (status {error.status_code}): {message}{hint}")


class _DamagedError(Exception):
    """An answer that is none; the next one may be."""


def _only(tokens: Sequence[int]) -> dict[str, Any]:
    """The options that show chosen tokens (and the likeliest one)."""
    extra = {"return_tokens_as_token_ids": True, "logprob_token_ids": list(tokens)}
    return {"logprobs": 1, "extra_body": extra}


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError(
            "the server's URL holds a user name or password; a key is taken from the environment "
            "only (JELICIT_API_KEY)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no server's URL; give one like http://localhost:8000/v1")
    return url.rstrip("/")


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that the server asks to wait; 0 if it names none."""
    try:
        return max(float(error.response.headers.get("retry-after", 0)), 0.0)
    except ValueError:  # a date
        return 0.0


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _DamagedError("its answer is no JSON") from error


def _read(content: bytes) -> Answer:
    """An answer from the body of a completion."""
    body = _json(content)
    try:
        shown = (body["choices"][0].get("logprobs") or {}).get("top_logprobs") or [None]
        usage = body.get("usage") or {}
        log_probs = {_token(text): float(value) for text, value in (shown[0] or {}).items()}
        answer = Answer(
            log_probs=log_probs,
            prompt_tokens=usage.get("prompt_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            fingerprint=str(body.get("system_fingerprint") or ""),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _DamagedError("its answer is no completion") from error
    # A little more than 0 is rounding; nan is neither.
    if not all(value < 0.01 for value in log_probs.values()):
        raise _DamagedError("it gave log-probabilities that are none")
    shown = {token: value for token, value in log_probs.items() if value > NEVER}
    return replace(answer, log_probs=shown)


def _token(text: str) -> int | str:
    """A token's id where the server wrote "token_id:85", else its text."""
    start, _, number = text.partition("token_id:")
    return int(number) if not start and number.isdigit() else text
