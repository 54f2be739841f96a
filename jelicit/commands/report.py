"""`jelicit report`: the page of a run folder, or of several side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jelicit.commands.ending import stopping_at_once

COMPARISON = Path("comparison.html")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a finished run folder anew, or compare several of them.

    One folder: its report.html, from its rows, items and figures. Several: one page that sets them
    side by side: the settings that differ, and every row that they share.

    For example: `jelicit report runs/salience runs/salience-8b --out compare.html`.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of experiments, such as runs/salience."""
    out: Path | None = None
    """The page of a comparison; default: comparison.html."""

    def main(self) -> None:
        """Writes the page and prints its path.

        Raises:
            ValueError: No folder, one that holds no finished run, or --out that does nothing or
                cannot be written.
        """
        with stopping_at_once():
            from jelicit.commands.outputs import check_out_file
            from jelicit.commands.said import say
            from jelicit.report import compare_reports, write_report

        if not self.folders:
            raise ValueError("name at least one run folder, such as runs/salience")
        if len(self.folders) > 1:
            out = self.out or COMPARISON
            check_out_file(out, such_as=str(COMPARISON))
            say(f"comparison: {compare_reports(self.folders, out)}")
            return
        folder = next(iter(self.folders))
        if self.out is not None:
            raise ValueError(
                f"--out {self.out} is the page of a comparison: name two folders or more, or leave "
                f"it out; the report of one is written to {folder / 'report.html'}"
            )
        say(f"report: {write_report(folder)}")
