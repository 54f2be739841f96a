"""The compiled program of pooled fits: hidden states are shared, never copied for a run, and rows
that no run uses are left out."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import planted

from jelicit.metrics import auroc
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.methods import PAPER, PEERS, SweepConfig
from jelicit.probes.normalise import fit_normaliser
from jelicit.probes.sweep import SweepData, SweepResult, fitting, prepare, sweep
from jelicit.probes.training import Descent

# Tests of the field's proposals have a file of their own.
CORE = (*PAPER, *PEERS)


def test_no_array_of_runs_by_rows_by_width_is_ever_made():
    n, d, runs = 37, 29, 11  # numbers that nothing else in the program has
    pairs, _, _ = planted(n, d, seed=0)
    pairs = jax.tree.map(jnp.asarray, pairs)

    def fit(key, weights):
        normaliser = fit_normaliser(pairs, weights, fitted_on="rows")
        descent = Descent(learning_rate=0.01, steps=3)
        return fit_ccs(key, pairs, normaliser, weights=weights, descent=descent)[0]

    keys = jax.random.split(jax.random.key(0), runs)
    compiled = jax.jit(jax.vmap(fit)).lower(keys, jnp.ones((runs, n))).compile().as_text()
    assert compiled is not None
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"f32\[([\d,]+)\]", compiled)}
    assert (n, d) in shapes or (d, n) in shapes
    sizes = {int(np.prod(shape)) for shape in shapes}
    assert runs * n in sizes
    assert runs * d in sizes
    assert max(sizes) <= max(n * d, runs * n, runs * d)


# --- a pool of which few rows are used -----------------------------------------------------------

# Wide enough for more components than the rows in use can give.
N, D, RUNS, USED = 601, 67, 3, 50
HARD, LABELS, _ = planted(N, D, seed=0, strength=0.7)
EASY, EASY_LABELS, _ = planted(40, D, seed=1)
CONFIG = SweepConfig(methods=CORE, ccs_steps=30, bce_steps=60, patience=20, ensemble_size=60)


def few_rows() -> SweepData:
    """Runs that share a twelfth of a pool; the other rows have no target."""
    rng = np.random.default_rng(0)
    rows, subsets = rng.permutation(N)[:USED], np.zeros((RUNS, N), bool)
    subsets[:, rows] = True
    for run in subsets:
        run[rng.permutation(rows)[:15]] = False
    return SweepData(
        hard={3: HARD},
        layers=(3,),
        subsets=subsets,
        seeds=np.arange(RUNS),
        hard_targets=np.where(subsets.any(axis=0), LABELS, np.nan),
        easy={3: EASY},
        easy_labels=EASY_LABELS,
    )


@pytest.fixture(scope="module")
def swept() -> tuple[SweepResult, dict[str, set[tuple[int, ...]]]]:
    """The sweep, and for each method the shapes of all arrays of its program."""
    shapes, fit = {}, fitting.fit_runs

    def watched(*args, family):
        compiled = fit.lower(*args, family=family).compile()
        text = compiled.as_text()
        assert text is not None
        found = re.findall(r"\b[a-z]+\d*\[([\d,]+)\]", text)
        for name in family.names:
            shapes[name] = {tuple(map(int, s.split(","))) for s in found}
        return compiled(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit_runs", watched)
        return sweep(few_rows(), CONFIG), shapes


def test_the_sweeps_programs_hold_no_row_that_no_run_uses(swept):
    _, shapes = swept
    # Fifty rows are filled up to 56. E2H and its kin have no hard rows at all.
    by_rows = {"ccs", "supervised", "mean_difference", "lda", "ue_e2h", "pca"}
    for method in (*by_rows, "random_ensemble_consensus"):
        assert any(56 in shape and D in shape for shape in shapes[method]), method
    for method, found in shapes.items():
        pool = {shape for shape in found if N in shape}
        # Supervised draws its held-out items with the pool's numbers: one per run and row.
        assert (not pool) == (method != "supervised"), method
        assert all(np.prod(shape) <= 2 * RUNS * N and D not in shape for shape in pool), pool


def test_probes_are_those_of_fits_on_all_rows(swept, monkeypatch):
    found, _ = swept
    monkeypatch.setattr(prepare, "kept_rows", lambda subsets: None)
    expected = sweep(few_rows(), CONFIG)
    test, labels, _ = planted(200, D, seed=5, strength=0.7)
    mine, theirs = (result.score(3, test) for result in (found, expected))
    for method in CORE:
        spread = float(np.std(theirs[method]))
        # Rounding changes how two items of the easy set stand in the scores of a faint component.
        near = (1e-3 if "pca_ensemble" in method else 1e-4) * spread
        np.testing.assert_allclose(mine[method], theirs[method], atol=near, err_msg=method)
        for one, other in zip(found.info[method], expected.info[method], strict=True):
            assert one.shape == other.shape
    # Early stopping held out the same items.
    for name in ("steps", "best_step"):
        one, other = (getattr(r.info["supervised"], name) for r in (found, expected))
        np.testing.assert_array_equal(one, other)
    assert np.asarray(auroc(mine["supervised"], jnp.asarray(labels))).min() > 0.8
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5),
        found.normalisers,
        expected.normalisers,
    )


@given(st.integers(2, 700), st.integers(2, 700), st.integers(0, 99))
def test_rows_in_use_are_kept_and_few_others(n, used, seed):
    used = min(n, used)
    rows = np.zeros((1, n), bool)
    rows[0, np.random.default_rng(seed).permutation(n)[:used]] = True
    kept = prepare.kept_rows(rows)
    if kept is None:
        assert used * 1.25 > 7 / 8 * n
    else:
        assert kept[rows[0]].all()
        assert used <= kept.sum() <= min(1.25 * used, 7 / 8 * n)


def test_pools_of_one_size_have_few_programs():
    sizes = {
        None if kept is None else int(kept.sum())
        for used in range(100, 801)
        if (kept := prepare.kept_rows(np.arange(800)[None] < used)) is None or kept.any()
    }
    assert sizes == {112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, None}
