"""Several methods trained side by side, on products with the hidden states that they share.

A step of full-batch training reads the hidden states twice, whoever is trained: forward for the
logits, backward for the gradient. A product of few columns takes longer to bring them in than to
multiply, so methods that are trained for as many steps put their columns side by side: one product
[n, d] x [d, methods x runs] in place of one per method. Each probe descends on its own loss alone,
by its own rates, as it does by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import Affine, LinearProbe, Signs, project
from jelicit.probes.normalise import Normaliser
from jelicit.probes.training import (
    Descent,
    TrainingInfo,
    finite,
    moved,
    optimiser,
    start,
    to_probe,
)

HARD, EASY = "hard", "easy"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What one run of a method descends on.

    Attributes:
        key: Seeds its starts.
        descent: Its settings. Without `validated` every step is taken; with it the descent stops
            early, and the parameters of the lowest validation loss are returned.
        reads: Which sets it reads, "hard" and "easy", and what normalises each.
        losses: Logits of both signs by set -> the loss that is descended, and the validation loss
            (anything where it is not `validated`).
        validated: Whether rows are held out.
        restarts: Starts; the lowest final loss wins.
    """

    key: Array
    descent: Descent
    reads: Mapping[str, Normaliser]
    losses: Callable[[Mapping[str, Signs]], tuple[Float[Array, ""], Any]]
    validated: bool = False
    restarts: int = 1

    def starts(self, d: int, dtype: Any) -> Affine:
        """Where it begins: w [restarts, d] and b [restarts]."""
        keys = self.key[None] if self.restarts == 1 else jax.random.split(self.key, self.restarts)
        return jax.vmap(lambda key: start(key, d, dtype))(keys)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How the runs of a method are trained, for `descend_together`.

    Attributes:
        problem: (run, data, settings) -> what the run descends on.
        descent: settings -> how.
        validated: Whether rows are held out, as its problems say.
    """

    problem: Callable[..., Problem]
    descent: Callable[[Any], Descent]
    validated: bool = False


class _Held(NamedTuple):
    """What a validated descent has seen: of each start [s]."""

    steps: Int[Array, " s"]
    stopped: Bool[Array, " s"]
    best: Affine
    best_step: Int[Array, " s"]
    best_losses: tuple[Float[Array, " s"], Float[Array, " s"]]


class _State(NamedTuple):
    """Where all problems are."""

    params: tuple[Affine, ...]
    optimisers: tuple[Any, ...]
    held: tuple[_Held | None, ...]


def can_go_together(descents: Sequence[tuple[Descent, bool]]) -> bool:
    """Whether descents (settings, validated) make one loop.

    Those without validation take as many steps each, of which there is one at least; those with it
    take no more; and all round their products alike.
    """
    fixed = {descent.steps for descent, validated in descents if not validated}
    most = max((descent.steps for descent, validated in descents if validated), default=0)
    alike = len({descent.precision for descent, _ in descents}) == 1
    return alike and len(fixed) == 1 and most <= min(fixed)


def descend_together(
    problems: Sequence[Problem], sets: Mapping[str, Pairs]
) -> list[tuple[LinearProbe, TrainingInfo]]:
    """The probe of each problem, and how its training went: what each fit gives by itself.

    Args:
        problems: Of which `can_go_together` holds.
        sets: The pairs [n, d] of every set that is read.
    """
    sets = {name: with_full_floats(pairs) for name, pairs in sets.items()}
    d, dtype = next(iter(sets.values())).pos.shape[1], next(iter(sets.values())).pos.dtype
    begins = tuple(problem.starts(d, dtype) for problem in problems)
    steps = next(problem.descent.steps for problem in problems if not problem.validated)
    updates = tuple(jax.vmap(optimiser(problem.descent).update) for problem in problems)
    of_all = partial(_losses, problems, sets)

    def total(params: tuple[Affine, ...]):
        losses = of_all(params)
        return sum(loss.sum() for loss, _ in losses), losses

    def step(number: Int[Array, ""], now: _State) -> _State:
        gradients, losses = jax.grad(total, has_aux=True)(now.params)
        after = [
            update(gradient, state, params)
            for update, gradient, state, params in zip(
                updates, gradients, now.optimisers, now.params, strict=True
            )
        ]
        moves = zip(now.params, (changes for changes, _ in after), strict=True)
        params = tuple(moved(*each) for each in moves)
        held = _judged(problems, number, now, losses)
        # A descent that has stopped is left as it was.
        params = tuple(
            new if seen is None else _where(seen.stopped, old, new)
            for seen, old, new in zip(now.held, now.params, params, strict=True)
        )
        return _State(params, tuple(state for _, state in after), held)

    first = _State(
        begins,
        tuple(
            jax.vmap(optimiser(problem.descent).init)(begin)
            for problem, begin in zip(problems, begins, strict=True)
        ),
        tuple(
            _nothing_held(begin) if problem.validated else None
            for problem, begin in zip(problems, begins, strict=True)
        ),
    )
    last = jax.lax.fori_loop(0, steps, step, first)
    losses = of_all(last.params)
    held = _judged(problems, jnp.asarray(steps), last, losses)
    made = zip(problems, last.params, losses, held, strict=True)
    return [_chosen(*_ended(*each)) for each in made]


def _losses(
    problems: Sequence[Problem], sets: Mapping[str, Pairs], params: tuple[Affine, ...]
) -> list[tuple[Float[Array, " _"], Any]]:
    """Both losses of every start of every problem, from one product per set and sign."""
    found: list[dict[str, Signs]] = [{} for _ in problems]
    for name, pairs in sets.items():
        readers = [k for k, problem in enumerate(problems) if name in problem.reads]
        columns = [
            _columns(params[k], problems[k].reads[name], sign) for sign in (0, 1) for k in readers
        ]
        count = len(readers)
        signs = [
            _logits(
                jnp.asarray(phi),
                columns[sign * count : (sign + 1) * count],
                problems[0].descent.precision,
            )
            for sign, phi in enumerate(pairs)
        ]
        for place, k in enumerate(readers):
            found[k][name] = (signs[0][place], signs[1][place])
    return [
        jax.vmap(problem.losses)(logits) for problem, logits in zip(problems, found, strict=True)
    ]


def _columns(
    params: Affine, normaliser: Normaliser, sign: int
) -> tuple[Float[Array, "s d"], Float[Array, " s"]]:
    """The weights over the scale, and what is added to their products: `logits` says why."""
    mean = (normaliser.mean_pos, normaliser.mean_neg)[sign]
    scale = (normaliser.scale_pos, normaliser.scale_neg)[sign]

    def of_start(one: Affine) -> tuple[Float[Array, " d"], Float[Array, ""]]:
        weight = one.weight / scale
        return weight, one.bias - (mean * weight).sum()

    return jax.vmap(of_start)(params)


def _logits(
    phi: Float[Array, "n d"],
    columns: Sequence[tuple[Float[Array, "_ d"], Float[Array, " _"]]],
    precision: str,
) -> list[Float[Array, "_ n"]]:
    """The logits of each problem's starts, all by one product."""
    weights = jnp.concatenate([weight for weight, _ in columns])
    products = jax.vmap(lambda weight: project(phi, weight, precision))(weights)
    ends = list(accumulate(len(weight) for weight, _ in columns))
    parts = jnp.split(products, ends[:-1])
    return [part + constant[:, None] for part, (_, constant) in zip(parts, columns, strict=True)]


def _nothing_held(begin: Affine) -> _Held:
    s, dtype = begin.bias.shape, begin.bias.dtype
    inf = jnp.full(s, jnp.inf, dtype)
    none = jnp.zeros(s, jnp.asarray(0).dtype)
    return _Held(none, jnp.zeros(s, bool), begin, none, (inf, inf))


def _judged(
    problems: Sequence[Problem],
    number: Int[Array, ""],
    now: _State,
    losses: Sequence[tuple[Float[Array, " _"], Any]],
) -> tuple[_Held | None, ...]:
    """What validated descents have seen after `number` steps; the start itself does not count."""

    def judge(problem: Problem, params: Affine, held: _Held, both: Any) -> _Held:
        loss, held_out = both
        going = ~held.stopped
        better = going & (number > 0) & (held_out < held.best_losses[1])
        best_step = jnp.where(better, number, held.best_step)
        stops = (number >= problem.descent.steps) | (number - best_step >= problem.descent.patience)
        return _Held(
            steps=jnp.where(going, number, held.steps),
            stopped=held.stopped | stops,
            best=_where(better, params, held.best),
            best_step=best_step,
            best_losses=jax.tree.map(
                partial(jnp.where, better), (loss, held_out), held.best_losses
            ),
        )

    return tuple(
        None if held is None else judge(problem, params, held, both)
        for problem, params, held, both in zip(problems, now.params, now.held, losses, strict=True)
    )


def _where(wanted: Bool[Array, " s"], this: Affine, that: Affine) -> Affine:
    return Affine(
        jnp.where(wanted[:, None], this.weight, that.weight),
        jnp.where(wanted, this.bias, that.bias),
    )


def _ended(
    problem: Problem, params: Affine, losses: tuple[Float[Array, " s"], Any], held: _Held | None
) -> tuple[Affine, TrainingInfo]:
    """The parameters of every start, and how it went."""
    if held is not None:
        good = jax.vmap(finite)(held.best, *held.best_losses)
        info = TrainingInfo(*held.best_losses, held.steps, held.best_step, good, held.steps + 1)
        return held.best, info
    loss = losses[0]
    taken = jnp.full(loss.shape, problem.descent.steps)
    nothing_held_out = jnp.full_like(loss, jnp.nan)
    good = jax.vmap(finite)(params, loss)
    return params, TrainingInfo(loss, nothing_held_out, taken, taken, good, taken + 1)


def _chosen(params: Affine, info: TrainingInfo) -> tuple[LinearProbe, TrainingInfo]:
    """The start with the lowest final loss."""
    best = jnp.argmin(jnp.where(jnp.isfinite(info.loss), info.loss, jnp.inf))
    params, info = jax.tree.map(lambda leaf: leaf[best], (params, info))
    return to_probe(params), info
