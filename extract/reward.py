"""Reward models: a sequence-classification head that learns which of two answers is better.

The loss is Bradley and Terry's: -log sigmoid(r(chosen) - r(rejected)), by trl's RewardTrainer. An
answer is shown as the zero-shot prompt of a claim, up to its verdict, and its reward is read there:
so the head begins where the model itself is about to judge (Wen et al. 2025, section 4.4; the
prompt is a choice of this project).

    from extract.reward import open_reward, train_reward

    reward = train_reward("pocket", comparisons, "runs/reward")
    reward.rewards(["What is 2 + 3?"], ["2 + 3 = 5."])

A reward model is a folder that `AutoModelForSequenceClassification` loads, with a card.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from extract import training_run
from extract.bfloat16_training import quick_attention
from extract.digests import digest_of_files
from extract.models import LanguageModel, load
from extract.trained_folder import read_card, there, work_folder
from extract.trainer_settings import Fit, lora_config, on_one_gpu, precision_of
from jelicit.data.items import Item
from jelicit.data.preferences import Comparison, digest_of
from jelicit.data.prompts import PromptFormat, get_format, zero_shot
from jelicit.named import slug

ALGORITHM = 3
"""Raised when the same settings and rows lead to other weights than before."""

TOKENS = 4096
"""Tokens of a forward pass, on a CPU."""


@dataclass(frozen=True, kw_only=True)
class RewardFit(Fit):
    """How a reward model is trained.

    Attributes:
        format: How an answer is shown: a prompt format of claims, up to its verdict.
        epochs: Times that each comparison is seen.
        max_length: Most tokens of a question with an answer. Longer ones are left out, never cut:
            a cut one would be judged by its beginning. None = as many as the model reads.

    Raises:
        ValueError: As of `Fit`, and where the format shows pairs.
    """

    format: str | PromptFormat = "claim"
    epochs: int = 2
    max_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; allowed: 1 or more")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; allowed: 1 or more, or None")
        check_shows_one(get_format(self.format))


def check_shows_one(form: PromptFormat) -> None:
    """Refuses formats that show two answers: a reward is of one.

    Raises:
        ValueError: This is one.
    """
    if "choice_2" in form.fields:
        raise ValueError(
            f"format {form.name!r} shows two answers, and a reward is of one: give a format of "
            "claims (claim, asking, or one of your own)"
        )


def shown_as(form: PromptFormat, question: str, answer: str) -> str:
    """A question with an answer, up to where it is judged."""
    return zero_shot(Item(id="answer", question=question, choice=answer), form)


class RewardModel:
    """A trained reward model.

    Args:
        folder: Where it lies.
        device: Where it runs; "cpu", "cuda:0", ...
    """

    def __init__(self, folder: Path, device: str = "cpu"):
        self.folder, self.device = folder, device
        self.name = slug(folder.name)
        self.card = read_card(folder)
        self.format = PromptFormat(**self.card.get("format", asdict(get_format("claim"))))

    @cached_property
    def digest(self) -> str:
        """SHA-256 that pins weights, config and tokenizer."""
        return digest_of_files(self.folder, self.tokenizer)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def model(self) -> Any:
        """The model, loaded when it is first asked for."""
        loader: Any = AutoModelForSequenceClassification
        with training_run.silent():
            model = loader.from_pretrained(self.folder, num_labels=1)
        return model.to(self.device).eval()

    def release(self) -> None:
        """Give its memory back; it is loaded again when it is asked for again."""
        self.__dict__.pop("model", None)

    @torch.inference_mode()
    def rewards(self, questions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Rewards [n] of answers, float64; higher is better, 0 means nothing by itself.

        Answers without any text get -inf: there is nothing to judge.

        Args:
            questions: [n].
            answers: [n], each to its question.

        Raises:
            ValueError: There are not as many of one as of the other.
        """
        if len(questions) != len(answers):
            raise ValueError(f"{len(questions)} questions for {len(answers)} answers")
        judged = [place for place, answer in enumerate(answers) if answer.strip()]
        texts = [shown_as(self.format, questions[n], answers[n]) for n in judged]
        ids = [self.tokenizer(text)["input_ids"] for text in texts]
        found = np.full(len(answers), -np.inf)
        # Rows of one length together: nothing is padded more than it need be.
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        for batch in _batches(order, [len(each) for each in ids]):
            found[[judged[n] for n in batch]] = self._read([ids[n] for n in batch])
        return found

    def _read(self, ids: list[list[int]]) -> np.ndarray:
        longest, pad = max(map(len, ids)), self.model.config.get_text_config().pad_token_id or 0
        rows = torch.full((len(ids), longest), pad)
        mask = torch.zeros_like(rows)
        for row, each in enumerate(ids):
            rows[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        read = self.model(
            input_ids=rows.to(self.device), attention_mask=mask.to(self.device), use_cache=False
        )
        return read.logits[:, 0].double().cpu().numpy()


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows in order of their length, as many together as `TOKENS` allows."""
    made: list[list[int]] = []
    for n in order:
        if not made or (len(made[-1]) + 1) * lengths[n] > TOKENS:
            made.append([])
        made[-1].append(n)
    return made


def open_reward(folder: str | os.PathLike[str], *, device: str = "cpu") -> RewardModel:
    """A reward model that was trained before: of this module, or any folder with one score.

    Raises:
        FileNotFoundError: There is no model in the folder.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"no reward model in {path}: it has no config.json")
    return RewardModel(path, device)


def train_reward(
    model: str | LanguageModel,
    comparisons: Sequence[Comparison],
    folder: str | os.PathLike[str],
    fit: RewardFit | None = None,
    *,
    about: Mapping[str, Any] | None = None,
) -> RewardModel:
    """Trains a reward model from comparisons; read back if it is there.

    The same model, comparisons and settings give the same weights on a CPU. A training that was
    killed goes on from its last checkpoint and ends the same.

    Args:
        model: What it begins with: as of `extract.models.load`, or loaded.
        comparisons: Which of two answers is better. Nothing else is looked at.
        folder: Where the model goes.
        fit: How it is trained.
        about: What the card says beside: where the labels are from.

    Raises:
        FileExistsError: The folder holds something else.
        ImportError: The libraries for training are not installed.
        ValueError: There is nothing to learn from.
    """
    training_run.require_training()
    folder, fit = Path(folder), fit or RewardFit()
    lm = load(model) if isinstance(model, str) else model
    form = get_format(fit.format)
    decides = {
        "what": "reward model",
        "algorithm": ALGORITHM,
        "base": lm.digest,
        "comparisons": digest_of(comparisons),
        "format": asdict(form),
        "fit": {**asdict(fit), "format": form.name},
        "precision": precision_of(lm),
    }
    key = training_run.key_of(**decides)
    if there(folder, key):
        return RewardModel(folder, lm.device)
    rows = rows_of(lm, comparisons, form, fit.max_length)
    card = {
        **decides,
        "key": key,
        "base_name": lm.name,
        "rows": len(rows),
        "left_out": len(comparisons) - len(rows),
        "about": dict(about or {}),
    }
    with work_folder(folder, key) as work, training_run.own_seeds(fit.seed):
        trainer = _trainer(lm, rows, fit, work)
        longest = max(len(ids) for row in rows for ids in row.values())
        with quick_attention(trainer, longest, texts=2):
            log = training_run.train(trainer, f"reward model {folder.name}")
        card["losses"] = training_run.curve(log, "loss", "accuracy", "margin")
        training_run.save(trainer, lm, folder, card, page=_page)
    return RewardModel(folder, lm.device)


def rows_of(
    lm: LanguageModel,
    comparisons: Sequence[Comparison],
    form: PromptFormat,
    max_length: int | None,
) -> list[dict[str, list[int]]]:
    """Token ids of both answers, each after its question, as the trainer takes them.

    Tokenised here, since the trainer would put an end of text behind the prompt.

    Args:
        lm: The model, with its tokenizer.
        comparisons: Those that are longer than `max_length` are left out.
        form: How an answer is shown.
        max_length: Most tokens; None = as many as the model reads.

    Raises:
        ValueError: None is left.
    """
    if not comparisons:
        raise ValueError("there are no comparisons to train a reward model on")
    most = max_length or lm.context or None
    rows = []
    for each in comparisons:
        texts = {"chosen_ids": each.chosen, "rejected_ids": each.rejected}
        row = {
            name: lm.tokenizer(shown_as(form, each.question, answer))["input_ids"]
            for name, answer in texts.items()
        }
        if most is None or max(map(len, row.values())) <= most:
            rows.append(row)
    if not rows:
        raise ValueError(
            f"all {len(comparisons)} comparisons are longer than {most} tokens (max_length, or "
            "what the model reads); raise max_length, or choose another set or model"
        )
    return rows


def _trainer(
    lm: LanguageModel, rows: list[dict[str, list[int]]], fit: RewardFit, work: Path
) -> Any:
    from datasets import Dataset

    trl: Any = importlib.import_module("trl")

    steps = -(-len(rows) // fit.batch) * fit.epochs
    start = training_run.start_folder(lm, work)
    config = trl.RewardConfig(
        output_dir=str(work / "checkpoints"),
        num_train_epochs=fit.epochs,
        max_length=None,
        **fit.arguments(lm, steps),
    )
    loader: Any = AutoModelForSequenceClassification
    with training_run.silent():
        model = loader.from_pretrained(start, num_labels=1, dtype=torch.float32)
        return trl.RewardTrainer(
            model=model,
            args=on_one_gpu(config),
            train_dataset=Dataset.from_list(rows),
            processing_class=training_run.own_tokenizer(start),
            peft_config=lora_config(fit.lora(lm), "SEQ_CLS"),
        )


def _page(card: Mapping[str, Any]) -> str:
    fit, losses = card["fit"], card["losses"]
    last = losses[-10:]
    rows = {
        "Base": f"{card['base_name']} (`{card['base'][:16]}`)",
        "Comparisons": f"{card['rows']} (`{card['comparisons'][:16]}`)",
        "Left out, too long": card["left_out"],
        **{f"About: {name}": value for name, value in card["about"].items()},
        "Loss, first and last steps": f"{losses[0]['loss']:.3f}, "
        f"{np.mean([each['loss'] for each in last]):.3f}",
        **{f"Setting: {name}": value for name, value in fit.items()},
        **{f"Version: {name}": value for name, value in card["versions"].items()},
    }
    return (
        "# Reward model\n\nThe reward of an answer is the one score of this sequence classifier "
        "for the text below, which ends where the answer is judged. Higher is better; a reward "
        "means nothing but beside another one of the same question.\n\n```text\n"
        f"{card['format']['text']}\n```\n\n{training_run.table(rows)}"
    )
