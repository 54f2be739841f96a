"""Command line: `jelicit datasets|sweep|report|probe`. No command here needs a language model."""

from __future__ import annotations

from typing import Annotated

import tyro

from jelicit.commands.datasets import Datasets
from jelicit.commands.ending import ending_in_one_line, stopping_at_once
from jelicit.commands.probe import Probe
from jelicit.commands.report import Report
from jelicit.commands.sweep import Sweep

Command = (
    Annotated[Datasets, tyro.conf.subcommand("datasets")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
)


def main(words: list[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on stderr and exit code 1.

    Commands load their libraries when they run: help waits for none of them.
    """
    with ending_in_one_line():
        with stopping_at_once():
            command = tyro.cli(Command, prog="jelicit", description=__doc__, args=words)  # type: ignore[arg-type]
        command.main()


if __name__ == "__main__":
    main()
