"""PCA ensembles against a decomposition in float64, on spectra as hidden states have them."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jelicit.data.subsets import class_share_rows
from jelicit.pairs import Pairs
from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.pca import fit_components
from jelicit.probes.sweep import SweepData, fitting, sweep

SHARES = (0.0, 0.01, 0.5, 1.0)
MEMBERS = 128
CONSENSUS, E2H = "pca_ensemble_consensus", "pca_ensemble_e2h"
TOLERANCE = 0.0002  # of AUROC; scores are float32, and few test rows have nearly the same


def deviations(spectrum: str, d: int) -> np.ndarray:
    """Standard deviations of the differences along d directions, largest first."""
    place = np.arange(d)
    return {
        # Variances over seven decades: the late ones are below float32's rounding of the first.
        "fast": 10 ** (-3.5 * place / MEMBERS),
        "power": 1 / (1 + place),
        # A few directions stand out of noise that is nearly alike in all others.
        "flat": np.where(place < 8, 3.0 / (1 + place), 0.1),
    }[spectrum]


@cache
def rotation(d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(6).normal(size=(d, d)))[0]


def drawn(n: int, d: int, spectrum: str, *, seed: int) -> tuple[Pairs, np.ndarray]:
    """Pairs whose difference has a spectrum, and the truth a share of the first 32 directions.

    What the signs share is larger than the difference, as the content of a prompt is.
    """
    rng, world = np.random.default_rng(seed), np.random.default_rng(5)
    basis = rotation(d)
    labels = rng.permutation(n) < n // 2
    along = rng.normal(size=(n, d)) * deviations(spectrum, d)
    truth = 0.3 * world.normal(size=32) * deviations(spectrum, d)[:32]
    along[:, :32] += np.where(labels, 1, -1)[:, None] * truth
    content = rng.normal(size=(n, 8)) @ world.normal(size=(8, d)) * 3 / np.sqrt(d)
    verdict = world.normal(size=d)
    # One sign is a little larger, so that its normaliser has another scale.
    pos, neg = 1.05 * content + along @ basis.T / 2 + verdict, content - along @ basis.T / 2
    return Pairs(pos.astype(np.float32), neg.astype(np.float32)), labels.astype(np.float64)


class Sets(NamedTuple):
    train: Pairs
    labels: np.ndarray
    test: Pairs
    test_labels: np.ndarray
    easy: Pairs
    easy_labels: np.ndarray
    subsets: np.ndarray


@cache
def sets(d: int, spectrum: str) -> Sets:
    parts = [drawn(n, d, spectrum, seed=seed) for seed, n in enumerate((800, 400, 300))]
    labels = parts[0][1]
    subsets = np.zeros((len(SHARES), len(labels)), bool)
    for run, share in enumerate(SHARES):
        subsets[run, class_share_rows(labels, share=share, seed=0)] = True
    return Sets(*parts[0], *parts[1], *parts[2], subsets)


# --- the same in float64 -------------------------------------------------------------------------


def differences(of: Pairs, statistics_of: Pairs) -> np.ndarray:
    """phi+' - phi-' by the statistics of some rows; paper A's divisor."""
    normalised = []
    for phi, rows in zip(of, statistics_of, strict=True):
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(axis=0)
        scale = np.linalg.norm(rows - mean, axis=1).mean() * rows.shape[1] ** 0.5
        normalised.append((np.asarray(phi, np.float64) - mean) / scale)
    return normalised[0] - normalised[1]


def components(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and the right vectors [d, k], the first largest loading of each positive."""
    _, values, vectors = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    vectors = vectors[:MEMBERS].T
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return values[:MEMBERS], vectors * np.sign(largest)


class Exact(NamedTuple):
    areas: dict[str, float]
    """AUROC on the test rows of both weightings."""
    signs: np.ndarray
    """Of the members in the consensus."""


def expected(data: Sets, run: int, *, scaled: bool, members: int = MEMBERS) -> Exact:
    own = data.train.take(data.subsets[run])
    train, test = differences(own, own), differences(data.test, own)
    vectors = components(train)[1][:, :members]
    on_train, on_test = train @ vectors, (test - train.mean(axis=0)) @ vectors
    if scaled:
        on_test, on_train = on_test / on_train.std(axis=0), on_train / on_train.std(axis=0)
    running, signs = np.zeros(len(train)), []
    for member in on_train.T:
        agreement = np.mean((member > 0) == (running > 0))
        signs.append(-1 if running.any() and agreement < 0.5 else 1)
        running = running + signs[-1] * member
    easy = differences(data.easy, data.easy) @ vectors
    areas = np.array([roc_auc_score(data.easy_labels, member) for member in easy.T])
    scores = {
        CONSENSUS: on_test @ np.array(signs),
        E2H: on_test @ np.exp((areas - 0.5) / 0.1),
    }
    areas = {name: float(roc_auc_score(data.test_labels, of)) for name, of in scores.items()}
    return Exact(areas, np.array(signs))


# --- the facts -----------------------------------------------------------------------------------


def measured(
    data: Sets, *, scaled: bool, members: int = MEMBERS
) -> list[tuple[dict[str, float], np.ndarray]]:
    """For every share, AUROC of our ensembles on the test rows and signs in the consensus."""
    methods = (CONSENSUS, E2H)
    result = sweep(
        SweepData(
            hard={0: data.train},
            layers=(0,),
            subsets=data.subsets,
            seeds=np.arange(len(SHARES)),
            easy={0: data.easy},
            easy_labels=data.easy_labels,
        ),
        SweepConfig(methods=methods, scale_by_variance=scaled, ensemble_size=members),
    )
    scores = result.score(0, data.test)
    signs = np.sign(result.info[CONSENSUS].member_weights[0])
    areas = [
        {name: float(roc_auc_score(data.test_labels, scores[name][run])) for name in methods}
        for run in range(len(SHARES))
    ]
    return list(zip(areas, signs, strict=True))


EACH_ONCE = [(128, "fast", False), (128, "power", True), (1024, "fast", True)]
EACH_ONCE += [(1024, "power", False), (1024, "flat", True)]
"""Every width, spectrum and scaling, not each with each: those are among the slow ones."""
SPECTRA = [(128, "fast"), (128, "power"), (1024, "fast"), (1024, "power"), (1024, "flat")]
SPECTRA += [(4096, "power"), (4096, "fast")]
EACH_WITH_EACH = [(*sizes, scaled) for sizes in SPECTRA for scaled in (False, True)]
CASES = [
    pytest.param(*case, marks=() if case in EACH_ONCE else pytest.mark.slow)
    for case in EACH_WITH_EACH
]


def compare(data: Sets, *, scaled: bool, members: int) -> None:
    ours = measured(data, scaled=scaled, members=members)
    for run, (areas, signs) in enumerate(ours):
        exact = expected(data, run, scaled=scaled, members=members)
        assert signs.tolist() == exact.signs.tolist(), SHARES[run]
        assert areas == pytest.approx(exact.areas, abs=TOLERANCE), SHARES[run]


@pytest.mark.parametrize(("d", "spectrum", "scaled"), CASES)
def test_ensembles_are_those_of_float64(d, spectrum, scaled):
    """Members without signal agree with those before them on half of the rows, some to the row.

    The sign of one score near zero then turns a member of the consensus, and with it some after it:
    float32 has 0.05 of AUROC wrong for it in these very runs.
    """
    compare(sets(d, spectrum), scaled=scaled, members=MEMBERS)


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("spectrum", ["power", "flat"])
def test_ensembles_from_a_krylov_space_are_those_of_float64(monkeypatch, spectrum, copies):
    # 16 of 256 components: the space has to be made larger, or without copies of rows begun anew.
    if not copies:
        monkeypatch.setattr(fitting, "rows_copied", lambda *_: 0)
    compare(sets(256, spectrum), scaled=True, members=16)


def test_what_a_sweep_gives_is_float32():
    data = sets(128, "power")
    subsets, one = data.subsets[:1], np.arange(1)
    sweep_data = SweepData(hard={0: data.train}, layers=(0,), subsets=subsets, seeds=one)
    result = sweep(sweep_data, SweepConfig(methods=("pca", CONSENSUS), ensemble_size=4))
    leaves = jax.tree.leaves((result.probes, result.info))
    assert {str(leaf.dtype) for leaf in leaves} <= {"float32", "int32", "bool"}


# Both ways: the whole decomposition and the Krylov space.
@pytest.mark.parametrize(("d", "spectrum"), [(128, "fast"), (1024, "fast"), (1024, "power")])
def test_every_component_is_found_with_its_sign(d, spectrum):
    data = sets(d, spectrum)
    pool = normalise(fit_normaliser(data.train, fitted_on="pool"), data.train)
    weights = jnp.asarray(data.subsets[2], jnp.float32)
    own = fit_normaliser(pool, weights, fitted_on="a run's rows")
    probes, info = fit_components(pool, own, weights=weights, count=MEMBERS)
    rows = data.train.take(data.subsets[2])
    values, vectors = components(differences(rows, rows))
    found = np.asarray(probes.weight, np.float64).T
    cosines = np.sum(found * vectors, axis=0)
    # The last deviations are a few thousandths of the first, neighbours a few per cent apart.
    # float32 rounds the differences to 6e-8 of the first: 1e-3 turns a vector by 5e-7 in cosine.
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    outside = np.linalg.norm(found - vectors @ (vectors.T @ found), axis=0)
    assert outside.max() < 0.01
    share = np.square(values) / np.square(np.linalg.norm(differences(rows, rows)))
    np.testing.assert_allclose(info.explained, share, rtol=2e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(MEMBERS), atol=1e-4)


def test_the_first_of_equal_loadings_is_positive():
    # Differences along (1, -1) alone: both loadings are as large.
    along = np.outer(np.arange(-4.0, 5.0), [1.0, -1.0]).astype(np.float32)
    pairs = Pairs(along, -along)
    probe = fit_components(pairs, fit_normaliser(pairs, fitted_on="all"), count=1)[0]
    np.testing.assert_allclose(probe.weight[0], np.array([1, -1]) / np.sqrt(2), rtol=1e-6)


def test_what_the_rows_lack_is_no_component():
    """Rounding has a direction, too; scaled by its variance it would count as much as any."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=(200, 10)) @ rng.normal(size=(10, 64))
    pairs = Pairs((5 + low).astype(np.float32), (3 - 0.7 * low).astype(np.float32))
    probes, info = fit_components(pairs, fit_normaliser(pairs, fitted_on="all"), count=40)
    present = np.asarray((probes.weight != 0).any(axis=1))
    assert present.tolist() == [True] * 10 + [False] * 30
    assert bool(jnp.all(info.finite))


def test_a_component_of_a_millionth_of_the_deviation_is_kept():
    """Its variance, 1e-12 of the first one's, is far below float32's rounding of that."""
    rng = np.random.default_rng(0)
    scales = np.array([1.0, 1e-2, 1e-4, 2e-6])
    along = np.zeros((300, 16))
    along[:, :4] = np.linalg.qr(rng.normal(size=(300, 4)))[0] * scales
    along -= along.mean(axis=0)
    pairs = Pairs(along.astype(np.float32), -along.astype(np.float32))
    probes, info = fit_components(pairs, fit_normaliser(pairs, fitted_on="all"), count=4)
    exact = np.linalg.svd(2 * along.astype(np.float32).astype(np.float64))[2][:4]
    cosines = np.sum(np.asarray(probes.weight, np.float64) * exact, axis=1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-3)
    ratio = np.sqrt(np.asarray(info.explained, np.float64) / float(info.explained[0]))
    np.testing.assert_allclose(ratio, scales, rtol=0.2)


def test_runs_share_the_hidden_states():
    """No run copies the pool's rows: a sweep's memory is not runs times the pool."""
    pairs, _ = drawn(700, 640, "power", seed=0)
    own = fit_normaliser(pairs, fitted_on="all")

    def one(weights):
        return fit_components(pairs, own, weights=weights, count=8)[0].weight

    text = jax.jit(jax.vmap(one)).lower(jnp.ones((7, 700))).as_text()
    assert "7x700x640" not in text
    assert "640x7x700" not in text
