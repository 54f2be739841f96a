"""What a sweep is fitted on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jelicit.pairs import Pairs

LayerPairs = Mapping[int, Pairs] | Callable[[int], Pairs]


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """What a sweep is fitted on: a pool of hard items, a subset and a seed per run, an easy set."""

    hard: LayerPairs
    """layer -> pairs [N, d] of the pool of hard items, as the model made them.

    A function of layers is called once for each, in another thread, at most one layer ahead of the
    fits."""
    layers: tuple[int, ...]
    subsets: np.ndarray
    """The hard train rows of each run: boolean [R, N]."""
    seeds: np.ndarray
    """The seed of each run: integers [R]."""
    hard_targets: np.ndarray | None = None
    """[N] in [0, 1], for methods that need targets alone; 0.5 for an item without a truth value."""
    wordings: np.ndarray | None = None
    """[N], whatever names the item that a hard row is a wording of; None = one wording each."""
    easy: LayerPairs | None = None
    """layer -> pairs [E, d] of the easy items."""
    easy_labels: np.ndarray | None = None
    """[E], 0 or 1: for methods that need the easy set alone."""
    hard_ids: Sequence[str] | None = None
    """Names of the hard items, for error messages."""
    easy_ids: Sequence[str] | None = None
    rows_name: str = "hard train rows"
    """What the normalisers call the rows that they are fitted on."""

    def used(self) -> np.ndarray:
        """Which hard rows some run uses, bool [N]."""
        return np.asarray(self.subsets.any(axis=0))

    def used_targets(self) -> np.ndarray:
        """The targets of the hard rows [N], of no say where no run uses them."""
        assert self.hard_targets is not None
        # Rows that no run uses may lack a target; NaN would spoil the loss even at weight zero.
        return np.where(self.used(), self.hard_targets, 0.5)


def pairs_at(pairs: LayerPairs, layer: int) -> Pairs:
    """The pairs of a layer."""
    return pairs(layer) if callable(pairs) else pairs[layer]


def numbered(names: np.ndarray) -> np.ndarray:
    """The number of each row's name [n], counted as they appear: whatever the names are."""
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place.reshape(-1)].astype(np.int32)
