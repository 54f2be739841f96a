"""How good truth scores are: AUROC, accuracy, their intervals, variance shares and salience.

Scores of many runs go in at once: ``scores[..., n]``, one column per item. Labels are 1 / True or
0 / False; an item whose label is nan has no truth value and is left out.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num, PRNGKeyArray, Shaped

from jelicit.pairs import full_floats
from jelicit.typed import is_whole

# An underscore before an axis leaves its length to the functions' own checks, whose messages say
# what to do.
Scores = Num[ArrayLike, "*runs n"]
Labels = Shaped[ArrayLike, "_n"]
Weights = Shaped[ArrayLike, "*_runs _n"]
BootWeights = Shaped[ArrayLike, "_boot _n"]
Interval = tuple[Float[Array, "*runs"], Float[Array, "*runs"]]

# JAX's default precision is TF32 or bfloat16 on accelerators.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

RUNS_PER_CHUNK = 256  # accuracy intervals: runs whose bootstrap samples are held at once


def auroc(
    scores: Scores, labels: Labels, *, weights: Weights | None = None
) -> Float[Array, "*all_runs"]:
    """Area under the ROC curve: the chance that a true item outscores a false one.

    With s the scores, y the labels and w the weights,

        AUROC = sum_ij w_i w_j y_i (1 - y_j) ([s_i > s_j] + [s_i = s_j] / 2) / (W_true W_false),

    so ties count one half. A weight of k equals k copies of the row. Works under jit and vmap.

    Args:
        scores: truth scores [..., n] (float64 becomes float32 unless JAX runs in x64).
        labels: [n], 1 or 0 (or bool); rows with nan are ignored.
        weights: [n] or [..., n], not negative; None weighs every row 1.

    Returns:
        [...]: one AUROC in [0, 1] per run. It is nan where it is undefined: no true item, no false
        item, or a nan score in a row that counts.

    Raises:
        ValueError: lengths differ, or a label is something other than 0, 1 and nan (values can
            only be checked outside jit; under jit such rows are ignored).
    """
    scores, labels = checked(scores, labels)
    return _auroc(scores, labels, _row_weights(weights, scores))


def accuracy(
    scores: Scores, labels: Labels, *, weights: Weights | None = None
) -> Float[Array, "*all_runs"]:
    """Share of items whose score has the sign of their label: above 0 is True, below 0 False.

    A score of exactly 0 decides nothing and counts one half, as a tie does in AUROC; so a probe
    that is always 0 has accuracy 0.5 at any class balance.

    Args:
        scores: truth scores [..., n].
        labels: [n], 1 or 0 (or bool); rows with nan are ignored.
        weights: [n] or [..., n], not negative; None weighs every row 1.

    Returns:
        [...]: one accuracy in [0, 1] per run; nan where no row counts or a counted score is nan.

    Raises:
        ValueError: as for `auroc`.
    """
    scores, labels = checked(scores, labels)
    scores, labels, weights = jnp.broadcast_arrays(scores, labels, _row_weights(weights, scores))
    counted = jnp.where(_has_class(labels), weights, 0.0)
    correct = jnp.where(counted > 0, _correctness(scores, labels), 0.0)
    return jnp.sum(counted * correct, -1) / jnp.sum(counted, -1)


def orient(scores: Scores, labels: Labels) -> Float[Array, "*runs"]:
    """The sign in {-1, +1} that brings each run's AUROC to at least one half.

    Unsupervised methods find a direction but not its sign; this is the one place that picks it:
    -1 where AUROC < 0.5. With labels of the task itself this is an ORACLE (paper A's released code
    does so with the train labels) and results must say so. `easy` orientation passes the scores
    and labels of the easy labelled set instead, and so uses no label of the task. Where AUROC is
    undefined (a single class, or a nan score) the sign is +1: nothing flips, as in the released
    code. Rows without a truth value (nan) do not vote.

    Args:
        scores: truth scores [..., n] of the rows that decide the sign.
        labels: [n] of the same rows.

    Returns:
        [...]: -1.0 or +1.0 per run; multiply the scores, or the probe, by it.

    Raises:
        ValueError: as for `auroc`.
    """
    return jnp.where(auroc(scores, labels) < 0.5, -1.0, 1.0)


def log_odds(log_probs: Float[ArrayLike, "*rows 2"]) -> Float[Array, "*rows"]:
    """Zero-shot truth score log P(true verdict | x) - log P(false verdict | x).

    Args:
        log_probs: [..., 2] natural logarithms, the true verdict first (as activation stores keep
            them).

    Returns:
        [...] scores in nats; nan where both verdicts have probability 0.
    """
    log_probs = jnp.asarray(log_probs)
    return log_probs[..., 0] - log_probs[..., 1]


def group_bootstrap(
    key: PRNGKeyArray, groups: Sequence[str] | Shaped[ArrayLike, "..."], n_boot: int
) -> Float[Array, "boot n"]:
    """Row weights of `n_boot` bootstrap samples that draw whole groups with replacement.

    A sample draws as many groups as there are; a row weighs as often as its group was drawn, so
    the items of one question move together. All runs share the draws: one array serves a whole
    sweep, and differences between methods are paired.

    Args:
        key: JAX random key.
        groups: [n] names or numbers, equal for rows that belong together.
        n_boot: number of samples B.

    Returns:
        [B, n] weights, whole numbers.

    Raises:
        ValueError: no rows, groups not one-dimensional, or n_boot below 1.
    """
    names = np.asarray(groups)
    if names.ndim != 1 or names.size == 0:
        raise ValueError(f"groups has shape {names.shape}; give one name per row, at least one.")
    if not is_whole(n_boot) or not 1 <= n_boot < 2**31:
        raise ValueError(f"n_boot is {n_boot!r}; draw at least 1 sample (a whole number).")
    unique, member = np.unique(names, return_inverse=True)
    draws = jax.random.randint(key, (n_boot, len(unique)), 0, len(unique))
    counts = jax.vmap(lambda drawn: jnp.bincount(drawn, length=len(unique)))(draws)
    return counts[:, member].astype(float)


def auroc_interval(
    scores: Scores, labels: Labels, weights: BootWeights, *, level: float = 0.95
) -> Interval:
    """Bootstrap interval of each run's AUROC: percentiles over the weighted AUROCs.

    A run is sorted once and all B samples are read off that order. Runs go one after the other, so
    memory stays at a few [n, B] buffers however many runs there are.

    Args:
        scores: truth scores [..., n].
        labels: [n], 1 or 0 (or bool); rows with nan are ignored.
        weights: [B, n] from `group_bootstrap`.
        level: coverage, between 0 and 1.

    Returns:
        (low, high), each [...]: the (1 - level) / 2 and (1 + level) / 2 quantiles (linear
        interpolation). Samples that miss a class are left out; nan where AUROC itself is nan.

    Raises:
        ValueError: level outside (0, 1), or as for `auroc`.
    """
    scores, labels = checked(scores, labels)
    ends = _auroc_ends(scores, labels, _boot_weights(weights, labels), _tails(level))
    return ends[..., 0], ends[..., 1]


def auroc_samples(
    scores: Scores, labels: Labels, weights: BootWeights
) -> Float[Array, "*runs boot"]:
    """AUROC of each run under every bootstrap sample: what paired differences are made of.

    Args:
        scores: truth scores [..., n].
        labels: [n], 1 or 0 (or bool); rows with nan are ignored.
        weights: [B, n] from `group_bootstrap`.

    Returns:
        [..., B]; nan for samples that miss a class, and all of them where AUROC itself is nan.

    Raises:
        ValueError: as for `auroc`.
    """
    scores, labels = checked(scores, labels)
    return _auroc_of_samples(scores, labels, _boot_weights(weights, labels))


def accuracy_interval(
    scores: Scores, labels: Labels, weights: BootWeights, *, level: float = 0.95
) -> Interval:
    """Bootstrap interval of each run's accuracy at 0: percentiles over the weighted accuracies.

    Arguments, returns and errors as for `auroc_interval`.
    """
    scores, labels = checked(scores, labels)
    ends = _accuracy_ends(scores, labels, _boot_weights(weights, labels), _tails(level))
    return ends[..., 0], ends[..., 1]


def variance_share(
    scores: Scores, sources: Sequence[str] | Shaped[ArrayLike, "..."]
) -> dict[str, Float[Array, "*runs"]]:
    """Share of the total score variance that each source of items contributes (paper A, 4.3).

    Source g contributes n_g / n * (var_g + (mean_g - mean)^2), which is the sum of its items'
    squared distances from the overall mean, over n. Divided by the total variance, the shares sum
    to 1.

    Args:
        scores: truth scores [..., n].
        sources: [n] names, e.g. "gsm8k" or "political_normative".

    Returns:
        source -> [...] share per run, sources in sorted order; nan where all scores are equal.

    Raises:
        ValueError: lengths differ.
    """
    scores, names = jnp.asarray(scores, float), np.asarray(sources)
    if names.shape != scores.shape[-1:]:
        raise ValueError(
            f"sources has shape {names.shape}, scores {scores.shape}; give one source per score."
        )
    squares = (scores - scores.mean(-1, keepdims=True)) ** 2
    # Equal scores less their mean are rounding, not always 0.
    total = jnp.where(_varies(scores), squares.sum(-1), jnp.nan)
    return {str(name): squares[..., names == name].sum(-1) / total for name in np.unique(names)}


def variance_share_interval(
    scores: Scores,
    chosen: Shaped[ArrayLike, "_n"],
    weights: BootWeights,
    *,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of the share of variance that the chosen items contribute.

    Args:
        scores: truth scores [..., n].
        chosen: bool [n], the items of one source of `variance_share`.
        weights: [B, n] from `group_bootstrap`.
        level: coverage, between 0 and 1.

    Returns:
        (low, high), each [...], quantiles as of `auroc_interval`; nan where all scores are equal.

    Raises:
        ValueError: level outside (0, 1), or lengths differ.
    """
    scores, chosen = jnp.asarray(scores, float), jnp.asarray(chosen, bool)
    if chosen.shape != scores.shape[-1:]:
        raise ValueError(f"chosen has shape {chosen.shape}, scores {scores.shape}")
    drawn = _boot_weights(weights, chosen).astype(scores.dtype)
    ours, tails = jnp.where(chosen[None], drawn, 0.0), _tails(level)

    def ends(run: jax.Array) -> jax.Array:
        # Centred once, or the difference of squares below cancels.
        centred = jnp.where(_varies(run), run - run.mean(), 0.0)
        square = jnp.square(centred)
        mean = matmul(drawn, centred) / drawn.sum(-1)
        around = jnp.square(mean)
        whole = matmul(drawn, square) - around * drawn.sum(-1)
        part = matmul(ours, square) - 2 * mean * matmul(ours, centred) + around * ours.sum(-1)
        return jnp.nanquantile(part / whole, tails)

    found = jax.lax.map(ends, scores.reshape(-1, scores.shape[-1]))
    found = found.reshape(*scores.shape[:-1], 2)
    return found[..., 0], found[..., 1]


def salience(diff: Float[ArrayLike, "n D"], feature: Labels) -> Float[Array, ""]:
    """How much of a contrast pair's variance lies along a feature.

    With x_i = phi_i+' - phi_i-' the differences of normalised hidden states, Cov their covariance
    over the rows used, and u = (mean of x where the feature holds - mean where it does not),
    normalised to length 1,

        salience = u' Cov u / trace(Cov).

    It lies in [0, 1]. A feature that the hidden states ignore does not reach 0: its u is then a
    chance direction weighted towards the large components, and the floor is about
    sum(lambda^2) / sum(lambda)^2 over the eigenvalues lambda of Cov (1 / D if they are equal).

    Args:
        diff: [n, D] differences phi+' - phi-'.
        feature: [n], 1 or 0 (or bool); rows with nan are left out altogether.

    Returns:
        Scalar; nan where a class is empty, the class means agree exactly, or nothing varies.

    Raises:
        ValueError: lengths differ, or a value is something other than 0, 1 and nan.
    """
    rows, feature = checked(jnp.asarray(diff).T, feature, name="feature", of="diff")
    diff = rows.T
    used = _has_class(feature)
    mean = jnp.where(used[:, None], diff, 0.0).sum(0) / used.sum()
    centred = jnp.where(used[:, None], diff - mean[None, :], 0.0)
    holds, fails = (feature == 1).astype(diff.dtype), (feature == 0).astype(diff.dtype)
    contrast = holds / holds.sum() - fails / fails.sum()
    between = jnp.matmul(contrast, centred, precision="highest")
    along = jnp.matmul(centred, between / jnp.linalg.norm(between), precision="highest")
    return jnp.sum(along**2) / jnp.sum(centred**2)


def checked(
    scores: ArrayLike, labels: ArrayLike, *, name: str = "labels", of: str = "scores"
) -> tuple[jax.Array, jax.Array]:
    """Both as arrays of float32 or float64, refusing unequal lengths and labels that are no labels.

    Raises:
        ValueError: Lengths differ, or (outside jit) a label is something other than 0, 1 and nan.
    """
    if not isinstance(labels, Tracer):
        try:
            values = np.asarray(labels, np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name} holds no numbers ({error}); allowed: 0, 1, nan.") from error
        labels = labels if isinstance(labels, jax.Array) else values
        odd = values[~np.isnan(values) & (values != 0) & (values != 1)]
        if odd.size:
            raise ValueError(
                f"{name} holds {odd[0]:g}; allowed are 0, 1 and nan (nan = no truth value)."
            )
    scores, labels = full_floats(scores), jnp.asarray(labels, jnp.float32)
    if scores.ndim == 0 or labels.shape != scores.shape[-1:]:
        raise ValueError(
            f"{name} has length {labels.shape}, {of} has {scores.shape[-1:]}; "
            f"give one label per item of {of}."
        )
    return scores, labels


def _row_weights(weights: ArrayLike | None, scores: jax.Array) -> jax.Array:
    if weights is None:
        return jnp.ones(scores.shape[-1])
    weights = jnp.asarray(weights, float)
    if weights.shape[-1:] != scores.shape[-1:]:
        raise ValueError(
            f"weights has shape {weights.shape}, scores {scores.shape}; the last axes must agree."
        )
    return weights


def _boot_weights(weights: ArrayLike, labels: jax.Array) -> jax.Array:
    weights = jnp.asarray(weights, float)
    if weights.ndim != 2 or weights.shape[1:] != labels.shape:
        raise ValueError(
            f"weights has shape {weights.shape}; need [samples, {labels.shape[0]}], one weight "
            "per label, as group_bootstrap gives them."
        )
    return weights


def _varies(scores: jax.Array) -> jax.Array:
    return scores.max(-1) > scores.min(-1)


def _tails(level: float) -> jax.Array:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a coverage lies between 0 and 1, such as 0.95.")
    return jnp.array([(1 - level) / 2, (1 + level) / 2])


def _has_class(labels: jax.Array) -> jax.Array:
    return (labels == 0) | (labels == 1)


def _correctness(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """1 right, 0 wrong, 1/2 for a score of 0, nan for a score of nan."""
    return 0.5 + 0.5 * jnp.sign(scores) * (2 * labels - 1)


def _auroc_samples(scores: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """AUROC of one run under many weightings: scores [n], labels [n], weights [n, B] -> [B]."""
    order = jnp.argsort(scores)
    scores, labels, weights = scores[order], labels[order], weights[order]
    true, false = (jnp.where((labels == y)[:, None], weights, 0.0) for y in (1, 0))
    # Row i of `beaten`: weight of the false items among the first i; whole numbers stay exact.
    beaten = jnp.pad(_running_sum(false), ((1, 0), (0, 0)))
    first, stop = _tie_bounds(scores)
    # Written as dots because XLA's fused sums over rows stride through memory on CPU.
    wins = jnp.einsum("nb,nb->b", true, beaten[first] + beaten[stop], precision="highest") / 2
    total = jnp.einsum("n,nb->b", jnp.ones_like(scores), true, precision="highest")
    return wins / (total * beaten[-1])


def _running_sum(x: jax.Array, *, block: int = 32) -> jax.Array:
    """Cumulative sum of [n, B] over rows, in blocks: XLA's own is twenty times slower on CPU."""
    blocks = jnp.pad(x, ((0, -len(x) % block), (0, 0))).reshape(-1, block, x.shape[1])
    total, inside = jax.lax.scan(
        lambda so_far, row: (so_far + row, so_far + row),
        jnp.zeros_like(blocks[:, 0]),
        blocks.swapaxes(0, 1),
    )
    before = jnp.cumsum(total, 0) - total
    return (inside + before[None]).swapaxes(0, 1).reshape(-1, x.shape[1])[: len(x)]


def _tie_bounds(ordered: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each place of a sorted array, where its run of equal values starts and stops."""
    place = jnp.arange(len(ordered))
    new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    first = jax.lax.cummax(jnp.where(new, place, 0))
    next_new = jnp.where(jnp.roll(new, -1), place + 1, len(ordered))
    return first, jax.lax.cummin(next_new, reverse=True)


@jax.jit
def _auroc(scores: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    def one_run(scores: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        lost = jnp.any(jnp.isnan(scores) & _has_class(labels) & (weights > 0))
        return jnp.where(lost, jnp.nan, _auroc_samples(scores, labels, weights[:, None])[0])

    scores, weights = jnp.broadcast_arrays(scores, weights)
    *runs, n = scores.shape
    areas = jax.vmap(one_run, in_axes=(0, None, 0))(
        scores.reshape(-1, n), labels, weights.reshape(-1, n)
    )
    return areas.reshape(runs)


@jax.jit
def _auroc_of_samples(scores: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    def one_run(run: jax.Array) -> jax.Array:
        lost = jnp.any(jnp.isnan(run) & _has_class(labels))
        return jnp.where(lost, jnp.nan, _auroc_samples(run, labels, weights.T))

    samples = jax.lax.map(one_run, scores.reshape(-1, scores.shape[-1]))
    return samples.reshape(*scores.shape[:-1], len(weights))


@jax.jit
def _auroc_ends(
    scores: jax.Array, labels: jax.Array, weights: jax.Array, tails: jax.Array
) -> jax.Array:
    def one_run(run: jax.Array) -> jax.Array:
        lost = jnp.any(jnp.isnan(run) & _has_class(labels))
        ends = jnp.nanquantile(_auroc_samples(run, labels, weights.T), tails)
        return jnp.where(lost, jnp.nan, ends)

    runs = scores.reshape(-1, scores.shape[-1])
    return jax.lax.map(one_run, runs).reshape(*scores.shape[:-1], 2)


@jax.jit
def _accuracy_ends(
    scores: jax.Array, labels: jax.Array, weights: jax.Array, tails: jax.Array
) -> jax.Array:
    counted = jnp.where(_has_class(labels)[None, :], weights, 0.0)

    def one_run(run: jax.Array) -> jax.Array:
        correct = jnp.where(_has_class(labels), _correctness(run, labels), 0.0)
        samples = jnp.matmul(counted, correct, precision="highest") / counted.sum(-1)
        return jnp.nanquantile(samples, tails)

    runs = scores.reshape(-1, scores.shape[-1])
    ends = jax.lax.map(one_run, runs, batch_size=RUNS_PER_CHUNK)
    return ends.reshape(*scores.shape[:-1], 2)
