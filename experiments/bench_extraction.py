"""How fast contrast pairs are extracted, against two plain forward passes per pair.

The plain way is that of the released code: the prompt with its true and with its false verdict as
two sequences, every layer's states and every position's logits kept, at batch size 1 and at the
batch size that ours works with. Every contestant lives in a process of its own, so that its peak of
memory is its own; they take turns.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bench_models
import numpy as np
import torch
from common import console, say, write_numbers
from rich.table import Table

from extract.hidden_states import encode_items, extract, plan
from extract.models import Dtype, LanguageModel, choose_token_budget
from extract.passes import Shared, shared_prefix
from extract.token_trees import common
from extract.verdicts import Encoded
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, PromptFormat, segments
from jelicit.studies.checks import refuse

CONTESTANTS = ("plain_b1", "plain", "ours")
COMPARED = 16
"""Items whose numbers are compared between the contestants."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Time the extraction of contrast pairs against two plain passes per pair.

    Attributes:
        model: 170m, 1b or 8b (Llama shapes with random weights), or any model that `extract` takes.
        dataset: Items to show (a set's name or a folder); default: generated at GSM8K's lengths.
        n: Items.
        n_prefix: Items with a shared system prompt; 0 leaves that part out.
        prefix: Tokens of that system prompt.
        per_question: Claims about each question of the generated items.
        repeats: Times that each contestant is timed; the least counts.
        token_budget: Of our batches; default: 2048 on a CPU, else 8192.
        threads: CPU threads; default: chosen by the model's size.
        dtype: Of weights and hidden states; auto as `extract` has it.
        alone: Time our way alone, against the floor: for models of which three do not fit.
        json: Where to write the numbers.
    """

    model: str = "170m"
    dataset: str | None = None
    n: int = 96
    n_prefix: int = 48
    prefix: int = 500
    per_question: int = 1
    repeats: int = 2
    token_budget: int | None = None
    threads: int | None = None
    dtype: Dtype = "auto"
    alone: bool = False
    json: Path | None = None


def check(settings: Extraction) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    least = {"--n": (settings.n, 1), "--n-prefix": (settings.n_prefix, 0)}
    least |= {"--prefix": (settings.prefix, 1), "--per-question": (settings.per_question, 1)}
    least |= {"--repeats": (settings.repeats, 1)}
    refuse(
        [f"{name} {value}: at least {low}" for name, (value, low) in least.items() if value < low]
    )


def material(settings: Extraction, *, prefix: bool) -> tuple[list[Item], PromptFormat]:
    """The items of one part, and how they are shown."""
    n = settings.n_prefix if prefix else settings.n
    if settings.dataset is None:
        items, form = bench_models.claims(n, per_question=settings.per_question), FORMATS["claim"]
    else:
        dataset = load_dataset(settings.dataset)
        items, form = list(dataset.train[:n]), FORMATS[next(iter(dataset.formats.values()))]
    if prefix:
        form = replace(form, name="bench", system=bench_models.system_prompt(settings.prefix))
    if len(items) < n:
        raise ValueError(f"--n {n}: {settings.dataset} has {len(items)} train items")
    return items, form


# --- contestants ---------------------------------------------------------------------------------


@torch.inference_mode()
def plain(lm: LanguageModel, encoded: list[Encoded], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two passes per batch of `size` pairs: states [n, 2, layers, D], log-probabilities [n, 2]."""
    states, log_probs = [], []
    for start in range(0, len(encoded), size):
        batch = encoded[start : start + size]
        sides, said = [], []
        for side in (0, 1):
            rows = [item.prompt + item.verdicts[side] for item in batch]
            width = max(len(row) for row in rows)
            ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            outputs = lm.model(
                input_ids=ids.to(lm.device),
                attention_mask=mask.to(lm.device),
                output_hidden_states=True,
            )
            sides.append(torch.stack([h[:, -1] for h in outputs.hidden_states], 1).float().cpu())
            lengths = [len(item.verdicts[side]) for item in batch]
            found = []
            for row, length in enumerate(lengths):
                log_p = outputs.logits[row, -length - 1 : -1].float().log_softmax(-1)
                tokens = torch.tensor(batch[row].verdicts[side], device=log_p.device)
                found.append(log_p.gather(1, tokens[:, None]).sum().item())
            said.append(found)
        states.append(torch.stack(sides, 1).numpy())
        log_probs.append(np.array(said).T)
    return np.concatenate(states), np.concatenate(log_probs)


def ours(
    lm: LanguageModel, items: list[Item], form: PromptFormat, token_budget: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """`extract`, disk included: the same numbers, read back for the items that are compared."""
    with tempfile.TemporaryDirectory() as folder:
        store = extract(
            lm, items, form, Path(folder) / "store", token_budget=token_budget, progress=False
        )
        pairs = [store.pairs(layer, range(min(COMPARED, len(items)))) for layer in store.layers]
        states = np.stack([np.stack([pair.pos, pair.neg], 1) for pair in pairs], 2)
        return states, store.log_probs


def child(contestant: str, settings: Extraction, prefix: bool, pipe: Connection) -> None:
    """One contestant in its own process: says when it is ready, and times itself on request."""
    items, form = material(settings, prefix=prefix)
    texts = ["".join(segments(item, form)) for item in items]
    lm = bench_models.model(settings.model, texts, threads=settings.threads, dtype=settings.dtype)
    encoded = encode_items(lm, items, form)
    way = Shared(lm, shared_prefix(encoded))
    budget = settings.token_budget or choose_token_budget(lm.device)
    _, batches = plan(way, encoded, shard_size=512, token_budget=budget)
    size = -(-len(items) // sum(len(shard) for shard in batches))
    run: Callable[[], tuple[np.ndarray, np.ndarray]] = {
        "plain_b1": lambda: plain(lm, encoded, 1),
        "plain": lambda: plain(lm, encoded, size),
        "ours": lambda: ours(lm, items, form, settings.token_budget),
    }[contestant]
    plain(lm, encoded[:1], 1)  # what the first pass sets up is not what is measured
    about: dict[str, Any] = {"device": lm.describe(), "batch": size}
    about |= {"tokens": sum(len(e.prompt) for e in encoded)}
    if contestant == "ours":
        about["operations"] = least_operations(lm, encoded)
    before = start_peak(lm)
    pipe.send(about)
    found: Any = None
    while (asked := pipe.recv()) != "stop":
        begin = time.perf_counter()
        if asked == "peak":
            pipe.send(bench_models.peak_gflops(lm))
        else:
            found = run()
            pipe.send(time.perf_counter() - begin)
    states, log_probs = found
    pipe.send({"peak": peak(lm) - before, "numbers": (states[:COMPARED], log_probs[:COMPARED])})


def least_operations(lm: LanguageModel, encoded: list[Encoded]) -> float:
    """Operations that no way can leave out: texts that begin alike share what they begin with."""
    texts = sorted({item.prompt + verdict for item in encoded for verdict in item.verdicts})
    tokens = len(texts[0]) + sum(len(b) - common(a, b) for a, b in pairwise(texts))
    return bench_models.operations(lm, tokens, len({item.prompt for item in encoded}))


def start_peak(lm: LanguageModel) -> int:
    """Bytes in use; the peak is counted from here."""
    if lm.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return peak(lm)


def peak(lm: LanguageModel) -> int:
    """Most bytes in use since `start_peak` (outside Linux: since the process began)."""
    if lm.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


# --- the whole -----------------------------------------------------------------------------------


def part(settings: Extraction, *, prefix: bool) -> dict[str, Any]:
    """All contestants on one kind of prompts."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    wanted = ("ours",) if settings.alone else CONTESTANTS
    for name in wanted:
        pipes[name], other = context.Pipe()
        process = context.Process(target=child, args=(name, settings, prefix, other), daemon=True)
        process.start()
        other.close()
        processes.append(process)
    try:
        about = {name: pipe.recv() for name, pipe in pipes.items()}
        seconds = dict.fromkeys(wanted, float("inf"))
        for turn in range(settings.repeats):
            for name, pipe in pipes.items():
                pipe.send("go")
                taken = pipe.recv()
                say(f"  turn {turn + 1}, {name}: {taken:.2f} s")
                seconds[name] = min(seconds[name], taken)
        pipes["ours"].send("peak")
        peak_gflops = pipes["ours"].recv()
        ends = {}
        for name, pipe in pipes.items():
            pipe.send("stop")
            ends[name] = pipe.recv()
    except EOFError as error:
        raise MemoryError("a contestant's process ended early (see above); lower --n") from error
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    apart = [
        float(np.abs(a - b).max() / np.abs(b).max())
        for a, b in zip(ends["ours"]["numbers"], ends[wanted[0]]["numbers"], strict=True)
    ]
    return {
        **about["ours"],
        "peak_gflops": peak_gflops,
        "seconds": seconds,
        "peak": {name: end["peak"] for name, end in ends.items()},
        "max_difference": max(apart),
    }


def measure(settings: Extraction) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    for prefix in (False, True):
        material(settings, prefix=prefix)  # refuses what is not there before processes start
    say(f"{settings.n} items of GSM8K's lengths ..." if settings.dataset is None else "items ...")
    found = part(settings, prefix=False)
    seconds, n = found["seconds"], settings.n
    result = {
        "model": found["device"],
        "n": n,
        "prompt_tokens": found["tokens"] / n,
        "batch": found["batch"],
        "ours_items_s": n / seconds["ours"],
        "ours_tokens_s": found["tokens"] / seconds["ours"],
        "peak_mb": {name: value / 1e6 for name, value in found["peak"].items()},
        "peak_gflops": found["peak_gflops"],
        "floor_share": found["operations"] / found["peak_gflops"] / 1e9 / seconds["ours"],
    }
    if settings.alone:
        return result
    result |= {
        "plain_b1_items_s": n / seconds["plain_b1"],
        "plain_items_s": n / seconds["plain"],
        "plain_b1_tokens_s": 2 * found["tokens"] / seconds["plain_b1"],
        "plain_tokens_s": 2 * found["tokens"] / seconds["plain"],
        "ratio_b1": seconds["plain_b1"] / seconds["ours"],
        "ratio_equal": seconds["plain"] / seconds["ours"],
        "memory_ratio": found["peak"]["ours"] / found["peak"]["plain"],
        "max_difference": found["max_difference"],
    }
    if settings.n_prefix:
        say(f"{settings.n_prefix} items after a system prompt of {settings.prefix} tokens ...")
        found = part(settings, prefix=True)
        seconds = found["seconds"]
        best = min(seconds["plain"], seconds["plain_b1"])
        result |= {
            "prefix_items_s": {k: settings.n_prefix / v for k, v in seconds.items()},
            "ratio_shared_prefix": best / seconds["ours"],
            "prefix_max_difference": found["max_difference"],
        }
    return result


def show(result: dict[str, Any]) -> None:
    """The table."""
    say(result["model"])
    table = Table(
        title=f"contrast pairs: {result['n']} items, mean prompt {result['prompt_tokens']:.0f} "
        "tokens"
    )
    columns = ("", "items/s", "tokens/s", "peak MB", "ours: times faster")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    rows = {
        "plain_b1": ("plain, batch 1", "ratio_b1"),
        "plain": (f"plain, batch {result['batch']}", "ratio_equal"),
        "ours": ("ours", None),
    }
    for name, (label, ratio) in rows.items():
        if f"{name}_items_s" not in result:
            continue
        numbers = [result[f"{name}_items_s"], result[f"{name}_tokens_s"], result["peak_mb"][name]]
        shown = ["" if ratio is None else f"{result[ratio]:.2f}"]
        table.add_row(label, *(f"{number:.4g}" for number in numbers), *shown)
    console.print(table)
    say("tokens: of prompts, whatever was computed; peak: beyond the weights")
    say(
        f"floor: {result['floor_share']:.0%} of ours is what the matrix products alone take at the "
        f"{result['peak_gflops']:.0f} GFLOP/s of a large one"
    )
    if "max_difference" in result:
        say(f"largest difference, of the largest value: {result['max_difference']:.1g}")
    if "prefix_items_s" in result:
        rates = ", ".join(f"{k} {v:.3g}" for k, v in result["prefix_items_s"].items())
        say(
            f"shared system prompt, items/s: {rates}; ours is faster by "
            f"{result['ratio_shared_prefix']:.2f} than the better plain way"
        )


def main(settings: Extraction) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    write_numbers(result, settings.json)
