"""What a method is: declared once, in its own file, with all that the rest of the house asks of it.

A user's own method is declared in the user's own file in the same way, and is named there as
`package.module:NAME` or `folder/file.py:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jelicit.method_groups import GROUPS
from jelicit.pairs import Pairs
from jelicit.probes.gram import PoolGram
from jelicit.probes.kinds import Probe
from jelicit.probes.linear import LinearProbe
from jelicit.probes.normalise import Normaliser, identity_normaliser
from jelicit.probes.settings import Setting, declared_settings, undeclared
from jelicit.probes.together import Trained

TARGETS, EASY = "targets", "easy"
VERDICT, WORDINGS = "verdict", "wordings"
NEEDS = {
    TARGETS: "labels of the hard train rows",
    EASY: "a labelled easy set",
    VERDICT: "the mean states of either verdict word, which normalisation takes away",
    WORDINGS: "which rows are wordings of one item, where that is known",
}
"""What a method may need beside hidden states; it is handed nothing else."""

RESERVED = frozenset({"methods", "own", "divisor", "memory_budget", "devices"})
"""Names that a sweep has for itself; no setting of a method may bear one."""


class Run(NamedTuple):
    """What is a run's own: one seed, one subset of the hard rows."""

    key: Array
    rows: Float[Array, " n"]
    """Row weights, 1 for the run's hard train rows and 0 for all others."""
    normaliser: Normaliser
    """Statistics of those rows, for the pairs in `Data.hard`."""
    host: Any = None
    """What `Method.host` made of those rows, as arrays."""
    places: Int[Array, " m"] | None = None
    """Where those rows are in `Data.hard`, for methods that hold copies of them; filled up by other
    rows. None where copies would take too much memory."""


class Data(NamedTuple):
    """What all runs of a layer share. A fit sees of it what its method says that it needs."""

    hard: Pairs
    """[n, d], centred and scaled by the statistics of the whole pool, as far as runs use it.

    float64 for methods that are declared `double`."""
    hard_targets: Float[Array, " n"] | None = None
    """In [0, 1]; for methods that need targets alone."""
    easy: Pairs | None = None
    """[e, d], normalised by its own statistics for good: labels are learned there on those."""
    easy_labels: Float[Array, " e"] | None = None
    kept: Bool[Array, " pool"] | None = None
    """Which rows of the pool `hard` has; None = all of them."""
    pool: Normaliser | None = None
    """What made `hard` of the hidden states; for methods that need the verdict's own effect."""
    wordings: Int[Array, " n"] | None = None
    """The number (below n) of the item that each row is a wording of; None = one wording each."""
    products: PoolGram | None = None
    """Of all rows of `hard` with each other, for methods whose runs copy rows, where that pays."""

    def only(self, needs: Set[str]) -> Data:
        """The data without what these needs do not name."""
        data = self
        if TARGETS not in needs:
            data = data._replace(hard_targets=None)
        if EASY not in needs:
            data = data._replace(easy=None, easy_labels=None)
        if VERDICT not in needs:
            data = data._replace(pool=None)
        if WORDINGS not in needs:
            data = data._replace(wordings=None)
        return data

    def targets(self) -> Float[Array, " n"]:
        """The targets of a method that needs them."""
        assert self.hard_targets is not None
        return self.hard_targets

    def easy_set(self) -> tuple[Pairs, Normaliser, Float[Array, " e"]]:
        """The easy set of a method that needs it: pairs, their normaliser, their labels."""
        assert self.easy is not None
        assert self.easy_labels is not None
        d, dtype = self.easy.pos.shape[1], self.easy.pos.dtype
        return self.easy, identity_normaliser(d, dtype=dtype), self.easy_labels


class FitInfo(NamedTuple):
    """How a fit went that says nothing else. Leading axes, if any, are stacked fits."""

    finite: Bool[Array, "*batch"]
    """Whether the probe is finite; one that is not means nothing."""


Fit = Callable[..., Any]
"""(run, data, settings) -> a probe, or (probe, info): one run, pure, under `jax.vmap`.

Of a method with `common` work: (run, data, settings, what that work made).
"""

AnyProbe = LinearProbe | Probe

Fits = dict[str, tuple[AnyProbe, Any]]
"""Method -> its probe, and how its fit went."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """Work that several methods of a run share: done once for all of them, before their fits.

    Attributes:
        name: Of the random stream that the methods share.
        make: (run, data, settings) -> whatever their fits take. `settings` has each wanted method's
            own, by its name; `data` has the labels that any of them needs.
    """

    name: str
    make: Callable[[Run, Data, Mapping[str, Any]], Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to find a direction in hidden states.

    Attributes:
        name: Its key in result rows and on command lines: small letters, digits and underscores.
        title: What tables and figures call it.
        group: Which methods it stands with there; one of `method_names.GROUPS`.
        fit: The fit of one run. It is pure, and `jax.vmap` runs it over seeds, subsets and rates.
        free_sign: Whether its direction has no sign of its own, so that one has to be picked.
        source: Where it is from: paper and equation.
        needs: Some of `NEEDS`, or none: "targets" and "easy" are labels, and the fit sees no other;
            "verdict" and "wordings" are none.
        settings: A frozen dataclass of settings, or None; see `jelicit.probes.settings`.
        trained: The same fit as a descent, where it is one, or None. Such methods are trained side
            by side where their runs are the same; see `jelicit.probes.together`.
        common: Work that it shares with other methods, or None.
        host: Work that no compiled program does, such as a library's, or None: (pairs in NumPy
            [n, d], the run's rows [n] of bool, settings) -> an array or a tree of arrays, of one
            shape for all runs; the fit finds it in `Run.host`. It sees neither labels nor seeds,
            and is done once for all runs of the same rows.
        probe: What its fit gives where that is no `LinearProbe`; see `jelicit.probes.kinds`. Such a
            probe is in sweeps and studies like any other, and not in files of probes.
        algorithm: Raised whenever the numbers that the fit gives change: kept fits of another
            number are not read back.
        info: The named tuple that says how a fit went; has a field `finite`.
        by_seed: Whether the fit depends on the seed; if not, it is made once for all seeds.
        by_subset: Whether the fit depends on the subset of hard rows, or a function of the settings
            that tells.
        double: Whether the fit is handed float64: hidden states, statistics and all that is made of
            them. For fits that end in decisions, which a last digit of float32 may turn; what they
            give is float32. Methods with `common` work agree in it.
        stream: Names the random stream, where it is not the method's own: methods of one stream
            draw the same numbers.
        vectors: How many vectors of n + d + e numbers a run holds while it is fitted on n hard and
            e easy rows of width d, or a function of the settings that tells; sets how many runs are
            fitted at once.
        copies: How many copies of its own rows a run holds while it is fitted, if there is memory
            for them: the fit then finds in `Run.places` which rows they are. 0 = none, and all runs
            work on the rows that they share.
    """

    name: str
    title: str
    group: str
    fit: Fit
    free_sign: bool
    source: str
    needs: Set[str] = frozenset()
    settings: type | None = None
    trained: Trained | None = None
    common: Common | None = None
    host: Callable[[Pairs, np.ndarray, Any], Any] | None = None
    probe: type = LinearProbe
    algorithm: int = 1
    info: type = FitInfo
    by_seed: bool = True
    by_subset: bool | Callable[[Any], bool] = True
    double: bool = False
    stream: str = ""
    vectors: int | Callable[[Any], int] = 12
    copies: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"Method name {self.name!r}: use small letters, digits and underscores, and begin "
                "with a letter; for readers there is `title`."
            )
        object.__setattr__(self, "needs", frozenset(self.needs))
        problem = self._wrong()
        if problem:
            raise ValueError(f"Method {self.name!r}: {problem}")

    def _wrong(self) -> str:
        """What is wrong with the declaration, or nothing."""
        if not self.title:
            return "title is empty; tables and figures show it."
        if self.group not in GROUPS:
            return f"group={self.group!r}; choose one of {', '.join(GROUPS)}."
        if unknown := sorted(self.needs - set(NEEDS)):
            return f"needs {unknown[0]!r}; allowed: {', '.join(NEEDS)}."
        if not callable(self.fit):
            return f"fit is a {type(self.fit).__name__}; give a function."
        if self.common is not None and self.host is not None:
            return "common and host are given; a method has one or the other."
        if self.algorithm < 1:
            return f"algorithm={self.algorithm}; count from 1."
        if "finite" not in getattr(self.info, "_fields", ()):
            return f"info is {self.info.__name__}; give a named tuple with a field 'finite'."
        return self._wrong_settings()

    def _wrong_settings(self) -> str:
        kind = self.settings
        if kind is None:
            return ""
        if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            return f"settings is {kind!r}; give a frozen dataclass."
        if bare := undeclared(kind):
            return (
                f"setting {bare[0]!r} has no range; make the field by rate, count, choice or flag "
                "of jelicit.probes.settings."
            )
        if taken := sorted(RESERVED & set(self.reads)):
            return f"setting {taken[0]!r} bears a name that a sweep has for itself; choose another."
        try:
            for setting in self.reads.values():
                setting.check(setting.default)
        except ValueError as error:
            return f"the default of a setting is out of its own range: {error}"
        return ""

    @property
    def reads(self) -> dict[str, Setting]:
        """The settings that its fit reads, by name."""
        return declared_settings(self.settings)

    @property
    def random_stream(self) -> str:
        """The name of the random stream that its fit draws from."""
        return self.stream or (self.common.name if self.common else self.name)

    def depends_on_subset(self, settings: Any) -> bool:
        """Whether the fit with these settings depends on the run's rows."""
        return self.by_subset(settings) if callable(self.by_subset) else self.by_subset

    def vectors_held(self, settings: Any) -> int:
        """How many vectors a run with these settings holds; see `vectors`."""
        return self.vectors(settings) if callable(self.vectors) else self.vectors

    def __str__(self) -> str:
        return self.name


def with_info(method: Method, made: Any) -> tuple[AnyProbe, Any]:
    """What a fit gave, as a probe and its info.

    Raises:
        TypeError: It gave something else.
    """
    probe: Any
    probe, info = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(probe, LinearProbe) and not isinstance(probe, method.probe):
        own = "" if method.probe is LinearProbe else f" (or a {method.probe.__name__})"
        raise TypeError(
            f"The fit of {method.name!r} returned a {type(probe).__name__}; return a LinearProbe"
            f"{own}, or a LinearProbe{own} and its info."
        )
    if info is None and method.info is FitInfo:
        info = FitInfo(_finite(probe))
    if not isinstance(info, method.info):
        raise TypeError(
            f"The fit of {method.name!r} returned info of type {type(info).__name__}; the method "
            f"is declared with info={method.info.__name__}."
        )
    return probe, info


def _finite(probe: AnyProbe) -> Bool[Array, ""]:
    if isinstance(probe, LinearProbe):
        return jnp.isfinite(probe.weight).all() & jnp.isfinite(probe.offset).all()
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(probe)]).all()
