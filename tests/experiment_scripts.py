"""Scripts as modules; experiments run in this process with the words of a command line."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import tyro
from rich.console import Console

from jelicit.results import Results
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.session import Session
from jelicit.studies.study import Study

NOBODY: Any = SimpleNamespace(name="nobody", trained_length=None)
"""A model for what never asks one."""

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
DOCS = EXPERIMENTS.parent / "docs"
FEW_PROMPTS = ("--shots", "1", "2", "--pool", "10", "--prompt-tests", "12")
NO_PROMPTS = ("--prompting", "none")


@contextmanager
def script(name: str, folder: Path = EXPERIMENTS) -> Iterator[Any]:
    """A script as a module; it finds its neighbours as it does when it is run."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            if path.stem not in before:
                sys.modules.pop(path.stem, None)


class Done(NamedTuple):
    """What one command left: what it printed, the rows of its new runs, its folder."""

    printed: str
    rows: pd.DataFrame
    out: Path


def run(script: Any, *words: str, model: Path, stores: Path | str, out: Path) -> Done:
    """An experiment's command, with one model, a folder of stores and one for the results."""
    return run_served(script, "--model", str(model), "--stores", str(stores), *words, out=out)


def run_served(script: Any, *words: str, out: Path) -> Done:
    """An experiment's command whose words say which model, and a folder for the results."""
    settings = tyro.cli(script.Settings, args=["--out", str(out), *words])
    before = set(out.glob("rows/*.parquet"))
    with script.console.capture() as printed:
        script.main(settings)
    new = sorted(set(out.glob("rows/*.parquet")) - before)
    found = [Results(out / "rows").read(path.stem) for path in new]
    # Long paths are broken over lines where the console is narrow.
    text = re.sub(r"\s+", " ", printed.get())
    return Done(text, pd.concat(found, ignore_index=True) if found else pd.DataFrame(), out)


def session_of(
    study: Study,
    settings: Any,
    folder: Path,
    *,
    model: Any = NOBODY,
    console: Console | None = None,
) -> Session:
    """A run of a study before its first step; it prints nothing unless a console is given."""
    return Session(model, settings, RunFolder(study.name, folder), console or Console(quiet=True))


def planned(study: Study, settings: Any, folder: Path) -> Sequence[Any]:
    """The parts of a study, with all text loaded and nothing extracted."""
    return study.plan(settings, session_of(study, settings, folder))


def joined(text: str) -> str:
    """Text without white space, since a console breaks lines where it likes."""
    return re.sub(r"\s+", "", text)
