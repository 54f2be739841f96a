"""Apple's GPUs, torch's device "mps": whether there is one, and in which dtypes it computes.

Metal has float32 and float16, bfloat16 from macOS 14 on, and no float64. Where it lacks the dtype
that weights were saved in, they become float32: float16 ends at 65,504, and the hidden states of
models that were trained in bfloat16 go beyond.
"""

from __future__ import annotations

from typing import Any

import torch

BFLOAT16_SINCE = (14, 0)
"""The macOS whose Metal knows bfloat16."""


def has_gpu() -> bool:
    """Whether torch can use a GPU of Apple's here."""
    return torch.backends.mps.is_available()


def computes(dtype: torch.dtype) -> bool:
    """Whether a GPU of Apple's computes in a dtype."""
    if dtype == torch.bfloat16:
        return torch.backends.mps.is_macos_or_newer(*BFLOAT16_SINCE)
    return dtype != torch.float64


def check_dtype(dtype: str, device: str) -> None:
    """Nothing, if weights can be had in a dtype on a device.

    Args:
        dtype: As a user names it; "auto" is always to be had, see `computable`.
        device: Of torch.

    Raises:
        ValueError: If not; says what can be had.
    """
    if device.startswith("mps") and dtype != "auto" and not computes(getattr(torch, dtype)):
        raise ValueError(
            f"dtype {dtype} on device {device}: Metal has it from macOS "
            f"{BFLOAT16_SINCE[0]} on; give auto, float32 or float16, or another device"
        )


def computable(model: Any, device: str) -> Any:
    """The model, in float32 if the device does not compute in its dtype."""
    if device.startswith("mps") and not computes(model.dtype):
        return model.float()
    return model
