"""Answers sampled from a language model, the same ones whatever is sampled beside them.

Sampling from softmax(z / T) is taking the largest of z / T + g with Gumbel noise g. The noise of an
answer comes from a seed and the answer's own key, so neither the batch nor a run that was killed
half-way changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from extract.chat import encode_for
from extract.models import LanguageModel
from extract.passes import forward, log_softmax_at, pad


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: T; 0 takes the likeliest token.
        max_new_tokens: Most tokens of an answer.
        seed: Of the noise.

    Raises:
        ValueError: The temperature is negative or no number, or an answer may have no token.
    """

    temperature: float = 1.0
    max_new_tokens: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; allowed: 0 or more")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; allowed: 1 or more")


@torch.inference_mode()
def sample_lines(
    lm: LanguageModel, prompts: Mapping[str, str], sampling: Sampling
) -> dict[str, str]:
    """The line that a model writes after each prompt, one batch.

    An answer ends before a line break, at the end of the text, or after `max_new_tokens`; white
    space around it is left out, so it may be "".

    Args:
        lm: The model.
        prompts: Key -> prompt; the key and the seed decide the noise.
        sampling: How they are drawn.

    Returns:
        Key -> answer.

    Raises:
        ValueError: A prompt leaves no room for an answer in the model's context.
    """
    encoded = encode_for(lm, [(text,) for text in prompts.values()], (" True",))
    rows = [row.prompt for row in encoded]
    for key, row in zip(prompts, rows, strict=True):
        if lm.context is not None and len(row) + sampling.max_new_tokens > lm.context:
            raise ValueError(
                f"{key}: its prompt has {len(row)} tokens, and {lm.name} reads at most "
                f"{lm.context}, {sampling.max_new_tokens} of them the answer; leave it out"
            )
    batch = pad(rows, padding="left", device=lm.device)
    width = batch.ids.shape[1]
    with plain_generation(lm.model) as config:
        written = lm.model.generate(
            batch.ids,
            attention_mask=batch.mask,
            generation_config=GenerationConfig(
                max_new_tokens=sampling.max_new_tokens,
                do_sample=False,  # the noise is in the logits
                eos_token_id=config.eos_token_id,
                bos_token_id=config.bos_token_id,
                pad_token_id=_padding(config),
            ),
            logits_processor=LogitsProcessorList([_Noise(list(prompts), sampling)]),
            stopping_criteria=StoppingCriteriaList([_LineEnds(lm.tokenizer, width)]),
        )
    return {
        key: line_of(lm.tokenizer, _to_the_end(row[width:].tolist(), _ends(config)))
        for key, row in zip(prompts, written, strict=True)
    }


def line_of(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The first line of what was written, without control tokens."""
    text = tokenizer.decode(tokens, skip_special_tokens=True).lstrip()
    return text.splitlines()[0].strip() if text else ""


@torch.inference_mode()
def mean_log_likelihoods(
    lm: LanguageModel, texts: Sequence[tuple[str, str]], *, token_budget: int
) -> np.ndarray:
    """Mean log-probability [n] per token of texts after their prompts, in nats.

    Args:
        lm: The model.
        texts: (prompt, text) each; a text's tokens are what it adds to its prompt.
        token_budget: Most tokens of a pass, padding included.
    """
    rows = []
    for prompt, text in texts:
        [row] = encode_for(lm, [(prompt,)], (f" {text}",))
        rows.append((list(row.prompt), list(row.verdicts[0])))
    found = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at][0]) - len(rows[at][1]))
    while order:
        longest = len(rows[order[0]][0]) + len(rows[order[0]][1])
        size = max(token_budget // longest, 1)
        members, order = order[:size], order[size:]
        found[members] = _mean_of([rows[at] for at in members], lm)
    return found


def _mean_of(rows: Sequence[tuple[list[int], list[int]]], lm: LanguageModel) -> np.ndarray:
    batch = pad([before + text for before, text in rows], padding="right", device=lm.device)
    logits = forward(lm, batch, keep=torch.arange(batch.ids.shape[1])).logits
    where = [
        (row, len(before) + step - 1, token)
        for row, (before, text) in enumerate(rows)
        for step, token in enumerate(text)
    ]
    at, columns, tokens = torch.tensor(where).unbind(1)
    flat = logits.reshape(-1, logits.shape[-1])
    picked = log_softmax_at(flat, at * logits.shape[1] + columns, tokens).double().cpu().numpy()
    sums = np.zeros(len(rows))
    np.add.at(sums, at.numpy(), picked)
    return sums / np.array([len(text) for _, text in rows])


# --- noise, ends, settings -----------------------------------------------------------------------


class _Noise(LogitsProcessor):
    """Adds Gumbel noise to logits over temperature, a stream for every row."""

    def __init__(self, keys: Sequence[str], sampling: Sampling) -> None:
        self.temperature = sampling.temperature
        self.streams = [noise_of(key, sampling.seed) for key in keys]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.temperature == 0:
            return scores
        noise = np.stack([stream.gumbel(size=scores.shape[-1]) for stream in self.streams])
        # In float64 and, since Apple's GPUs have none, on the CPU there.
        at = torch.device("cpu") if scores.device.type == "mps" else scores.device
        noisy = scores.to(at).double() / self.temperature + torch.as_tensor(noise, device=at)
        return noisy if at == scores.device else noisy.float().to(scores.device)


def noise_of(key: str, seed: int) -> np.random.Generator:
    """The stream of noise of one answer."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


class _LineEnds(StoppingCriteria):
    """A row is done when it has a line that is not empty, and another begins."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        done = ["\n" in text.lstrip() for text in texts]
        return torch.tensor(done, device=input_ids.device)


@contextmanager
def plain_generation(model: Any) -> Iterator[GenerationConfig]:
    """Without what the model's files say of generation (penalties, top k), which would bias it."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield own
    finally:
        model.generation_config = own


def _ends(config: GenerationConfig) -> list[int]:
    """The tokens that end a text."""
    end = config.eos_token_id
    return [end] if isinstance(end, int) else list(end or [])


def _to_the_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first that ends the text; what follows is padding."""
    stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])


def _padding(config: GenerationConfig) -> int:
    """What a row is filled with after its end; never read."""
    return next((t for t in (config.pad_token_id, *_ends(config)) if t is not None), 0)
