"""SIGKILL at random moments: started again, a command leaves what it always leaves.

A case is a command in a folder of its own. It is killed at up to `MOST` random moments of its usual
running time, started again each time, and then left to end. What differs from an undisturbed run
(bytes of stores, rows, scores of items, probes, labels, weights; files too many or too few, such as
temporary ones) is a failure. A case follows from the seed, its command and its number.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from children import ROOT, Children
from whats_left import differences, left

MOST = 5
"""Kills in one case."""

PROBES = ("--methods", "ccs", "supervised", "--seeds", "1", "--boot", "20")


@dataclass(frozen=True)
class Command:
    """A command that is killed; `{model}` and `{place}` stand for folders."""

    name: str
    words: tuple[str, ...]


COMMANDS = (
    Command(
        "extract",
        (
            *("extract", "run", "--model", "{model}", "--dataset", "pocket/arithmetic"),
            *("--max-items", "120", "--shard-size", "6", "--threads", "1", "--out", "out"),
        ),
    ),
    Command(
        "sweep",
        (
            *("jelicit", "sweep", "{place}/train", "--test", "{place}/test", *PROBES),
            *("--layers", "2", "--save-probes", "--out", "out"),
        ),
    ),
    Command(
        "salience",
        (
            *(str(ROOT / "experiments/salience.py"), "--model", "{model}", "--out", "out"),
            *("--stores", "out/stores", "--dataset", "pocket/arithmetic", "--max-rows", "40"),
            *("--features", "tense", "--prompting", "none", *PROBES),
        ),
    ),
    Command(
        "icm",
        (
            *(str(ROOT / "experiments/icm.py"), "--model", "{model}", "--out", "out"),
            *("--dataset", "pocket/pairs", "--n", "4", "--tests", "8", "--seeds", "1"),
            *("--initial", "2", "--draws", "8", "--shots", "1", "--boot", "20"),
            *("--methods", "zero_shot", "icm", "bootstrapped"),
        ),
    ),
    Command("pretraining", (str(ROOT / "tests/campaign/tiny_pretraining.py"), "out")),
)

STORES = ("train", "test")


@dataclass
class Kills:
    """What was tried.

    Attributes:
        kills: Signals that hit a running command, by command.
        cases: Cases, by command.
        seconds: An undisturbed run's, by command.
        failures: What went wrong, with the words that repeat it.
        lost: Signals of the cases that went wrong, by command.
    """

    kills: dict[str, int] = field(default_factory=dict)
    cases: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        """All signals."""
        return sum(self.kills.values())


class Killing:
    """Kills commands; to be made once: undisturbed runs are shared by all cases."""

    def __init__(self, children: Children, place: Path, model: Path, *, seed: int) -> None:
        """Makes what the commands read.

        Args:
            children: Who runs them.
            place: An empty folder.
            model: Folder of a tiny model.
            seed: Of all moments.
        """
        self._children, self._place, self._model, self._seed = children, place, model, seed
        self._undisturbed: dict[str, dict] = {}
        self.told = Kills()

    def many(self, kills: int, *, commands: tuple[Command, ...] = COMMANDS) -> Kills:
        """Cases of every command by turns, until so many signals hit one."""
        number = 0
        while self.told.tried < kills:
            for command in commands:
                if self.told.tried < kills:
                    self.case(command, number)
            number += 1
        return self.told

    def case(self, command: Command, number: int) -> list[str]:
        """One case; what is wrong with what it left."""
        undisturbed = self._run_undisturbed(command)
        folder = self._fresh(f"{command.name}-{number}")
        moments = random.Random(f"{self._seed} {command.name} {number}")
        seconds, struck, wrong = self.told.seconds[command.name], 0, []
        for _ in range(1 + moments.randrange(MOST)):
            ended = self._run(command, folder, kill_after=moments.random() * seconds)
            if ended.code != -9:
                break
            struck += 1
        else:
            ended = self._run(command, folder)
        if ended.code != 0:
            wrong = [f"it ended with {ended.code}: {ended.err.strip()[-300:]}"]
        wrong += differences(undisturbed, left(folder / "out"))
        told = self.told
        told.kills[command.name] = told.kills.get(command.name, 0) + struck
        told.cases[command.name] = told.cases.get(command.name, 0) + 1
        if wrong:
            repeat = f"--only {command.name} --case {number} --seed {self._seed}"
            told.failures.append(f"{repeat}: {struck} kills; {'; '.join(wrong)}")
            told.lost[command.name] = told.lost.get(command.name, 0) + struck
        else:
            shutil.rmtree(folder)
        return wrong

    def _run_undisturbed(self, command: Command) -> dict:
        if command.name not in self._undisturbed:
            if command.name == "sweep":
                self._make_stores()
            self._timed(command)  # compiles
            self.told.seconds[command.name], folder = self._timed(command)
            self._undisturbed[command.name] = left(folder / "out")
        return self._undisturbed[command.name]

    def _timed(self, command: Command) -> tuple[float, Path]:
        """Seconds of an undisturbed run, and its folder."""
        folder = self._fresh(f"{command.name}-undisturbed")
        ended = self._run(command, folder)
        if ended.code != 0:
            raise RuntimeError(f"{command.name} does not even run: {ended.err[-2000:]}")
        return ended.seconds, folder

    def _make_stores(self) -> None:
        for split in STORES:
            words = ("extract", "run", "--model", str(self._model), "--split", split)
            out = ("--max-items", "40", "--threads", "1", "--out", str(self._place / split))
            ended = self._children.run((*words, *out), self._place)
            if ended.code != 0:
                raise RuntimeError(f"there is no store to sweep: {ended.err[-2000:]}")

    def _run(self, command: Command, folder: Path, *, kill_after: float | None = None):
        names = {"model": self._model, "place": self._place}
        words = tuple(word.format(**names) for word in command.words)
        return self._children.run(words, folder, kill_after=kill_after)

    def _fresh(self, name: str) -> Path:
        folder = self._place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder
