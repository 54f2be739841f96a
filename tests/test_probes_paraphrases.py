"""CCS over wordings: what changes with the wording is no property of the claim."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jelicit.pairs import Pairs
from jelicit.probes.methods import SweepConfig
from jelicit.probes.paraphrases import variance_within_items
from jelicit.probes.sweep import SweepData, sweep

ITEMS, WORDINGS, D = 60, 3, 8
# Both losses have minima of the other kind: the lowest of several starts tells them apart.
CONFIG = SweepConfig(methods=("ccs", "ccs_paraphrases"), ccs_steps=300, restarts=30)


def planted() -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Rows of items in several wordings: truth along axis 0, a larger bit of each row along 1."""
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(ITEMS), WORDINGS)
    truth = (rng.random(ITEMS) < 0.5)[items]
    mood = rng.random(len(items)) < 0.5
    differ = 2 * np.outer(2 * truth - 1, np.eye(D)[0]) + 2.5 * np.outer(2 * mood - 1, np.eye(D)[1])
    noise = 0.3 * rng.normal(size=(2, len(items), D))
    pairs = Pairs(np.float32(noise[0] + differ), np.float32(noise[1] - differ))  # type: ignore[arg-type]
    return pairs, truth, items


def scores(wordings: np.ndarray | None, config: SweepConfig = CONFIG) -> dict[str, np.ndarray]:
    pairs, _, items = planted()
    data = SweepData(
        hard={0: pairs},
        layers=(0,),
        subsets=np.ones((4, len(items)), bool),
        seeds=np.arange(4),
        wordings=wordings,
    )
    return {name: np.asarray(made) for name, made in sweep(data, config).score(0, pairs).items()}


@pytest.fixture(scope="module")
def told() -> dict[str, np.ndarray]:
    return scores(planted()[2])


def areas(of: np.ndarray, truth: np.ndarray) -> list[float]:
    each = [roc_auc_score(truth, run) for run in of]
    return [max(area, 1 - area) for area in each]


def test_the_variance_is_that_of_each_item_about_its_own_mean():
    rng = np.random.default_rng(1)
    values, items = rng.normal(size=12), rng.integers(0, 5, 12)
    weights = (rng.random(12) < 0.7).astype(float)
    kept = weights > 0
    expected = sum(
        np.var(values[kept & (items == item)]) * (kept & (items == item)).sum()
        for item in set(items[kept])
    )
    got = variance_within_items(*map(jnp.asarray, (np.float32(values), items, np.float32(weights))))
    assert float(got) == pytest.approx(expected / kept.sum(), rel=1e-5)


def test_it_finds_what_wordings_agree_on_and_ccs_does_not(told):
    _, truth, _ = planted()
    assert min(areas(told["ccs_paraphrases"], truth)) > 0.98
    assert max(areas(told["ccs"], truth)) < 0.9


def test_with_one_wording_each_it_is_ccs():
    untold = scores(None)
    np.testing.assert_array_equal(untold["ccs_paraphrases"], untold["ccs"])
    apart = scores(np.arange(ITEMS * WORDINGS))
    np.testing.assert_allclose(apart["ccs_paraphrases"], apart["ccs"], atol=1e-3)


def test_without_a_weight_wordings_say_nothing(told):
    config = SweepConfig(
        methods=("ccs_paraphrases",), ccs_steps=300, restarts=30, own={"paraphrase_invariance": 0.0}
    )
    got = scores(planted()[2], config)["ccs_paraphrases"]
    np.testing.assert_allclose(got, told["ccs"], atol=1e-3)
