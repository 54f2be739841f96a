"""A whole study in one call: methods x seeds x class shares x settings x layers, measured.

Runs that share hidden states share a program: seeds, class shares and rates (learning rates, loss
weights, ...) are runs of one sweep. A setting that changes the program itself (restarts, precision,
...) makes a sweep per value, in which only the methods that read it are fitted again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit.data.items import known_labels
from jelicit.data.subsets import class_share_rows
from jelicit.pairs import Pairs, check_finite, check_shapes
from jelicit.probes.files import FittedProbe
from jelicit.probes.methods import METHODS, Method, SweepConfig, crossable, get_method
from jelicit.probes.sweep import SweepResult, check
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.studies.measuring import Measured, Score, measure, sweep_data, without_training
from jelicit.studies.scoring import ORIENTATIONS
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, at_layer
from jelicit.typed import is_whole, typed

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What to sweep: the product of everything that is named here.

    Attributes:
        methods: Which probes: names, `package.module:NAME` or `file.py:NAME` of one's own, or a
            `Method` itself.
        seeds: Every seed draws its own start and its own train rows.
        class_shares: Shares of true claims among the train rows (challenge 2 of paper A); None
            stands for all train rows as they are.
        train_size: Train rows of a run with a class share; None = min(#true, #false), which can be
            had at every share.
        layers: Which layers; None = all there are.
        settings: Name of a setting (of `SweepConfig`, or of one's own method) -> its values, such
            as {"easy_share": (0.25, 0.5), "restarts": (1, 10)}.
        orientations: How the sign of an unlabelled direction is picked: "oracle" (by train labels)
            and "easy" (by the easy set, where there is one).
        base: All other settings; its methods are those above.
    """

    methods: tuple[str | Method, ...] = METHODS
    seeds: Sequence[int] = (0, 1, 2)
    class_shares: Sequence[float | None] = (None,)
    train_size: int | None = None
    layers: tuple[int, ...] | None = None
    settings: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    orientations: tuple[str, ...] = ORIENTATIONS
    base: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        typed(self, but=("seeds", "class_shares", "settings"))
        if not isinstance(self.settings, Mapping):
            raise ValueError(f"settings is {self.settings!r}; give a mapping: values by name")
        known = crossable(self.methods)
        for name in self.settings:
            if name not in known:
                raise ValueError(f"settings has {name!r}; a grid may cross {', '.join(known)}")
        parts = {"seeds": self.seeds, "class_shares": self.class_shares, **self.settings}
        for name, values in parts.items():
            if isinstance(values, str | bytes) or not isinstance(
                values, Sequence | range | np.ndarray
            ):
                raise ValueError(f"{name} is {values!r}; give a sequence of values")
            if len(values) == 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} is {list(values)}; name at least one value, each once")
        for seed in self.seeds:
            if not is_whole(seed) or seed < 0:
                raise ValueError(f"seeds has {seed!r}; allowed are whole numbers from 0")
        wrong = [o for o in self.orientations if o not in ORIENTATIONS]
        if wrong or not self.orientations:
            raise ValueError(f"orientations is {self.orientations}; choose some of {ORIENTATIONS}")

    @property
    def rates(self) -> tuple[str, ...]:
        """The crossed settings that runs of one sweep may differ in."""
        known = crossable(self.methods)
        return tuple(name for name in self.settings if known[name].per_run)

    def runs(self) -> list[dict[str, Any]]:
        """What sets the runs of one sweep apart: class share, rates, seed."""
        rates = {name: self.settings[name] for name in self.rates}
        return [
            {"class_share": share, **dict(zip(rates, chosen, strict=True)), "seed": int(seed)}
            for share in self.class_shares
            for chosen in product(*rates.values())
            for seed in self.seeds
        ]

    def programs(self) -> Iterator[dict[str, Any]]:
        """What sets the sweeps apart: settings that change the compiled program."""
        names = [name for name in self.settings if name not in self.rates]
        for chosen in product(*(self.settings[name] for name in names)):
            yield dict(zip(names, chosen, strict=True))

    def runs_on(self, labels: np.ndarray) -> Runs:
        """The runs of one sweep with their train rows; see `subsets`."""
        return Runs(about=tuple(self.runs()), subsets=self.subsets(labels))

    def subsets(self, labels: np.ndarray) -> np.ndarray:
        """The train rows of every run, bool [R, N].

        Raises:
            ValueError: A class share that the labels cannot give.
        """
        runs = self.runs()
        chosen = np.zeros((len(runs), len(labels)), bool)
        for row, run in zip(chosen, runs, strict=True):
            if run["class_share"] is None:
                row[:] = True
            else:
                share, seed = run["class_share"], run["seed"]
                row[class_share_rows(labels, share=share, seed=seed, size=self.train_size)] = True
        return chosen


@dataclass(frozen=True, kw_only=True)
class GridResult:
    """Probes and result rows of a grid.

    Attributes:
        rows: One row per method, layer, orientation, target and run, with every setting that the
            grid crossed, metrics and intervals; empty without test rows.
        grid: What was swept.
        sweeps: The settings of each program, and its sweep.
        signs: Program, layer, method and orientation -> the sign of every run [R].
        scores: Signed truth scores of the test rows, as `ItemScores.of` takes them.
        doubts: What speaks against the numbers, a line each: fits that failed.
    """

    rows: pd.DataFrame
    grid: Grid
    sweeps: tuple[tuple[Mapping[str, Any], SweepResult], ...]
    signs: Mapping[tuple[int, int, str, str], np.ndarray]
    scores: tuple[Score, ...] = ()
    doubts: tuple[str, ...] = ()

    def probe(
        self,
        method: str | Method,
        *,
        layer: int | None = None,
        orientation: str | None = None,
        **where: Any,
    ) -> FittedProbe:
        """One probe, ready to score, with its sign and settings.

        Args:
            method: Its method.
            layer: Its layer; may be left out where there is one.
            orientation: How its sign is picked; by default the first of the grid's orientations.
                Of no effect on methods that know their sign.
            where: Its seed, class share and settings, as far as the grid has several.

        Raises:
            ValueError: No probe has these settings, or several have; says which settings to name.
        """
        declared = get_method(method)
        method = declared.name
        orientation = orientation or self.grid.orientations[0]
        known = {"class_share", "seed", *self.grid.settings}
        if unknown := sorted(set(where) - known):
            raise ValueError(f"{', '.join(unknown)}: the grid has {', '.join(sorted(known))}")
        fitting = [
            (program, run, {**settings, **apart})
            for program, (settings, _) in enumerate(self.sweeps)
            for run, apart in enumerate(self.grid.runs())
            if all({**settings, **apart}[name] == value for name, value in where.items())
        ]
        if len(fitting) > 1:
            differ = [n for n in sorted(known) if len({each[n] for _, _, each in fitting}) > 1]
            raise ValueError(f"{len(fitting)} runs fit {where}; name {', '.join(differ)}, too")
        if not fitting:
            raise ValueError(f"no run fits {where}; the grid has {self._values()}")
        program, run, settings = fitting[0]
        result = self.sweeps[program][1]
        if layer is None:
            if len(result.layers) > 1:
                raise ValueError(f"name a layer; there are {list(result.layers)}")
            layer = next(iter(result.layers))
        probe, normaliser = result.probe(method, layer=layer, run=run)
        named = {"method": method, "layer": layer, "orientation": "none", **settings}
        fitted = FittedProbe(probe=probe, normaliser=normaliser, settings=named)
        if not declared.free_sign:
            return fitted
        key = (program, layer, method, orientation)
        if key not in self.signs:
            raise ValueError(
                f"{method} has no sign by orientation {orientation!r}; it needs labels (oracle) or "
                "an easy set (easy)"
            )
        fitted = replace(fitted, settings={**named, "orientation": orientation})
        return fitted if self.signs[key][run] > 0 else fitted.flipped()

    def _values(self) -> dict[str, list[Any]]:
        parts = {"seed": self.grid.seeds, "class_share": self.grid.class_shares}
        return {name: list(values) for name, values in {**parts, **self.grid.settings}.items()}


def run_grid(
    grid: Grid,
    train: Pairs | Mapping[int, Pairs] | ActivationStore,
    labels: Any,
    *,
    test: Pairs | Mapping[int, Pairs] | ActivationStore | None = None,
    test_labels: Any = None,
    test_groups: Sequence[Any] | None = None,
    test_log_probs: np.ndarray | None = None,
    easy: Pairs | Mapping[int, Pairs] | ActivationStore | None = None,
    easy_labels: Any = None,
    others: Mapping[str, tuple[Any, Any]] | None = None,
    boot: int = 1000,
    folder: str | os.PathLike[str] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> GridResult:
    """Fit and measure every combination of a grid.

    Args:
        grid: What to sweep.
        train: Hidden states of the train rows: pairs [N, d] (of a layer called 0), pairs by layer,
            or a store that extraction wrote.
        labels: [N] of 1, 0 and nan (no truth value). Unlabelled methods never see them: they draw
            the class shares, teach labelled methods, and pick signs under "oracle".
        test: Hidden states of the test rows; without them there are probes, but no rows.
        test_labels: Their labels [n].
        test_groups: What belongs to one question [n]; intervals draw whole groups. None = every row
            is its own.
        test_log_probs: log P of the true and of the false verdict [n, 2]: adds rows of the method
            "zero_shot", the model's own log-odds.
        easy: Hidden states of the easy rows, for easy-to-hard methods.
        easy_labels: Their labels.
        others: Name of another label -> (train, test): every method is measured on it, too.
        boot: Bootstrap samples behind every interval.
        folder: Keeps finished fits: a call that was killed goes on where it stopped, and what does
            not depend on a changed setting is taken from there.
        report: Called with (units of work done, all units).

    Raises:
        ValueError: Before any fit: what `sweep` refuses (hidden states that a store reads: before a
            fit of their layer), a class share that the labels cannot give, sizes that disagree, a
            layer that a set lacks.
    """
    labels = known_labels(labels)
    if not isinstance(others, Mapping | None):
        raise ValueError(f"others is a {type(others).__name__}; give (train, test) by label")
    states = States.of_arrays(train, test, easy, layers=grid.layers, test_log_probs=test_log_probs)
    _check_test(states, labels, test_labels, {} if others is None else others, test_groups)
    situation = Situation.of_labels(
        labels, test_labels, others=others, easy=easy_labels, groups=test_groups
    )
    runs = grid.runs_on(labels)
    programs = [(settings, _config(grid, settings)) for settings in grid.programs()]
    for _, config in programs:
        check(sweep_data(situation, runs, states), config)
    if (easy is None) != (easy_labels is None):
        given, missing = ("easy_labels", "easy") if easy is None else ("easy", "easy_labels")
        raise ValueError(f"{given} without {missing}: give both, or neither")
    measured = _measure_programs(
        programs,
        situation,
        runs,
        states,
        orientations=grid.orientations,
        boot=situation.boot(boot) if test is not None else boot,
        store=FitStore(folder),
        report=report,
    )
    beside = Measured()
    if test is not None:
        beside = without_training(situation, states, situation.boot(boot))
    return _result(grid, programs, measured, beside)


def _measure_programs(
    programs: Sequence[tuple[Mapping[str, Any], SweepConfig]],
    situation: Situation,
    runs: Runs,
    states: States,
    *,
    report: Callable[[int, int], None],
    **how: Any,
) -> list[Measured]:
    """One measurement per program, whose settings its rows and doubts name.

    Args:
        programs: Settings of each, and all settings of its sweep.
        situation: What is measured.
        runs: The runs of every program.
        states: Hidden states.
        report: Told of the work of all programs; each takes the same share.
        **how: As of `measure`.
    """
    measured = []
    for number, (settings, config) in enumerate(programs):

        def reported(done: int, units: int, before: int = number) -> None:
            report(before * units + done, len(programs) * units)

        about = tuple({**settings, **run} for run in runs.about)
        one = measure(situation, replace(runs, about=about), states, config, report=reported, **how)
        one.doubts = [_of_program(line, settings) for line in one.doubts]
        measured.append(one)
    return measured


def _result(
    grid: Grid,
    programs: Sequence[tuple[Mapping[str, Any], SweepConfig]],
    measured: Sequence[Measured],
    beside: Measured,
) -> GridResult:
    """All programs in one: sweeps and signs by program, rows one after the other.

    Args:
        grid: What was swept.
        programs: Its programs.
        measured: What each gave.
        beside: What was measured without a fit.
    """
    total = Measured()
    sweeps, signs = [], {}
    for number, ((settings, _), one) in enumerate(zip(programs, measured, strict=True)):
        assert one.fits is not None
        sweeps.append((settings, one.fits))
        signs |= {(number, *key): sign for key, sign in one.signs.items()}
        total += one
    total += beside
    return GridResult(
        rows=pd.DataFrame(total.rows),
        grid=grid,
        sweeps=tuple(sweeps),
        signs=signs,
        scores=tuple(total.scores),
        doubts=tuple(total.doubts),
    )


def _of_program(line: str, program: Mapping[str, Any]) -> str:
    """A line that says of which program it is, where a grid has several."""
    about = ", ".join(f"{name} {value}" for name, value in program.items())
    return f"{about}: {line}" if about else line


def _config(grid: Grid, program: Mapping[str, Any]) -> SweepConfig:
    """The settings of one program, every crossed rate with its value for each run."""
    runs = grid.runs()
    rates = {name: np.array([run[name] for run in runs], np.float64) for name in grid.rates}
    config = replace(grid.base, methods=tuple(grid.methods))
    return config.with_settings({**rates, **program})


def _check_test(
    states: States,
    labels: np.ndarray,
    test_labels: Any,
    others: Mapping[str, tuple[Any, Any]],
    groups: Sequence[Any] | None,
) -> None:
    """Refuse test rows that do not fit together."""
    if states.test is None:
        if states.test_log_probs is not None:
            raise ValueError("test_log_probs without test: give the test rows' hidden states, too")
        return
    if isinstance(states.train, Mapping) and not {*states.layers} <= {*states.train}:
        return  # the sweep says so
    n = 0
    for layer in states.layers:
        if isinstance(states.test, Mapping) and layer not in states.test:
            raise ValueError(f"test lacks layer {layer}; it has {sorted(states.test)}")
        pairs = at_layer(states.test, layer)
        n, _ = check_shapes(pairs, name=f"test pairs of layer {layer}")
        check_finite(pairs, None, layer)
    targets = {"truth": test_labels, **{name: of_test for name, (_, of_test) in others.items()}}
    shapes = {f"labels of {name!r} in test": np.shape(of) for name, of in targets.items()}
    shapes["test_groups"] = (n,) if groups is None else np.shape(np.asarray(groups))
    log_probs = states.test_log_probs
    shapes["test_log_probs"] = (n,) if log_probs is None else np.shape(log_probs)[:1]
    for name, shape in shapes.items():
        if shape != (n,):
            raise ValueError(f"{name} has shape {shape}; test has {n} rows")
    for name, of_test in targets.items():
        if np.isnan(np.asarray(of_test, np.float64)).all():
            raise ValueError(
                f"labels of {name!r} in test are all nan: nothing can be measured; give "
                "rows that have a truth value, or leave test out"
            )
