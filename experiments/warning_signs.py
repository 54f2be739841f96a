"""Can a failure be seen without labels?

Takes what other commands left, or runs the parts of the stress test with a few methods, and asks
how well indicators that need no label tell methods that failed from those that did not.

    python experiments/warning_signs.py
    python experiments/warning_signs.py --runs runs/salience runs/stress

Prints a table, writes the cases (Parquet), a figure (PNG, SVG) and a report, and ends with their
paths. What was run before is read back.
"""

from __future__ import annotations

from jelicit.commands.ending import stopping_at_once

with stopping_at_once():
    from dataclasses import dataclass, field
    from pathlib import Path

    import tyro
    from common import ModelSettings, ask, console, start

    from jelicit.studies import warning_signs
    from jelicit.studies.model import Cases

__all__ = ["Settings", "console", "main"]


@dataclass(frozen=True, kw_only=True)
class Settings(warning_signs.Settings):
    """Ask whether label-free indicators tell failures from successes.

    Attributes:
        run_on: Which language model, and how it runs; none is asked with --runs.
    """

    run_on: tyro.conf.OmitArgPrefixes[ModelSettings] = field(default_factory=ModelSettings)
    out: Path = Path("runs/warning_signs")


def main(settings: Settings) -> None:
    """Run the study."""
    model = Cases(()) if settings.runs else settings.run_on.open()
    ask(warning_signs.STUDY, model, settings)


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
