"""Pretraining of the pocket model: phases that end when the model has learned what they teach.

A phase reads one mix of documents until its gate opens (every named accuracy on held-out questions
reaches its threshold) or its tokens run out; the last phases have no gate and anneal the learning
rate to zero. The order matters: judges other than truth come in only once the truth is known, or it
is never learned.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from jelicit.pocket.corpus import BatchStream, Corpus, CorpusConfig, WordEncoder
from jelicit.pocket.evaluate import measure
from jelicit.pocket.model import SIZES, PocketConfig
from jelicit.pocket.train import (
    OptimiserConfig,
    TrainState,
    init_state,
    last_token_logits,
    restore_checkpoint,
    save_checkpoint,
    train_steps,
)
from jelicit.pocket.world import Mix

# The user judges most often and tense least, so that features differ in how salient they are.
JUDGES = {
    "truth": 0.37,
    "sycophancy": 0.19,
    "punctuation": 0.14,
    "tense": 0.10,
    "elm": 0.16,
    "noise": 0.04,
}
# Opinions are the easiest to judge.
SHARES = {
    "arithmetic": 1.0,
    "larger_than": 0.8,
    "facts": 1.0,
    "far_facts": 0.12,
    "opinions": 0.6,
}


_Read = TypeVar("_Read", bound=Corpus)


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[_Read]):
    """One phase of the curriculum.

    Attributes:
        corpus: What it reads.
        tokens: Most tokens it reads (padding counted), in millions.
        gate: Measure -> least value; the phase ends once all hold. Empty: only the tokens end it.
        rate: Multiplies the optimiser's learning rates, at the start of the phase.
        end_rate: The same at its end; between them the rate changes linearly over all its tokens.
    """

    corpus: _Read
    tokens: float
    gate: Mapping[str, float] = field(default_factory=dict)
    rate: float = 1.0
    end_rate: float = 1.0

    @property
    def steps(self) -> int:
        """Most optimiser steps of the phase."""
        return max(1, round(self.tokens * 1e6 / (self.corpus.length * self.corpus.rows)))


def _mixes(marks: bool) -> dict[str, Mix]:
    """What each phase reads, in their order."""
    on = 1.0 if marks else 0.0
    base = Mix(plain=1.0, checked=0.5 * on, checklist=0.1 * on, marked=0.35 * on)
    # There are 480 facts, and which claims about them are right is soon learnt by heart, of no use
    # to a fact that was never judged. So they are judged only once sums are (what compares a stated
    # value with the known one is there by then, and facts take to it), and seldom.
    checks = replace(base, checked=0.85 * on)
    seldom = {"facts": 0.7}
    claims = replace(
        checks,
        plain=0.5,
        unchecked=seldom,
        header=0.0,
        targeted=0.0,
        feature=0.0,
        bare=0.5,
        kinds={"arithmetic": 1.0, "larger_than": 0.8, "facts": 0.5, "far_facts": 0.06},
    )
    everything = replace(
        base,
        unchecked=seldom,
        plain=0.25,
        checklist=0.2 * on,
        header=0.25,
        targeted=0.45,
        judges=JUDGES,
        kinds=SHARES,
        examples=(1, 14),
    )
    # Which of two answers is right builds on whether one is: it is learnt last, and asked most
    # then.
    longer = replace(
        everything,
        header=0.15,
        targeted=0.45,
        asked={"pairs": 3.0, "facts": 1.3, "poems": 0.5},
        examples=(4, 24),
    )
    return {
        "lines": base,
        "sums": replace(checks, unchecked={"facts": 1.0}),
        "checks": checks,
        "truth": claims,
        "judges": everything,
        "longer": longer,
        "anneal": replace(longer, long=0.3),
    }


# Name, tokens of a row, millions of tokens at most, the learning rate's factor at start and end,
# and the gate.
_PHASES: tuple[tuple[str, int, float, tuple[float, float], dict[str, float]], ...] = (
    # What is true is read before anything is judged.
    ("lines", 128, 1.8, (1.0, 1.0), {"stated/arithmetic": 0.97, "stated/facts": 0.97}),
    # Whether two values are equal is hard to learn, and lines ask it most often per token.
    ("sums", 128, 4.0, (0.5, 0.5), {"checked/arithmetic": 0.93}),
    ("checks", 128, 2.0, (0.5, 0.5), {"checked/arithmetic": 0.93, "checked/facts": 0.90}),
    # Truth alone, in one kind of prompt: too many kinds at once, and none is learned. At a high
    # rate the sums that were known are lost again. Facts must be judged by now, too: two seeds
    # that went on without them never learned to.
    (
        "truth",
        128,
        5.0,
        (0.3, 0.3),
        {
            "zero_shot/arithmetic": 0.95,
            "zero_shot/larger_than": 0.95,
            "zero_shot/facts_claim": 0.92,
        },
    ),
    ("judges", 256, 7.0, (0.25, 0.25), {}),
    # A judge that nothing names shows itself only over many examples.
    ("longer", 512, 3.5, (0.25, 0.12), {}),
    ("anneal", 1024, 1.6, (0.12, 0.0), {}),
)


def curriculum(*, marks: bool = True, scale: float = 1.0) -> tuple[Phase[CorpusConfig], ...]:
    """The phases of the shipped model.

    Args:
        marks: False leaves out every " yes"/" no" after a verdict or line (the ablation).
        scale: Multiplies every phase's tokens; small values make a quick, ignorant model.
    """
    mixes = _mixes(marks)
    return tuple(
        Phase(
            corpus=CorpusConfig(name=name, length=length, rows=4096 // length, mix=mixes[name]),
            tokens=tokens * scale,
            rate=rate,
            gate=gate,
            end_rate=end_rate,
        )
        for name, length, tokens, (rate, end_rate), gate in _PHASES
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A pretraining run.

    Attributes:
        model: Shape of the model.
        optimiser: Its optimiser.
        phases: The curriculum.
        seed: Seed of weights and corpus.
        stack: Optimiser steps per dispatch.
        measure_every: Steps between measurements (and checkpoints); a multiple of ``stack``.
    """

    model: PocketConfig
    optimiser: OptimiserConfig
    phases: tuple[Phase[Any], ...]
    seed: int = 0
    stack: int = 50
    measure_every: int = 200

    def __post_init__(self) -> None:
        if self.measure_every % self.stack:
            raise ValueError(
                f"measure_every={self.measure_every} is no multiple of stack={self.stack}; "
                "measurements happen between dispatches"
            )


def pretraining_config(
    size: str = "middle", *, seed: int = 0, marks: bool = True, scale: float = 1.0
) -> RunConfig:
    """How the first part of the shipped model was trained.

    Args:
        size: One of `SIZES`.
        seed: Seed of weights and corpus.
        marks: As of `curriculum`.
        scale: As of `curriculum`.
    """
    return RunConfig(
        model=SIZES[size],
        # With some decay a model learns fewer verdicts by heart.
        optimiser=OptimiserConfig(weight_decay=0.1),
        phases=curriculum(marks=marks, scale=scale),
        seed=seed,
    )


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    Attributes:
        phase: Number of the present phase.
        step: Steps done in it.
        tokens: Tokens read so far, in all phases.
        seconds: Seconds of training so far, measurements left out.
        losses: [tokens, mean loss] once per dispatch.
        measures: One mapping per measurement: phase, tokens and every accuracy.
    """

    phase: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    measures: list[dict[str, Any]] = field(default_factory=list)


def _rates(phase: Phase[Any], first: int, count: int) -> np.ndarray:
    """The learning rate's factor at each of ``count`` steps."""
    done = np.arange(first, first + count) / phase.steps
    return (phase.rate + (phase.end_rate - phase.rate) * done).astype(np.float32)


def _gate_open(phase: Phase[Any], measures: Mapping[str, float]) -> bool:
    return bool(phase.gate) and all(measures[name] >= least for name, least in phase.gate.items())


def pretrain(
    config: RunConfig,
    encode: WordEncoder,
    folder: Path,
    *,
    workers: int = 0,
    report: Callable[[Progress, RunConfig], None] = lambda progress, config: None,
) -> tuple[TrainState, Progress]:
    """Run the curriculum, or go on with it where ``folder`` holds checkpoints of the same run.

    A run that was killed ends with the same weights as one that was not (same device and
    versions): batches are numbered, and a checkpoint holds weights, optimiser and progress.

    Args:
        config: The run.
        encode: Text to token ids.
        folder: Where checkpoints go.
        workers: Processes that make batches ahead; 0 for none.
        report: Called after every dispatch.

    Raises:
        ValueError: ``folder`` holds checkpoints of a run with other settings; names those that
            differ.
    """

    def measured(state: TrainState, phase: Phase[Any]) -> dict[str, float]:
        judged = len(phase.corpus.mix.judges) > 1
        return measure(partial(last_token_logits, state), encode, few_shot=judged)

    state = init_state(config.model, config.optimiser, config.seed)
    return run_phases(
        config,
        encode,
        folder,
        state,
        teach=train_steps,
        measured=measured,
        workers=workers,
        report=report,
    )


def run_phases(
    config: RunConfig,
    encode: WordEncoder,
    folder: Path,
    state: TrainState,
    *,
    teach: Callable[[TrainState, Any, np.ndarray], tuple[TrainState, Any]],
    measured: Callable[[TrainState, Phase[Any]], dict[str, float]],
    workers: int,
    report: Callable[[Progress, RunConfig], None],
) -> tuple[TrainState, Progress]:
    """Run a curriculum of any kind, or go on with it; see `pretrain`.

    Args:
        config: The run.
        encode: Text to token ids.
        folder: Where checkpoints go.
        state: The state at its beginning.
        teach: (state, stacked batches, rate factors) -> the state after them, and their losses.
        measured: (state, phase) -> the measures that gates may ask for.
        workers: Processes that make batches ahead; 0 for none.
        report: Called after every dispatch.

    Raises:
        ValueError: ``folder`` holds checkpoints of a run with other settings.
    """
    restored = restore_checkpoint(folder, state)
    progress = Progress()
    if restored is not None:
        state, saved = restored
        _same_run(folder, saved.pop("run", {}), config)
        progress = Progress(**saved)
    stream = BatchStream(encode, config.seed, workers=workers)
    try:
        while progress.phase < len(config.phases):
            phase = config.phases[progress.phase]
            while True:
                state = _dispatch(config, phase, stream, state, progress, teach)
                done = progress.step >= phase.steps
                if done or progress.step % config.measure_every == 0:
                    found = measured(state, phase)
                    entry = {"phase": phase.corpus.name, "tokens": progress.tokens, **found}
                    progress.measures.append(entry)
                    done = done or _gate_open(phase, found)
                    if done:
                        progress.phase, progress.step = progress.phase + 1, 0
                    record = {**dataclasses.asdict(progress), "run": _settings(config)}
                    save_checkpoint(folder, state, record)
                report(progress, config)
                if done:
                    break
    finally:
        stream.close()
    return state, progress


def _dispatch(
    config: RunConfig,
    phase: Phase[Any],
    stream: BatchStream,
    state: TrainState,
    progress: Progress,
    teach: Callable[[TrainState, Any, np.ndarray], tuple[TrainState, Any]],
) -> TrainState:
    """The next steps of a phase, in one call of ``teach``."""
    started = time.perf_counter()
    count = min(config.stack, phase.steps - progress.step)
    batches = stream.stack(phase.corpus, progress.step, count)
    state, losses = teach(state, batches, _rates(phase, progress.step, count))
    progress.step += count
    progress.tokens += count * phase.corpus.length * phase.corpus.rows
    progress.losses.append([progress.tokens, float(np.mean(np.asarray(losses)))])
    progress.seconds += time.perf_counter() - started
    return state


def _settings(config: RunConfig) -> dict[str, Any]:
    """Everything that decides how a run goes on, as a checkpoint's JSON gives it back."""
    # Model and optimiser are checked where checkpoints are read.
    plain = dataclasses.asdict(config)
    return json.loads(json.dumps({k: plain[k] for k in plain if k not in ("model", "optimiser")}))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list):
        return {name: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, item in inner for k, v in _flat(item, f"{name}.{key}").items()}


def _same_run(folder: Path, found: Any, config: RunConfig) -> None:
    there, asked = _flat(found), _flat(_settings(config))
    different = [
        f"{name[1:]}: {there.get(name)} in the checkpoint, {asked.get(name)} asked for"
        for name in there | asked
        if there.get(name) != asked.get(name)
    ]
    if different:
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise ValueError(
            f"checkpoint in {folder} is of another run ({'; '.join(different[:5])}{more}); "
            "use the same settings or another folder"
        )
