"""Reward models from labels that nobody gave (Wen et al. 2025, section 4.4).

ICM labels a few pairs (which answer is better?), a first reward model learns from them and labels
the rest, and the final one learns from all. Beside it: the same model trained on golden labels, on
those of one annotator where a set has them, and on golden labels with as many errors as ICM's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.overlap import Policy
from jelicit.data.prompts import get_format
from jelicit.data.reward_bench import Category, read_reward_bench
from jelicit.icm import SearchSettings, with_mirrors
from jelicit.named import slug
from jelicit.prompting import zero_shot_scores
from jelicit.results import print_table
from jelicit.studies import scoring
from jelicit.studies.checks import (
    empty_values,
    folder_problems,
    mirror_problems,
    no_sets,
    refuse,
    same_names,
    set_problems,
    too_small,
    unknown,
)
from jelicit.studies.formats import FormatSettings, format_problems
from jelicit.studies.icm_tasks import Task
from jelicit.studies.measuring import Measured
from jelicit.studies.preference_tasks import apart_from, preference_task
from jelicit.studies.prompted import merged_seeds
from jelicit.studies.reward_findings import reward_findings
from jelicit.studies.reward_sources import Sources, preferences, sources_of
from jelicit.studies.session import Session
from jelicit.studies.situation import Situation
from jelicit.studies.study import Study
from jelicit.studies.trained import Reward, check_trainable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_SETS = ("pocket/pairs",)
LABELS = ("icm_first", "icm", "golden", "human", "perturbed")
"""Where the labels of a reward model come from."""
ALGORITHM = 1
"""Raised when the same settings lead to other rows than before."""


@dataclass(frozen=True, kw_only=True)
class Settings(FormatSettings):
    """Train reward models on labels of several sources, and test them on held-out pairs.

    Attributes:
        dataset: Sets of pairs by name (pocket/pairs, alpaca, ...), or folders with train.jsonl and
            test.jsonl. Sets of claims (cities, truthfulqa) are turned into pairs, a true claim
            beside a false one.
        n: Train items that ICM labels, both orders of a pair counted, in whole groups.
        batch: Most items in one search, in batches that do not see each other's labels; None = one
            search, of as many as fit.
        rest: More train pairs, which the first reward model labels.
        tests: Test pairs.
        labels: Which reward models: icm_first (of ICM's labels alone), icm (of all, in two stages),
            golden, human (one annotator's, where a set has them), perturbed (golden with as many
            errors as icm).
        rewards: Folders of reward models that were made before, here or elsewhere (one score):
            tested beside, on the same pairs. What they learned from is not known here.
        seeds: Runs; each draws its own train pairs, first labels and weights.
        bench: A set in RewardBench's layout to test on, too: a file or folder of prompt, chosen,
            rejected, subset, or an id of the hub (allenai/reward-bench). None = none.
        format: How pairs are shown to the search; None = the set's own, or pair.
        shown: How an answer is shown to a reward model: a format of claims, up to the verdict.
        limit: Most tokens of a prompt of the search; None = as of icm.
        alpha: Weight of mutual predictability.
        initial: Random labels to begin with.
        draws: Most items drawn in a search; None = 12 for each item.
        epochs: Times that a reward model sees each pair.
        learning_rate: Of reward models; None = 3e-4 for models below 30 M parameters, else 1e-4
            with LoRA and 1e-5 without.
        batch_size: Pairs of one step.
        rank: Of LoRA; 0 = all weights; None = all for models below 30 M parameters, else 16.
        max_length: Most tokens of a question with an answer; longer pairs are left out. None = as
            many as the model reads.
        hub_root: Folder with copies of the hub's sets, as they lie there (<folder>/<hub id>/...),
            and of the tables of Marks and Tegmark; the hub is not asked for sets then.
        overlap: What to do with train pairs whose text is a test pair's: drop (with all pairs of
            their groups) or refuse.
        boot: Bootstrap samples (of whole questions) behind every interval.
        out: Folder of rows, labels, models, figures and the report; None = a temporary one.
    """

    dataset: tuple[str, ...] = DEFAULT_SETS
    n: int = 32
    batch: int | None = 16
    rest: int = 200
    tests: int = 80
    labels: tuple[str, ...] = LABELS
    rewards: tuple[Path, ...] = ()
    seeds: int = 3
    bench: str | None = None
    shown: str = "claim"
    limit: int | None = None
    alpha: float = 50.0
    initial: int = 8
    draws: int | None = None
    epochs: int = 2
    learning_rate: float | None = None
    batch_size: int = 16
    rank: int | None = None
    max_length: int | None = None
    hub_root: Path | None = None
    overlap: Policy = "drop"
    boot: int = 1000
    out: Path | None = None

    def search(self, seed: int) -> SearchSettings:
        """The settings of one search."""
        return SearchSettings(
            seed=seed,
            alpha=self.alpha,
            rule="asymmetry",
            initial=self.initial,
            draws=self.draws,
        )

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = unknown("--labels", self.labels, LABELS)
        problems += no_sets(self.dataset) + set_problems(self.dataset)
        problems += format_problems(self.format)
        problems += mirror_problems(self.hub_root, self.dataset)
        if self.overlap == "keep":
            problems.append(
                "--overlap keep: training on test pairs is refused; allowed are drop and refuse"
            )
        problems += [
            f"--rewards {each}: no model is there (no config.json); give the folder of one"
            for each in self.rewards
            if not (each / "config.json").is_file()
        ]
        problems += same_names([method_made(each) for each in self.rewards])
        if "perturbed" in self.labels and "icm" not in self.labels:
            problems.append("--labels perturbed needs icm, whose errors it has: name both")
        problems += too_small(
            [
                ("--n", self.n, 4),
                ("--rest", self.rest, 1),
                ("--tests", self.tests, 4),
                ("--seeds", self.seeds, 1),
                ("--epochs", self.epochs, 1),
                ("--batch-size", self.batch_size, 1),
                ("--initial", self.initial, 1),
                ("--boot", self.boot, 1),
                *(("--rank", each, 0) for each in (self.rank,) if each is not None),
                *(("--max-length", each, 1) for each in (self.max_length,) if each is not None),
            ]
        )
        if self.learning_rate is not None and not self.learning_rate > 0:
            problems.append(f"--learning-rate {self.learning_rate:g}: allowed are numbers above 0")
        return problems + folder_problems(self.out)

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is loaded.

        Raises:
            ValueError: Naming every option that is wrong, and what it allows.
        """
        refuse(empty_values(self))
        refuse(self.problems())
        if "choice_2" in get_format(self.shown).fields:
            raise ValueError(
                f"--shown {self.shown} shows two answers, and a reward is of one: give a format of "
                "claims, such as claim"
            )
        self.search(0)  # checks its parts

    def for_model(self, trained_length: int | None) -> Settings:
        """With numbers for what was left to the model: nothing here."""
        return self

    def fit(self, seed: int) -> dict[str, Any]:
        """How a reward model is trained, as `Trainable.reward_model` takes it."""
        return {
            "seed": seed,
            "format": self.shown,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch": self.batch_size,
            "rank": self.rank,
            "max_length": self.max_length,
        }

    def identity(self) -> dict[str, Any]:
        """All that decides rows, beside items, model and format."""
        names = ("n", "batch", "rest", "labels", "limit", "boot", "seeds")
        chosen = {name: getattr(self, name) for name in names}
        shown = vars(get_format(self.shown))
        return {**chosen, "fit": {**self.fit(0), "format": shown}, "algorithm": ALGORITHM}


def method_made(folder: Path) -> str:
    """What rows call a reward model that was made before."""
    return f"reward_made_{slug(folder.name)}"


@dataclass(frozen=True)
class Part:
    """One set, and the benchmark beside it."""

    task: Task
    bench: tuple[Category, ...]


def plan(settings: Settings, session: Session) -> list[Part]:
    """Every set as pairs, with all text loaded.

    Raises:
        ValueError: A set has no pairs, or the model cannot be trained.
    """
    check_trainable(session.model, session.folder.study)
    bench = () if settings.bench is None else read_reward_bench(settings.bench)
    tested = [item for category in bench for item in category.items]
    tasks = [
        apart_from(preference_task(name, session, tests=settings.tests), tested, session)
        for name in settings.dataset
    ]
    refuse(same_names([task.situation.title for task in tasks]))
    return [Part(task, bench) for task in tasks]


# --- measuring -----------------------------------------------------------------------------------


def measure(parts: Sequence[Part], session: Session) -> None:
    """Train and measure every set unless its rows are there."""
    model: Any = session.model
    scorer = model.scorer()
    for part in parts:
        begun = sources_of(part.task, scorer, session)
        measure_rewards(part, begun, scorer, session)


def measure_rewards(part: Part, begun: Sequence[Sources], scorer: Any, session: Session) -> None:
    """Rows of reward models on held-out pairs, and on every category of the benchmark."""
    situation = part.task.situation
    chosen = chosen_of(part.task, scorer, session)
    made = made_before(session)
    if made:
        chosen["made"] = {name: each.digest for name, each in made.items()}
    session.keep(
        situation,
        chosen,
        lambda: _measured(
            situation, begun, session, made, on=lambda m: preferences(m, situation.test)
        ),
        about={"part": "reward"},
    )
    for category in part.bench:
        tested = _as_situation(category, situation, session)
        weights = dict(zip((i.group for i in category.items), category.weights, strict=True))
        session.keep(
            tested,
            {**chosen, "trained_on": situation.title},
            lambda s=tested, w=weights: _measured(s, begun, session, made, weights=w),
            about={"part": "bench", "trained_on": situation.title},
        )


def made_before(session: Session) -> dict[str, Any]:
    """Reward models of `--rewards`, by what rows call them."""
    model: Any = session.model
    return {method_made(each): model.open_reward(each) for each in session.settings.rewards}


def chosen_of(task: Task, scorer: Any, session: Session) -> dict[str, Any]:
    """All that decides a set's numbers, beside its items."""
    settings = session.settings
    return {
        "dataset": task.situation.dataset,
        "scorer": scorer.name,
        "format": vars(get_format(task.situation.format)),
        "search": settings.search(0),
        **settings.identity(),
    }


def _as_situation(category: Category, trained: Situation, session: Session) -> Situation:
    name = Path(str(session.settings.bench)).name
    of_set = "" if len(session.settings.dataset) == 1 else f", after {trained.title}"
    return Situation(
        dataset=f"{name}: {category.name}{of_set}",
        format=trained.format,
        train=(),
        test=tuple(with_mirrors(category.items)),
    )


def _measured(
    situation: Situation,
    begun: Sequence[Sources],
    session: Session,
    made: Mapping[str, Reward],
    *,
    on: Callable[[Reward], np.ndarray] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Measured:
    """Rows of every source with every seed, of models made before, zero-shot prompts and length."""
    measured, boot = Measured(), situation.boot(session.settings.boot)

    def add(method: str, seed: int, scores: np.ndarray, **about: Any) -> None:
        (row,) = scoring.fixed_rows({method: scores}, situation.targets(), boot)
        if weights is not None:
            row |= weighted_accuracy(situation, scores, weights, boot)
        measured.rows.append({**row, "seed": seed, **about})
        measured.scores.append(({"method": method, "orientation": "none"}, scores))

    for sources in begun:
        for source in session.settings.labels:
            begin = time.perf_counter()
            reward = sources.reward(source)
            if reward is None:
                if on is not None and sources.seed == 0:
                    session.say(f"{situation.title}: no labels by {source}, so no reward model")
                continue
            method, scores = f"reward_{source}", preferences(reward, situation.test)
            took = time.perf_counter() - begin
            add(method, sources.seed, scores, **sources.told[source], seconds=took)
            session.say(
                f"{situation.title}, seed {sources.seed}, {method}: accuracy "
                f"{measured.rows[-1]['accuracy']:.2f} ({took:.1f} s)"
            )
    for method, reward in made.items():
        add(method, 0, preferences(reward, situation.test))
        reward.release()
    lengths = [len(item.choice) - len(str(item.choice_2)) for item in situation.test]
    add("control_length", 0, np.array(lengths, float))
    if on is not None:
        scorer = begun[0].scorer
        add("zero_shot", 0, zero_shot_scores(scorer, situation.test, situation.format))
    return merged_seeds(measured)


def weighted_accuracy(
    situation: Situation, scores: np.ndarray, weights: Mapping[str, float], boot: Any
) -> dict[str, float]:
    """Accuracy where rows weigh differently, with its interval over the groups of test items."""
    own = np.array([weights[item.group] for item in situation.test])
    gold = np.array([bool(item.label) for item in situation.test])
    right = np.where(scores == 0, 0.5, (scores > 0) == gold)
    return with_interval("accuracy", right, boot, weights=own)


def with_interval(
    name: str, values: np.ndarray, boot: Any, *, weights: np.ndarray | None = None
) -> dict[str, float]:
    """A mean [n] and its 95% interval over bootstrap samples [B, n], under a name."""
    known = np.isfinite(values)
    own = np.where(known, 1.0 if weights is None else weights, 0.0)
    if not known.any():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    values, drawn = np.where(known, values, 0.0), np.asarray(boot, float) * own
    with np.errstate(invalid="ignore"):
        means = drawn @ values / drawn.sum(1)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return {
        name: float((own * values).sum() / own.sum()),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
    }


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """Accuracy on held-out pairs and on the benchmark, and right labels."""
    for value, said in (("accuracy", "Accuracy on test pairs"), ("label_accuracy", "Right labels")):
        kept = rows.loc[rows["part"] == "reward"] if value == "label_accuracy" else rows
        if value in kept:
            known = kept.dropna(subset=value)
            if not known.empty:
                print_table(known, value=value, title=said, console=session.console)
    session.say(f"reward models: {session.folder.folder / 'models'}")


def draw(rows: pd.DataFrame, session: Session) -> dict[str, Figure]:
    """Accuracy per source of labels, a panel per set and category."""
    return {"reward-accuracy": figures.accuracy_figure(rows)}


STUDY = Study(
    name="reward",
    title="Reward models without labels",
    lead=(
        "Can labels by coherence train a reward model? ICM labels a few pairs, a reward model "
        "trained on them labels the rest, and a second one learns from all. It is compared with "
        "reward models trained on golden labels of the same pairs, on one annotator's, and on "
        "golden labels with as many errors. All are tested on pairs whose questions none of them "
        "has seen."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=reward_findings,
)
run = STUDY.run
