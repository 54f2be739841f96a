"""What ICM costs: one evaluation of U, and whole searches, in three ways of reading.

One evaluation judges each of N items after the other N - 1. In a fixed order without a cache
(as the released code asks) every context is read whole; with a cache, what contexts begin with is
read once; the recursive order lets them begin with nearly everything. All three are read by the
same scorer on the same items, once each: in this process, or on a vLLM server, whose cache a salt
keeps apart or out. Ways that would take long are sampled, and the output says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_models
import numpy as np
from common import console, say
from rich.table import Table

from extract import open_server
from extract.local_scorer import LocalScorer
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.icm import (
    Prompter,
    SearchSettings,
    examples_that_fit,
    fixed,
    leave_one_out,
    reads_cached,
    reads_fixed,
    reads_recursive,
    search,
)
from jelicit.studies.checks import refuse

if TYPE_CHECKING:
    from extract.server_scorer import ServerScorer

WAYS = {
    "fixed": "fixed order, no cache",
    "cached": "fixed order, prefix cache",
    "recursive": "recursive order",
}
"""Ways of reading, by their name in the JSON."""

COMPARED = 4
"""Prompts that are also read whole, to compare the numbers."""


@dataclass(frozen=True, kw_only=True)
class Icm:
    """Count and time what ICM reads: leave-one-out in a fixed and in the recursive order.

    Attributes:
        model: "pocket", 170m, 1b or 8b (Llama shapes with random weights), or any other model.
        dataset: Whose items are labelled.
        n: Numbers of items. The pocket model was trained on texts of up to 1,024 tokens (about 40
            sums); longer contexts cost what they cost, but mean little to it.
        sample: Contexts of a fixed order that are read where there are more of them; time and
            tokens are multiplied up.
        search: Most items for which a whole search is run.
        seed: Of orders and searches.
        token_budget: Tokens per pass; default: 2048 on a CPU, else 8192.
        threads: CPU threads; default: chosen by the model's size.
        scorer: local, or the URL of a vLLM server; it has its own model, budget and threads.
        json: Where to write the numbers.
    """

    model: str = "pocket"
    dataset: str = "pocket/arithmetic"
    n: tuple[int, ...] = (16, 64, 256)
    sample: int = 32
    search: int = 64
    seed: int = 0
    token_budget: int | None = None
    threads: int | None = None
    scorer: str = "local"
    json: Path | None = None


def check(settings: Icm) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    wrong = [f"--n {n}: at least 2" for n in settings.n if n < 2]
    wrong += [f"--sample {settings.sample}: at least 2"] if settings.sample < 2 else []
    wrong += [] if settings.n else ["--n: at least one number"]
    refuse(wrong)


@dataclass(frozen=True)
class _Bench:
    """A model and the items it reads.

    Attributes:
        scorer: Makes a scorer that has read nothing yet; without `shares` it reads every prompt
            whole.
        items: What is judged.
        format: Of their prompts.
        settings: The command's.
    """

    scorer: Callable[..., LocalScorer | ServerScorer]
    items: tuple[Item, ...]
    format: PromptFormat
    settings: Icm

    def read(
        self, contexts: Sequence[tuple[tuple[int, ...], int]], *, shares: bool
    ) -> tuple[float, float, np.ndarray]:
        """(seconds, tokens read, log-probabilities) of items judged after contexts."""
        scorer = self.scorer(shares=shares)
        prompter = Prompter(scorer, self.items, self.format)
        asks = [
            (tuple((number, bool(self.items[number].label)) for number in context), target)
            for context, target in contexts
        ]
        begin = time.perf_counter()
        found = prompter.ask(asks)
        return time.perf_counter() - begin, float(scorer.tokens_read), found


def evaluation(bench: _Bench, n: int) -> dict[str, Any]:
    """Reads, tokens and seconds of one evaluation of U for n items, in each way."""
    order = np.random.default_rng([bench.settings.seed, n]).permutation(n).tolist()
    one_by_one, tree = list(fixed(order)), list(leave_one_out(order))
    picked = _sample(n, bench.settings.sample)
    some, whole = [one_by_one[place] for place in picked], len(picked) == n
    found: dict[str, Any] = {
        "reads_fixed": reads_fixed(n),
        "reads_cached": reads_cached(n),
        "reads_recursive": reads_recursive(n),
        "sampled": [] if whole else ["fixed", "cached"],
        "sample": len(picked),
    }
    seconds, tokens, _ = bench.read(some, shares=False)
    found |= {"seconds_fixed": seconds * n / len(picked), "tokens_fixed": tokens * n / len(picked)}
    seconds, tokens, _ = bench.read(some, shares=True)
    if not whole:
        # The longest beginning is read once, whatever the sample; its branches are multiplied up.
        first_seconds, first_tokens, _ = bench.read(some[:1], shares=True)
        factor = (n - 1) / (len(picked) - 1)
        seconds = first_seconds + (seconds - first_seconds) * factor
        tokens = first_tokens + (tokens - first_tokens) * factor
    found |= {"seconds_cached": seconds, "tokens_cached": tokens}
    seconds, tokens, log_probs = bench.read(tree, shares=True)
    found |= {"seconds_recursive": seconds, "tokens_recursive": tokens}
    few = list(range(0, n, max(n // COMPARED, 1)))
    _, _, expected = bench.read([tree[place] for place in few], shares=False)
    found["max_difference"] = float(np.abs(log_probs[few] - expected).max())
    for what in ("reads", "tokens", "seconds"):
        for way in ("fixed", "cached"):
            found[f"ratio_{what}_{way}"] = found[f"{what}_{way}"] / found[f"{what}_recursive"]
    return found


def _sample(n: int, most: int) -> list[int]:
    """The first of n contexts and others evenly among the rest, or all where `most` allows it."""
    if n <= most:
        return list(range(n))
    steps = (np.arange(most - 1) + 0.5) * (n - 1) / (most - 1)
    return [0, *(1 + steps.astype(int)).tolist()]


def whole_search(bench: _Bench, n: int, one: dict[str, Any]) -> dict[str, Any]:
    """What a search of n items read, and what fixed orders would have.

    In a fixed order every labelling judged is a leave-one-out of its own. Their reads are counted
    from the history; tokens and seconds are those of one evaluation (`one`) per read, an
    extrapolation.
    """
    scorer = bench.scorer()
    begin = time.perf_counter()
    found = search(scorer, bench.items[:n], bench.format, SearchSettings(seed=bench.settings.seed))
    seconds = time.perf_counter() - begin
    predictions = sum(step.labelled - 1 for step in found.history if step.kind == "draw")
    result = {
        "draws": found.draws,
        "evaluations": found.evaluations,
        "evaluations_per_label": found.evaluations_per_label,
        "draws_per_label": found.draws / n,
        "converged": found.converged,
        "accuracy": found.accuracy([item.label for item in bench.items[:n]]),
        "prompts": found.reading.prompts,
        "reads_recursive": found.reading.reads,
        "tokens_recursive": scorer.tokens_read,
        "seconds_recursive": seconds,
        "extrapolated": ["tokens_fixed", "seconds_fixed", "tokens_cached", "seconds_cached"],
    }
    for way, reads in (("fixed", reads_fixed), ("cached", reads_cached)):
        total = predictions + sum(s.judged * reads(s.labelled) for s in found.history)
        result[f"reads_{way}"] = total
        for what in ("tokens", "seconds"):
            result[f"{what}_{way}"] = one[f"{what}_{way}"] / one[f"reads_{way}"] * total
    return result


def measure(settings: Icm) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    dataset = load_dataset(settings.dataset, seed=0)
    items = dataset.train[: max(settings.n)]
    if len(items) < max(settings.n):
        raise ValueError(f"--n {max(settings.n)}: {settings.dataset} has {len(items)} train items")
    form = get_format(dataset.formats["label"])
    texts = ["".join((item.question, item.choice)) for item in items]
    make, about = _scorers(settings, texts)
    bench = _Bench(make, items, form, settings)
    fit = examples_that_fit(bench.scorer(), items, form)
    if fit < len(items):
        raise ValueError(
            f"--n {len(items)}: {fit} items of {settings.dataset} fit the model's context; use "
            "fewer, or a set of shorter items"
        )
    result: dict[str, Any] = {"model": about, "dataset": settings.dataset, "by_n": {}}
    for n in settings.n:
        say(f"one evaluation of U, {n} items")
        one = evaluation(bench, n)
        if n <= settings.search:
            say(f"a whole search, {n} items")
            one["search"] = whole_search(bench, n, one)
        result["by_n"][str(n)] = one
    return result


def _scorers(settings: Icm, texts: Sequence[str]) -> tuple[Callable[..., Any], str]:
    """What makes scorers, and the model in words."""
    if settings.scorer != "local":

        def read_there(*, shares: bool = True) -> ServerScorer:
            return open_server(settings.scorer, cache="own" if shares else "none").scorer()

        return read_there, f"{read_there().name} at {settings.scorer}"
    lm = bench_models.model(settings.model, list(texts), threads=settings.threads)

    def read_here(*, shares: bool = True) -> LocalScorer:
        made = LocalScorer(lm, token_budget=settings.token_budget)
        made.shares &= shares
        return made

    return read_here, lm.describe()


def show(result: dict[str, Any]) -> None:
    """The tables."""
    say(result["model"])
    for n, one in result["by_n"].items():
        console.print(_table(f"One evaluation of U, {n} items of {result['dataset']}", one))
        if one["sampled"]:
            say(f"fixed orders: {one['sample']} of {n} contexts were read, and multiplied up")
        say(
            "recursive order against the two fixed ones: "
            f"{one['ratio_reads_fixed']:.1f} and {one['ratio_reads_cached']:.1f} times fewer "
            "reads, "
            f"{one['ratio_seconds_fixed']:.1f} and {one['ratio_seconds_cached']:.1f} times faster; "
            "log-probabilities differ from prompts read whole by at most "
            f"{one['max_difference']:.1g}"
        )
        if "search" not in one:
            say(f"no search of {n} items was run (--search {n} runs one)")
            continue
        found = one["search"]
        console.print(_table(f"A search, {n} items", found))
        say(
            f"{found['evaluations_per_label']:.1f} evaluations and {found['draws_per_label']:.1f} "
            f"draws per label; {found['accuracy']:.0%} of the labels are right; tokens and seconds "
            "of fixed orders are extrapolated from one evaluation"
        )


def _table(title: str, numbers: dict[str, Any]) -> Table:
    table = Table(title=title)
    for column in ("", "context reads", "tokens read", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for way, label in WAYS.items():
        table.add_row(
            label,
            f"{numbers[f'reads_{way}']:,}",
            f"{numbers[f'tokens_{way}']:,.0f}",
            f"{numbers[f'seconds_{way}']:,.1f}",
        )
    return table


def main(settings: Icm) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    if settings.json is not None:
        settings.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        say(f"numbers: {settings.json}")
