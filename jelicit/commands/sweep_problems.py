"""What is wrong with the options of `jelicit sweep` by themselves: all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jelicit.commands.sweep import Sweep
from jelicit.disk import looks_like_url
from jelicit.probes.method import EASY
from jelicit.probes.methods import METHODS, get_method
from jelicit.studies.checks import repeated, too_small
from jelicit.studies.fit_settings import crossed
from jelicit.studies.idle import idle_fit_options, reads_easy
from jelicit.studies.scoring import ORIENTATIONS


def problems(options: Sweep) -> list[str]:
    """Everything that is wrong with the options, one line each, naming the option."""
    unknown = _unknown_methods(options.methods)
    wrong = [*unknown, *_wrong_numbers(options), *_wrong_names(options)]
    if not unknown:  # what methods read is known of known ones only
        wrong += _wrong_for_methods(options)
    if looks_like_url(options.out):
        wrong.append(
            f"--out {options.out}: results are written to a local folder only; name one, and copy "
            "it there afterwards"
        )
    return wrong


def methods_of(options: Sweep) -> tuple[str, ...]:
    """The methods that can be fitted: those asked for, without an easy set but such as need it."""
    asked = options.methods or METHODS
    if options.easy is not None:
        return asked
    return tuple(name for name in asked if EASY not in get_method(name).needs)


def orientations_of(options: Sweep) -> tuple[str, ...]:
    """Who picks signs: what was asked for, or whoever can."""
    return options.orientations or (ORIENTATIONS if options.easy is not None else ("oracle",))


def crossed_settings(options: Sweep) -> dict[str, tuple[Any, ...]]:
    """The settings to cross, with their values.

    Raises:
        ValueError: See `crossed`.
    """
    return crossed(options.settings, options.fit, methods_of(options))


def _unknown_methods(methods: Sequence[str]) -> list[str]:
    wrong = repeated("--methods", methods)
    for name in methods:
        try:
            get_method(name)
        except ValueError as error:
            wrong.append(f"--methods: {error}")
    return wrong


def _wrong_numbers(options: Sweep) -> list[str]:
    wrong = too_small([("--seeds", options.seeds, 1), ("--boot", options.boot, 1)])
    if options.train_size is not None:
        wrong += too_small([("--train-size", options.train_size, 2)])
        if not options.class_shares:
            wrong.append("--train-size does nothing without --class-shares: give both or neither")
    for share in options.class_shares:
        if not 0 <= share <= 1:
            wrong.append(f"--class-shares {share:g}: allowed are shares from 0 to 1")
    return wrong


def _wrong_names(options: Sweep) -> list[str]:
    wrong = []
    for option in ("class_shares", "layers", "orientations"):
        given = [
            f"{value:g}" if isinstance(value, float) else str(value)
            for value in getattr(options, option)
        ]
        wrong += repeated(f"--{option.replace('_', '-')}", given)
    if unknown := [name for name in options.orientations if name not in ORIENTATIONS]:
        wrong.append(f"--orientations {' '.join(unknown)}: choose some of {ORIENTATIONS}")
    if options.easy is None and "easy" in options.orientations:
        wrong.append("--orientations easy: without --easy there is only oracle")
    return wrong


def _wrong_for_methods(options: Sweep) -> list[str]:
    """Options that do nothing for the methods that are fitted, or leave none."""
    methods, asked = methods_of(options), " ".join(options.methods)
    if not methods:
        return [f"--methods {asked}: without --easy STORE none of them can be fitted"]
    wrong = []
    if options.orientations and not any(get_method(name).free_sign for name in methods):
        wrong.append(
            f"--orientations does nothing with --methods {asked}, which know their sign: leave it "
            "out"
        )
    if options.easy is not None and not reads_easy(methods, orientations_of(options)):
        wrong.append(
            f"--easy does nothing with --methods {asked} and signs picked by "
            f"{', '.join(orientations_of(options))}: leave it out"
        )
    try:
        names = crossed_settings(options)
    except ValueError as error:
        return [*wrong, str(error)]
    return wrong + idle_fit_options(options.fit, methods, names)
