"""Directions that are consistent under negation: one eigenproblem with three weights.

With the covariances C++, C--, C+- and C-+ of the normalised rows of either sign,
V = (C++ + C--) / 2, K = (C+- + C-+) / 2, and J the covariance of paraphrases around the mean of
their item, the direction is the eigenvector of the (algebraically) largest eigenvalue of

    S = a V - g K - b J.

V - K = C_d / 2 and V + K = 2 C_m, where d = phi+' - phi-' and m = (phi+' + phi-') / 2, so that
a V - g K = (a - g) C_m + (a + g) / 4 C_d: that is how it is computed, since K is the small
difference of two large covariances. S is never built.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.decompositions import eigh, qr
from jelicit.probes.discriminant import unbiased
from jelicit.probes.erasure import Erasure
from jelicit.probes.groups import group_means
from jelicit.probes.krylov import Shape, Space, extended, first_block, signed_units
from jelicit.probes.linear import LinearProbe
from jelicit.probes.normalise import Normaliser, contrast, contrast_scales, matmul
from jelicit.probes.training import Rate


class SpectralWeights(NamedTuple):
    """What a direction is to have: S = variance V - negation K - invariance J."""

    variance: Rate
    """a: of the variance of either sign."""
    negation: Rate
    """g: of the negative covariance of the two signs."""
    invariance: Rate = 0.0
    """b: of the agreement of paraphrases; of no effect where every item has one wording."""


class SpectralInfo(NamedTuple):
    """How the search for the direction went. Leading axes, if any, are stacked fits."""

    eigenvalue: Float[Array, "*batch"]
    """The largest of S."""
    second: Float[Array, "*batch"]
    """The one after it. Close to the first, the direction mixes several features (Schouten & Bloem
    2025)."""
    residual: Float[Array, "*batch"]
    """||S w - lambda w|| / the largest |eigenvalue| seen; about rounding where it has converged."""
    steps: Int[Array, "*batch"]
    """Restarts of the Krylov space; 0 too where S was decomposed at once."""
    finite: Bool[Array, "*batch"]
    """Whether all of it is finite."""


class _Rows(NamedTuple):
    """The rows of d and m as one matrix [2n, D], centred; see `jelicit.probes.krylov.Rows`."""

    apart: Float[Array, "n d"]
    shared: Float[Array, "n d"]
    near: Float[Array, " d"]
    far: Float[Array, " d"]
    share: Float[Array, " n"]
    weights: SpectralWeights
    items: Int[Array, " n"] | None
    clusters: Int[Array, " n"] | None
    erasure: Erasure | None

    def project(self, V: Float[Array, "d k"]) -> Float[Array, "m k"]:
        """D V above m V, each row times the root of its weight."""
        if self.erasure is not None:
            V = self.erasure.fold(V)
        of_d = matmul(self.apart, self.near[:, None] * V)
        of_d += matmul(self.shared, self.far[:, None] * V)
        of_m = matmul(self.shared, self.near[:, None] * V)
        of_m += matmul(self.apart, self.far[:, None] * V) / 4
        return jnp.concatenate([self._centre(of_d), self._centre(of_m)])

    def gather(self, U: Float[Array, "m k"]) -> Float[Array, "d k"]:
        """S V from the images of V."""
        U = self.weighted(U)
        of_d, of_m = (self._centre_back(half) for half in jnp.split(U, 2))
        from_apart = matmul(self.apart.T, of_d) * self.near[:, None]
        from_apart += matmul(self.apart.T, of_m) * self.far[:, None] / 4
        from_shared = matmul(self.shared.T, of_m) * self.near[:, None]
        from_shared += matmul(self.shared.T, of_d) * self.far[:, None]
        found = from_apart + from_shared
        return found if self.erasure is None else self.erasure.apply(found)

    def weighted(self, U: Float[Array, "m k"]) -> Float[Array, "m k"]:
        """What S does among the rows: it scales those of d and those of m."""
        a, g, b = self.weights
        of_d, of_m = jnp.split(U, 2)
        if self.items is None:
            return jnp.concatenate([(a + g) / 4 * of_d, (a - g) * of_m])
        # V and K are of the means over paraphrases, J of what is left: J = J_m + J_d / 4.
        mean_d, mean_m = self._means(of_d, self.items), self._means(of_m, self.items)
        of_d = (a + g) / 4 * mean_d - b / 4 * (of_d - mean_d)
        return jnp.concatenate([of_d, (a - g) * mean_m - b * (of_m - mean_m)])

    def variance(self) -> Float[Array, ""]:
        """Mean square of the rows as they are given."""
        squares = jnp.square(self.apart * self.near[None])
        squares += jnp.square(self.shared * self.near[None])
        return matmul(self.share, squares.sum(axis=1))

    def _means(self, rows: Float[Array, "n k"], groups: Int[Array, " n"]) -> Float[Array, "n k"]:
        """Means over groups of rows that are times the root of their weight: symmetric."""
        root = jnp.sqrt(self.share)[:, None]
        plain = rows / jnp.where(root > 0, root, 1.0)
        return root * group_means(plain, groups, self.share)

    def _centre(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        return self._centred(jnp.sqrt(self.share)[:, None] * rows)

    def _centre_back(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """The transpose of `_centre`."""
        return jnp.sqrt(self.share)[:, None] * self._centred(rows)

    def _centred(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """Less the mean of all rows, and of each row's cluster: a symmetric operation."""
        rows = self._less_mean(rows)
        if self.clusters is None:
            return rows
        # Rows of no cluster keep what they have, so that the mean is no longer 0.
        return self._less_mean(rows - self._means(rows, self.clusters))

    def _less_mean(self, rows: Float[Array, "n k"]) -> Float[Array, "n k"]:
        root = jnp.sqrt(self.share)[:, None]
        # Twice: the mean is rounded to its own size, which may be far above that of the rest.
        for _ in range(2):
            rows = rows - root * matmul(root.T, rows)
        return rows


class _Pairs(NamedTuple):
    """Eigenpairs of S by falling eigenvalue, as far as the search knows them."""

    values: Float[Array, " k"]
    vectors: Float[Array, "d k"]
    image: Float[Array, "m k"]
    residual: Float[Array, " k"]
    block: Float[Array, "d w"]
    step: Int[Array, ""]


def _within(space: Space, rows: _Rows, kept: int, step: Int[Array, ""]) -> _Pairs:
    """Rayleigh and Ritz: the eigenpairs of Q^T S Q."""
    inner = matmul(space.image.T, rows.weighted(space.image))
    if rows.erasure is not None:
        # Nothing is left of what was erased: its eigenvalue is 0, above all others where they are
        # negative, and a direction that reads nothing would be the answer.
        gone = matmul(space.basis.T, _unit(rows.erasure.reader))
        inner -= 2 * jnp.linalg.norm(inner) * jnp.outer(gone, gone)
    values, rotation = eigh((inner + inner.T) / 2)
    largest = jnp.maximum(jnp.abs(values).max(), jnp.finfo(values.dtype).tiny)
    values, rotation = values[::-1][:kept], rotation[:, ::-1][:, :kept]
    error = matmul(space.coupling, rotation[-space.block.shape[1] :])
    return _Pairs(
        values,
        matmul(space.basis, rotation),
        matmul(space.image, rotation),
        jnp.linalg.norm(error, axis=0) / largest,
        space.block,
        step,
    )


def _unit(vector: Float[Array, " d"]) -> Float[Array, " d"]:
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1.0)


def _whole(rows: _Rows, kept: int) -> _Pairs:
    """The eigenpairs of S, built."""
    d, dtype = rows.apart.shape[1], rows.apart.dtype
    identity, zero = jnp.eye(d, dtype=dtype), jnp.zeros((d, 1), dtype)
    space = Space(identity, rows.project(identity), zero, jnp.zeros((1, 1), dtype))
    return _within(space, rows, kept, jnp.asarray(0))


def _search(rows: _Rows, shape: Shape, max_steps: int) -> _Pairs:
    """The leading eigenpairs from a block Krylov space with thick restarts (Wu & Simon 2000)."""
    d, dtype = rows.apart.shape[1], rows.apart.dtype
    allowed = 100 * jnp.finfo(dtype).eps if dtype == jnp.float32 else 1e-11
    more = (shape.total - shape.kept) // shape.width

    def unsettled(now: _Pairs) -> Bool[Array, ""]:
        return (now.step < max_steps) & (now.residual[0] > allowed)

    def restart(now: _Pairs) -> _Pairs:
        space = extended(rows, now.vectors, now.image, now.block, more)
        return _within(space, rows, shape.kept, now.step + 1)

    begin = first_block(d, shape.width, dtype)
    if rows.erasure is not None:
        gone = _unit(rows.erasure.reader)
        begin = qr(begin - gone[:, None] * matmul(gone, begin)[None])[0]
    nothing = jnp.zeros((d, 0), dtype), jnp.zeros((2 * len(rows.apart), 0), dtype)
    space = extended(rows, *nothing, begin, shape.total // shape.width)
    return jax.lax.while_loop(unsettled, restart, _within(space, rows, shape.kept, jnp.asarray(0)))


def fit_spectral(
    pairs: Pairs,
    normaliser: Normaliser,
    asked: SpectralWeights,
    *,
    weights: Float[Array, " n"] | None = None,
    items: Int[Array, " n"] | None = None,
    clusters: Int[Array, " n"] | None = None,
    erasure: Erasure | None = None,
    max_steps: int = 20,
) -> tuple[LinearProbe, SpectralInfo]:
    """The unit w of the largest w^T (a V - g K - b J) w over the weighted rows.

    PCA of the differences (CRC-TPC; Burns et al. 2022) is a = g = 1; VINC (Mallen & Belrose 2023)
    has all three; DRC (Schouten & Bloem 2025) is g alone; Fry (2023) minimises
    h mean (w . m)^2 - (1 - h) mean (w . d)^2, which is a = 2 - 2.5 h and g = 2 - 1.5 h.

    The largest loading (in absolute value; the first of equals) is positive.

    Args:
        pairs: hidden states [n, d], without a large common mean.
        normaliser: applied to them; fitted on the weighted rows.
        asked: a, g and b.
        weights: row weights [n]; 0 and 1 choose a subset.
        items: which item (below n) each row is a wording of; None = each has one.
        clusters: the number of each row's cluster (below n), whose own mean is taken off; negative
            for a row of none. None = there are none.
        erasure: what is erased from the rows before, and from whatever the probe reads.
        max_steps: cap on the restarts of the Krylov space.

    Returns:
        The probe, of unknown sign, and how the search went. Where something is erased its weights
        are those of the rows as they were, and not of length 1.
    """
    pairs = with_full_floats(pairs)
    (n, d), dtype = pairs.pos.shape, pairs.pos.dtype
    weights = jnp.ones(n, dtype) if weights is None else weights
    share = (weights / weights.sum()).astype(dtype)
    asked = SpectralWeights(*(jnp.asarray(value, dtype) for value in asked))
    rows = _Rows(
        *contrast(*pairs), *contrast_scales(normaliser), share, asked, items, clusters, erasure
    )
    shape = Shape.of(2)
    # The space would be as large as all there is.
    whole = d <= shape.total
    found = _whole(rows, min(2, d)) if whole else _search(rows, shape, max_steps)
    unit = signed_units(found.vectors[:, :1], jnp.ones(1, bool))[:, 0]
    error = jnp.linalg.norm(rows.gather(rows.project(unit[:, None]))[:, 0] - found.values[0] * unit)
    largest = jnp.maximum(jnp.abs(found.values).max(), jnp.finfo(dtype).tiny)
    weight = unit if erasure is None else erasure.fold(unit[:, None])[:, 0]
    finite = jnp.isfinite(weight).all() & jnp.isfinite(found.values[0])
    second = found.values[min(1, d - 1)]
    info = SpectralInfo(found.values[0], second, error / largest, found.step, finite)
    return unbiased(weight), info
