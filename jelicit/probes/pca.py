"""PCA of the pairs' differences (Burns et al. 2022 call the first component CRC): no labels.

The components are found by subspace iteration, which touches the hidden states through matmuls
only. Many subsets of one pool therefore share them: no subset copies its rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe
from jelicit.probes.normalise import Normaliser, matmul


class PCAInfo(NamedTuple):
    """How the search for components went. Leading axes, if any, are stacked fits."""

    explained: Float[Array, "*batch k"]
    """Share of the differences' variance along each component."""
    residual: Float[Array, "*batch k"]
    """||C v - lambda v|| / lambda_1 of each component; about rounding where it has converged."""
    steps: Int[Array, "*batch"]
    """Iterations taken."""
    finite: Bool[Array, "*batch"]
    """Whether all of it is finite."""


class _Differences(NamedTuple):
    """A = diag(sqrt(share)) (D - 1 mean), D = phi+' - phi-' [n, d]; A itself is never built.

    Constants drop out of D by the centring, so only the scales of the normaliser matter.
    """

    pairs: Pairs
    scale_pos: Float[Array, ""]
    scale_neg: Float[Array, ""]
    share: Float[Array, " n"]

    def centre(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        root = jnp.sqrt(self.share)[:, None]
        return root * (rows - matmul(self.share, rows)[None])

    def centre_transposed(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        rows = jnp.sqrt(self.share)[:, None] * rows
        return rows - self.share[:, None] * rows.sum(axis=0)[None]

    def project(self, V: Float[Array, "d k"]) -> Float[Array, "n k"]:
        """D V."""
        return matmul(self.pairs.pos, V) / self.scale_pos - matmul(self.pairs.neg, V) / (
            self.scale_neg
        )

    def gather(self, U: Float[Array, "n k"]) -> Float[Array, "d k"]:
        """A^T U."""
        U = self.centre_transposed(U)
        return matmul(self.pairs.pos.T, U) / self.scale_pos - matmul(self.pairs.neg.T, U) / (
            self.scale_neg
        )

    def covariance(self, V: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """A^T A V."""
        return self.gather(self.centre(self.project(V)))

    def gram(self) -> Callable[[Float[Array, "n k"]], Float[Array, "n k"]]:
        """U -> A A^T U, from three blocks that do not depend on the subset or the scales."""
        pos, neg = self.pairs
        both_pos, both_neg = matmul(pos, pos.T), matmul(neg, neg.T)
        crossed = matmul(pos, neg.T)
        crossed = crossed + crossed.T

        def apply(U):
            U = self.centre_transposed(U)
            product = matmul(both_pos, U) / self.scale_pos**2
            product -= matmul(crossed, U) / (self.scale_pos * self.scale_neg)
            return self.centre(product + matmul(both_neg, U) / self.scale_neg**2)

        return apply

    def variance(self) -> Float[Array, ""]:
        """Trace of A^T A: mean squared row norm of D minus the squared norm of its mean."""
        pos, neg = self.pairs
        squares = jnp.square(pos).sum(1) / self.scale_pos**2
        squares += jnp.square(neg).sum(1) / self.scale_neg**2
        squares -= 2 * (pos * neg).sum(1) / (self.scale_pos * self.scale_neg)
        mean = matmul(self.share, pos) / self.scale_pos - matmul(self.share, neg) / self.scale_neg
        return matmul(self.share, squares) - matmul(mean, mean)


class _Eigen(NamedTuple):
    basis: Float[Array, "m k"]
    values: Float[Array, " k"]
    vectors: Float[Array, "m k"]
    residual: Float[Array, " k"]
    step: Int[Array, ""]


def _top_eigenvectors(
    operator: Callable[[Float[Array, "m k"]], Float[Array, "m k"]],
    shape: tuple[int, int],
    *,
    wanted: int,
    dtype: jnp.dtype,
    max_steps: int,
) -> _Eigen:
    """Subspace iteration with Rayleigh-Ritz for a symmetric positive semi-definite operator.

    Stops when the residuals of the `wanted` leading vectors are about rounding, against the
    largest eigenvalue. Vectors come in the order of falling eigenvalue.
    """
    tolerance = 20 * jnp.finfo(dtype).eps

    def body(now: _Eigen) -> _Eigen:
        basis = jnp.linalg.qr(now.basis)[0]
        image = operator(basis)
        small = matmul(basis.T, image)
        values, rotation = jnp.linalg.eigh((small + small.T) / 2)
        values, rotation = values[::-1], rotation[:, ::-1]
        vectors, image = matmul(basis, rotation), matmul(image, rotation)
        error = jnp.linalg.norm(image - vectors * values[None], axis=0)
        tiny = jnp.finfo(dtype).tiny
        return _Eigen(image, values, vectors, error / jnp.maximum(values[0], tiny), now.step + 1)

    def unsettled(now: _Eigen):
        # NaN must end the loop, too.
        return (now.step < max_steps) & (now.residual[:wanted].max() > tolerance)

    # Any start that is not orthogonal to the answer leads to it: the draw is part of the
    # algorithm, not of the experiment, so it has a fixed key.
    begin = jax.random.normal(jax.random.key(0), shape, dtype)
    inf, zeros = jnp.full(shape[1], jnp.inf, dtype), jnp.zeros(shape[1], dtype)
    return jax.lax.while_loop(unsettled, body, _Eigen(begin, zeros, begin, inf, jnp.asarray(0)))


def fit_components(
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    weights: Float[Array, " n"] | None = None,
    count: int = 1,
    max_steps: int = 100,
) -> tuple[LinearProbe, PCAInfo]:
    """The leading principal components of phi+' - phi-' over the weighted rows.

    Each component is a unit vector in normalised coordinates whose largest loading (in absolute
    value) is positive. The offset centres the scores on the weighted rows. Where the rows do not
    span `count` dimensions, the missing components are zero.

    Args:
        pairs: hidden states [n, d], without a large common mean.
        normaliser: applied to them.
        weights: row weights [n]; 0 and 1 choose a subset.
        count: how many components, at most min(n, d).
        max_steps: cap on the iterations.

    Returns:
        `count` stacked probes by falling variance, of unknown sign, and how the search went.

    Raises:
        ValueError: count < 1 or count > min(n, d).
    """
    n, d = pairs.pos.shape
    dtype = pairs.pos.dtype
    if not 1 <= count <= min(n, d):
        raise ValueError(f"count={count}; pairs {(n, d)} have 1 to {min(n, d)} components.")
    weights = jnp.ones(n, dtype) if weights is None else weights
    share = weights / weights.sum()
    rows = _Differences(pairs, normaliser.scale_pos, normaliser.scale_neg, share)
    # Some vectors more than wanted: the error then falls with the ratio to the first one left out.
    block = min(count + max(8, count // 8), n, d)
    # An iteration costs 8ndk operations through the hidden states, 6nnk through the Gram blocks.
    by_rows = 4 * d > 3 * n
    operator = rows.gram() if by_rows else rows.covariance
    shape = (n if by_rows else d, block)
    found = _top_eigenvectors(operator, shape, wanted=count, dtype=dtype, max_steps=max_steps)
    V = rows.gather(found.vectors) if by_rows else found.vectors
    V = _signed_units(V[:, :count], found.values[:count])
    # Scores are centred on the weighted rows: their mean, less what the normaliser takes off.
    shift = normaliser.mean_pos / normaliser.scale_pos - normaliser.mean_neg / normaliser.scale_neg
    offset = matmul(share, rows.project(V)) - matmul(shift, V)
    probes = LinearProbe(weight=V.T, bias=jnp.zeros(count, dtype), offset=offset)
    explained = found.values[:count] / rows.variance()
    finite = jnp.isfinite(V).all() & jnp.isfinite(explained).all()
    return probes, PCAInfo(explained, found.residual[:count], found.step, finite)


def _signed_units(V: Float[Array, "d k"], values: Float[Array, " k"]) -> Float[Array, "d k"]:
    """Columns of length 1 whose largest loading is positive; zero where there is no variance."""
    present = values > 100 * jnp.finfo(values.dtype).eps * values[0]
    largest = jnp.take_along_axis(V, jnp.abs(V).argmax(axis=0)[None], axis=0)[0]
    length = jnp.where(present, jnp.linalg.norm(V, axis=0) * jnp.sign(largest), 1.0)
    return jnp.where(present[None], V / length[None], 0.0)


def fit_pca(
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    weights: Float[Array, " n"] | None = None,
    max_steps: int = 100,
) -> tuple[LinearProbe, PCAInfo]:
    """The first principal component alone; see `fit_components`."""
    components = fit_components(pairs, normaliser, weights=weights, count=1, max_steps=max_steps)
    return jax.tree.map(lambda leaf: leaf[0] if leaf.ndim else leaf, components)
