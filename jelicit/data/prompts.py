"""Prompts: zero-shot texts that end just before a verdict, contrast pairs, and few-shot prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jelicit.data import registry
from jelicit.data.format_files import check_words, is_format_file, read_format
from jelicit.data.formats import BASE_FORMATS, PromptFormat
from jelicit.data.items import Item
from jelicit.data.shown import shown
from jelicit.data.turns import Example, System
from jelicit.named import is_reference, resolve

GAP = "\n\n"
"""Blank line after every example. Segments are cut only here: each can be tokenised apart."""

AFTER_VERDICT = "after_verdict"
"""Key of `Item.meta`: a text that follows both verdicts of the item's contrast pair. Of the item,
so that its digest, and every store and row that is called by it, knows of the text."""


class _Formats(Mapping[str, PromptFormat]):
    """The formats by name, read when asked: sets of other packages are found only then."""

    def __getitem__(self, name: str) -> PromptFormat:
        return registry.formats()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(registry.formats())

    def __len__(self) -> int:
        return len(registry.formats())


FORMATS: Mapping[str, PromptFormat] = _Formats()
"""The formats by name: those of no set, and every known set's own."""


def get_format(format: str | PromptFormat) -> PromptFormat:
    """The format of that name, file or reference; a `PromptFormat` is returned as it is.

    Args:
        format: A key of `FORMATS`; a TOML or JSON file (`jelicit.data.format_files`); or
            `package.module:FORMAT` / `file.py:FORMAT`: from then on this process knows it by its
            own name, too.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones), the file or the
            reference holds no format that prompts can be made of, or its name is another format's.
    """
    if isinstance(format, PromptFormat):
        return format
    if format in BASE_FORMATS:  # also while a registered set's own module is being imported
        return BASE_FORMATS[format]
    known = registry.formats()
    if format in known:
        return known[format]
    if is_format_file(format):
        return read_format(format)
    if is_reference(format):
        where = f"prompt format {format!r}"
        check_words(resolve(format, PromptFormat, what="prompt format"), where)
        return registry.own_format(format)
    raise ValueError(
        f"unknown prompt format {shown(format)}; known: {', '.join(known)}, or FORMAT.toml, "
        "FORMAT.json, module:FORMAT and file.py:FORMAT for your own"
    )


def formats_for(item: Item) -> list[str]:
    """Names of the formats that show what the item has, and both responses if it is a pair."""
    return [
        format.name
        for format in FORMATS.values()
        if all(getattr(item, name) for name in format.fields)
        and (item.choice_2 is not None) == ("choice_2" in format.fields)
    ]


def _text(item: Item, format: PromptFormat) -> str:
    """The item in the template, up to the verdict."""
    values = {name: getattr(item, name) for name in format.fields}
    for name, value in values.items():
        if not value:
            others = ", ".join(formats_for(item)) or "none; complete the item, or leave it out"
            raise ValueError(
                f"item {shown(item.id)} has no {name}, which the format {format.name!r} shows; "
                f"formats without it: {others}"
            )
    return format.text.format(**values)


def _system(format: PromptFormat) -> tuple[str, ...]:
    return (System(format.system.rstrip() + GAP),) if format.system else ()


def segments(item: Item, format: str | PromptFormat) -> tuple[str, ...]:
    r"""The zero-shot prompt as segments: the system text (if any, ending in "\n\n"), the item.

    The last segment ends just before the verdict.

    Raises:
        ValueError: If the format is unknown, or shows a field that the item lacks.
    """
    format = get_format(format)
    return (*_system(format), _text(item, format))


def zero_shot(item: Item, format: str | PromptFormat) -> str:
    """The zero-shot prompt x_i, ending just before the verdict: the segments joined."""
    return "".join(segments(item, format))


def after_verdict(item: Item) -> str:
    """What follows both verdicts of the item's contrast pair, its own leading space included; "".

    Hidden states are read at its end. Prompts that ask for the verdict, and examples, are without.

    Raises:
        ValueError: If `meta["after_verdict"]` is no text.
    """
    text = item.meta.get(AFTER_VERDICT, "")
    if not isinstance(text, str):
        raise ValueError(
            f"item {shown(item.id)}: meta[{AFTER_VERDICT!r}] is {shown(text)}; allowed: the text "
            "that follows the verdict, or leave it out"
        )
    return text


def contrast_pair(item: Item, format: str | PromptFormat) -> tuple[str, str]:
    """The two prompts (x_i+, x_i-) of Burns et al. 2022: x_i with the true and the false word.

    Both end in the item's text after the verdict (`after_verdict`), where it has one.
    """
    format = get_format(format)
    prompt, after = zero_shot(item, format), after_verdict(item)
    return prompt + format.true_word + after, prompt + format.false_word + after


def few_shot(
    item: Item, examples: Sequence[tuple[Item, bool | None]], format: str | PromptFormat
) -> tuple[str, ...]:
    r"""A few-shot prompt as segments: system text (if any), one per example, the item itself.

    Args:
        item: The target; its text ends just before the verdict.
        examples: (item, verdict) in the order shown; None reads as the format's third word. Each
            becomes "<text><verdict>\n\n", and still knows which is which (`jelicit.data.turns`).
        format: Name of a format, or one of your own.

    Raises:
        ValueError: If the format is unknown or shows a field that an item lacks, or if an example
            has the verdict None and the format has no third word.
    """
    format = get_format(format)
    shown = (
        Example(_text(example, format), _word(example, v, format), GAP) for example, v in examples
    )
    return (*_system(format), *shown, _text(item, format))


def _word(item: Item, verdict: bool | None, format: PromptFormat) -> str:
    if verdict is not None:
        return format.true_word if verdict else format.false_word
    if format.third_word is None:
        with_third = [other.name for other in FORMATS.values() if other.third_word is not None]
        raise ValueError(
            f"example {shown(item.id)} has no truth value and the format {format.name!r} has no "
            f"third word; formats that have one: {', '.join(with_third)}"
        )
    return format.third_word
