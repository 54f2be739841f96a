"""Probes that are not linear, and the one way to score any probe.

Almost every method gives a `LinearProbe`. One whose scores no single direction can give (a mean
per cluster, a network) returns a frozen dataclass of arrays of its own, says so in
`Method.probe`, and knows how to score.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe, score_folded
from jelicit.probes.normalise import Normaliser


@runtime_checkable
class Probe(Protocol):
    """A probe of another kind: a `frozen_pytree` of arrays, in normalised coordinates."""

    def score(self, normaliser: Normaliser, pairs: Pairs) -> Float[Array, " n"]:
        """Truth scores [n] of pairs [n, d], which the normaliser is still to be applied to.

        It is called under `jax.vmap` over probes and normalisers: fold them into what the hidden
        states are multiplied by, and make no normalised copy of the rows.
        """
        ...


class NotLinearError(ValueError):
    """A probe of another kind where a direction is asked for."""


def truth_scores(
    probe: LinearProbe | Probe, normaliser: Normaliser, pairs: Pairs
) -> Float[Array, " n"]:
    """Truth scores [n] of pairs [n, d] by a probe of any kind."""
    if isinstance(probe, LinearProbe):
        return score_folded(probe, normaliser, pairs)
    return probe.score(normaliser, pairs)
