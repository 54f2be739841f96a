"""Reads rows of token trees through a language model.

The attention mask is given whole, made from the rows' trees and from positions, so that branches
do not see each other, padding is seen by nobody, and a sliding window counts a sequence's own
tokens. Logits are computed at the columns asked for and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from extract.models import LanguageModel, states_wanted
from extract.token_trees import Row, Tokens, lay_out

ALIGNMENT = 8
"""Rows are padded to a multiple of this: tensor cores and attention kernels ask for it."""


AT_ONCE = 2048
"""Tokens of a path that are read in one pass: a mask grows with their square."""


class Read(NamedTuple):
    """What a model said about n rows of up to L tokens."""

    hidden: dict[int, torch.Tensor]
    """Per layer asked for, [n, L, D] on the layer's device."""
    logits: torch.Tensor
    """[m, vocabulary] at the columns asked for, in the model's dtype."""


class Reader:
    """A model that has read a path (a sequence of tokens), and reads rows that continue it.

    The path's keys and values are kept once, whatever the number of rows; rows leave nothing
    behind. A path is extended and cut like a stack: depth-first through any tree of prompts.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.path: Tokens = ()
        self._cache = _PathCache()
        self._windows = attention_windows(lm.config)

    def extend(self, tokens: Tokens) -> None:
        """Reads tokens and keeps them: the path becomes longer by them."""
        for begin in range(0, len(tokens), AT_ONCE):
            piece = tuple(tokens[begin : begin + AT_ONCE])
            row = lay_out([self.path + piece], start=len(self.path))
            try:
                with self._cache.growing():
                    self._forward([row], [(0, len(piece) - 1)], layers=())
            except BaseException:
                self._cache.cut(len(self.path))  # some layers had grown already
                raise
            self.path += piece

    def cut(self, length: int) -> None:
        """Forgets the path's tokens from `length` on."""
        if length < len(self.path):
            self._cache.cut(length)
            self.path = self.path[:length]

    def read(
        self, rows: Sequence[Row], columns: Sequence[tuple[int, int]], *, layers: Sequence[int] = ()
    ) -> Read:
        """Reads n rows that continue the path.

        Args:
            rows: Laid out with `start` = the path's length.
            columns: m pairs (row, column) whose logits are wanted, at least one.
            layers: Hidden-state indices wanted.
        """
        outputs = self._forward(rows, columns, layers=layers)
        return Read({layer: outputs.hidden_states[layer] for layer in layers}, outputs.logits)

    @torch.inference_mode()
    def _forward(
        self, rows: Sequence[Row], columns: Sequence[tuple[int, int]], *, layers: Sequence[int]
    ) -> Any:
        device, model = self.lm.device, self.lm.model
        longest = max(len(row.ids) for row in rows)
        length = longest if len(rows) == 1 else padded_length(longest)
        ids, positions, ends = (
            torch.from_numpy(part).to(device) for part in _padded(rows, length, len(self.path))
        )
        taken = inspect.signature(model.forward).parameters
        options: dict[str, Any] = {"use_cache": False}
        if self.path or self._cache.grows:
            # transformers 5.24 calls it "cache", and warns of the name that it had before.
            name = "cache" if "cache" in taken else "past_key_values"
            options = {"use_cache": True, name: self._cache}
        if layers:
            options["output_hidden_states"] = states_wanted(layers)
        if "position_ids" in taken:
            options["position_ids"] = positions
        where = torch.tensor(columns, dtype=torch.long)
        with gathered_before(model.get_output_embeddings(), where) as gathered:
            outputs = model(input_ids=ids, attention_mask=self._masks(positions, ends), **options)
        if gathered:
            outputs.logits = outputs.logits[0]
        else:  # this model's logits do not come from its output embeddings' own call
            rows_, columns_ = where.to(outputs.logits.device).unbind(1)
            outputs.logits = outputs.logits[rows_, columns_]
        return outputs

    def _masks(self, positions: torch.Tensor, ends: torch.Tensor) -> Any:
        """Masks [n, 1, L, path + L]: one, or one per kind of attention layer."""
        n, length = positions.shape
        columns = torch.arange(length, device=positions.device)
        query, key = columns[:, None], columns[None, :]
        own = (key <= query) & (query < ends[:, None, :])
        mask = torch.cat([own.new_ones(n, length, len(self.path)), own], 2)
        made = {
            kind: self._added(mask if window is None else mask & self._near(positions, window))
            for kind, window in self._windows.items()
        }
        return made if len(made) > 1 else next(iter(made.values()))

    def _near(self, positions: torch.Tensor, window: int) -> torch.Tensor:
        """Which tokens are less than a window away, in their own sequence's count."""
        own = positions.int()
        path = torch.arange(len(self.path), device=own.device, dtype=own.dtype)
        keys = torch.cat([path.expand(len(own), -1), own], 1)
        return own[:, :, None] - keys[:, None, :] < window

    def _added(self, mask: torch.Tensor) -> torch.Tensor:
        """To be added to the scores: made once, where true and false would be turned per layer."""
        dtype = self.lm.model.dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return added.masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


def attention_windows(config: Any) -> dict[str, int | None]:
    """Kinds of attention layers of a text model, with their window in tokens (None: all)."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return {"attention": window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}


def keeps_keys_and_values(model: Any) -> bool:
    """Whether all that a model keeps of a text are keys and values, of attention layers only.

    Models with a recurrent state (Mamba and its hybrids) or chunked attention are others; so are
    those that mask by column themselves (GPT-Neo), and those whose rotation of a token depends on
    the text's length.
    """
    if getattr(model, "_is_stateful", False):
        return False
    config = model.config.get_text_config(decoder=True)
    if rotation_depends_on_length(config) or "local" in (getattr(config, "attention_layers", ())):
        return False
    layers = DynamicCache(config=model.config).layers
    return (
        model.config._attn_implementation in ("sdpa", "eager")
        and bool(layers)
        and set(attention_windows(config)) <= {"attention", "full_attention", "sliding_attention"}
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    )


def rotation_depends_on_length(config: Any) -> bool:
    """Whether positions are rotated by the longest text of a pass (dynamic RoPE, LongRoPE)."""
    kinds = getattr(config, "rope_parameters", None) or {}
    # One set of parameters, or one per kind of layer.
    each = [kinds, *(value for value in kinds.values() if isinstance(value, Mapping))]
    return any(part.get("rope_type") in ("dynamic", "longrope") for part in each)


def padded_length(tokens: int) -> int:
    """Columns of a row of so many tokens beside others."""
    return -(-tokens // ALIGNMENT) * ALIGNMENT


def _padded(
    rows: Sequence[Row], length: int, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, positions and ends [n, length]; a padded column sees the path and itself alone."""
    ids = np.zeros((len(rows), length), np.int64)
    positions = np.full((len(rows), length), start, np.int64)
    ends = np.tile(np.arange(1, length + 1), (len(rows), 1))
    for number, row in enumerate(rows):
        here = slice(0, len(row.ids))
        ids[number, here], positions[number, here] = row.ids, row.positions
        ends[number, here] = row.ends
    return ids, positions, ends


@contextmanager
def gathered_before(head: Any, where: torch.Tensor) -> Iterator[list[bool]]:
    """Has a model's output embeddings see the columns `where` [m, 2] only: [n, L, D] -> [1, m, D].

    All that a model does to its logits afterwards (scaling, soft-capping) is element by element.
    """
    done: list[bool] = []

    def gather(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = inputs
        rows, columns = where.to(hidden.device).unbind(1)
        done.append(True)
        return hidden[rows, columns][None], *others

    handle = None if head is None else head.register_forward_pre_hook(gather)
    try:
        yield done
    finally:
        if handle is not None:
            handle.remove()


class _PathCache(Cache):
    """Keys and values of a path; rows that follow it see them and add nothing."""

    def __init__(self) -> None:
        self._kept: list[DynamicLayer] = []
        super().__init__(layers=self._kept)  # type: ignore[arg-type]  # the same list
        self.grows = False

    @contextmanager
    def growing(self) -> Iterator[None]:
        """What is read meanwhile belongs to the path."""
        self.grows = True
        try:
            yield
        finally:
            self.grows = False

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [n, heads, path + L, head dimension] of n rows after the path."""
        while len(self._kept) <= layer_idx:
            self._kept.append(DynamicLayer())
        layer = self._kept[layer_idx]
        if self.grows:
            return layer.update(key_states, value_states, *args, **kwargs)
        return _after(layer.keys, key_states), _after(layer.values, value_states)

    def cut(self, length: int) -> None:
        """Forgets what comes after the first `length` tokens."""
        for layer in self._kept:
            # Copied: a view would keep the memory of what is forgotten.
            layer.keys = _first(layer.keys, length)
            layer.values = _first(layer.values, length)


def _after(path: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    if path is None:  # a layer that the path did not pass through
        return rows
    return torch.cat([path.expand(len(rows), -1, -1, -1), rows], -2)


def _first(path: torch.Tensor | None, length: int) -> torch.Tensor | None:
    return None if path is None else path[..., :length, :].clone()
