"""The folder of a study's run: rows, item scores, layer choices, fits, the record, the report.

Where ensembles over prompts are wanted, what they are made of is kept, too (`members`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from jelicit.data.items import digest
from jelicit.disk import check_out_folder
from jelicit.icm.search import ALGORITHM as SEARCH
from jelicit.named import slug
from jelicit.prompting import few_shot
from jelicit.results import ItemScores, ItemScoreStore, Record, Results, run_id
from jelicit.studies import scoring
from jelicit.studies.measuring import Measured
from jelicit.studies.situation import Situation


def check_folder(study: str, folder: Path) -> None:
    """Refuses a folder that cannot be written to, or has the report of another study.

    Raises:
        ValueError: Saying which.
    """
    check_out_folder(folder)
    try:
        there = Record.read(folder).experiment
    except FileNotFoundError:
        return
    if there != study:
        raise ValueError(
            f"--out {folder} has the report of {there!r}, which {study} would replace; choose "
            "another folder"
        )


class RunFolder:
    """What one run of a study writes; what is there already is read back, not measured again.

    Attributes:
        runs: Ids of the runs that were asked for, in order.
        doubts: What speaks against their numbers, a line each, for the report.
    """

    def __init__(self, study: str, folder: Path):
        """The study's name and its folder, which `begin` makes."""
        self.study, self.folder = study, folder
        self.results, self.items = Results(folder / "rows"), ItemScoreStore(folder / "items")
        self.members = ItemScoreStore(folder / "members")
        self.layers = Results(folder / "layers")
        self.runs: list[str] = []
        self.doubts: list[str] = []

    def begin(self) -> None:
        """Make the folder: once text is loaded, and before anything is computed.

        Raises:
            ValueError: It cannot be written to, or has the report of another study.
        """
        check_folder(self.study, self.folder)

    def part(self, name: str) -> RunFolder:
        """A folder in this one for the working files of a part; rows and item scores are shared.

        Args:
            name: Of the part: a model, for example.
        """
        part = RunFolder(self.study, self.folder / slug(name))
        part.results, part.items, part.members = self.results, self.items, self.members
        part.runs, part.doubts = self.runs, self.doubts
        return part

    def fits(self, what: str) -> Path:
        """Where finished fits are kept until what they are for is written.

        Args:
            what: What they are for: the title of a situation, for example.
        """
        return self.folder / "fits" / slug(what)

    def forget(self, what: str) -> None:
        """Remove a folder of fits; at real sizes they are larger than all rows and figures."""
        fits = self.fits(what)
        shutil.rmtree(fits, ignore_errors=True)
        with suppress(OSError):  # other fits are there
            fits.parent.rmdir()

    def name_of(self, situation: Situation, settings: Mapping[str, Any]) -> str:
        """The identity of a run: its items, all that decides its numbers, and nothing else.

        Args:
            situation: What is measured.
            settings: Everything that can change a number, beside the items.
        """
        stages = {
            "rows": scoring.ALGORITHM,
            "prompting": few_shot.ALGORITHM,
            "search": SEARCH,
        }
        items = digest([*situation.train, *situation.test])
        return run_id({"experiment": self.study, **settings}, items, stages)

    def has(self, situation: Situation, settings: Mapping[str, Any]) -> bool:
        """Whether `run` would find everything there."""
        run = self.name_of(situation, settings)
        return self.results.has(run) and self.items.has(run)

    def run(
        self,
        situation: Situation,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        measure: Callable[[], Measured],
    ) -> tuple[str, bool]:
        """Measure a situation unless its rows are there, and keep rows and item scores.

        The situation's fits are removed once its rows are written.

        Args:
            situation: What is measured.
            settings: Everything that can change a number; with the items it is the run's identity.
            about: What every row says of the situation.
            measure: Gives rows and scores.

        Returns:
            The run's id, and whether it was there already.
        """
        run, there = self.name_of(situation, settings), self.has(situation, settings)
        self.runs.append(run)
        if not there:
            measured = measure()
            scores = ItemScores.of(situation.test, measured.scores, target=situation.target)
            self.items.write(run, scores)
            if measured.members:
                members = ItemScores.in_own_units(situation.test, measured.members)
                self.members.write(run, members)
            chosen = {"experiment": self.study, **settings}
            rows = [{**about, **row} for row in measured.rows]
            self.results.write(run, rows, chosen, doubts=measured.doubts)
        self.doubts += self.results.doubts(run)
        self.forget(situation.title)
        return run, there

    def rows(self) -> pd.DataFrame:
        """The rows of this run of the study, in the order of its parts."""
        return pd.concat([self.results.read(run) for run in self.runs], ignore_index=True)
