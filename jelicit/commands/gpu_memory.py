"""How much of a GPU commands take. Only the standard library: it runs before JAX is imported."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # of typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import MutableMapping

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"

DECIDING = (
    PREALLOCATE,
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)
"""Environment variables by which a user says how JAX takes memory."""


def take_as_needed(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have JAX take a GPU's memory as it needs it, unless the user has said how.

    Else JAX takes three quarters of a GPU with its first array, and the language model beside it
    (torch in this process, a server in another) has to do with the rest.
    """
    if not any(name in environment for name in DECIDING):
        environment[PREALLOCATE] = "false"
