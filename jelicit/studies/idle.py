"""Options that would do nothing: whoever gives one expects it to do something, so it is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from jelicit.probes.config import SWEEP_SETTINGS
from jelicit.probes.method import EASY, Method
from jelicit.probes.registry import get_methods
from jelicit.studies.fit_settings import FitSettings

_ALL_READ = "divisor"
"""The setting of fits that no method names, since hidden states are normalised for all."""


def idle_fit_options(
    fit: FitSettings, methods: Iterable[str | Method], crossed: Iterable[str] = ()
) -> list[str]:
    """Problems of options of fits, and of crossed settings, that none of the methods reads.

    Args:
        fit: The options; one that has its default was not given.
        methods: What is fitted.
        crossed: Settings that --settings names.
    """
    wanted = get_methods(methods)
    read = {_ALL_READ, *(name for method in wanted for name in method.reads)}
    names = " ".join(method.name for method in wanted)
    given = [
        f"--{each.name}"
        for each in fields(fit)
        if each.name in SWEEP_SETTINGS
        and each.name not in read
        and getattr(fit, each.name) != each.default
    ]
    given += [f"--settings {name}" for name in crossed if name not in read]
    return [f"{option} does nothing with --methods {names}: leave it out" for option in given]


def reads_easy(methods: Iterable[str | Method], orientations: Sequence[str] = ("easy",)) -> bool:
    """Whether an easy set changes anything: a method learns from it, or its labels pick signs."""
    wanted = get_methods(methods)
    learns = any(EASY in method.needs for method in wanted)
    return learns or ("easy" in orientations and any(method.free_sign for method in wanted))
