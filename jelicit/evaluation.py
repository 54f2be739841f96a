"""From fitted probes to result rows: scores, signs, metrics and intervals for all runs at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jelicit import metrics
from jelicit.pairs import Pairs
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.sweep import SweepConfig, SweepData, SweepResult, sweep

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
    assert bench.test is not None
    assert bench.boot is not None
    test = result.score(layer, bench.test)
    rows = []
    for target in bench.targets:
        found = signs(result, layer, bench, target, subsets=subsets)
        signed = [
            (method, orientation, found[method, orientation][:, None] * scores)
            for method, scores in test.items()
            for orientation in ("none", *orientations)
            if (method, orientation) in found
        ]
        # All methods at once: one compilation and one pass over the bootstrap per target.
        columns = measured(jnp.stack([scores for _, _, scores in signed]), target.test, bench.boot)
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
            for place, (method, orientation, _) in enumerate(signed)
            for number, run in enumerate(runs)
        ]
    return rows


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
    """AUROC and accuracy of scores [..., n] with their bootstrap intervals, each [...]."""
    area, correct = metrics.auroc(scores, labels), metrics.accuracy(scores, labels)
    area_low, area_high = metrics.auroc_interval(scores, labels, boot)
    correct_low, correct_high = metrics.accuracy_interval(scores, labels, boot)
    columns = {
        "auroc": area,
        "auroc_low": area_low,
        "auroc_high": area_high,
        "accuracy": correct,
        "accuracy_low": correct_low,
        "accuracy_high": correct_high,
    }
    return {name: np.asarray(values) for name, values in columns.items()}


def zero_shot_rows(
    log_probs: np.ndarray, targets: Sequence[Target], boot: jax.Array
) -> list[dict[str, Any]]:
    """One row per target for the model's own answer, log P(true) - log P(false)."""
    scores = metrics.log_odds(jnp.asarray(log_probs))[None]
    rows = []
    for target in targets:
        columns = measured(scores, target.test, boot)
        rows.append(
            {
                "method": "zero_shot",
                "orientation": "none",
                "seed": 0,
                "target": target.name,
                "role": target.role,
                "layer": NO_LAYER,
                "n_train": 0,
                **{name: float(values[0]) for name, values in columns.items()},
            }
        )
    return rows


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
) -> dict[int, float]:
    """Mean AUROC of CCS on its own train rows, layer by layer; the defaults unless `config` is set.

    This is how the layer is chosen: paper A takes the layer with the best CCS AUROC on unmodified
    claims. It looks at labels, so it is an ORACLE; it sees train rows only.
    """
    layers = tuple(hard)
    data = SweepData(hard=hard, layers=layers, subsets=subsets, seeds=seeds)
    result = sweep(data, replace(config or SweepConfig(), methods=("ccs",)))
    best = {}
    for layer in layers:
        scores = result.score(layer, hard[layer])["ccs"]
        voters = np.where(subsets, labels[None, :], np.nan)
        areas = [float(metrics.auroc(s, v)) for s, v in zip(scores, voters, strict=True)]
        best[layer] = float(np.mean([max(area, 1 - area) for area in areas]))
    return best
