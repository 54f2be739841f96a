"""Training the pocket model: optimiser, jitted steps, evaluation logits, checkpoints."""

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jaxtyping import Array, Float, Int

from jelicit.pocket.model import Params, PocketConfig, PocketLM, build, params_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Settings of `make_optimiser`.

    Attributes:
        muon_lr: Learning rate of Muon (matrices of the blocks).
        adam_lr: Learning rate of AdamW (embeddings, norms).
        muon_beta: Momentum of Muon.
        adam_b1: Decay of AdamW's mean of gradients.
        adam_b2: Decay of AdamW's mean of squared gradients.
        weight_decay: Decay of the block matrices, per step times the learning rate; embeddings
            and norms never decay.
        warmup_steps: Steps over which the rate rises linearly to its full value; 0 for none.
        clip: Greatest norm of the whole gradient.
    """

    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    muon_beta: float = 0.95
    adam_b1: float = 0.9
    adam_b2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 100
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("muon_lr", "adam_lr", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("muon_beta", "adam_b1", "adam_b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; it must be positive (inf for no clipping)")


class Batch(NamedTuple):
    """Packed documents to learn from.

    Attributes:
        tokens: Token ids, int32 [b, t].
        targets: The token that follows each, int32 [b, t].
        weights: Weight of each target in the loss, float32 [b, t]; 0 = ignored.
        segments: Number of each token's document within its row, int32 [b, t]; 0 = padding.
    """

    tokens: Any
    targets: Any
    weights: Any
    segments: Any


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; a pytree whose settings are static.

    Attributes:
        params: Weights, as `jelicit.pocket.model.Params`.
        opt_state: State of the optimiser.
        step: Number of steps done, int32 [].
        config: Shape of the model.
        optimiser: Settings of the optimiser.
    """

    params: Params
    opt_state: Any
    step: Int[Array, ""]
    config: PocketConfig = flax.struct.field(pytree_node=False)
    optimiser: OptimiserConfig = flax.struct.field(pytree_node=False)

    def model(self) -> PocketLM:
        """The model with the present weights."""
        return build(self.config, self.params)


def init_state(config: PocketConfig, optimiser_config: OptimiserConfig, seed: int) -> TrainState:
    """A fresh training state; the same seed gives the same weights."""
    params = params_of(PocketLM(config, rngs=nnx.Rngs(params=seed)))
    opt_state = make_optimiser(optimiser_config).init(params)
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), config, optimiser_config)


def make_optimiser(config: OptimiserConfig) -> optax.GradientTransformationExtraArgs:
    """Muon on the matrices of the blocks (Jordan 2024), AdamW on embeddings and norms.

    The gradient is first clipped to norm `clip`. The last stage multiplies the update by a
    linear warm-up and by the argument `rate_factor` of `update`, a traced number: an outer
    schedule is free to choose it step by step, with nothing compiled anew.
    """
    muon = optax.contrib.muon(
        learning_rate=config.muon_lr,
        beta=config.muon_beta,
        weight_decay=config.weight_decay,
        adam_b1=config.adam_b1,
        adam_b2=config.adam_b2,
        adam_learning_rate=config.adam_lr,
        # optax's type for this argument has no place for a function of nested dictionaries.
        muon_weight_dimension_numbers=cast(Any, _muon_dimensions),
    )
    warmup = optax.linear_schedule(0.0, 1.0, max(config.warmup_steps, 1))
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        muon,
        # The first step already moves: count from 1.
        optax.scale_by_schedule(lambda count: warmup(count + 1)),
        _scale_by_rate_factor(),
    )


def _muon_dimensions(params: Params) -> Any:
    # Kernels are [L, in, out] and the layers a batch axis; None sends a leaf to AdamW. By name,
    # because optax also asks with the leaves masked out.
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    blocks = {name: None if name.endswith("norm") else matrix for name in params["blocks"]}
    return {name: blocks if name == "blocks" else None for name in params}


def _scale_by_rate_factor() -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda u: extra["rate_factor"] * u, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def loss(model: PocketLM, batch: Batch) -> Float[Array, ""]:
    """Weighted mean negative log-likelihood of the targets, in nats.

    sum(w * nll) / sum(w) over the whole batch, log-softmax in float32; 0 where every w is 0.
    """
    logits = model(batch.tokens, batch.segments).astype(jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    total = jnp.sum(batch.weights)
    return jnp.sum(batch.weights * nll) / jnp.where(total > 0, total, 1.0)


@partial(jax.jit, donate_argnums=0)
def train_steps(
    state: TrainState, batches: Batch, rate_factors: Float[Array, " k"]
) -> tuple[TrainState, Float[Array, " k"]]:
    """Do k optimiser steps in one dispatch.

    Args:
        state: Its buffers are given away: use the returned state from now on.
        batches: k batches stacked in front, each field [k, b, t].
        rate_factors: Multiplies both learning rates at each step.

    Returns:
        The new state, and the loss before each step, float32 [k].
    """
    config = state.config
    return descend(state, lambda p, batch: loss(build(config, p), batch), batches, rate_factors)


def descend(
    state: TrainState,
    loss_of: Callable[[Params, Any], Float[Array, ""]],
    batches: Any,
    rate_factors: Float[Array, " k"],
) -> tuple[TrainState, Float[Array, " k"]]:
    """Do k steps of a state's optimiser on any loss of its weights and a batch; to be jitted.

    Args:
        state: Its weights may be of any form that `make_optimiser` takes.
        loss_of: (weights, batch) -> the loss of a step.
        batches: k batches stacked in front.
        rate_factors: Multiplies both learning rates at each step.

    Returns:
        The new state, and the loss before each step, float32 [k].
    """
    optimiser = make_optimiser(state.optimiser)

    def step(state: TrainState, now: tuple[Any, Array]) -> tuple[TrainState, Array]:
        batch, factor = now
        value, grads = jax.value_and_grad(loss_of)(state.params, batch)
        updates, opt_state = optimiser.update(
            grads, state.opt_state, state.params, rate_factor=factor
        )
        params = cast(Params, optax.apply_updates(state.params, updates))
        return TrainState(params, opt_state, state.step + 1, state.config, state.optimiser), value

    return jax.lax.scan(step, state, (batches, jnp.asarray(rate_factors, jnp.float32)))


# ------------------------------------------------------------- evaluation


@partial(jax.jit, static_argnums=0)
def _last_logits(
    config: PocketConfig, params: Params, tokens: Int[Array, "n t"], lengths: Int[Array, " n"]
) -> Float[Array, "n V"]:
    model = build(config, params)
    hidden = model.hidden(tokens)
    return model.logits(hidden[jnp.arange(len(tokens)), lengths - 1])


def last_token_logits(
    source: TrainState | PocketLM,
    tokens: Any,
    lengths: Any,
    *,
    batch_tokens: int = 16_384,
    precision: str | None = None,
) -> np.ndarray:
    """Next-token logits at the last token of each prompt.

    Args:
        source: A training state or a model.
        tokens: Prompts padded on the right with any token id, [n, t].
        lengths: Number of tokens of each prompt, [n].
        batch_tokens: Prompts run in batches of about this many tokens. Rows and columns are
            padded to fixed sizes, so that few shapes are compiled.
        precision: Precision of the products, as of `jax.default_matmul_precision`; "highest" for
            comparisons on an accelerator.

    Returns:
        Logits, float32 [n, V].

    Raises:
        ValueError: The shapes disagree, or a length is outside 1..t.
    """
    tokens, lengths = np.asarray(tokens, np.int32), np.asarray(lengths, np.int32)
    if tokens.ndim != 2 or lengths.shape != tokens.shape[:1]:
        raise ValueError(
            f"tokens {tokens.shape} and lengths {lengths.shape} must be [n, t] and [n]"
        )
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= tokens.shape[1]):
        raise ValueError(
            f"lengths are {lengths.min()}..{lengths.max()}; prompts padded to "
            f"{tokens.shape[1]} tokens need lengths from 1 to that"
        )
    config, params = source.config, params_of(source)
    width = min(-(-tokens.shape[1] // 64) * 64, config.max_positions)
    width = max(width, tokens.shape[1])
    rows = max(1, batch_tokens // width)
    out = np.empty((len(tokens), config.vocab_size), np.float32)
    with jax.default_matmul_precision(precision):
        for start in range(0, len(tokens), rows):
            stop = min(start + rows, len(tokens))
            ids, last = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
            ids[: stop - start, : tokens.shape[1]] = tokens[start:stop]
            last[: stop - start] = lengths[start:stop]
            out[start:stop] = _last_logits(config, params, ids, last)[: stop - start]
    return out


# ------------------------------------------------------------- checkpoints


def _manager(folder: str | Path, *, create: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, create=create, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def _leaves(state: TrainState) -> dict[str, Any]:
    # A flat dictionary by path: independent of the classes that optax keeps its state in.
    return {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(state)}


def _settings(state: TrainState) -> dict[str, Any]:
    return {
        "config": dataclasses.asdict(state.config),
        "optimiser": dataclasses.asdict(state.optimiser),
    }


def save_checkpoint(folder: str | Path, state: TrainState, progress: dict[str, Any]) -> None:
    """Write the state and a JSON-able record of progress as the checkpoint of `state.step`.

    Written beside and renamed, so that a killed write leaves no checkpoint; the newest two stay.
    Checkpoints of this step and later ones, left over from a run that was resumed before them,
    are removed first.

    Raises:
        TypeError: `progress` cannot be written as JSON.
    """
    record = {"progress": progress, "settings": _settings(state)}
    json.dumps(record)  # refuse before anything is written
    step = int(state.step)
    with _manager(folder, create=True) as manager:
        for stale in [n for n in manager.all_steps() if n >= step]:
            manager.delete(stale)
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_leaves(state)), record=ocp.args.JsonSave(record)
            ),
        )


def restore_checkpoint(
    folder: str | Path, state: TrainState
) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its progress; None if there is none.

    Unreadable (half-written) checkpoints are skipped with a warning in the log.

    Args:
        folder: Where `save_checkpoint` wrote.
        state: A state of the same settings, such as from `init_state`; gives the structure and
            the devices. Its values are not used.

    Raises:
        ValueError: The checkpoint was made with other settings; names those that differ.
    """
    if not Path(folder).is_dir():
        return None
    with _manager(folder, create=False) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                record = manager.restore(
                    step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
                )
                record = record["record"]
                _same_settings(folder, record["settings"], _settings(state))
                return _restore_state(manager, step, state), record["progress"]
            except _DifferentSettingsError:
                raise
            except Exception as error:  # any reader error means the same: this one is unusable
                _log.warning("checkpoint %s of %s is unreadable, skipped: %s", step, folder, error)
    return None


def _restore_state(manager: ocp.CheckpointManager, step: int, state: TrainState) -> TrainState:
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _leaves(state))
    found = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))
    leaves = [found["state"][name] for name in _leaves(state)]  # in the tree's own order
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


class _DifferentSettingsError(ValueError):
    pass


def _same_settings(folder: str | Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    different = [
        f"{group}.{name}: {found[group].get(name)} in the checkpoint, {value} asked for"
        for group, fields in wanted.items()
        for name, value in fields.items()
        if found[group].get(name) != value
    ]
    if different:
        raise _DifferentSettingsError(
            f"checkpoint in {folder} was made with other settings ({'; '.join(different)}); "
            "use the same settings or another folder"
        )
