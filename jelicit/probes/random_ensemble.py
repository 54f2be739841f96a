"""Ensembles of random directions (paper A), weighted by consensus or by the easy set."""

from dataclasses import dataclass

import jax

from jelicit.method_groups import EASY_TO_HARD, UNSUPERVISED
from jelicit.probes.ensembles import (
    EasyEnsembleSettings,
    EnsembleInfo,
    Members,
    MemberSettings,
    by_consensus,
    by_easy_set,
    member_scores,
)
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.random_probe import random_probe

_STREAM = "random_ensemble"


@dataclass(frozen=True, kw_only=True)
class RandomE2HSettings(EasyEnsembleSettings):
    """Of the random ensemble that is weighted by the easy set."""


def _members(run: Run, data: Data, settings: MemberSettings) -> Members:
    d, dtype = data.hard.pos.shape[1], data.hard.pos.dtype
    keys = jax.random.split(run.key, settings.ensemble_size)
    probes = jax.vmap(lambda key: random_probe(key, d, dtype))(keys)
    return Members(probes, member_scores(probes, run.normaliser, data.hard), run.rows)


def _fit_consensus(
    run: Run, data: Data, settings: MemberSettings
) -> tuple[LinearProbe, EnsembleInfo]:
    return by_consensus(_members(run, data, settings), settings)


def _fit_e2h(run: Run, data: Data, settings: RandomE2HSettings) -> tuple[LinearProbe, EnsembleInfo]:
    return by_easy_set(_members(run, data, settings), data, settings)


def _vectors(settings: MemberSettings) -> int:
    return max(12, 2 * settings.ensemble_size)


def _scales(settings: MemberSettings) -> bool:
    """Whether members are scaled: on the easy set alone, they know nothing of the hard rows."""
    return settings.scale_by_variance


RANDOM_ENSEMBLE_CONSENSUS = Method(
    name="random_ensemble_consensus",
    title="Random ensemble (consensus)",
    group=UNSUPERVISED,
    fit=_fit_consensus,
    free_sign=True,
    source="Paper A",
    settings=MemberSettings,
    info=EnsembleInfo,
    stream=_STREAM,
    vectors=_vectors,
)

RANDOM_ENSEMBLE_E2H = Method(
    name="random_ensemble_e2h",
    title="Random ensemble (E2H)",
    group=EASY_TO_HARD,
    fit=_fit_e2h,
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=RandomE2HSettings,
    info=EnsembleInfo,
    by_subset=_scales,
    stream=_STREAM,
    vectors=_vectors,
)
