"""The whole campaign, by one command; it prints what was tried, what survived, and what did not.

    python tests/campaign/run.py                           # 100 kills, 1,000 bad inputs
    python tests/campaign/run.py --kills 0 --inputs 200 --kinds config tokenizer
    python tests/campaign/run.py --only sweep --case 3     # one case of the kills again
    python tests/campaign/run.py --write                   # and its counts into the manual

Ends with exit code 1 where anything failed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import conftest  # noqa: F401  # programs are compiled quickly
import tyro
from campaign import Campaign, campaign


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Kill commands, feed them bad inputs, and make their server fail.

    Attributes:
        kills: Random moments at which SIGKILL hits.
        inputs: Bad inputs, over all kinds.
        kinds: Kinds of bad inputs, such as config; all by default.
        draws: Length of the search through a failing server; 0 = none.
        seed: Of everything that is drawn.
        only: One command, to repeat one case of the kills.
        case: Its number.
        write: Write the counts to docs/results/campaign.json.
    """

    kills: int = 100
    inputs: int = 1000
    kinds: tuple[str, ...] = ()
    draws: int = 60
    seed: int = 0
    only: str | None = None
    case: int = 0
    write: bool = False


def run(settings: Settings, place: Path) -> Campaign:
    """All that was asked for."""
    with campaign(place, seed=settings.seed) as whole:
        if settings.only is not None:
            whole.tally.failures += whole.repeat_kill(settings.only, settings.case)
            return whole
        if settings.draws:
            whole.spoil(draws=settings.draws)
        if settings.inputs:
            whole.feed(settings.inputs, only=settings.kinds)
        if settings.kills:
            whole.kill(settings.kills)
    return whole


def main(settings: Settings) -> None:
    """Runs, prints, and writes if asked to."""
    with tempfile.TemporaryDirectory() as place:
        tally = run(settings, Path(place)).tally
    print("\n".join(tally.lines()))
    if settings.write:
        tally.write()
    sys.exit(1 if tally.failures else 0)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
