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

from extract.models import LanguageModel
from extract.trainer_settings import precision_of

SHORT = 128
"""Tokens up to which attention is computed as two plain products.

They keep a number for each pair of tokens and head: 0.6 MB a text of 128 with 9 heads and layer."""


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
def quick_attention(longest: int, lm: LanguageModel) -> Iterator[None]:
    """Attention as plain products within, where that is faster and fits.

    Args:
        longest: Tokens of the longest text.
        lm: What is trained.
    """
    plain = longest <= SHORT and lm.device == "cpu" and precision_of(lm) == "bfloat16"
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        yield
