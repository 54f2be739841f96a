"""Contrast pairs with one planted truth direction, for the probes' tests."""

import numpy as np

from jelicit.pairs import Pairs


def planted(
    n: int, d: int, *, seed: int, strength: float = 2.0, common: float = 5.0, share: float = 0.5
) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Pairs, labels and the direction.

    phi+- = content + noise +- verdict +- (2 y - 1) * strength * direction. The content is the same
    for both signs, the verdict the same for all items (and large, as in a language model). The
    direction is the same for every seed.
    """
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(123).normal(size=d)
    direction /= np.linalg.norm(direction)
    labels = (rng.permutation(n) < share * n).astype(np.float64)
    content, verdict = rng.normal(size=(n, d)), common * rng.normal(size=d)
    truth = np.outer(2 * labels - 1, strength * direction)
    pos = content + verdict + truth + 0.5 * rng.normal(size=(n, d))
    neg = content - verdict - truth + 0.5 * rng.normal(size=(n, d))
    return Pairs(pos.astype(np.float32), neg.astype(np.float32)), labels, direction
