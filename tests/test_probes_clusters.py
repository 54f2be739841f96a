"""Cluster normalisation: against explicit means per cluster, where a mark drowns the truth."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import HDBSCAN

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.clusters import ClusterSettings, clustered_logits, find_clusters
from jelicit.probes.files import FittedProbe
from jelicit.probes.kinds import NotLinearError
from jelicit.probes.linear import Affine, LinearProbe
from jelicit.probes.methods import SweepConfig, get_method
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.sweep import FitStore, SweepData, sweep

N, D, LAYER = 120, 8, 4
METHODS = ("cluster_pca", "cluster_ccs")


def marked(n: int, seed: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Half of the items bear a mark, as a word after the verdict: it sets their content apart, and
    moves the difference of the two states further than the truth does."""
    rng = np.random.default_rng(seed)
    labels, mark = np.arange(n) % 2 == 0, np.arange(n) % 4 < 2
    content = rng.normal(size=(n, D))
    content[:, 0] = 12.0 * (2 * mark - 1)
    half = np.zeros((n, D))
    half[:, 1] = 0.7 * (2 * labels - 1)
    half[:, 2] = 2.0 * (2 * mark - 1)
    pos, neg = (content + sign * half + 0.2 * rng.normal(size=(n, D)) for sign in (1, -1))
    return Pairs(pos.astype(np.float32), neg.astype(np.float32)), labels.astype(float), mark


TRAIN, LABELS, MARK = marked(N, 0)
TEST, TEST_LABELS, TEST_MARK = marked(80, 1)
ROWS = np.arange(N) % 5 != 0
DATA = SweepData(
    hard={LAYER: TRAIN}, layers=(LAYER,), subsets=np.stack([ROWS, ~ROWS]), seeds=np.arange(2)
)


def far(scores, labels) -> np.ndarray:
    """AUROC, whatever the sign."""
    area = np.asarray(auroc(jnp.asarray(scores), jnp.asarray(labels)))
    return np.maximum(area, 1 - area)


@pytest.fixture(scope="module")
def results():
    def swept(how, names):
        own = {"cluster_scores": how} if how else {}
        return sweep(DATA, SweepConfig(methods=names, ccs_steps=300, own=own))

    return {
        "": swept("", ("pca", "ccs")),
        "nearest": swept("nearest", METHODS),
        "global": swept("global", METHODS),
    }


def test_truth_is_found_where_pca_and_ccs_follow_the_mark(results):
    plain = results[""].score(LAYER, TEST)
    assert far(plain["pca"], TEST_LABELS).max() < 0.7
    assert far(plain["pca"], TEST_MARK).min() > 0.95
    found = results["nearest"].score(LAYER, TEST)
    assert far(found["cluster_pca"], TEST_LABELS).min() > 0.95
    assert far(found["cluster_ccs"], TEST_LABELS)[0] > 0.9
    assert far(found["cluster_pca"], TEST_MARK).max() < 0.7


def test_scores_are_those_of_pca_on_rows_less_the_means_of_their_clusters(results):
    normaliser = fit_normaliser(TRAIN.take(ROWS), fitted_on="rows")
    train, test = (
        [np.asarray(sign, float) for sign in normalise(normaliser, of)]
        for of in (TRAIN.take(ROWS), TEST)
    )
    clusters = (
        HDBSCAN(min_cluster_size=5)
        .set_params(copy=True)
        .fit_predict(sum(TRAIN.take(ROWS), np.zeros((ROWS.sum(), D))) / 2)
    )
    assert set(clusters) == {0, 1}  # no outlier: each row has a mean to lose
    middle, difference = (train[0] + train[1]) / 2, train[0] - train[1]
    centroids, shifts = (
        np.stack([X[clusters == c].mean(axis=0) for c in (0, 1)]) for X in (middle, difference)
    )
    w = np.linalg.svd(difference - shifts[clusters])[2][0]
    near = np.square((test[0] + test[1])[:, None] / 2 - centroids[None]).sum(-1).argmin(1)
    linear = (test[0] - test[1]) @ w
    wanted = {"nearest": linear - (shifts @ w)[near], "global": linear}
    for how, expected in wanted.items():
        found = np.asarray(results[how].score(LAYER, TEST)["cluster_pca"][0])
        sign = np.sign(found @ expected)
        np.testing.assert_allclose(sign * found, expected, atol=1e-4 * expected.std())


def test_the_logits_of_ccs_are_those_of_rows_less_the_means_of_their_clusters():
    rng = np.random.default_rng(0)
    clusters = rng.integers(-1, 3, N)
    weights = ROWS.astype(np.float32)
    normaliser = fit_normaliser(TRAIN, jnp.asarray(weights), fitted_on="rows")
    params = Affine(jnp.asarray(rng.normal(size=D), jnp.float32), jnp.asarray(0.3))
    found = clustered_logits(params, normaliser, TRAIN, jnp.asarray(clusters), jnp.asarray(weights))
    for mine, sign in zip(found, normalise(normaliser, TRAIN), strict=True):
        rows = np.array(sign)
        for cluster in range(3):
            of = clusters == cluster
            rows[of] -= rows[of & ROWS].mean(axis=0)
        wanted = rows @ np.asarray(params.weight) + 0.3
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


def test_clusters_are_of_chosen_rows_alone_and_blind_to_the_verdict():
    settings = ClusterSettings()
    found = find_clusters(TRAIN, ROWS, settings)
    assert (found[~ROWS] == -1).all()
    assert [len(set(MARK[found == c])) for c in (0, 1)] == [1, 1]
    np.testing.assert_array_equal(find_clusters(Pairs(TRAIN.neg, TRAIN.pos), ROWS, settings), found)
    few = np.arange(N) < settings.cluster_size
    assert (find_clusters(TRAIN, few, settings) == -1).all()


def test_one_direction_is_a_file_and_one_with_clusters_is_not(results):
    probe, normaliser = results["global"].probe("cluster_pca", layer=LAYER, run=0)
    assert isinstance(probe, LinearProbe)
    FittedProbe(probe=probe, normaliser=normaliser)
    with pytest.raises(NotLinearError, match="'cluster_pca' is a ClusteredProbe"):
        results["nearest"].probe("cluster_pca", layer=LAYER, run=0)


@pytest.mark.parametrize("how", ["global", "nearest"])
def test_kept_fits_of_either_kind_are_read_back(results, tmp_path, how):
    config = SweepConfig(methods=METHODS, own={"cluster_scores": how}, ccs_steps=300)
    for _ in range(2):  # made, then read back
        kept = sweep(DATA, config, store=FitStore(tmp_path)).score(LAYER, TEST)
        for method, values in results[how].score(LAYER, TEST).items():
            np.testing.assert_array_equal(kept[method], values)


def test_one_clustering_serves_all_seeds():
    asked = []

    def watched(pairs, rows, settings):
        asked.append(rows.tobytes())
        return find_clusters(pairs, rows, settings)

    method = dataclasses.replace(get_method("cluster_ccs"), name="mine", host=watched)
    data = dataclasses.replace(DATA, subsets=DATA.subsets[[0, 0, 1, 0]], seeds=np.arange(4))
    sweep(data, SweepConfig(methods=(method,), ccs_steps=2))
    assert sorted(asked) == sorted({ROWS.tobytes(), (~ROWS).tobytes()})
