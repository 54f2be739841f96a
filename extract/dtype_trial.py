"""Does this CPU multiply faster in bfloat16 than in float32? A short trial tells.

Instructions alone do not: they may be there and the library's kernels, or a virtual machine's
share of them, may still be slower than float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

CHECK = "bfloat16 trial"
"""What a model's checks and a store's machine call the trial."""

ROWS = 256
"""Tokens that are multiplied at a time, as in a small batch."""

MOST = 100_000_000
"""Products of one multiplication at most: 10 ms where 20 GFLOP/s are made."""

REPEATS = 3

FASTER = 1.2
"""float32's time over bfloat16's from which bfloat16 is taken.

Its numbers are coarser, so a draw is float32's; and two runs of one command shall not decide
differently because another program was busy.
"""


@dataclass(frozen=True)
class Trial:
    """The least time of one multiplication, [rows, width] by [width, columns].

    Attributes:
        rows: Tokens.
        width: Of a hidden state.
        columns: Of the feed-forward layer, as many as `MOST` allows.
        float32: Seconds.
        bfloat16: Seconds.
    """

    rows: int
    width: int
    columns: int
    float32: float
    bfloat16: float

    @property
    def faster(self) -> bool:
        """Whether bfloat16 is worth its coarser numbers."""
        return self.float32 >= FASTER * self.bfloat16

    def describe(self) -> str:
        """Shape and both times in one line."""
        return (
            f"{self.rows} x {self.width} by {self.columns}, best of {REPEATS}: "
            f"{1e3 * self.bfloat16:.2g} ms, float32 {1e3 * self.float32:.2g} ms"
        )


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16 (AVX512_BF16, AMX)."""
    can: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def has_tiles() -> bool:
    """Whether the CPU multiplies tiles of bfloat16 (AMX), several times faster than float32."""
    can: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(can.get("amx_bf16"))


@torch.inference_mode()
def measure(width: int, inner: int, *, clock: Callable[[], float] = time.perf_counter) -> Trial:
    """Multiplies in both dtypes by turns, so that what else runs slows down both.

    Args:
        width: Of the model's hidden states.
        inner: Of its feed-forward layer.
        clock: Seconds.
    """
    columns = max(1, min(inner, MOST // (ROWS * width)))
    runs = {}
    for dtype in (torch.float32, torch.bfloat16):
        states, weights = torch.ones(ROWS, width, dtype=dtype), torch.ones(columns, width).to(dtype)
        runs[dtype] = partial(torch.nn.functional.linear, states, weights)
        runs[dtype]()  # the first one also chooses a kernel and takes memory
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for dtype, run in runs.items():
            begun = clock()
            run()
            least[dtype] = min(least[dtype], clock() - begun)
    return Trial(ROWS, width, columns, least[torch.float32], least[torch.bfloat16])


@cache
def trial(width: int, inner: int) -> Trial:
    """`measure`, once per process and shape."""
    return measure(width, inner)
