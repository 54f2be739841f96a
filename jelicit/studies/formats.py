"""Prompt formats in studies: which are asked for, and whether they show what a set has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item, label_of
from jelicit.data.overlap import Policy, held_out
from jelicit.data.prompts import formats_for, get_format, zero_shot
from jelicit.data.shown import shown
from jelicit.studies.checks import repeated

Split = tuple[Item, ...]

ENSEMBLE = "ensemble"
"""The format that rows of several formats together are of."""

JOINT = "joint"
"""The format that rows of probes of several formats at once are of."""

OVER_FORMATS = (ENSEMBLE, JOINT)
"""What rows call as a format and is none."""


@dataclass(frozen=True, kw_only=True)
class FormatSettings:
    """How items are shown, in every study.

    Attributes:
        format: How items are shown and which label is asked for, in all sets but the easy one: a
            format's name (claim, statement, claim_icm, pair_gender, ...; a wrong one lists all), a
            file of one's own (FORMAT.toml, FORMAT.json), package.module:NAME or file.py:NAME.
            Several are measured one by one and compared; salience averages over them, too (format
            "ensemble"). None = each set's own.
    """

    format: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.format, str | PromptFormat):  # one alone, in Python
            object.__setattr__(self, "format", (self.format,))


def format_problems(formats: Sequence[str | PromptFormat] | None) -> list[str]:
    """Problems of --format: unknown ones, files that hold none, two under one name."""
    if formats is None:
        return []
    problems, names = [], []
    for each in formats:
        try:
            names.append(get_format(each).name)
        except ValueError as error:
            problems.append(f"--format: {error}")
    problems += [
        f"--format: {name!r} is what rows of several formats together are called; give the format "
        "of that name another one"
        for name in OVER_FORMATS
        if len(names) > 1 and name in names
    ]
    return problems + repeated("--format", names)


def formats_asked(settings: Any) -> tuple[PromptFormat | None, ...]:
    """The formats that settings ask for, one after the other; None = each set's own."""
    formats = getattr(settings, "format", None)
    return (None,) if formats is None else tuple(map(get_format, formats))


def only_format(target: str, settings: Any) -> PromptFormat | None:
    """The one format that settings ask for, for a study that takes no more; None = the sets' own.

    Args:
        target: The label that the study asks for.
        settings: Of the study.

    Raises:
        ValueError: They ask for several, or for one that asks for another label.
    """
    form, *more = formats_asked(settings)
    if more:
        raise ValueError(f"--format names {1 + len(more)} formats; this study takes one")
    if form is not None:
        check_asks(form, target)
    return form


def check_asks(form: PromptFormat, target: str) -> None:
    """Refuses a format that asks for another label than a study does.

    Raises:
        ValueError: It does.
    """
    if form.target != target:
        raise ValueError(
            f"--format {form.name} asks for {form.target!r}, and this study for {target!r}: give "
            f"a format whose target is {target!r}"
        )


def compared_as(form: PromptFormat | None, settings: Any) -> str:
    """What rows call a format where several are compared; "" where there is one."""
    return form.name if form is not None and len(formats_asked(settings)) > 1 else ""


def check_shown(name: str, items: Sequence[Item], form: PromptFormat) -> None:
    """Refuses a format that shows what an item does not have, or one response of a pair only.

    Args:
        name: Of the set, for messages.
        items: Its items.
        form: The format.

    Raises:
        ValueError: Naming the first such item, and formats that fit it.
    """
    for item in items:
        lacking = [field for field in form.fields if not getattr(item, field)]
        if lacking:
            wrong = f"shows {lacking[0]}, which item {shown(item.id)} lacks"
        elif item.choice_2 is not None and "choice_2" not in form.fields:
            wrong = f"shows one response, but item {shown(item.id)} is a pair"
        else:
            continue
        raise ValueError(
            f"{name}: the prompt format {form.name!r} {wrong}; choose another with --format: "
            f"{', '.join(formats_for(item))}"
        )


def held_out_as_shown(
    train: Split,
    test: Split,
    form: PromptFormat,
    *,
    policy: Policy,
    say: Callable[[str], object],
) -> Split:
    """Train rows whose text is no test row's, as the format shows them.

    A format that shows no question makes one text of the same answer to two questions.

    Args:
        train: The train rows.
        test: The test rows.
        form: How both are shown.
        policy: What becomes of train rows that test has, too.
        say: Told what was done.

    Raises:
        ValueError: There are such rows, and the policy refuses that.
    """
    if "question" in form.fields:
        return held_out(train, test, policy=policy, say=say)
    bare = [tuple(replace(item, question="") for item in items) for items in (train, test)]
    kept = {item.id for item in held_out(*bare, policy=policy, say=say)}
    return tuple(item for item in train if item.id in kept)


def tell_ambiguous(
    name: str, items: Sequence[Item], form: PromptFormat, target: str, say: Callable[[str], object]
) -> None:
    """Refuse or tell of texts that, as a format shows them, stand for both labels.

    Args:
        name: Of the set, for messages.
        items: Its labelled items.
        form: How they are shown.
        target: The label that is asked for.
        say: Told how many such texts there are, where others are left.

    Raises:
        ValueError: No text tells its label.
    """
    if "question" in form.fields or not any(item.question for item in items):
        return
    meant: dict[str, set[bool | None]] = {}
    texts = [zero_shot(item, form) for item in items]
    for text, item in zip(texts, items, strict=True):
        meant.setdefault(text, set()).add(label_of(item, target))
    both = sum({True, False} <= meant[text] for text in texts)
    if both == len(items):
        raise ValueError(
            f"{name}: the prompt format {form.name!r} shows no question, and without it every text "
            "stands for true and false items alike; choose another with --format: "
            f"{', '.join(formats_for(items[0]))}"
        )
    if both:
        say(
            f"{name}: the prompt format {form.name!r} shows no question, and without it {both} of "
            f"{len(items)} texts stand for true and false items alike"
        )
