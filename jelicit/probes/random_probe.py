"""The random baseline: a direction that has seen no data."""

import jax.numpy as jnp
from jaxtyping import Array

from jelicit.method_groups import UNSUPERVISED
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Data, Method, Run
from jelicit.probes.training import unit_vector


def random_probe(key: Array, d: int, dtype=jnp.float32) -> LinearProbe:
    """W uniform on the unit sphere in normalised coordinates, b = 0 (paper A)."""
    zero = jnp.zeros((), dtype)
    return LinearProbe(weight=unit_vector(key, d, dtype), bias=zero, offset=zero)


def _fit(run: Run, data: Data, settings: None) -> LinearProbe:
    return random_probe(run.key, data.hard.pos.shape[1], data.hard.pos.dtype)


RANDOM = Method(
    name="random",
    title="Random probe",
    group=UNSUPERVISED,
    fit=_fit,
    free_sign=True,
    source="Paper A",
    by_subset=False,
)
