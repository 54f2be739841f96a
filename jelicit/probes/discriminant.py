"""What closed-form labelled probes share: the rows of two classes, through products alone.

They see the 2n rows (phi+', y) and (phi-', 1 - y). Each item has one row in each class, so the
classes weigh the same, and since each sign is centred their means are -+ delta / 2.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jelicit.pairs import Pairs, with_full_floats
from jelicit.probes.linear import LinearProbe
from jelicit.probes.normalise import Normaliser, matmul


class DiscriminantInfo(NamedTuple):
    """How a closed-form fit went. Leading axes, if any, are stacked fits."""

    residual: Float[Array, "*batch"]
    """||S w - delta|| / ||delta||: 0 for the difference of means, 1e-5 or so for LDA.

    0 as well where delta is 0, and w with it.
    """
    finite: Bool[Array, "*batch"]
    """Whether the direction is finite."""


class LabelledRows(NamedTuple):
    """The normalised rows of a run, by products with the hidden states alone: never built."""

    pairs: Pairs
    normaliser: Normaliser
    share: Float[Array, " n"]
    """Row weights that add up to 1."""

    def project(self, v: Float[Array, " d"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """phi+' v and phi-' v."""
        by = self.normaliser
        v_pos, v_neg = v / by.scale_pos, v / by.scale_neg
        pos = matmul(self.pairs.pos, v_pos) - (by.mean_pos * v_pos).sum()
        neg = matmul(self.pairs.neg, v_neg) - (by.mean_neg * v_neg).sum()
        return pos, neg

    def gather(self, pos: Float[Array, " n"], neg: Float[Array, " n"]) -> Float[Array, " d"]:
        """phi+'^T pos + phi-'^T neg, with the row weights."""
        by, pos, neg = self.normaliser, self.share * pos, self.share * neg
        of_pos = (matmul(pos, self.pairs.pos) - pos.sum() * by.mean_pos) / by.scale_pos
        of_neg = (matmul(neg, self.pairs.neg) - neg.sum() * by.mean_neg) / by.scale_neg
        return of_pos + of_neg

    def mean_square(self) -> Float[Array, ""]:
        """Mean of ||phi'||^2 over the 2n rows."""
        by = self.normaliser

        def one_sign(phi, mean, scale):
            # About the mean without a copy: the pool's own mean is gone, so nothing cancels.
            by = jnp.broadcast_to(1 / scale**2, mean.shape)
            squares = matmul(jnp.square(phi), by) - 2 * matmul(phi, mean * by)
            return matmul(self.share, squares) + (mean * mean * by).sum()

        return (
            one_sign(self.pairs.pos, by.mean_pos, by.scale_pos)
            + one_sign(self.pairs.neg, by.mean_neg, by.scale_neg)
        ) / 2


def labelled_rows(
    pairs: Pairs, normaliser: Normaliser, weights: Float[Array, " n"] | None
) -> LabelledRows:
    """The rows that the weights choose; None weighs all alike."""
    pairs = with_full_floats(pairs)
    n, dtype = len(pairs.pos), pairs.pos.dtype
    weights = jnp.ones(n, dtype) if weights is None else weights
    return LabelledRows(pairs, normaliser, (weights / weights.sum()).astype(dtype))


def difference_of_means(rows: LabelledRows, targets: Float[Array, " n"]) -> Float[Array, " d"]:
    """sum_i r_i (2 y_i - 1) (phi_i+' - phi_i-') / sum_i r_i; 0 where all rows are of one class."""
    lean, used = 2 * targets - 1, rows.share > 0
    lowest = jnp.where(used, lean, jnp.inf).min()
    highest = jnp.where(used, lean, -jnp.inf).max()
    # Rows of one class have the mean 0, since each sign is centred. Rounding must not stand for it:
    # it carries the mean of all other rows, whose class it would so betray.
    return jnp.where(highest > lowest, rows.gather(lean, -lean), 0.0)


def unbiased(weight: Float[Array, " d"]) -> LinearProbe:
    """The probe of this direction."""
    # The means lie symmetrically about zero: between them is no bias.
    zero = jnp.zeros((), weight.dtype)
    return LinearProbe(weight=weight, bias=zero, offset=zero)
