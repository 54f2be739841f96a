"""Types of settings: what a library's caller hands over, held against what the fields say."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, Python's or NumPy's; true and false are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def typed(settings: T, *, but: Sequence[str] = ()) -> T:
    """Settings whose values are of the types that their fields name.

    Command lines are typed as they are read; this is for settings made in code. Lists become
    tuples, NumPy's numbers Python's, and a text a path where a field asks for one.

    Args:
        settings: A dataclass; dataclasses in it are looked into.
        but: Fields that have checks of their own.

    Raises:
        ValueError: Naming every field of another type, its value, and what is allowed.
    """
    settings, problems = as_typed(settings, but=but)
    if problems:
        raise ValueError("; ".join(problems))
    return settings


def as_typed(settings: T, *, but: Sequence[str] = ()) -> tuple[T, list[str]]:
    """The same with the problems, in place of an error.

    Of fields that have one the settings have the default, so that the rest can be judged, too.
    """
    problems: list[str] = []
    return _typed(settings, problems, but), problems


def _typed(settings: Any, problems: list[str], but: Sequence[str] = ()) -> Any:
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    whole_as_float = BeartypeConf(is_pep484_tower=True)
    try:
        hints = typing.get_type_hints(type(settings), include_extras=True)
    except NameError:  # a user's own, imported for type checkers alone
        return settings
    changed = {}
    for each in fields(settings):
        if each.name in but:
            continue
        value, hint = getattr(settings, each.name), hints[each.name]
        plain = _plain(value)
        if isinstance(plain, str) and Path in typing.get_args(hint):
            plain = Path(plain)
        if is_dataclass(value) and _bare(hint) is type(value):
            plain = _typed(value, problems)
        # A bool is an int to Python, and none to whoever counts with it.
        as_number = isinstance(plain, bool) and not _takes_bool(hint)
        if as_number or not is_bearable(_by_name(plain), hint, conf=whole_as_float):
            shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
            problems.append(
                f"{each.name} is {shown} ({type(value).__name__}); allowed: {_words(hint)}"
            )
            changed[each.name] = _default(each)
        elif plain is not value:
            changed[each.name] = plain
    return replace(settings, **changed) if changed else settings


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        inner = tuple(_plain(each) for each in value)
        same = isinstance(value, tuple) and all(a is b for a, b in zip(inner, value, strict=True))
        return value if same else inner
    return value


def _by_name(value: Any) -> Any:
    """The value with a name for whatever could be named: a method, feature or format itself."""
    if not isinstance(value, tuple):
        return value
    return tuple(getattr(each, "name", each) if is_dataclass(each) else each for each in value)


def _bare(hint: Any) -> Any:
    """A type without what `Annotated` adds to it."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _takes_bool(hint: Any) -> bool:
    return hint is bool or hint is Any or any(_takes_bool(inner) for inner in typing.get_args(hint))


def _words(hint: Any) -> str:
    """A type as a reader would say it."""
    names = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    hint = _bare(hint)
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return names.get(hint.__name__, f"a {hint.__name__}")
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, args))}"
    if typing.get_origin(hint) is tuple and args[-1] is Ellipsis:
        return f"a sequence, each {_words(args[0])}"
    if typing.get_origin(hint) in (typing.Union, type(int | str)):
        return " or ".join(map(_words, args))
    return str(hint).replace("typing.", "")
