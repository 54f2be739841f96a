"""What `jelicit sweep` does: plan, fit and measure, show, write."""

from __future__ import annotations

import time
from typing import Any

from jelicit.commands.said import say, warn
from jelicit.commands.stores import StoreRows
from jelicit.commands.sweep import Sweep
from jelicit.commands.sweep_plan import SweepPlan, plan_of
from jelicit.commands.sweep_probes import check_probes, save_probes
from jelicit.commands.sweep_problems import methods_of, problems
from jelicit.commands.sweep_results import show, write
from jelicit.probes.methods import METHODS
from jelicit.progress import progress
from jelicit.studies.checks import refuse
from jelicit.studies.grid import GridResult, run_grid
from jelicit.studies.run_folder import check_folder


def run(options: Sweep) -> None:
    """Sweep, print the means, and write everything.

    Raises:
        ValueError: Options or stores that cannot work, before any fit.
    """
    begin = time.perf_counter()
    refuse(problems(options))
    check_folder("sweep", options.out)
    methods = methods_of(options)
    if left_out := [name for name in options.methods or METHODS if name not in methods]:
        say(f"without --easy there is no {', '.join(left_out)}")
    plan = plan_of(options)
    known = check_probes(plan) if options.save_probes else frozenset()
    result = _fitted(plan)
    for line in result.doubts:
        warn(line)
    show(result, others=bool(options.others))
    write(plan, result, seconds=time.perf_counter() - begin)
    if options.save_probes:
        save_probes(plan, result, known=known)


def _fitted(plan: SweepPlan) -> GridResult:
    train, test, easy = plan.train, plan.test, plan.easy
    with progress("fits") as report:
        return run_grid(
            plan.grid,
            _states(train),
            train.labels(plan.target),
            test=_states(test),
            test_labels=test.labels(plan.target),
            test_groups=[item.group for item in test.items],
            test_log_probs=test.log_probs,
            easy=None if easy is None else _states(easy),
            easy_labels=None if easy is None else easy.labels("label"),
            others=plan.others,
            boot=plan.options.boot,
            folder=plan.options.out / "fits",
            report=report,
        )


def _states(rows: StoreRows) -> Any:
    """Where the hidden states of rows are read, layer by layer."""
    return rows if rows.left_out is not None else rows.store
