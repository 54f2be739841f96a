"""Contrast pairs: the two hidden states of every item, and nothing else.

No label lives here, so whatever is fitted on `Pairs` alone cannot have seen one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float


class Pairs(NamedTuple):
    """Hidden states of one layer at the last token of x+ and of x- (paper A; Burns et al. 2022).

    Row i of both arrays belongs to item i. The arrays may be NumPy's or JAX's, of any precision:
    fits take half precision as float32.
    """

    pos: Float[Array, "n d"] | Float[np.ndarray, "n d"]
    """phi+: the prompt with the true word appended."""
    neg: Float[Array, "n d"] | Float[np.ndarray, "n d"]
    """phi-: the prompt with the false word appended."""

    def take(self, rows) -> "Pairs":
        """The pairs of some rows, in the order given (row numbers, a slice or a boolean mask)."""
        return Pairs(self.pos[rows], self.neg[rows])


def full_floats(values: ArrayLike) -> jax.Array:
    """Values as a JAX array to compute with: half precision becomes float32, whole numbers floats.

    The square of a float16 above 256 overflows, and sums of bfloat16 keep three digits. float32
    and (where JAX runs in x64) float64 stay as they are.
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(float)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def with_full_floats(pairs: Pairs) -> Pairs:
    """Pairs whose two signs are `full_floats`: what every fit computes with."""
    return Pairs(full_floats(pairs.pos), full_floats(pairs.neg))


def doubled(pairs: Pairs) -> Pairs:
    """A copy of pairs in float64, where JAX runs in x64."""
    return Pairs(*(jnp.array(sign, jnp.float64) for sign in pairs))


def check_shapes(pairs: Pairs, *, name: str = "pairs") -> tuple[int, int]:
    """Return (n, d) of well-formed pairs.

    Raises:
        ValueError: a sign is no matrix, the two signs differ in shape, or there is no row.
    """
    pos, neg = np.shape(pairs.pos), np.shape(pairs.neg)
    if len(pos) != 2 or pos != neg:
        raise ValueError(
            f"{name}: pos has shape {pos} and neg {neg}; both must be [items, d_model], the same."
        )
    if 0 in pos:
        raise ValueError(f"{name}: shape {pos} holds no hidden state; at least one item is needed.")
    return pos


LARGEST_STATE = 1e16
"""Squares of larger numbers, summed over a million rows, overflow float32; states of language
models have norms of some 1e5."""


def check_finite(
    pairs: Pairs, item_ids: Sequence[str] | None = None, layer: int | None = None
) -> None:
    """Refuse pairs that hold NaN, infinity, or values whose squares float32 cannot sum.

    One such value among the rows makes their scale infinite, and all scores zero.

    Args:
        pairs: hidden states [n, d].
        item_ids: names of the rows, for the message; the row number is always named.
        layer: for the message.

    Raises:
        ValueError: naming the first bad row, its item, the layer, the sign, and how many rows.
    """
    place = "" if layer is None else f" of layer {layer}"
    for sign, values in (("pos", pairs.pos), ("neg", pairs.neg)):
        largest = np.abs(np.asarray(values)).max(axis=1)
        # NaN is below nothing.
        bad = np.flatnonzero(~(largest < LARGEST_STATE))
        if bad.size == 0:
            continue
        row = int(bad[0])
        item = "" if item_ids is None else f" (item {item_ids[row]!r})"
        begin = f"Hidden state {sign!r}{place}, row {row}{item},"
        if np.isfinite(largest[row]):
            raise ValueError(
                f"{begin} has the value {float(largest[row]):.3g}, and {bad.size} of "
                f"{len(values)} rows have one from {LARGEST_STATE:g} on, whose square is beyond "
                "float32 in a fit. Extract it again, or leave the item out."
            )
        raise ValueError(
            f"{begin} is not finite "
            f"({bad.size} of {len(values)} rows are not). Extract it again, in float32 or "
            "bfloat16 if float16 overflowed, or leave the item out."
        )
