"""CCS and PCA after the verdict's linear trace was erased (LEACE; Belrose et al. 2023)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.method_groups import UNSUPERVISED
from jelicit.probes.erasure import Erasure, ErasureSettings, fit_erasure
from jelicit.probes.linear import Affine, LinearProbe, logits
from jelicit.probes.losses import ccs_loss
from jelicit.probes.method import VERDICT, Data, Method, Run
from jelicit.probes.negation import VECTORS, SpectralSettings
from jelicit.probes.spectral import SpectralInfo, SpectralWeights, fit_spectral
from jelicit.probes.training import TrainingInfo, best_of, descend, start, to_probe
from jelicit.probes.training_settings import CCSTraining, vectors_trained

_SOURCE = "Belrose et al. 2023 (LEACE), before "


def erasure_of(run: Run, data: Data, settings: ErasureSettings) -> Erasure:
    """The erasure that a run's own rows ask for."""
    return fit_erasure(
        data.hard,
        run.normaliser,
        data.pool,
        weights=run.rows,
        shrinkage=settings.erasure_shrinkage,
        max_steps=settings.erasure_steps,
    )


@dataclass(frozen=True, kw_only=True)
class LeaceCCSSettings(CCSTraining, ErasureSettings):
    """Of CCS after LEACE."""


def _ccs(run: Run, data: Data, settings: LeaceCCSSettings) -> tuple[LinearProbe, TrainingInfo]:
    """The loss of CCS on erased rows; the probe is folded, and reads rows that are not."""
    erasure, descent = erasure_of(run, data, settings), settings.ccs_descent()
    d, dtype = data.hard.pos.shape[1], data.hard.pos.dtype

    def folded(params: Affine) -> Affine:
        return params._replace(weight=erasure.fold(params.weight[:, None])[:, 0])

    def objective(params: Affine) -> Float[Array, ""]:
        found = logits(folded(params), run.normaliser, data.hard, descent.precision)
        return ccs_loss(*found, run.rows)

    params, info = best_of(
        lambda key: descend(objective, start(key, d, dtype), descent),
        run.key,
        restarts=settings.restarts,
    )
    finite = info.finite & jnp.isfinite(folded(params).weight).all()
    return to_probe(folded(params)), info._replace(finite=finite)


LEACE_CCS = Method(
    name="leace_ccs",
    title="LEACE, then CCS",
    group=UNSUPERVISED,
    fit=_ccs,
    free_sign=True,
    source=f"{_SOURCE}CCS",
    needs=frozenset({VERDICT}),
    settings=LeaceCCSSettings,
    info=TrainingInfo,
    # So that what it changes is the erasure alone, and not the start.
    stream="ccs",
    vectors=vectors_trained,
)


@dataclass(frozen=True, kw_only=True)
class LeacePCASettings(SpectralSettings, ErasureSettings):
    """Of PCA after LEACE."""


def _pca(run: Run, data: Data, settings: LeacePCASettings) -> tuple[LinearProbe, SpectralInfo]:
    return fit_spectral(
        data.hard,
        run.normaliser,
        SpectralWeights(1.0, 1.0),
        weights=run.rows,
        erasure=erasure_of(run, data, settings),
        max_steps=settings.spectral_steps,
    )


LEACE_PCA = Method(
    name="leace_pca",
    title="LEACE, then PCA",
    group=UNSUPERVISED,
    fit=_pca,
    free_sign=True,
    source=f"{_SOURCE}CRC",
    needs=frozenset({VERDICT}),
    settings=LeacePCASettings,
    info=SpectralInfo,
    by_seed=False,
    double=True,
    vectors=VECTORS,
)
