"""Which sets and formats are known by name: those that ship, installed packages', the user's own.

An installed package registers sets by an entry point of the group "jelicit.sets" that names a
`NamedSet` or several in a sequence:

    [project.entry-points."jelicit.sets"]
    mine = "my_package.sets:SETS"

The wings of this project register in the same way: nothing here imports them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points

from jelicit.data.formats import BASE_FORMATS, PromptFormat
from jelicit.data.named_sets import NamedSet
from jelicit.data.sets import SETS
from jelicit.named import resolve

GROUP = "jelicit.sets"
"""The group of entry points under which packages register sets."""

# The project's own entry points over again, as text: a source tree that is on the path but not
# installed, or installed before they were added, has no metadata that names them.
_OF_THE_SOURCE_TREE = {"pocket": "jelicit.pocket.world.sets:SETS"}

# What this process was given by reference is known by its name from then on, so that settings,
# stores and rows can go by names alone; like `sys.modules`, it only grows.
_own_sets: dict[str, NamedSet] = {}
_own_formats: dict[str, PromptFormat] = {}


def sets() -> dict[str, NamedSet]:
    """All known sets by name."""
    return {**SETS, **_registered(), **_own_sets}


def formats() -> dict[str, PromptFormat]:
    """All known formats by name: those of no set, every set's own, the user's own."""
    return {**_formats_of(sets()), **_own_formats}


def _formats_of(some: Mapping[str, NamedSet]) -> dict[str, PromptFormat]:
    of_sets = {format.name: format for named in some.values() for format in named.own_formats}
    return {**BASE_FORMATS, **of_sets}


def own_set(reference: str) -> NamedSet:
    """The set that `module:SET` or `file.py:SET` names; from then on it is known by its name.

    Raises:
        ValueError: As of `jelicit.named.resolve`, or its name or a format's is already another's.
    """
    named = resolve(reference, NamedSet, what="data set")
    if _own_sets.get(named.name, named) is not named:
        raise ValueError(_taken(f"data set {reference!r}", "set", named.name))
    return make_known(named, where=f"data set {reference!r}")


def make_known(named: NamedSet, *, where: str) -> NamedSet:
    """Makes a set known by its name; one of the user's own is replaced, as a cell run again.

    Raises:
        ValueError: Its name is that of a set that ships or is registered, or a format of its own
            has the name of another.
    """
    others = {name: other for name, other in sets().items() if name != named.name}
    others |= {**SETS, **_registered()}
    if others.get(named.name, named) is not named:
        raise ValueError(_taken(where, "set", named.name))
    _refuse_taken(named.own_formats, {**_formats_of(others), **_own_formats}, where)
    if named.name not in others:
        _own_sets[named.name] = named
    return named


def own_format(reference: str) -> PromptFormat:
    """The format that `module:FORMAT` or `file.py:FORMAT` names, known by its name from then on.

    Raises:
        ValueError: As of `jelicit.named.resolve`, or its name is another format's.
    """
    format = resolve(reference, PromptFormat, what="prompt format")
    _refuse_taken([format], formats(), f"prompt format {reference!r}")
    _own_formats[format.name] = format
    return format


def _refuse_taken(
    new: Iterable[PromptFormat], known: Mapping[str, PromptFormat], where: str
) -> None:
    for format in new:
        if known.get(format.name, format) != format:
            raise ValueError(_taken(where, "format", format.name))


def _taken(where: str, kind: str, name: str) -> str:
    return (
        f"{where}: the name {name!r} is another {kind}'s, and rows of both would be mixed; give it "
        "a name of its own"
    )


# --- installed packages --------------------------------------------------------------------------


@cache
def _registered() -> dict[str, NamedSet]:
    known: dict[str, NamedSet] = {}
    for reference in _references():
        try:
            for named in _declared(reference):
                if named.name in {**SETS, **known}:
                    raise ValueError(_taken(f"set {named.name!r}", "set", named.name))
                _refuse_taken(
                    named.own_formats, _formats_of({**SETS, **known}), f"set {named.name!r}"
                )
                known[named.name] = named
        except Exception as error:  # whatever a stranger's module raises, the other sets are there
            warnings.warn(f"sets of {reference} are left out: {error}", stacklevel=2)
    return known


def _references() -> list[str]:
    """What the entry points name, each once, though two installations may declare the same."""
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    return list(dict.fromkeys({**_OF_THE_SOURCE_TREE, **installed}.values()))


def _declared(reference: str) -> list[NamedSet]:
    given = resolve(reference, object, what=f"entry point of {GROUP!r}")
    declared: list[NamedSet] = []
    for named in given if isinstance(given, Iterable) else [given]:
        if not isinstance(named, NamedSet):
            raise ValueError(f"{reference} holds a {type(named).__name__}; expected NamedSet")
        declared.append(named)
    return declared
