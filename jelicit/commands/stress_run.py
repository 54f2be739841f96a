"""`jelicit stress`: its options, and what it does."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import rich
import tyro

from jelicit.commands.model_settings import OPENER, ModelSettings, collect_rarely, keep_compiled
from jelicit.studies import stress


@dataclass(frozen=True, kw_only=True)
class Stress(stress.Settings):
    """Put every challenge to any methods, and end in a scorecard: who survives.

    Salient features, imbalanced train sets, claims that are neither true nor false, other sets and
    other prompts. Prints tables; writes rows (Parquet), figures and a report, and those of every
    challenge's own study in a folder of its name. What was finished is read back, not computed
    again.

    For example: `jelicit stress --methods ccs pca my_method.py:METHOD`.

    Attributes:
        run_on: Which language model, and how it runs.
        opener: The function that opens it, as package.module:NAME or file.py:NAME.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    opener: str = OPENER
    out: Path = Path("runs/stress")

    def main(self) -> None:
        """Runs the study.

        Raises:
            ValueError: Settings or sets that cannot work, before anything is extracted.
        """
        keep_compiled()
        collect_rarely()
        self.check()
        stress.run(
            self.run_on.open(opener=self.opener),
            self,
            console=rich.get_console(),
            command=shlex.join(["jelicit", *sys.argv[1:]]),
        )
