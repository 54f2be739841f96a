"""PCA of the pairs' differences (Burns et al. 2022 call the first component CRC): no labels.

Components are right singular vectors of the differences themselves, never eigenvectors of their
covariance or Gram matrix: squaring costs half the digits, and in float32 a component of variance
1e-7 of the first one's would be rounding. Where a whole decomposition is cheap it is made; else a
block Krylov space is, which touches the hidden states through matmuls only. Many subsets of one
pool therefore share them: no subset copies its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.krylov import Shape, Space, extended, signed_units
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Common, Data, Method, Run
from jelicit.probes.normalise import Normaliser, contrast, contrast_scales, matmul
from jelicit.probes.settings import count as count_setting


class PCAInfo(NamedTuple):
    """How the search for components went. Leading axes, if any, are stacked fits."""

    explained: Float[Array, "*batch k"]
    """Share of the differences' variance along each component."""
    residual: Float[Array, "*batch k"]
    """||C v - lambda v|| / lambda_1 of each component; about rounding where it has converged."""
    steps: Int[Array, "*batch"]
    """Restarts of the Krylov space; 0 too where all was decomposed at once."""
    finite: Bool[Array, "*batch"]
    """Whether all of it is finite."""


class _Differences(NamedTuple):
    """A = diag(sqrt(share)) (D - 1 mean), D = phi+' - phi-' [n, d]; see `Contrast`.

    Constants drop out of D by the centring, so only the scales of the normaliser matter.
    """

    apart: Float[Array, "n d"]
    shared: Float[Array, "n d"]
    near: Float[Array, " d"]
    far: Float[Array, " d"]
    share: Float[Array, " n"]

    def mean(self) -> Float[Array, " d"]:
        """Mean row of D."""
        return (
            matmul(self.share, self.apart) * self.near + matmul(self.share, self.shared) * self.far
        )

    def matrix(self) -> Float[Array, "n d"]:
        """A."""
        return self._centre(self.apart * self.near[None] + self.shared * self.far[None])

    def project(self, V: Float[Array, "d k"]) -> Float[Array, "n k"]:
        """A V."""
        apart = matmul(self.apart, self.near[:, None] * V)
        return self._centre(apart + matmul(self.shared, self.far[:, None] * V))

    def gather(self, U: Float[Array, "n k"]) -> Float[Array, "d k"]:
        """A^T U."""
        root = jnp.sqrt(self.share)[:, None]
        U = root * (U - root * matmul(root.T, U))
        apart = matmul(self.apart.T, U) * self.near[:, None]
        return apart + matmul(self.shared.T, U) * self.far[:, None]

    def variance(self) -> Float[Array, ""]:
        """Trace of A^T A: mean squared row norm of D minus the squared norm of its mean."""
        squares = matmul(jnp.square(self.apart), jnp.square(self.near))
        squares += matmul(jnp.square(self.shared), jnp.square(self.far))
        squares += 2 * matmul(self.apart * self.shared, self.near * self.far)
        mean = self.mean()
        return matmul(self.share, squares) - matmul(mean, mean)

    def _centre(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        # Twice: the mean is rounded to its own size, which may be far above that of the rows
        # around it, and what is left of it would pass for a component.
        for _ in range(2):
            rows = rows - matmul(self.share, rows)[None]
        return jnp.sqrt(self.share)[:, None] * rows


class _Triplets(NamedTuple):
    """Leading singular triplets of A, largest first."""

    values: Float[Array, " k"]
    vectors: Float[Array, "d k"]
    image: Float[Array, "n k"]
    """A V."""
    residual: Float[Array, " k"]
    """||A^T A v - s^2 v|| / s_1^2."""
    block: Float[Array, "d w"]
    """Of the space that they come from."""
    step: Int[Array, ""]


def _rayleigh_ritz(space: Space, kept: int, step: Array) -> _Triplets:
    """Singular values and right vectors of A within a space: those of A Q, not of its square."""
    factor = jnp.linalg.qr(space.image, mode="r")
    values, rotation = jnp.linalg.svd(factor, full_matrices=False)[1:]
    values, rotation = values[:kept], rotation[:kept].T
    width = space.block.shape[1]
    error = jnp.linalg.norm(matmul(space.coupling, rotation[-width:]), axis=0)
    return _Triplets(
        values,
        matmul(space.basis, rotation),
        matmul(space.image, rotation),
        error / _largest_square(values),
        space.block,
        step,
    )


def _largest_square(values: Float[Array, " k"]) -> Float[Array, ""]:
    return jnp.maximum(jnp.square(values[0]), jnp.finfo(values.dtype).tiny)


def _search(rows: _Differences, shape: Shape, max_steps: int) -> _Triplets:
    """Leading singular triplets from a block Krylov space with thick restarts.

    Musco & Musco 2015 for the space, Wu & Simon 2000 for the restart: it goes on from the best
    vectors and the block that the space would have gone on with, which holds the errors of all of
    them. Ends once the errors are small enough: of the first vector about rounding, of the others
    that, or a small share of their own eigenvalue. Vectors inside the space do not mix at that.
    """
    (n, d), dtype = rows.apart.shape, rows.apart.dtype
    eps = jnp.finfo(dtype).eps
    # In float64 it ends short of rounding: what is left turns the sign of no score.
    of_first, of_others = (20 * eps, 1e-3) if dtype == jnp.float32 else (1e-12, 1e-7)
    more = (shape.total - shape.kept) // shape.width

    def unsettled(now: _Triplets):
        share = jnp.square(now.values[: shape.wanted]) / _largest_square(now.values)
        # The products round to eps of the first singular value.
        rounding = 20 * eps * jnp.sqrt(share)
        allowed = jnp.maximum(rounding, of_others * share).at[0].set(of_first)
        # NaN must end the loop, too.
        return (now.step < max_steps) & (now.residual[: shape.wanted] > allowed).any()

    def restart(now: _Triplets) -> _Triplets:
        space = extended(rows, now.vectors, now.image, now.block, more)
        return _rayleigh_ritz(space, shape.kept, now.step + 1)

    # Any start that is not orthogonal to the answer leads to it: the draw is part of the
    # algorithm, not of the experiment, so it has a fixed key.
    begin = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (d, shape.width), dtype))[0]
    nothing = jnp.zeros((d, 0), dtype), jnp.zeros((n, 0), dtype)
    space = extended(rows, *nothing, begin, shape.total // shape.width)
    return jax.lax.while_loop(unsettled, restart, _rayleigh_ritz(space, shape.kept, jnp.asarray(0)))


def _decomposed(rows: _Differences, count: int) -> _Triplets:
    """Leading singular triplets from the whole of A, brought to a square first."""
    A = rows.matrix()
    n, d = A.shape
    if n >= d:
        vectors = jnp.linalg.svd(jnp.linalg.qr(A, mode="r"))[2].T
    else:
        across, factor = jnp.linalg.qr(A.T)
        vectors = matmul(across, jnp.linalg.svd(factor.T)[2].T)
    vectors = vectors[:, :count]
    image = matmul(A, vectors)
    values = jnp.linalg.norm(image, axis=0)
    error = matmul(A.T, image) - vectors * jnp.square(values)[None]
    residual = jnp.linalg.norm(error, axis=0) / _largest_square(values)
    return _Triplets(values, vectors, image, residual, vectors[:, :0], jnp.asarray(0))


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
    value; the first of equals) is positive. The offset centres the scores on the weighted rows.
    Where the rows do not span `count` dimensions, the missing components are zero.

    Args:
        pairs: hidden states [n, d], without a large common mean.
        normaliser: applied to them.
        weights: row weights [n]; 0 and 1 choose a subset.
        count: how many components, at most min(n, d).
        max_steps: cap on the restarts of the Krylov space.

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
    rows = _Differences(*contrast(*pairs), *contrast_scales(normaliser), share)
    shape = Shape.of(count)
    # The space would be as large as all there is.
    whole = shape.total >= min(n, d)
    found = _decomposed(rows, count) if whole else _search(rows, shape, max_steps)
    values = found.values[:count]
    V = signed_units(found.vectors[:, :count], _present(values, weights))
    # Scores are centred on the weighted rows: their mean, less what the normaliser takes off.
    shift = normaliser.mean_pos / normaliser.scale_pos - normaliser.mean_neg / normaliser.scale_neg
    offset = matmul(rows.mean() - shift, V)
    probes = LinearProbe(weight=V.T, bias=jnp.zeros(count, dtype), offset=offset)
    explained = jnp.square(values) / rows.variance()
    finite = jnp.isfinite(V).all() & jnp.isfinite(explained).all()
    return probes, PCAInfo(explained, found.residual[:count], found.step, finite)


def _present(values: Float[Array, " k"], weights: Float[Array, " n"]) -> Bool[Array, " k"]:
    """Which components the rows have: those that stand out of rounding.

    A decomposition leaves an error of about eps of the first singular value in all of them, so a
    direction that is not there seems to have that much. m centred rows span m - 1 dimensions.
    """
    spanned = jnp.arange(len(values)) < (weights > 0).sum() - 1
    return spanned & (values > 4 * jnp.finfo(values.dtype).eps * values[0])


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

    pca_steps: int = count_setting(5, least=0, help="Cap on the restarts of PCA's Krylov space.")


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
    # As XLA's memory analysis has it: 4 per component in a Krylov space; at the most 10.5, in a
    # whole decomposition of few rows (500 of width 4,096).
    return max(12, 11 * getattr(settings, "ensemble_size", 16))


PCA = Method(
    name="pca",
    title="PCA",
    group=UNSUPERVISED,
    fit=_fit,
    free_sign=True,
    source="Burns et al. 2022, section 3.3 (CRC)",
    settings=PCASettings,
    common=COMPONENTS,
    algorithm=3,
    info=PCAInfo,
    by_seed=False,
    double=True,
    vectors=vectors_of_components,
)
