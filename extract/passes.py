"""Forward passes over one batch of contrast pairs.

Two ways to the same numbers. `separate` runs prompt + verdict as two sequences per item: simple,
right for every causal model, and the reference in the tests. `shared` runs the prompt once and both
verdicts from its KV cache: half the work, for models whose cache holds keys and values only.

Both pad on the left by default, give the attention mask and the position ids explicitly, read the
states of the verdict's last token only, and ask for logits only at the positions that predict a
verdict token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from extract.models import LanguageModel
from extract.verdicts import Encoded

Padding = Literal["left", "right"]


class PairStates(NamedTuple):
    """One batch of n items, on the CPU."""

    states: dict[int, tuple[torch.Tensor, torch.Tensor]]
    """Per layer (pos, neg), each [n, D] in the model's dtype."""
    log_probs: torch.Tensor
    """[n, 2] float32: of the true and of the false verdict, summed over its tokens."""


class _Batch(NamedTuple):
    """Padded token ids [n, length] and what goes with them."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    offsets: torch.Tensor
    """[n]: column of each row's first token."""


def can_share(model: Any) -> bool:
    """Whether the prompt's cache can be continued by both verdicts: plain attention layers only.

    Models with a recurrent state (Mamba and its hybrids) keep other things in their cache.
    """
    if getattr(model, "_is_stateful", False):
        return False
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or []
    layers = DynamicCache(config=model.config).layers
    return (
        bool(layers)
        and set(kinds) <= {"full_attention", "sliding_attention"}
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    )


@torch.inference_mode()
def separate(
    lm: LanguageModel,
    batch: Sequence[Encoded],
    layers: Sequence[int],
    *,
    padding: Padding = "left",
) -> PairStates:
    """Hidden states and log-probabilities from 2n full sequences.

    Args:
        lm: The model.
        batch: n prompts, each with two verdicts.
        layers: Hidden-state indices to read.
        padding: Side of the padding; the numbers are the same.
    """
    prompts = [item.prompt for side in (0, 1) for item in batch]
    verdicts = [item.verdicts[side] for side in (0, 1) for item in batch]
    rows = [prompt + verdict for prompt, verdict in zip(prompts, verdicts, strict=True)]
    padded = _pad(rows, padding=padding, device=lm.device)
    first = padded.offsets + _lengths(prompts, lm.device) - 1
    # Column that predicts each verdict token; short verdicts repeat their last one, masked below.
    targets = _pad(verdicts, padding="right", device=lm.device)
    columns = first[:, None] + targets.positions
    keep, where = torch.unique(columns, return_inverse=True)  # the same columns for every row
    outputs = _forward(lm, padded, keep=keep, output_hidden_states=list(layers), use_cache=False)
    logits = outputs.logits.float().log_softmax(-1)
    logits = logits.gather(1, where.to(logits.device)[..., None].expand(-1, -1, logits.shape[-1]))
    log_probs = _picked(logits, targets).sum(1)
    last = padded.offsets + _lengths(rows, lm.device) - 1
    return _pairs(outputs.hidden_states, last, log_probs, layers)


@torch.inference_mode()
def shared(lm: LanguageModel, batch: Sequence[Encoded], layers: Sequence[int]) -> PairStates:
    """Hidden states and log-probabilities from n prompts and 2n verdicts that continue them.

    The prompts are padded on the left, so that the verdicts follow them without a gap: a sliding
    window counts columns, not positions.

    Args:
        lm: The model; `can_share` must hold.
        batch: n prompts, each with two verdicts.
        layers: Hidden-state indices to read.
    """
    prompts = _pad([item.prompt for item in batch], padding="left", device=lm.device)
    last_column = torch.tensor([prompts.ids.shape[1] - 1])
    outputs = _forward(lm, prompts, keep=last_column, use_cache=True)
    first = outputs.logits.float().log_softmax(-1).repeat(2, 1, 1)
    cache = outputs.past_key_values
    # Rows 0..n-1 continue with the true verdict, n..2n-1 with the false one.
    cache.reorder_cache(torch.arange(len(batch), device=lm.device).repeat(2))
    verdicts = [item.verdicts[side] for side in (0, 1) for item in batch]
    words = _pad(verdicts, padding="right", device=lm.device)
    lengths = prompts.mask.sum(1).repeat(2)
    following = words._replace(
        mask=torch.cat([prompts.mask.repeat(2, 1), words.mask], 1),
        positions=lengths[:, None] + words.positions,
    )
    n_words = words.ids.shape[1]
    # Of a verdict of k tokens, the first k - 1 positions predict tokens 2..k; none if k = 1.
    keep = torch.arange(max(n_words - 1, 1))
    outputs = _forward(
        lm,
        following,
        keep=keep,
        output_hidden_states=list(layers),
        past_key_values=cache,
        use_cache=True,
    )
    rest = outputs.logits.float().log_softmax(-1)[:, : n_words - 1]
    log_probs = _picked(torch.cat([first, rest.to(first.device)], 1), words).sum(1)
    return _pairs(outputs.hidden_states, words.mask.sum(1) - 1, log_probs, layers)


def _forward(lm: LanguageModel, batch: _Batch, *, keep: torch.Tensor, **options: Any) -> Any:
    """Runs the model for the logits of the columns `keep`; position ids go where they are taken."""
    accepted = inspect.signature(lm.model.forward).parameters
    if "position_ids" in accepted:
        options["position_ids"] = batch.positions
    if "logits_to_keep" in accepted:
        # On the CPU: an index there fits whichever device the logits are on.
        options["logits_to_keep"] = keep.cpu()
    outputs = lm.model(input_ids=batch.ids, attention_mask=batch.mask, **options)
    if "logits_to_keep" not in accepted:
        outputs.logits = outputs.logits[:, keep.cpu()]
    return outputs


def _pad(rows: Sequence[Sequence[int]], *, padding: Padding, device: str) -> _Batch:
    """Pads with token 0, which the mask hides; padded columns repeat the nearest position."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    offsets = torch.zeros(len(rows), dtype=torch.long)
    for number, row in enumerate(rows):
        start = width - len(row) if padding == "left" else 0
        ids[number, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, start : start + len(row)] = 1
        offsets[number] = start
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return _Batch(*(part.to(device) for part in (ids, mask, positions, offsets)))


def _lengths(rows: Sequence[Sequence[int]], device: str) -> torch.Tensor:
    return torch.tensor([len(row) for row in rows], device=device)


def _picked(log_probs: torch.Tensor, targets: _Batch) -> torch.Tensor:
    """Log-probability of each target token [n, k]; 0 where a verdict has ended."""
    ids, mask = targets.ids.to(log_probs.device), targets.mask.to(log_probs.device)
    return log_probs.gather(-1, ids[..., None])[..., 0] * mask


def _pairs(
    hidden: Sequence[torch.Tensor],
    last: torch.Tensor,
    log_probs: torch.Tensor,
    layers: Sequence[int],
) -> PairStates:
    """Gathers the last token's state per row, and splits rows into (pos, neg)."""
    half = len(last) // 2
    states = {}
    for layer in layers:
        rows = torch.arange(len(last), device=hidden[layer].device)
        found = hidden[layer][rows, last.to(rows.device)].cpu()
        states[layer] = (found[:half], found[half:])
    return PairStates(states, torch.stack([log_probs[:half], log_probs[half:]], 1).cpu())
