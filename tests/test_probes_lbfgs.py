"""L-BFGS: the optimum that SciPy and scikit-learn find, in fewer passes over the states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted import planted
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from jelicit.metrics import auroc
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.linear import Affine, logits, score
from jelicit.probes.losses import ccs_loss
from jelicit.probes.methods import SweepConfig
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.supervised import fit_supervised
from jelicit.probes.sweep import SweepData, sweep
from jelicit.probes.training import CCS_DESCENT, QuasiNewton

N, D = 100, 14
PAIRS, LABELS, _ = planted(N, D, seed=0, strength=0.8, common=0.0)
NORMALISER = fit_normaliser(PAIRS, fitted_on="rows")
WEIGHTS = jnp.ones(N)
LBFGS = QuasiNewton(penalty=1e-3, tolerance=1e-6, steps=300)


def penalised(weight, bias) -> float:
    pos, neg = logits(Affine(jnp.asarray(weight), jnp.asarray(bias)), NORMALISER, PAIRS)
    squares = float(np.sum(np.square(weight)) + bias**2)
    return float(ccs_loss(pos, neg, WEIGHTS)) + 1e-3 / (2 * D) * squares


@pytest.mark.parametrize("seed", range(3))
def test_scipy_finds_nothing_lower_near_by(seed):
    probe, info = fit_ccs(jax.random.key(seed), PAIRS, NORMALISER, descent=LBFGS)
    rows = [np.asarray(side, float) for side in normalise(NORMALISER, PAIRS)]

    def objective(v):
        p, q = (1 / (1 + np.exp(-(side @ v[:D] + v[D]))) for side in rows)
        slopes = 2 * (p + q - 1), np.minimum(p, q)
        value = np.mean((p + q - 1) ** 2 + slopes[1] ** 2) + 1e-3 / (2 * D) * v @ v
        gp = (slopes[0] + 2 * p * (p < q)) * p * (1 - p) / N
        gq = (slopes[0] + 2 * q * (q <= p)) * q * (1 - q) / N
        w = rows[0].T @ gp + rows[1].T @ gq + 1e-3 / D * v[:D]
        return value, np.append(w, gp.sum() + gq.sum() + 1e-3 / D * v[D])

    begin = np.append(np.asarray(probe.weight), probe.bias)
    lower = minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    assert penalised(np.asarray(probe.weight), float(probe.bias)) <= lower.fun + 1e-4
    assert int(info.passes) < 1000
    assert bool(info.finite)


def test_it_ends_no_higher_than_adamw_with_fewer_passes():
    key = jax.random.key(0)
    _, slow = fit_ccs(key, PAIRS, NORMALISER, descent=CCS_DESCENT)
    quick = dataclasses.replace(LBFGS, penalty=1e-6)
    probe, info = fit_ccs(key, PAIRS, NORMALISER, descent=quick)
    assert float(info.loss) <= float(slow.loss) + 1e-4
    assert int(info.passes) < int(slow.passes) / 2
    area = float(auroc(score(probe, NORMALISER, PAIRS), LABELS))
    assert max(area, 1 - area) > 0.9


def test_labels_give_scikit_learns_logistic_regression():
    targets = jnp.asarray(LABELS, jnp.float32)
    probe, _ = fit_supervised(jax.random.key(0), PAIRS, NORMALISER, targets, descent=LBFGS)
    rows = np.concatenate([np.asarray(side) for side in normalise(NORMALISER, PAIRS)])
    y = np.concatenate([LABELS, 1 - LABELS])
    # mean loss + penalty / (2 d) |w|^2 = (penalty / d) (C sum loss + |w|^2 / 2)
    C = D / (1e-3 * 2 * N)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(rows, y).coef_[0]
    np.testing.assert_allclose(probe.weight, theirs, atol=5e-3 * np.abs(theirs).max())


def test_many_runs_at_once_are_the_runs_one_by_one():
    subsets = np.random.default_rng(0).random((4, N)) < 0.7
    data = SweepData(
        hard={0: PAIRS},
        layers=(0,),
        subsets=subsets,
        seeds=np.arange(4),
        hard_targets=LABELS,
        easy={0: PAIRS},
        easy_labels=LABELS,
    )
    config = SweepConfig(
        methods=("ccs", "supervised", "ue_e2h", "e2h"),
        optimiser="lbfgs",
        lbfgs_steps=25,
        lbfgs_penalty=1e-2,
    )
    result = sweep(data, config)
    together = result.score(0, PAIRS)
    assert len(set(np.asarray(result.info["ccs"].steps[0]).tolist())) > 1  # they stop apart
    for run in (0, 3):
        one = dataclasses.replace(data, subsets=subsets[[run]], seeds=np.array([run]))
        alone = sweep(one, config).score(0, PAIRS)
        for method in config.names:
            spread = float(np.std(alone[method]))
            np.testing.assert_allclose(
                together[method][run], alone[method][0], atol=0.02 * spread, err_msg=method
            )


def test_an_unknown_optimiser_is_refused():
    data = SweepData(
        hard={0: PAIRS}, layers=(0,), subsets=np.ones((1, N), bool), seeds=np.arange(1)
    )
    with pytest.raises(ValueError, match="optimiser='sgd'; choose one of adamw, lbfgs"):
        sweep(data, SweepConfig(methods=("ccs",), optimiser="sgd"))
