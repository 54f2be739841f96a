"""Cluster normalisation (Laurito et al. 2024) before PCA and CCS: no labels.

Rows are clustered by their content, and each sign loses the mean of its own cluster in place of
that of all rows: a feature that is salient because it sets clusters apart is no longer there.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jelicit.method_groups import UNSUPERVISED
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.groups import group_means
from jelicit.probes.linear import Affine, LinearProbe, Signs, logits, score_folded
from jelicit.probes.losses import ccs_loss
from jelicit.probes.method import Data, Method, Run
from jelicit.probes.negation import VECTORS, SpectralSettings
from jelicit.probes.normalise import Normaliser, contrast, contrast_scales, matmul
from jelicit.probes.pytree import frozen_pytree
from jelicit.probes.settings import choice, count
from jelicit.probes.spectral import SpectralInfo, SpectralWeights, fit_spectral
from jelicit.probes.training import TrainingInfo, best_of, descend, start, to_probe
from jelicit.probes.training_settings import CCSTraining, vectors_trained

_SOURCE = "Laurito et al. 2024 (arXiv 2407.18712), before "


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Of cluster normalisation."""

    cluster_size: int = count(5, least=2, help="Least rows of a cluster, of HDBSCAN.")
    cluster_scores: str = choice(
        "global",
        ("global", "nearest"),
        help="Whose mean a row that is scored loses: that of all train rows, as the released code "
        "has it, or that of the nearest cluster, as in the fit.",
    )


def find_clusters(pairs: Pairs, rows: np.ndarray, settings: ClusterSettings) -> np.ndarray:
    """The number of each row's cluster [n] by HDBSCAN (Campello et al. 2013); -1 for none.

    Of the middles of the two signs, so that verdict and truth have no say, by Euclidean distance.
    Rows that are not chosen, and outliers, are in none.

    Args:
        pairs: hidden states [n, d].
        rows: which are chosen, bool [n].
        settings: how small a cluster may be.
    """
    # Here, because it takes a second to import and few methods need it.
    from sklearn.cluster import HDBSCAN

    found = np.full(len(rows), -1, np.int32)
    if rows.sum() <= settings.cluster_size:
        return found
    pos, neg = (np.asarray(sign)[rows] for sign in pairs)
    search = HDBSCAN(min_cluster_size=settings.cluster_size).set_params(copy=False)
    found[rows] = search.fit_predict((pos.astype(np.float64) + neg) / 2)
    return found


@frozen_pytree()
@dataclass(frozen=True, kw_only=True)
class ClusteredProbe:
    """A direction whose scores lose the mean score of the nearest cluster."""

    weight: Float[Array, "*batch d"]
    offset: Float[Array, "*batch"]
    centroids: Float[Array, "*batch c d"]
    """Means of the normalised middles of the rows; 0 where there is no cluster."""
    shifts: Float[Array, "*batch c"]
    """Mean score of each cluster's train rows; 0 where there is no cluster."""
    present: Float[Array, "*batch c"]
    """1 for each cluster that there is, and 0 to fill up."""

    def score(self, normaliser: Normaliser, pairs: Pairs) -> Float[Array, " n"]:
        """Truth scores: w . d - offset - the shift of the cluster nearest to the row's middle."""
        zero = jnp.zeros_like(self.offset)
        linear = LinearProbe(weight=self.weight, bias=zero, offset=self.offset)
        # Of squared distances, what does not depend on the cluster says nothing.
        near = jnp.square(self.centroids).sum(axis=1)[None]
        near = near - 2 * _middles_at(normaliser, pairs, self.centroids)
        near = jnp.where(self.present[None] > 0, near, jnp.inf)
        return score_folded(linear, normaliser, pairs) - self.shifts[near.argmin(axis=1)]


def _middles_at(
    normaliser: Normaliser, pairs: Pairs, V: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """(phi+' + phi-') / 2 times each vector, without a normalised copy."""
    hidden, (near, far) = contrast(*pairs), contrast_scales(normaliser)
    mean = contrast(normaliser.mean_pos, normaliser.mean_neg)
    near, far = near[:, None] * V.T, far[:, None] * V.T / 4
    constant = matmul(mean.shared, near) + matmul(mean.apart, far)
    return matmul(hidden.shared, near) + matmul(hidden.apart, far) - constant[None]


def _with_shifts(
    probe: LinearProbe, run: Run, data: Data, settings: ClusterSettings
) -> LinearProbe | ClusteredProbe:
    """The probe as it scores rows of a cluster that it has to find."""
    if settings.cluster_scores == "global":
        return probe
    pairs = with_full_floats(data.hard)
    n = len(pairs.pos)
    size = max(1, (n if data.kept is None else len(data.kept)) // settings.cluster_size)
    member = jax.nn.one_hot(run.host, size, dtype=pairs.pos.dtype) * run.rows[:, None]
    total = member.sum(axis=0)
    member = member / jnp.where(total > 0, total, 1.0)[None]
    hidden, (near, far) = contrast(*pairs), contrast_scales(run.normaliser)
    mean = contrast(run.normaliser.mean_pos, run.normaliser.mean_neg)
    shared = matmul(member.T, hidden.shared) - mean.shared[None]
    apart = matmul(member.T, hidden.apart) - mean.apart[None]
    present = (total > 0).astype(pairs.pos.dtype)
    return ClusteredProbe(
        weight=probe.weight,
        offset=probe.offset,
        centroids=present[:, None] * (shared * near[None] + apart * far[None] / 4),
        shifts=matmul(member.T, score_folded(probe, run.normaliser, pairs)),
        present=present,
    )


@dataclass(frozen=True, kw_only=True)
class ClusterPCASettings(SpectralSettings, ClusterSettings):
    """Of PCA after cluster normalisation."""


def _pca(run: Run, data: Data, settings: ClusterPCASettings):
    probe, info = fit_spectral(
        data.hard,
        run.normaliser,
        SpectralWeights(1.0, 1.0),
        weights=run.rows,
        clusters=run.host,
        max_steps=settings.spectral_steps,
    )
    return _with_shifts(probe, run, data, settings), info


CLUSTER_PCA = Method(
    name="cluster_pca",
    title="Cluster-normalised PCA",
    group=UNSUPERVISED,
    fit=_pca,
    host=find_clusters,
    probe=ClusteredProbe,
    free_sign=True,
    source=f"{_SOURCE}CRC",
    settings=ClusterPCASettings,
    info=SpectralInfo,
    by_seed=False,
    double=True,
    vectors=VECTORS,
)


@dataclass(frozen=True, kw_only=True)
class ClusterCCSSettings(CCSTraining, ClusterSettings):
    """Of CCS after cluster normalisation."""


def clustered_logits(
    params: Affine,
    normaliser: Normaliser,
    pairs: Pairs,
    clusters: Int[Array, " n"],
    weights: Float[Array, " n"],
    precision: str = "float32",
) -> Signs:
    """s(phi+') and s(phi-') of rows whose signs lost the mean of their cluster."""

    def less_mean(found: Float[Array, " n"]) -> Float[Array, " n"]:
        linear = (found - params.bias)[:, None]
        return found - group_means(linear, clusters, weights)[:, 0]

    pos, neg = logits(params, normaliser, pairs, precision)
    return less_mean(pos), less_mean(neg)


def _ccs(run: Run, data: Data, settings: ClusterCCSSettings):
    descent = settings.ccs_descent()
    d, dtype = data.hard.pos.shape[1], data.hard.pos.dtype

    def objective(params: Affine) -> Float[Array, ""]:
        found = clustered_logits(
            params, run.normaliser, data.hard, run.host, run.rows, descent.precision
        )
        return ccs_loss(*found, run.rows)

    params, info = best_of(
        lambda key: descend(objective, start(key, d, dtype), descent),
        run.key,
        restarts=settings.restarts,
    )
    return _with_shifts(to_probe(params), run, data, settings), info


CLUSTER_CCS = Method(
    name="cluster_ccs",
    title="Cluster-normalised CCS",
    group=UNSUPERVISED,
    fit=_ccs,
    host=find_clusters,
    probe=ClusteredProbe,
    free_sign=True,
    source=f"{_SOURCE}CCS",
    settings=ClusterCCSSettings,
    info=TrainingInfo,
    # So that what it changes is the normalisation alone, and not the start.
    stream="ccs",
    vectors=lambda settings: 300 + vectors_trained(settings),
)
