"""Contrastive k-means (Farquhar et al. 2023): two clusters of the pairs' differences, no labels."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs
from jelicit.probes.discriminant import LabelledRows, labelled_rows
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Data, Method, Run
from jelicit.probes.normalise import Normaliser, matmul
from jelicit.probes.settings import count


class KMeansInfo(NamedTuple):
    """How the best start went. Leading axes, if any, are stacked fits."""

    between: Float[Array, "*batch"]
    """Variance of the centres, weighted by their rows: what is left of the differences' variance is
    k-means' own loss."""
    steps: Int[Array, "*batch"]
    """Times that the rows were dealt out anew."""
    settled: Bool[Array, "*batch"]
    """Whether the last time changed nothing."""
    finite: Bool[Array, "*batch"]
    """Whether the centres are finite."""


class _Centres(NamedTuple):
    first: Float[Array, " d"]
    second: Float[Array, " d"]

    def direction(self) -> Float[Array, " d"]:
        return self.second - self.first

    def threshold(self) -> Float[Array, ""]:
        return (matmul(self.second, self.second) - matmul(self.first, self.first)) / 2


class _Lloyd(NamedTuple):
    centres: _Centres
    member: Bool[Array, " n"]
    step: Int[Array, ""]
    settled: Bool[Array, ""]


def _mean_of(rows: LabelledRows, member: Bool[Array, " n"]) -> Float[Array, " d"]:
    """Mean difference of the rows of a cluster."""
    share = jnp.where(member, rows.share, 0.0).sum()
    chosen = member / jnp.where(share > 0, share, 1.0)
    return rows.gather(chosen, -chosen)


def _of_second(rows: LabelledRows, centres: _Centres) -> Bool[Array, " n"]:
    """Which rows are nearer to the second centre."""
    pos, neg = rows.project(centres.direction())
    return pos - neg > centres.threshold()


def _lloyd(rows: LabelledRows, begin: _Centres, max_steps: int) -> _Lloyd:
    """Lloyd 1982: deal the rows out to the nearer centre, take the means, until nothing changes."""

    def step(now: _Lloyd) -> _Lloyd:
        centres = _Centres(_mean_of(rows, ~now.member), _mean_of(rows, now.member))
        member = _of_second(rows, centres)
        same = jnp.where(rows.share > 0, member == now.member, True).all()
        return _Lloyd(centres, member, now.step + 1, same)

    first = _Lloyd(begin, _of_second(rows, begin), jnp.asarray(0), jnp.asarray(False))
    return jax.lax.while_loop(lambda now: ~now.settled & (now.step < max_steps), step, first)


def _two_rows(
    key: Array, rows: LabelledRows, kept: Bool[Array, " pool"] | None
) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Two of the weighted rows, drawn by their numbers in the pool."""
    n = len(rows.share)
    if kept is None:
        draws = jax.random.uniform(key, (n,))
    else:
        draws = jax.random.uniform(key, kept.shape)[jnp.flatnonzero(kept, size=n)]
    draws = jnp.where(rows.share > 0, draws, jnp.inf)
    one, other = jnp.argsort(draws)[:2]
    places = jnp.arange(n)
    return places == one, places == other


def fit_kmeans(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    *,
    weights: Float[Array, " n"] | None = None,
    kept: Bool[Array, " pool"] | None = None,
    starts: int = 10,
    max_steps: int = 300,
) -> tuple[LinearProbe, KMeansInfo]:
    """Two means c0 and c1 of d = phi+' - phi-' over the weighted rows; score by the nearer one.

    |d - c0|^2 - |d - c1|^2 is linear in d: w = c1 - c0 with the offset (|c1|^2 - |c0|^2) / 2.
    The source reports clusters and accuracies alone; the score is ours.

    Args:
        key: seeds the starts, each from two rows drawn at random.
        pairs: hidden states [n, d], without a large common mean.
        normaliser: applied to them; fitted on the weighted rows.
        weights: row weights [n]; 0 and 1 choose a subset.
        kept: which rows of a pool these are; see `validation_rows`.
        starts: how many; the tightest clusters win.
        max_steps: cap on the steps of each.

    Returns:
        The probe, of unknown sign, and how the best start went.
    """
    rows = labelled_rows(pairs, normaliser, weights)

    def one(key: Array) -> tuple[_Lloyd, Float[Array, ""]]:
        first, second = _two_rows(key, rows, kept)
        found = _lloyd(rows, _Centres(_mean_of(rows, first), _mean_of(rows, second)), max_steps)
        of_second = jnp.where(found.member, rows.share, 0.0).sum()
        first, second = (jnp.square(centre).sum() for centre in found.centres)
        return found, (1 - of_second) * first + of_second * second

    found, between = jax.vmap(one)(jax.random.split(key, starts))
    best = jnp.argmax(between)
    found = jax.tree.map(lambda leaf: leaf[best], found)
    weight, offset = found.centres.direction(), found.centres.threshold()
    finite = jnp.isfinite(weight).all() & jnp.isfinite(offset)
    probe = LinearProbe(weight=weight, bias=jnp.zeros_like(offset), offset=offset)
    return probe, KMeansInfo(between[best], found.step, found.settled, finite)


@dataclass(frozen=True, kw_only=True)
class KMeansSettings:
    """Of contrastive k-means."""

    kmeans_starts: int = count(10, help="Starts of k-means; the tightest clusters win.")
    kmeans_steps: int = count(300, help="Cap on the steps of each start of k-means.")


def _fit(run: Run, data: Data, settings: KMeansSettings) -> tuple[LinearProbe, KMeansInfo]:
    return fit_kmeans(
        run.key,
        data.hard,
        run.normaliser,
        weights=run.rows,
        kept=data.kept,
        starts=settings.kmeans_starts,
        max_steps=settings.kmeans_steps,
    )


KMEANS = Method(
    name="kmeans",
    title="Contrastive k-means",
    group=UNSUPERVISED,
    fit=_fit,
    free_sign=True,
    source="Farquhar et al. 2023 (arXiv 2312.10029), section 3",
    settings=KMeansSettings,
    info=KMeansInfo,
    # A row between two centres may change sides with a last digit.
    double=True,
    vectors=lambda settings: 12 + 6 * settings.kmeans_starts,
)
