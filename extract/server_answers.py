"""What a model server's answers say, and what is wrong with them.

A fault that may pass (an answer cut short, no JSON) is a `DamagedError`, one that the server would
repeat (no number where one belongs) a ValueError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST = 500
"""Characters of a server's message that are repeated."""

NEVER = -9998.0
"""vLLM writes -9999 for a log-probability of minus infinity: such a token was not really shown."""

OF_LLAMA_CPP = {"completion_probabilities", "generation_settings", "tokens_evaluated"}
"""What only llama.cpp's own API (/completion, without /v1) has in an answer."""


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


class DamagedError(Exception):
    """An answer that is none; the next one may be."""


def cut(text: str) -> str:
    """A text that is not too long to be repeated."""
    return text if len(text) <= MOST else f"{text[:MOST]}... ({len(text):,} characters)"


def from_json(content: bytes, server: object) -> Any:
    """The JSON of an answer's body.

    Raises:
        DamagedError: If it is none.
        ValueError: If it is nested without end.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise DamagedError("its answer is no JSON") from error
    except RecursionError:
        raise nested(server) from None


def nested(server: object) -> ValueError:
    """The error for an answer that no parser of JSON takes."""
    return ValueError(
        f"{server} sends an answer that is nested too deeply to be read; is it a server of the "
        "OpenAI completions API?"
    )


def read_answer(content: bytes, server: object, *, token_ids: bool) -> Answer:
    """An answer from the body of a completion.

    Args:
        content: The body.
        server: Who sent it, for messages.
        token_ids: Name tokens by their ids where the body has them.

    Raises:
        ValueError: If it says something that it would say again.
    """
    body = from_json(content, server)
    if isinstance(body, Mapping) and "choices" not in body and OF_LLAMA_CPP & body.keys():
        raise ValueError(
            f"{server} answers in llama.cpp's own shape; give the address of its OpenAI API, which "
            "ends in /v1 (--scorer http://localhost:8080/v1), of a llama.cpp of 2025 or later"
        )
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        shown = _shown(choice.get("logprobs") or {}, token_ids=token_ids)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        fingerprint = str(body.get("system_fingerprint") or "")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DamagedError("its answer is no completion") from error
    if not shown and {"completion_probabilities"} & {*body, *choice}:
        raise ValueError(
            f"{server} gives probabilities in a shape of its own (completion_probabilities, an old "
            "llama.cpp); take a llama.cpp of 2025 or later, or serve the model with vLLM"
        )
    return Answer(
        log_probs=checked_log_probs(shown, server),
        prompt_tokens=whole(usage.get("prompt_tokens"), "usage.prompt_tokens", server),
        cached_tokens=whole(cached, "usage.prompt_tokens_details.cached_tokens", server) or 0,
        fingerprint=fingerprint,
    )


def _shown(logprobs: Mapping[str, Any], *, token_ids: bool) -> dict[int | str, Any]:
    """The likeliest first tokens and their log-probabilities, in either shape that servers have."""
    if "content" in logprobs:  # the chat API's, which llama.cpp has for completions, too
        entries = (logprobs["content"] or [{}])[0].get("top_logprobs") or []
        with_ids = token_ids and all(type(entry.get("id")) is int for entry in entries)
        # In falling order: of tokens that read alike the likeliest stays, as in the other shape.
        named = [(entry["id" if with_ids else "token"], entry["logprob"]) for entry in entries]
        return dict(reversed(named))
    first = (logprobs.get("top_logprobs") or [None])[0] or {}
    return {_token(text): value for text, value in first.items()}


def checked_log_probs(shown: Mapping[int | str, Any], server: object) -> dict[int | str, float]:
    """The tokens that were really shown.

    Raises:
        ValueError: If one has no log-probability: a model that overflows says so every time.
    """
    for token, value in shown.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # A little more than 0 is rounding.
        if not number or math.isnan(value) or value >= 0.01:
            raise ValueError(
                f"{server} gives {cut(repr(value))} as the log-probability of the token "
                f"{token!r}; allowed: numbers up to 0. Does the model overflow? Serve it in "
                "another dtype (vLLM: --dtype bfloat16 or float32), or look at the server's log"
            )
    return {token: float(value) for token, value in shown.items() if value > NEVER}


def lengths_of(entry: Mapping[str, Any], server: object) -> tuple[int | None, int | None]:
    """Longest text that a model reads there, and was trained on, as the list of models says.

    vLLM says the first as `max_model_len`; llama.cpp both, in `meta`: the context of a slot, which
    is what it was started with (`-c`) shared out among its slots, and that of the model.

    Raises:
        ValueError: If one is no whole number.
    """
    said = entry.get("meta")
    meta = said if isinstance(said, Mapping) else {}
    most = entry.get("max_model_len", meta.get("n_ctx"))
    return (
        whole(most, "max_model_len" if "max_model_len" in entry else "meta.n_ctx", server),
        whole(meta.get("n_ctx_train"), "meta.n_ctx_train", server),
    )


def whole(value: Any, name: str, server: object) -> int | None:
    """A count of tokens; None where there is none.

    Raises:
        ValueError: If it is no whole number.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f"{server} says that {name} is {cut(repr(value))}; allowed: a whole number, or nothing. "
        "Is it a server of the OpenAI completions API?"
    )


def _token(text: str) -> int | str:
    """A token's id where the server wrote "token_id:85", else its text."""
    start, _, number = text.partition("token_id:")
    return int(number) if not start and number.isdigit() else text
