"""Checks of options: each gives the problems that it finds, so that all are told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from jelicit.data.named_sets import NamedSet
from jelicit.named import is_reference, resolve
from jelicit.typed import is_whole


def refuse(problems: Sequence[str]) -> None:
    """One error for everything that is wrong with the settings.

    Raises:
        ValueError: There is a problem.
    """
    if problems:
        raise ValueError("; ".join(problems))


def layer_problems(layers: Sequence[str]) -> list[str]:
    """Problems of --layers: "best" alone, or numbers."""
    if tuple(layers) == ("best",):
        return []
    if layers and all(layer.isdecimal() for layer in layers):
        return repeated("--layers", [str(int(layer)) for layer in layers])
    return [
        f"--layers {' '.join(layers)}: allowed are numbers from 0 (embeddings) to the model's "
        "number of blocks, or best alone"
    ]


def empty_values(settings: Any) -> list[str]:
    """Problems of options with an empty text, or with no value where None is the default.

    An empty path is another's to find: it is "." before it comes here.

    Args:
        settings: A dataclass of settings; dataclasses in it are looked into.
    """
    problems = []
    for each in fields(settings):
        value, option = getattr(settings, each.name), f"--{each.name.replace('_', '-')}"
        if is_dataclass(value):
            problems += empty_values(value)
        elif value == "" or (isinstance(value, tuple) and "" in value):
            problems.append(empty_value(option))
        elif value == () and each.default is None:
            problems.append(f"{option} has no value: give one, or leave the option out")
    return problems


def empty_value(option: str) -> str:
    """The problem of an option with an empty text."""
    return f"{option} has an empty value: give one, or leave the option out"


def folder_problems(out: Path | None) -> list[str]:
    """Problems of --out: URLs, of which a path has only one slash left."""
    if out is not None and re.match(r"^[a-z][a-z0-9+]+:/", out.as_posix()):
        return [f"--out {out}: figures are written to a local folder only"]
    return []


def too_small(values: Sequence[tuple[str, int, int]]) -> list[str]:
    """Problems of options (name, value, least) that are below what they allow."""
    return [
        f"{option} {value}: allowed are whole numbers from {least}"
        for option, value, least in values
        if not is_whole(value) or value < least
    ]


def unknown(option: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Problems of an option whose values come from a list: unknown or repeated ones."""
    wrong = [name for name in given if name not in known]
    said = f"{option} {' '.join(wrong)} is unknown; known: {', '.join(known)}"
    problems = [*([said] if wrong else []), *repeated(option, given)]
    return problems if given else [f"{option} is empty; choose from {', '.join(known)}"]


def repeated(option: str, given: Sequence[str]) -> list[str]:
    """Problem of an option that names a value twice."""
    if len(set(given)) == len(given):
        return []
    return [f"{option} names {' '.join(given)}: name each once"]


def no_sets(names: Sequence[str]) -> list[str]:
    """Problem of --dataset of a study that reads sets: there is none."""
    return [] if names else ["--dataset names no set: name at least one"]


def set_problems(names: Sequence[str]) -> list[str]:
    """Problems of --dataset: a set twice, one's own that is not where the reference says.

    A study of one's own may read none (`no_sets`).
    """
    problems = repeated("--dataset", names)
    for name in filter(is_reference, names):
        try:
            resolve(name, NamedSet, what="data set")
        except ValueError as error:
            problems.append(f"--dataset: {error}")
    return problems


def mirror_problems(hub_root: Path | None, names: Iterable[str | None]) -> list[str]:
    """Problems of --hub-root: no such folder, or no set of these can read it.

    Args:
        hub_root: The folder, if one was given.
        names: Of the sets that are read.
    """
    if hub_root is None:
        return []
    if not hub_root.is_dir():
        return [f"--hub-root {hub_root}: there is no such folder"]
    # A set from a folder may have an easy set of the hub.
    if all(name.startswith("pocket/") for name in names if name and name != "none"):
        return [f"--hub-root {hub_root} does nothing with sets of the pocket world: leave it out"]
    return []


def given(settings: Any, names: Iterable[str]) -> list[str]:
    """Those of these options that have another value than their default, as a command names them.

    Args:
        settings: A dataclass of settings.
        names: Of its fields.
    """
    defaults = {each.name: each.default for each in fields(settings)}
    return [
        f"--{name.replace('_', '-')}" for name in names if getattr(settings, name) != defaults[name]
    ]


def same_names(names: Sequence[str]) -> list[str]:
    """Problem of two sets under one name, as two folders of the same last name are."""
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"two sets are called {', '.join(twice)}; rename a folder"] if twice else []
