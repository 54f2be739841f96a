"""From fitted probes to result rows: scores, signs, metrics and intervals for all runs at once.

The scores of a layer are made once (`layer_scores`), then signed (`signs`, `signed_scores`), then
measured (`method_rows`). `jelicit.studies.measuring.measure` goes that way for everybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jelicit import metrics
from jelicit.calibration import Platt, brier_score, calibration_error, fit_platt
from jelicit.data.items import Item, labels
from jelicit.data.shown import shown
from jelicit.pairs import Pairs
from jelicit.probes.method import EASY
from jelicit.probes.normalise import fit_normaliser, normalise
from jelicit.probes.registry import known_methods
from jelicit.probes.sweep import SweepConfig, SweepData, SweepResult, sweep
from jelicit.probes.sweep.fitstore import FitStore

ALGORITHM = 2
"""Of all between fits and rows (draws of train rows, signs, metrics, intervals, indicators);
raised whenever its numbers change: rows of another one are not read back."""

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
    """

    hard: Pairs
    test: Pairs | None = None
    easy: Pairs | None = None


class LayerScores(NamedTuple):
    """Truth scores of every method in every run at one layer, of unknown sign; made once.

    Signs, metrics and the item scores of a report are all read off these.
    """

    train: Mapping[str, jax.Array]
    """Method -> scores of the hard train rows [R, N]: they vote on signs under "oracle"."""
    easy: Mapping[str, jax.Array] | None
    """Method -> scores of the easy rows [R, E], where there is an easy set."""
    test: Mapping[str, jax.Array] | None
    """Method -> scores of the test rows [R, n], where there are any."""


def layer_scores(fits: SweepResult, layer: int, bench: Bench) -> LayerScores:
    """Scores of all rows of a bench by all probes of a layer."""
    return LayerScores(
        train=fits.score(layer, bench.hard),
        easy=None if bench.easy is None else fits.score(layer, bench.easy),
        test=None if bench.test is None else fits.score(layer, bench.test),
    )


Signs = Mapping[tuple[str, str], jax.Array]
"""Method and orientation -> the sign of every run [R]."""


def signs(
    scores: LayerScores,
    target: Target,
    *,
    subsets: np.ndarray,
    easy_labels: np.ndarray | None = None,
) -> Signs:
    """The sign of every method under every orientation that it can have.

    Methods that know their sign have the orientation "none"; "easy" is there where the easy set is.

    Args:
        scores: Of one layer.
        target: The label whose train rows vote under "oracle".
        subsets: The hard train rows of each run, bool [R, N]; others have no vote.
        easy_labels: Labels of the easy rows [E].
    """
    voters = np.where(subsets, target.train[None, :], np.nan)
    free = {method.name for method in known_methods() if method.free_sign}
    signs: dict[tuple[str, str], jax.Array] = {}
    for method, on_train in scores.train.items():
        if method not in free:
            signs[method, "none"] = jnp.ones(len(subsets))
            continue
        votes = [metrics.orient(s, v) for s, v in zip(on_train, voters, strict=True)]
        signs[method, "oracle"] = jnp.stack(votes)
        if scores.easy is not None and easy_labels is not None:
            signs[method, "easy"] = metrics.orient(scores.easy[method], easy_labels)
    return signs


def signed_scores(
    scores: LayerScores, signs: Signs, *, orientations: Sequence[str] = ORIENTATIONS
) -> dict[tuple[str, str], jax.Array]:
    """Method and orientation -> truth scores of the test rows in every run [R, n], sign picked."""
    assert scores.test is not None
    return {
        (method, orientation): signs[method, orientation][:, None] * values
        for method, values in scores.test.items()
        for orientation in ("none", *orientations)
        if (method, orientation) in signs
    }


def on_one_scale(
    signed: Mapping[tuple[str, str], jax.Array], scores: LayerScores, *, subsets: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Signed test scores [R, n] over the standard deviation of the run's own train scores.

    0 stays where the probe put it. A probe that says the same of all its train rows keeps its unit.

    Args:
        signed: Of `signed_scores`.
        scores: Of the same layer.
        subsets: The hard train rows of each run, bool [R, N].
    """
    scaled = {}
    for (method, orientation), values in signed.items():
        of_train = np.asarray(scores.train[method], np.float64)
        own = [row[used] for row, used in zip(of_train, subsets, strict=True)]
        # Not by the deviation alone: that of equal numbers is rounding, not always 0.
        units = [row.std() if row.size and row.max() > row.min() else 1.0 for row in own]
        scaled[method, orientation] = np.asarray(values, np.float64) / np.array(units)[:, None]
    return scaled


def calibrated(
    scores: LayerScores,
    signs: Signs,
    target: Target,
    *,
    subsets: np.ndarray,
    easy_labels: np.ndarray | None = None,
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """How well scores do as probabilities: {"ece": [R], "brier": [R]} per method and orientation.

    A score gets its unit by Platt scaling on the rows that gave its sign: the run's train rows
    under "oracle", the easy set under "easy"; of a method that knows its sign, the rows whose
    labels taught it. Then `calibration_error` and `brier_score` on the test rows.
    """
    assert scores.test is not None
    needs = {method.name: method.needs for method in known_methods()}
    columns = {}
    for (method, orientation), sign in signs.items():
        on_easy = orientation == "easy" or needs[method] == {EASY}
        if on_easy and (scores.easy is None or easy_labels is None):
            continue
        if on_easy:
            unit = fit_platt(scores.easy[method] * sign[:, None], easy_labels)  # type: ignore[index]
        else:
            known = np.where(np.isin(target.train, (0, 1)), target.train, np.nan)
            unit = fit_platt(scores.train[method] * sign[:, None], known, rows=subsets)
        columns[method, orientation] = as_probabilities(
            unit, scores.test[method] * sign[:, None], target.test
        )
    return columns


def as_probabilities(unit: Platt, scores: Any, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Expected calibration error and Brier score of scores [..., n]; nan where nothing was learnt.

    Args:
        unit: Of each run.
        scores: Of the test rows, signed.
        labels: Of the test rows [n].
    """
    learnt = np.isfinite(np.asarray(unit.slope)) & np.isfinite(np.asarray(scores)).all(-1)
    if np.isnan(labels).all():
        learnt = np.zeros_like(learnt)
    labels = np.where(np.isnan(labels).all(), 0.0, labels)
    given = jnp.where(jnp.asarray(learnt)[..., None], unit.probability(scores), 0.5)
    measures = {"ece": calibration_error(given, labels), "brier": brier_score(given, labels)}
    return {name: np.where(learnt, value, np.nan) for name, value in measures.items()}


def method_rows(
    signed: Mapping[tuple[str, str], jax.Array],
    target: Target,
    boot: jax.Array,
    *,
    layer: int,
    subsets: np.ndarray,
    runs: Sequence[Mapping[str, Any]],
    more: Mapping[tuple[str, str], Mapping[str, np.ndarray]] | None = None,
) -> list[dict[str, Any]]:
    """One row per method, orientation and run, measured against one target.

    Orientation "oracle" picks the sign of an unsigned method on the run's train rows, by the labels
    of the very target that the row is about; "easy" picks it by the labels of the easy set, so it
    may leave a spurious AUROC below 0.5. Methods that know their sign are measured once, "none".

    Args:
        signed: Of `signed_scores`, by the signs of this target.
        target: What scores are measured against.
        boot: Bootstrap weights [B, n] over the test rows' groups.
        layer: Where the scores are from.
        subsets: The hard train rows of each run, bool [R, N].
        runs: What every run's rows say of it [R]: its seed, and whatever else was set.
        more: Further columns, by method and orientation: name -> value of each run [R].
    """
    # All methods at once: one compilation and one pass over the bootstrap per target.
    columns = measured(jnp.stack(list(signed.values())), target.test, boot)
    return [
        {
            "method": method,
            "orientation": orientation,
            **run,
            "target": target.name,
            "role": target.role,
            "layer": layer,
            "n_train": int(subsets[number].sum()),
            **{name: float(values[place, number]) for name, values in columns.items()},
            **{name: float(values[number]) for name, values in own.items()},
        }
        for place, (method, orientation) in enumerate(signed)
        for own in [(more or {}).get((method, orientation), {})]
        for number, run in enumerate(runs)
    ]


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
    label that all items have (a feature that was added, a speaker's party), 1 or 0; and each
    number that all items have in `meta["controls"]`, as it is.

    Args:
        items: n test items.

    Raises:
        ValueError: A control is no number.
    """
    found = {"control_length": np.array([float(len(item.choice)) for item in items])}
    names = set.intersection(*(set(item.alt_labels) for item in items)) if items else set()
    for name in sorted(names):
        found[f"control_{name}"] = labels(items, name).astype(np.float64)
    return found | _numbers_of(items)


def _numbers_of(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Control -> its number for every item, where all items have one."""
    of_items = [item.meta.get("controls") or {} for item in items]
    for item, controls in zip(items, of_items, strict=True):
        for name, value in controls.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(
                    f"item {shown(item.id)}: meta.controls.{name} is {shown(value)}; allowed: "
                    "numbers"
                )
    names = set.intersection(*map(set, of_items)) if of_items else set()
    return {
        f"control_{name}": np.array([float(controls[name]) for controls in of_items])
        for name in sorted(names)
    }


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
