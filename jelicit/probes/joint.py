"""UE+E2H (paper A): CCS on the hard set and labels on the easy set, one probe."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jelicit.method_groups import EASY_TO_HARD
from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes import together
from jelicit.probes.linear import Affine, LinearProbe, Signs, logits
from jelicit.probes.losses import bce_loss, ccs_loss
from jelicit.probes.method import EASY, Data, Method, Run
from jelicit.probes.normalise import Normaliser
from jelicit.probes.settings import PerRun, rate
from jelicit.probes.together import Problem, Trained
from jelicit.probes.training import (
    CCS_DESCENT,
    Descent,
    Rate,
    TrainingInfo,
    best_of,
    descend,
    start,
    to_probe,
)
from jelicit.probes.training_settings import CCSTraining, vectors_trained


def fit_joint(
    key: Array,
    hard: Pairs,
    hard_normaliser: Normaliser,
    easy: Pairs,
    easy_normaliser: Normaliser,
    easy_targets: Float[Array, " m"],
    *,
    weights: Float[Array, " n"] | None = None,
    easy_weights: Float[Array, " m"] | None = None,
    easy_share: Rate = 0.5,
    descent: Descent = CCS_DESCENT,
    restarts: int = 1,
) -> tuple[LinearProbe, TrainingInfo]:
    """Minimise a * BCE(easy) + (1 - a) * CCS(hard), each term a mean over its own rows.

    The two sets keep their sizes and their pairing: paper A's released code shuffles phi+ and phi-
    apart and wraps the shorter set, which is not copied here.

    Args:
        key: seeds the start.
        hard: unlabelled pairs [n, d].
        hard_normaliser: applied to them.
        easy: labelled pairs [m, d].
        easy_normaliser: applied to them; the easy set's own statistics.
        easy_targets: in [0, 1].
        weights: row weights of the hard set; 0 and 1 choose a subset.
        easy_weights: row weights of the easy set.
        easy_share: a.
        descent: AdamW, 1000 steps at learning rate 0.01 by default.
        restarts: how many starts; the lowest final loss wins.

    Raises:
        ValueError: restarts < 1.
    """
    hard, easy = with_full_floats(hard), with_full_floats(easy)
    d, dtype = hard.pos.shape[1], hard.pos.dtype
    weights = jnp.ones(len(hard.pos), dtype) if weights is None else weights
    easy_weights = jnp.ones(len(easy.pos), dtype) if easy_weights is None else easy_weights

    def objective(params: Affine) -> Float[Array, ""]:
        of_easy = logits(params, easy_normaliser, easy, descent.precision)
        of_hard = logits(params, hard_normaliser, hard, descent.precision)
        labelled = bce_loss(*of_easy, easy_targets, easy_weights)
        return easy_share * labelled + (1 - easy_share) * ccs_loss(*of_hard, weights)

    params, info = best_of(
        lambda key: descend(objective, start(key, d, dtype), descent), key, restarts=restarts
    )
    return to_probe(params), info


@dataclass(frozen=True, kw_only=True)
class JointSettings(CCSTraining):
    """Of UE+E2H."""

    easy_share: PerRun = rate(
        0.5, least=0, most=1, help="a in a * BCE(easy) + (1 - a) * CCS(hard), of UE+E2H."
    )


def _fit(run: Run, data: Data, settings: JointSettings) -> tuple[LinearProbe, TrainingInfo]:
    return fit_joint(
        run.key,
        data.hard,
        run.normaliser,
        *data.easy_set(),
        weights=run.rows,
        easy_share=settings.easy_share,
        descent=settings.ccs_descent(),
        restarts=settings.restarts,
    )


def _problem(run: Run, data: Data, settings: JointSettings) -> Problem:
    _, easy_normaliser, targets = data.easy_set()

    def losses(signs: Mapping[str, Signs]) -> tuple[Float[Array, ""], None]:
        labelled = bce_loss(*signs[together.EASY], targets, jnp.ones_like(targets))
        unlabelled = ccs_loss(*signs[together.HARD], run.rows)
        return settings.easy_share * labelled + (1 - settings.easy_share) * unlabelled, None

    return Problem(
        key=run.key,
        descent=settings.ccs_descent(),
        reads={together.HARD: run.normaliser, together.EASY: easy_normaliser},
        losses=losses,
        restarts=settings.restarts,
    )


UE_E2H = Method(
    name="ue_e2h",
    title="UE+E2H",
    group=EASY_TO_HARD,
    fit=_fit,
    trained=Trained(problem=_problem, descent=JointSettings.ccs_descent),
    free_sign=False,
    source="Paper A",
    needs=frozenset({EASY}),
    settings=JointSettings,
    info=TrainingInfo,
    vectors=vectors_trained,
)
