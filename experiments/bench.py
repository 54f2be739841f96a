"""Benchmarks: each time beside that of the plain way to the same numbers.

    python experiments/bench.py probes                        # 2,000 pairs of width 4,096
    python experiments/bench.py probes --n 500 --d 256 --runs 1 8 --json bench.json
    python experiments/bench.py extraction                    # 170 M random parameters
    python experiments/bench.py extraction --model 8b         # on a GPU
    python experiments/bench.py scoring
    python experiments/bench.py training                      # fine-tuning on verdicts
    python experiments/bench.py icm                           # ICM's reads, 16, 64 and 256 items

Contestants take turns on the same data, and the least of several repeats counts: other work on the
machine only ever adds time. Prints tables, and writes JSON where asked.
"""

from __future__ import annotations

import os

import bench_extraction
import bench_icm
import bench_probes
import bench_scoring
import bench_training
from bench_extraction import Extraction
from bench_icm import Icm
from bench_probes import Probes
from bench_scoring import Scoring
from bench_training import Training
from common import say, start


def main(settings: Probes | Extraction | Scoring | Training | Icm) -> None:
    say(f"load average: {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    match settings:
        case Probes():
            bench_probes.main(settings)
        case Extraction():
            bench_extraction.main(settings)
        case Scoring():
            bench_scoring.main(settings)
        case Training():
            bench_training.main(settings)
        case Icm():
            bench_icm.main(settings)


if __name__ == "__main__":
    start(main, Probes | Extraction | Scoring | Training | Icm, about=__doc__)  # type: ignore[arg-type]
