"""A model server that speaks the OpenAI completions API, checked at start, asked patiently.

Prompts are sent as token ids. Two extras of vLLM are used where a server understands them, which is
found out at start: `return_tokens_as_token_ids` (answers name tokens by their ids, so that two that
read alike stay apart) and `logprob_token_ids` (the log-probabilities of chosen tokens, however
unlikely they are; at most 128).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import openai
from tenacity import RetryCallState, Retrying, retry_if_exception

from extract.server_answers import (
    Answer,
    DamagedError,
    cut,
    from_json,
    lengths_of,
    nested,
    read_answer,
)
from extract.server_limits import seconds_asked
from extract.server_pace import LONGEST_HOLD, Pace, Tries, Turn

T = TypeVar("T")

Cache = Literal["shared", "own", "none"]

LONGEST_PAUSE = 30.0
"""Seconds between two attempts, at most, where the server names no time itself."""

USUALLY_SHOWN, MOST_SHOWN, FEW_SHOWN = 20, 1000, 5
"""Likeliest tokens that servers are asked for: vLLM allows 20, llama.cpp any number, OpenAI 5."""

NO_SUCH_API = (404, 405, 501)
"""Statuses of a server that has no such API."""

LONG = 4.0
"""Seconds of a pause from which on it is told of."""

log = logging.getLogger(__name__)


class Raw(Protocol):
    """An answer as it came."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    @property
    def content(self) -> bytes:
        """Its body."""
        ...


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
        origins: What its tokenizer may be called: root, name, and those of the model that it was
            made from (`parent`, of a LoRA adapter).
        context: Most tokens of a prompt; None if the server does not say.
        trained_length: Longest text that the model was trained on; None if it does not say.
        is_llama_cpp: It is llama.cpp's `llama-server`.
        slots: Prompts that llama.cpp reads at a time, each with a cache of its own; else None.
        top_logprobs: Likeliest tokens to be shown, where the server cannot show chosen ones.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        top_logprobs: int | None = None,
        cache: Cache = "shared",
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 0.5,
        patience: float = 600.0,
    ) -> None:
        """Finds the model.

        Args:
            url: Address of the API; it mostly ends in /v1.
            model: Name of the model; None = the only one that is served.
            top_logprobs: See above; None = 20, or 5 of a server that refuses 20, and 1,000 of
                llama.cpp, which shows as many as it is asked for.
            cache: What of the server's prefix cache is used: "shared" all of it, "own" what this
                object put there, "none" nothing. The last two are for measuring; vLLM can
                (`cache_salt`).
            timeout: Seconds that the server may be silent.
            retries: Times that a request is repeated when it fails in a way that may pass. Refusals
                that say how long to wait do not count while others get through (`Tries`).
            backoff: Seconds before the first repetition; doubled for each further one, up to
                `LONGEST_PAUSE`, and drawn from the upper half of that.
            patience: Seconds after a request was first sent from which on it is not repeated; of a
                refusal that does not count, seconds in which nothing got through.

        Raises:
            ValueError: If the address is none, the key cannot be sent, or the model is not served.
            ConnectionError: If there is no answer.
        """
        self.url = _checked_url(url)
        self._cache: Cache = cache
        self._own = uuid4().hex
        self._retries, self._backoff, self._patience = retries, backoff, patience
        self._pace = Pace()
        self._key = _key()
        self._proxy = _proxy(self.url)
        self._client = _client(self.url, self._key, timeout=timeout)
        served = self._served()
        entry = self._chosen(served, model)
        self.model: str = entry["id"]
        self.root: str = str(entry.get("root") or self.model)
        self.origins = _origins(self.root, entry, served)
        length, self.trained_length = lengths_of(entry, self)
        # A request makes one token, and that must fit, too.
        self.context: int | None = None if length is None else length - 1
        self.is_llama_cpp = entry.get("owned_by") == "llamacpp"
        self.slots = self._slots() if self.is_llama_cpp else None
        shown = MOST_SHOWN if self.is_llama_cpp else USUALLY_SHOWN
        self.top_logprobs = shown if top_logprobs is None else top_logprobs
        # What the user says himself, and what llama.cpp takes in any number, is not tried lower.
        self._may_show_fewer = top_logprobs is None and not self.is_llama_cpp

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
        shown = self._first(tokens)
        if not shown.log_probs and self.is_llama_cpp:
            raise ValueError(
                f"{self} (llama.cpp) shows no log-probabilities at start, after a prompt of "
                f"{len(tokens)} tokens: it leaves them out where the likeliest next token is a "
                "part of a character, so the tokenizer is another than the model's, perhaps: give "
                "its own (--tokenizer, tokenizer=)"
            )
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
            # Of a server that shows the whole vocabulary nothing more is to be found out.
            exact = bool(unlikely) and set(unlikely) <= set(
                self._send(tokens, _only(unlikely)).log_probs
            )
        return Abilities(
            token_ids=token_ids,
            exact=exact,
            likeliest=tuple(shown.log_probs),
            fingerprint=shown.fingerprint,
        )

    def _first(self, tokens: Sequence[int]) -> Answer:
        """The answer to the first prompt, asked for in a way that the server takes."""
        try:
            return self._plainly(tokens)
        except RefusedError as error:
            if not self._may_show_fewer or error.status in NO_SUCH_API:
                raise self._not_for_scores(error) from None
            refused = error
        many, self.top_logprobs = self.top_logprobs, FEW_SHOWN
        try:
            shown = self._plainly(tokens)
        except RefusedError:  # so the number was not the reason
            self.top_logprobs = many
            raise self._not_for_scores(refused) from None
        log.warning(
            "%s refuses to show %d log-probabilities; it is asked for %d (--top-logprobs %d)",
            *(self, many, FEW_SHOWN, FEW_SHOWN),
        )
        return shown

    def _plainly(self, tokens: Sequence[int]) -> Answer:
        """The likeliest tokens, by their ids where the server takes the option."""
        try:
            return self._send(tokens, self._likeliest(token_ids=True))
        except RefusedError:  # some servers refuse what they do not know
            return self._send(tokens, self._likeliest(token_ids=False))

    def _not_for_scores(self, error: RefusedError) -> ValueError:
        """What a refusal of the first prompt means."""
        if error.status == 422:
            return ValueError(
                f"{error}; it takes no token ids, perhaps, as the server of llama-cpp-python "
                "does not: serve the model with llama.cpp's own llama-server, or with vLLM"
            )
        if error.status not in NO_SUCH_API:
            return error
        return ValueError(
            f"{self} lists its models but has no completions API (status {error.status}): it "
            "is for chat alone, perhaps. Scores need the token after a prompt of token ids; "
            "serve the model with vLLM: `vllm serve`"
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

        token_ids = "return_tokens_as_token_ids" in options.get("extra_body", {})

        def send() -> Raw:
            return self._client.completions.with_raw_response.create(
                model=self.model, prompt=list(tokens), max_tokens=1, temperature=0.0, **options
            )

        def read(content: bytes) -> Answer:
            answer = read_answer(content, self, token_ids=token_ids)
            self._check_shown(answer, tokens, needs, least)
            return answer

        answer, repeated = self._patiently(send, read, stop or Event(), retries=self._retries)
        if answer.prompt_tokens not in (None, len(tokens)):
            raise ValueError(
                f"{self} counted {answer.prompt_tokens} tokens in a prompt of {len(tokens)} token "
                "ids: it changes prompts (adds a token of its own, perhaps), so that its scores "
                "would be those of others; serve the model with vLLM"
            )
        return replace(answer, repeated=repeated)

    def _check_shown(
        self, answer: Answer, tokens: Sequence[int], needs: frozenset[int], least: int
    ) -> None:
        """Refuses an answer that does not show what was asked for; the next one may."""
        if least and self.is_llama_cpp and not answer.log_probs:
            raise ValueError(
                f"{self} (llama.cpp) shows no log-probabilities after a prompt of {len(tokens)} "
                "tokens: it leaves them out where the likeliest next token is a part of a "
                "character; choose a format whose text ends in a word, or leave the item out"
            )
        if not needs <= answer.log_probs.keys() or len(answer.log_probs) < least:
            raise DamagedError("log-probabilities are missing in its answer")

    def _slots(self) -> int | None:
        """Prompts that llama.cpp reads at a time; None where it does not say."""
        address = self.url.removesuffix("/v1") + "/props"
        try:
            said = self._client.get(address, cast_to=object, options={"timeout": 10.0})
        except (openai.APIError, ValueError):
            return None
        slots = said.get("total_slots") if isinstance(said, dict) else None
        return slots if type(slots) is int and slots >= 1 else None

    def _served(self) -> dict[str, dict[str, Any]]:
        """What the server says about its models, by name."""

        def read(content: bytes) -> dict[str, dict[str, Any]]:
            body = from_json(content, self)
            try:
                return {
                    str(entry["id"]): {**entry, "id": str(entry["id"])} for entry in body["data"]
                }
            except (KeyError, TypeError) as error:
                raise DamagedError("it does not list its models") from error

        # Not patient: a wrong address should be named soon.
        send = self._client.models.with_raw_response.list
        return self._patiently(send, read, Event(), retries=min(2, self._retries))[0]

    def _chosen(self, served: Mapping[str, dict[str, Any]], model: str | None) -> dict[str, Any]:
        names = cut(", ".join(sorted(served))) or "no model"
        if model is not None and model not in served:
            raise ValueError(f"{self} serves {names}, not {model!r}; choose what it serves")
        if model is None and len(served) != 1:
            raise ValueError(f"{self} serves {names}; name one of them: --served (model=)")
        return served[next(iter(served)) if model is None else model]

    # --- patience --------------------------------------------------------------------------------

    def _patiently(
        self, send: Callable[[], Raw], read: Callable[[bytes], T], stop: Event, *, retries: int
    ) -> tuple[T, int]:
        """What `read` makes of the answer, and how often the request had to be repeated."""
        tries = Tries(self._pace, retries=retries, patience=self._patience)
        failures: list[Exception] = []

        def attempt() -> T:
            self._wait_for(turn, stop)
            if not failures:
                tries.begin()
            try:
                raw = send()
                self._hear(turn, raw.headers)
                return read(raw.content)
            except RecursionError:
                raise nested(self) from None
            except Exception as error:
                failures.append(error)
                self._note(turn, tries, error)
                raise
            finally:
                self._pace.leave()

        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=tries.over,
            wait=lambda _: 0.0 if _is_limit(failures[-1]) else tries.pause,
            sleep=lambda seconds: _sleep(seconds, stop),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            with self._pace.turn() as turn:
                return retrying(attempt), len(failures)
        except (openai.APIError, DamagedError, _StoppedError):
            raise self._explained(failures) from None

    def _wait_for(self, turn: Turn, stop: Event) -> None:
        """Returns when the pace of all threads lets a request through."""
        while (seconds := self._pace.enter(turn)) > 0:
            _sleep(seconds, stop)

    def _hear(self, turn: Turn, headers: Mapping[str, str]) -> None:
        """Takes from an answer whether the next request must wait."""
        if (seconds := self._pace.hear(turn, headers)) >= LONG:
            log.warning("%s has reached its limit; asked again in %.0f s", self, seconds)

    def _note(self, turn: Turn, tries: Tries, error: Exception) -> None:
        """Counts a failure, and takes from it how long to wait.

        That is twice as long each time, or as long as the server says; for all threads where it
        refuses since it was asked too often.
        """
        headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
        asked = min(seconds_asked(headers), LONGEST_HOLD)
        if _is_limit(error) and tries.refused(headers):
            tries.pause = asked
        else:
            doubled = min(self._backoff * 2 ** (tries.count() - 1), LONGEST_PAUSE)
            tries.pause = max(doubled * random.uniform(0.5, 1.0), asked)
        if _is_limit(error) and (seconds := self._pace.refuse(turn, tries.pause)) >= LONG:
            log.warning("%s: status 429; asked again in %.0f s", self, seconds)

    def _tell(self, state: RetryCallState) -> None:
        if state.upcoming_sleep >= LONG and state.outcome:
            reason = _reason(state.outcome.exception())
            log.warning("%s: %s; asked again in %.0f s", self, reason, state.upcoming_sleep)

    def _explained(self, errors: Sequence[Exception]) -> ValueError | ConnectionError:
        """The last error, in words of its own cause."""
        if not errors:
            return ConnectionError(f"{self} was not asked any more, since another request failed")
        error = errors[-1]
        if isinstance(error, openai.APIStatusError) and not _may_pass(error):
            return self._refusal(error)
        if isinstance(error, openai.APIConnectionError):
            advice = "is it running, and is the address right?"
        elif isinstance(error, DamagedError):
            advice = "is it a server of the OpenAI completions API?"
        else:
            advice = "look at the server's log"
        if self._is_the_proxys(error):
            advice = self._of_the_proxy()
        return ConnectionError(
            f"{self} failed {len(errors)} times, the last time with: {_reason(error)}; {advice}"
        )

    def _refusal(self, error: openai.APIStatusError) -> ValueError:
        """The error for a request that would fail again; the key is not repeated in it."""
        status = error.status_code
        if self._is_the_proxys(error):
            return RefusedError(f"{self}: status {status}; {self._of_the_proxy()}", status)
        if status in (401, 403):
            return ValueError(
                f"{self} refuses the API key (status {status}); set the environment variable "
                "JELICIT_API_KEY"
            )
        message = cut(str(error.message).replace(self._key, "(the key)"))
        versioned = urlsplit(self.url).path.endswith("/v1")
        hint = "" if versioned or status != 404 else f"; did you mean {self.url}/v1?"
        return RefusedError(f"{self} refuses a request (status {status}): {message}{hint}", status)

    def _is_the_proxys(self, error: Exception) -> bool:
        """Whether an error may be a proxy's: the API's own are JSON."""
        if not self._proxy:
            return False
        if isinstance(error, openai.APIStatusError):
            return not isinstance(error.body, dict)
        return isinstance(error, openai.APIConnectionError)

    def _of_the_proxy(self) -> str:
        host = urlsplit(self.url).hostname
        return (
            f"that is said by the proxy {self._proxy}, or behind it, which the environment names "
            f"(HTTP_PROXY, HTTPS_PROXY, ALL_PROXY); to go round it: NO_PROXY={host}"
        )


class _StoppedError(Exception):
    """Another request has failed for good while this one waited."""


class RefusedError(ValueError):
    """A request that would be refused again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _sleep(seconds: float, stop: Event) -> None:
    """Waits; raises where another request fails for good meanwhile."""
    if seconds > 0 and stop.wait(seconds):
        raise _StoppedError


def _is_limit(error: BaseException) -> bool:
    """Whether a server refuses a request since there were too many."""
    return isinstance(error, openai.APIStatusError) and error.status_code == 429


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return status in (408, 409, 429) or (status >= 500 and status != 501)
    return isinstance(error, openai.APIConnectionError | DamagedError)


def _reason(error: BaseException | None) -> str:
    """What went wrong, in short."""
    if isinstance(error, openai.APIStatusError):
        return f"status {error.status_code}"
    if isinstance(error, openai.APITimeoutError):
        return "no answer within the time limit"
    if isinstance(error, openai.APIConnectionError):
        return f"no connection, or a cut one ({type(error.__cause__).__name__})"
    return cut(str(error))


def _key() -> str:
    """The API key of the environment.

    Raises:
        ValueError: If it cannot be sent; it is not repeated in the message.
    """
    for name in ("JELICIT_API_KEY", "OPENAI_API_KEY"):
        if key := os.environ.get(name):
            if not key.isascii() or not key.isprintable() or key != key.strip():
                raise ValueError(
                    f"the environment variable {name} holds a character that no API key has (a "
                    "letter outside ASCII, a space or line end around it); copy the key anew"
                )
            return key
    return "none"


def _client(url: str, key: str, *, timeout: float) -> openai.OpenAI:
    """The connection; what fails is repeated here (`Server._patiently`), not by the library."""
    return openai.OpenAI(
        base_url=url,
        api_key=key,
        timeout=timeout,
        max_retries=0,
        # Else a proxy would be asked for this machine, and look for the server on its own.
        http_client=openai.DefaultHttpxClient(trust_env=False) if _is_here(url) else None,
    )


def _origins(
    root: str, entry: Mapping[str, Any], served: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """What a model's tokenizer may be called: see `Server.origins`.

    Args:
        root: Where the server loaded the model from.
        entry: What it says of the model.
        served: What it says of all its models, by name.
    """
    parent = str(entry.get("parent") or "")
    roots = (str(served.get(parent, {}).get("root") or parent), parent)
    return tuple(dict.fromkeys(name for name in (root, entry["id"], *roots) if name))


def _is_here(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _proxy(url: str) -> str:
    """The proxy that the environment names for a URL, without its password; "" if none."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or _is_here(url) or urllib.request.proxy_bypass(host):
        return ""
    return proxy.rpartition("@")[2]


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
