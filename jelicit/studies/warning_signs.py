"""Can a failure be seen without labels? Indicators of fits against what the labels say.

Takes rows of other runs, or runs the parts of the stress test, and asks over all cases how well
each label-free indicator of a fit (`jelicit.indicators`), and all of them together, tell methods
that failed (AUROC on the truth below 5/6) from those that did not:

    from extract import open_model
    from jelicit.studies import warning_signs

    result = warning_signs.run(open_model("pocket"))
    warning_signs.judged(result.rows)

Outcomes are known here, where labels are. What was learnt from them is of use where they are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jelicit import figures
from jelicit.results import Finding, run_id
from jelicit.studies import stress
from jelicit.studies.cells import number, with_interval
from jelicit.studies.checks import given
from jelicit.studies.model import Cases
from jelicit.studies.session import Session
from jelicit.studies.stress_parts import Part, plan_part
from jelicit.studies.study import Study
from jelicit.studies.warning_cases import LINE, Source, all_cases, read_sources
from jelicit.studies.warning_cases import STUDY as NAME
from jelicit.studies.warning_judge import COMBINED, EVERY, FOUND, held_out, judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY", "Settings", "judged", "run"]

ALGORITHM = 3
"""Of cases and warnings; raised whenever their numbers change."""

RELIABLE = 0.2
"""Most false alarms, at 90 % of failures found, of a warning that one can work with."""

LEAST = 10
"""Failures, and successes, that it takes to say something of an indicator."""

TOO_FEW = f"it takes {LEAST} failures and as many successes, of two sets"

WHOLE = ("Warning", "AUROC", "False alarms", "Cases")
"""Heads of the table of all cases."""

READ_OF_RUNS = ("runs", "boot", "sign", "out")
"""Options that count where rows are taken from finished runs."""


@dataclass(frozen=True, kw_only=True)
class Settings(stress.Settings):
    """Ask whether label-free indicators tell failures from successes.

    Attributes:
        runs: Finished runs of any studies whose rows are taken: their folders, folders of them, or
            Parquet files of rows. Without it, the parts of the stress test are run first.
    """

    dataset: tuple[str, ...] = (
        *("pocket/arithmetic", "pocket/larger_than"),
        *("pocket/facts", "pocket/comments"),
    )
    others: tuple[str, ...] = ("pocket/commands",)
    methods: tuple[str, ...] = (
        *("ccs", "pca", "random_ensemble_consensus", "pca_ensemble_consensus"),
        *("drc", "midpoint", "vinc", "kmeans", "leace_ccs"),
    )
    runs: tuple[Path, ...] = ()
    max_rows: int = 300
    boot: int = 200

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems()
        if self.runs:
            others = [each.name for each in fields(self) if each.name not in READ_OF_RUNS]
            idle = [name for name in others if name not in ("fit", "run_on")]
            problems += [f"{option} does nothing with --runs" for option in given(self, idle)]
        return problems


def plan(settings: Settings, session: Session) -> Sequence[Part | Source]:
    """Finished runs, or the parts of the stress test, with all text loaded and nothing extracted.

    Raises:
        ValueError: There are no such runs; what a challenge's study refuses.
    """
    if settings.runs:
        return read_sources(settings.runs)
    parts = stress.plan(settings, session)
    asked = "prompts" in settings.challenges and not isinstance(session.model, Cases)
    if asked and not any(part.challenge == "prompts" for part in parts):
        parts += _other_prompts(settings, session)
    return parts


def _other_prompts(settings: Settings, session: Session) -> list[Part]:
    """The challenge of other prompts, of those sets that two formats fit: here not all need to."""
    silent = Session(session.model, settings, session.folder, Console(quiet=True))
    fitting = tuple(
        name
        for name in settings.dataset
        if plan_part("prompts", replace(settings, dataset=(name,)), silent) is not None
    )
    if not fitting:
        return []
    session.say(f"prompts: of {', '.join(fitting)}, which two formats fit")
    part = plan_part("prompts", replace(settings, dataset=fitting), session)
    return [] if part is None else [part]


def measure(parts: Sequence[Part | Source], session: Session) -> None:
    """Carry out what is not there yet, and judge every case by what other sets teach."""
    settings, results = session.settings, session.folder.results
    sources = [_carried_out(part, session) for part in parts]
    made_of = hashlib.sha256("".join(map(_digest, sources)).encode()).hexdigest()
    chosen = {"experiment": NAME, "rows": made_of, "sign": settings.sign, "boot": settings.boot}
    run = run_id(chosen, made_of, {"warnings": ALGORITHM})
    session.folder.runs.append(run)
    if results.has(run):
        session.say(f"cases: reused (run {run}, same rows)")
        return
    cases = all_cases(sources, sign=settings.sign)
    cases[COMBINED] = held_out(cases)
    shown = cases.assign(target="truth", role="truth", seed=0, boot=settings.boot)
    results.write(run, shown.replace({np.nan: None}).to_dict("records"), chosen)


def _carried_out(part: Part | Source, session: Session) -> Source:
    if isinstance(part, Source):
        session.say(f"rows: {part.name} ({len(part.rows)})")
        return part
    session.say(f"challenge: {part.challenge}")
    part.carry_out()
    folder = part.session.folder
    session.folder.doubts += folder.doubts
    return Source.of_folder(folder.folder, folder.runs)


def _digest(source: Source) -> str:
    """What tells rows from any others."""
    columns = sorted(map(str, source.rows.columns))
    return hashlib.sha256(source.rows[columns].to_csv(index=False).encode()).hexdigest()


# --- what is shown -------------------------------------------------------------------------------


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """How well each indicator warns, with the intervals that the rows were asked to have."""
    return judged(rows, boot=int(rows["boot"].iloc[0]))


def show(rows: pd.DataFrame, session: Session) -> None:
    """How well each indicator warns, over all cases and over each kind."""
    failed = int(rows["failed"].to_numpy(bool).sum())
    session.say(
        f"{len(rows)} cases of {rows['tested'].nunique()} sets; {failed} failed (AUROC on what is "
        f"asked for below {LINE:.2f})"
    )
    print_warnings(table_of(rows), session.console)


def print_warnings(table: pd.DataFrame, console: Console) -> None:
    """Two tables, indicators down: all cases, and the AUROC in each kind of case."""
    whole = Table(
        title="Failures told from successes without labels",
        caption=f"AUROC 0.5: no better than chance. False alarms: successes warned of where\n"
        f"{FOUND:.0%} of failures are found. Cases: failures + successes.",
        caption_justify="left",
    )
    heads, lines = warning_lines(table)
    of_kinds = Table(title="AUROC of the warning in each kind of case")
    tables = ((whole, range(len(WHOLE))), (of_kinds, (0, *range(len(WHOLE), len(heads)))))
    for shown, places in tables:
        for place in places:
            shown.add_column(heads[place], justify="right" if place else "left")
        for cells in ([line[place] for place in places] for line in lines):
            if any(cells[1:]):
                shown.add_row(*map(escape, cells))
        if len(places) > 1:
            console.print(shown)


def warning_lines(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and a line per indicator: all cases (`WHOLE`), then the AUROC in each kind."""
    areas = table.set_index(["indicator", "kind"])["auroc"].dropna().to_dict()
    kinds = list(dict.fromkeys(kind for _, kind in areas if kind != EVERY))
    lines = [
        [
            row["title"],
            with_interval(row, "auroc"),
            number(row["false_alarms"]),
            f"{row['failures']} + {row['successes']}",
            *(number(areas.get((row["indicator"], kind))) for kind in kinds),
        ]
        for row in table.loc[table["kind"] == EVERY].to_dict("records")
    ]
    return [*WHOLE, *kinds], lines


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Indicators down: the AUROC of the warning, and its false alarms."""
    table = table_of(rows)
    known = table.loc[(table["kind"] == EVERY) & table["auroc"].notna()]
    return {} if known.empty else {NAME: figures.warnings_figure(table)}


def findings(rows: pd.DataFrame) -> list[Finding]:
    """Whether failure can be seen without labels, by fixed rules."""
    table = table_of(rows)
    whole = table.loc[(table["kind"] == EVERY) & table["auroc"].notna()].to_dict("records")
    alone = [row for row in whole if row["indicator"] != COMBINED]
    together = [row for row in whole if row["indicator"] == COMBINED]
    return [
        _above_chance("An indicator by itself tells failures from successes", alone),
        _above_chance("All indicators together do so on sets that taught them nothing", together),
        _reliable(together),
    ]


def _above_chance(claim: str, rows: Sequence[dict]) -> Finding:
    """It appears where the whole interval of an AUROC lies above 0.5, if cases are many enough."""
    told = _telling(rows)
    if not told:
        return Finding(claim=claim, measured=TOO_FEW, appears=None)
    above = [row for row in told if row["auroc_low"] > 0.5]
    best = sorted(told, key=lambda row: -row["auroc"])[:3]
    shown = "; ".join(f"{row['title']} {with_interval(row, 'auroc')}" for row in best)
    measured = f"{shown} ({len(above)} of {len(told)} have their whole interval above 0.5)"
    return Finding(claim=claim, measured=measured, appears=bool(above))


def _reliable(rows: Sequence[dict]) -> Finding:
    claim = (
        f"A failure can be seen without labels: where {FOUND:.0%} of failures are found, at most "
        f"{RELIABLE:.0%} of successes are warned of"
    )
    told = _telling(rows)
    if not told:
        return Finding(claim=claim, measured=TOO_FEW, appears=None)
    alarms = told[0]["false_alarms"]
    return Finding(
        claim=claim,
        measured=f"all together, on sets not seen: {alarms:.0%} false alarms",
        appears=alarms <= RELIABLE,
    )


def _telling(rows: Sequence[dict]) -> list[dict]:
    """Those with cases enough to say something."""
    return [
        row
        for row in rows
        if not pd.isna(row["auroc_low"]) and min(row["failures"], row["successes"]) >= LEAST
    ]


STUDY = Study(
    name=NAME,
    title="Warning signs: can a failure be seen without labels?",
    lead=(
        "A direction that is not the truth looks like one that is. Here labels are known, so it "
        "can be asked whether anything that needs none would have warned. A case is a method that "
        f"sees no label in a situation; it failed where its AUROC on what is asked for is below "
        f"{LINE:.2f}. An indicator warns on the side that was named beforehand. All together are a "
        "logistic regression that has seen no case of the set it is tested on; intervals are of a "
        "bootstrap of whole sets."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=findings,
)
run = STUDY.run
