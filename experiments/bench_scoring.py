"""How fast many-shot prompts are scored when shared beginnings are read once.

Leave-one-out, as ICM asks it: every item of a set is judged after all others. The order of the
others is free. In a random order prompts share nothing; in the recursive order (score the first
half after the second, the second after the first, and so on) they share nearly everything.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_models
import numpy as np
from common import console, say, write_numbers
from rich.table import Table

from extract.local_scorer import LocalScorer
from extract.models import Dtype
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item
from jelicit.data.prompts import FORMATS, GAP, segments
from jelicit.icm import leave_one_out
from jelicit.studies.checks import refuse

COMPARED = 8
"""Prompts of the tree that are also read whole, to compare the numbers."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Time the scoring of many-shot prompts: each read whole, against every beginning once.

    Attributes:
        model: "pocket", 170m, 1b or 8b (Llama shapes with random weights), or any other model.
        dataset: Whose items are the examples.
        prompts: Prompts to score.
        shots: Items in a prompt, the judged one included.
        sample: Prompts of random order that are read whole; their time is multiplied up.
        repeats: Times that each way is timed; the least counts.
        token_budget: Tokens per pass; default: 2048 on a CPU, else 8192.
        threads: CPU threads; default: chosen by the model's size.
        dtype: Of weights and hidden states; auto as `extract` has it.
        json: Where to write the numbers.
    """

    model: str = "pocket"
    dataset: str = "pocket/facts"
    prompts: int = 256
    shots: int = 64
    sample: int = 32
    repeats: int = 2
    token_budget: int | None = None
    threads: int | None = None
    dtype: Dtype = "auto"
    json: Path | None = None


def check(settings: Scoring) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    least = {"--shots": (settings.shots, 2), "--prompts": (settings.prompts, settings.shots)}
    least |= {"--sample": (settings.sample, 1), "--repeats": (settings.repeats, 1)}
    refuse(
        [f"{name} {value}: at least {low}" for name, (value, low) in least.items() if value < low]
    )


def prompts_of(
    items: Sequence[Item], shots: int, *, shuffled: bool
) -> list[tuple[tuple[str, ...], ...]]:
    """Per set of `shots` items, its leave-one-out prompts as segments."""
    form = FORMATS["claim"]
    rng = random.Random(0)
    shown = [segments(item, form) for item in items]
    words = {True: form.true_word, False: form.false_word}
    made = []
    for start in range(0, len(items) - shots + 1, shots):
        asked = []
        for others, judged in leave_one_out(range(start, start + shots)):
            order = list(others)
            if shuffled:
                rng.shuffle(order)
            examples = ["".join(shown[i]) + words[bool(items[i].label)] + GAP for i in order]
            asked.append((*examples, *shown[judged]))
        made.append(tuple(asked))
    return made


def measure(settings: Scoring) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    sets = -(-settings.prompts // settings.shots)
    items = list(load_dataset(settings.dataset, seed=0).train)[: sets * settings.shots]
    if len(items) < sets * settings.shots:
        raise ValueError(
            f"--prompts {settings.prompts}: {settings.dataset} has {len(items)} train items, "
            f"{sets * settings.shots} are needed"
        )
    texts = ["".join(segments(item, FORMATS["claim"])) for item in items]
    lm = bench_models.model(settings.model, texts, threads=settings.threads, dtype=settings.dtype)
    tree = [p for part in prompts_of(items, settings.shots, shuffled=False) for p in part]
    rng = random.Random(1)
    mixed = [p for part in prompts_of(items, settings.shots, shuffled=True) for p in part]
    mixed = rng.sample(mixed, min(settings.sample, len(mixed)))
    words = (" True", " False")
    seconds = {"whole": float("inf"), "tree": float("inf")}
    read: dict[str, float] = {}
    for turn in range(settings.repeats):
        for name, prompts, factor in (
            ("whole", mixed, len(tree) / len(mixed)),
            ("tree", tree, 1.0),
        ):
            scorer = LocalScorer(lm, match="tokens", token_budget=settings.token_budget)
            scorer.shares &= name == "tree"
            begin = time.perf_counter()
            scorer.score(prompts, words)
            taken = (time.perf_counter() - begin) * factor
            say(f"  turn {turn + 1}, {name}: {taken:.1f} s")
            seconds[name] = min(seconds[name], taken)
            read[name] = scorer.tokens_read * factor
    peak = bench_models.peak_gflops(lm)
    floor = bench_models.operations(lm, read["tree"], len(tree)) / peak / 1e9
    few = tree[:: max(len(tree) // COMPARED, 1)]
    scorer = LocalScorer(lm, match="tokens", token_budget=settings.token_budget)
    shared = scorer.score(tree, words)[:: max(len(tree) // COMPARED, 1)]
    scorer.shares = False
    return {
        "model": lm.describe(),
        "prompts": len(tree),
        "shots": settings.shots,
        "seconds_whole": seconds["whole"],
        "seconds_whole_is": f"extrapolated from {len(mixed)} prompts",
        "seconds_trie": seconds["tree"],
        "tokens_whole": read["whole"],
        "tokens_trie": read["tree"],
        "ratio_trie": seconds["whole"] / seconds["tree"],
        "ratio_tokens": read["whole"] / read["tree"],
        "peak_gflops": peak,
        "floor_share": floor / seconds["tree"],
        "max_difference": float(np.abs(shared - scorer.score(few, words)).max()),
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    say(result["model"])
    table = Table(title=f"{result['prompts']} prompts of {result['shots']} examples")
    for column in ("", "tokens read", "seconds", "prompts/s"):
        table.add_column(column, justify="right" if column else "left")
    for label, key in (("each read whole, random order", "whole"), ("recursive order", "trie")):
        seconds = result[f"seconds_{key}"]
        rate = result["prompts"] / seconds
        table.add_row(label, f"{result[f'tokens_{key}']:,.0f}", f"{seconds:.1f}", f"{rate:.1f}")
    console.print(table)
    say(
        f"{result['ratio_trie']:.1f} times faster with {result['ratio_tokens']:.1f} times fewer "
        f"tokens (whole: {result['seconds_whole_is']}); log-probabilities differ by at most "
        f"{result['max_difference']:.1g}"
    )
    say(
        f"floor: {result['floor_share']:.0%} of the recursive order's seconds is what the matrix "
        f"products alone take at the {result['peak_gflops']:.0f} GFLOP/s of a large one"
    )


def main(settings: Scoring) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    write_numbers(result, settings.json)
