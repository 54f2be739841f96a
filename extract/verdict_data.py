"""Training examples: an item's zero-shot prompt, and how likely each verdict is to be right.

Nothing but the prompt's text and the label that is given is read of an item: its own labels have no
way into a training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import numpy as np
import torch

from extract.chat import encode_for
from extract.models import LanguageModel
from extract.reader import padded_length
from extract.verdicts import check_joints
from jelicit.data.items import Item
from jelicit.data.overlap import leaks
from jelicit.data.prompts import PromptFormat, segments

Labels = Sequence[bool | float | None] | np.ndarray
"""A label for each item: hard (True or False), soft (how likely True is), or none (None, nan)."""


class Example(TypedDict):
    """One example, as token ids."""

    ids: tuple[int, ...]
    """The prompt, which ends just before the verdict."""
    verdicts: tuple[int, int]
    """The token of the true and of the false verdict."""
    target: float
    """How likely the true one is to be right."""


def labelled(items: Sequence[Item], labels: Labels) -> tuple[list[Item], list[float]]:
    """The items that have a label, and their labels between 0 (false) and 1 (true).

    Raises:
        ValueError: If there are not as many labels as items, one is no number from 0 to 1, or
            none is left.
    """
    if len(labels) != len(items):
        raise ValueError(f"{len(labels)} labels for {len(items)} items; give one for each")
    chosen, targets = [], []
    for item, label in zip(items, labels, strict=True):
        if label is None or label != label:
            continue
        if not 0 <= float(label) <= 1:
            raise ValueError(
                f"item {item.id!r}: its label is {label!r}; allowed: True, False, a number from 0 "
                "to 1 (how likely it is true), and None or nan for no label"
            )
        chosen.append(item)
        targets.append(float(label))
    if not chosen:
        raise ValueError(f"none of {len(items)} items has a label: there is nothing to train on")
    return chosen, targets


def check_apart(train: Sequence[Item], test: Sequence[Item]) -> None:
    """Refuses to train on what is to be tested.

    Raises:
        ValueError: If a train item has the text or the group of a test item; the message says how
            many do, and names one.
    """
    groups, texts = leaks(train, test)
    for what, shared in (("text", texts), ("group (question)", groups)):
        if shared:
            raise ValueError(
                f"{len(shared)} of {len(train)} train items have the {what} of a test item, "
                f"{shared[0][0].id!r} for one: what is tested would have been seen in training; "
                "leave those items out"
            )


def examples_of(
    lm: LanguageModel, items: Sequence[Item], targets: Sequence[float], form: PromptFormat
) -> list[Example]:
    """The items as examples, for this model.

    Raises:
        ValueError: If a prompt is longer than the model's context, a verdict is more than one
            token of this model, both are the same token, or they do not follow the prompts as a
            text would.
    """
    words = (form.true_word, form.false_word)
    encoded = encode_for(lm, [segments(item, form) for item in items], words)
    check_joints(encoded, words)
    made: list[Example] = []
    for item, target, row in zip(items, targets, encoded, strict=True):
        if lm.context is not None and len(row.prompt) > lm.context:
            raise ValueError(
                f"item {item.id!r}: its prompt has {len(row.prompt)} tokens, but {lm.name} reads "
                f"at most {lm.context}; leave it out, or shorten it"
            )
        (true, *more), (false, *others) = row.verdicts
        if more or others or true == false:
            raise ValueError(
                f"the verdicts {words[0]!r} and {words[1]!r} are the tokens {row.verdicts} of "
                f"{lm.name}; training needs one token each, and two different ones: choose a "
                "format with other verdict words"
            )
        made.append(Example(ids=row.prompt, verdicts=(true, false), target=target))
    return made


def digest_of_data(items: Sequence[Item], targets: Sequence[float], form: PromptFormat) -> str:
    """SHA-256 of all that a training reads: prompts, verdict words, labels, in their order."""
    sha = hashlib.sha256(json.dumps(asdict(form), sort_keys=True).encode())
    for item, target in zip(items, targets, strict=True):
        sha.update(json.dumps([segments(item, form), target]).encode())
    return sha.hexdigest()


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """A batch: ids and mask [n, L], where prompts end [n], verdicts [n, 2], targets [n].

    Padded on the right, which no causal model sees before the verdict.
    """
    longest = padded_length(max(len(example["ids"]) for example in examples))
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example["ids"])
        ids[row, :length] = torch.tensor(example["ids"])
        mask[row, :length] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "ends": mask.sum(1) - 1,
        "verdicts": torch.tensor([example["verdicts"] for example in examples]),
        "targets": torch.tensor([example["target"] for example in examples]),
    }
