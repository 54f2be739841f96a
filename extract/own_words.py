"""A set that asks a model which answers it wrote: its own, and others put into its mouth.

Every question has two answers: one that the model sampled, and one of another model, or of the set
itself (a true one). Both are one line of at most as many of the model's tokens, wherever they are
from: otherwise a second line, or where an answer was cut, would tell own from other. Controls go
with every item: the mean log-likelihood per token under the model, and, as everywhere, the length.
What they alone can tell, no self-knowledge deserves credit for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from extract.chat import encode_for
from extract.models import LanguageModel, choose_token_budget
from extract.printable import printable
from extract.sampling import Sampling, line_of, mean_log_likelihoods, sample_lines
from jelicit.data.items import Item, save_items
from jelicit.data.overlap import normal_text

PROMPT = "Question: {question}\nAnswer:"
BATCH = 16
"""Questions that are answered together, and answers that a killed run may lose."""


@dataclass(frozen=True)
class Question:
    """A question, and the answer that the set knows to be true, if any."""

    id: str
    text: str
    split: str
    answer: str | None = None


@dataclass
class Made:
    """What came of it.

    Attributes:
        items: Two a question.
        left_out: Why -> how many questions.
    """

    items: list[Item] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """Count one question."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def questions_of(splits: Mapping[str, Sequence[Item]], *, most: int | None) -> list[Question]:
    """One question for every group that has one, in the order of the set.

    Args:
        splits: Items by split; train and test are used.
        most: Most questions of each split; None = all.

    Raises:
        ValueError: A split has no question.
    """
    found: list[Question] = []
    for split in ("train", "test"):
        of_split: dict[str, Question] = {}
        for item in splits.get(split, ()):
            if not item.question or item.choice_2 is not None:
                continue
            key = normal_text(item.question)
            before = of_split.get(key) or Question(
                f"{split}/{len(of_split):05d}", item.question, split
            )
            if item.label and before.answer is None:
                before = Question(before.id, before.text, split, item.choice)
            of_split[key] = before
        if not of_split:
            raise ValueError(
                f"no {split} item has a question to answer (pairs are not used): choose a set of "
                "questions and claims, such as truthfulqa or gsm8k"
            )
        found += list(of_split.values())[:most]
    return found


def answers(
    lm: LanguageModel,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    folder: Path,
    progress: bool = True,
) -> dict[str, str]:
    """What a model answers: question id -> one line. Finished answers are kept, and read back.

    Args:
        lm: The model.
        questions: What is asked.
        sampling: How answers are drawn.
        folder: Where answers are kept, in a file for every model and sampling.
        progress: Show a bar.
    """
    chat = None if lm.chat is None else lm.chat.digest
    made_by = json.dumps([lm.digest, lm.dtype, chat, PROMPT, asdict(sampling)], sort_keys=True)
    file = folder / f"answers-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}.jsonl"
    known = {line["question"]: line["answer"] for line in _lines(file)}
    todo = [each for each in questions if each.text not in known]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        file.open("a", encoding="utf-8") as kept,
        tqdm(
            total=len(todo),
            unit="answer",
            desc=printable(f"{lm.name}: answers"),
            disable=not progress or not todo,
        ) as bar,
    ):
        for first in range(0, len(todo), BATCH):
            batch = todo[first : first + BATCH]
            prompts = {each.text: PROMPT.format(question=each.text) for each in batch}
            for question, answer in sample_lines(lm, prompts, sampling).items():
                known[question] = answer
                line = {"question": question, "answer": answer}
                kept.write(json.dumps(line, ensure_ascii=False) + "\n")
            kept.flush()
            bar.update(len(batch))
    return {each.id: known[each.text] for each in questions}


def _lines(file: Path) -> list[dict[str, str]]:
    """The whole lines of a file of answers; one that a kill cut is asked again."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    whole, cut, rest = text.rpartition("\n")
    if rest:
        file.write_text(whole + cut, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def as_written(
    lm: LanguageModel, questions: Sequence[Question], found: Mapping[str, str | None], *, most: int
) -> dict[str, str | None]:
    """Answers as this model could have written them: the first line, cut as a sampled one is.

    The model's own answers go through it, too: what a sampled text is in tokens that are read again
    may differ by a token, and no such difference may say whose an answer is.

    Args:
        lm: The model that is asked; its tokens count.
        questions: What was asked.
        found: Question id -> an answer of whatever source, or None.
        most: Most tokens.

    Returns:
        Question id -> the answer, "" if it has no line; None stays None.
    """
    cut: dict[str, str | None] = {}
    for each in questions:
        answer = found[each.id]
        line = next(iter((answer or "").lstrip().splitlines()), "").strip()
        if line:
            prompt = PROMPT.format(question=each.text)
            [row] = encode_for(lm, [(prompt,)], (f" {line}",))
            line = line_of(lm.tokenizer, row.verdicts[0][:most])
        cut[each.id] = None if answer is None else line
    return cut


def pair_up(
    questions: Sequence[Question],
    own: Mapping[str, str | None],
    others: Mapping[str, str | None],
) -> Made:
    """Two items for each question that has two different answers.

    Args:
        questions: What was asked.
        own: Question id -> the model's answer.
        others: Question id -> the answer put into its mouth, or None.
    """
    made = Made()
    for each in questions:
        mine, other = own[each.id], others[each.id]
        if other is None:
            made.leave_out("no true answer in the set")
        elif not mine or not other:
            made.leave_out("an empty answer")
        elif normal_text(mine) == normal_text(other):
            made.leave_out("the same answer twice")
        else:
            made.items += [_item(each, mine, own=True), _item(each, other, own=False)]
    return made


def _item(question: Question, answer: str, *, own: bool) -> Item:
    return Item(
        id=f"own_words/{question.id}/{'own' if own else 'other'}",
        dataset="own_words",
        split=question.split,
        question=question.text,
        choice=answer,
        label=own,
        group=question.id,
    )


def with_likelihoods(
    lm: LanguageModel, items: Sequence[Item], *, token_budget: int | None = None
) -> list[Item]:
    """The items, each with its answer's mean log-likelihood per token among its controls."""
    budget = token_budget or choose_token_budget(lm.device)
    texts = [(PROMPT.format(question=item.question), item.choice) for item in items]
    values = mean_log_likelihoods(lm, texts, token_budget=budget)
    return [
        _with_control(item, "likelihood", round(float(value), 6))
        for item, value in zip(items, values, strict=True)
    ]


def _with_control(item: Item, name: str, value: float) -> Item:
    controls = {**item.meta.get("controls", {}), name: value}
    return replace(item, meta={**item.meta, "controls": controls})


def write(folder: Path, made: Made, about: Mapping[str, Any]) -> Path:
    """Writes train.jsonl, test.jsonl and how they were made; returns the set's folder.

    Raises:
        ValueError: A split has no item left.
    """
    target = folder / "own_words"
    for split in ("train", "test"):
        rows = [item for item in made.items if item.split == split]
        if not rows:
            counts = ", ".join(f"{why}: {count}" for why, count in made.left_out.items())
            raise ValueError(f"no {split} question has two different answers ({counts})")
        target.mkdir(parents=True, exist_ok=True)
        save_items(target / f"{split}.jsonl", rows)
    about = {**about, "left_out": made.left_out}
    (target / "made.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return target


def own_words(
    lm: LanguageModel,
    splits: Mapping[str, Sequence[Item]],
    folder: Path,
    *,
    other: Callable[[], LanguageModel] | None = None,
    sampling: Sampling | None = None,
    most: int | None = None,
    progress: bool = True,
) -> tuple[Path, Made]:
    """Makes the set of a model.

    Args:
        lm: The model that is asked whether it wrote what it reads.
        splits: Items with questions, by split.
        folder: Gets the set in a folder "own_words", and the answers.
        other: Loads the model whose answers are put into its mouth; None = the set's true answers.
            They, and this model's own, are shortened to what it could have written (`as_written`).
        sampling: How answers are drawn.
        most: Most questions of each split.
        progress: Show bars.

    Returns:
        The set's folder, and what it holds.

    Raises:
        ValueError: There is no question, no two different answers, or the other model is this one.
    """
    sampling = sampling or Sampling()
    questions = questions_of(splits, most=most)
    if other is None:
        others: dict[str, str | None] = {each.id: each.answer for each in questions}
        theirs = "the set's true answers"
    else:
        another = other()
        if another.digest == lm.digest:
            raise ValueError(f"{another.name} is the very model that is asked; name another one")
        theirs = another.name
        others = {**answers(another, questions, sampling, folder=folder, progress=progress)}
        del another
    own = answers(lm, questions, sampling, folder=folder, progress=progress)
    written = partial(as_written, lm, questions, most=sampling.max_new_tokens)
    made = pair_up(questions, written(own), written(others))
    if made.items:
        made.items = with_likelihoods(lm, made.items)
    about = {
        "model": lm.name,
        "digest": lm.digest,
        "dtype": lm.dtype,
        "chat": lm.chat is not None,
        "others": theirs,
        "prompt": PROMPT,
        "sampling": asdict(sampling),
    }
    return write(folder, made, about), made
