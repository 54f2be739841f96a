"""The compiled program of pooled fits: hidden states are shared, never copied for a run."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from planted import planted

from jelicit.probes.ccs import fit_ccs
from jelicit.probes.normalise import fit_normaliser
from jelicit.probes.training import Descent


def test_no_array_of_runs_by_rows_by_width_is_ever_made():
    n, d, runs = 37, 29, 11  # numbers that nothing else in the program has
    pairs, _, _ = planted(n, d, seed=0)
    pairs = jax.tree.map(jnp.asarray, pairs)

    def fit(key, weights):
        normaliser = fit_normaliser(pairs, weights, fitted_on="rows")
        descent = Descent(learning_rate=0.01, steps=3)
        return fit_ccs(key, pairs, normaliser, weights=weights, descent=descent)[0]

    keys = jax.random.split(jax.random.key(0), runs)
    compiled = jax.jit(jax.vmap(fit)).lower(keys, jnp.ones((runs, n))).compile().as_text()
    assert compiled is not None
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"f32\[([\d,]+)\]", compiled)}
    assert (n, d) in shapes or (d, n) in shapes
    sizes = {int(np.prod(shape)) for shape in shapes}
    assert runs * n in sizes
    assert runs * d in sizes
    assert max(sizes) <= max(n * d, runs * n, runs * d)
