import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.config import SWEEP_SETTINGS
from jelicit.probes.linear import score
from jelicit.probes.method import Data
from jelicit.probes.methods import PAPER, PEERS, SweepConfig
from jelicit.probes.sweep import SweepData, check_config, fitting, prepare, sweep, sweeping
from jelicit.probes.sweep.family import chunks, families

# Tests of the field's proposals have a file of their own.
CORE = (*PAPER, *PEERS)

N, D, E, R = 90, 24, 50, 5
LAYERS = (3, 7)
LABELLED = {"supervised", "mean_difference", "lda"}
# Few steps: these tests are about runs and not about training. The ensembles are small.
CONFIG = SweepConfig(methods=CORE, ccs_steps=40, bce_steps=60, patience=10, ensemble_size=12)


def two_layers(n: int, *, seed: int, common: float) -> tuple[dict[int, Pairs], np.ndarray]:
    pairs, labels, _ = planted(n, D, seed=seed, strength=0.7, common=common)
    mixed = np.random.default_rng(77).normal(size=(D, D)).astype(np.float32)
    return {3: pairs, 7: Pairs(pairs.pos @ mixed, pairs.neg @ mixed)}, labels


def draw_subsets(seed: int) -> np.ndarray:
    subsets = np.random.default_rng(seed).random((R, N)) < 0.6
    subsets[1] = subsets[0]  # runs 0 and 1 differ in the seed alone, 1 and 2 in the subset alone
    return subsets


HARD, LABELS = two_layers(N, seed=0, common=5.0)
EASY, EASY_LABELS = two_layers(E, seed=1, common=1.0)
SUBSETS = draw_subsets(0)
SEEDS = np.array([0, 1, 1, 2, 3])
DATA = SweepData(
    hard=HARD,
    layers=LAYERS,
    subsets=SUBSETS,
    seeds=SEEDS,
    hard_targets=LABELS,
    easy=EASY,
    easy_labels=EASY_LABELS,
)


@pytest.fixture(scope="module")
def result():
    return sweep(DATA, CONFIG)


@pytest.fixture(scope="module")
def scores(result):
    return {layer: result.score(layer, HARD[layer]) for layer in LAYERS}


def assert_close(found, expected, tolerance=1e-3):
    """Scores alike up to a share of their spread: matmuls of other shapes sum in another order,
    and tens of steps of training make that grow."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, atol=tolerance * float(np.std(expected)))


def one_run(data: SweepData, run: int, layer: int) -> SweepData:
    return dataclasses.replace(
        data, layers=(layer,), subsets=data.subsets[[run]], seeds=data.seeds[[run]]
    )


def test_a_sweep_is_its_runs_one_by_one(scores):
    for run, layer in ((0, 3), (2, 3), (4, 7)):
        alone = sweep(one_run(DATA, run, layer), CONFIG).score(layer, HARD[layer])
        assert set(alone) == set(CORE)
        for method in CORE:
            assert_close(scores[layer][method][run], alone[method][0])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.int32])
def test_every_method_computes_with_hidden_states_of_any_precision_as_with_float32(dtype):
    # A row's norm is above 256: in float16 its square overflows.
    hard, easy = (Pairs(*(100 * np.stack(pairs[3])).astype(dtype)) for pairs in (HARD, EASY))
    assert np.linalg.norm(hard.pos.astype(np.float32), axis=1).min() > 256
    found = [
        sweep(
            dataclasses.replace(DATA, layers=(3,), hard={3: of[0]}, easy={3: of[1]}), CONFIG
        ).score(3, of[0])
        for of in ((hard, easy), (_as_float32(hard), _as_float32(easy)))
    ]
    for method in CORE:
        np.testing.assert_array_equal(found[0][method], found[1][method])


def _as_float32(pairs: Pairs) -> Pairs:
    return Pairs(pairs.pos.astype(np.float32), pairs.neg.astype(np.float32))


def test_chunks_do_not_change_anything(scores):
    trained = ("ccs", "supervised", "ue_e2h", "random_ensemble_consensus")
    for methods, budget in ((trained, 17_000), (CORE, 240_000)):
        small = dataclasses.replace(CONFIG, methods=methods, memory_budget=budget)
        chunked = sweep(DATA, small).score(7, HARD[7])
        for method in methods:
            assert_close(scores[7][method], chunked[method])


def test_chunks_cover_the_runs_within_the_budget():
    cut = list(chunks(np.arange(10), bytes_each=100, budget=450))
    assert [(len(runs), count) for runs, count in cut] == [(4, 4), (4, 4), (4, 2)]
    assert np.concatenate([runs[:count] for runs, count in cut]).tolist() == list(range(10))
    assert len(list(chunks(np.arange(3), bytes_each=100, budget=199))) == 3


def test_rows_outside_a_subset_do_not_matter(scores):
    run = 2
    rows = np.flatnonzero(SUBSETS[run])
    sliced = dataclasses.replace(
        one_run(DATA, run, 3),
        hard={3: HARD[3].take(rows)},
        subsets=np.ones((1, len(rows)), bool),
    )
    # Supervised draws its validation rows from the pool, so its split depends on the pool's size;
    # its own tests compare slices at one split.
    methods = ("ccs", "pca", "ue_e2h", "random_ensemble_consensus")
    found = sweep(sliced, dataclasses.replace(CONFIG, methods=methods)).score(3, HARD[3])
    for method in methods:
        assert_close(scores[3][method][run], found[method][0])


def test_labels_of_the_task_reach_the_labelled_probes_alone(scores):
    rng = np.random.default_rng(0)
    permuted = dataclasses.replace(DATA, hard_targets=rng.permutation(LABELS))
    found = sweep(permuted, CONFIG).score(3, HARD[3])
    for method in CORE:
        same = np.array_equal(found[method], scores[3][method])
        assert same == (method not in LABELLED), method


def test_easy_labels_reach_no_purely_unsupervised_probe(scores):
    flipped = dataclasses.replace(DATA, easy_labels=1 - EASY_LABELS)
    found = sweep(flipped, CONFIG).score(3, HARD[3])
    for method in CORE:
        same = np.array_equal(found[method], scores[3][method])
        assert same == ("e2h" not in method), method


def test_runs_differ_where_their_seed_or_subset_enters(result):
    # Runs 0 and 1: another seed, one subset. Runs 1 and 2: one seed, another subset.
    by_seed = {"random", "ccs", "e2h", "supervised", "ue_e2h"} | {
        method for method in CORE if method.startswith("random")
    }
    by_subset = set(CORE) - {"random", "e2h", "random_ensemble_e2h"}
    for method in CORE:
        weight = result.probes[method].weight[0]
        assert (not np.array_equal(weight[0], weight[1])) == (method in by_seed), method
        if method != "random_ensemble_consensus":  # its few flips may well be the same
            assert (not np.array_equal(weight[1], weight[2])) == (method in by_subset), method


def test_every_probe_is_scored_by_its_runs_own_rows(result, scores):
    for method in ("e2h", "ccs", "pca_ensemble_e2h"):
        probe, normaliser = result.probe(method, layer=7, run=4)
        assert_close(score(probe, normaliser, HARD[7]), scores[7][method][4])
        rows = HARD[7].pos[SUBSETS[4]]
        # Entries of size 25, of which float32 keeps seven digits.
        np.testing.assert_allclose(normaliser.mean_pos, rows.mean(0), atol=1e-4)
        assert "layer 7, run 4" in normaliser.fitted_on
    stacked = jax.tree.map(lambda leaf: leaf[1, 4], result.normalisers)
    np.testing.assert_allclose(stacked.mean_pos, normaliser.mean_pos, rtol=1e-5, atol=1e-5)


def test_ensembles_of_the_sweep_weight_their_own_members(result):
    # Consensus weights are +-1/m, E2H weights a softmax that favours the better members.
    consensus = result.info["random_ensemble_consensus"].member_weights
    np.testing.assert_allclose(np.abs(consensus), 1 / 12, rtol=1e-6)
    softmax = np.asarray(result.info["pca_ensemble_e2h"].member_weights)
    np.testing.assert_allclose(softmax.sum(-1), 1, rtol=1e-5)
    # The strongest component is the truth direction (or its opposite): far from 1/12 either way.
    assert np.all((softmax[..., 0] > 0.3) | (softmax[..., 0] < 0.01))


def test_the_planted_direction_is_found_with_default_settings():
    config = SweepConfig(methods=("ccs", "pca", "e2h", "supervised", "ue_e2h"))
    hard, labels, _ = planted(200, D, seed=3)
    easy, easy_labels, _ = planted(100, D, seed=4, strength=1.0, common=1.0)
    data = SweepData(
        hard=lambda layer: hard,
        layers=(0,),
        subsets=np.arange(200) < np.array([[200], [100]]),
        seeds=np.array([0, 0]),
        hard_targets=labels,
        easy=lambda layer: easy,
        easy_labels=easy_labels,
    )
    test, test_labels, _ = planted(200, D, seed=5)
    for method, found in sweep(data, config).score(0, test).items():
        area = np.asarray(auroc(found, jnp.asarray(test_labels)))
        if method in ("ccs", "pca"):  # directions without a sign
            area = np.maximum(area, 1 - area)
        assert area.min() > 0.99, method


def test_variance_scaling_makes_e2h_ensembles_depend_on_the_subset():
    config = dataclasses.replace(CONFIG, methods=("random_ensemble_e2h",), scale_by_variance=True)
    weight = sweep(DATA, config).probes["random_ensemble_e2h"].weight[0]
    assert not np.array_equal(weight[1], weight[2])


def cached(function: Any) -> int:
    """How many shapes and static settings a jitted function has been compiled for."""
    return function._cache_size()


def test_the_same_shapes_compile_nothing_again(result):
    functions = (fitting.fit_runs, prepare.pooled, prepare.run_normalisers)
    before = [cached(function) for function in functions]
    hard, labels = two_layers(N, seed=50, common=3.0)
    easy, easy_labels = two_layers(E, seed=51, common=3.0)
    other = SweepData(
        hard=hard,
        layers=LAYERS,
        subsets=draw_subsets(54),  # its largest run has about as many rows
        seeds=SEEDS + 5,
        hard_targets=labels,
        easy=easy,
        easy_labels=easy_labels,
        rows_name="rows of another set",
    )
    rates = dataclasses.replace(
        CONFIG, ccs_learning_rate=0.02, weight_decay=0.0, easy_share=0.1, temperature=0.3
    )
    sweep(other, rates)
    assert [cached(function) for function in functions] == before
    sweep(other, dataclasses.replace(rates, methods=("ccs",), ccs_steps=41))
    assert cached(fitting.fit_runs) > before[0]


def most_elements(lowered: Any) -> int:
    """Size of the largest array in a compiled function."""
    text = lowered.compile().as_text()
    shapes = re.findall(r"\b(?:f32|f64|s32|u32|pred)\[([\d,]+)\]", text)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


@pytest.mark.parametrize("method", ["ccs", "supervised", "e2h", "ue_e2h", "pca"])
def test_no_array_holds_the_hidden_states_once_per_run(method):
    # PCA's Krylov space has 96 vectors: they have to be few beside the hidden states.
    n, d, runs = (640, 480, 96) if method == "pca" else (64, 48, 96)
    config = dataclasses.replace(CONFIG, methods=(method,))
    (family,) = families(config)
    pairs, labels, _ = planted(n, d, seed=0)
    hard, labels = Pairs(*map(jnp.asarray, pairs)), jnp.asarray(labels, jnp.float32)
    rows = jnp.ones((runs, n), bool)
    args = {"divisor": "paper"}
    statistics: Any = prepare.run_normalisers
    allowed = max(n * d, runs * max(n, d))
    assert most_elements(statistics.lower(hard, rows * 1.0, **args)) <= allowed
    lowered = fitting.fit_runs.lower(
        jnp.arange(runs, dtype=jnp.uint32),
        rows,
        statistics(hard, rows * 1.0, **args),
        Data(hard, labels, hard, labels),
        jnp.asarray(0),
        family.rates(config, runs),
        family=family,
    )
    # Largest by right: w, X w and their like; PCA's Krylov space. X itself has n d.
    vectors = 96 if method == "pca" else 2
    allowed = vectors * runs * max(n, d)
    assert allowed < runs * n * d / 4
    assert most_elements(lowered) <= allowed


def refuses(message: str, config: SweepConfig = CONFIG, **changes) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(dataclasses.replace(DATA, **changes), config)


def test_bad_data_is_refused_before_any_fit(monkeypatch):
    monkeypatch.setattr(sweeping, "fit_together", lambda *_: pytest.fail("fitting began"))
    broken = Pairs(HARD[7].pos.copy(), HARD[7].neg)
    broken.pos[5, 2] = np.nan
    names = [f"item{i}" for i in range(N)]
    refuses("'pos' of layer 7, row 5 .item 'item5'.", hard={**HARD, 7: broken}, hard_ids=names)
    refuses("hard pairs lack layer 9", layers=(3, 9))
    refuses("each once", layers=(3, 3))
    refuses("90 hard rows, but subsets has 80", subsets=SUBSETS[:, :80],
            hard_targets=LABELS[:80])  # fmt: skip
    refuses("holds 0 rows", subsets=SUBSETS & (np.arange(R) != 2)[:, None])
    refuses("seeds is int64 .4,.", seeds=SEEDS[:4])
    refuses("seeds run from -1", seeds=SEEDS - 1)
    thin = {layer: Pairs(pairs.pos[:, :8], pairs.neg[:, :8]) for layer, pairs in EASY.items()}
    refuses("easy pairs have d=8, hard pairs d=24", easy=thin)
    refuses("50 easy rows for 49", easy_labels=EASY_LABELS[1:])
    refuses("must hold 0 and 1, both", easy_labels=np.ones(E))
    refuses("'e2h', 'ue_e2h'.* easy is missing", easy=None)
    refuses("'supervised', 'mean_difference', 'lda'. learn from hard_targets", hard_targets=None)
    refuses("temperature has shape .2,.; give one number, or one for each of the 5 runs",
            dataclasses.replace(CONFIG, temperature=np.ones(2)))  # fmt: skip
    refuses("easy_share is -0.5", dataclasses.replace(CONFIG, easy_share=-0.5))
    refuses("memory_budget=1000 bytes; a run of 'random' takes about",
            dataclasses.replace(CONFIG, memory_budget=1000))  # fmt: skip
    refuses("Method 'cccs' is unknown. Did you mean 'ccs'. There are random, ccs, pca",
            dataclasses.replace(CONFIG, methods=("ccs", "cccs")))  # fmt: skip
    refuses("methods names 'ccs' twice", dataclasses.replace(CONFIG, methods=("ccs", "ccs")))
    refuses("methods is empty", dataclasses.replace(CONFIG, methods=()))
    refuses("own has 'momentum', which is no setting of ccs: they have none",
            dataclasses.replace(CONFIG, methods=("ccs",), own={"momentum": 0.1}))  # fmt: skip
    refuses("own has 'easy_share', a setting of the sweep itself",
            dataclasses.replace(CONFIG, own={"easy_share": 0.1}))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "allowed", "outside"),
    [
        ("ccs_learning_rate", [1e-4, 1], [0, -1, np.nan]),
        ("bce_learning_rate", [1e-4, 1], [0, -1]),
        ("validation_share", [0, 0.99], [1, 1 - 1e-12, -0.1]),
        ("weight_decay", [0, 2], [-1, np.inf, 1e300]),
        ("max_gradient_norm", [1e-4, 1e9], [0]),
        ("easy_share", [0, 1], [-0.5, 1.5, 20]),
        ("temperature", [0.01, 9], [0, 1e-60]),
        ("lda_shrinkage", [1e-3, 1], [0, 3]),
    ],
)
def test_rates_outside_their_range_are_refused(name, allowed, outside):
    for value in allowed:
        check_config(dataclasses.replace(CONFIG, **{name: value}))
    for value in outside:
        rates = np.array([allowed[0], value, allowed[1]])
        with pytest.raises(ValueError, match=re.escape(f"{name} is {rates[1]}; allowed: finite")):
            check_config(dataclasses.replace(CONFIG, **{name: rates}))


@pytest.mark.parametrize(
    "name", ["ccs_steps", "bce_steps", "patience", "restarts", "ensemble_size"]
)
def test_no_step_no_start_and_no_member_are_refused(name):
    check_config(dataclasses.replace(CONFIG, **{name: 1}))
    with pytest.raises(ValueError, match=f"{name} is 0; allowed: 1 or more"):
        check_config(dataclasses.replace(CONFIG, **{name: 0}))


def test_every_setting_has_a_range_and_says_what_it_is():
    names = {field.name for field in dataclasses.fields(SweepConfig)}
    # These have checks of their own.
    assert names - set(SWEEP_SETTINGS) == {"methods", "own", "memory_budget", "devices"}
    for name, setting in SWEEP_SETTINGS.items():
        assert setting.help, name
        assert setting.words != "any", name


def test_the_scores_of_a_fit_that_failed_are_nan(result, scores):
    info = result.info["supervised"]
    failed = dataclasses.replace(
        result,
        info={**result.info, "supervised": info._replace(finite=info.finite.at[0, 2].set(False))},
    )
    found = failed.score(3, HARD[3])
    expected = {method: np.array(values) for method, values in scores[3].items()}
    expected["supervised"][2] = np.nan
    for method in CORE:
        np.testing.assert_array_equal(found[method], expected[method])
    np.testing.assert_array_equal(failed.score(7, HARD[7])["supervised"], scores[7]["supervised"])


def test_targets_are_asked_of_used_rows_alone():
    subsets = SUBSETS.copy()
    subsets[:, 4] = False
    targets = LABELS.copy()
    targets[4] = np.nan
    config = dataclasses.replace(CONFIG, methods=("supervised",))
    data = dataclasses.replace(DATA, subsets=subsets, hard_targets=targets)
    assert sweep(data, config).info["supervised"].finite.all()
    subsets[0, 4] = True
    refuses(r"hard_targets\[4\] is nan", config, subsets=subsets, hard_targets=targets)


def test_unlabelled_methods_need_neither_targets_nor_easy_set(scores):
    config = dataclasses.replace(CONFIG, methods=("ccs", "random_ensemble_consensus"))
    bare = dataclasses.replace(DATA, hard_targets=None, easy=None, easy_labels=None)
    found = sweep(bare, config).score(3, HARD[3])
    for method in config.names:
        assert_close(found[method], scores[3][method])


def test_asking_for_what_was_not_swept_is_refused(result):
    with pytest.raises(ValueError, match="Layer 4 was not swept"):
        result.score(4, HARD[3])
    with pytest.raises(ValueError, match="d=8; the probes have d=24"):
        result.score(3, Pairs(HARD[3].pos[:, :8], HARD[3].neg[:, :8]))
    with pytest.raises(ValueError, match="run=5"):
        result.probe("ccs", layer=3, run=5)
    with pytest.raises(ValueError, match="Method 'icm'"):
        result.probe("icm", layer=3, run=0)
