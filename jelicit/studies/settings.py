"""Settings that studies share: sets, probes and how they are fitted, prompting methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import tyro

from jelicit.data.overlap import Policy
from jelicit.probes.methods import METHODS, SweepConfig, get_method
from jelicit.probes.sweep import check_config
from jelicit.probes.sweep.identity import algorithms_of
from jelicit.prompting import CALIBRATED, ZERO_SHOT_CALIBRATED
from jelicit.prompting import METHODS as PROMPTING
from jelicit.prompting.calibrated import ALGORITHM as CALIBRATION
from jelicit.prompting.consistency import RULES
from jelicit.studies.checks import (
    empty_values,
    folder_problems,
    given,
    layer_problems,
    mirror_problems,
    refuse,
    repeated,
    set_problems,
    too_small,
    unknown,
)
from jelicit.studies.fit_settings import FitSettings
from jelicit.studies.formats import FormatSettings, format_problems
from jelicit.studies.idle import idle_fit_options, reads_easy

SHORT = 2048
"""Tokens trained on that 32 examples, some 1,200 tokens of short claims, are too many for."""

REBALANCED = {"ccs_rebalanced": "ccs", "pca_rebalanced": "pca"}
"""Methods that train on rows rebalanced by the model's own zero-shot verdicts -> their probe."""


@dataclass(frozen=True, kw_only=True)
class StudySettings(FormatSettings):
    """What every study of probes asks for.

    Attributes:
        fit: How probes are fitted.
        dataset: Sets by name (pocket/arithmetic, gsm8k, liar, ...), or folders with train.jsonl and
            test.jsonl.
        layers: Hidden-state indices, or "best": the layer with the best CCS AUROC on train rows
            without an added feature (an oracle: it looks at train labels).
        methods: Which probes; zero-shot and controls are always there. Beside paper A's ten:
            mean_difference and lda, which learn from the labels as "supervised" does, and
            ccs_rebalanced and pca_rebalanced, whose train rows are as often True as False by the
            model's own zero-shot answer; the field's proposals (drc, midpoint, vinc, kmeans,
            cluster_pca, cluster_ccs, leace_pca, leace_ccs, logistic, mlp); and one's own as
            package.module:NAME or file.py:NAME.
        seeds: Runs of the probes; each draws its own start and its own train rows.
        max_rows: Most rows per split that are extracted. Sets of one size share compiled code.
        easy: The easy labelled set of easy-to-hard methods; None = the set's own choice, "none" =
            do without.
        hub_root: Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...),
            and of the tables of Marks and Tegmark; the hub is not asked for sets then.
        overlap: What to do with rows to fit on whose text is a test row's: drop (with all rows of
            their groups), refuse, or keep.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows, figures and the report; None = a temporary one.
    """

    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    dataset: tuple[str, ...] = ()
    layers: tuple[str, ...] = ("best",)
    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    max_rows: int = 800
    easy: str | None = None
    hub_root: Path | None = None
    overlap: Policy = "drop"
    boot: int = 1000
    out: Path | None = None

    @property
    def fixed_layers(self) -> tuple[int, ...] | None:
        """The layers asked for by number; None where the best is to be found."""
        return None if self.layers == ("best",) else tuple(int(layer) for layer in self.layers)

    @property
    def sets_read(self) -> tuple[str | None, ...]:
        """The sets that were named; a set's own choice of an easy one is not among them."""
        return (*self.dataset, self.easy)

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes behind the methods asked for."""
        return tuple(dict.fromkeys(REBALANCED.get(name, name) for name in self.methods))

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = method_problems(self.methods)
        found += set_problems(self.dataset)
        found += mirror_problems(self.hub_root, self.sets_read)
        found += format_problems(self.format)
        found += layer_problems(self.layers)
        found += too_small(
            [
                ("--seeds", self.seeds, 1),
                ("--boot", self.boot, 1),
                ("--max-rows", self.max_rows, 8),
                ("--restarts", self.fit.restarts, 1),
            ]
        )
        return found + (self.idle() if not found else []) + folder_problems(self.out)

    def idle(self) -> list[str]:
        """Problems of options that would do nothing, of settings that are right by themselves."""
        # The layer is chosen by CCS, which reads the settings of fits, too.
        fitted = self.probes if self.fixed_layers else (*dict.fromkeys(("ccs", *self.probes)),)
        found = idle_fit_options(self.fit, fitted)
        if self.easy not in (None, "none") and not reads_easy(self.probes):
            found.append(
                f"--easy does nothing with --methods {' '.join(self.methods)}: leave it out"
            )
        return found

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is loaded.

        Raises:
            ValueError: Naming every option that is wrong, and what it allows.
        """
        refuse(empty_values(self))
        refuse(self.problems())
        check_config(self.fit.config(self.probes))

    def for_model(self, trained_length: int | None) -> Self:
        """With numbers for what was left to the model.

        Args:
            trained_length: Longest text that it was trained on; None = nothing says so.
        """
        return self

    def identity(self) -> dict[str, Any]:
        """What changes the numbers of probes, beside the data."""
        return {
            "layer_choice": "best CCS on train rows (oracle)" if not self.fixed_layers else "given",
            "methods": [_key(name) for name in self.methods],
            "seeds": self.seeds,
            "max_rows": self.max_rows,
            "overlap": self.overlap,
            "boot": self.boot,
            "sweep": fit_identity(self.fit.config(self.probes)),
        }


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How prompting methods are run.

    What is None goes by the model: small numbers for pocket models, whose prompts have to fit the
    length they were trained on, paper A's for all others.

    Attributes:
        prompting: Which prompting methods; none with --prompting none. Beside the default ones:
            zero_shot_calibrated, random_few_shot_calibrated, bootstrapped_calibrated,
            bootstrapped_consistent_calibrated and golden_few_shot_calibrated, which take off what
            the same prompt says of no claim (Zhao et al. 2021).
        shots: Examples in a prompt, round by round; None = 2 8 (pocket) or 2 32.
        pool: Train items that bootstrapping labels; None = 48 (pocket) or 512.
        prompt_tests: Test items that prompting methods are measured on; None = 64 (pocket) or 512.
        prompt_seeds: Runs of the prompting methods; None = 1 (pocket) or 3.
        rule: Consistency rule of bootstrapping + consistency: answer, asymmetry or none.
    """

    prompting: tuple[str, ...] = PROMPTING
    shots: tuple[int, ...] | None = None
    pool: int | None = None
    prompt_tests: int | None = None
    prompt_seeds: int | None = None
    rule: str = "answer"

    @property
    def methods_asked(self) -> tuple[str, ...]:
        """The prompting methods asked for."""
        return () if self.prompting == ("none",) else self.prompting

    @property
    def few_shot_asked(self) -> tuple[str, ...]:
        """Those of them that show examples."""
        return tuple(name for name in self.methods_asked if name != ZERO_SHOT_CALIBRATED)

    @property
    def calibrated_asked(self) -> tuple[str, ...]:
        """Those of them that take off what their prompts say of no claim."""
        calibrated = (ZERO_SHOT_CALIBRATED, *CALIBRATED)
        return tuple(name for name in self.methods_asked if name in calibrated)

    @property
    def runs(self) -> int:
        """How many runs of every method: `prompt_seeds`, once it has a number."""
        if self.prompt_seeds is None:
            raise ValueError("prompt_seeds goes by the model: call `fitting` first")
        return self.prompt_seeds

    def fitting(self, trained_length: int | None) -> PromptSettings:
        """With numbers for what was left to the model.

        Args:
            trained_length: Longest text it was trained on; None = nothing says so.
        """
        short = trained_length is not None and trained_length < SHORT
        shots, pool, tests, seeds = ((2, 8), 48, 64, 1) if short else ((2, 32), 512, 512, 3)
        return replace(
            self,
            shots=self.shots or shots,
            pool=self.pool or pool,
            prompt_tests=self.prompt_tests or tests,
            prompt_seeds=self.prompt_seeds or seeds,
        )

    def idle(self, names: Sequence[str], *, of: Any = None) -> list[str]:
        """Problems of options of few-shot prompts that would do nothing, since none are asked for.

        Args:
            names: The options, as fields are called.
            of: Whose fields; None = these settings.
        """
        if self.few_shot_asked:
            return []
        asked = " ".join(self.prompting)
        options = given(self if of is None else of, names)
        return [f"{option} does nothing with --prompting {asked}" for option in options]

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = []
        if self.prompting != ("none",):
            found += unknown(
                "--prompting", self.prompting, (*PROMPTING, ZERO_SHOT_CALIBRATED, *CALIBRATED)
            )
        found += self.idle([each.name for each in fields(self) if each.name != "prompting"])
        if self.rule not in RULES:
            found.append(f"--rule {self.rule} is unknown; known: {', '.join(RULES)}")
        numbers = []
        if self.prompt_seeds is not None:
            numbers.append(("--prompt-seeds", self.prompt_seeds, 1))
        if self.pool is not None:
            numbers.append(("--pool", self.pool, 2))
        if self.prompt_tests is not None:
            numbers.append(("--prompt-tests", self.prompt_tests, 2))
        if self.shots is not None:
            numbers.append(("--shots", min(self.shots, default=0), 1))
        return found + too_small(numbers)


@dataclass(frozen=True, kw_only=True)
class PromptedStudySettings(StudySettings):
    """What every study of probes and prompting methods asks for.

    Attributes:
        prompts: How prompting methods are run.
    """

    prompts: tyro.conf.OmitArgPrefixes[PromptSettings] = field(default_factory=PromptSettings)

    def for_model(self, trained_length: int | None) -> Self:
        """With numbers for what was left to the model; see `StudySettings.for_model`."""
        return replace(self, prompts=self.prompts.fitting(trained_length))

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        return super().problems() + self.prompts.problems()

    def identity(self) -> dict[str, Any]:
        """What changes the numbers, beside the data."""
        calibrated = {"calibrated": CALIBRATION} if self.prompts.calibrated_asked else {}
        return {**super().identity(), "prompts": self.prompts, **calibrated}


def _key(method: str) -> str:
    """What rows call a method that may be named by where it is declared."""
    return method if method in REBALANCED else get_method(method).name


def method_problems(methods: Sequence[str]) -> list[str]:
    """Problems of --methods: unknown or repeated ones, none at all."""
    problems = repeated("--methods", methods)
    for name in methods:
        if name not in REBALANCED:
            try:
                get_method(name)
            except ValueError as error:
                problems.append(f"--methods: {error}")
    return problems if methods else ["--methods is empty; name at least one"]


def fit_identity(config: SweepConfig) -> dict[str, Any]:
    """What decides the numbers of fits: each method's algorithm and settings, the divisor."""
    methods = config.resolved()
    return {
        "algorithms": algorithms_of(methods),
        "divisor": config.divisor,
        "settings": {
            method.name: {name: config.value(own) for name, own in method.reads.items()}
            for method in methods
        },
    }
