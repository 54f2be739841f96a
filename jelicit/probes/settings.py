"""Settings of methods: each is declared once, with its range and help, where its method is.

A method's settings are a frozen dataclass whose fields are made by `rate`, `count`, `choice` and
`flag`:

    @dataclass(frozen=True, kw_only=True)
    class RidgeSettings:
        ridge_penalty: PerRun = rate(0.1, above=0, help="Of the squared length of the weights.")

Checks, command lines, grids and tables of settings all follow from these fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from jelicit.typed import is_whole

PerRun = Any
"""One number for all runs of a sweep, or an array with one for each of them; within a fit, the
traced number of its run."""

Kind = Literal["rate", "count", "choice", "flag"]
_KEY = "jelicit"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a setting is, and which values it may have.

    Attributes:
        name: As results and command lines call it.
        kind: A rate is a float32 number that may differ from run to run, without compiling
            anything anew; counts, choices and flags shape the compiled program.
        default: Its value unless another is given.
        help: What it is, for command lines and tables.
        above, least, below, most: Bounds of a number; None where there is none.
        options: What a choice chooses from.
    """

    name: str = ""
    kind: Kind
    default: Any
    help: str = ""
    above: float | int | None = None
    least: float | int | None = None
    below: float | int | None = None
    most: float | int | None = None
    options: tuple[str, ...] = ()

    @property
    def per_run(self) -> bool:
        """Whether runs of one sweep may differ in it."""
        return self.kind == "rate"

    @property
    def words(self) -> str:
        """Which values are allowed."""
        if self.kind == "choice":
            return f"one of {', '.join(self.options)}"
        if self.kind == "flag":
            return "true or false"
        if self.least is not None and self.most is not None:
            return f"{self.least} to {self.most}"
        bounds = (
            "" if self.least is None else f"{self.least} or more",
            "" if self.above is None else f"above {self.above}",
            "" if self.below is None else f"below {self.below}",
            "" if self.most is None else f"up to {self.most}",
        )
        return ", and ".join(filter(None, bounds)) or "any"

    def check(self, value: Any) -> None:
        """Refuse a value, or an array of rates, that is out of range.

        Raises:
            ValueError: Naming the setting, the first wrong value, and what is allowed.
        """
        if self.kind == "rate":
            self._check_rates(np.atleast_1d(np.asarray(value)))
        elif self.kind == "count":
            # Loops count with int32.
            if not (
                is_whole(value) and abs(int(value)) < 2**31 and self._within(np.asarray(value))
            ):
                raise ValueError(f"{self.name} is {value}; allowed: {self.words}.")
        elif self.kind == "choice" and value not in self.options:
            raise ValueError(f"{self.name}={value!r}; choose {self.words}.")
        elif self.kind == "flag" and not isinstance(value, bool | np.bool_):
            raise ValueError(f"{self.name} is {value!r}; allowed: {self.words}.")

    def _check_rates(self, given: np.ndarray) -> None:
        if not np.issubdtype(given.dtype, np.number) or np.iscomplexobj(given):
            raise ValueError(f"{self.name} is {given[0]!r}; allowed: numbers, {self.words}.")
        with np.errstate(over="ignore"):
            # Fits compute with float32, in which a rate may become 0, 1 or infinite.
            rates = given.astype(np.float32)
        wrong = ~(np.isfinite(rates) & self._within(rates))
        if wrong.any():
            raise ValueError(
                f"{self.name} is {given[wrong][0]}; allowed: finite float32 numbers, {self.words}."
            )

    def _within(self, values: np.ndarray) -> np.ndarray:
        holds = np.ones(values.shape, bool)
        if self.above is not None:
            holds &= values > self.above
        if self.least is not None:
            holds &= values >= self.least
        if self.below is not None:
            holds &= values < self.below
        if self.most is not None:
            holds &= values <= self.most
        return holds

    def parse(self, text: str) -> Any:
        """A value from a command line's word; its range is checked with the rest of a sweep.

        Raises:
            ValueError: A word that is no such value; says what the setting takes.
        """
        kinds = {"rate": "numbers", "count": "whole numbers", "flag": "true or false"}
        if self.kind == "choice":
            if text not in self.options:
                raise ValueError(f"{self.name} is {self.words}")
            return text
        try:
            if self.kind == "flag":
                return {"true": True, "false": False}[text]
            return int(text) if self.kind == "count" else float(text)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{self.name} takes {kinds[self.kind]}, parted by commas") from error


def _declared(setting: Setting) -> Any:
    return field(default=setting.default, metadata={_KEY: setting})


def rate(
    default: float | int,
    *,
    above: float | int | None = None,
    least: float | int | None = None,
    below: float | int | None = None,
    most: float | int | None = None,
    help: str = "",
) -> Any:
    """A field that may differ from run to run: a number within bounds, traced in fits."""
    return _declared(
        Setting(
            kind="rate",
            default=default,
            help=help,
            above=above,
            least=least,
            below=below,
            most=most,
        )
    )


def count(default: int, *, least: int = 1, most: int | None = None, help: str = "") -> Any:
    """A field that counts steps, starts or members, the same for all runs of a sweep."""
    return _declared(Setting(kind="count", default=default, least=least, most=most, help=help))


def choice(default: str, options: tuple[str, ...], *, help: str = "") -> Any:
    """A field that is one of some words, the same for all runs of a sweep."""
    return _declared(Setting(kind="choice", default=default, options=options, help=help))


def flag(default: bool, *, help: str = "") -> Any:
    """A field that is true or false, the same for all runs of a sweep."""
    return _declared(Setting(kind="flag", default=default, help=help))


def declared_settings(kind: type | None) -> dict[str, Setting]:
    """The settings of a dataclass by name, in order; fields of another make are left out."""
    if kind is None:
        return {}
    return {
        each.name: dataclasses.replace(each.metadata[_KEY], name=each.name)
        for each in fields(kind)
        if _KEY in each.metadata
    }


def undeclared(kind: type) -> list[str]:
    """Fields of a dataclass that are no settings: nothing is known of their range."""
    return [each.name for each in fields(kind) if _KEY not in each.metadata]


def check_values(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    """Refuse the first value that is out of the range of its setting; see `Setting.check`."""
    for name, setting in settings.items():
        setting.check(values[name])
