"""Assistants from labels that nobody gave (Wen et al. 2025, section 4.4, Figure 7).

A policy is optimised against the reward model of ICM's labels, others against those of golden
labels or of one annotator's. Their answers to held-out questions are judged head to head by a third
reward model, which no policy was optimised against. Beside reward and win rate stand what tells of
over-optimisation: divergence from the start, length, and, where it is known, the truth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from jelicit import figures
from jelicit.data.items import Item, label_of
from jelicit.data.overlap import normal_text
from jelicit.data.preferences import ASKED, check_unseen, comparisons, one_order, wrong_question
from jelicit.studies import reward
from jelicit.studies.assistant_table import print_answers
from jelicit.studies.checks import repeated, too_small
from jelicit.studies.icm_tasks import Task, drawn
from jelicit.studies.measuring import Measured
from jelicit.studies.preference_tasks import right_answers, without_groups
from jelicit.studies.reward import with_interval
from jelicit.studies.reward_findings import assistant_findings
from jelicit.studies.reward_sources import Sources, preferences, short_key, sources_of
from jelicit.studies.scoring import NO_LAYER
from jelicit.studies.session import Session
from jelicit.studies.study import Study
from jelicit.studies.trained import Answers, Reward

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POLICIES = ("icm", "golden", "human")
"""Labels whose reward model a policy is optimised against."""
ALGORITHM = 2
"""Raised when the same settings lead to other rows than before."""
JUDGE_SEED = 1000
"""Of the judge's weights: no other reward model's."""
TRUTHS = ("text", "unknown")


@dataclass(frozen=True, kw_only=True)
class Settings(reward.Settings):
    """Optimise policies against reward models of several labels, and have a third one judge.

    Attributes:
        policies: Labels whose reward model a policy is optimised against; human only where a set
            has them.
        judge: Train pairs set aside for the judge, a reward model of golden labels that nothing is
            optimised against; no other model sees them.
        asked: How a question is put, with {question}; an answer is what the model goes on with, up
            to the end of its line.
        truth: text = an answer is right if its text is a right answer's, as in the pocket world;
            unknown = no answer is counted as right. None = text for sets of the pocket world.
        questions: Test questions that are answered.
        samples: Answers to each.
        best_of: Answers of the model as it was, of which a reward model takes the best.
        steps: Of optimisation.
        group: Answers to one question in a step, which are compared with each other.
        policy_batch: Answers in a step.
        policy_rate: Learning rate of policies; None = as of reward models.
        beta: Weight of the divergence from the start.
        temperature: Of all sampling.
        max_tokens: Most tokens of an answer.
    """

    policies: tuple[str, ...] = POLICIES
    judge: int = 150
    asked: str = ASKED
    truth: str | None = None
    questions: int = 60
    samples: int = 4
    best_of: int = 8
    steps: int = 80
    group: int = 8
    policy_batch: int = 64
    policy_rate: float | None = None
    beta: float = 0.05
    temperature: float = 1.0
    max_tokens: int = 16
    seeds: int = 2

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        problems = super().problems() + repeated("--policies", self.policies)
        if without := [name for name in self.policies if name not in self.labels]:
            problems.append(
                f"--policies {' '.join(without)}: no reward model of them is trained; name them in "
                f"--labels, too (now {' '.join(self.labels)})"
            )
        if others := [name for name in self.policies if name not in POLICIES]:
            problems.append(f"--policies {' '.join(others)}: allowed are {', '.join(POLICIES)}")
        if self.truth is not None and self.truth not in TRUTHS:
            problems.append(f"--truth {self.truth}: allowed are {', '.join(TRUTHS)}")
        if wrong := wrong_question(self.asked):
            problems.append(f"--asked {self.asked!r} {wrong}")
        names = ("judge", "questions", "samples", "best_of", "steps", "max_tokens")
        at_least_one = [(f"--{n.replace('_', '-')}", getattr(self, n), 1) for n in names]
        problems += too_small([*at_least_one, ("--group", self.group, 2)])
        if self.group >= 2 and self.policy_batch % self.group:
            problems.append(
                f"--policy-batch {self.policy_batch}: allowed are multiples of --group {self.group}"
            )
        if self.policy_rate is not None and not self.policy_rate > 0:
            problems.append(f"--policy-rate {self.policy_rate:g}: allowed are numbers above 0")
        if not self.beta >= 0 or not self.temperature > 0:
            problems.append(
                f"--beta {self.beta:g} --temperature {self.temperature:g}: allowed are 0 or more, "
                "and above 0"
            )
        return problems

    def policy_fit(self, seed: int) -> dict[str, Any]:
        """How a policy is optimised, as `Trainable.policy` takes it."""
        return {
            "seed": seed,
            "asked": self.asked,
            "steps": self.steps,
            "samples": self.group,
            "batch": self.policy_batch,
            "learning_rate": self.policy_rate,
            "rank": self.rank,
            "beta": self.beta,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def of_answers(self) -> dict[str, Any]:
        """What decides the rows of answers, beside all that decides the reward models."""
        names = ("policies", "judge", "truth", "questions", "samples", "best_of")
        chosen = {name: getattr(self, name) for name in names}
        return {**chosen, "policy": self.policy_fit(0), "algorithm_of_answers": ALGORITHM}


@dataclass(frozen=True)
class Part:
    """One set: what reward models learn from, and what is set aside for the judge."""

    of_rewards: reward.Part
    set_aside: tuple[Item, ...]

    @property
    def task(self) -> Task:
        """The set without what is set aside."""
        return self.of_rewards.task


def plan(settings: Settings, session: Session) -> list[Part]:
    """Every set as pairs, some of them set aside for the judge, with all text loaded.

    Raises:
        ValueError: A set has no pairs or too few, or the model cannot be trained.
    """
    parts = []
    for part in reward.plan(settings, session):
        aside = drawn(part.task.situation.train, 2 * settings.judge, seed=JUDGE_SEED)
        left = without_groups(part.task, aside)
        parts.append(Part(reward.Part(left, part.bench), one_order(aside)))
    return parts


def measure(parts: Sequence[Part], session: Session) -> None:
    """Train and measure every set unless its rows are there."""
    model: Any = session.model
    scorer = model.scorer()
    for part in parts:
        begun = sources_of(part.task, scorer, session)
        reward.measure_rewards(part.of_rewards, begun, scorer, session)
        session.keep(
            part.task.situation,
            {
                **reward.chosen_of(part.task, scorer, session),
                **session.settings.of_answers(),
                "set_aside": [item.id for item in part.set_aside],
            },
            lambda p=part, b=begun: _measured(p, b, session),
            about={"part": "assistant"},
            note="answers",
        )


def _measured(part: Part, begun: Sequence[Sources], session: Session) -> Measured:
    """Rows of every policy with every seed, of the start, and of the best of n answers."""
    return Measured(
        rows=[row for sources in begun for row in _Bench(part, sources, session).rows()]
    )


# --- one seed ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A method's answers to q questions, n of each.

    Attributes:
        method: Which.
        answers: [q, n].
        tokens: [q, n].
        kl: [q, n], nats.
        source: Of the labels of its reward model; "" = none was used.
    """

    method: str
    answers: list[list[str]]
    tokens: np.ndarray
    kl: np.ndarray
    source: str = ""


@dataclass(frozen=True)
class _Bench:
    """One seed of one set: policies, their answers to the test questions, and the judge."""

    part: Part
    sources: Sources
    session: Session

    @property
    def _settings(self) -> Settings:
        return self.session.settings

    @cached_property
    def asked(self) -> tuple[Item, ...]:
        """The test pairs whose questions are answered, one of each question."""
        first = {item.question: item for item in one_order(self.part.task.situation.test)}
        return tuple(first.values())[: self._settings.questions]

    @cached_property
    def questions(self) -> list[str]:
        """The test questions."""
        return [item.question for item in self.asked]

    @cached_property
    def trained_on(self) -> list[str]:
        """Train questions; no test question is among them.

        Raises:
            ValueError: One is.
        """
        train = dict.fromkeys(item.question for item in self.part.task.situation.train)
        known = {normal_text(question) for question in train}
        if shared := [question for question in self.questions if normal_text(question) in known]:
            raise ValueError(
                f"{self.part.task.situation.dataset}: the test question {shared[0]!r} is a train "
                "question, too; keep all pairs of a question on one side"
            )
        return list(train)

    @cached_property
    def boot(self) -> Any:
        """Bootstrap weights [B, q] over the groups of the test questions."""
        asked = replace(self.part.task.situation, test=self.asked)
        return asked.boot(self._settings.boot)

    @cached_property
    def judge(self) -> Reward:
        """A reward model of golden labels on pairs that no other model sees."""
        aside, situation = self.part.set_aside, self.part.task.situation
        made = comparisons(aside, [label_of(item) for item in aside])
        check_unseen(made, situation.test, what="training of the judge")
        return self.sources.taught("judge", made, seed=JUDGE_SEED, labels="golden", role="judge")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of this seed."""
        begin = time.perf_counter()
        start = self.sources.model.start(self._settings.asked)
        drawn = self._sample(start, start, n=max(self._settings.samples, self._settings.best_of))
        said = [self._first(drawn)]
        for source in self._settings.policies:
            model = self.sources.reward(source)
            if model is not None:
                said += [self._best(drawn, source, model), self._policy(start, source, model)]
        rows = [self._row(each, said) for each in said]
        took = time.perf_counter() - begin
        self.session.say(
            f"{self.part.task.situation.title}, seed {self.sources.seed}: {len(said)} sets of "
            f"answers judged ({took:.1f} s)"
        )
        return rows

    def _sample(self, model: Any, start: Any, *, n: int) -> Answers:
        settings = self._settings
        return model.sample(
            self.questions,
            n=n,
            seed=self.sources.seed,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            start=start,
        )

    def _first(self, drawn: Answers) -> Said:
        n = self._settings.samples
        answers = [each[:n] for each in drawn.answers]
        return Said("start", answers, drawn.tokens[:, :n], np.zeros((len(answers), n)))

    def _best(self, drawn: Answers, source: str, model: Reward) -> Said:
        """Of n answers that with the highest reward; its divergence is bounded by that of n."""
        n = self._settings.best_of
        answers = [each[:n] for each in drawn.answers]
        best = self._rewarded(model, answers).argmax(1)
        rows = np.arange(len(answers))
        return Said(
            f"best_of_{source}",
            [[each[place]] for each, place in zip(answers, best, strict=True)],
            drawn.tokens[rows, best][:, None],
            np.full((len(answers), 1), math.log(n) - (n - 1) / n),
            source,
        )

    def _policy(self, start: Any, source: str, model: Reward) -> Said:
        fit = self._settings.policy_fit(self.sources.seed)
        own = short_key(self.sources.scorer.name, model.name, self.trained_on, fit)
        policy = self.sources.model.policy(
            self.trained_on,
            model,
            self.sources.file("models", f"policy-{source}-{own}"),
            about={
                "labels of the reward model": source,
                "set": self.part.task.situation.dataset,
            },
            **fit,
        )
        drawn = self._sample(policy, start, n=self._settings.samples)
        return Said(f"policy_{source}", drawn.answers, drawn.tokens, drawn.kl, source)

    def _rewarded(self, model: Reward, answers: Sequence[Sequence[str]]) -> np.ndarray:
        """Rewards [q, n]; -inf where there is no text."""
        asked = [q for q, each in zip(self.questions, answers, strict=True) for _ in each]
        flat = model.rewards(asked, [answer for each in answers for answer in each])
        return flat.reshape(len(answers), -1)

    # --- what a row says ---

    def _row(self, said: Said, all_said: Sequence[Said]) -> dict[str, Any]:
        judged = self._rewarded(self.judge, said.answers)
        row: dict[str, Any] = {
            "method": said.method,
            "orientation": "none",
            "seed": self.sources.seed,
            "target": "truth",
            "role": "truth",
            "layer": NO_LAYER,
            "n_train": len(self.trained_on) if said.method.startswith("policy_") else 0,
            "judge_accuracy": self._judge_accuracy,
            "judge_reward": float(_finite(judged).mean()),
            "empty": float(np.mean([not text for each in said.answers for text in each])),
            **with_interval("kl", said.kl.mean(1), self.boot),
            **with_interval("tokens", said.tokens.mean(1), self.boot),
        }
        for other in all_said:
            name = other.method.removeprefix("policy_")
            if other is not said and other.method in ("start", *(f"policy_{p}" for p in POLICIES)):
                won = win_rates(judged, self._rewarded(self.judge, other.answers))
                row |= with_interval(f"win_rate_{name}", won, self.boot)
        return row | self._own_reward(said, all_said[0]) | self._truth(said)

    @cached_property
    def _judge_accuracy(self) -> float:
        pairs = one_order(self.part.task.situation.test)
        right = (preferences(self.judge, pairs) > 0) == [bool(item.label) for item in pairs]
        return float(np.mean(right))

    def _own_reward(self, said: Said, start: Said) -> dict[str, float]:
        """Its reward by the model that it was chosen by, and how much more that is than before."""
        model = self.sources.reward(said.source) if said.source else None
        if model is None:
            return {}
        own = _finite(self._rewarded(model, said.answers)).mean(1)
        before = _finite(self._rewarded(model, start.answers)).mean(1)
        return with_interval("reward", own, self.boot) | with_interval(
            "reward_gain", own - before, self.boot
        )

    def _truth(self, said: Said) -> dict[str, float]:
        """Share of true answers, and of wrong ones that have at least a right one's reward."""
        if not knows_truth(self._settings, self.part.task):
            return {}
        right = right_answers(self.part.task.situation.test)
        true = np.array(
            [
                [normal_text(text) in {normal_text(each) for each in right[q]} for text in each]
                for q, each in zip(self.questions, said.answers, strict=True)
            ]
        )
        found = with_interval("accuracy", true.mean(1), self.boot)
        model = self.sources.reward(said.source) if said.source else None
        if model is None:
            return found
        line = self._rewarded(model, [[min(right[q])] for q in self.questions])
        fooled = ~true & (self._rewarded(model, said.answers) >= line)
        return found | with_interval("fooled", fooled.mean(1), self.boot)


def knows_truth(settings: Settings, task: Task) -> bool:
    """Whether an answer's text says that it is right."""
    if settings.truth is None:
        return task.situation.dataset.startswith("pocket/")
    return settings.truth == "text"


def win_rates(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of comparisons that our answers win, by question [q]; a tie is half a win.

    Args:
        ours: Rewards [q, n].
        others: Rewards [q, m] of answers to the same questions.
    """
    mine, theirs = ours[:, :, None], others[:, None, :]
    return ((mine > theirs) + 0.5 * (mine == theirs)).mean((1, 2))


def _finite(rewards: np.ndarray) -> np.ndarray:
    """Rewards with those of answers without text as low as the worst other one."""
    known = rewards[np.isfinite(rewards)]
    return np.where(np.isfinite(rewards), rewards, known.min() if known.size else 0.0)


# --- what is shown -------------------------------------------------------------------------------


def show(rows: pd.DataFrame, session: Session) -> None:
    """Reward models on held-out pairs, and what became of the answers."""
    reward.show(pd.DataFrame(rows.loc[rows["part"] != "assistant"]), session)
    print_answers(pd.DataFrame(rows.loc[rows["part"] == "assistant"]), session.console)


def draw(rows: pd.DataFrame, session: Session) -> Mapping[str, Figure]:
    """Accuracy of reward models; win rates, truth and reward of answers."""
    answers = pd.DataFrame(rows.loc[rows["part"] == "assistant"])
    models = pd.DataFrame(rows.loc[rows["part"] != "assistant"])
    return {
        "assistant-answers": figures.assistant_figure(answers),
        "assistant-rewards": figures.accuracy_figure(models),
    }


STUDY = Study(
    name="assistant",
    title="Assistants without labels",
    lead=(
        "Can labels by coherence train an assistant? A policy is optimised against the reward "
        "model of ICM's labels, others against those of golden labels or one annotator's. A third "
        "reward model, which nothing was optimised against, judges their answers to questions that "
        "none has seen. A policy that wins may have hacked the judge, too: look at the share of "
        "true answers, at the divergence from the start, and at the length beside it."
    ),
    settings=Settings,
    plan=plan,
    measure=measure,
    show=show,
    figures=draw,
    findings=assistant_findings,
)
run = STUDY.run
