"""L-BFGS on (w, b), full batch: for losses whose optimum is what is asked for.

CCS and probes that stop early are no such losses: in spaces wider than there are rows, their optima
are lower than where AdamW ends and rank claims worse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jelicit.probes.linear import Affine
from jelicit.probes.pytree import frozen_pytree
from jelicit.probes.training import Rate


@frozen_pytree(static=("steps", "memory", "line_search_steps"))
@dataclass(frozen=True, kw_only=True)
class QuasiNewton:
    """Settings of L-BFGS (Liu & Nocedal 1989), for the optimum of a penalised loss.

    What is minimised is loss + penalty / (2 d) ||(w, b)||^2; without a penalty separable rows have
    no optimum. It is per dimension because the paper's normaliser makes rows of length 1 / sqrt(d).
    """

    penalty: Rate = 1e-4
    tolerance: Rate = 1e-5
    """Ends once the gradient is shorter than this, relative to its length at the start."""
    steps: int = 60
    memory: int = 10
    """Past steps that shape the next direction."""
    line_search_steps: int = 2
    """Grids along every direction, each finer than the one before."""


Read = Callable[[Affine], Any]
"""Parameters -> logits of all rows: linear, and the only thing that touches hidden states."""

Judge = Callable[[Any], Float[Array, ""]]
"""Logits of all rows -> loss."""


class _Newton(NamedTuple):
    params: Affine
    logits: Any
    value: Float[Array, ""]
    gradient: Affine
    optimiser: Any
    fresh: Bool[Array, ""]
    """Whether the memory was emptied, so that the next direction is the steepest."""
    step: Int[Array, ""]
    stopped: Bool[Array, ""]


def minimise(read: Read, judge: Judge, begin: Affine, settings: QuasiNewton) -> Affine:
    """L-BFGS on judge(read(params)) + penalty / (2 d) ||params||^2.

    Logits are linear in the parameters, so those of a whole line are known from its two ends:
    read(params + t p) = read(params) + t read(p). A step therefore takes one product with the
    hidden states for the direction p and one for the gradient at the point chosen, however many
    points the line search tries; the search itself works on the logits alone.

    Under `jax.vmap` the loop goes on until the last run has stopped, and a stopped run is left as
    it was.
    """
    quasi = optax.scale_by_lbfgs(memory_size=settings.memory)
    empty = quasi.init(_tree(begin))
    rate = settings.penalty / begin.weight.shape[0]

    def gradient_at(params: Affine, logits: Any) -> Affine:
        _, back = jax.vjp(read, params)
        (slope,) = back(jax.grad(judge)(logits))
        return jax.tree.map(lambda g, x: g + rate * x, slope, params)

    def body(now: _Newton) -> _Newton:
        known = jax.tree.map(partial(jnp.where, now.fresh), empty, now.optimiser)
        found, state = quasi.update(_tree(now.gradient), known, _tree(now.params))
        direction = jax.tree.map(jnp.negative, cast(Affine, found))
        ahead = read(direction)

        def along(t: Float[Array, ""]) -> Float[Array, ""]:
            return judge(_step(now.logits, t, ahead)) + rate / 2 * _square(
                _step(now.params, t, direction)
            )

        t, value = _line_minimum(along, now.value, settings.line_search_steps)
        params, logits = _step(now.params, t, direction), _step(now.logits, t, ahead)
        gradient = gradient_at(params, logits)
        step = now.step + 1
        ended = (step >= settings.steps) | (_norm(gradient) <= settings.tolerance * first)
        # Old curvature may lead astray. Without it the way down is plain, and where even that way
        # finds nothing lower, this is the end.
        stuck = ~(value < now.value)
        ended |= stuck & now.fresh
        return _Newton(params, logits, value, gradient, state, stuck, step, ended)

    logits = read(begin)
    gradient = gradient_at(begin, logits)
    first = _norm(gradient)
    value = judge(logits) + rate / 2 * _square(begin)
    zero, yes = jnp.asarray(0), jnp.asarray(True)
    at_start = _Newton(begin, logits, value, gradient, empty, yes, zero, first == 0)
    return jax.lax.while_loop(lambda now: ~now.stopped, body, at_start).params


def _line_minimum(
    along: Callable[[Array], Array], here: Float[Array, ""], rounds: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A step t >= 0 of low value along a line, and its value; (0, here) where none is lower.

    Grids rather than a search that ends when it has found enough: under `jax.vmap` every run of a
    sweep would wait for the slowest, and a grid is one pass over the logits. The first round spans
    powers of two, every later one the neighbourhood of the best step so far. Near the minimum of
    the line the new slope is about 0, above the old one, so that L-BFGS keeps its curvature
    positive.
    """
    grid = 2.0 ** jnp.arange(-7.0, 5.0)
    width = 2.0
    t, value = jnp.zeros(()), here
    for _ in range(rounds):
        values = jax.vmap(along)(grid)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        place = jnp.argmin(values)
        better = values[place] < value
        t, value = jnp.where(better, grid[place], t), jnp.where(better, values[place], value)
        middle = jnp.where(t > 0, t, grid[0] / 64)
        grid = middle * width ** jnp.linspace(-1.0, 1.0, 8)
        width = width ** (2 / 7)
    return t, value


def _step(at: Any, t: Float[Array, ""], direction: Any) -> Any:
    return jax.tree.map(lambda x, p: x + t * p, at, direction)


def _square(params: Affine) -> Float[Array, ""]:
    return jnp.square(params.weight).sum() + params.bias**2


def _norm(params: Affine) -> Float[Array, ""]:
    return jnp.sqrt(_square(params))


def _tree(params: Affine) -> optax.Params:
    return cast(optax.Params, params)
