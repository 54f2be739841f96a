"""What a sweep leaves: the table of means, rows, item scores, the record and the report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict

from jelicit.commands.said import say
from jelicit.commands.sweep_plan import SweepPlan
from jelicit.method_names import own_titles
from jelicit.report import write_report
from jelicit.results import ItemScores, ItemScoreStore, Record, Results, summarise
from jelicit.results.identity import plain
from jelicit.studies.grid import GridResult
from jelicit.studies.study import machine
from jelicit.version import __version__


def show(result: GridResult, *, others: bool) -> None:
    """Prints mean AUROC over seeds, a line for everything that was set.

    Args:
        result: What was found.
        others: Whether other labels were measured, too.
    """
    target = ["target"] if others else []
    key = ["layer", "class_share", *result.grid.settings, "method", "orientation", *target]
    rows = result.rows.assign(class_share=result.rows.get("class_share"))
    means = summarise(rows, by=key, value="auroc").dropna(axis="columns", how="all")
    of = means.pop("of")
    if (of > means["n"]).any():  # a fit that failed, or a label of one class, has no AUROC
        means["n"] = [f"{n} of {all_}" for n, all_ in zip(means["n"], of, strict=True)]
    say(means.round(3).to_string(index=False))


def write(plan: SweepPlan, result: GridResult, *, seconds: float) -> None:
    """Writes everything but probes, and says where.

    Args:
        plan: What was swept.
        result: What was found.
        seconds: How long it took.
    """
    out, test, target = plan.options.out, plan.test, plan.target
    about = {
        "dataset": test.items[0].dataset or "test",
        "feature": "none",
        "asked": "truth" if target == "label" else target,
        "model": test.spec.model,
        "n_test": len(test.items),
    }
    rows = [{**about, **row} for row in result.rows.to_dict("records")]
    Results(out / "rows").write(plan.run, rows, plan.identity)
    scores = ItemScores.of(test.items, result.scores, target=target)
    ItemScoreStore(out / "items").write(plan.run, scores)
    _record(plan, result, seconds).write(out)
    say(f"rows: {out / 'rows'} ({len(rows)} of this command)")
    say(f"report: {write_report(out)}")


def _record(plan: SweepPlan, result: GridResult, seconds: float) -> Record:
    model = plan.test.spec.model
    chosen = {
        "target": plan.target,
        "methods": list(map(str, plan.grid.methods)),
        "layers": plan.grid.layers,
    }
    return Record(
        experiment="sweep",
        title=f"Probes of {model}",
        lead="Every probe at every layer, seed and class share of one sweep.",
        command=shlex.join(["jelicit", *sys.argv[1:]]),
        seconds=seconds,
        machine=machine(),
        versions={"jelicit": __version__},
        settings=plain({**asdict(plan.options), **chosen}),
        runs=(plan.run,),
        doubts=(*plan.doubts, *result.doubts),
        titles=own_titles(result.rows["method"]),
    )
