"""What every method that others of the field proposed has to keep to, in a sweep of all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.method import EASY, TARGETS
from jelicit.probes.methods import METHODS, PROPOSALS, SweepConfig, get_method, needing
from jelicit.probes.sweep import FitStore, SweepData, prepare, sweep

N, D, LAYER = 90, 10, 2
LABELLED = set(needing(PROPOSALS, TARGETS))
CONFIG = SweepConfig(methods=PROPOSALS, ccs_steps=60)
HARD, LABELS, _ = planted(N, D, seed=0, strength=2.0)
TEST, TEST_LABELS, _ = planted(50, D, seed=5, strength=2.0)


def data(pairs: Pairs = HARD, labels: np.ndarray = LABELS) -> SweepData:
    """Runs 0 and 1 differ in the seed alone, 1 and 2 in the subset alone."""
    subsets = np.random.default_rng(0).random((3, N)) < 0.5
    subsets[1] = subsets[0]
    subsets[:, -20:] = False
    return SweepData(
        hard={LAYER: pairs},
        layers=(LAYER,),
        subsets=subsets,
        seeds=np.array([0, 1, 1]),
        hard_targets=labels,
    )


def scores(
    of: SweepData, test: Pairs = TEST, config: SweepConfig = CONFIG
) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in sweep(of, config).score(LAYER, test).items()}


@pytest.fixture(scope="module")
def found() -> dict[str, np.ndarray]:
    return scores(data())


def alike(one: np.ndarray, other: np.ndarray, method: str) -> None:
    spread = float(np.std(other))
    assert spread > 0, method
    np.testing.assert_allclose(one, other, atol=2e-3 * spread, err_msg=method)


def test_they_are_in_no_study_unless_asked_for():
    assert not set(PROPOSALS) & set(METHODS)
    assert not [name for name in PROPOSALS if EASY in get_method(name).needs]


@pytest.mark.parametrize("method", PROPOSALS)
def test_a_planted_truth_is_found(found, method):
    areas = np.asarray(auroc(jnp.asarray(found[method]), jnp.asarray(TEST_LABELS)))
    assert np.maximum(areas, 1 - areas).min() > 0.9
    if not get_method(method).free_sign:
        assert areas.min() > 0.9


@pytest.mark.parametrize("method", PROPOSALS)
def test_a_fit_depends_on_the_seed_only_where_it_says_so(found, method):
    same = np.array_equal(found[method][0], found[method][1])
    assert same != get_method(method).by_seed
    assert not np.array_equal(found[method][1], found[method][2])


def test_the_same_seeds_give_the_same_numbers(found):
    again = scores(data())
    for method in PROPOSALS:
        np.testing.assert_array_equal(again[method], found[method], err_msg=method)


@pytest.mark.slow
def test_other_runs_and_rows_that_no_run_uses_have_no_say(found, monkeypatch):
    assert prepare.kept_rows(data().subsets) is not None
    monkeypatch.setattr(prepare, "kept_rows", lambda subsets: None)
    alone = dataclasses.replace(data(), subsets=data().subsets[[2]], seeds=data().seeds[[2]])
    one = scores(alone)
    for method in PROPOSALS:
        alike(one[method][0], found[method][2], method)


def test_labels_reach_those_alone_that_learn_from_them(found):
    permuted = scores(data(labels=np.random.default_rng(1).permutation(LABELS)))
    for method in PROPOSALS:
        same = np.array_equal(permuted[method], found[method])
        assert same == (method not in LABELLED), method


def test_verdicts_that_change_places_turn_scores_round(found):
    other = scores(data(Pairs(HARD.neg, HARD.pos), 1 - LABELS), Pairs(TEST.neg, TEST.pos))
    for method in PROPOSALS:
        for mine, theirs in zip(other[method], found[method], strict=True):
            sign = np.sign(np.dot(mine, theirs)) if get_method(method).free_sign else -1
            alike(sign * mine, theirs, method)


def test_kept_fits_are_read_back(found, tmp_path):
    for _ in range(2):
        kept = sweep(data(), CONFIG, store=FitStore(tmp_path)).score(LAYER, TEST)
        jax.tree.map(np.testing.assert_array_equal, kept, found)
    assert len(list(tmp_path.glob("*.npz"))) == len(PROPOSALS)


@pytest.mark.slow
def test_a_divisor_per_dimension_will_do():
    # Those that fold a scale into something of their own.
    methods = ("vinc", "kmeans", "cluster_pca", "mlp")
    config = SweepConfig(methods=methods, divisor="std", own={"cluster_scores": "nearest"})
    found = scores(data(), config=config)
    for method, values in found.items():
        areas = np.asarray(auroc(jnp.asarray(values), jnp.asarray(TEST_LABELS)))
        assert np.maximum(areas, 1 - areas).min() > 0.9, method


def test_wordings_reach_vinc_alone(found, tmp_path):
    # Three wordings of each item, by any name; rows in use are fewer than those of the pool.
    names = np.array([f"item {number // 3}" for number in range(N)])
    told = dataclasses.replace(data(), wordings=names)
    other = scores(told)
    for method in PROPOSALS:
        assert np.array_equal(other[method], found[method]) == (method != "vinc"), method
    # Another name for every item is the same fit, and a unit of its own it is not.
    again = dataclasses.replace(told, wordings=np.arange(N) // 3)
    config = dataclasses.replace(CONFIG, methods=("vinc",))
    for each in (told, again, data()):
        sweep(each, config, store=FitStore(tmp_path))
    assert len(list(tmp_path.glob("*.npz"))) == 2
    with pytest.raises(ValueError, match=r"wordings has shape \(3,\)"):
        scores(dataclasses.replace(data(), wordings=np.arange(3)))
