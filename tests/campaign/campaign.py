"""The campaign: kills, bad inputs, failing servers; all of it, or a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bad_answers import Answers
from bad_files import ItemsFile, ModelFile, make_store_kinds, write_claims
from bad_inputs import Kind, try_many
from bad_options import Options
from children import Children
from kills import COMMANDS, Command, Killing
from random_pocket import export_random
from spoiled import search_through_faults
from tally import Tally

MODULES = (
    *("jax", "orbax.checkpoint", "jelicit.commands.cli", "jelicit.report"),
    *("jelicit.studies.icm", "jelicit.studies.salience", "extract.cli", "extract.hidden_states"),
    *("extract.local_scorer", "test_pocket_curriculum"),
)
"""What the parent of all commands loads."""

SHARES = {
    "set of items": 0.2,
    "manifest": 0.13,
    "shard": 0.14,
    "store's items": 0.08,
    "config": 0.08,
    "tokenizer": 0.06,
    "weights": 0.06,
    "server's answer": 0.1,
    "option": 0.15,
}
"""Of the bad inputs, by kind: those that load a model take a second each."""


@dataclass
class Campaign:
    """What is tried is counted in `tally`; made by `campaign`."""

    place: Path
    model: Path
    children: Children
    tally: Tally

    def kill(self, kills: int, *, commands: Sequence[Command] = COMMANDS) -> None:
        """Kills commands at so many random moments."""
        (self.place / "kills").mkdir()
        killing = Killing(self.children, self.place / "kills", self.model, seed=self.tally.seed)
        told = killing.many(kills, commands=tuple(commands))
        for name, hit in told.kills.items():
            # Nothing tells the kills of one case apart: all of them failed with it.
            self.tally.add("kills", name, tried=hit, survived=hit - told.lost.get(name, 0))
        self.tally.failures += told.failures

    def repeat_kill(self, command: str, number: int) -> list[str]:
        """One case again; what is wrong."""
        (self.place / "kills").mkdir()
        killing = Killing(self.children, self.place / "kills", self.model, seed=self.tally.seed)
        return killing.case(next(each for each in COMMANDS if each.name == command), number)

    def feed(self, inputs: int, *, only: Sequence[str] = ()) -> None:
        """Feeds so many bad inputs to commands.

        Args:
            inputs: How many, over all kinds.
            only: Names of the kinds; none = all.
        """
        for name, make in self._kinds().items():
            if only and name not in only:
                continue
            told = try_many(make(), round(inputs * SHARES[name]), start=self.tally.seed)
            survived = told.tried - len(told.failures)
            self.tally.add("inputs", name, tried=told.tried, survived=survived)
            for wrong, smallest in told.smallest.items():
                self.tally.failures.append(f"{name}: {wrong}; smallest input: {smallest!r}")

    def _kinds(self) -> dict[str, Callable[[], Kind]]:
        """Every kind; made when it is its turn, since that runs a command."""
        place, model, children = self.place, self.model, self.children
        claims = place / "claims"
        write_claims(claims)
        kinds: dict[str, Callable[[], Kind]] = {
            **make_store_kinds(place),
            "set of items": lambda: ItemsFile(claims, place),
            "server's answer": Answers,
            "option": lambda: Options(model, place, children),
        }
        files = {
            "config": "config.json",
            "tokenizer": "tokenizer.json",
            "weights": "model.safetensors",
        }
        for name, file in files.items():
            kinds[name] = lambda file=file: ModelFile(file, model, place, children)
        return kinds

    def spoil(self, *, draws: int = 60) -> None:
        """Searches labels through a server that fails."""
        searched = search_through_faults(draws=draws, seed=self.tally.seed)
        for fault, times in searched.spoiled.items():
            self.tally.add("requests", fault, tried=times, survived=times * searched.same)
        if not searched.same:
            self.tally.failures.append("a search through faults ends with other labels")


@contextmanager
def campaign(place: Path, *, seed: int = 0) -> Iterator[Campaign]:
    """A campaign in an empty folder, with a tiny random model."""
    place.mkdir(parents=True, exist_ok=True)
    model = export_random(place / "tiny")
    with Children(place / "children", modules=MODULES) as children:
        yield Campaign(place, model, children, Tally(seed))
