"""Items as token ids, and what a store records of them."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from typing import Any

from extract.chat import encode_for, rendered
from extract.models import TextModel
from extract.passes import longest
from extract.verdicts import (
    Encoded,
    byte_share,
    check_joints,
    check_text,
    control_tokens,
    joint_counts,
    own_prefix,
    tokenise,
    with_after,
)
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, after_verdict, segments

NAMED = 20
"""Ids of left out items, and texts after verdicts, that a store names."""


def encode_items(lm: TextModel, items: Sequence[Item], format: PromptFormat) -> list[Encoded]:
    """Token ids of every item's prompt, of its two verdicts and of the text after them, if any.

    Raises:
        ValueError: If there is no item, a text has half a character, a prompt does not fit the
            model's context, or both verdicts have the same tokens (the message names the item); or
            if verdicts do not follow their prompts as a text would (`check_joints`), or texts after
            verdicts these (`extract.verdicts.with_after`).
    """
    if not items:
        raise ValueError("there are no items to extract")
    words = (format.true_word, format.false_word)
    encoded = _encoded(lm, items, format)
    check_joints(encoded, words)
    for item, row in zip(items, encoded, strict=True):
        if row.verdicts[0] == row.verdicts[1]:
            raise ValueError(
                f"item {item.id!r}: the verdicts {words[0]!r} and {words[1]!r} have the same token "
                f"ids {row.verdicts[0]}; choose words that this tokenizer tells apart"
            )
        if lm.context is not None and longest(row) > lm.context:
            raise ValueError(
                f"item {item.id!r}: its prompt and verdict have {longest(row)} tokens, but "
                f"{lm.name} reads at most {lm.context}; leave the item out (--skip-long, "
                "skip_long=True: every such one) or use another model"
            )
    return encoded


def leave_out_long(
    lm: TextModel, items: Sequence[Item], format: PromptFormat
) -> tuple[list[Item], list[Item]]:
    """The items that fit the model's context with their verdict, and those that do not.

    Raises:
        ValueError: If there are items and none fits.
    """
    if lm.context is None or not items:
        return list(items), []
    lengths = [longest(row) for row in _encoded(lm, items, format)]
    fits = [length <= lm.context for length in lengths]
    if not any(fits):
        raise ValueError(
            f"all {len(items)} items are longer than the {lm.context} tokens that {lm.name} reads "
            f"(the shortest has {min(lengths)}); use another model or format"
        )
    kept, long = (
        [item for item, fit in zip(items, fits, strict=True) if fit is wanted]
        for wanted in (True, False)
    )
    return kept, long


def _encoded(lm: TextModel, items: Sequence[Item], format: PromptFormat) -> list[Encoded]:
    prompts = [segments(item, format) for item in items]
    for item, prompt in zip(items, prompts, strict=True):
        check_text("".join(prompt), f"item {item.id!r}")
    words = (format.true_word, format.false_word)
    encoded = encode_for(lm, prompts, words)
    stand = words if lm.chat is None else lm.chat.words(words)
    return with_after(lm.tokenizer, encoded, [after_verdict(item) for item in items], stand)


def _joins(
    lm: TextModel, items: Sequence[Item], format: PromptFormat, encoded: Sequence[Encoded]
) -> dict[str, Any]:
    """How prompts were put together: their beginning, their joints, control tokens in letters."""
    if lm.chat is not None:
        return _turns(lm, items[0], format, encoded)
    prefix = own_prefix(lm.tokenizer)
    wholes = ["".join(segments(item, format)) for item in items]
    ids = tokenise(lm.tokenizer, set(wholes)) if format.system else {}
    apart = sum(
        row.prompt[len(prefix) :] != ids.get(whole, row.prompt[len(prefix) :])
        for row, whole in zip(encoded, wholes, strict=True)
    )
    fixed = format.text + format.system + format.true_word + format.false_word
    control = sorted(token for token in control_tokens(lm.tokenizer) if token in fixed)
    if control:
        warnings.warn(
            f"the format {format.name!r} has {', '.join(control)}: control tokens of {lm.name}, "
            "which are read as the letters that they are written in, not as control tokens",
            stacklevel=4,
        )
    return {
        "prefix": {
            "ids": list(prefix),
            "tokens": list(map(str, lm.tokenizer.convert_ids_to_tokens(list(prefix)))),
        },
        "joints": joint_counts(encoded),
        "apart_from_the_whole_text": apart,
        "control_tokens_in_letters": control,
    }


def _turns(
    lm: TextModel, first: Item, format: PromptFormat, encoded: Sequence[Encoded]
) -> dict[str, Any]:
    """The same of prompts in a chat template, which writes their beginning itself."""
    assert lm.chat is not None
    return {
        "joints": joint_counts(encoded),
        "chat": {
            "template": lm.chat.digest,
            "said": lm.chat.describe(),
            "first_prompt": rendered(lm.tokenizer, lm.chat, segments(first, format)),
            "verdicts": lm.chat.words((format.true_word, format.false_word)),
        },
    }


def _after(lm: TextModel, items: Sequence[Item], encoded: Sequence[Encoded]) -> dict[str, Any]:
    """The texts after verdicts, and how much of them is spelled; nothing where there is none."""
    texts = [text for item in items if (text := after_verdict(item))]
    if not texts:
        return {}
    ids = (branch for row in encoded for branch in row.after)
    return {
        "after_verdict": {
            "items": len(texts),
            "texts": sorted(set(texts))[:NAMED],
            "byte_share": byte_share(lm.tokenizer, ids),
        }
    }


def describe_texts(
    lm: TextModel,
    items: Sequence[Item],
    format: PromptFormat,
    encoded: Sequence[Encoded],
    *,
    left_out: Sequence[Item] = (),
) -> dict[str, Any]:
    """What a store records of its prompts.

    Lengths in tokens, how many exceed the trained length (warned of once), byte share; what they
    begin with, how verdicts follow them, control tokens that the format spells (warned of), how
    many prompts have other tokens than their text in one piece (in a chat template instead: which,
    and the first prompt as it renders it); texts after verdicts, if any; and the items left out.
    """
    lengths = [len(row.prompt) for row in encoded]
    whole = [longest(row) for row in encoded]
    limit = lm.trained_length
    beyond = 0 if limit is None else sum(length > limit for length in whole)
    if beyond:
        warnings.warn(
            f"{beyond} of {len(encoded)} prompts are longer than the {limit} tokens that {lm.name} "
            f"was trained on (the longest has {max(whole)}): its answers there mean little",
            stacklevel=3,
        )
    return {
        "prompt_tokens": {
            "least": min(lengths),
            "median": statistics.median(lengths),
            "most": max(lengths),
            "total": sum(lengths),
        },
        "trained_length": limit,
        "beyond_trained_length": beyond,
        "byte_share": byte_share(lm.tokenizer, (row.prompt for row in encoded)),
        **_joins(lm, items, format, encoded),
        **_after(lm, items, encoded),
        "left_out": {
            "longer_than_context": len(left_out),
            "ids": [item.id for item in left_out[:NAMED]],
        },
    }
