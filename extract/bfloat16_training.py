"""What makes trainings in bfloat16 faster on a CPU.

Their passes run under torch's autocast, which turns weights into bfloat16 whenever a product needs
them, and keeps none of those that do not learn; and torch's attention for CPUs takes a quarter of a
step on its way back, in texts of a few dozen tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT = 128
"""Tokens up to which attention is computed as two plain products."""

MOST = 2**28
"""Numbers that these products may keep for the way back: one for each pair of tokens, head, block
and text of a pass (0.5 GB in bfloat16)."""


def turn_frozen(model: Any) -> None:
    """Linear layers of which nothing is to learn, in bfloat16 once instead of at every pass.

    Autocast's products have the same operands and so the same results. Embeddings and norms are
    read outside of it, and stay; so does the output embedding, which may be the input's.

    Args:
        model: With its adapter, which would begin at coarser numbers if it came later. The weights
            that are turned must not be written to disk afterwards.
    """
    head = model.get_output_embeddings()
    for module in model.modules():
        frozen = not any(weight.requires_grad for weight in module.parameters())
        if frozen and isinstance(module, torch.nn.Linear) and module is not head:
            module.to(torch.bfloat16)


@contextmanager
def quick_attention(trainer: Any, longest: int, *, texts: int = 1) -> Iterator[None]:
    """Attention as plain products within, where that is faster and fits.

    The switch is the whole process's: what a policy generates and its reward model reads go
    through plain products, too.

    Args:
        trainer: Of transformers or trl; it knows where and in what passes are computed.
        longest: Tokens of the longest text.
        texts: Of a row of its batches.
    """
    arguments, config = trainer.args, trainer.model.config
    blocks, heads = config.num_hidden_layers, config.num_attention_heads
    kept = arguments.per_device_train_batch_size * texts * blocks * heads * longest**2
    plain = arguments.use_cpu and arguments.bf16 and longest <= SHORT and kept <= MOST
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        yield
