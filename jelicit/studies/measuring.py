"""The one road from hidden states and labels to result rows and item scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jelicit.calibration import fit_platt
from jelicit.probes.sweep import SweepConfig, SweepData, SweepResult, sweep
from jelicit.probes.sweep.doubts import failures, unsigned
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.studies import scoring
from jelicit.studies.indicating import indicator_columns
from jelicit.studies.scoring import ORIENTATIONS, Bench
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, at_layer

Score = tuple[dict[str, Any], np.ndarray]
"""What sets a method's column of item scores apart, and its scores [seeds, n] or [n]."""


@dataclass
class Measured:
    """Rows of a situation, and each method's signed truth scores of its test items.

    Attributes:
        rows: Result rows.
        scores: Item scores.
        fits: The probes; None where several measurements were added up.
        signs: Layer, method and orientation -> the sign of every run [R], by the labels asked for.
        doubts: What speaks against the numbers, a line each.
        members: Where they were asked for, the test scores [n] of every run by which ensembles over
            prompts are made (`prompt_ensembles`), for each label that a sign was picked by.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    fits: SweepResult | None = None
    signs: dict[tuple[int, str, str], np.ndarray] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    members: list[Score] = field(default_factory=list)

    def __iadd__(self, other: Measured) -> Measured:
        self.rows += other.rows
        self.scores += other.scores
        self.doubts += other.doubts
        self.members += other.members
        self.fits, self.signs = None, {}
        return self

    def add(self, layer: Measured) -> None:
        """Add what was measured at one more layer of the same fits."""
        self.rows += layer.rows
        self.scores += layer.scores
        self.members += layer.members
        self.signs |= layer.signs


def measure(
    situation: Situation,
    runs: Runs,
    states: States,
    config: SweepConfig,
    *,
    taught: np.ndarray | None = None,
    orientations: Sequence[str] = ORIENTATIONS,
    boot: int | jax.Array = 1000,
    names: Mapping[str, str] | None = None,
    store: FitStore | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    members: bool = False,
) -> Measured:
    """Fit probes, score all rows once, pick signs, and measure: every study goes through here.

    Args:
        situation: What is measured: labels of train and test rows, groups, the easy set.
        runs: The fits: seeds and train rows.
        states: Hidden states of its rows.
        config: How probes are fitted.
        taught: What labelled probes learn from, [N] of 1, 0 and nan; None = the label that the
            prompt asks for. What has no truth value (nan) is neither: 0.5.
        orientations: How the sign of an unlabelled direction is picked.
        boot: Bootstrap samples behind every interval, or their weights [B, n].
        names: Method -> what rows and scores call it instead.
        store: Finished fits, taken from there and put there.
        report: Called with (units of work done, all units).
        members: Whether what ensembles over prompts are made of is wanted (`Measured.members`).

    Returns:
        Rows (none without test rows), item scores, the fits and their signs.

    Raises:
        ValueError: What `sweep` refuses.
    """
    names = names or {}
    fits = sweep(sweep_data(situation, runs, states, taught), config, store=store, report=report)
    measured = Measured(fits=fits, doubts=failures(fits, runs.about))
    weights = None
    if states.test is not None:
        if "oracle" in orientations:
            measured.doubts += unsigned(config, runs.subsets, situation.asked)
        weights = situation.boot(boot) if isinstance(boot, int) else boot
    for layer in fits.layers:
        measured.add(
            _at_layer(
                *(situation, runs, states, fits, layer, weights, orientations, names),
                members=members,
            )
        )
    return measured


def _at_layer(
    situation: Situation,
    runs: Runs,
    states: States,
    fits: SweepResult,
    layer: int,
    weights: jax.Array | None,
    orientations: Sequence[str],
    names: Mapping[str, str],
    *,
    members: bool,
) -> Measured:
    """What `measure` gives of one layer: scores once, then signs and rows for every target."""
    bench = bench_at(states, layer)
    scores = scoring.layer_scores(fits, layer, bench)
    measured = Measured()
    asked, *others = situation.targets()
    by = {"subsets": runs.subsets, "easy_labels": _easy_labels(situation, states)}
    signs = scoring.signs(scores, asked, **by)
    measured.signs = {(layer, *key): np.asarray(sign) for key, sign in signs.items()}
    if weights is None:
        return measured
    kept = {key: sign for key, sign in signs.items() if key[1] in ("none", *orientations)}
    as_probabilities = scoring.calibrated(scores, kept, asked, **by)
    assert bench.test is not None
    assert scores.test is not None
    warning = indicator_columns(
        *(situation, runs, fits, layer, bench.test, scores.test, states.test_log_probs)
    )
    more = {key: {**as_probabilities.get(key, {}), **warning[key[0]]} for key in kept}
    for target in (asked, *others):
        own = signs if target is asked else scoring.signs(scores, target, **by)
        signed = scoring.signed_scores(scores, own, orientations=orientations)
        measured.rows += scoring.method_rows(
            *(signed, target, weights),
            layer=layer,
            subsets=runs.subsets,
            runs=runs.about,
            more=more if target is asked else None,
        )
        if members:
            scaled = scoring.on_one_scale(signed, scores, subsets=runs.subsets)
            measured.members += _members(scaled, target.name, runs, layer, names)
        if target is asked:
            for (method, orientation), values in signed.items():
                about = {"method": names.get(method, method), "orientation": orientation}
                about |= {"layer": layer}
                measured.scores += by_setting(about, runs, np.asarray(values))
    for row in measured.rows:
        row["method"] = names.get(row["method"], row["method"])
    return measured


def _members(
    scaled: Mapping[tuple[str, str], np.ndarray],
    target: str,
    runs: Runs,
    layer: int,
    names: Mapping[str, str],
) -> list[Score]:
    """What ensembles are made of: scores [n] of each run of each method, and which they are."""
    return [
        (
            {
                "method": names.get(method, method),
                "orientation": orientation,
                "layer": layer,
                "target": target,
                "n_train": int(runs.subsets[number].sum()),
                **run,
            },
            values[number],
        )
        for (method, orientation), values in scaled.items()
        for number, run in enumerate(runs.about)
    ]


def untrained_members(situation: Situation, measured: Measured) -> list[Score]:
    """The same of zero-shot prompting, calibrated or not: log-odds, in the unit that they have."""
    about = {"layer": None, "n_train": 0, "seed": 0}
    return [
        ({**settings, **about, "target": target.name}, scores)
        for settings, scores in measured.scores
        for target in situation.targets()
    ]


def sweep_data(
    situation: Situation, runs: Runs, states: States, taught: np.ndarray | None = None
) -> SweepData:
    """What the probes of a situation are fitted on; see `measure`."""
    asked = situation.asked if taught is None else taught
    easy = situation.easy
    ids = [item.id for item in situation.train]
    return SweepData(
        hard=states.train,
        layers=states.layers,
        subsets=runs.subsets,
        seeds=runs.seeds,
        hard_targets=np.where(np.isnan(asked), 0.5, asked),
        easy=states.easy,
        easy_labels=None if easy is None else easy.labels,
        hard_ids=ids,
        # Of claims that are rows in several prompts.
        wordings=np.array(ids) if len(set(ids)) < len(ids) else None,
        easy_ids=None if easy is None else [item.id for item in easy.items],
        rows_name=f"{situation.dataset} train rows",
    )


def bench_at(states: States, layer: int) -> Bench:
    """What the probes of one layer are measured on."""
    return Bench(
        hard=at_layer(states.train, layer),
        test=None if states.test is None else at_layer(states.test, layer),
        easy=None if states.easy is None else at_layer(states.easy, layer),
    )


def _easy_labels(situation: Situation, states: States) -> np.ndarray | None:
    return None if situation.easy is None or states.easy is None else situation.easy.labels


def by_setting(about: dict[str, Any], runs: Runs, scores: np.ndarray) -> list[Score]:
    """Scores [R, n] of one method, apart by what sets its runs apart beside the seed."""
    settings = [
        {k: v for k, v in run.items() if k != "seed" and v is not None} for run in runs.about
    ]
    distinct = [s for place, s in enumerate(settings) if s not in settings[:place]]
    return [
        ({**about, **setting}, scores[[place for place, s in enumerate(settings) if s == setting]])
        for setting in distinct
    ]


def without_training(situation: Situation, states: States, boot: jax.Array) -> Measured:
    """Zero-shot prompting and the controls: neither train rows nor a seed decide them."""
    scores: dict[str, np.ndarray] = {}
    if states.test_log_probs is not None:
        scores["zero_shot"] = states.test_log_probs[:, 0] - states.test_log_probs[:, 1]
    if situation.answers is None:  # of arrays nobody knows the texts
        scores |= scoring.control_scores(situation.test)
    # A feature says nothing of itself.
    scores.pop(f"control_{situation.target}", None)
    rows = scoring.fixed_rows(scores, situation.targets(), boot)
    _add_calibration(rows, situation, states)
    shown = [(name, scores[name]) for name in ("zero_shot",) if name in scores]
    return Measured(rows, [({"method": m, "orientation": "none"}, s) for m, s in shown])


def _add_calibration(rows: Sequence[dict[str, Any]], situation: Situation, states: States) -> None:
    """How well the model's own answer does as a probability, its unit learnt on the train rows."""
    train, test = states.train_log_probs, states.test_log_probs
    if train is None or test is None:
        return
    asked = situation.targets()[0]
    known = np.where(np.isin(asked.train, (0, 1)), asked.train, np.nan)
    unit = fit_platt(train[:, 0] - train[:, 1], known)
    columns = scoring.as_probabilities(unit, test[:, 0] - test[:, 1], asked.test)
    for row in rows:
        if row["method"] == "zero_shot" and row["role"] == "truth":
            row |= {name: float(value) for name, value in columns.items()}
