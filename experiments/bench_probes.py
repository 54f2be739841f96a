"""How fast the pooled sweep is, against the loop that one would write instead.

Everything is timed in one process on the same data, the contestants taking turns, and the least of
several repeats counts: other work on the machine only ever adds time.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import console, say, write_numbers
from rich.table import Table

from jelicit import figures
from jelicit.data.subsets import class_share_rows
from jelicit.metrics import auroc
from jelicit.pairs import Pairs
from jelicit.probes.ccs import fit_ccs
from jelicit.probes.methods import METHODS, SweepConfig
from jelicit.probes.normalise import fit_normaliser
from jelicit.probes.sweep import SweepData, SweepResult, sweep
from jelicit.probes.sweep.family import families, side_by_side
from jelicit.probes.training import CCS_DESCENT, Descent
from jelicit.studies.checks import refuse
from jelicit.studies.study import machine

SHARES = (0.0, 0.01, *(round(0.1 * k, 1) for k in range(1, 10)), 0.99, 1.0)
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Time probe fits: a careful torch loop, one JAX fit, the pooled sweep, a whole paper's sweep.

    Attributes:
        n: Contrast pairs that a run trains on.
        d: Width of the hidden states (4096 is Llama-3.1-8B's).
        runs: Numbers of pooled runs.
        steps: Steps that are timed.
        repeats: Times that each contestant is timed; the least counts.
        growth: Also time other numbers of items and other widths.
        whole: Also time paper A's whole imbalance sweep: ten methods, 13 class shares, 3 seeds.
        json: Where to write the numbers; a figure of the costs is drawn beside them.
    """

    n: int = 2000
    d: int = 4096
    runs: tuple[int, ...] = (1, 8, 39, 128, 512)
    steps: int = 60
    repeats: int = 3
    growth: bool = True
    whole: bool = True
    json: Path | None = None


def check(settings: Probes) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    least = {"--n": (settings.n, 20), "--d": (settings.d, 2), "--steps": (settings.steps, 1)}
    least |= {"--repeats": (settings.repeats, 1), "--runs": (min(settings.runs, default=0), 1)}
    low = [f"{name} {value}: at least {low}" for name, (value, low) in least.items() if value < low]
    refuse(low)


# --- data ----------------------------------------------------------------------------------------


def pairs_like_a_models(n: int, d: int, seed: int) -> tuple[Pairs, np.ndarray]:
    """Pairs with a few large directions, a verdict mean and a truth direction, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n) < n // 2
    world = np.random.default_rng(99)
    truth, verdict, heavy = (
        world.normal(size=d),
        5 * world.normal(size=d),
        world.normal(size=(8, d)),
    )
    content = rng.normal(size=(n, 8)) @ heavy + rng.normal(size=(n, d))
    signal = np.where(labels, 0.3, -0.3)[:, None] * truth
    sides = [content + s * (verdict + signal) + 0.3 * rng.normal(size=(n, d)) for s in (1, -1)]
    pos, neg = (side.astype(np.float32) for side in sides)
    return Pairs(pos, neg), labels.astype(np.float64)


# --- contestants ---------------------------------------------------------------------------------


def least_seconds(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The least time of each contestant; they take turns. The first turn warms up, uncounted."""
    found = dict.fromkeys(contestants, float("inf"))
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                found[name] = min(found[name], time.perf_counter() - begin)
    return found


def torch_loop(pairs: Pairs, steps: int, threads: int | None) -> Callable[[], Any]:
    """CCS of one run as one would write it with care: full batch, no copy of X per step or run.

    The normaliser is folded into the logits, so that runs of other subsets share X here, too.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    normaliser = fit_normaliser(pairs, fitted_on="bench")
    X = [torch.from_numpy(np.array(side)).to(device) for side in pairs]
    means = [
        torch.from_numpy(np.array(mean)).to(device)
        for mean in (normaliser.mean_pos, normaliser.mean_neg)
    ]
    scales = [float(normaliser.scale_pos), float(normaliser.scale_neg)]

    def run() -> float:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(0)
        w = torch.randn(pairs.pos.shape[1], device=device)
        w = (w / w.norm()).requires_grad_()
        b = torch.zeros((), device=device, requires_grad=True)
        loss = torch.zeros(())
        optimiser = torch.optim.AdamW([w, b], lr=0.01, weight_decay=0.01)
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            p, q = (
                torch.sigmoid((x @ w - m @ w) / s + b)
                for x, m, s in zip(X, means, scales, strict=True)
            )
            loss = ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([w, b], 1.0)
            optimiser.step()
        return float(loss.detach())

    return run


def single_fit(pairs: Pairs, steps: int) -> Callable[[], Any]:
    """One CCS fit in JAX."""
    normaliser = fit_normaliser(pairs, fitted_on="bench")
    X = jax.tree.map(jnp.asarray, pairs)
    descent = Descent(learning_rate=CCS_DESCENT.learning_rate, steps=steps)
    fit = jax.jit(lambda key, X, normaliser: fit_ccs(key, X, normaliser, descent=descent)[0])
    return partial(fit, jax.random.key(0), X, normaliser)


def pooled_fits(pairs: Pairs, steps: int, runs: int) -> Callable[[], Any]:
    """CCS of many runs in one sweep, each with its own subset of the rows."""
    n = len(pairs.pos)
    rng = np.random.default_rng(0)
    subsets = rng.random((runs, n)) < 0.9
    subsets[:, :2] = True
    data = SweepData(
        hard={1: jax.tree.map(jnp.asarray, pairs)},
        layers=(1,),
        subsets=subsets,
        seeds=np.arange(runs),
    )
    config = SweepConfig(methods=("ccs",), ccs_steps=steps)
    return lambda: sweep(data, config).probes


def paper_sweep(n: int, d: int) -> tuple[SweepData, np.ndarray]:
    """Paper A's imbalance sweep: 13 class shares and 3 seeds; and the pool's labels."""
    pool, labels = pairs_like_a_models(2 * n, d, seed=0)
    easy, easy_labels = pairs_like_a_models(n, d, seed=1)
    cells = [(share, seed) for share in SHARES for seed in range(SEEDS)]
    subsets = np.zeros((len(cells), 2 * n), bool)
    for row, (share, seed) in enumerate(cells):
        subsets[row, class_share_rows(labels, share=share, seed=seed)] = True
    data = SweepData(
        hard={1: jax.tree.map(jnp.asarray, pool)},
        layers=(1,),
        subsets=subsets,
        seeds=np.array([seed for _, seed in cells]),
        hard_targets=labels,
        easy={1: jax.tree.map(jnp.asarray, easy)},
        easy_labels=easy_labels,
    )
    return data, labels


def peak_gflops(repeats: int) -> float:
    """What a large float32 matmul reaches here, at the precision that the fits ask for."""
    size = 3072
    X = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product = jax.jit(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    seconds = least_seconds({"matmul": lambda: product(X, X)}, repeats)["matmul"]
    return 2 * size**3 / seconds / 1e9


# --- the whole -----------------------------------------------------------------------------------


def thread_choices() -> Sequence[int | None]:
    """Thread counts that the torch loop may choose from."""
    import torch

    if torch.cuda.is_available():
        return (None,)
    cores = len(os.sched_getaffinity(0))
    return sorted({1, max(1, cores // 2), cores})


def measure(settings: Probes) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    pairs, _ = pairs_like_a_models(settings.n, settings.d, seed=0)
    steps = settings.steps
    torch_steps = max(1, steps // 6)  # a step of it costs many pooled ones
    contestants: dict[str, Callable[[], Any]] = {
        f"torch {threads}": torch_loop(pairs, torch_steps, threads) for threads in thread_choices()
    }
    contestants["single"] = single_fit(pairs, steps)
    seconds = least_seconds(contestants, settings.repeats)
    torch_ms = 1e3 * min(v for k, v in seconds.items() if k.startswith("torch")) / torch_steps
    peak = peak_gflops(settings.repeats)
    pooled_ms, fraction, compile_s = {}, {}, {}
    for runs in settings.runs:
        run = pooled_fits(pairs, steps, runs)
        begin = time.perf_counter()
        jax.block_until_ready(run())
        first = time.perf_counter() - begin
        # With everything that a sweep does once (checks, normalisers, results to the host).
        taken = least_seconds({"pooled": run}, settings.repeats)["pooled"]
        compile_s[runs] = first - taken
        pooled_ms[runs] = 1e3 * taken / (steps * runs)
        operations = 8 * settings.n * settings.d
        fraction[runs] = operations / (pooled_ms[runs] * 1e-3) / 1e9 / peak
        say(f"{runs} runs: {pooled_ms[runs]:.3f} ms per probe-step")
    result: dict[str, Any] = {
        "n": settings.n,
        "d": settings.d,
        "torch_ms": torch_ms,
        "single_ms": 1e3 * seconds["single"] / steps,
        "pooled_ms": pooled_ms,
        "ratio": {runs: torch_ms / ms for runs, ms in pooled_ms.items()},
        "peak_gflops": peak,
        "peak_fraction": fraction,
        "compile_s": compile_s,
        "device": machine(),
    }
    if settings.growth:
        result |= {"by_n": {}, "by_d": {}}
        for share in (4, 2, 1):
            n, d = settings.n // share, settings.d // share
            result["by_n"][n] = _growth_ms(settings, n, settings.d)
            result["by_d"][d] = _growth_ms(settings, settings.n, d)
    if settings.whole:
        result |= _whole(settings, torch_ms)
    return result | {"peak_memory_gb": peak_memory_gb()}


def peak_memory_gb() -> float:
    """Most memory in use so far: of the accelerator, or else of this process, torch included."""
    stats = jax.devices()[0].memory_stats()
    if stats is not None:
        return stats["peak_bytes_in_use"] / 1e9
    kibibytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibytes / 1e9


def _growth_ms(settings: Probes, n: int, d: int) -> float:
    """Milliseconds per probe-step of the whole study's number of runs, on data of another size."""
    runs = len(SHARES) * SEEDS
    run = pooled_fits(pairs_like_a_models(n, d, seed=0)[0], settings.steps, runs)
    taken = least_seconds({"pooled": run}, settings.repeats)["pooled"]
    return 1e3 * taken / (settings.steps * runs)


def _whole(settings: Probes, torch_ms: float) -> dict[str, Any]:
    data, labels = paper_sweep(settings.n, settings.d)
    say("paper A's whole sweep, twice (minutes on a CPU) ...")
    config = SweepConfig(methods=METHODS)
    _timed_sweep(data, config)  # compiles
    result, marks = _timed_sweep(data, config)
    parts = _parts(data, config, marks)
    for name, part in parts.items():
        say(f"  {name}: {part:.1f} s")
    ends = _ends(result, data, labels)
    measured = {"sweep_s": marks[-1] - marks[0], "sweep_parts_s": parts, "ends": ends}
    return measured | _against_the_loop(measured, len(data.seeds), torch_ms)


def _parts(data: SweepData, config: SweepConfig, marks: Sequence[float]) -> dict[str, float]:
    """Seconds before the first fit, and of each program by its methods."""
    (n, d), easy = data.hard[1].pos.shape, data.easy[1].pos  # type: ignore[index]
    # A unit is reported when its group is fitted; the others of the group follow at once.
    found, unit = {"before": marks[1] - marks[0]}, 1
    for group in side_by_side(families(config), data, config, (n, d, len(easy))):
        name = " + ".join(name for family in group for name in family.names)
        found[name] = marks[unit + len(group)] - marks[unit]
        unit += len(group)
    return found


def _against_the_loop(measured: Mapping[str, Any], runs: int, torch_ms: float) -> dict[str, Any]:
    """The torch loop's time for the same sweep, and how many times faster ours is.

    Once with all ten methods on our side, once (`trained_ratio`) with those alone that the loop is
    counted for.
    """
    # The loop would take as many steps as the fits here did: CCS, UE+E2H (which also reads the easy
    # rows, half as many more) and the supervised probe for every run, E2H for every seed.
    passes = {method: end["passes"] for method, end in measured["ends"].items()}
    steps = runs * (passes["ccs"] + 1.5 * passes["ue_e2h"] + passes["supervised"])
    steps += SEEDS * passes["e2h"]
    loop = torch_ms / 1e3 * steps
    parts = measured["sweep_parts_s"]
    trained = sum(part for names, part in parts.items() if set(names.split(" + ")) <= set(passes))
    return {
        "torch_sweep_s": loop,
        "torch_sweep_is": "extrapolated from its time per step; no PCA, no ensembles",
        "sweep_ratio": loop / measured["sweep_s"],
        "trained_ratio": loop / trained,
    }


def _timed_sweep(data: SweepData, config: SweepConfig) -> tuple[SweepResult, list[float]]:
    """The sweep, and the clock at its start, after every part that it reports, and at its end."""
    marks = [time.perf_counter()]
    result = sweep(data, config, report=lambda *_: marks.append(time.perf_counter()))
    jax.block_until_ready(result.probes)
    return result, [*marks, time.perf_counter()]


def _ends(result: SweepResult, data: SweepData, labels: np.ndarray) -> dict[str, Any]:
    """Where the fits end: mean loss, passes over the hidden states, and AUROC."""
    assert not callable(data.hard)
    scores = result.score(1, data.hard[1])
    found = {}
    for method in ("ccs", "supervised", "ue_e2h", "e2h"):
        area = np.asarray(auroc(scores[method], labels))
        if method == "ccs":
            area = np.maximum(area, 1 - area)
        info = result.info[method]
        found[method] = {
            "loss": float(np.mean(info.loss)),
            "passes": float(np.mean(info.passes)),
            "auroc": float(np.mean(area)),
            "auroc_by_share": area.reshape(len(SHARES), SEEDS).mean(axis=1).tolist(),
        }
    return found


def show(result: dict[str, Any]) -> None:
    """The table."""
    table = Table(title=f"{result['n']} pairs of width {result['d']} on {result['device']}")
    for column in ("what", "ms per probe-step", "times the torch loop", "of the matmul peak"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("torch loop, one run", f"{result['torch_ms']:.2f}", "1.0", "")
    single = result["single_ms"]
    table.add_row("one JAX fit", f"{single:.2f}", f"{result['torch_ms'] / single:.1f}", "")
    for runs, ms in result["pooled_ms"].items():
        share = f"{result['peak_fraction'][runs]:.0%}"
        table.add_row(f"pooled, {runs} runs", f"{ms:.3f}", f"{result['ratio'][runs]:.1f}", share)
    console.print(table)
    say(f"peak of a large float32 matmul: {result['peak_gflops']:.0f} GFLOP/s")
    say(f"peak memory: {result['peak_memory_gb']:.1f} GB")
    if "ends" in result:
        _show_whole(result)


def _show_whole(result: dict[str, Any]) -> None:
    say(
        f"paper A's imbalance sweep: {result['sweep_s']:.1f} s, {result['sweep_ratio']:.1f} times "
        f"as fast as the torch loop's {result['torch_sweep_s']:.0f} s "
        f"({result['torch_sweep_is']}); {result['trained_ratio']:.1f} times for what that loop does"
    )
    table = Table(title="where the fits end (means over runs)")
    for column in ("method", "loss", "passes", "AUROC"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, end in result["ends"].items():
        numbers = (f"{end['loss']:.4f}", f"{end['passes']:.0f}", f"{end['auroc']:.3f}")
        table.add_row(method, *numbers)
    console.print(table)


def main(settings: Probes) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    write_numbers(result, settings.json)
    if settings.json is not None:
        costs = {"runs": result["pooled_ms"]}
        if settings.growth:
            costs |= {"contrast pairs (39 runs)": result["by_n"], "width (39 runs)": result["by_d"]}
        figure = figures.cost_figure(costs, baseline_ms=result["torch_ms"])
        for path in figures.save(figure, settings.json.with_suffix("")):
            say(f"figure: {path}")
