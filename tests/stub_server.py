"""A model server without a model, and a proxy that spoils answers on their way.

The stub answers in the shape of vLLM's completions API. Its log-probabilities are a function of the
prompt's token ids and of nothing else, so that a test can compute what a scorer should have found.
Its prefix cache keeps whole blocks of answered prompts, as vLLM's does.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import numpy as np

FAULTS = ("429", "500", "stall", "cut", "wrong JSON")


@dataclass
class Stub:
    """What the stub knows, understands and has seen.

    Attributes:
        texts: Text of every token of the vocabulary.
        likely: Tokens that are much more probable than others in every second prompt.
        model: Name of the model.
        context: Its max_model_len.
        token_ids: Understands `return_tokens_as_token_ids`.
        exact: Understands `logprob_token_ids`.
        log_probs: Gives log-probabilities at all.
        strict: Refuses parameters that it does not understand.
        added: Tokens that it adds to every prompt.
        most: Most log-probabilities that it shows.
        block: Tokens in a block of its cache.
        pause: Seconds that an answer takes.
        key: The API key that it asks for, if any.
        limited: Completions that it refuses first, since its limit of tokens is reached.
        others: Names of further models that it lists.
        change: What is made of an answer's status and JSON before it is sent.
    """

    texts: list[str]
    likely: Sequence[int] = ()
    model: str = "stub"
    context: int = 4096
    token_ids: bool = True
    exact: bool = True
    log_probs: bool = True
    strict: bool = False
    added: int = 0
    most: int = 20
    block: int = 4
    pause: float = 0.0
    key: str | None = None
    limited: int = 0
    others: tuple[str, ...] = ()
    change: Callable[[int, Any], tuple[int, Any]] = lambda status, found: (status, found)
    events: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    """("start" or "end", prompt) of every completion, in order of time."""
    headers: list[dict[str, str]] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    """Tokens found in the cache, per answer."""
    blocks: set[tuple[str | None, tuple[int, ...]]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def truth(self, tokens: Sequence[int]) -> np.ndarray:
        """Log-probabilities [vocabulary] of the token after a prompt."""
        seed = hashlib.sha256(json.dumps(list(tokens)).encode()).digest()
        rng = np.random.default_rng(list(seed))
        logits = 2 * rng.standard_normal(len(self.texts))
        if rng.random() < 0.5:
            logits[list(self.likely)] += 6 * rng.random(len(self.likely))
        return logits - np.log(np.exp(logits).sum())

    @property
    def sent(self) -> list[tuple[int, ...]]:
        """Prompts of the completions, in the order in which they came."""
        return [tokens for what, tokens in self.events if what == "start"]

    def answer(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON."""
        self.headers.append(headers)
        if self.key is not None and headers["authorization"] != f"Bearer {self.key}":
            return 401, _error(f"wrong key: {headers['authorization']}")
        if path == "/v1/models":
            entry = {"object": "model", "max_model_len": self.context}
            names = (self.model, *self.others)
            return 200, {"object": "list", "data": [{"id": name, **entry} for name in names]}
        if path != "/v1/completions":
            return 404, _error("Not Found")
        if body["model"] != self.model:
            return 404, _error(f"The model `{body['model']}` does not exist.")
        return self._complete(body)

    def limit(self, path: str) -> tuple[bool, dict[str, str]]:
        """Whether a request is let through, and the headers of its answer."""
        if not self.limited or not path.endswith("/completions"):
            return True, {}
        self.limited -= 1
        return False, {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "1.2s"}

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        extras = {"return_tokens_as_token_ids": self.token_ids, "logprob_token_ids": self.exact}
        if self.strict and (
            unknown := [k for k, known in extras.items() if k in body and not known]
        ):
            return 400, _error(f"Unrecognized request argument supplied: {unknown[0]}")
        tokens = tuple(body["prompt"])
        if len(tokens) + self.added >= self.context:
            return 400, _error(f"{len(tokens)} tokens are too many, {body}")
        if (body.get("logprobs") or 0) > self.most:
            return 400, _error(f"Requested sample logprobs of {body['logprobs']}, max {self.most}")
        with self.lock:
            self.events.append(("start", tokens))
        if self.pause:
            threading.Event().wait(self.pause)
        found = {
            "text": "",
            "index": 0,
            "finish_reason": "length",
            "logprobs": self._shown(tokens, body) if self.log_probs else None,
        }
        with self.lock:
            self.events.append(("end", tokens))
            cached = self._cache(tokens, body.get("cache_salt"))
        usage = {
            "prompt_tokens": len(tokens) + self.added,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        return 200, {
            "object": "text_completion",
            "model": self.model,
            "system_fingerprint": "stub-1",
            "choices": [found],
            "usage": usage,
        }

    def _shown(self, tokens: tuple[int, ...], body: dict[str, Any]) -> dict[str, Any] | None:
        if body.get("logprobs") is None:
            return None
        truth = self.truth(tokens)
        order = np.argsort(-truth)
        chosen = body.get("logprob_token_ids") if self.exact else None
        picks = [order[0], *(chosen or order[1 : body["logprobs"]])]
        ids = self.token_ids and body.get("return_tokens_as_token_ids")
        # In falling order, so that of tokens that read alike the likeliest stays, as in OpenAI's.
        shown: dict[str, float] = {}
        for token in map(int, picks):
            shown.setdefault(f"token_id:{token}" if ids else self.texts[token], float(truth[token]))
        first = next(iter(shown))
        return {"tokens": [first], "token_logprobs": [shown[first]], "top_logprobs": [shown]}

    def _cache(self, tokens: tuple[int, ...], salt: str | None) -> int:
        """Tokens of a prompt that were in the cache, which then has all of its whole blocks.

        What was read under another salt does not count.
        """
        ends = range(self.block, len(tokens) + 1, self.block)
        # The last token is always read: its output is what is asked for.
        known = [end for end in ends if end < len(tokens) and (salt, tokens[:end]) in self.blocks]
        self.blocks |= {(salt, tokens[:end]) for end in ends}
        self.cached.append(max(known, default=0))
        return self.cached[-1]


@dataclass
class LlamaCppStub(Stub):
    """The stub as llama.cpp's `llama-server` answers.

    It knows none of vLLM's options, shows as many tokens as it is asked for, names each by id and
    text in the shape of the chat API, and keeps a cache of its own for each slot.

    Attributes:
        slots: Prompts that it reads at a time; None = it does not say.
        trained: Longest text that its model was trained on.
        partial: Tokens that are part of a character: none is shown where one is the likeliest.
    """

    slots: int | None = 4
    trained: int = 8192
    partial: Sequence[int] = ()

    def answer(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON; an address without /v1 is that of its own API."""
        if path == "/props":
            return 200, {} if self.slots is None else {"total_slots": self.slots}
        if path == "/completions":
            return 200, {"content": "", "generation_settings": {}, "tokens_evaluated": 1}
        openai_path = path if path.startswith("/v1") else f"/v1{path}"
        status, found = super().answer(openai_path, body, headers)
        if openai_path == "/v1/models" and status == 200:
            for entry in found["data"]:
                del entry["max_model_len"]
                meta = {"n_ctx": self.context, "n_ctx_train": self.trained}
                entry |= {"owned_by": "llamacpp", "meta": meta}
        return status, found

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        known = {"model", "prompt", "max_tokens", "temperature", "logprobs"}
        body = {name: value for name, value in body.items() if name in known}
        return super()._complete(body)

    def _shown(self, tokens: tuple[int, ...], body: dict[str, Any]) -> dict[str, Any] | None:
        truth = self.truth(tokens)
        order = [int(token) for token in np.argsort(-truth)]
        if not body.get("logprobs") or order[0] in self.partial:
            return None
        entries = [
            {
                "id": token,
                "token": self.texts[token],
                "bytes": list(self.texts[token].encode()),
                "logprob": float(truth[token]),
            }
            for token in order[: body["logprobs"]]
        ]
        return {"content": [{**entries[0], "top_logprobs": entries}]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": None}}


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, and writes what `reply` says."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per answer
    disable_nagle_algorithm = True
    reply: Callable[[_Handler, bytes], None]

    def do_POST(self) -> None:
        type(self).reply(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_GET = do_POST  # noqa: N815

    def write(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    """Says nothing of connections that the other side cuts: tests do that on purpose."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def _serving(reply: Callable[[_Handler, bytes], None]):
    handler = type("Handler", (_Handler,), {"reply": staticmethod(reply)})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve(stub: Stub):
    """The URL of a server that answers as the stub says."""

    def reply(handler: _Handler, content: bytes) -> None:
        body = json.loads(content) if content else None
        headers = {name.lower(): value for name, value in handler.headers.items()}
        passes, limits = stub.limit(handler.path)
        if not passes:
            return handler.write(429, json.dumps(_error("slow down")).encode(), limits)
        status, found = stub.change(*stub.answer(handler.path, body, headers))
        return handler.write(status, json.dumps(found).encode(), limits)

    with _serving(reply) as url:
        yield url


@dataclass
class Proxy:
    """Passes requests on, and spoils every fifth of them, in five ways by turns.

    Attributes:
        target: URL of the server, with /v1.
        every: One of so many requests fails; 0 = none.
        faults: The ways, by turns.
        spoiled: How often each happened.
        passed: (request, answer) of the completions that went through.
    """

    target: str
    every: int = 5
    faults: tuple[str, ...] = FAULTS
    spoiled: Counter[str] = field(default_factory=Counter)
    passed: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    number: Any = field(default_factory=itertools.count)
    closing: threading.Event = field(default_factory=threading.Event)

    def reply(self, handler: _Handler, content: bytes) -> None:
        number = next(self.number)
        if self.every and number % self.every == self.every - 1:
            fault = self.faults[number // self.every % len(self.faults)]
            self.spoiled[fault] += 1
            return self._spoil(handler, content, fault)
        status, found = self._forward(handler, content)
        if handler.path.endswith("/completions") and status == 200:
            self.passed.append((json.loads(content), json.loads(found)))
        return handler.write(status, found)

    def _spoil(self, handler: _Handler, content: bytes, fault: str) -> None:
        if fault == "429":
            handler.write(429, json.dumps(_error("slow down")).encode(), {"Retry-After": "0.02"})
        elif fault == "500":
            handler.write(500, b"Internal Server Error")
        elif fault == "stall":
            self.closing.wait(60)
            handler.close_connection = True
        elif fault == "cut":
            handler.write(*self._forward(handler, content), cut=True)
        else:
            handler.write(200, self._forward(handler, content)[1][:-20] + b'"oops"')

    def _forward(self, handler: _Handler, content: bytes) -> tuple[int, bytes]:
        host = self.target.removeprefix("http://").removesuffix("/v1")
        connection = http.client.HTTPConnection(host)
        kept = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        connection.request(handler.command, handler.path, content, kept)
        answer = connection.getresponse()
        status, found = answer.status, answer.read()
        connection.close()
        return status, found


@contextmanager
def spoiling(proxy: Proxy):
    """The URL of the proxy."""
    with _serving(proxy.reply) as url:
        try:
            yield url
        finally:
            proxy.closing.set()
