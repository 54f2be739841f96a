"""Ensembles of principal components (paper A), weighted by consensus or by the easy set."""

from dataclasses import dataclass

from jelicit.method_groups import EASY_TO_HARD, UNSUPERVISED
from jelicit.probes.ensembles import (
    EasyEnsembleSettings,
    EnsembleInfo,
    MemberSettings,
    by_consensus,
    by_easy_set,
)
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.pca import COMPONENTS, COPIES, Components, PCASettings, vectors_of_components


@dataclass(frozen=True, kw_only=True)
class PCAEnsembleSettings(PCASettings, MemberSettings):
    """Of the PCA ensemble that is weighted by consensus."""


@dataclass(frozen=True, kw_only=True)
class PCAE2HSettings(PCAEnsembleSettings, EasyEnsembleSettings):
    """Of the PCA ensemble that is weighted by the easy set."""


def _fit_consensus(
    run: Run, data: Data, settings: PCAEnsembleSettings, components: Components
) -> tuple[LinearProbe, EnsembleInfo]:
    return by_consensus(components.members(), settings)


def _fit_e2h(
    run: Run, data: Data, settings: PCAE2HSettings, components: Components
) -> tuple[LinearProbe, EnsembleInfo]:
    return by_easy_set(components.members(), data, settings)


PCA_ENSEMBLE_CONSENSUS = Method(
    name="pca_ensemble_consensus",
    title="PCA ensemble (consensus)",
    group=UNSUPERVISED,
    fit=_fit_consensus,
    free_sign=True,
    source="Paper A",
    settings=PCAEnsembleSettings,
    common=COMPONENTS,
    algorithm=4,
    info=EnsembleInfo,
    by_seed=False,
    double=True,
    vectors=vectors_of_components,
    copies=COPIES,
)

PCA_ENSEMBLE_E2H = Method(
    name="pca_ensemble_e2h",
    title="PCA ensemble (E2H)",
    group=EASY_TO_HARD,
    fit=_fit_e2h,
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=PCAE2HSettings,
    common=COMPONENTS,
    algorithm=4,
    info=EnsembleInfo,
    by_seed=False,
    double=True,
    vectors=vectors_of_components,
    copies=COPIES,
)
