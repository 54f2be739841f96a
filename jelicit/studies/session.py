"""A run of a study: the model, the folder, what is said, and the steps that studies share."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jelicit.data.items import digest
from jelicit.data.prompts import get_format
from jelicit.data.shown import printable
from jelicit.data.subsets import rebalanced
from jelicit.probes.method import EASY
from jelicit.probes.methods import get_method
from jelicit.probes.sweep.doubts import doubts
from jelicit.probes.sweep.fitstore import FitStore
from jelicit.progress import progress
from jelicit.prompting import ZERO_SHOT_CALIBRATED, Scorer
from jelicit.results import run_id
from jelicit.studies import scoring
from jelicit.studies.formats import formats_asked
from jelicit.studies.measuring import (
    Measured,
    measure,
    untrained_members,
    without_training,
)
from jelicit.studies.model import Cases, Model
from jelicit.studies.near_best import add_near_best
from jelicit.studies.prompted import measure_prompting, measure_zero_shot_calibrated
from jelicit.studies.run_folder import RunFolder
from jelicit.studies.settings import REBALANCED, PromptedStudySettings, fit_identity
from jelicit.studies.situation import Runs, Situation
from jelicit.studies.states import States, digest_of_arrays


class Session:
    """One run of a study.

    Attributes:
        model: The language model, or hidden states in its place.
        settings: Of the study (`StudySettings` or its own), with numbers for what was left to the
            model.
        folder: Where rows, item scores and figures go.
        console: Where lines and tables are printed.
        about: What every row says beside what its situation says.
    """

    def __init__(
        self,
        model: Model | Cases,
        settings: Any,
        folder: RunFolder,
        console: Console,
        *,
        about: Mapping[str, Any] | None = None,
    ):
        self.model, self.settings = model, settings
        self.folder, self.console = folder, console
        self.about = dict(about or {})

    def say(self, line: str) -> None:
        """One line for the user, never wrapped: paths and run ids can be copied whole."""
        self.console.print(printable(line), soft_wrap=True, markup=False, highlight=False)

    def doubt(self, line: str, *, of: str = "") -> None:
        """One line for the user that a reader of the results has to know: it is in the report.

        Args:
            line: What speaks against the numbers.
            of: What it is about, if the line does not say: a set.
        """
        line = f"{of}: {line}" if of else line
        self.say(line)
        self.folder.doubts.append(line)

    def progress(self, title: str) -> Any:
        """A bar for long work; see `jelicit.progress.progress`."""
        return progress(title)

    # --- hidden states ---------------------------------------------------------------------------

    def states(
        self, situation: Situation, layers: tuple[int, ...], *, name: str | None = None
    ) -> States:
        """Hidden states of train, test and easy rows: made, or read where they are.

        Args:
            situation: Whose rows.
            layers: Hidden-state indices.
            name: What their stores are called, before the split; None = set and feature.
        """
        if isinstance(self.model, Cases):
            states = self.model.states(situation)
            # Arrays have no account of themselves but their numbers.
            own = {**states.origin, "arrays": digest_of_arrays(situation, states)}
            return replace(states, origin=own)
        name = name or f"{situation.dataset}-{situation.feature}"
        easy = situation.easy
        return States.of_stores(
            self.model.store(f"{name}-train", situation.train, situation.format, layers),
            self.model.store(f"{name}-test", situation.test, situation.format, layers),
            None
            if easy is None
            else self.model.store(f"easy-{easy.name}", easy.items, easy.format, layers),
        )

    def check_layers(self) -> None:
        """Refuse layers that the model does not have, before anything is extracted.

        Raises:
            ValueError: It has fewer blocks; the message says how many.
        """
        if isinstance(self.model, Cases):
            return  # which states there are is said by the cases, not by the settings
        asked = getattr(self.settings, "fixed_layers", None) or ()
        if asked and max(asked) > (blocks := self.model.n_blocks):
            beyond = " ".join(str(layer) for layer in asked if layer > blocks)
            raise ValueError(
                f"--layers {beyond}: {self.model.name} has {blocks} blocks, so allowed are 0 "
                f"(embeddings) to {blocks} (after the final norm), or best alone"
            )

    def layers_of(self, situation: Situation, runs: Runs, *, name: str = "none") -> tuple[int, ...]:
        """The layers that were asked for, or the best one for CCS on a situation's train rows.

        Args:
            situation: Plain claims that have a truth value.
            runs: Their balanced runs.
            name: What the store of all layers is called, after the set.
        """
        if situation.easy is None:
            without = [m.name for m in map(get_method, self.settings.probes) if EASY in m.needs]
            if without:
                self.say(f"{situation.dataset}: no easy set, so no {', '.join(without)}")
        if isinstance(self.model, Cases):
            return self.model.states(situation).layers
        return self.settings.fixed_layers or (self.best_layer(situation, runs, name=name),)

    def best_layer(self, situation: Situation, runs: Runs, *, name: str = "none") -> int:
        """The layer of the best CCS AUROC on plain train rows; read back if it was chosen before.

        The choice looks at train labels, so it is an ORACLE.

        Args:
            situation: Plain claims that have a truth value.
            runs: Their balanced runs.
            name: What the store of all layers is called, after the set.
        """
        assert not isinstance(self.model, Cases)
        dataset, results = situation.dataset, self.folder.layers
        place = situation.place
        store = self.model.store(f"{dataset}-{name}-train", situation.train, situation.format, None)
        fits = f"{dataset}-{name}-layers"
        config = self.settings.fit.config(["ccs"])
        chosen = {
            "choice": "CCS AUROC on plain train rows",
            "extraction": States.of_stores(store, store).origin["train"],
            "seeds": runs.seeds.tolist(),
            "subsets": hashlib.sha256(np.packbits(runs.subsets).tobytes()).hexdigest(),
            "sweep": fit_identity(config),
            **self.format_of(situation),
        }
        stages = {"rows": scoring.ALGORITHM}
        run = run_id(chosen, digest(situation.train), stages)
        if not results.has(run):
            with self.progress(f"{place}: CCS at every layer") as report:
                areas = scoring.ccs_by_layer(
                    {layer: store.pairs(layer) for layer in store.layers if layer > 0},
                    situation.asked,
                    subsets=runs.subsets,
                    seeds=runs.seeds,
                    config=config,
                    store=FitStore(self.folder.fits(fits)),
                    report=report,
                )
            results.write(run, [{"layer": at, "auroc": area} for at, area in areas.items()], chosen)
            self.folder.forget(fits)
        areas = results.read(run).set_index("layer")["auroc"].to_dict()
        # A fit that failed has no AUROC.
        best = max(areas, key=lambda at: np.nan_to_num(areas[at], nan=-1.0))
        shown = ", ".join(f"{layer}: {area:.2f}" for layer, area in areas.items())
        self.say(
            f"{place}: layer {best} (best CCS AUROC on train rows without a feature; by layer "
            f"{shown})"
        )
        return int(best)

    # --- measuring -------------------------------------------------------------------------------

    def probes(
        self,
        situation: Situation,
        runs: Runs,
        states: States,
        methods: tuple[str, ...],
        boot: jax.Array,
        *,
        names: Mapping[str, str] | None = None,
        taught: np.ndarray | None = None,
        fits: str | None = None,
        members: bool = False,
    ) -> Measured:
        """Probes at every layer of the states; see `measure`.

        Methods that need an easy set are left out where there is none. Finished fits are kept under
        the name `fits` (None = the situation's title), so that a run that was killed goes on.
        """
        usable = tuple(
            m for m in methods if situation.easy is not None or EASY not in get_method(m).needs
        )
        if not usable:
            return Measured()
        config = self.settings.fit.config(usable)
        easy_rows = 0 if situation.easy is None else len(situation.easy.items)
        doubtful = [
            f"{situation.title}: {line}"
            for line in doubts(config, runs.subsets, easy_rows=easy_rows)
        ]
        for line in doubtful:
            self.say(line)
        store = FitStore(self.folder.fits(fits or situation.title))
        with self.progress(f"{situation.title}: fits") as report:
            measured = measure(
                situation,
                runs,
                states,
                config,
                taught=taught,
                boot=boot,
                names=names,
                store=store,
                report=report,
                members=members,
            )
        failed = [f"{situation.title}: {line}" for line in measured.doubts]
        for line in failed:
            self.say(line)
        measured.doubts = [*doubtful, *failed]
        return measured

    def methods(
        self, situation: Situation, runs: Runs, states: States, *, members: bool = False
    ) -> Measured:
        """Every probe of the settings, also those on rebalanced rows; zero-shot, and controls.

        Zero-shot is there calibrated, too, where the settings ask for that. `members` as of
        `measure`.
        """
        boot = situation.boot(self.settings.boot)
        measured = without_training(situation, states, boot)
        if self.prompts_asked and ZERO_SHOT_CALIBRATED in self.settings.prompts.methods_asked:
            measured += measure_zero_shot_calibrated(
                situation, states, self._scorer_of_stores(), boot=boot, say=self.say
            )
        if members:
            measured.members += untrained_members(situation, measured)
        plain = tuple(m for m in self.settings.methods if m not in REBALANCED)
        measured += self.probes(situation, runs, states, plain, boot, members=members)
        again = {REBALANCED[name]: name for name in self.settings.methods if name in REBALANCED}
        odds = states.train_log_probs
        if again and odds is not None:
            verdicts = odds[:, 0] > odds[:, 1]
            fewer = Runs(about=runs.about, subsets=rebalanced(runs.subsets, verdicts))
            measured += self.probes(
                situation, fewer, states, tuple(again), boot, names=again, members=members
            )
        return measured

    def format_of(self, situation: Situation) -> dict[str, Any]:
        """The contents of the prompt format where the settings ask for one, for identities.

        A set's own format is known by the stores that it made.

        Raises:
            ValueError: The situation is in another format: the study does not read that option.
        """
        if getattr(self.settings, "format", None) is None:
            return {}
        form = get_format(situation.format)
        if form not in (asked := formats_asked(self.settings)):
            names = ", ".join(each.name for each in asked if each is not None)
            raise ValueError(
                f"--format asks for {names}, and {self.folder.study} shows {situation.title} as "
                f"{form.name}: it does not read that option, so leave it out"
            )
        return {"format": vars(form)}

    @property
    def prompts_asked(self) -> bool:
        """Whether prompting methods are wanted, of a model that can be asked."""
        settings = self.settings
        asked = isinstance(settings, PromptedStudySettings) and settings.prompts.methods_asked
        return bool(asked) and not isinstance(self.model, Cases)

    def prompts(self, situation: Situation, runs: Runs) -> Measured:
        """The prompting methods of the settings."""
        settings = self.settings
        if not (self.prompts_asked and runs.about and settings.prompts.few_shot_asked):
            return Measured()
        assert isinstance(settings, PromptedStudySettings)
        return measure_prompting(
            situation,
            runs,
            self._scorer(),
            settings.prompts,
            boot=settings.boot,
            journals=self.folder.folder / "rounds",
            say=self.say,
        )

    def _scorer(self) -> Scorer:
        """The model as whoever is asked."""
        assert not isinstance(self.model, Cases)
        return self.model.scorer(progress=sys.stderr.isatty())

    def _scorer_of_stores(self) -> Scorer:
        """The same, in the unit of the zero-shot scores that come with hidden states."""
        assert not isinstance(self.model, Cases)
        return self.model.scorer(progress=sys.stderr.isatty(), match="tokens")

    def run(
        self,
        situation: Situation,
        states: States,
        settings: Mapping[str, Any],
        measure: Callable[[], Measured],
        *,
        about: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> str:
        """Measure a situation unless its rows are there, and say which; the run's id.

        Args:
            situation: What is measured.
            states: Its hidden states.
            settings: What changes its numbers, beside the data and what all studies share.
            measure: Gives rows and scores.
            about: What every row says beside `Situation.about`.
            note: For the message that tells of it.
        """
        chosen = {
            "dataset": situation.dataset,
            "layers": list(states.layers),
            "extraction": states.origin,
            **self.settings.identity(),
            **self.format_of(situation),
            **settings,
        }
        return self.keep(situation, chosen, measure, about=about, note=note)

    def has(self, situation: Situation, chosen: Mapping[str, Any]) -> bool:
        """Whether `keep` would read rows back."""
        return self.folder.has(situation, _compared(situation, chosen))

    def keep(
        self,
        situation: Situation,
        chosen: Mapping[str, Any],
        measure: Callable[[], Measured],
        *,
        about: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> str:
        """Measure a situation unless its rows are there, and say which; the run's id.

        Args:
            situation: What is measured.
            chosen: Everything that changes its numbers, beside the data.
            measure: Gives rows and scores.
            about: What every row says beside `Situation.about`.
            note: For the message that tells of it.
        """
        chosen = _compared(situation, chosen)
        begin = time.perf_counter()
        said = {**situation.about(self.model.name), **self.about, **(about or {})}

        def compared() -> Measured:
            measured = measure()
            boot = situation.boot(self.settings.boot)
            add_near_best(measured, situation.targets()[0].test, boot)
            return measured

        run, there = self.folder.run(situation, chosen, said, compared)
        if there:  # they were said where the rows were measured
            for line in self.folder.results.doubts(run):
                self.say(line)
        took = time.perf_counter() - begin
        done = (
            f"reused (run {run}, same settings)"
            if there
            else f"fitted and measured in {took:.1f} s (run {run})"
        )
        self.say(f"{situation.title}: {done}{f'; {note}' if note else ''}")
        return run


def _compared(situation: Situation, chosen: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a mark where several formats are compared: rows say only then which they are of."""
    return {**chosen, "compared": True} if situation.prompt else chosen
