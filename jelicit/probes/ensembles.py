"""Ensembles of unlabelled probes: how members are weighted (paper A).

Consensus needs no labels; E2H uses those of the easy set.

Members are stacked probes, from `random_probe` or from `fit_components`. The ensemble is a probe:
`weighted_ensemble(members, weights)`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe, combine, score_folded
from jelicit.probes.losses import weighted_mean
from jelicit.probes.method import Data
from jelicit.probes.normalise import Normaliser, contrast, matmul
from jelicit.probes.settings import PerRun, count, flag, rate
from jelicit.probes.training import Rate


class EnsembleInfo(NamedTuple):
    """What went into an ensemble. Leading axes, if any, are stacked ensembles."""

    member_weights: Float[Array, "*batch m"]
    """Weight of each member in the score."""
    finite: Bool[Array, "*batch"]
    """Whether weights and members are finite."""


def member_scores(
    members: LinearProbe, normaliser: Normaliser, pairs: Pairs
) -> Float[Array, "m n"]:
    """Truth scores of m stacked members on pairs [n, d] without a large common mean."""
    return jax.vmap(lambda member: score_folded(member, normaliser, pairs))(members)


def present_members(members: LinearProbe) -> Bool[Array, " m"]:
    """Which of m stacked members have a direction at all; PCA runs out of them on few rows."""
    return (members.weight != 0).any(axis=-1)


def consensus_weights(
    scores: Float[Array, "m n"],
    rows: Float[Array, " n"],
    present: Bool[Array, " m"] | None = None,
) -> Float[Array, " m"]:
    """+1/m or -1/m per member: a member is flipped when it disagrees with those before it.

    Members enter in order. One that agrees in sign with the running mean of the entered scores on
    fewer than half of the (weighted) rows enters with -1, any other with +1. The first enters
    with +1. A score of zero counts as negative.

    Args:
        scores: truth scores of the members on the train rows.
        rows: row weights; 0 and 1 choose a subset.
        present: members to use; the others get 0.
    """
    present = jnp.ones(len(scores), bool) if present is None else present

    def enter(running, member):
        values, here = member
        agreement = weighted_mean(((values > 0) == (running > 0)).astype(values.dtype), rows)
        # The running sum has the sign of the running mean.
        begun = (running != 0).any()
        sign = jnp.where(begun & (agreement < 0.5), -1.0, 1.0) * here
        return running + sign * values, sign

    signs = jax.lax.scan(enter, jnp.zeros_like(scores[0]), (scores, present))[1]
    return signs / present.sum()


def e2h_weights(
    aurocs: Float[Array, " m"],
    *,
    temperature: Rate = 0.1,
    present: Bool[Array, " m"] | None = None,
) -> Float[Array, " m"]:
    """Softmax over members of (AUROC on the easy set - 0.5) / T; absent members get 0."""
    present = jnp.ones(len(aurocs), bool) if present is None else present
    return jax.nn.softmax((aurocs - 0.5) / temperature, where=present)


class Members(NamedTuple):
    """Stacked probes, and how they score train rows."""

    probes: LinearProbe
    scores: Float[Array, "m n"]
    rows: Float[Array, " n"]
    """Row weights."""

    def present(self) -> Bool[Array, " m"]:
        """Which have a direction at all; PCA runs out of them on few rows."""
        return present_members(self.probes)


def scale_by_variance(members: Members) -> Members:
    """Divide each member by the standard deviation of its scores over the (weighted) rows.

    A member whose scores do not vary stays as it is.
    """
    probes, scores, rows = members

    def deviation(values):
        mean = weighted_mean(values, rows)
        return jnp.sqrt(weighted_mean((values - mean) ** 2, rows))

    deviations = jax.vmap(deviation)(scores)
    divisor = jnp.where(deviations > 0, deviations, 1.0)
    scaled = LinearProbe(
        weight=probes.weight / divisor[:, None],
        bias=probes.bias / divisor,
        offset=probes.offset / divisor,
    )
    return Members(scaled, scores / divisor[:, None], rows)


def weighted_ensemble(
    members: LinearProbe, weights: Float[Array, " m"]
) -> tuple[LinearProbe, EnsembleInfo]:
    """The probe that scores sum_m weights_m * (member m's score), and its weights."""
    probe = combine(members, weights)
    finite = jnp.isfinite(probe.weight).all() & jnp.isfinite(weights).all()
    return probe, EnsembleInfo(weights, finite)


@dataclass(frozen=True, kw_only=True)
class MemberSettings:
    """Of all ensembles."""

    ensemble_size: int = count(
        128, help="Members of an ensemble; a PCA ensemble has at most min(N, d)."
    )
    scale_by_variance: bool = flag(
        False, help="Divide ensemble members by the standard deviation of their train scores."
    )


@dataclass(frozen=True, kw_only=True)
class EasyWeighting:
    """Of ensembles that weight their members by the easy set."""

    temperature: PerRun = rate(
        0.1, above=0, help="T of the softmax over (AUROC on the easy set - 0.5) / T, of ensembles."
    )


def scaled(members: Members, settings: MemberSettings) -> Members:
    """The members, divided by the deviations of their train scores where the settings say so."""
    return scale_by_variance(members) if settings.scale_by_variance else members


def by_consensus(members: Members, settings: MemberSettings) -> tuple[LinearProbe, EnsembleInfo]:
    """The ensemble whose members vote on each other's signs; see `consensus_weights`."""
    members = scaled(members, settings)
    weights = consensus_weights(members.scores, members.rows, members.present())
    return weighted_ensemble(members.probes, weights)


@dataclass(frozen=True, kw_only=True)
class EasyEnsembleSettings(MemberSettings, EasyWeighting):
    """Of ensembles that are weighted by the easy set."""


def by_easy_set(
    members: Members, data: Data, settings: EasyEnsembleSettings
) -> tuple[LinearProbe, EnsembleInfo]:
    """The ensemble whose members weigh by their AUROC on the easy set; see `e2h_weights`."""
    members = scaled(members, settings)
    easy, _, labels = data.easy_set()
    # Of pairs that are normalised already (by their own statistics), differences are all there is.
    differences = matmul(members.probes.weight, contrast(*easy).apart.T)
    aurocs = auroc(differences - members.probes.offset[:, None], labels)
    weights = e2h_weights(aurocs, temperature=settings.temperature, present=members.present())
    return weighted_ensemble(members.probes, weights)
