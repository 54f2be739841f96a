"""Teaching a finished pocket model to read the labels it is shown.

To use labels, three things must be worked out one after another: what each attribute says of a
text, whether that agrees with the label shown, and which attribute the labels of all examples agree
with. A model left to find that by itself stays on a plateau: a label says nothing until all three
are there. So new blocks go on top of the finished ones, which stay as they are, and during training
a linear readout after each of the first three new blocks (a guide) is asked for one of the three.
Guides are thrown away afterwards; the model is an ordinary one with more blocks.

The first verdict of a torn document, where no label has been read, is held to what the model below
says there: zero-shot verdicts are its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jelicit.pocket.corpus import WordEncoder
from jelicit.pocket.curriculum import Phase, Progress, RunConfig, curriculum, run_phases
from jelicit.pocket.evaluate import RIVALS, label_reading, measure
from jelicit.pocket.model import (
    Params,
    PocketConfig,
    PocketLM,
    build,
    deepened,
    new_blocks,
    params_of,
    rms_norm,
    run_blocks,
)
from jelicit.pocket.reading_corpus import ReadingBatch, ReadingCorpus
from jelicit.pocket.train import (
    OptimiserConfig,
    TrainState,
    descend,
    last_token_logits,
    make_optimiser,
)
from jelicit.pocket.world.torn import ATTRIBUTES, RULES

BLOCKS = 4
"""New blocks: one for each guide, and one that turns the verdict."""

SHOTS = 16
"""Examples in the prompts of its measurements."""


@dataclass(frozen=True, kw_only=True)
class ReadingConfig(RunConfig):
    """A run that teaches a model to read labels.

    Attributes:
        model: Shape of the deepened model.
        base: Digest of the weights below, as of `weights_digest`.
        guides: Weight of the guides' losses.
    """

    base: str
    guides: float = 0.5


def reading_config(base: PocketLM, *, seed: int = 0, scale: float = 1.0) -> ReadingConfig:
    """How the shipped model learnt to read, from the model below it.

    Args:
        base: The finished model.
        seed: Seed of the new weights and of the corpus.
        scale: Multiplies every phase's tokens.
    """
    return ReadingConfig(
        model=replace(base.config, n_layers=base.config.n_layers + BLOCKS),
        optimiser=OptimiserConfig(warmup_steps=30),
        phases=reading_phases(scale=scale),
        seed=seed,
        base=weights_digest(base),
    )


def reading_phases(*, scale: float = 1.0) -> tuple[Phase[ReadingCorpus], ...]:
    """The phases of reading: short rows at the full rate, then longer ones as the rate falls.

    A quarter of the rows are the usual documents of the last phases, so that what was known stays.
    """
    mix = curriculum()[-1].corpus.mix
    parts = (("read", 512, 2.0, (1.0, 1.0)), ("read_longer", 1024, 2.6, (1.0, 0.0)))
    return tuple(
        Phase(
            corpus=ReadingCorpus(
                name=name, length=length, rows=4096 // length, usual=1024 // length, mix=mix
            ),
            tokens=tokens * scale,
            rate=rate,
            end_rate=end_rate,
        )
        for name, length, tokens, (rate, end_rate) in parts
    )


def weights_digest(model: PocketLM) -> str:
    """SHA-256 over a model's weights in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params_of(model)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()


# --- weights -------------------------------------------------------------------------------------


def init_reader(config: ReadingConfig, base: PocketLM) -> TrainState:
    """New blocks, a copy of the final norm, and the guides; the same seed gives the same ones."""
    width = config.model.d_model
    keys = jax.random.split(jax.random.key(config.seed), 4)
    outputs = (len(ATTRIBUTES), len(ATTRIBUTES), len(ATTRIBUTES), len(RULES))
    guides = ("slot_values", "verdict_values", "agrees", "rules")
    params: Params = {
        "blocks": new_blocks(config.model, BLOCKS, config.seed),
        "final_norm": jnp.array(params_of(base)["final_norm"]),
        **{
            f"guide_{name}": 0.02 * jax.random.normal(key, (width, count))
            for name, key, count in zip(guides, keys, outputs, strict=True)
        },
        "guide_rules_bias": jnp.zeros(len(RULES)),
    }
    opt_state = make_optimiser(config.optimiser).init(params)
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), config.model, config.optimiser)


def reading_model(state: TrainState, base: PocketLM) -> PocketLM:
    """The deepened model with the present weights; the guides are left behind."""
    params = deepened(params_of(base), state.params["blocks"], state.params["final_norm"])
    return build(state.config, params)


# --- loss ----------------------------------------------------------------------------------------


def reading_loss(
    base: PocketLM, params: Params, batch: ReadingBatch, guides: float
) -> Float[Array, ""]:
    """What reading is taught by, in nats.

    L = nll + KL(base || model at first verdicts) + guides * (slots + verdicts + agrees + rules)

    nll is the weighted mean over tokens, as of `jelicit.pocket.train.loss`; the guides are mean
    cross-entropies of linear readouts of the stream, scaled to root mean square 1: of what each
    attribute says (at slots, at verdicts) after the first new block, of whether it agrees with the
    verdict after the second, of the document's rule after the third.

    Args:
        base: The model below; nothing of it is changed.
        params: Of `init_reader`.
        batch: What is read.
        guides: Their weight.
    """
    config, length = base.config, batch.tokens.shape[1]
    below = jax.lax.stop_gradient(base.stream(batch.tokens, batch.segments))
    last, after = run_blocks(
        config, params["blocks"], below, length=length, segments=batch.segments
    )
    flat = cast(ReadingBatch, jax.tree.map(_flat, batch))
    table = params_of(base)["embed"]
    said = jax.nn.log_softmax(
        rms_norm(below, params_of(base)["final_norm"], config.norm_eps) @ table.T
    )
    says = jax.nn.log_softmax(rms_norm(last, params["final_norm"], config.norm_eps) @ table.T)
    nll = -jnp.take_along_axis(says, flat.targets[:, None], axis=1)[:, 0]
    apart = jnp.sum(jnp.exp(said) * (said - says), axis=1)
    worked_out = (
        _binary(_unit(after[0]) @ params["guide_slot_values"], flat.slot_values)
        + _binary(_unit(after[0]) @ params["guide_verdict_values"], flat.verdict_values)
        + _binary(_unit(after[1]) @ params["guide_agrees"], flat.agrees)
        + _rule(
            _unit(after[2]) @ params["guide_rules"] + params["guide_rules_bias"][None], flat.rules
        )
    )
    return _mean(nll, flat.weights) + _mean(apart, flat.first) + guides * worked_out


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _unit(x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    return rms_norm(x, jnp.ones(x.shape[1]), 1e-5)


def _mean(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, ""]:
    total = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def _binary(logits: Float[Array, "n A"], wanted: Int[Array, "n A"]) -> Float[Array, ""]:
    losses = optax.sigmoid_binary_cross_entropy(logits, (wanted == 1).astype(jnp.float32))
    return _mean(losses.reshape(-1), (wanted >= 0).astype(jnp.float32).reshape(-1))


def _rule(logits: Float[Array, "n R"], wanted: Int[Array, " n"]) -> Float[Array, ""]:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(wanted, 0))
    return _mean(losses, (wanted >= 0).astype(jnp.float32))


@partial(jax.jit, static_argnames=("shape", "guides"), donate_argnums=0)
def _reading_steps(
    state: TrainState,
    below: Params,
    batches: ReadingBatch,
    rate_factors: Float[Array, " k"],
    *,
    shape: PocketConfig,
    guides: float,
) -> tuple[TrainState, Float[Array, " k"]]:
    base = build(shape, below)
    return descend(
        state,
        lambda params, batch: reading_loss(base, params, batch, guides),
        batches,
        rate_factors,
    )


# --- the run -------------------------------------------------------------------------------------


def learn_to_read(
    config: ReadingConfig,
    base: PocketLM,
    encode: WordEncoder,
    folder: Path,
    *,
    workers: int = 0,
    report: Callable[[Progress, RunConfig], None] = lambda progress, config: None,
) -> tuple[PocketLM, Progress]:
    """Teach a model to read labels, or go on with it where ``folder`` holds checkpoints of that.

    Args:
        config: The run, as of `reading_config`.
        base: The finished model.
        encode: Text to token ids.
        folder: Where checkpoints go.
        workers: Processes that make batches ahead; 0 for none.
        report: Called after every dispatch.

    Returns:
        The deepened model, and how the run went.

    Raises:
        ValueError: ``base`` is another model than the run is of, or ``folder`` holds checkpoints
            of another run.
    """
    if config.base != weights_digest(base):
        raise ValueError(
            f"the run is of a model with weights {config.base[:12]}, and was given "
            f"{weights_digest(base)[:12]}; make its settings with reading_config of this model"
        )
    teach = partial(_reading_steps, below=params_of(base), shape=base.config, guides=config.guides)
    state, progress = run_phases(
        config,
        encode,
        folder,
        init_reader(config, base),
        teach=lambda state, batches, rates: teach(state, batches=batches, rate_factors=rates),
        measured=lambda state, phase: measure_reading(reading_model(state, base), encode),
        workers=workers,
        report=report,
    )
    return reading_model(state, base), progress


def measure_reading(model: PocketLM, encode: WordEncoder, *, n: int = 50) -> dict[str, float]:
    """What is measured while reading is learnt: zero_shot/<kind> and label_reading/<rival>."""
    logits = partial(last_token_logits, model)
    found = measure(logits, encode, few_shot=False)
    for rival in RIVALS:
        found[f"label_reading/{rival}"] = label_reading(logits, encode, rival, shots=SHOTS, n=n)
    return found
