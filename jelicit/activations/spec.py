"""What a store holds, and how two stores differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""The dtypes of hidden states on disk, by name."""

MAY_DIFFER = ("batch_plan", "machine.trial")
"""In what two writers of one store may differ: batches, and how long a trial took each of them."""


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Everything that decides what a store holds. Two stores with equal specs hold equal numbers.

    Attributes:
        model: Name of the model: a Hugging Face id, a folder's name, or "pocket".
        revision: Commit of the model on the hub; "" for a folder.
        model_digest: SHA-256 over weights, config and tokenizer.
        dtype: Of the hidden states: a key of `DTYPES`.
        prompt_format: All fields of the prompt format.
        layers: Hidden-state indices that are stored: 0 = embeddings, l = output of block l, the
            last index is after the final norm.
        n_items: Number of rows.
        item_digest: `jelicit.data.items.digest` of the items.
        d_model: Width D of a hidden state.
        shards: (start, stop) rows of each shard; together 0..n_items without a gap.
        batch_plan: Per shard, the row numbers of each batch, fixed before the shard is computed.
            Batches never cross shards, so a resumed run computes the same batches.
        n_blocks: Blocks of the model, so that index n_blocks is the last; None if unknown.
        settings: How the batches are computed (method, token budget, ...).
        texts: Facts about the tokenised prompts (lengths, `byte_share`, ...).
        machine: Device and threads, and what a trial of its speed gave ("trial"). The former
            matter only while shards are missing. Of a merged store: a
            list per key whose value differs, one entry per store that was merged.
        versions: Library versions, as `machine`.

    Raises:
        ValueError: If a field contradicts another; the message names it.
    """

    model: str
    revision: str
    model_digest: str
    dtype: str
    prompt_format: Mapping[str, Any]
    layers: tuple[int, ...]
    n_items: int
    item_digest: str
    d_model: int
    shards: tuple[tuple[int, int], ...]
    batch_plan: tuple[tuple[tuple[int, ...], ...], ...]
    n_blocks: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_types(self)
        for name in _MAPPINGS:
            # As it will read from disk: a tuple in a mapping must not differ from its own copy.
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))
        _check_spec(self)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StoreSpec:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: If a field is missing or unknown, or its value is not allowed.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(f"spec has unknown fields {unknown}; known: {sorted(names)}")
        values = dict(values)
        try:
            values["layers"] = tuple(values["layers"])
            values["shards"] = tuple((start, stop) for start, stop in values["shards"])
            values["batch_plan"] = tuple(
                tuple(tuple(batch) for batch in shard) for shard in values["batch_plan"]
            )
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"spec has a field missing or of the wrong type: {error}") from error


_TEXTS = ("model", "revision", "model_digest", "dtype", "item_digest")
_MAPPINGS = ("prompt_format", "settings", "texts", "machine", "versions")


def _check_types(spec: StoreSpec) -> None:
    """Refuses what a file may hold in a number's place: 128.0, null, text."""
    for names, kind, words in (
        (_TEXTS, str, "a text"),
        (_MAPPINGS, Mapping, "a mapping"),
        (("n_items", "d_model"), int, "a whole number"),
        (("n_blocks",), int | None, "a whole number or null"),
        (("layers", "shards", "batch_plan"), tuple, "a list"),
    ):
        for name in names:
            value = getattr(spec, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{name} is {_short(value)}; allowed: {words}")
    numbers = {
        "layers": spec.layers,
        "shards": [row for pair in spec.shards for row in pair],
        "batch_plan": [row for shard in spec.batch_plan for batch in shard for row in batch],
    }
    for name, values in numbers.items():
        for value in values:
            if type(value) is not int:
                raise ValueError(f"{name} holds {_short(value)}; allowed: whole numbers")


def _check_spec(spec: StoreSpec) -> None:
    if spec.dtype not in DTYPES:
        raise ValueError(f"dtype is {spec.dtype!r}; allowed: {', '.join(DTYPES)}")
    if spec.d_model < 1 or spec.n_items < 0 or (spec.n_blocks or 0) < 0:
        raise ValueError(
            f"d_model is {spec.d_model}, n_items {spec.n_items}, n_blocks {spec.n_blocks}; "
            "allowed: a width of 1 or more, none below 0"
        )
    if not spec.layers or min(spec.layers) < 0 or list(spec.layers) != sorted(set(spec.layers)):
        raise ValueError(
            f"layers are {spec.layers}; allowed: rising whole numbers from 0, not none"
        )
    if spec.n_blocks is not None and spec.layers[-1] > spec.n_blocks:
        raise ValueError(
            f"layers are {spec.layers} of a model of {spec.n_blocks} blocks (n_blocks), whose last "
            f"is {spec.n_blocks}"
        )
    edges = [0, *(stop for _, stop in spec.shards)]
    starts = [start for start, _ in spec.shards]
    if starts != edges[:-1] or edges[-1] != spec.n_items or edges != sorted(set(edges)):
        raise ValueError(
            f"shards {_short(spec.shards)} do not cover the rows 0..{spec.n_items} (n_items) in "
            "order"
        )
    if len(spec.batch_plan) != len(spec.shards):
        raise ValueError(f"batch_plan has {len(spec.batch_plan)} shards, not {len(spec.shards)}")
    for number, ((start, stop), batches) in enumerate(
        zip(spec.shards, spec.batch_plan, strict=True)
    ):
        if sorted(row for batch in batches for row in batch) != list(range(start, stop)):
            raise ValueError(f"batch_plan of shard {number} is not rows {start}..{stop}, each once")


def differences(
    stored: StoreSpec,
    asked: StoreSpec,
    *,
    ignore: Sequence[str] = (),
    names: tuple[str, str] = ("stored", "asked"),
) -> list[str]:
    """One line "field: stored X, asked Y" per field (or key of a field) that differs.

    Args:
        stored: One spec.
        asked: The other.
        ignore: Fields, or keys of fields ("settings.method"), that may differ.
        names: What the two are called in the lines.
    """
    a, b = _flat(stored.to_json()), _flat(asked.to_json())
    return [
        f"{key}: {names[0]} {_short(a.get(key, 'nothing'))}, "
        f"{names[1]} {_short(b.get(key, 'nothing'))}"
        for key in dict.fromkeys([*a, *b])
        if not {key, key.split(".")[0]} & {*ignore} and a.get(key) != b.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def _short(value: object, limit: int = 70) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
