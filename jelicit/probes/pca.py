"""PCA of the pairs' differences (Burns et al. 2022 call the first component CRC): no labels.

Components are right singular vectors of the differences, in one of two ways:

- Runs of a sweep, in float64 and with memory for copies of their own rows, take the leading
  eigenvectors of their Gram matrix (or covariance, whichever is smaller). Squaring costs half the
  digits: what has less than `LEAST` of the first component's deviation would be rounding.
- All others never square: where a whole decomposition is cheap it is made; else a block Krylov
  space is, which touches the hidden states through matmuls only. Many subsets of one pool then
  share them: no subset copies its rows.

Neither has components below `LEAST`, so that memory does not decide which there are.
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
from jelicit.probes.decompositions import qr, qr_factor, singular
from jelicit.probes.ensembles import Members
from jelicit.probes.gram import gram
from jelicit.probes.krylov import Shape, Space, extended, first_block, settled, unit_factors
from jelicit.probes.lanczos import leading_eigenpairs
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Common, Data, Method, Run
from jelicit.probes.normalise import Normaliser, contrast, contrast_scales, matmul
from jelicit.probes.settings import count as count_setting

LEAST = 1e-7
"""Components of a smaller share of the first one's deviation count as absent: hidden states are
stored in float32, which rounds to as much."""


class PCAInfo(NamedTuple):
    """How the search for components went. Leading axes, if any, are stacked fits."""

    explained: Float[Array, "*batch k"]
    """Share of the differences' variance along each component."""
    residual: Float[Array, "*batch k"]
    """||C v - lambda v|| / lambda_1 of each component; about rounding where it has converged."""
    steps: Int[Array, "*batch"]
    """How often the Krylov space was begun anew, or made larger; 0 too where all was decomposed at
    once."""
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

    @classmethod
    def of(
        cls, pairs: Pairs, normaliser: Normaliser, weights: Float[Array, " n"]
    ) -> "_Differences":
        """Those of weighted pairs."""
        share = weights / weights.sum()
        return cls(*contrast(*pairs), *contrast_scales(normaliser), share)

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
    factor = qr_factor(space.image)
    values, rotation = singular(factor)
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
    them. Ends once the errors are small enough; see `settled`.
    """
    (n, d), dtype = rows.apart.shape, rows.apart.dtype
    more = (shape.total - shape.kept) // shape.width

    def unsettled(now: _Triplets):
        share = jnp.square(now.values[: shape.wanted]) / _largest_square(now.values)
        # The products round to eps of the first singular value.
        rounding = jnp.finfo(dtype).eps * jnp.sqrt(share)
        done = settled(now.residual[: shape.wanted], share, rounding)
        return (now.step < max_steps) & ~done

    def restart(now: _Triplets) -> _Triplets:
        space = extended(rows, now.vectors, now.image, now.block, more)
        return _rayleigh_ritz(space, shape.kept, now.step + 1)

    nothing = jnp.zeros((d, 0), dtype), jnp.zeros((n, 0), dtype)
    begin = first_block(d, shape.width, dtype)
    space = extended(rows, *nothing, begin, shape.total // shape.width)
    return jax.lax.while_loop(unsettled, restart, _rayleigh_ritz(space, shape.kept, jnp.asarray(0)))


def _decomposed(rows: _Differences, count: int) -> _Triplets:
    """Leading singular triplets from the whole of A, brought to a square first."""
    A = rows.matrix()
    n, d = A.shape
    if n >= d:
        vectors = singular(qr_factor(A))[1].T
    else:
        across, factor = qr(A.T)
        vectors = matmul(across, singular(factor.T)[1].T)
    vectors = vectors[:, :count]
    image = matmul(A, vectors)
    values = jnp.linalg.norm(image, axis=0)
    error = matmul(A.T, image) - vectors * jnp.square(values)[None]
    residual = jnp.linalg.norm(error, axis=0) / _largest_square(values)
    return _Triplets(values, vectors, image, residual, vectors[:, :0], jnp.asarray(0))


def _from_square(
    rows: _Differences, K: Float[Array, "n n"] | None, count: int, max_steps: int
) -> _Triplets:
    """Leading singular triplets from the eigenvectors of A A^T or A^T A, in float64.

    Args:
        rows: what makes A.
        K: A A^T where it is known already.
        count: how many.
        max_steps: see `leading_eigenpairs`.
    """
    A = rows.matrix()
    n, d = A.shape
    across = n < d
    if K is None or not across:
        K = gram(A if across else A.T)
    found = leading_eigenpairs(K, count, max_steps=max_steps)
    values = jnp.sqrt(jnp.maximum(found.values, 0))
    if across:
        vectors, image = matmul(A.T, found.vectors), found.vectors * values[None]
        lengths = jnp.linalg.norm(vectors, axis=0)
        vectors = vectors / jnp.where(lengths > 0, lengths, 1.0)[None]
    else:
        vectors, image = found.vectors, matmul(A, found.vectors)
    none = vectors[:, :0]
    return _Triplets(values, vectors, image, found.residual, none, found.steps)


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
    rows = _Differences.of(pairs, normaliser, weights)
    found = _touching(rows, count, max_steps)
    return _as_components(found, rows, normaliser, count)[:2]


def _touching(rows: _Differences, count: int, max_steps: int) -> _Triplets:
    """Leading singular triplets through products with the hidden states."""
    shape = Shape.of(count)
    # The space would be as large as all there is.
    if shape.total >= min(rows.apart.shape):
        return _decomposed(rows, count)
    return _search(rows, shape, max_steps)


class Components(NamedTuple):
    """Stacked components, how the search for them went, and how they score the rows."""

    probes: LinearProbe
    info: PCAInfo
    scores: Float[Array, "k n"]
    """0 in rows of weight 0."""
    rows: Float[Array, " n"]
    """Row weights, as they were given: whole numbers make votes on them exact."""

    def members(self) -> Members:
        """As members of an ensemble."""
        return Members(self.probes, self.scores, self.rows)


def _as_components(
    found: _Triplets, rows: _Differences, normaliser: Normaliser, count: int
) -> tuple[LinearProbe, PCAInfo, Float[Array, "k n"]]:
    """Probes of triplets, how the search went, and scores of the rows, 0 where they weigh 0."""
    dtype, share = rows.apart.dtype, rows.share
    values = found.values[:count]
    factors = unit_factors(found.vectors[:, :count], _present(values, share))
    V = found.vectors[:, :count] * factors[None]
    # Scores are centred on the weighted rows: their mean, less what the normaliser takes off.
    shift = normaliser.mean_pos / normaliser.scale_pos - normaliser.mean_neg / normaliser.scale_neg
    offset = matmul(rows.mean() - shift, V)
    probes = LinearProbe(weight=V.T, bias=jnp.zeros(count, dtype), offset=offset)
    explained = jnp.square(values) / rows.variance()
    finite = jnp.isfinite(V).all() & jnp.isfinite(explained).all()
    info = PCAInfo(explained, found.residual[:count], found.step, finite)
    back = jnp.where(share > 0, 1 / jnp.sqrt(jnp.where(share > 0, share, 1.0)), 0.0)
    scores = (found.image[:, :count] * factors[None] * back[:, None]).T
    return probes, info, scores


def _present(values: Float[Array, " k"], share: Float[Array, " n"]) -> Bool[Array, " k"]:
    """Which components the rows have: those that stand out of rounding.

    A decomposition leaves an error of about eps of the first singular value in all of them, so a
    direction that is not there seems to have that much. m centred rows span m - 1 dimensions.
    """
    spanned = jnp.arange(len(values)) < (share > 0).sum() - 1
    least = max(4 * float(jnp.finfo(values.dtype).eps), LEAST)
    return spanned & (values > least * values[0])


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
        5, least=0, help="How often PCA's Krylov space is made larger or begun anew, at most."
    )


def _components(run: Run, data: Data, settings: Mapping[str, Any]) -> Components:
    """As many components as the largest of the wanted methods takes."""
    pairs, weights = with_full_floats(data.hard), run.rows
    n, d = pairs.pos.shape
    pool = n if data.kept is None else len(data.kept)
    size = min(max(getattr(own, "ensemble_size", 1) for own in settings.values()), pool, d)
    if run.places is not None:
        pairs, weights = pairs.take(run.places), weights[run.places]
    rows = _Differences.of(pairs, run.normaliser, weights)
    count, steps = min(size, *pairs.pos.shape), next(iter(settings.values())).pca_steps
    if run.places is None:
        triplets = _touching(rows, count, steps)
    else:
        K = None
        if data.products is not None:
            K = data.products.of_run(run.places, rows.share, (rows.near[0], rows.far[0]))
        triplets = _from_square(rows, K, count, steps)
    found = _as_components(triplets, rows, run.normaliser, count)
    # Of rows that no run uses come no components; a whole pool's say zero there, too.
    probes, info, scores = jax.tree.map(partial(_filled, size=size), found)
    return Components(probes, info, scores, weights)


def _filled(leaf: Array, *, size: int) -> Array:
    """What every component has, [k, ...], with zeros for as many as are missing of `size`."""
    if leaf.ndim == 0:
        return leaf
    return jnp.pad(leaf, [(0, size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


COMPONENTS = Common(name="pca", make=_components)
"""The principal components of a run: found once for PCA and its ensembles."""


def _fit(
    run: Run, data: Data, settings: PCASettings, components: Components
) -> tuple[LinearProbe, PCAInfo]:
    return jax.tree.map(lambda leaf: leaf[0], components.probes), components.info


COPIES = 6
"""Of a run's own rows, as XLA's memory analysis has it: the rows of both signs, their differences,
and less than as much for the Gram matrix and the space."""


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
    algorithm=4,
    info=PCAInfo,
    by_seed=False,
    double=True,
    vectors=vectors_of_components,
    copies=COPIES,
)
