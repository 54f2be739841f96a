"""What a sweep gives: probes of every method, layer and run, and their scores."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.pairs import Pairs, check_shapes
from jelicit.probes.kinds import NotLinearError, truth_scores
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import AnyProbe
from jelicit.probes.normalise import Normaliser, compose, normalise
from jelicit.probes.sweep.devices import on_host


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Probes of unknown sign: one per method, layer and run. `metrics.orient` picks signs."""

    layers: tuple[int, ...]
    methods: tuple[str, ...]
    probes: dict[str, Any]
    """Per method, stacked [layers, runs, ...], in the coordinates of `normalisers`; of the kind
    that its declaration says, a `LinearProbe` as a rule."""
    info: dict[str, Any]
    """Per method, how the fits went: a named tuple of arrays [layers, runs, ...]."""
    pool: Normaliser
    """Statistics of all hard rows, stacked [layers, ...]."""
    within_pool: Normaliser
    """Statistics of each run's hard train rows in the pool's coordinates, [layers, runs, ...]."""
    rows_name: str
    """What the normalisers call those rows."""

    @property
    def normalisers(self) -> Normaliser:
        """Statistics of each run's hard train rows, for hidden states as the model made them."""
        stacked = jax.vmap(jax.vmap(compose, in_axes=(None, 0)))(self.pool, self.within_pool)
        return replace(stacked, fitted_on=self.rows_name)

    def probe(self, method: str, *, layer: int, run: int) -> tuple[LinearProbe, Normaliser]:
        """One probe and its normaliser, for `score` and for saving.

        Raises:
            ValueError: a method, layer or run that the sweep does not hold; a probe that is not
                linear (`NotLinearError`), which `SweepResult.score` alone reads.
        """
        if method not in self.probes:
            raise ValueError(f"Method {method!r} was not fitted; there are {list(self.probes)}.")
        place, runs = self._place(layer), self.within_pool.scale_pos.shape[1]
        if not 0 <= run < runs:
            raise ValueError(f"run={run}; this sweep has runs 0 to {runs - 1}.")
        inner = on_host(lambda leaf: leaf[place, run], self.within_pool)
        outer = on_host(lambda leaf: leaf[place], self.pool)
        normaliser = compose(outer, inner)
        name = f"{self.rows_name}, layer {layer}, run {run}"
        stacked = self.probes[method]
        if not isinstance(stacked, LinearProbe):
            raise NotLinearError(
                f"The probe of {method!r} is a {type(stacked).__name__} and no direction; score "
                "with SweepResult.score, or take a method that gives a LinearProbe."
            )
        probe = on_host(lambda leaf: leaf[place, run], stacked)
        return probe, replace(normaliser, fitted_on=name)

    def score(self, layer: int, pairs: Pairs) -> dict[str, Float[Array, "r n"]]:
        """Truth scores [R, n] of every method, by each run's normaliser; nan where a fit failed.

        A fit failed where its `info` says that it is not finite: its probe means nothing.

        Args:
            layer: which layer the pairs come from.
            pairs: hidden states [n, d] as the model made them.

        Raises:
            ValueError: an unknown layer, or pairs of another width.
        """
        place = self._place(layer)
        d, width = self.pool.mean_pos.shape[1], check_shapes(pairs)[1]
        if width != d:
            raise ValueError(f"Pairs of layer {layer} have d={width}; the probes have d={d}.")
        pick = partial(on_host, lambda leaf: leaf[place])
        finite = {method: pick(info.finite) for method, info in self.info.items()}
        return _scores(pick(self.probes), finite, pick(self.within_pool), pick(self.pool), pairs)

    def _place(self, layer: int) -> int:
        if layer not in self.layers:
            raise ValueError(f"Layer {layer} was not swept; there are {list(self.layers)}.")
        return self.layers.index(layer)


@jax.jit
def _scores(
    probes: dict[str, AnyProbe],
    finite: dict[str, Bool[Array, " r"]],
    normalisers: Normaliser,
    pool: Normaliser,
    pairs: Pairs,
) -> dict[str, Float[Array, "r n"]]:
    pairs = normalise(pool, pairs)
    score_runs = jax.vmap(lambda probe, normaliser: truth_scores(probe, normaliser, pairs))
    return {
        method: jnp.where(finite[method][:, None], score_runs(probe, normalisers), jnp.nan)
        for method, probe in probes.items()
    }
