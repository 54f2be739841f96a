"""Names that follow from the methods' declarations; see `registry` and `config`."""

from jelicit.probes.config import RATES, SweepConfig
from jelicit.probes.method import Method
from jelicit.probes.registry import (
    ALL_METHODS,
    BUILT_IN,
    FREE_SIGN,
    NEEDS_EASY,
    NEEDS_TARGETS,
    PAPER,
    PEERS,
    PROPOSALS,
    crossable,
    get_method,
    get_methods,
    needing,
)

METHODS = PAPER
"""Paper A's ten methods."""

__all__ = [
    "ALL_METHODS",
    "BUILT_IN",
    "FREE_SIGN",
    "METHODS",
    "NEEDS_EASY",
    "NEEDS_TARGETS",
    "PAPER",
    "PEERS",
    "PROPOSALS",
    "RATES",
    "Method",
    "SweepConfig",
    "crossable",
    "get_method",
    "get_methods",
    "needing",
]
