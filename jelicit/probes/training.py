"""Training of one probe, full batch, by AdamW as the paper has it.

It takes a fixed number of steps, or goes on until the validation loss has stopped improving.

One call trains one run. Under `jax.vmap` the early-stopping loop goes on until the last run has
stopped, and a stopped run is left as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jelicit.probes.linear import Affine, LinearProbe
from jelicit.probes.pytree import frozen_pytree

Params = TypeVar("Params")
"""What is trained: (w, b) of a direction, or any other tree of arrays."""

# A rate may be a number or a traced array.
Rate = float | int | Float[Array, ""]


class TrainingInfo(NamedTuple):
    """How a fit went. Leading axes, if any, are stacked fits."""

    loss: Float[Array, "*batch"]
    """Training loss of the returned parameters."""
    validation_loss: Float[Array, "*batch"]
    """Validation loss of the returned parameters; NaN where nothing was held out."""
    steps: Int[Array, "*batch"]
    """Steps taken."""
    best_step: Int[Array, "*batch"]
    """The step after which the returned parameters were read."""
    finite: Bool[Array, "*batch"]
    """Whether losses and parameters are finite; a fit that is not means nothing."""
    passes: Int[Array, "*batch"]
    """Passes over the hidden states, each the products of one gradient."""


@frozen_pytree(static=("steps", "patience", "precision"))
@dataclass(frozen=True, kw_only=True)
class Descent:
    """Settings of the descent. Rates may be traced; the counts are static."""

    learning_rate: Rate
    weight_decay: Rate = 0.01
    """Decoupled, on w and b alike."""
    max_gradient_norm: Rate = 1.0
    """A longer gradient is cut to this norm, over w and b together."""
    steps: int = 1000
    patience: int = 100
    """Steps without a new best after which early stopping stops; unused without validation."""
    precision: str = "float32"
    """Of the products with the hidden states; see `PRECISIONS`."""


CCS_DESCENT = Descent(learning_rate=0.01)
BCE_DESCENT = Descent(learning_rate=0.03)


def unit_vector(key: Array, d: int, dtype=jnp.float32) -> Float[Array, " d"]:
    """A direction drawn uniformly from the unit sphere in d dimensions."""
    vector = jax.random.normal(key, (d,), dtype)
    return vector / jnp.linalg.norm(vector)


def start(key: Array, d: int, dtype=jnp.float32) -> Affine:
    """Where training begins: w on the unit sphere of the run's own normalised coordinates, b = 0.

    Folding the normaliser into the probe leaves w what it is, so that training with the folded
    normaliser follows the same path as training on normalised pairs.
    """
    return Affine(unit_vector(key, d, dtype), jnp.zeros((), dtype))


def to_probe(params: Affine) -> LinearProbe:
    """The trained parameters as a probe without offset."""
    return LinearProbe(weight=params.weight, bias=params.bias, offset=jnp.zeros_like(params.bias))


def optimiser(descent: Descent) -> optax.GradientTransformation:
    """AdamW (b1 0.9, b2 0.999, eps 1e-8) after a clip of the global gradient norm."""
    return optax.chain(
        optax.clip_by_global_norm(descent.max_gradient_norm),  # pyright: ignore[reportArgumentType]
        optax.adamw(descent.learning_rate, weight_decay=descent.weight_decay),
    )


def moved(params: Params, updates: optax.Updates) -> Params:
    """The parameters after a step."""
    return cast(Params, optax.apply_updates(cast(optax.Params, params), updates))


def finite(params: Any, *losses: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether parameters and losses are finite."""
    leaves = jax.tree.leaves((params, losses))
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def descend(
    objective: Callable[[Affine], Float[Array, ""]], begin: Affine, descent: Descent
) -> tuple[Affine, TrainingInfo]:
    """Take `descent.steps` steps and return the last parameters."""
    update = optimiser(descent).update

    def step(carry, _):
        params, state = carry
        updates, state = update(jax.grad(objective)(params), state, params)
        return (moved(params, updates), state), None

    carry = (begin, optimiser(descent).init(begin))  # pyright: ignore[reportArgumentType]
    (params, _), _ = jax.lax.scan(step, carry, length=descent.steps)
    loss = objective(params)
    taken = jnp.asarray(descent.steps)
    nothing_held_out = jnp.full_like(loss, jnp.nan)
    good = finite(params, loss)
    return params, TrainingInfo(loss, nothing_held_out, taken, taken, good, taken + 1)


class _Search(NamedTuple):
    """State of early stopping: where the descent is, and the best it has seen."""

    params: Any
    optimiser: Any
    step: Int[Array, ""]
    stopped: Bool[Array, ""]
    best: Any
    best_step: Int[Array, ""]
    best_losses: tuple[Float[Array, ""], Float[Array, ""]]


def descend_with_validation(
    objective: Callable[[Params], tuple[Float[Array, ""], Float[Array, ""]]],
    begin: Params,
    descent: Descent,
) -> tuple[Params, TrainingInfo]:
    """Return the parameters of the lowest validation loss; the start itself does not count.

    Stops after `descent.steps` steps, or once `descent.patience` steps brought no new best.

    Args:
        objective: gives (training loss, validation loss); the first one is descended.
        begin: the start.
        descent: the settings.
    """
    update = optimiser(descent).update

    def body(now: _Search) -> _Search:
        # The forward pass that yields the next gradient also judges the present parameters.
        (loss, held_out), gradient = jax.value_and_grad(objective, has_aux=True)(now.params)
        better = (now.step > 0) & (held_out < now.best_losses[1])
        best_step = jnp.where(better, now.step, now.best_step)
        updates, state = update(gradient, now.optimiser, now.params)
        return _Search(
            params=moved(now.params, updates),
            optimiser=state,
            step=now.step + 1,
            stopped=(now.step >= descent.steps) | (now.step - best_step >= descent.patience),
            best=jax.tree.map(partial(jnp.where, better), now.params, now.best),
            best_step=best_step,
            best_losses=jax.tree.map(partial(jnp.where, better), (loss, held_out), now.best_losses),
        )

    zero = jnp.asarray(0)
    inf = jnp.full((), jnp.inf, jax.tree.leaves(begin)[0].dtype)
    first = _Search(
        params=begin,
        optimiser=optimiser(descent).init(begin),  # pyright: ignore[reportArgumentType]
        step=zero,
        stopped=jnp.asarray(False),
        best=begin,
        best_step=zero,
        best_losses=(inf, inf),
    )
    last = jax.lax.while_loop(lambda now: ~now.stopped, body, first)
    info = TrainingInfo(
        *last.best_losses,
        last.step - 1,
        last.best_step,
        finite(last.best, *last.best_losses),
        last.step,
    )
    return last.best, info


def best_of(
    fit: Callable[[Array], tuple[Affine, TrainingInfo]], key: Array, *, restarts: int
) -> tuple[Affine, TrainingInfo]:
    """Fit from `restarts` starts and return the one with the lowest final loss.

    Raises:
        ValueError: restarts < 1.
    """
    if restarts < 1:
        raise ValueError(f"restarts={restarts}; at least one start is needed.")
    if restarts == 1:
        return fit(key)
    fits = jax.vmap(fit)(jax.random.split(key, restarts))
    losses = fits[1].loss
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], fits)
