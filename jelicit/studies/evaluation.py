"""From fitted probes to result rows: scores, signs, metrics and intervals for all runs at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jelicit import metrics
from jelicit.data.items import Item, labels
from jelicit.pairs import Pairs
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.sweep import SweepConfig, SweepData, SweepResult, sweep
from jelicit.probes.sweep.fitstore import FitStore

UNSIGNED = frozenset(
    {"random", "ccs", "pca", "random_ensemble_consensus", "pca_ensemble_consensus"}
)
"""Methods that find a direction but not its sign; `metrics.orient` has to pick it."""

ORIENTATIONS = ("oracle", "easy")
"""Who picks the sign of an unsigned method: train labels, or the easy labelled set."""

NO_LAYER = float("nan")
"""The layer of a row whose method reads no hidden state (zero-shot)."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A label that truth scores are measured against.

    Attributes:
        name: "truth", or the name of the other label.
        role: "truth" for the label that the prompt asks for, "spurious" for one that it does not.
        train: The label of every hard train row [N], nan where it has none. Used to pick signs
            under `oracle` orientation and for nothing else.
        test: The label of every test row [n].
    """

    name: str
    role: str
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What probes are measured on at one layer.

    Attributes:
        hard: Pairs of the hard train rows [N, d].
        test: Pairs of the test rows [n, d]; None where only signs are asked for.
        easy: Pairs of the easy rows [E, d], or None.
        easy_labels: Their labels [E].
        targets: The labels to measure against.
        boot: Bootstrap weights [B, n] over the test rows' groups.
    """

    hard: Pairs
    test: Pairs | None
    easy: Pairs | None
    easy_labels: np.ndarray | None
    targets: tuple[Target, ...]
    boot: jax.Array | None


def method_rows(
    result: SweepResult,
    layer: int,
    bench: Bench,
    *,
    subsets: np.ndarray,
    runs: Sequence[Mapping[str, Any]],
    orientations: Sequence[str] = ORIENTATIONS,
) -> list[dict[str, Any]]:
    """One row per method, orientation, run and target.

    Orientation "oracle" picks the sign of an unsigned method on the run's train rows, by the labels
    of the very target that the row is about; "easy" picks it by the labels of the easy set, so it
    may leave a spurious AUROC below 0.5. Methods that know their sign are measured once, "none".

    Args:
        result: The fitted probes.
        layer: The layer to measure.
        bench: What to measure on.
        subsets: The hard train rows of each run, bool [R, N].
        runs: What every run's rows say of it [R]: its seed, and whatever else was set.
        orientations: Which of them.
    """
    assert bench.boot is not None
    rows = []
    for target in bench.targets:
        signed = signed_scores(
            result, layer, bench, target, subsets=subsets, orientations=orientations
        )
        # All methods at once: one compilation and one pass over the bootstrap per target.
        columns = measured(jnp.stack(list(signed.values())), target.test, bench.boot)
        rows += [
            {
                "method": method,
                "orientation": orientation,
                **run,
                "target": target.name,
                "role": target.role,
                "layer": layer,
                "n_train": int(subsets[number].sum()),
                **{name: float(values[place, number]) for name, values in columns.items()},
            }
            for place, (method, orientation) in enumerate(signed)
            for number, run in enumerate(runs)
        ]
    return rows


def signed_scores(
    result: SweepResult,
    layer: int,
    bench: Bench,
    target: Target,
    *,
    subsets: np.ndarray,
    orientations: Sequence[str] = ORIENTATIONS,
) -> dict[tuple[str, str], jax.Array]:
    """Method and orientation -> truth scores of the test rows in every run [R, n], sign picked."""
    assert bench.test is not None
    test = result.score(layer, bench.test)
    found = signs(result, layer, bench, target, subsets=subsets)
    return {
        (method, orientation): found[method, orientation][:, None] * scores
        for method, scores in test.items()
        for orientation in ("none", *orientations)
        if (method, orientation) in found
    }


def signs(
    result: SweepResult, layer: int, bench: Bench, target: Target, *, subsets: np.ndarray
) -> dict[tuple[str, str], jax.Array]:
    """Method and orientation -> the sign of every run [R].

    Methods that know their sign have the orientation "none"; "easy" is there where the bench has an
    easy set.
    """
    train = result.score(layer, bench.hard)
    easy = None if bench.easy is None else result.score(layer, bench.easy)
    # Rows outside a run's subset have no vote on its sign.
    voters = np.where(subsets, target.train[None, :], np.nan)
    found = {}
    for method in result.methods:
        if method not in UNSIGNED:
            found[method, "none"] = jnp.ones(len(subsets))
            continue
        votes = [metrics.orient(s, v) for s, v in zip(train[method], voters, strict=True)]
        found[method, "oracle"] = jnp.stack(votes)
        if easy is not None and bench.easy_labels is not None:
            found[method, "easy"] = metrics.orient(easy[method], bench.easy_labels)
    return found


def measured(scores: Any, labels: np.ndarray, boot: jax.Array) -> dict[str, np.ndarray]:
    """AUROC and accuracy of scores [..., n] with their bootstrap intervals, each [...].

    Where some items have no truth value (nan), also the share of the scores' variance that comes
    from those that have one: `metrics.variance_share`, challenge 3 of paper A. Where none has one,
    all of it is nan.
    """
    columns = {
        "auroc": (metrics.auroc(scores, labels), metrics.auroc_interval(scores, labels, boot)),
        "accuracy": (
            metrics.accuracy(scores, labels),
            metrics.accuracy_interval(scores, labels, boot),
        ),
    }
    known = ~np.isnan(np.asarray(labels, np.float64))
    if not known.all():
        columns["variance_share"] = _share_of_known(scores, known, boot)
    found = {}
    for name, (value, (low, high)) in columns.items():
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {name: np.asarray(values) for name, values in found.items()}


def _share_of_known(
    scores: Any, known: np.ndarray, boot: jax.Array
) -> tuple[jax.Array, metrics.Interval]:
    """The share of variance from the known items, and its interval; nan where none is known."""
    if not known.any():
        nothing = jnp.full(np.shape(scores)[:-1], jnp.nan)
        return nothing, (nothing, nothing)
    share = metrics.variance_share(scores, known)["True"]
    return share, metrics.variance_share_interval(scores, known, boot)


def zero_shot_rows(
    log_probs: np.ndarray, targets: Sequence[Target], boot: jax.Array
) -> list[dict[str, Any]]:
    """One row per target for the model's own answer, log P(true) - log P(false)."""
    scores = np.asarray(metrics.log_odds(jnp.asarray(log_probs)))
    return fixed_rows({"zero_shot": scores}, targets, boot)


def fixed_rows(
    scores: Mapping[str, np.ndarray], targets: Sequence[Target], boot: jax.Array
) -> list[dict[str, Any]]:
    """One row per method and target for scores [n] that neither train rows nor a seed decide.

    Args:
        scores: Method -> its truth scores of the test rows [n], sign as it is.
        targets: The labels to measure against.
        boot: Bootstrap weights [B, n].
    """
    if not scores:
        return []
    rows = []
    for target in targets:
        columns = measured(jnp.stack([jnp.asarray(s) for s in scores.values()]), target.test, boot)
        rows += [
            {
                "method": method,
                "orientation": "none",
                "seed": 0,
                "target": target.name,
                "role": target.role,
                "layer": NO_LAYER,
                "n_train": 0,
                **{name: float(values[place]) for name, values in columns.items()},
            }
            for place, method in enumerate(scores)
        ]
    return rows


def control_scores(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Scores of the test items that look at no model: what a shortcut alone would reach.

    "control_length" is the number of characters of the judged text; "control_<name>" is each other
    label that all items have (a feature that was added, a speaker's party), 1 or 0.

    Args:
        items: n test items.
    """
    found = {"control_length": np.array([float(len(item.choice)) for item in items])}
    names = set.intersection(*(set(item.alt_labels) for item in items)) if items else set()
    for name in sorted(names):
        found[f"control_{name}"] = labels(items, name).astype(np.float64)
    return found


def salience_of(pairs: Pairs, label: np.ndarray) -> float:
    """Salience of a label (`metrics.salience`) in pairs as the model made them."""
    own = normalise(fit_normaliser(pairs, fitted_on="the same rows"), pairs)
    return float(metrics.salience(jnp.asarray(own.pos - own.neg), label))


def ccs_by_layer(
    hard: Mapping[int, Pairs],
    labels: np.ndarray,
    *,
    subsets: np.ndarray,
    seeds: np.ndarray,
    config: SweepConfig | None = None,
    store: FitStore | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, float]:
    """Mean AUROC of CCS on its own train rows, layer by layer; the defaults unless `config` is set.

    This is how the layer is chosen: paper A takes the layer with the best CCS AUROC on unmodified
    claims. It looks at labels, so it is an ORACLE; it sees train rows only. Finished fits are kept
    in `store` and counted to `report`, as `sweep` does.
    """
    layers = tuple(hard)
    data = SweepData(hard=hard, layers=layers, subsets=subsets, seeds=seeds)
    config = replace(config or SweepConfig(), methods=("ccs",))
    result = sweep(data, config, store=store, report=report)
    best = {}
    for layer in layers:
        scores = result.score(layer, hard[layer])["ccs"]
        voters = np.where(subsets, labels[None, :], np.nan)
        areas = [float(metrics.auroc(s, v)) for s, v in zip(scores, voters, strict=True)]
        best[layer] = float(np.mean([max(area, 1 - area) for area in areas]))
    return best
