"""Command line: `jelicit datasets|sweep|report|probe|export|stress`. Only stress needs a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jelicit.commands.datasets import Datasets
from jelicit.commands.ending import ending_in_one_line, stopping_at_once
from jelicit.commands.export import Export
from jelicit.commands.probe import Probe
from jelicit.commands.report import Report
from jelicit.commands.stress import Stress
from jelicit.commands.sweep import Sweep

_Light = (
    Annotated[Datasets, tyro.conf.subcommand("datasets")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def commands(words: Sequence[str]) -> Any:
    """The commands, with all options of the one that the words name."""
    if list(words[:1]) != ["stress"]:
        return _Light | Annotated[Stress, tyro.conf.subcommand("stress")]
    from jelicit.commands import stress_run

    return _Light | Annotated[stress_run.Stress, tyro.conf.subcommand("stress")]


def main(words: list[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on stderr and exit code 1.

    Commands load their libraries when they run: help waits for none of them.
    """
    with ending_in_one_line():
        with stopping_at_once():
            words = sys.argv[1:] if words is None else words
            command = tyro.cli(commands(words), prog="jelicit", description=__doc__, args=words)
        command.main()


if __name__ == "__main__":
    main()
