"""The folder of an experiment: rows, item scores, figures, the record of a command, its report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from common import fit_folder, forget, machine, say
from panels import Measured, Panel

from jelicit.data.items import digest
from jelicit.disk import check_out_folder
from jelicit.report import write_report
from jelicit.results import Finding, ItemScoreStore, Record, Results, run_id
from jelicit.version import __version__

PACKAGES = ("jelicit", "jax", "flax", "optax", "numpy", "torch", "transformers")


def check_folder(experiment: str, folder: Path) -> None:
    """Refuses a folder that cannot be written to, or has the report of another experiment.

    Raises:
        ValueError: Saying which.
    """
    check_out_folder(folder)
    try:
        found = Record.read(folder).experiment
    except FileNotFoundError:
        return
    if found != experiment:
        raise ValueError(
            f"--out {folder} has the report of {found!r}, which {experiment} would replace; choose "
            "another folder"
        )


class RunFolder:
    """What one command of an experiment writes; runs that are there are read back, not repeated."""

    def __init__(self, experiment: str, folder: Path):
        """The experiment's name and its folder, which is made now: before anything is computed.

        Raises:
            ValueError: The folder cannot be written to, or has the report of another experiment.
        """
        check_folder(experiment, folder)
        self.experiment, self.folder = experiment, folder
        self.results, self.items = Results(folder / "rows"), ItemScoreStore(folder / "items")
        self.layers = Results(folder / "layers")
        self.runs: list[str] = []
        self._begun = time.perf_counter()

    def run(
        self,
        panel: Panel,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        measure: Callable[[], Measured],
        *,
        note: str = "",
    ) -> None:
        """Measure a panel unless its rows are there, and keep rows and item scores.

        The panel's `fit_folder` is removed once its rows are written.

        Args:
            panel: What is measured.
            settings: Everything that can change a number; with the items it is the run's identity.
            about: What every row says of the panel.
            measure: Gives rows and scores.
            note: For the message that tells of it.
        """
        chosen = {"experiment": self.experiment, **settings}
        run = run_id(chosen, digest([*panel.train, *panel.test]), __version__)
        self.runs.append(run)
        note = f"; {note}" if note else ""
        if self.results.has(run) and self.items.has(run):
            forget(fit_folder(self.folder, panel.title))
            say(f"{panel.title}: reused (run {run}, same settings){note}")
            return
        begin = time.perf_counter()
        found = measure()
        self.items.write(run, found.items(panel))
        self.results.write(run, [{**about, **row} for row in found.rows], chosen)
        forget(fit_folder(self.folder, panel.title))
        took = time.perf_counter() - begin
        say(f"{panel.title}: fitted and measured in {took:.1f} s (run {run}){note}")

    def rows(self) -> pd.DataFrame:
        """The rows of this command, in the order of its runs."""
        return pd.concat([self.results.read(run) for run in self.runs], ignore_index=True)

    def finish(
        self,
        *,
        title: str,
        lead: str,
        settings: Any,
        figures: Sequence[Path],
        findings: Sequence[Finding],
    ) -> None:
        """Writes record and report, and says where everything is.

        Args:
            title: Head of the report.
            lead: What was asked, and how to read the answer.
            settings: Every option of the command.
            figures: Files of the figures, of any format; the report shows the SVG ones.
            findings: The paper's findings, checked.
        """
        for finding in findings:
            mark = {True: "yes", False: "no", None: "cannot tell"}[finding.appears]
            say(f"finding: {finding.claim} -> {mark}: {finding.measured}")
        Record(
            experiment=self.experiment,
            title=title,
            lead=lead,
            command=shlex.join(["python", f"experiments/{self.experiment}.py", *sys.argv[1:]]),
            seconds=time.perf_counter() - self._begun,
            machine=machine(),
            versions={name: version(name) for name in PACKAGES},
            settings=settings,
            runs=tuple(self.runs),
            figures=tuple(path.name for path in figures if path.suffix == ".svg"),
            findings=tuple(findings),
        ).write(self.folder)
        say(f"rows: {self.folder / 'rows'} ({len(self.rows())} of this command)")
        for path in figures:
            say(f"figure: {path}")
        say(f"report: {write_report(self.folder)}")
