"""The fast way to the components of many runs: products of rows, and Lanczos without restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.pairs import Pairs
from jelicit.probes import gram
from jelicit.probes.lanczos import leading_eigenpairs, space_sizes
from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import contrast, contrast_scales, fit_normaliser
from jelicit.probes.sweep import SweepData, SweepResult, fitting, sweep

Q, COUNT = 340, 8
MATRICES = ("flat", "fast", "low rank", "nothing")


def matrix(kind: str) -> np.ndarray:
    """Symmetric [Q, Q], nowhere negative."""
    rng = np.random.default_rng(0)
    width = {"low rank": 30, "nothing": 1}.get(kind, Q)
    rows = rng.normal(size=(Q, width))
    if kind == "fast":
        rows *= 10 ** (-3.5 * np.arange(Q) / COUNT)
    return np.zeros((Q, Q)) if kind == "nothing" else rows @ rows.T


@pytest.fixture(scope="module")
def found():
    """The leading pairs of all these matrices, found side by side."""
    with jax.enable_x64(True):
        search = jax.vmap(lambda K: leading_eigenpairs(K, COUNT, max_steps=5))
        stacked = jax.jit(search)(jnp.stack([matrix(kind) for kind in MATRICES]))
        return jax.tree.map(np.asarray, stacked)


@pytest.mark.parametrize("kind", MATRICES)
def test_eigenpairs_are_lapacks(found, kind):
    place, (values, vectors) = MATRICES.index(kind), np.linalg.eigh(matrix(kind))
    values, vectors = values[::-1][:COUNT], vectors[:, ::-1][:, :COUNT]
    ours = found.vectors[place]
    np.testing.assert_allclose(ours.T @ ours, np.eye(COUNT), atol=1e-12)
    np.testing.assert_allclose(found.values[place], values, atol=1e-13 * max(values[0], 1))
    there = values > 1e-12 * values[0]
    assert there.sum() == {"nothing": 0}.get(kind, COUNT)
    cosines = np.abs((ours * vectors).sum(axis=0))[there]
    np.testing.assert_allclose(cosines, 1, atol=1e-12)


def test_the_space_grows_where_no_eigenvalue_stands_apart(found):
    steps = dict(zip(MATRICES, found.steps.tolist(), strict=True))
    assert steps["flat"] > 0
    assert steps["fast"] == steps["low rank"] == 0


def test_sizes_end_at_the_cap_or_with_the_whole_matrix():
    assert space_sizes(10_000, 128, 2) == [384, 896, 1408]
    assert space_sizes(2048, 128, 5) == [384, 2048]
    assert space_sizes(100, 4, 5) == [100]
    assert space_sizes(400, 1, 0) == [96]


def test_what_is_not_found_within_the_cap_is_told_by_its_residual():
    with jax.enable_x64(True):
        found = leading_eigenpairs(jnp.asarray(matrix("flat")), COUNT, max_steps=0)
        assert int(found.steps) == 0
        assert float(found.residual.max()) > 1e-7


def test_products_of_a_pool_are_those_of_a_runs_rows():
    pairs, _, _ = planted(40, 30, seed=0, common=3.0)
    with jax.enable_x64(True):
        pairs = Pairs(*(jnp.asarray(sign, jnp.float64) for sign in pairs))
        weights = jnp.asarray(np.arange(40) % 3 == 0, jnp.float64)
        normaliser = fit_normaliser(pairs, weights, fitted_on="a third")
        places = jnp.asarray([*range(0, 40, 3), 1, 2])
        share = (weights / weights.sum())[places]
        apart, shared = contrast(*pairs.take(places))
        near, far = contrast_scales(normaliser)
        rows = apart * near[None] + shared * far[None]
        rows = jnp.sqrt(share)[:, None] * (rows - (share @ rows)[None])
        K = gram.pool_gram(pairs).of_run(places, share, (near[0], far[0]))
        size = float(jnp.abs(rows @ rows.T).max())
        np.testing.assert_allclose(K, rows @ rows.T, atol=1e-13 * size)
        exact = apart @ apart.T
        np.testing.assert_allclose(gram.gram(apart), exact, atol=1e-13 * float(exact.max()))


# --- in a sweep ----------------------------------------------------------------------------------

N, RUNS = 140, 8


def swept(d: int, **settings) -> SweepResult:
    hard, _, _ = planted(N, d, seed=0, strength=0.6)
    easy, easy_labels, _ = planted(40, d, seed=1)
    subsets = np.random.default_rng(0).random((RUNS, N)) < 0.6
    subsets[1] = np.arange(N) < 9  # far fewer rows than the others, and than members
    data = SweepData(
        hard={0: hard},
        layers=(0,),
        subsets=subsets,
        seeds=np.arange(RUNS),
        easy={0: easy},
        easy_labels=easy_labels,
    )
    methods = ("pca", "pca_ensemble_consensus", "pca_ensemble_e2h")
    return sweep(data, SweepConfig(methods=methods, ensemble_size=12, **settings))


def scores(result: SweepResult, d: int) -> dict[str, np.ndarray]:
    test, _, _ = planted(50, d, seed=2)
    return {name: np.asarray(found) for name, found in result.score(0, test).items()}


@pytest.fixture(scope="module")
def by_products() -> dict[str, SweepResult]:
    """Without copies of rows: through products with the hidden states of all rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "rows_copied", lambda *_: 0)
        wide, narrow = swept(200, scale_by_variance=True), swept(20)
        return {"wide": wide, "narrow": narrow, "std": swept(200, divisor="std")}


@pytest.mark.parametrize("pays", [True, False])
def test_copied_rows_give_the_same_members(by_products, monkeypatch, pays):
    made = []
    made_by = gram.pool_gram
    monkeypatch.setattr(gram, "pays", lambda *_: pays)
    monkeypatch.setattr(gram, "pool_gram", lambda pairs: made.append(1) or made_by(pairs))
    cases = {"wide": (200, {"scale_by_variance": True}), "narrow": (20, {})}
    cases["std"] = (200, {"divisor": "std"})
    for name, (d, settings) in cases.items():
        ours, theirs = swept(d, **settings), by_products[name]
        for method, expected in scores(theirs, d).items():
            spread = expected.std()
            np.testing.assert_allclose(scores(ours, d)[method], expected, atol=1e-5 * spread)
        for one, other in zip(ours.info["pca"], theirs.info["pca"], strict=True):
            assert one.shape == other.shape
        np.testing.assert_allclose(
            ours.info["pca"].explained, theirs.info["pca"].explained, atol=1e-6
        )
    # A scale of its own for every dimension is no product of the pool's.
    assert len(made) == 2 * pays


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("d", [20, 200])
def test_members_that_storing_has_rounded_away_are_absent_either_way(monkeypatch, d, copies):
    """Whether there is memory for copies of rows decides no member."""
    if not copies:
        monkeypatch.setattr(fitting, "rows_copied", lambda *_: 0)
    deviations = np.array([1.0, 1e-2, 1e-4, 1e-6, 1e-9])
    rng = np.random.default_rng(0)
    along = np.zeros((N, d), np.float32)
    along[:, :5] = np.linalg.qr(rng.normal(size=(N, 5)))[0] * deviations
    data = SweepData(
        hard={0: Pairs(along, -along)},
        layers=(0,),
        subsets=np.ones((1, N), bool),
        seeds=np.arange(1),
    )
    methods = ("pca", "pca_ensemble_consensus")
    info = sweep(data, SweepConfig(methods=methods, ensemble_size=7)).info
    weights = info["pca_ensemble_consensus"].member_weights[0, 0]
    np.testing.assert_allclose(np.abs(weights), [0.25] * 4 + [0] * 3, rtol=1e-6)
    explained = np.asarray(info["pca"].explained[0, 0, :4], np.float64)
    centred = np.linalg.svd(along - along.mean(axis=0, dtype=np.float64))[1][:4]
    np.testing.assert_allclose(np.sqrt(explained / explained[0]), centred / centred[0], rtol=0.01)


def test_rows_are_copied_only_where_the_budget_has_room(monkeypatch):
    seen, fit = [], fitting.fit_runs
    monkeypatch.setattr(gram, "pays", lambda *_: False)

    def watched(*args, family):
        seen.append(None if args[-1] is None else args[-1].shape)
        return fit(*args, family=family)

    monkeypatch.setattr(fitting, "fit_runs", watched)
    swept(20)
    # At most 94 rows in a run, filled up to 96; all eight at once.
    assert seen == [(RUNS, 96)]
    seen.clear()
    swept(20, memory_budget=290_000)
    assert set(seen) == {None}
