"""Every method as a function of one run, its settings, and what its fit depends on.

A family is a set of methods that share work. The sweep vmaps a family's `fit` over runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.baselines import random_probe
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.discriminant import DiscriminantInfo, fit_lda, fit_mean_difference
from jelicit.probes.ensembles import (
    EnsembleInfo,
    consensus_weights,
    e2h_weights,
    member_scores,
    present_members,
    scale_by_variance,
    weighted_ensemble,
)
from jelicit.probes.joint import fit_joint
from jelicit.probes.linear import LinearProbe
from jelicit.probes.normalise import Divisor, Normaliser, identity_normaliser
from jelicit.probes.pca import PCAInfo, fit_components
from jelicit.probes.pytree import frozen_pytree
from jelicit.probes.supervised import fit_supervised
from jelicit.probes.training import Descent, QuasiNewton, TrainingInfo

METHODS = (
    "random",
    "ccs",
    "pca",
    "e2h",
    "supervised",
    "ue_e2h",
    "random_ensemble_consensus",
    "random_ensemble_e2h",
    "pca_ensemble_consensus",
    "pca_ensemble_e2h",
)
PEERS = ("mean_difference", "lda")
"""Labelled probes that other tools offer; not in paper A."""
ALL_METHODS = (*METHODS, *PEERS)
NEEDS_TARGETS = frozenset({"supervised", *PEERS})
NEEDS_EASY = frozenset({"e2h", "ue_e2h", "random_ensemble_e2h", "pca_ensemble_e2h"})

PerRun = Any
"""One number for all runs of a sweep, or an array with one for each of them; within a fit, the
traced number of its run."""


@frozen_pytree(
    static=(
        "methods",
        "ccs_steps",
        "bce_steps",
        "patience",
        "restarts",
        "ensemble_size",
        "scale_by_variance",
        "pca_steps",
        "divisor",
        "memory_budget",
        "devices",
        "optimiser",
        "lbfgs_steps",
        "precision",
    )
)
@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Settings of a sweep; the defaults are paper A's.

    A `PerRun` is a number, or an array [R] with one number per run of the sweep: runs of different
    rates share one program. All else is static, and the same for every run.
    """

    methods: tuple[str, ...] = METHODS
    ccs_learning_rate: PerRun = 0.01
    """Also of UE+E2H."""
    ccs_steps: int = 1000
    """Also of UE+E2H."""
    restarts: int = 1
    """Starts of CCS and UE+E2H; the lowest final loss wins."""
    bce_learning_rate: PerRun = 0.03
    """Of E2H and supervised."""
    bce_steps: int = 1000
    """At most."""
    patience: int = 100
    """Steps without a new lowest validation loss after which E2H and supervised stop."""
    validation_share: PerRun = 0.2
    """Of the items, held out by E2H and supervised."""
    weight_decay: PerRun = 0.01
    max_gradient_norm: PerRun = 1.0
    easy_share: PerRun = 0.5
    """a in a * BCE(easy) + (1 - a) * CCS(hard)."""
    ensemble_size: int = 128
    """Members of an ensemble; a PCA ensemble has at most min(N, d)."""
    temperature: PerRun = 0.1
    """T of the softmax over (AUROC on the easy set - 0.5) / T."""
    scale_by_variance: bool = False
    """Divide ensemble members by the standard deviation of their train scores."""
    pca_steps: int = 5
    """Cap on the restarts of PCA's Krylov space."""
    optimiser: str = "adamw"
    """Of all trained probes: adamw, as paper A has it, or lbfgs, to the optimum of the penalised
    loss; see `QuasiNewton`."""
    lbfgs_penalty: PerRun = 1e-4
    lbfgs_steps: int = 60
    """At most."""
    lda_shrinkage: PerRun = 0.1
    """Of the covariance within classes, towards a multiple of the identity."""
    precision: str = "float32"
    """Of trained probes: what the products with the hidden states are rounded to."""
    divisor: Divisor = "paper"
    """See `fit_normaliser`."""
    memory_budget: int = 2**31
    """Bytes that the runs fitted together may take beside the hidden states; sets the chunks."""
    devices: int = 1
    """Devices that share the runs of a chunk; each holds the hidden states. 0 takes all."""


RATES = tuple(field.name for field in fields(SweepConfig) if field.type is PerRun)
"""The settings that may differ from run to run."""


class Shared(NamedTuple):
    """What all runs of a layer share."""

    hard: Pairs
    """[n, d], centred and scaled by the statistics of the whole pool, as far as runs use it."""
    hard_targets: Float[Array, " n"] | None
    easy: Pairs | None
    """[e, d], normalised by its own statistics for good: labels are learned there on those."""
    easy_labels: Float[Array, " e"] | None
    kept: Bool[Array, " pool"] | None = None
    """Which rows of the pool `hard` has; None = all of them."""


class Run(NamedTuple):
    """What is a run's own."""

    key: Array
    rows: Float[Array, " n"]
    normaliser: Normaliser


Fits = dict[str, tuple[LinearProbe, Any]]


def _quasi_newton(config: SweepConfig) -> QuasiNewton:
    return QuasiNewton(
        penalty=config.lbfgs_penalty, steps=config.lbfgs_steps, precision=config.precision
    )


def _ccs_descent(config: SweepConfig) -> Descent | QuasiNewton:
    if config.optimiser == "lbfgs":
        return _quasi_newton(config)
    return Descent(
        learning_rate=config.ccs_learning_rate,
        weight_decay=config.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
        steps=config.ccs_steps,
        precision=config.precision,
    )


def _bce_descent(config: SweepConfig) -> Descent | QuasiNewton:
    if config.optimiser == "lbfgs":
        return _quasi_newton(config)
    return Descent(
        learning_rate=config.bce_learning_rate,
        weight_decay=config.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
        steps=config.bce_steps,
        patience=config.patience,
        precision=config.precision,
    )


def _random(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    d, dtype = shared.hard.pos.shape[1], shared.hard.pos.dtype
    nothing, zero = jnp.full((), jnp.nan, dtype), jnp.asarray(0)
    info = TrainingInfo(nothing, nothing, zero, zero, jnp.asarray(True), zero)
    return {"random": (random_probe(run.key, d, dtype), info)}


def _ccs(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    fit = fit_ccs(
        run.key,
        shared.hard,
        run.normaliser,
        weights=run.rows,
        descent=_ccs_descent(config),
        restarts=config.restarts,
    )
    return {"ccs": fit}


def _e2h(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    easy, normaliser, labels = _easy(shared)
    fit = fit_supervised(
        run.key,
        easy,
        normaliser,
        labels,
        validation_share=config.validation_share,
        descent=_bce_descent(config),
    )
    return {"e2h": fit}


def _supervised(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    assert shared.hard_targets is not None
    fit = fit_supervised(
        run.key,
        shared.hard,
        run.normaliser,
        shared.hard_targets,
        weights=run.rows,
        kept=shared.kept,
        validation_share=config.validation_share,
        descent=_bce_descent(config),
    )
    return {"supervised": fit}


def _mean_difference(
    run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]
) -> Fits:
    assert shared.hard_targets is not None
    fit = fit_mean_difference(shared.hard, run.normaliser, shared.hard_targets, weights=run.rows)
    return {"mean_difference": fit}


def _lda(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    assert shared.hard_targets is not None
    fit = fit_lda(
        shared.hard,
        run.normaliser,
        shared.hard_targets,
        weights=run.rows,
        shrinkage=config.lda_shrinkage,
    )
    return {"lda": fit}


def _ue_e2h(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    fit = fit_joint(
        run.key,
        shared.hard,
        run.normaliser,
        *_easy(shared),
        weights=run.rows,
        easy_share=config.easy_share,
        descent=_ccs_descent(config),
        restarts=config.restarts,
    )
    return {"ue_e2h": fit}


def _random_ensemble(
    run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]
) -> Fits:
    d, dtype = shared.hard.pos.shape[1], shared.hard.pos.dtype
    keys = jax.random.split(run.key, config.ensemble_size)
    members = jax.vmap(lambda key: random_probe(key, d, dtype))(keys)
    return _ensembles(members, run, shared, config, methods)


def _pca(run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]) -> Fits:
    n, d = shared.hard.pos.shape
    pool = n if shared.kept is None else len(shared.kept)
    count = 1 if methods == ("pca",) else min(config.ensemble_size, pool, d)
    found = fit_components(
        shared.hard,
        run.normaliser,
        weights=run.rows,
        count=min(count, n),
        max_steps=config.pca_steps,
    )
    # Of rows that no run uses come no components; a whole pool's say zero there, too.
    components, info = jax.tree.map(partial(_filled, count=count), found)
    fits: Fits = {}
    if "pca" in methods:
        fits["pca"] = (jax.tree.map(lambda leaf: leaf[0], components), info)
    return fits | _ensembles(components, run, shared, config, methods)


def _filled(leaf: Array, *, count: int) -> Array:
    """What every component has, [k, ...], with zeros for as many as are missing of `count`."""
    if leaf.ndim == 0:
        return leaf
    return jnp.pad(leaf, [(0, count - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


def _ensembles(
    members: LinearProbe, run: Run, shared: Shared, config: SweepConfig, methods: tuple[str, ...]
) -> Fits:
    """Those of `methods` that weight members by consensus or by AUROC on the easy set."""
    fits: Fits = {}
    present = present_members(members)
    if config.scale_by_variance:
        scores = member_scores(members, run.normaliser, shared.hard)
        members = scale_by_variance(members, scores, run.rows)
    for method in methods:
        if method.endswith("ensemble_consensus"):
            scores = member_scores(members, run.normaliser, shared.hard)
            weights = consensus_weights(scores, run.rows, present)
            fits[method] = weighted_ensemble(members, weights)
        elif method.endswith("ensemble_e2h"):
            easy, normaliser, labels = _easy(shared)
            aurocs = auroc(member_scores(members, normaliser, easy), labels)
            weights = e2h_weights(aurocs, temperature=config.temperature, present=present)
            fits[method] = weighted_ensemble(members, weights)
    return fits


def _easy(shared: Shared) -> tuple[Pairs, Normaliser, Float[Array, " e"]]:
    assert shared.easy is not None
    assert shared.easy_labels is not None
    d, dtype = shared.easy.pos.shape[1], shared.easy.pos.dtype
    return shared.easy, identity_normaliser(d, dtype=dtype), shared.easy_labels


INFOS = {info.__name__: info for info in (TrainingInfo, PCAInfo, EnsembleInfo, DiscriminantInfo)}
"""What `Fits` may say about how fits went, by name."""

_DESCENT = (
    *("weight_decay", "max_gradient_norm", "optimiser", "lbfgs_penalty", "lbfgs_steps"),
    "precision",
)
_CCS = (*_DESCENT, "ccs_learning_rate", "ccs_steps", "restarts")
_BCE = (*_DESCENT, "bce_learning_rate", "bce_steps", "patience", "validation_share")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Methods that are fitted together, and what their fits depend on."""

    methods: tuple[str, ...]
    fit: Callable[[Run, Shared, SweepConfig, tuple[str, ...]], Fits]
    key: str
    """Names the random stream; the ensembles of random members draw the same members."""
    by_seed: bool = True
    by_subset: bool = True
    reads: tuple[str, ...] = ()
    """Settings that change its fits; "divisor" changes all but those by seed alone."""
    vectors: int = 0
    """Vectors of n, e or d numbers that a run holds beside a training's own."""

    def bytes_each(self, n: int, d: int, e: int, config: SweepConfig) -> int:
        """Roughly what a run takes while it is fitted on n hard and e easy float32 rows of d."""
        # L-BFGS keeps its past steps and gradients.
        training = 12 if config.optimiser == "adamw" else 40
        vectors = max(training * config.restarts, self.vectors)
        return 4 * vectors * (n + d + e)


def families(config: SweepConfig) -> list[Family]:
    """The families of the wanted methods, each holding only the wanted ones."""
    scaled = config.scale_by_variance
    members = ("ensemble_size", "scale_by_variance")
    ensembles = any(name.startswith("pca_ensemble") for name in config.methods)
    temperature = ("temperature",) if "pca_ensemble_e2h" in config.methods else ()
    everything = (
        Family(methods=("random",), fit=_random, key="random", by_subset=False),
        Family(methods=("ccs",), fit=_ccs, key="ccs", reads=_CCS),
        Family(methods=("e2h",), fit=_e2h, key="e2h", by_subset=False, reads=_BCE),
        Family(methods=("supervised",), fit=_supervised, key="supervised", reads=_BCE),
        Family(
            methods=("mean_difference",), fit=_mean_difference, key="mean_difference", by_seed=False
        ),
        Family(methods=("lda",), fit=_lda, key="lda", by_seed=False, reads=("lda_shrinkage",)),
        Family(methods=("ue_e2h",), fit=_ue_e2h, key="ue_e2h", reads=(*_CCS, "easy_share")),
        Family(
            methods=("random_ensemble_consensus",),
            fit=_random_ensemble,
            key="random_ensemble",
            reads=members,
            vectors=2 * config.ensemble_size,
        ),
        Family(
            methods=("random_ensemble_e2h",),
            fit=_random_ensemble,
            key="random_ensemble",
            by_subset=scaled,
            reads=(*members, "temperature"),
            vectors=2 * config.ensemble_size,
        ),
        Family(
            methods=("pca", "pca_ensemble_consensus", "pca_ensemble_e2h"),
            fit=_pca,
            key="pca",
            by_seed=False,
            reads=("pca_steps", *(members if ensembles else ()), *temperature),
            # As XLA's memory analysis has it: 4 per component in a Krylov space; at the most 10.5,
            # in a whole decomposition of few rows (500 of width 4,096).
            vectors=11 * (config.ensemble_size if ensembles else 16),
        ),
    )
    wanted = [
        replace(family, methods=tuple(name for name in family.methods if name in config.methods))
        for family in everything
    ]
    return [family for family in wanted if family.methods]
