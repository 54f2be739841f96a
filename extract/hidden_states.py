"""Writes activation stores: hidden states and log-probabilities of contrast pairs.

Item i's prompt x_i ends just before a verdict. phi_i+ and phi_i- are the hidden states at the last
token of x_i + true word and x_i + false word (Burns et al. 2022; Canavan et al. 2026); the
zero-shot log-probabilities of the two verdicts come from the same pass.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from extract import passes
from extract.models import LanguageModel
from extract.verdicts import Encoded, byte_share, encode
from jelicit.activations import DTYPES, ActivationStore, StoreSpec, StoreWriter
from jelicit.data.items import Item, digest
from jelicit.data.prompts import PromptFormat, segments

Method = Literal["auto", "shared", "separate"]
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def extract(
    lm: LanguageModel,
    items: Sequence[Item],
    format: PromptFormat,
    out: str | os.PathLike[str],
    *,
    layers: Literal["all"] | Sequence[int] = "all",
    token_budget: int = 8192,
    shard_size: int = 512,
    method: Method = "auto",
    worker: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> ActivationStore:
    """Writes the activation store of `items`, or goes on with one that was interrupted.

    The batches are planned before anything is computed and never cross shards, so an interrupted
    run that goes on ends with the same bytes (same device, threads and library versions).

    Args:
        lm: The language model.
        items: n items; row i of the store is item i.
        format: How items are shown, and the verdict words.
        out: Folder of the store.
        layers: Hidden-state indices: 0 = embeddings, l = output of block l, n_blocks = after the
            final norm; negative ones count from the end. "all" = every one.
        token_budget: Most tokens, padding included, in the two sequences per item of one batch.
            Lower it when the device runs out of memory.
        shard_size: Rows per shard; an interrupted run loses at most one shard of each worker.
        method: "shared" (prompt once, both verdicts from its cache), "separate" (two sequences per
            item), or "auto" = shared where the model's cache allows it.
        worker: (k, n): this process is the k-th of n and writes every n-th shard; the last to be
            done finishes the store.
        progress: Show a progress bar while something is computed.

    Returns:
        The store; incomplete as long as other workers are not done.

    Raises:
        ValueError: If an option is not allowed; a prompt is longer than the model's context or the
            two verdicts have the same tokens (the message names the item); a hidden state is not
            finite; or the folder holds a store made with other settings.
    """
    items = list(items)
    if not 0 <= worker[0] < worker[1]:
        raise ValueError(f"worker is {worker}; allowed: (k, n) with 0 <= k < n")
    chosen = resolve_layers(layers, n_blocks=lm.n_blocks)
    run = _method(lm, method)
    encoded = encode_items(lm, items, format)
    texts = describe_texts(lm, encoded)
    shards, batches = plan(
        [_length(row) for row in encoded], shard_size=shard_size, token_budget=token_budget
    )
    spec = StoreSpec(
        model=lm.name,
        revision=lm.revision,
        model_digest=lm.digest,
        dtype=lm.dtype,
        prompt_format=dataclasses.asdict(format),
        layers=chosen,
        n_items=len(items),
        item_digest=digest(items),
        d_model=lm.d_model,
        shards=shards,
        batch_plan=batches,
        n_blocks=lm.n_blocks,
        settings={
            "method": run.__name__,
            "token_budget": token_budget,
            "shard_size": shard_size,
            "attention": lm.model.config._attn_implementation,
        },
        texts=texts,
        machine=_machine(lm),
        versions={"jelicit": version("jelicit")} | {name: version(name) for name in LIBRARIES},
    )
    writer = StoreWriter.open(out, spec, items)
    _write_missing(writer, _Job(run, lm, items, encoded), worker=worker, progress=progress)
    return ActivationStore.open(out) if writer.missing() else writer.finish()


# --- before computing ----------------------------------------------------------------------------


def resolve_layers(layers: Literal["all"] | Sequence[int], *, n_blocks: int) -> tuple[int, ...]:
    """Hidden-state indices in rising order, negative ones resolved.

    Raises:
        ValueError: If one is out of range, or there is none.
    """
    if layers == "all":
        return tuple(range(n_blocks + 1))
    wrong = [layer for layer in layers if not -n_blocks - 1 <= int(layer) <= n_blocks]
    if wrong or not layers:
        raise ValueError(
            f"layers {wrong or 'is empty'}: the model has {n_blocks} blocks, so the hidden states "
            f"0 (embeddings) to {n_blocks} (after the final norm), or -{n_blocks + 1} to -1"
        )
    return tuple(sorted({int(layer) % (n_blocks + 1) for layer in layers}))


def encode_items(lm: LanguageModel, items: Sequence[Item], format: PromptFormat) -> list[Encoded]:
    """Token ids of every item's prompt and of its two verdicts.

    Raises:
        ValueError: If there is no item, a prompt does not fit the model's context, or both verdicts
            have the same tokens; the message names the item.
    """
    if not items:
        raise ValueError("there are no items to extract")
    words = (format.true_word, format.false_word)
    encoded = encode(lm.tokenizer, [segments(item, format) for item in items], words)
    for item, row in zip(items, encoded, strict=True):
        if row.verdicts[0] == row.verdicts[1]:
            raise ValueError(
                f"item {item.id!r}: the verdicts {words[0]!r} and {words[1]!r} have the same token "
                f"ids {row.verdicts[0]}; choose words that this tokenizer tells apart"
            )
        if lm.context is not None and _length(row) > lm.context:
            raise ValueError(
                f"item {item.id!r}: its prompt and verdict have {_length(row)} tokens, but "
                f"{lm.name} reads at most {lm.context}; leave the item out or use another model"
            )
    return encoded


def describe_texts(lm: LanguageModel, encoded: Sequence[Encoded]) -> dict[str, Any]:
    """Prompt lengths in tokens, how many exceed the trained length (warned of once), byte share."""
    lengths = [len(row.prompt) for row in encoded]
    longest = [_length(row) for row in encoded]
    limit = lm.trained_length
    beyond = 0 if limit is None else sum(length > limit for length in longest)
    if beyond:
        warnings.warn(
            f"{beyond} of {len(encoded)} prompts are longer than the {limit} tokens that {lm.name} "
            f"was trained on (the longest has {max(longest)}): its answers there mean little",
            stacklevel=3,
        )
    return {
        "prompt_tokens": {
            "least": min(lengths),
            "median": statistics.median(lengths),
            "most": max(lengths),
            "total": sum(lengths),
        },
        "trained_length": limit,
        "beyond_trained_length": beyond,
        "byte_share": byte_share(lm.tokenizer, (row.prompt for row in encoded)),
    }


def plan(
    lengths: Sequence[int], *, shard_size: int, token_budget: int
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[tuple[int, ...], ...], ...]]:
    """Shards and their batches.

    Shards are runs of `shard_size` rows. Inside a shard rows go from long to short (so that memory
    runs out at once or never) and are cut where 2 * rows * longest would exceed the token budget; a
    row that exceeds it alone is a batch of its own.

    Args:
        lengths: Tokens of each row's prompt and longer verdict.
        shard_size: Rows per shard, at least 1.
        token_budget: Tokens per batch, at least 1.

    Returns:
        ((start, stop) per shard, row numbers per batch per shard).

    Raises:
        ValueError: If shard_size or token_budget is below 1.
    """
    if shard_size < 1 or token_budget < 1:
        raise ValueError(
            f"shard_size is {shard_size} and token_budget {token_budget}; allowed: 1 or more"
        )
    n = len(lengths)
    shards = tuple((start, min(start + shard_size, n)) for start in range(0, n, shard_size))
    return shards, tuple(tuple(_batches(lengths, *shard, token_budget)) for shard in shards)


def _batches(
    lengths: Sequence[int], start: int, stop: int, token_budget: int
) -> Iterator[tuple[int, ...]]:
    rows = sorted(range(start, stop), key=lambda row: (-lengths[row], row))
    while rows:
        size = max(token_budget // (2 * lengths[rows[0]]), 1)
        yield tuple(rows[:size])
        rows = rows[size:]


def _length(row: Encoded) -> int:
    return len(row.prompt) + max(len(verdict) for verdict in row.verdicts)


def _method(lm: LanguageModel, method: Method) -> Callable[..., passes.PairStates]:
    if method == "separate":
        return passes.separate
    possible = passes.can_share(lm.model)
    if method == "shared" and not possible:
        raise ValueError(f"{lm.name} cannot share a prompt's cache; use method='separate'")
    return passes.shared if possible else passes.separate


def _machine(lm: LanguageModel) -> dict[str, Any]:
    if lm.device == "cpu":
        return {"device": "cpu", "threads": lm.threads}
    name = torch.cuda.get_device_name() if lm.device.startswith("cuda") else lm.device
    return {"device": name}


# --- computing -----------------------------------------------------------------------------------


class _Job(NamedTuple):
    """What is run, on what."""

    run: Callable[..., passes.PairStates]
    lm: LanguageModel
    items: Sequence[Item]
    encoded: Sequence[Encoded]


def _write_missing(
    writer: StoreWriter, job: _Job, *, worker: tuple[int, int], progress: bool
) -> None:
    """Computes and writes this worker's missing shards."""
    number, count = worker
    shards = writer.spec.shards
    mine = range(number, len(shards), count)
    todo = [shard for shard in writer.missing() if shard in mine]
    if not todo:
        return
    rows = {shard: shards[shard][1] - shards[shard][0] for shard in mine}
    total, left = sum(rows.values()), sum(rows[shard] for shard in todo)
    with tqdm(
        total=total,
        initial=total - left,
        unit="item",
        desc=job.lm.name,
        disable=not progress,
        leave=False,
    ) as bar:
        for shard in todo:
            writer.write(shard, *_shard(job, writer.spec, shard, bar))


def _shard(
    job: _Job, spec: StoreSpec, shard: int, bar: tqdm
) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """One shard's states and log-probabilities, its rows in item order."""
    start, stop = spec.shards[shard]
    shape = (stop - start, spec.d_model)
    states = {
        layer: (np.empty(shape, DTYPES[spec.dtype]), np.empty(shape, DTYPES[spec.dtype]))
        for layer in spec.layers
    }
    log_probs = np.empty((stop - start, 2), np.float32)
    for batch in spec.batch_plan[shard]:
        found = _run(job, batch, spec.layers)
        _check_finite(job, batch, found)
        rows = np.array(batch) - start
        log_probs[rows] = found.log_probs.numpy()
        for layer, signs in found.states.items():
            for kept, new in zip(states[layer], signs, strict=True):
                kept[rows] = _numpy(new)
        bar.update(len(batch))
    return states, log_probs


def _run(job: _Job, batch: Sequence[int], layers: Sequence[int]) -> passes.PairStates:
    try:
        return job.run(job.lm, [job.encoded[row] for row in batch], layers)
    except torch.OutOfMemoryError as error:
        longest = max(_length(job.encoded[row]) for row in batch)
        raise MemoryError(
            f"{job.lm.device} ran out of memory on {len(batch)} items of up to {longest} tokens; "
            "lower the token budget, or choose fewer layers"
        ) from error


def _check_finite(job: _Job, batch: Sequence[int], found: passes.PairStates) -> None:
    values = {f"layer {layer}": torch.cat(pair, 1) for layer, pair in found.states.items()}
    for name, value in (values | {"log-probabilities": found.log_probs}).items():
        bad = (~value.isfinite()).any(1).nonzero()
        if len(bad):
            raise ValueError(
                f"item {job.items[batch[int(bad[0])]].id!r}: {name} of {job.lm.name} not finite in "
                f"{job.lm.dtype}; load the model in another dtype (bfloat16 or float32)"
            )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, in its own dtype."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(DTYPES["bfloat16"])
    return tensor.numpy()
