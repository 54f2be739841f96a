"""Operations and bytes of a whole sweep, counted from the code, and the least seconds they take.

The counts are of products with the hidden states and of decompositions; everything else of a fit is
a few per cent beside them. A test holds them against XLA's own count of the lowered programs. No
time is measured here: on a machine whose peaks are known, a program takes at least as long as its
operations at the peak rate, and at least as long as its bytes at the peak bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jelicit.data.subsets import class_share_rows
from jelicit.probes.config import SweepConfig
from jelicit.probes.gram import pays
from jelicit.probes.lanczos import WIDTH as BLOCK
from jelicit.probes.lanczos import space_sizes
from jelicit.probes.sweep import SweepData
from jelicit.probes.sweep.family import Family, distinct_runs, families
from jelicit.probes.sweep.prepare import filled_up
from jelicit.results.markdown import markdown_table

SHARES = (0.0, 0.01, *(round(0.1 * k, 1) for k in range(1, 10)), 0.99, 1.0)
SEEDS = 3
TRAINED, POOL, EASY, WIDTH = 2000, 4000, 2000, 4096
"""Rows that a run trains on, of so many; easy rows; width: paper A's sweep on Llama-3.1-8B."""

VECTORS_OF_WIDTH = 13
"""Vectors [d] that a training step of a run reads or writes: w, its two moments and its gradient in
and out, w / scale and the gradient of either sign, the gradient's norm."""
VECTORS_OF_ROWS = 9
"""Vectors [rows] of it: logits of both signs out and in, their slopes out and in, row weights."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Peaks of a machine, as its maker or a measurement has them.

    Attributes:
        name: What the table calls it.
        single: Operations a second in float32, all digits (`precision="float32"`).
        double: The same in float64; None = the machine decomposes no float64.
        bandwidth: Bytes a second, between memory and processor.
    """

    name: str
    single: float
    double: float | None
    bandwidth: float


MACHINES = (
    Machine(name="H200", single=67e12, double=34e12, bandwidth=4.8e12),
    Machine(name="A100", single=19.5e12, double=9.7e12, bandwidth=2.039e12),
    # All digits of float32 take six passes of bfloat16, whose peak is 459e12.
    Machine(name="TPU v5p", single=459e12 / 6, double=None, bandwidth=2.765e12),
    Machine(name="2 CPU cores", single=182e9, double=91e9, bandwidth=33e9),
)
"""NVIDIA's data sheets of H200 SXM and A100 80GB SXM, without tensor cores (float32 with all digits
does not use them); Google Cloud's page on TPU v5p; of the CPU this project's bench: a large matrix
product, half of it for float64, and the bytes of one fit."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a sweep: n hard and e easy rows of width d; a run may hold copies of m of them."""

    n: int
    e: int
    d: int
    m: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a program.

    Attributes:
        operations: Of one turn of it: a product [a, b] [b, c] has 2 a b c.
        bytes: That one turn reads and writes at least.
        turns: How often it is made.
        written: How often it stands in the program; XLA counts the body of a loop once.
        seen: Whether XLA counts its operations; those of a decomposition it does not.
    """

    operations: float
    bytes: float
    turns: int = 1
    written: int = 1
    seen: bool = True


def passes(rows: int, d: int, runs: int, *, turns: int, written: int = 1) -> Part:
    """Steps of training on rows of two signs: logits forward, gradients backward.

    8 rows d operations a run and step: two signs, two products, two operations per entry. The
    hidden states are read twice for all runs together (16 rows d bytes), each run has vectors of
    its own.
    """
    own = VECTORS_OF_WIDTH * d + VECTORS_OF_ROWS * rows
    return Part(
        operations=8 * rows * d * runs,
        bytes=16 * rows * d + 4 * own * runs,
        turns=turns,
        written=written,
    )


def scores(rows: int, d: int, probes: int) -> Part:
    """Scores of probes on rows of two signs: 4 rows d operations each, the rows read once."""
    return Part(
        operations=4 * rows * d * probes,
        bytes=4 * (2 * rows * d + 2 * d * probes + rows * probes),
    )


def easy_scores(rows: int, d: int, members: int, *, size: int = 4) -> Part:
    """Scores of members on the easy set: the difference of the signs is all that counts there."""
    return Part(operations=2 * rows * d * members, bytes=size * (rows * d + (rows + d) * members))


def components(sizes: Sizes, runs: int, *, count: int, steps: int) -> list[Part]:
    """The search for principal components in float64, of runs that hold copies of their rows.

    The products of a run's rows [m, d], in blocks below the diagonal (or those of all n rows once,
    where that is less); a block Lanczos space of it, w columns at a time: K w, and the basis taken
    off, at least twice; at each size of the space an eigendecomposition, and the best vectors
    rotated; then those of width d. The last size may be the whole matrix.
    """
    m, d = sizes.m, sizes.d
    q, blocks = min(m, d), 4
    triangle = (blocks + 1) / (2 * blocks)
    once = pays(sizes.n, d, m, runs)
    if once:
        products = Part(
            operations=3 * triangle * 2 * sizes.n**2 * d,
            bytes=8 * 3 * (sizes.n * d + sizes.n**2),
        )
    else:
        products = Part(
            operations=triangle * 2 * q**2 * max(m, d) * runs, bytes=8 * (m * d + q**2) * runs
        )
    parts = [products]
    tried = space_sizes(q, count, steps)
    for small, large in pairwise([0, *(size for size in tried if size < q)]):
        parts += [
            Part(
                operations=(2 * q**2 + 8 * q * large) * BLOCK * runs,
                bytes=8 * (q**2 + 4 * q * large) * runs,
                turns=(large - small) // BLOCK,
            ),
            Part(operations=2 * q * large * count * runs, bytes=8 * q * (large + count) * runs),
            _decomposition(large, runs),
        ]
    if tried[-1] == q:
        error = Part(operations=2 * q**2 * count * runs, bytes=8 * q * (q + count) * runs)
        parts += [error, _decomposition(q, runs)]
    wide = Part(operations=2 * m * d * count * runs, bytes=8 * (m * d + d * count) * runs)
    # Means, the rows less theirs (twice), and the variance.
    moments = Part(operations=MOMENTS * m * d * runs, bytes=8 * 4 * m * d * runs)
    return [*parts, wide, moments]


MOMENTS = 22
"""Operations per entry of the differences: products with weights, sums and scales."""


def _decomposition(size: int, runs: int) -> Part:
    """All eigenpairs of a symmetric matrix."""
    return Part(operations=9 * size**3 * runs, bytes=8 * 2 * size**2 * runs, seen=False)


def parts_of(family: Family, sizes: Sizes, runs: int, config: SweepConfig) -> list[Part]:
    """What the program of a family does for so many runs, with steps and restarts at their caps.

    A fit that stops early does less.

    Raises:
        ValueError: A family that nobody has counted.
    """
    n, e, d, members = sizes.n, sizes.e, sizes.d, config.ensemble_size
    label_steps = config.bce_steps + 1  # the last one judges the parameters before it
    match family.names[0]:
        case "random":
            return []
        case "ccs":
            return [passes(n, d, runs, turns=config.ccs_steps), scores(n, d, runs)]
        case "ue_e2h":
            return [passes(n + e, d, runs, turns=config.ccs_steps), scores(n + e, d, runs)]
        case "supervised":
            return [passes(n, d, runs, turns=label_steps)]
        case "e2h":
            return [passes(e, d, runs, turns=label_steps)]
        case "random_ensemble_consensus":
            return [scores(n, d, members * runs)]
        case "random_ensemble_e2h":
            return [easy_scores(e, d, members * runs)]
        case "pca":
            found = components(sizes, runs, count=members, steps=config.pca_steps)
            if "pca_ensemble_e2h" in family.names:
                found.append(easy_scores(e, d, members * runs, size=8))
            return found
    raise ValueError(f"the operations of {family.names} are not counted")


def seconds(parts: Iterable[Part], machine: Machine, *, double: bool) -> float | None:
    """The least time of the parts on a machine; None where it cannot make them."""
    rate = machine.double if double else machine.single
    if rate is None:
        return None
    return sum(
        part.turns * max(part.operations / rate, part.bytes / machine.bandwidth) for part in parts
    )


def paper_sweep() -> SweepData:
    """The runs of paper A's imbalance sweep, without hidden states."""
    labels = np.random.default_rng(0).permutation(POOL) < POOL // 2
    cells = [(share, seed) for share in SHARES for seed in range(SEEDS)]
    subsets = np.zeros((len(cells), POOL), bool)
    for row, (share, seed) in enumerate(cells):
        subsets[row, class_share_rows(labels, share=share, seed=seed, size=TRAINED)] = True
    seeds = np.array([seed for _, seed in cells])
    return SweepData(hard={}, layers=(0,), subsets=subsets, seeds=seeds)


def predictions() -> str:
    """Operations, bytes and least seconds of paper A's sweep of one layer, family by family."""
    data, config = paper_sweep(), SweepConfig()
    sizes = Sizes(n=POOL, e=EASY, d=WIDTH, m=filled_up(TRAINED))
    rows, times = [], []
    for family in families(config):
        runs = len(distinct_runs(family, data, family.rates(config, len(data.seeds)))[0])
        parts = parts_of(family, sizes, runs, config)
        if not parts:
            continue
        times.append([seconds(parts, machine, double=family.double) for machine in MACHINES])
        work = [sum(part.turns * getattr(part, of) for part in parts) for of in _WORK]
        rows.append([_named(family), str(runs), *(_short(each / 1e12) for each in work)])
        rows[-1] += [_ON_HOST if each is None else _short(each) for each in times[-1]]
    rows.append(["All", "", "", "", *map(_total, zip(*times, strict=True))])
    head = ["", "Runs", "TFLOP", "TB", *(f"{machine.name}, s" for machine in MACHINES)]
    return markdown_table(head, rows)


_WORK = ("operations", "bytes")
_ON_HOST = "on the host"


def _total(times: tuple[float | None, ...]) -> str:
    """All families' seconds on one machine; of those that go to its host nothing is known."""
    known = _short(sum(each for each in times if each is not None))
    return f"{known}, and {_ON_HOST}" if None in times else known


def _named(family: Family) -> str:
    titles = ", ".join(method.title for method in family.methods)
    return f"{titles} (float64)" if family.double else titles


def _short(value: float) -> str:
    """Two digits, or whole numbers; never an exponent."""
    if value >= 10:
        return f"{value:.0f}"
    return np.format_float_positional(value, 2, fractional=False, trim="-")


TABLES = {"roofline": predictions}
