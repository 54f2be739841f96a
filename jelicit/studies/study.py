"""What a study is, and how one is run: plan, measure, tables, figures, findings, report."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import pandas as pd
from rich.console import Console

from jelicit import figures
from jelicit.method_names import own_titles
from jelicit.report import write_report
from jelicit.results import Finding, Record, TextTable
from jelicit.results.identity import plain
from jelicit.studies.checks import refuse
from jelicit.studies.format_rows import told_apart
from jelicit.studies.model import Cases
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.session import Session
from jelicit.typed import as_typed
from jelicit.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("jax", "flax", "optax", "numpy", "torch", "transformers")
"""Packages whose versions a record names, as far as they are installed."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question that is asked of a model.

    A study of one's own is a value of this class in a file of one's own: `run` does the rest.

    Attributes:
        name: Of its folder and its command.
        title: Head of the report.
        lead: What is asked, and how to read the answer, in a few plain sentences.
        settings: Its options, a dataclass of defaults.
        plan: Settings -> its parts, with all text loaded and nothing extracted. Whatever is wrong
            with the settings or the sets is found here.
        measure: (parts, session): extracts, fits and measures, by the session's steps; what is
            there already is read back.
        show: (rows, session): prints tables.
        figures: (rows, session) -> file name without ending -> figure.
        findings: Rows -> the paper's findings, checked.
        tables: (rows, session) -> what the report shows beside the table of rows.
    """

    name: str
    title: str
    lead: str
    settings: type[Any]
    plan: Callable[[Any, Session], Sequence[Any]]
    measure: Callable[[Sequence[Any], Session], None]
    show: Callable[[pd.DataFrame, Session], None]
    figures: Callable[[pd.DataFrame, Session], Mapping[str, Figure]]
    findings: Callable[[pd.DataFrame], Sequence[Finding]] = lambda rows: ()
    tables: Callable[[pd.DataFrame, Session], Sequence[TextTable]] = lambda rows, session: ()

    def run(
        self,
        model: Any,
        settings: Any = None,
        *,
        console: Console | None = None,
        quiet: bool = False,
        command: str | None = None,
        record: Any = None,
        **options: Any,
    ) -> StudyResult:
        """Ask the question of a model.

        Args:
            model: `extract.open_model(...)`, or `Cases`: hidden states of one's own.
            settings: Of this study; None = its defaults.
            console: Where lines and tables are printed; None = the terminal.
            quiet: Print nothing.
            command: The command line, for the report.
            record: What the report says the settings were, if more than `settings`.
            options: Settings by name, in place of those of `settings`: `seeds=3`.

        Returns:
            Rows, figures and findings; everything is in the folder `settings.out`, too. Without
            one, they are in a temporary folder that goes with the result.

        Raises:
            ValueError: Settings, layers or sets that cannot work, before anything is extracted.
        """
        begin = time.perf_counter()
        settings, problems = as_typed(replace(settings or self.settings(), **options))
        try:
            settings.check()
        except ValueError as error:
            problems.append(str(error))
        refuse(problems)
        if isinstance(model, Cases) and getattr(settings, "format", None):
            raise ValueError(
                "--format does nothing with hidden states of one's own (Cases): they were made by "
                "the prompts that they were made by; leave it out"
            )
        passing = None if settings.out else tempfile.TemporaryDirectory(prefix="jelicit-")
        folder = Path(passing.name if passing else settings.out)  # type: ignore[arg-type]
        settings = settings.for_model(getattr(model, "trained_length", None))
        session = Session(
            model, settings, RunFolder(self.name, folder), console or Console(quiet=quiet)
        )
        parts = self.plan(settings, session)
        session.check_layers()
        session.folder.begin()
        record = record or settings
        return self.carry_out(
            parts, session, command=command, record=record, begin=begin, passing=passing
        )

    def carry_out(
        self,
        parts: Sequence[Any],
        session: Session,
        *,
        command: str | None = None,
        record: Any = None,
        begin: float | None = None,
        passing: tempfile.TemporaryDirectory[str] | None = None,
    ) -> StudyResult:
        """Measure what was planned; print, draw and write what was found.

        Args:
            parts: Of `plan`.
            session: The run, its folder begun.
            command: The command line, for the report.
            record: What the report says the settings were, if more than the session's.
            begin: When the run began (`time.perf_counter`); None = now.
            passing: The folder, if it is to go with the result.
        """
        begin = time.perf_counter() if begin is None else begin
        folder = session.folder.folder
        self.measure(parts, session)
        rows = session.folder.rows()
        shown = told_apart(rows)
        self.show(shown, session)
        drawn = self.figures(shown, session)
        files = [file for name, each in drawn.items() for file in figures.save(each, folder / name)]
        findings = tuple(self.findings(shown))
        for finding in findings:
            mark = {True: "yes", False: "no", None: "cannot tell"}[finding.appears]
            session.say(f"finding: {finding.claim} -> {mark}: {finding.measured}")
        Record(
            experiment=self.name,
            title=self.title,
            lead=self.lead,
            command=command or f"jelicit.studies: {self.name}",
            seconds=time.perf_counter() - begin,
            machine=machine(),
            versions=dict(_versions()),
            settings=plain(record or session.settings),
            runs=tuple(session.folder.runs),
            figures=tuple(path.name for path in files if path.suffix == ".svg"),
            findings=findings,
            doubts=tuple(dict.fromkeys(session.folder.doubts)),
            titles=own_titles(rows["method"]),
            tables=tuple(self.tables(shown, session)),
        ).write(folder)
        session.say(f"rows: {folder / 'rows'} ({len(rows)} of this command)")
        for path in files:
            session.say(f"figure: {path}")
        session.say(f"report: {write_report(folder)}")
        return StudyResult(self.name, rows, drawn, findings, folder, passing)


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        study: Its name.
        rows: Result rows, one per method, situation, layer, seed, orientation and target.
        figures: By name.
        findings: The paper's findings, checked.
        folder: Where everything is on disk.
    """

    study: str
    rows: pd.DataFrame
    figures: Mapping[str, Figure]
    findings: tuple[Finding, ...]
    folder: Path
    _passing: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """The report as one file that opens anywhere."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "report.html", path)
        return path


def machine() -> str:
    """The device that JAX computes on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'' if cores == 1 else 's'}"


def _versions() -> Iterator[tuple[str, str]]:
    yield "jelicit", __version__
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # the core needs neither torch nor transformers
            continue
