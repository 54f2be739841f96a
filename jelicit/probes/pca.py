"""PCA of the pairs' differences (Burns et al. 2022 call the first component CRC): no labels.

The components are found in a block Krylov space, which touches the hidden states through matmuls
only. Many subsets of one pool therefore share them: no subset copies its rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Common, Data, Method, Run
from jelicit.probes.normalise import Normaliser, matmul
from jelicit.probes.settings import count as count_setting


class PCAInfo(NamedTuple):
    """How the search for components went. Leading axes, if any, are stacked fits."""

    explained: Float[Array, "*batch k"]
    """Share of the differences' variance along each component."""
    residual: Float[Array, "*batch k"]
    """||C v - lambda v|| / lambda_1 of each component; about rounding where it has converged."""
    steps: Int[Array, "*batch"]
    """Iterations taken after the Krylov space."""
    finite: Bool[Array, "*batch"]
    """Whether all of it is finite."""


class _Differences(NamedTuple):
    """A = diag(sqrt(share)) (D - 1 mean), D = phi+' - phi-' [n, d]; A itself is never built.

    Constants drop out of D by the centring, so only the scales of the normaliser matter.
    """

    pairs: Pairs
    scale_pos: Float[Array, ""] | Float[Array, " d"]
    scale_neg: Float[Array, ""] | Float[Array, " d"]
    share: Float[Array, " n"]

    def centre(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        root = jnp.sqrt(self.share)[:, None]
        return root * (rows - matmul(self.share, rows)[None])

    def centre_transposed(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        rows = jnp.sqrt(self.share)[:, None] * rows
        return rows - self.share[:, None] * rows.sum(axis=0)[None]

    def divisors(self) -> tuple[Float[Array, "d 1"], Float[Array, "d 1"]]:
        """The scale of every dimension, for each sign."""
        shape = (self.pairs.pos.shape[1],)
        return (
            jnp.broadcast_to(self.scale_pos, shape)[:, None],
            jnp.broadcast_to(self.scale_neg, shape)[:, None],
        )

    def project(self, V: Float[Array, "d k"]) -> Float[Array, "n k"]:
        """D V."""
        by_pos, by_neg = self.divisors()
        return matmul(self.pairs.pos, V / by_pos) - matmul(self.pairs.neg, V / by_neg)

    def gather(self, U: Float[Array, "n k"]) -> Float[Array, "d k"]:
        """A^T U."""
        U = self.centre_transposed(U)
        by_pos, by_neg = self.divisors()
        return matmul(self.pairs.pos.T, U) / by_pos - matmul(self.pairs.neg.T, U) / by_neg

    def covariance(self, V: Float[Array, "d k"]) -> Float[Array, "d k"]:
        """A^T A V."""
        return self.gather(self.centre(self.project(V)))

    def gram(self) -> Callable[[Float[Array, "n k"]], Float[Array, "n k"]]:
        """U -> A A^T U, from three blocks that do not depend on the subset or the scales.

        For one scale per sign.
        """
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
        by_pos, by_neg = (1 / scale[:, 0] for scale in self.divisors())
        squares = matmul(jnp.square(pos), by_pos**2) + matmul(jnp.square(neg), by_neg**2)
        squares -= 2 * matmul(pos * neg, by_pos * by_neg)
        mean = matmul(self.share, pos) / self.scale_pos - matmul(self.share, neg) / self.scale_neg
        return matmul(self.share, squares) - matmul(mean, mean)


class _Eigen(NamedTuple):
    basis: Float[Array, "m k"]
    values: Float[Array, " k"]
    vectors: Float[Array, "m k"]
    residual: Float[Array, " k"]
    step: Int[Array, ""]


_Operator = Callable[[Float[Array, "m k"]], Float[Array, "m k"]]


def _krylov_shape(m: int, count: int) -> tuple[int, int]:
    """Width and number of blocks; one block of full width where that is about as cheap."""
    total = max(96, 4 * count)
    if total >= m:
        return m, 1
    width = min(max(8, count // 8), 32)
    return width, -(-total // width)


def _krylov(operator: _Operator, m: int, count: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """An orthonormal basis Q [m, k] of a block Krylov space, and the operator's image of it."""
    width, blocks = _krylov_shape(m, count)

    def orthonormal(block, basis):
        # Twice: what is left of a block that lies in the basis is rounding, and is made a fresh
        # direction, orthogonal to the basis only after a second pass.
        for _ in range(2):
            block = block - matmul(basis, matmul(basis.T, block))
            block = jnp.linalg.qr(block)[0]
        return block

    def step(carry, place):
        basis, block = carry
        basis = jax.lax.dynamic_update_slice_in_dim(basis, block, place * width, axis=1)
        image = operator(block)
        return (basis, orthonormal(image, basis)), image

    # Any start that is not orthogonal to the answer leads to it: the draw is part of the
    # algorithm, not of the experiment, so it has a fixed key.
    begin = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (m, width), dtype))[0]
    empty = jnp.zeros((m, width * blocks), dtype)
    (basis, _), images = jax.lax.scan(step, (empty, begin), jnp.arange(blocks))
    return basis, jnp.moveaxis(images, 0, 1).reshape(m, width * blocks)


def _rayleigh_ritz(basis: Array, image: Array, step: Array) -> _Eigen:
    """Eigenvalues and vectors of the operator within an orthonormal basis, largest first."""
    small = matmul(basis.T, image)
    values, rotation = jnp.linalg.eigh((small + small.T) / 2)
    values, rotation = values[::-1], rotation[:, ::-1]
    vectors, image = matmul(basis, rotation), matmul(image, rotation)
    error = jnp.linalg.norm(image - vectors * values[None], axis=0)
    tiny = jnp.finfo(values.dtype).tiny
    return _Eigen(image, values, vectors, error / jnp.maximum(values[0], tiny), step)


def _top_eigenvectors(
    operator: _Operator, m: int, *, wanted: int, dtype: jnp.dtype, max_steps: int
) -> _Eigen:
    """The leading eigenvectors of a symmetric positive semi-definite operator.

    Rayleigh-Ritz in a block Krylov space (Musco & Musco 2015), then subspace iteration from there
    until the residuals are small enough: of the first vector about rounding, of the others that, or
    a thousandth of their own eigenvalue. In a flat spectrum neighbours are not told apart any
    further, and as members of an ensemble they need not be.
    """
    rounding = 20 * jnp.finfo(dtype).eps
    # Some vectors more than wanted: the error then falls with the ratio to the first one left out.
    block = min(wanted + max(8, wanted // 8), m)

    def body(now: _Eigen) -> _Eigen:
        basis = jnp.linalg.qr(now.basis)[0]
        return _rayleigh_ritz(basis, operator(basis), now.step + 1)

    def unsettled(now: _Eigen):
        share = now.values[:wanted] / jnp.maximum(now.values[0], jnp.finfo(dtype).tiny)
        allowed = jnp.maximum(rounding, 1e-3 * share).at[0].set(rounding)
        # NaN must end the loop, too.
        return (now.step < max_steps) & (now.residual[:wanted] > allowed).any()

    found = _rayleigh_ritz(*_krylov(operator, m, wanted, dtype), jnp.asarray(0))
    first = _Eigen(
        found.basis[:, :block],
        found.values[:block],
        found.vectors[:, :block],
        found.residual[:block],
        found.step,
    )
    return jax.lax.while_loop(unsettled, body, first)


def fit_components(
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    weights: Float[Array, " n"] | None = None,
    count: int = 1,
    max_steps: int = 5,
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
        max_steps: cap on the iterations after the Krylov space.

    Returns:
        `count` stacked probes by falling variance, of unknown sign, and how the search went.

    Raises:
        ValueError: count < 1 or count > min(n, d).
    """
    pairs = with_full_floats(pairs)
    n, d = pairs.pos.shape
    dtype = pairs.pos.dtype
    if not 1 <= count <= min(n, d):
        raise ValueError(f"count={count}; pairs {(n, d)} have 1 to {min(n, d)} components.")
    weights = jnp.ones(n, dtype) if weights is None else weights
    share = weights / weights.sum()
    rows = _Differences(pairs, normaliser.scale_pos, normaliser.scale_neg, share)
    # An iteration costs 8ndk operations through the hidden states, 6nnk through the Gram blocks.
    by_rows = 4 * d > 3 * n and normaliser.scale_pos.ndim == 0
    operator = rows.gram() if by_rows else rows.covariance
    m = n if by_rows else d
    found = _top_eigenvectors(operator, m, wanted=count, dtype=dtype, max_steps=max_steps)
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
    max_steps: int = 5,
) -> tuple[LinearProbe, PCAInfo]:
    """The first principal component alone; see `fit_components`."""
    components = fit_components(pairs, normaliser, weights=weights, count=1, max_steps=max_steps)
    return jax.tree.map(lambda leaf: leaf[0] if leaf.ndim else leaf, components)


@dataclass(frozen=True, kw_only=True)
class PCASettings:
    """Of PCA, alone or in ensembles."""

    pca_steps: int = count_setting(
        5, least=0, help="Cap on the iterations of PCA after its Krylov space."
    )


Components = tuple[LinearProbe, PCAInfo]
"""Stacked components, and how the search for them went."""


def _components(run: Run, data: Data, settings: Mapping[str, Any]) -> Components:
    """As many components as the largest of the wanted methods takes."""
    n, d = data.hard.pos.shape
    pool = n if data.kept is None else len(data.kept)
    size = min(max(getattr(own, "ensemble_size", 1) for own in settings.values()), pool, d)
    components = fit_components(
        data.hard,
        run.normaliser,
        weights=run.rows,
        count=min(size, n),
        max_steps=next(iter(settings.values())).pca_steps,
    )
    # Of rows that no run uses come no components; a whole pool's say zero there, too.
    return jax.tree.map(partial(_filled, size=size), components)


def _filled(leaf: Array, *, size: int) -> Array:
    """What every component has, [k, ...], with zeros for as many as are missing of `size`."""
    if leaf.ndim == 0:
        return leaf
    return jnp.pad(leaf, [(0, size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


COMPONENTS = Common(name="pca", make=_components)
"""The principal components of a run: found once for PCA and its ensembles."""


def _fit(run: Run, data: Data, settings: PCASettings, components: Components) -> Components:
    probes, info = components
    return jax.tree.map(lambda leaf: leaf[0], probes), info


def vectors_of_components(settings: PCASettings) -> int:
    """Vectors that the search for components holds; see `Method.vectors`."""
    return max(12, 8 * getattr(settings, "ensemble_size", 16))


PCA = Method(
    name="pca",
    title="PCA",
    group=UNSUPERVISED,
    fit=_fit,
    free_sign=True,
    source="Burns et al. 2022, section 3.3 (CRC)",
    settings=PCASettings,
    common=COMPONENTS,
    info=PCAInfo,
    by_seed=False,
    vectors=vectors_of_components,
)
