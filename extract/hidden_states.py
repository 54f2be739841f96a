"""Writes activation stores: hidden states and log-probabilities of contrast pairs.

Item i's prompt x_i ends just before a verdict. phi_i+ and phi_i- are the hidden states at the last
token of x_i + true word and x_i + false word (Burns et al. 2022; Canavan et al. 2026); the
zero-shot log-probabilities of the two verdicts come from the same pass. Where an item has a text
after its verdict (`jelicit.data.prompts.after_verdict`), both sequences go on with it, states are
those of its last token, and the log-probabilities are of the verdict alone, as ever.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from extract import apple
from extract.dtype_trial import CHECK
from extract.models import LanguageModel, TextModel, choose_token_budget
from extract.passes import PairStates, Pass, Separate, Shared, can_share, longest, shared_prefix
from extract.printable import printable
from extract.prompt_ids import describe_texts, encode_items, leave_out_long
from extract.reader import padded_length
from extract.verdicts import Encoded
from jelicit.activations import DTYPES, MAY_DIFFER, ActivationStore, StoreSpec, StoreWriter
from jelicit.activations.manifest import ITEMS, MANIFEST, Manifest, shard_name
from jelicit.activations.spec import differences
from jelicit.data.items import Item, digest
from jelicit.data.prompts import PromptFormat
from jelicit.disk import open_folder

Method = Literal["auto", "shared", "separate"]
LAYOUT = 3
"""Goes up when other settings go into a store: who names folders by settings makes new ones."""

LARGEST_NORM = 1e16
"""Of a hidden state. Squares of larger ones, summed over a million rows, overflow float32, and fits
would end in nan; the largest states known of language models have norms of some 1e5."""

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def extract(
    lm: TextModel,
    items: Sequence[Item],
    format: PromptFormat,
    out: str | os.PathLike[str],
    *,
    layers: Literal["all"] | Sequence[int] = "all",
    token_budget: int | None = None,
    shard_size: int = 512,
    method: Method | Pass = "auto",
    worker: tuple[int, int] = (0, 1),
    skip_long: bool = False,
    progress: bool = True,
) -> ActivationStore:
    """Writes the activation store of `items`, or goes on with one that was interrupted.

    The batches are planned before anything is computed and never cross shards, so an interrupted
    run that goes on ends with the same bytes (same device, threads and library versions).

    Args:
        lm: The language model.
        items: n items; row i of the store is item i (of those not left out).
        format: How items are shown, and the verdict words.
        out: Folder of the store.
        layers: Hidden-state indices: 0 = embeddings, l = output of block l, n_blocks = after the
            final norm; negative ones count from the end. "all" = every one.
        token_budget: Most tokens, padding included, that a batch computes; None =
            `choose_token_budget`. It is halved, and the
            batches that are left are planned again, when the device runs out of memory (of several
            workers: the run ends with a MemoryError).
        shard_size: Rows per shard; an interrupted run loses at most one shard of each worker.
        method: "shared" (whatever sequences begin with alike is read once), "separate" (two
            sequences per item), "auto" = shared where it gives the model's numbers; or a `Pass` of
            another engine's, for example `VllmPass`.
        worker: (k, n): this process is the k-th of n and writes every n-th shard; the last to be
            done finishes the store.
        skip_long: Leave out items that are longer than the model's context, rather than refuse
            them; the store records which.
        progress: Show a progress bar while something is computed.

    Returns:
        The store; incomplete as long as other workers are not done.

    Raises:
        ValueError: If an option is not allowed; a prompt is longer than the model's context or the
            two verdicts have the same tokens (the message names the item); verdicts do not follow
            their prompts as a text would (`extract.verdicts.check_joints`); a hidden state is not
            finite, or so large that its square is not; or the folder holds a store made with other
            settings. Where nothing was written yet, no store is left behind.
    """
    items, left_out = list(items), []
    if skip_long:
        items, left_out = leave_out_long(lm, items, format)
    if not 0 <= worker[0] < worker[1]:
        raise ValueError(f"worker is {worker}; allowed: (k, n) with 0 <= k < n")
    chosen = resolve_layers(layers, n_blocks=lm.n_blocks)
    if token_budget is None:
        token_budget = choose_token_budget(lm.device)
    encoded = encode_items(lm, items, format)
    job = _Job(_pass(lm, method, encoded), lm, items, encoded)
    texts = describe_texts(lm, items, format, encoded, left_out=left_out)
    spec = _spec(
        job, format, layers=chosen, texts=texts, shard_size=shard_size, token_budget=token_budget
    )
    alone = worker[1] == 1
    if alone:
        _remove_if_empty(out, unless=spec)
    writer = StoreWriter.open(out, spec, items)
    with _none_left_empty(out, alone=alone):
        _write_missing(writer, job, worker=worker, progress=progress)
    # What torch keeps for its next pass, JAX lacks in the fits that follow.
    give_back_cache()
    return ActivationStore.open(out) if writer.missing() else writer.finish()


def give_back_cache() -> None:
    """Memory of GPUs that torch has freed and kept, given back to whoever else uses them."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if apple.has_gpu():
        torch.mps.empty_cache()


@contextmanager
def _none_left_empty(out: str | os.PathLike[str], *, alone: bool) -> Iterator[None]:
    """A run that fails leaves no store without a shard, unless other workers write it, too.

    Raises:
        ValueError: If states are not finite and there are shards already: the message says what to
            do with them.
    """
    try:
        yield
    except BaseException as error:
        if alone and not _remove_if_empty(out) and isinstance(error, _NotFiniteError):
            raise ValueError(
                f"{error}. {out} holds shards of this run, which cannot be completed: delete it, "
                "or give another folder"
            ) from error
        raise


def _remove_if_empty(out: str | os.PathLike[str], *, unless: StoreSpec | None = None) -> bool:
    """Removes a store that has no shard: it holds nothing, and would refuse other settings.

    Args:
        out: Its folder.
        unless: Keep one that such a run would go on with.

    Returns:
        Whether there is no store now.
    """
    files = open_folder(out)
    if not files.exists(MANIFEST):
        return True
    spec = Manifest.current(files).spec
    if any(files.exists(shard_name(shard)) for shard in range(len(spec.shards))):
        return False
    if unless is not None and not differences(spec, unless, ignore=MAY_DIFFER):
        return False
    for name in (MANIFEST, ITEMS):
        if files.exists(name):
            files.remove(name)
    if isinstance(files.location, os.PathLike):
        with suppress(OSError):  # it may hold other files
            Path(files.location).rmdir()
    return True


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


def plan(
    way: Pass, encoded: Sequence[Encoded], *, shard_size: int, token_budget: int
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[tuple[int, ...], ...], ...]]:
    """Shards and their batches.

    Shards are runs of `shard_size` items. Inside a shard, items that are best read together stay
    together; their groups go from long to short (so that memory runs out at once or never) and are
    cut where groups * longest would exceed the token budget. A group that exceeds it alone is a
    batch of its own.

    Args:
        way: How the batches will be computed.
        encoded: n prompts with their verdicts.
        shard_size: Items per shard, at least 1.
        token_budget: Tokens per batch, at least 1.

    Returns:
        ((start, stop) per shard, item numbers per batch per shard).

    Raises:
        ValueError: If shard_size or token_budget is below 1.
    """
    if shard_size < 1 or token_budget < 1:
        raise ValueError(
            f"shard_size is {shard_size} and token_budget {token_budget}; allowed: 1 or more"
        )
    n = len(encoded)
    shards = tuple((start, min(start + shard_size, n)) for start in range(0, n, shard_size))
    return shards, tuple(tuple(_batches(way, encoded, *s, token_budget)) for s in shards)


def _batches(
    way: Pass, encoded: Sequence[Encoded], start: int, stop: int, token_budget: int
) -> Iterator[tuple[int, ...]]:
    items = encoded[start:stop]
    groups = way.weigh(items, token_budget)
    groups.sort(key=lambda group: (-group[0], min(group[1])))
    while groups:
        most = max(token_budget // padded_length(groups[0][0]), 1)
        size = 1
        while size < min(most, len(groups)) and way.stays(
            [[items[place] for place in members] for _, members in groups[size - 1 : size + 1]]
        ):
            size += 1
        yield tuple(start + item for _, members in groups[:size] for item in members)
        groups = groups[size:]


def _pass(lm: TextModel, method: Method | Pass, encoded: Sequence[Encoded]) -> Pass:
    if not isinstance(method, str):
        return method
    if not isinstance(lm, LanguageModel):
        raise TypeError(f"{lm.name} runs in an engine of its own: give its Pass as the method")
    if method == "separate":
        return Separate(lm)
    possible = can_share(lm)
    if method == "shared" and not possible:
        raise ValueError(
            f"{lm.name} cannot read shared beginnings once (its attention takes no mask of ours, "
            "or it keeps a recurrent state); use method='separate'"
        )
    return Shared(lm, shared_prefix(encoded)) if possible else Separate(lm)


def _spec(
    job: _Job,
    format: PromptFormat,
    *,
    layers: tuple[int, ...],
    texts: Mapping[str, Any],
    shard_size: int,
    token_budget: int,
) -> StoreSpec:
    """What the store will hold, of what, and made how: only a run of the same goes on with it."""
    lm = job.lm
    shards, batches = plan(job.way, job.encoded, shard_size=shard_size, token_budget=token_budget)
    return StoreSpec(
        model=lm.name,
        revision=lm.revision,
        model_digest=lm.digest,
        dtype=lm.dtype,
        prompt_format=dataclasses.asdict(format),
        layers=layers,
        n_items=len(job.items),
        item_digest=digest(job.items),
        d_model=lm.d_model,
        shards=shards,
        batch_plan=batches,
        n_blocks=lm.n_blocks,
        settings={
            "method": job.way.name,
            **job.way.settings,
            "token_budget": token_budget,
            "shard_size": shard_size,
            "checks": {name: said for name, said in _checks(lm).items() if name != CHECK},
            **({} if lm.chat is None else {"chat_template": lm.chat.digest}),
        },
        texts=texts,
        machine=_machine(lm),
        versions={"jelicit": version("jelicit")} | {name: version(name) for name in LIBRARIES},
    )


def _checks(lm: TextModel) -> Mapping[str, str]:
    return getattr(lm, "checks", {})


def _machine(lm: TextModel) -> dict[str, Any]:
    if lm.device == "cpu":
        tried = {"trial": f"bfloat16, {_checks(lm)[CHECK]}"} if CHECK in _checks(lm) else {}
        return {"device": "cpu", "threads": torch.get_num_threads(), **tried}
    name = torch.cuda.get_device_name() if lm.device.startswith("cuda") else lm.device
    return {"device": name}


# --- computing -----------------------------------------------------------------------------------


class _Job(NamedTuple):
    """What is computed, how, on what."""

    way: Pass
    lm: TextModel
    items: Sequence[Item]
    encoded: Sequence[Encoded]


class _NotFiniteError(ValueError):
    """A state or a log-probability is no number to compute with; no run of this dtype gives one."""


class _OutOfMemoryError(MemoryError):
    """The device has too little memory for a batch; nothing of its shard was written."""

    def __init__(self, message: str, batch: Sequence[int]) -> None:
        super().__init__(message)
        self.batch = batch


def _write_missing(
    writer: StoreWriter, job: _Job, *, worker: tuple[int, int], progress: bool
) -> None:
    """Computes and writes this worker's missing shards; writing goes on beside computing."""
    number, count = worker
    shards = writer.spec.shards
    mine = range(number, len(shards), count)
    todo = [shard for shard in writer.missing() if shard in mine]
    if not todo:
        return
    tokens = {shard: _tokens(job, range(*shards[shard])) for shard in mine}
    total, left = sum(tokens.values()), sum(tokens[shard] for shard in todo)
    with (
        tqdm(
            total=total,
            initial=total - left,
            unit="token",
            unit_scale=True,
            desc=printable(job.lm.name),
            disable=not progress,
            leave=False,
        ) as bar,
        ThreadPoolExecutor(1, "store") as store,
        ThreadPoolExecutor(1, "rows") as ahead,
    ):
        written: Future[None] | None = None
        while todo:
            done = bar.n
            made = _shard_if_it_fits(job, writer.spec, todo[0], bar, ahead)
            if isinstance(made, _OutOfMemoryError):
                bar.n = done
                if written is not None:
                    written.result()  # the new plan must not overtake the last shard
                _plan_smaller(writer, job, todo[0], made, workers=count)
                continue
            # One shard waits to be written at most: two in memory beside the one computed.
            if written is not None:
                written.result()
            written = store.submit(writer.write, todo.pop(0), *made)
        if written is not None:
            written.result()


def _plan_smaller(
    writer: StoreWriter, job: _Job, shard: int, error: _OutOfMemoryError, *, workers: int
) -> None:
    """Plans the missing shards again, by the first halved budget that cuts the failed batch."""
    if workers > 1:  # the others go by the plan, too
        raise MemoryError(f"{error}; lower the token budget in all processes") from error
    if len(error.batch) == 1:
        raise MemoryError(
            f"{error}; choose fewer layers, leave long items out, or use a larger device"
        ) from error
    spec, failed = writer.spec, set(error.batch)
    budget = spec.settings["token_budget"]
    largest = len(failed)
    while largest >= len(failed) and budget > 1:
        budget //= 2
        cut = _batches(job.way, job.encoded, *spec.shards[shard], budget)
        largest = max(len(batch) for batch in cut if failed.intersection(batch))
    give_back_cache()
    warnings.warn(f"{error}; going on with a token budget of {budget}", stacklevel=5)
    writer.replan([tuple(_batches(job.way, job.encoded, *s, budget)) for s in spec.shards])


def _shard_if_it_fits(
    job: _Job, spec: StoreSpec, shard: int, bar: tqdm, ahead: ThreadPoolExecutor
) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], np.ndarray] | _OutOfMemoryError:
    """As `_shard`, or the error without its traceback, which would hold on to the batch."""
    try:
        return _shard(job, spec, shard, bar, ahead)
    except _OutOfMemoryError as error:
        return error.with_traceback(None)


def _shard(
    job: _Job, spec: StoreSpec, shard: int, bar: tqdm, ahead: ThreadPoolExecutor
) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """One shard's states and log-probabilities, its rows in item order."""
    start, stop = spec.shards[shard]
    shape = (stop - start, spec.d_model)
    states = {
        layer: (np.empty(shape, DTYPES[spec.dtype]), np.empty(shape, DTYPES[spec.dtype]))
        for layer in spec.layers
    }
    log_probs = np.empty((stop - start, 2), np.float32)
    batches = spec.batch_plan[shard]
    arranged = [ahead.submit(_arrange, job, batch) for batch in batches]
    try:
        for batch, ready in zip(batches, arranged, strict=True):
            found = _run(job, batch, ready.result(), spec.layers)
            _check_finite(job, batch, found)
            rows = np.array(batch) - start
            log_probs[rows] = found.log_probs.numpy()
            for layer, signs in found.states.items():
                for kept, new in zip(states[layer], signs, strict=True):
                    kept[rows] = _numpy(new)
            bar.update(_tokens(job, batch))
    finally:
        for ready in arranged:
            ready.cancel()
    return states, log_probs


def _tokens(job: _Job, rows: Iterable[int]) -> int:
    """Of these items' prompts: what is read first is longest, so that items tell no time left."""
    return sum(longest(job.encoded[row]) for row in rows)


def _arrange(job: _Job, batch: Sequence[int]) -> Any:
    return job.way.arrange([job.encoded[row] for row in batch])


def _run(job: _Job, batch: Sequence[int], ready: Any, layers: Sequence[int]) -> PairStates:
    try:
        return job.way.read(ready, layers)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        most = max(longest(job.encoded[row]) for row in batch)
        raise _OutOfMemoryError(
            f"{job.lm.device} ran out of memory on {len(batch)} items of up to {most} tokens", batch
        ) from None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: it has a class for that on a GPU, and words elsewhere."""
    words = ("DefaultCPUAllocator", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _check_finite(job: _Job, batch: Sequence[int], made: PairStates) -> None:
    values = {f"layer {layer}": pair for layer, pair in made.states.items()}
    for name, pair in (values | {"log-probabilities": (made.log_probs,)}).items():
        # One pass over the numbers: what is not finite makes a norm that is not below the limit.
        norms = torch.stack([torch.linalg.vector_norm(x.float(), dim=1) for x in pair]).amax(0)
        bad = (~(norms < LARGEST_NORM)).nonzero()
        if len(bad):
            row = int(bad[0])
            _refuse(job, batch[row], name, torch.cat([x[row].float() for x in pair]))


def _refuse(job: _Job, row: int, name: str, values: torch.Tensor) -> None:
    folder = getattr(job.lm, "folder", None)
    files = "" if folder is None else f" ({folder})"
    what = f"item {job.items[row].id!r}: {name} of {job.lm.name}{files}"
    if values.isfinite().all():
        raise _NotFiniteError(
            f"{what} has the value {float(values.abs().max()):.3g}, whose square is beyond float32 "
            "in a fit; the model's weights are damaged, or choose layers without it"
        )
    raise _NotFiniteError(f"{what} not finite in {job.lm.dtype}; {CURES[job.lm.dtype]}")


CURES = {
    "float16": "load the model in another dtype (bfloat16 or float32)",
    "bfloat16": "load the model in another dtype (float32), or leave the item out",
    "float32": "no dtype is wider: the model's weights are damaged, or not meant for such a text; "
    "download it again, or leave the item out",
}
"""What to do about states that are not finite, by dtype."""


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers, in its own dtype."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(DTYPES["bfloat16"])
    return tensor.numpy()
