"""Pretraining of the pocket model: phases that end when the model has learned what they teach.

A phase reads one mix of documents at a full learning rate until its gate opens (every named
accuracy on held-out questions reaches its threshold) or its tokens run out; the last phase has a
fixed length and anneals the rate to zero.
The order matters: judges other than truth come in only once the truth is known, or it is never
    learned.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jelicit.data.pocket_world import Mix
from jelicit.pocket.corpus import BatchStream, CorpusConfig, WordEncoder
from jelicit.pocket.evaluate import measure
from jelicit.pocket.model import PocketConfig
from jelicit.pocket.train import (
    OptimiserConfig,
    TrainState,
    init_state,
    last_token_logits,
    restore_checkpoint,
    save_checkpoint,
    train_steps,
)

JUDGES = {
    "truth": 0.5,
    "sycophancy": 0.13,
    "punctuation": 0.11,
    "tense": 0.11,
    "elm": 0.11,
    "noise": 0.04,
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of the curriculum.

    Attributes:
        corpus: What it reads.
        tokens: Most tokens it reads (padding counted), in millions.
        gate: Measure -> least value; the phase ends once all hold. Empty: only the tokens end it.
        anneal: Whether the learning rate falls linearly to zero over the phase.
    """

    corpus: CorpusConfig
    tokens: float
    gate: Mapping[str, float] = field(default_factory=dict)
    anneal: bool = False

    @property
    def steps(self) -> int:
        """Most optimiser steps of the phase."""
        return max(1, round(self.tokens * 1e6 / (self.corpus.length * self.corpus.rows)))


def curriculum(*, marks: bool = True, scale: float = 1.0) -> tuple[Phase, ...]:
    """The phases of the shipped model.

    Args:
        marks: False leaves out every " yes"/" no" after a verdict or line (the ablation).
        scale: Multiplies every phase's tokens; small values make a quick, ignorant model.
    """
    on = 1.0 if marks else 0.0
    base = Mix(checked=0.3 * on, marked=0.35 * on)
    known = ("arithmetic", "larger_than", "facts")
    phases = (
        # Facts are read before anything is judged.
        (
            CorpusConfig(name="lines", length=128, rows=32, mix=replace(base, plain=1.0)),
            4,
            {f"stated/{kind}": 0.97 for kind in ("arithmetic", "facts")},
        ),
        # Truth alone, in one kind of prompt: too many kinds at once, and none is learned.
        (
            CorpusConfig(
                name="truth",
                length=128,
                rows=32,
                mix=replace(base, plain=0.3, header=0.0, targeted=0.0, feature=0.0, kinds=known),
            ),
            12,
            {
                "zero_shot/arithmetic": 0.95,
                "zero_shot/larger_than": 0.95,
                "zero_shot/facts_claim": 0.95,
            },
        ),
        (
            CorpusConfig(
                name="targets",
                length=128,
                rows=32,
                mix=replace(base, plain=0.2, header=0.1, targeted=0.6, feature=0.1, kinds=known),
            ),
            8,
            {f"zero_shot/{kind}": 0.9 for kind in ("facts", "comments", "commands", "pairs")},
        ),
        (
            CorpusConfig(
                name="judges",
                length=256,
                rows=16,
                mix=replace(base, plain=0.2, header=0.6, judges=JUDGES),
            ),
            6,
            {},
        ),
        (
            CorpusConfig(
                name="anneal",
                length=512,
                rows=8,
                mix=replace(base, plain=0.2, header=0.3, judges=JUDGES, long=0.2),
            ),
            8,
            {},
        ),
    )
    return tuple(
        Phase(
            corpus=corpus,
            tokens=tokens * scale,
            gate=gate,
            anneal=corpus.name == "anneal",
        )
        for corpus, tokens, gate in phases
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
    phases: tuple[Phase, ...]
    seed: int = 0
    stack: int = 50
    measure_every: int = 300

    def __post_init__(self) -> None:
        if self.measure_every % self.stack:
            raise ValueError(
                f"measure_every={self.measure_every} is no multiple of stack={self.stack}; "
                "measurements happen between dispatches"
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


def _rates(phase: Phase, first: int, count: int) -> np.ndarray:
    steps = np.arange(first, first + count)
    return (
        np.float32(1.0) - steps.astype(np.float32) / phase.steps
        if phase.anneal
        else np.ones(count, np.float32)
    )


def _gate_open(phase: Phase, measures: Mapping[str, float]) -> bool:
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
    """
    state = init_state(config.model, config.optimiser, config.seed)
    restored = restore_checkpoint(folder, state)
    progress = Progress()
    if restored is not None:
        state, saved = restored
        progress = Progress(**saved)
    stream = BatchStream(encode, config.seed, workers=workers)
    try:
        while progress.phase < len(config.phases):
            state = _run_phase(config, encode, stream, state, progress, folder, report)
    finally:
        stream.close()
    return state, progress


def _run_phase(
    config: RunConfig,
    encode: WordEncoder,
    stream: BatchStream,
    state: TrainState,
    progress: Progress,
    folder: Path,
    report: Callable[[Progress, RunConfig], None],
) -> TrainState:
    phase = config.phases[progress.phase]
    done = False
    while not done:
        started = time.perf_counter()
        count = min(config.stack, phase.steps - progress.step)
        batches = stream.stack(phase.corpus, progress.step, count)
        state, losses = train_steps(state, batches, _rates(phase, progress.step, count))
        progress.step += count
        progress.tokens += count * phase.corpus.length * phase.corpus.rows
        progress.losses.append([progress.tokens, float(np.mean(np.asarray(losses)))])
        progress.seconds += time.perf_counter() - started
        done = progress.step >= phase.steps
        if done or progress.step % config.measure_every == 0:
            measures = measure(partial(last_token_logits, state), encode)
            progress.measures.append(
                {"phase": phase.corpus.name, "tokens": progress.tokens, **measures}
            )
            done = done or _gate_open(phase, measures)
            if done:
                progress.phase, progress.step = progress.phase + 1, 0
            save_checkpoint(folder, state, dataclasses.asdict(progress))
        report(progress, config)
    return state
