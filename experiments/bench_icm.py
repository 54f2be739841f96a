"""What ICM costs: one evaluation of U, and whole searches, in three ways of reading.

One evaluation judges each of N items after the other N - 1. In a fixed order without a cache
(as the released code asks) every context is read whole; with a cache, what contexts begin with is
read once; the recursive order lets them begin with nearly everything. All three are read by the
same scorer on the same items, once each: in this process, or on a vLLM server, whose cache a salt
keeps apart or out. Another server's cache (llama.cpp's) cannot be turned off, so what is read
without one is not timed there. Ways that would take long are sampled, and the output says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench_models
import numpy as np
import tyro
from common import console, say, write_numbers
from rich.table import Table
from servers import ServerSettings

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
from jelicit.studies.checks import given, refuse

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
        scorer: local, or the URL of a server; it has its own model, budget and threads. A salt
            keeps vLLM's cache apart; another's cannot be turned off.
        at_server: Which model of the server, and how it is asked.
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
    at_server: tyro.conf.OmitArgPrefixes[ServerSettings] = field(default_factory=ServerSettings)
    json: Path | None = None


def check(settings: Icm) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    wrong = [f"--n {n}: at least 2" for n in settings.n if n < 2]
    wrong += [f"--sample {settings.sample}: at least 2"] if settings.sample < 2 else []
    wrong += [] if settings.n else ["--n: at least one number"]
    refuse(wrong + settings.at_server.problems() + _idle(settings))


def _idle(settings: Icm) -> list[str]:
    """Problems of options that would do nothing, or not what they say."""
    if settings.scorer == "local":
        options = given(settings.at_server, vars(settings.at_server))
        return [f"{option} does nothing without --scorer URL" for option in options]
    options = given(settings, ("model", "token_budget", "threads"))
    problems = [f"{option} does nothing with --scorer {settings.scorer}" for option in options]
    if settings.at_server.max_tokens_total is not None:
        problems.append(
            "--max-tokens-total counts answers that are kept, and the bench keeps none: leave it "
            "out, and read less (--n, --sample, --search 0)"
        )
    return problems


@dataclass(frozen=True)
class _Bench:
    """A model and the items it reads.

    Attributes:
        scorer: Makes a scorer that has read nothing yet; without `shares` it reads every prompt
            whole.
        items: What is judged.
        format: Of their prompts.
        settings: The command's.
        apart: What one scorer has read no other finds in a cache, and a scorer may do without one.
    """

    scorer: Callable[..., LocalScorer | ServerScorer]
    items: tuple[Item, ...]
    format: PromptFormat
    settings: Icm
    apart: bool = True

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
    one_by_one = list(fixed(order))
    # Where a cache cannot be kept apart, the other order begins with other items.
    tree = list(leave_one_out(order if bench.apart else order[::-1]))
    picked = _sample(n, bench.settings.sample)
    some, whole = [one_by_one[place] for place in picked], len(picked) == n
    sampled = ["fixed", "cached"] if bench.apart else ["cached"]
    found: dict[str, Any] = {
        "reads_fixed": reads_fixed(n),
        "reads_cached": reads_cached(n),
        "reads_recursive": reads_recursive(n),
        "sampled": [] if whole else sampled,
        "sample": len(picked),
    }
    if bench.apart:
        seconds, tokens, _ = bench.read(some, shares=False)
        factor = n / len(picked)
        found |= {"seconds_fixed": seconds * factor, "tokens_fixed": tokens * factor}
    seconds, tokens = _cached(bench, some, n)
    found |= {"seconds_cached": seconds, "tokens_cached": tokens}
    seconds, tokens, log_probs = bench.read(tree, shares=True)
    found |= {"seconds_recursive": seconds, "tokens_recursive": tokens}
    if bench.apart:
        few = list(range(0, n, max(n // COMPARED, 1)))
        _, _, expected = bench.read([tree[place] for place in few], shares=False)
        found["max_difference"] = float(np.abs(log_probs[few] - expected).max())
    return found | _ratios(found)


def _cached(
    bench: _Bench, some: Sequence[tuple[tuple[int, ...], int]], n: int
) -> tuple[float, float]:
    """Seconds and tokens of n contexts in a fixed order with a cache, from some of them."""
    if len(some) == n:
        return bench.read(some, shares=True)[:2]
    # The longest beginning is read once, whatever the sample; its branches are multiplied up.
    first_seconds, first_tokens, _ = bench.read(some[:1], shares=True)
    if bench.apart:
        seconds, tokens, _ = bench.read(some, shares=True)
        seconds, tokens = seconds - first_seconds, tokens - first_tokens
    else:  # the cache has the first by now
        seconds, tokens, _ = bench.read(some[1:], shares=True)
    factor = (n - 1) / (len(some) - 1)
    return first_seconds + seconds * factor, first_tokens + tokens * factor


def _ratios(found: dict[str, Any]) -> dict[str, float]:
    """How much more the fixed orders take than the recursive one, of what was found."""
    return {
        f"ratio_{what}_{way}": found[f"{what}_{way}"] / found[f"{what}_recursive"]
        for what in ("reads", "tokens", "seconds")
        for way in ("fixed", "cached")
        if f"{what}_{way}" in found
    }


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
        "extrapolated": [],
    }
    for way, reads in (("fixed", reads_fixed), ("cached", reads_cached)):
        total = predictions + sum(s.judged * reads(s.labelled) for s in found.history)
        result[f"reads_{way}"] = total
        for name in (f"tokens_{way}", f"seconds_{way}"):
            if name in one:
                result[name] = one[name] / one[f"reads_{way}"] * total
                result["extrapolated"].append(name)
    return result


def measure(settings: Icm) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    dataset = load_dataset(settings.dataset, seed=0)
    items = dataset.train[: max(settings.n)]
    if len(items) < max(settings.n):
        raise ValueError(f"--n {max(settings.n)}: {settings.dataset} has {len(items)} train items")
    form = get_format(dataset.formats["label"])
    texts = ["".join((item.question, item.choice)) for item in items]
    bench, about = _bench(settings, items, form, texts)
    fit = examples_that_fit(bench.scorer(), items, form)
    if fit < len(items):
        raise ValueError(
            f"--n {len(items)}: {fit} items of {settings.dataset} fit the model's context; use "
            "fewer, or a set of shorter items"
        )
    result: dict[str, Any] = {
        "model": about,
        "dataset": settings.dataset,
        "cache_apart": bench.apart,
        "by_n": {},
    }
    for n in settings.n:
        say(f"one evaluation of U, {n} items")
        one = evaluation(bench, n)
        if n <= settings.search:
            say(f"a whole search, {n} items")
            one["search"] = whole_search(bench, n, one)
        result["by_n"][str(n)] = one
    return result


def _bench(
    settings: Icm, items: tuple[Item, ...], form: PromptFormat, texts: Sequence[str]
) -> tuple[_Bench, str]:
    """The bench of a model here or on a server, and the model in words."""
    if settings.scorer != "local":
        return _bench_there(settings, items, form)
    lm = bench_models.model(settings.model, list(texts), threads=settings.threads)

    def read_here(*, shares: bool = True) -> LocalScorer:
        made = LocalScorer(lm, token_budget=settings.token_budget)
        made.shares &= shares
        return made

    return _Bench(read_here, items, form, settings), lm.describe()


def _bench_there(settings: Icm, items: tuple[Item, ...], form: PromptFormat) -> tuple[_Bench, str]:
    """The bench of a model on a server, and the model in words."""
    options = settings.at_server.options()
    first = open_server(settings.scorer, **options).scorer()
    # Loaded and found out once.
    options |= {"tokenizer": first.tokenizer, "top_logprobs": first.server.top_logprobs}
    # Only vLLM names tokens by ids when it is asked to, and only vLLM knows a salt.
    apart = first.able.token_ids and not first.server.is_llama_cpp

    def read_there(*, shares: bool = True) -> ServerScorer:
        cache = ("own" if shares else "none") if apart else "shared"
        return open_server(settings.scorer, cache=cache, **options).scorer()

    about = f"{first.name} at {settings.scorer}"
    return _Bench(read_there, items, form, settings, apart=apart), about


def show(result: dict[str, Any]) -> None:
    """The tables."""
    say(result["model"])
    if not result["cache_apart"]:
        say(
            "this server's cache cannot be turned off or kept apart: the fixed order without one "
            "is not timed, and what earlier runs left there helps (restart it, or take another "
            "--seed)"
        )
    for n, one in result["by_n"].items():
        console.print(_table(f"One evaluation of U, {n} items of {result['dataset']}", one))
        if one["sampled"]:
            say(f"fixed orders: {one['sample']} of {n} contexts were read, and multiplied up")
        say(_compared(one))
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


def _compared(one: dict[str, Any]) -> str:
    """The recursive order beside the fixed ones, in a line."""
    reads = f"{one['ratio_reads_fixed']:.1f} and {one['ratio_reads_cached']:.1f} times fewer reads"
    if "ratio_seconds_fixed" not in one:
        return (
            f"recursive order against the two fixed ones: {reads}; against the cached one "
            f"{one['ratio_seconds_cached']:.1f} times faster"
        )
    return (
        f"recursive order against the two fixed ones: {reads}, "
        f"{one['ratio_seconds_fixed']:.1f} and {one['ratio_seconds_cached']:.1f} times faster; "
        "log-probabilities differ from prompts read whole by at most "
        f"{one['max_difference']:.1g}"
    )


def _table(title: str, numbers: dict[str, Any]) -> Table:
    table = Table(title=title)
    for column in ("", "context reads", "tokens read", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for way, label in WAYS.items():
        tokens, seconds = numbers.get(f"tokens_{way}"), numbers.get(f"seconds_{way}")
        table.add_row(
            label,
            f"{numbers[f'reads_{way}']:,}",
            "not read" if tokens is None else f"{tokens:,.0f}",
            "" if seconds is None else f"{seconds:,.1f}",
        )
    return table


def main(settings: Icm) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    write_numbers(result, settings.json)
