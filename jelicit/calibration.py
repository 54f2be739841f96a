"""From truth scores to probabilities: Platt scaling, and how far probabilities are off.

A truth score has no unit. Platt scaling learns one on labelled items: it is fitted on train rows
(or on the easy set, without a label of the task) and applied to test rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jelicit.metrics import Labels, Scores, checked, matmul

_NEWTON_STEPS = 50


class Platt(NamedTuple):
    """Probability = sigmoid(slope * score + intercept). Leading axes, if any, are runs."""

    slope: Float[Array, "*runs"]
    intercept: Float[Array, "*runs"]

    def probability(self, scores: Scores) -> Float[Array, "*runs n"]:
        """Probability of True for scores [..., n]."""
        scores = jnp.asarray(scores)
        return jax.nn.sigmoid(self.slope[..., None] * scores + self.intercept[..., None])


def fit_platt(scores: Scores, labels: Labels, *, rows: np.ndarray | None = None) -> Platt:
    """Slope and intercept that minimise the cross-entropy on labelled items (Platt 1999).

    Labels are softened to (N1 + 1) / (N1 + 2) and 1 / (N0 + 2), so that separable scores have a
    finite optimum too. Newton's method on scores of unit spread; the objective is convex.

    Args:
        scores: truth scores [..., n].
        labels: [n], 1 or 0; rows with nan are left out.
        rows: which items count, bool [..., n], for each run its own; None = all of them.

    Returns:
        One pair per run; nan where a class is empty or a score is not finite.

    Raises:
        ValueError: lengths differ, or a label is something other than 0, 1 and nan.
    """
    scores, values = _checked(scores, labels)
    chosen = True if rows is None else np.asarray(rows, bool)
    used = np.broadcast_to(~np.isnan(values) & chosen, scores.shape)
    true, count = (used & (values == 1)).sum(-1, keepdims=True), used.sum(-1, keepdims=True)
    soft = np.where(values == 1, (true + 1) / (true + 2), 1 / (count - true + 2))
    flat = [each.reshape(-1, scores.shape[-1]) for each in (scores, soft, used)]
    slope, intercept = jax.vmap(_newton)(*(jnp.asarray(each, scores.dtype) for each in flat))
    both = jnp.asarray(((true > 0) & (true < count))[..., 0])
    return Platt(
        *(jnp.where(both, each.reshape(both.shape), jnp.nan) for each in (slope, intercept))
    )


@jax.jit
def _newton(
    scores: Float[Array, " n"], targets: Float[Array, " n"], used: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    # A row that does not count may hold anything, and nan would spoil a sum at weight zero.
    scores = jnp.where(used > 0, scores, 0.0)
    share = used / jnp.maximum(used.sum(), 1)
    centre = (share * scores).sum()
    spread = jnp.sqrt((share * (scores - centre) ** 2).sum())
    spread = jnp.where(spread > 0, spread, 1.0)
    design = jnp.stack([(scores - centre) / spread, jnp.ones_like(scores)], axis=1)

    def loss(params):
        logits = (design * params[None]).sum(1)
        return (share * (jax.nn.softplus(logits) - targets * logits)).sum()

    def step(params, _):
        p = jax.nn.sigmoid((design * params[None]).sum(1))
        gradient = (design * (share * (p - targets))[:, None]).sum(0)
        weighted = design * (share * p * (1 - p))[:, None]
        (a, b), (_, c) = matmul(weighted.T, design) + 1e-9 * jnp.eye(2)
        # The inverse of two by two, written out: a call of LAPACK for each run of each method takes
        # longer than all else, and batched calls can wait for each other (`decompositions`).
        move = jnp.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]])
        move /= a * c - b * b
        # Halved until the loss no longer rises: far from the optimum a full step overshoots.
        sizes = 0.5 ** jnp.arange(12)
        losses = jax.vmap(lambda size: loss(params - size * move))(sizes)
        best = jnp.argmin(losses)
        better = losses[best] < loss(params)
        return jnp.where(better, params - sizes[best] * move, params), None

    (slope, intercept), _ = jax.lax.scan(step, jnp.zeros(2, scores.dtype), length=_NEWTON_STEPS)
    # A loss of nan never falls, so that the steps stay at 0.
    slope = jnp.where(jnp.isfinite(scores).all(), slope / spread, jnp.nan)
    return slope, intercept - slope * centre


def calibration_error(
    probabilities: Scores, labels: Labels, *, bins: int = 10
) -> Float[Array, "*runs"]:
    """Expected calibration error over bins of equal width (Guo et al. 2017, for one class).

    sum_b n_b / n |share of True in b - mean probability in b|; bin b holds the probabilities in
    (b / bins, (b + 1) / bins], and 0 is in the first.

    Args:
        probabilities: of True, in [0, 1], [..., n].
        labels: [n], 1 or 0; rows with nan are left out.
        bins: how many.

    Raises:
        ValueError: lengths differ, a label is something other than 0, 1 and nan, bins < 1, or a
            probability lies outside [0, 1].
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; allowed: 1 or more")
    probabilities, values = _checked(probabilities, labels)
    used = ~np.isnan(values)
    chosen, truth = probabilities[..., used], jnp.asarray(values[used])
    if bool(jnp.any((chosen < 0) | (chosen > 1))):
        raise ValueError("a probability lies outside [0, 1]; scale scores first (`fit_platt`)")

    def one_run(own: Float[Array, " n"]) -> Float[Array, ""]:
        place = jnp.clip(jnp.ceil(own * bins) - 1, 0, bins - 1).astype(int)
        return jnp.abs(jnp.zeros(bins).at[place].add(truth - own)).sum() / len(truth)

    return jax.vmap(one_run)(chosen.reshape(-1, len(truth))).reshape(chosen.shape[:-1])


def brier_score(probabilities: Scores, labels: Labels) -> Float[Array, "*runs"]:
    """Mean squared distance of probabilities [..., n] from labels (Brier 1950).

    Raises:
        ValueError: lengths differ, or a label is something other than 0, 1 and nan.
    """
    probabilities, values = _checked(probabilities, labels)
    used = ~np.isnan(values)
    chosen = probabilities[..., used]
    return jnp.mean((chosen - jnp.broadcast_to(values[used], chosen.shape)) ** 2, axis=-1)


def _checked(scores: Scores, labels: Labels) -> tuple[jax.Array, np.ndarray]:
    """Both, as `metrics.checked` has them; labels as NumPy, because they choose rows."""
    arrays = checked(scores, labels)
    return arrays[0], np.asarray(arrays[1])
