"""A network of two layers, trained on labels: the control for what no direction finds."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jelicit.method_groups import CEILING
from jelicit.pairs import Pairs
from jelicit.probes.discriminant import labelled_rows
from jelicit.probes.linear import Signs
from jelicit.probes.losses import bce_loss
from jelicit.probes.method import TARGETS, Data, Method, Run
from jelicit.probes.normalise import Normaliser, matmul
from jelicit.probes.pytree import frozen_pytree
from jelicit.probes.settings import PerRun, count, rate
from jelicit.probes.supervised import validation_rows
from jelicit.probes.training import Descent, Rate, descend_with_validation


class MLPInfo(NamedTuple):
    """How training went. Leading axes, if any, are stacked fits."""

    loss: Float[Array, "*batch"]
    """Training loss of the returned network."""
    validation_loss: Float[Array, "*batch"]
    """Validation loss of the returned network: the lowest."""
    best_step: Int[Array, "*batch"]
    """The step after which the returned network was read."""
    finite: Bool[Array, "*batch"]
    """Whether losses and network are finite."""


@frozen_pytree()
@dataclass(frozen=True, kw_only=True)
class MLPProbe:
    """s(phi') = out . relu(hidden phi' + hidden_bias) + bias, in normalised coordinates."""

    hidden: Float[Array, "*batch h d"]
    hidden_bias: Float[Array, "*batch h"]
    out: Float[Array, "*batch h"]
    bias: Float[Array, "*batch"]

    def logits(self, normaliser: Normaliser, pairs: Pairs) -> Signs:
        """s(phi+') and s(phi-') of pairs [n, d]; the normaliser is folded into the first layer."""

        def one_sign(phi, mean, scale) -> Float[Array, " n"]:
            weight = self.hidden / jnp.broadcast_to(scale, mean.shape)[None]
            bias = self.hidden_bias - matmul(weight, mean)
            units = jax.nn.relu(matmul(jnp.asarray(phi), weight.T) + bias[None])
            return matmul(units, self.out) + self.bias

        return (
            one_sign(pairs.pos, normaliser.mean_pos, normaliser.scale_pos),
            one_sign(pairs.neg, normaliser.mean_neg, normaliser.scale_neg),
        )

    def score(self, normaliser: Normaliser, pairs: Pairs) -> Float[Array, " n"]:
        """Truth scores: s(phi+') - s(phi-')."""
        pos, neg = self.logits(normaliser, pairs)
        return pos - neg


def start(key: Array, d: int, width: int, dtype=jnp.float32) -> MLPProbe:
    """He et al. 2015, for rows of variance 1 per dimension; the last layer begins at 1 / width."""
    first, second = jax.random.split(key)
    hidden = jax.random.normal(first, (width, d), dtype) * (2 / d) ** 0.5
    out = jax.random.normal(second, (width,), dtype) / width
    return MLPProbe(
        hidden=hidden, hidden_bias=jnp.zeros(width, dtype), out=out, bias=jnp.zeros((), dtype)
    )


def fit_mlp(
    key: Array,
    pairs: Pairs,
    normaliser: Normaliser,
    targets: Float[Array, " n"],
    *,
    weights: Float[Array, " n"] | None = None,
    kept: Bool[Array, " pool"] | None = None,
    width: int = 32,
    learning_rate: Rate = 0.003,
    weight_decay: Rate = 0.01,
    validation_share: Rate = 0.2,
    steps: int = 300,
) -> tuple[MLPProbe, MLPInfo]:
    """The loss of the supervised probe, of a network: AdamW, the lowest validation loss wins.

    Rows enter with variance 1 per dimension, whatever the divisor made of them, so that one
    learning rate serves all.

    Args:
        key: seeds the start and the draw of the validation items.
        pairs: labelled pairs [n, d], without a large common mean.
        normaliser: applied to them; fitted on all the labelled rows, held-out ones included.
        targets: in [0, 1]; 0.5 for an item without a truth value.
        weights: row weights [n]; 0 and 1 choose a subset.
        kept: which rows of a pool these are; see `validation_rows`.
        width: units of the hidden layer.
        learning_rate: of AdamW.
        weight_decay: of AdamW, decoupled.
        validation_share: share of the items to hold out.
        steps: how many.
    """
    rows = labelled_rows(pairs, normaliser, weights)
    d, dtype = rows.pairs.pos.shape[1], rows.pairs.pos.dtype
    key_start, key_split = jax.random.split(key)
    held_out = validation_rows(key_split, rows.share, share=validation_share, kept=kept)
    size = rows.mean_square()
    gain = jnp.sqrt(d / jnp.where(size > 0, size, 1.0))

    def scaled(probe: MLPProbe) -> MLPProbe:
        return replace(probe, hidden=gain * probe.hidden)

    def losses(probe: MLPProbe) -> tuple[Float[Array, ""], Float[Array, ""]]:
        found = scaled(probe).logits(normaliser, rows.pairs)
        train, validation = rows.share * ~held_out, rows.share * held_out
        return bce_loss(*found, targets, train), bce_loss(*found, targets, validation)

    descent = Descent(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        max_gradient_norm=jnp.inf,
        steps=steps,
        patience=steps + 1,
    )
    begin = start(key_start, d, width, dtype)
    best, info = descend_with_validation(losses, begin, descent)
    probe = scaled(best)
    finite = info.finite & jnp.isfinite(probe.hidden).all()
    return probe, MLPInfo(info.loss, info.validation_loss, info.best_step, finite)


@dataclass(frozen=True, kw_only=True)
class MLPSettings:
    """Of the network of two layers."""

    mlp_width: int = count(32, help="Hidden units of the network.")
    mlp_steps: int = count(300, help="Steps of the network; the lowest validation loss wins.")
    mlp_learning_rate: PerRun = rate(0.003, above=0, help="Of the network.")
    mlp_weight_decay: PerRun = rate(0.01, least=0, help="Of the network, decoupled.")
    mlp_validation_share: PerRun = rate(
        0.2, above=0, below=1, help="Of the items, held out to stop the network."
    )


def _fit(run: Run, data: Data, settings: MLPSettings) -> tuple[MLPProbe, MLPInfo]:
    return fit_mlp(
        run.key,
        data.hard,
        run.normaliser,
        data.targets(),
        weights=run.rows,
        kept=data.kept,
        width=settings.mlp_width,
        learning_rate=settings.mlp_learning_rate,
        weight_decay=settings.mlp_weight_decay,
        validation_share=settings.mlp_validation_share,
        steps=settings.mlp_steps,
    )


MLP = Method(
    name="mlp",
    title="Network of two layers",
    group=CEILING,
    fit=_fit,
    probe=MLPProbe,
    free_sign=False,
    source="Rumelhart et al. 1986; a control of ours",
    needs=frozenset({TARGETS}),
    settings=MLPSettings,
    info=MLPInfo,
    # Weights, gradient, two moments, the best: each a vector per unit; and the units of all rows.
    vectors=lambda settings: 12 + 8 * settings.mlp_width,
)
