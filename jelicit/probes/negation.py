"""Methods without labels that are one eigenproblem: DRC, midpoint-displacement, VINC."""

from dataclasses import dataclass

from jelicit.method_groups import UNSUPERVISED
from jelicit.probes.erasure import ErasureSettings, fit_erasure
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import VERDICT, WORDINGS, Data, Method, Run
from jelicit.probes.settings import PerRun, count, rate
from jelicit.probes.spectral import SpectralInfo, SpectralWeights, fit_spectral

VECTORS = 450
"""What a run holds while it is fitted: 4 for each of some hundred columns of a Krylov space."""


@dataclass(frozen=True, kw_only=True)
class SpectralSettings:
    """Of methods that are one eigenproblem."""

    spectral_steps: int = count(
        20, least=0, help="Cap on the restarts of the Krylov space of DRC, midpoint and VINC."
    )


def _drc(run: Run, data: Data, settings: SpectralSettings) -> tuple[LinearProbe, SpectralInfo]:
    return fit_spectral(
        data.hard,
        run.normaliser,
        SpectralWeights(0.0, 1.0),
        weights=run.rows,
        max_steps=settings.spectral_steps,
    )


DRC = Method(
    name="drc",
    title="DRC",
    group=UNSUPERVISED,
    fit=_drc,
    free_sign=True,
    source="Schouten & Bloem 2025 (arXiv 2511.02089): the eigenvector of -K",
    settings=SpectralSettings,
    info=SpectralInfo,
    by_seed=False,
    double=True,
    vectors=VECTORS,
)


@dataclass(frozen=True, kw_only=True)
class MidpointSettings(SpectralSettings):
    """Of midpoint-displacement."""

    midpoint_share: PerRun = rate(
        0.9,
        least=0,
        most=1,
        help="h in h mean (w . m)^2 - (1 - h) mean (w . d)^2, of midpoint-displacement.",
    )


def midpoint_weights(share: PerRun) -> SpectralWeights:
    """The weights of V and K that make S the negative of Fry's loss at h = `share`."""
    return SpectralWeights(2 - 2.5 * share, 2 - 1.5 * share)


def _midpoint(run: Run, data: Data, settings: MidpointSettings) -> tuple[LinearProbe, SpectralInfo]:
    return fit_spectral(
        data.hard,
        run.normaliser,
        midpoint_weights(settings.midpoint_share),
        weights=run.rows,
        max_steps=settings.spectral_steps,
    )


MIDPOINT = Method(
    name="midpoint",
    title="Midpoint-displacement",
    group=UNSUPERVISED,
    fit=_midpoint,
    free_sign=True,
    source="Fry et al. 2023 (arXiv 2311.00488): h mean (w . m)^2 - (1 - h) mean (w . d)^2",
    settings=MidpointSettings,
    info=SpectralInfo,
    by_seed=False,
    double=True,
    vectors=VECTORS,
)


@dataclass(frozen=True, kw_only=True)
class VINCSettings(SpectralSettings, ErasureSettings):
    """Of VINC; the defaults are those of its released code."""

    vinc_variance: PerRun = rate(0.0, least=0, help="Of V in VINC.")
    vinc_negation: PerRun = rate(0.5, least=0, help="Of -K in VINC.")
    vinc_invariance: PerRun = rate(
        0.5, least=0, help="Of -J in VINC; does nothing where every item has one wording."
    )


def _vinc(run: Run, data: Data, settings: VINCSettings) -> tuple[LinearProbe, SpectralInfo]:
    erasure = fit_erasure(
        data.hard,
        run.normaliser,
        data.pool,
        weights=run.rows,
        shrinkage=settings.erasure_shrinkage,
        max_steps=settings.erasure_steps,
    )
    asked = SpectralWeights(
        settings.vinc_variance, settings.vinc_negation, settings.vinc_invariance
    )
    return fit_spectral(
        data.hard,
        run.normaliser,
        asked,
        weights=run.rows,
        items=data.wordings,
        erasure=erasure,
        max_steps=settings.spectral_steps,
    )


VINC = Method(
    name="vinc",
    title="VINC",
    group=UNSUPERVISED,
    fit=_vinc,
    free_sign=True,
    source="Mallen & Belrose 2023 (EleutherAI, ccs/training/eigen_reporter.py): a V - g K - b J",
    needs=frozenset({VERDICT, WORDINGS}),
    settings=VINCSettings,
    info=SpectralInfo,
    by_seed=False,
    double=True,
    vectors=VECTORS,
)
