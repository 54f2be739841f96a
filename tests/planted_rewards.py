"""A model for studies of training whose rewards and answers are planted, and its set of pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jelicit.data.preferences import Comparison


def write_set(folder: Path, *, train: int, test: int, turned: Sequence[int] = ()) -> Path:
    """Pairs "What is n?" with the answers "n is right." and "n is wrong.", an annotator erring.

    Args:
        folder: Where to.
        train: Pairs, numbered from 0.
        test: Pairs, numbered from 1000.
        turned: Numbers of train pairs whose golden label is turned round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, begin, count in (("train", 0, train), ("test", 1000, test)):
        lines = []
        for n in range(begin, begin + count):
            first = n % 3 != 0  # the right answer stands first in two of three
            answers = [f"{n} is right.", f"{n} is wrong."]
            one, two = answers if first else answers[::-1]
            label = first if n not in turned else not first
            votes = [first if n % 4 else not first, first]
            lines.append(
                {
                    "id": f"{split}/{n}",
                    "question": f"What is {n}?",
                    "choice": one,
                    "choice_2": two,
                    "label": label,
                    "group": f"number {n}",
                    "meta": {"human_votes": votes},
                }
            )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


class PairScorer:
    """Says of every pair which answer is right, whatever examples it is shown."""

    name = "pair scorer"

    def score(self, prompts: Any, verdicts: Any) -> np.ndarray:
        """Log-probabilities [n, 2]."""
        odds = [2.0 if "right" in _first_of(prompt[-1]) else -2.0 for prompt in prompts]
        return np.stack([-np.logaddexp(0, -np.array(odds)), -np.logaddexp(0, np.array(odds))], 1)


def _first_of(text: str) -> str:
    return text.split("Response 1: ")[1].split("\n")[0]


class PlantedReward:
    """Likes what its comparisons chose: right answers as far as they did; and bold ones."""

    def __init__(self, name: str, made: Sequence[Comparison], *, bold: float):
        right = [1.0 if "right" in each.chosen else -1.0 for each in made]
        self.digest = name
        self.name, self.taste, self.bold, self.released = name, float(np.mean(right)), bold, 0

    def rewards(self, questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Its taste for right answers, and what a "bold" one has beside."""
        assert len(questions) == len(answers)
        return np.array(
            [
                self.taste * (1.0 if "right" in text else -1.0) + self.bold * ("bold" in text)
                if text
                else -np.inf
                for text in answers
            ]
        )

    def release(self) -> None:
        """Counted."""
        self.released += 1


class Drawn(NamedTuple):
    """Answers, their tokens and divergences."""

    answers: list[list[str]]
    tokens: np.ndarray
    kl: np.ndarray


class PlantedAnswers:
    """Answers every question in turn with each of some texts."""

    def __init__(self, texts: Sequence[str], *, kl: float):
        self.texts, self.kl = texts, kl

    def sample(self, questions: Sequence[str], *, n: int, **options: Any) -> Drawn:
        """The texts, with the question's number in them."""
        numbers = [question.removeprefix("What is ").removesuffix("?") for question in questions]
        texts = [self.texts[k % len(self.texts)] for k in range(n)]
        answers = [[text.format(number) for text in texts] for number in numbers]
        shape = (len(questions), n)
        return Drawn(answers, np.full(shape, 4), np.full(shape, self.kl))


class PlantedModel:
    """Keeps what it was trained on."""

    name, trained_length = "planted", None

    def __init__(self) -> None:
        self.learned: dict[str, tuple[Comparison, ...]] = {}
        self.asked: dict[str, list[str]] = {}
        self.fits: dict[str, dict[str, Any]] = {}

    def scorer(self, *, progress: bool = False) -> PairScorer:
        """The scorer."""
        return PairScorer()

    def reward_model(self, made: Any, folder: Path, *, about: Any, **fit: Any) -> PlantedReward:
        """A reward that follows the comparisons; all but the judge like bold answers."""
        name = _without_key(folder)
        self.learned[name], self.fits[name] = tuple(made), fit
        return PlantedReward(folder.name, made, bold=0.0 if "judge" in name else 5.0)

    def open_reward(self, folder: Path) -> PlantedReward:
        """One that likes wrong answers."""
        made = [Comparison(question="q", chosen="wrong", rejected="right", group="g")]
        opened = PlantedReward(folder.name, made, bold=0.0)
        opened.digest = f"digest of {folder.name}"
        return opened

    def start(self, asked: str) -> PlantedAnswers:
        """Right in one of two."""
        return PlantedAnswers(["{} is right.", "{} is wrong."], kl=0.0)

    def policy(
        self, questions: Any, reward: Any, folder: Path, *, about: Any, **fit: Any
    ) -> PlantedAnswers:
        """Against ICM's labels it learned to be bold; against others, to be right."""
        name = _without_key(folder)
        self.asked[name], self.fits[name] = list(questions), fit
        if name.endswith("icm"):
            return PlantedAnswers(["{} is bold and wrong."], kl=7.0)
        return PlantedAnswers(["{} is right."], kl=2.0)


def _without_key(folder: Path) -> str:
    """A folder's name without the key of the settings that it was trained with."""
    return folder.name.rpartition("-")[0]
