"""All methods there are: those built in, and a user's own by `package.module:NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from jelicit.named import is_reference, resolve
from jelicit.probes.ccs import CCS
from jelicit.probes.clusters import CLUSTER_CCS, CLUSTER_PCA
from jelicit.probes.e2h import E2H
from jelicit.probes.joint import UE_E2H
from jelicit.probes.kmeans import KMEANS
from jelicit.probes.lda import LDA
from jelicit.probes.leace import LEACE_CCS, LEACE_PCA
from jelicit.probes.logistic import LOGISTIC
from jelicit.probes.mean_difference import MEAN_DIFFERENCE
from jelicit.probes.method import EASY, NEEDS, TARGETS, Method
from jelicit.probes.mlp import MLP
from jelicit.probes.negation import DRC, MIDPOINT, VINC
from jelicit.probes.paraphrases import CCS_PARAPHRASES
from jelicit.probes.pca import PCA
from jelicit.probes.pca_ensemble import PCA_ENSEMBLE_CONSENSUS, PCA_ENSEMBLE_E2H
from jelicit.probes.random_ensemble import RANDOM_ENSEMBLE_CONSENSUS, RANDOM_ENSEMBLE_E2H
from jelicit.probes.random_probe import RANDOM
from jelicit.probes.settings import Setting
from jelicit.probes.supervised import SUPERVISED

_OF_PAPER_A = (
    RANDOM,
    CCS,
    PCA,
    E2H,
    SUPERVISED,
    UE_E2H,
    RANDOM_ENSEMBLE_CONSENSUS,
    RANDOM_ENSEMBLE_E2H,
    PCA_ENSEMBLE_CONSENSUS,
    PCA_ENSEMBLE_E2H,
)
_PEERS = (MEAN_DIFFERENCE, LDA)
_PROPOSALS = (
    DRC,
    MIDPOINT,
    VINC,
    KMEANS,
    CLUSTER_PCA,
    CLUSTER_CCS,
    LEACE_PCA,
    LEACE_CCS,
    LOGISTIC,
    MLP,
)

# Where every item has one wording, as in most studies, this is CCS by another name.
_OVER_WORDINGS = (CCS_PARAPHRASES,)

BUILT_IN: tuple[Method, ...] = (*_OF_PAPER_A, *_PEERS, *_PROPOSALS, *_OVER_WORDINGS)
"""Every method that ships with the project; within each group, in reading order."""

PAPER: tuple[str, ...] = tuple(method.name for method in _OF_PAPER_A)
"""Names of paper A's ten methods."""
PEERS: tuple[str, ...] = tuple(method.name for method in _PEERS)
"""Names of labelled probes that other tools offer; not in paper A."""
PROPOSALS: tuple[str, ...] = tuple(method.name for method in _PROPOSALS)
"""Names of what others of the field have proposed; in no study unless asked for."""
ALL_METHODS: tuple[str, ...] = tuple(method.name for method in BUILT_IN)

NEEDS_TARGETS = frozenset(method.name for method in BUILT_IN if TARGETS in method.needs)
NEEDS_EASY = frozenset(method.name for method in BUILT_IN if EASY in method.needs)
FREE_SIGN = frozenset(method.name for method in BUILT_IN if method.free_sign)
"""Methods that find a direction but not its sign; `metrics.orient` has to pick it."""

_BY_NAME = {method.name: method for method in BUILT_IN}
_OWN: dict[str, Method] = {}


def known_methods() -> tuple[Method, ...]:
    """All methods by which results can be named: those built in, and a user's own named so far."""
    return (*BUILT_IN, *_OWN.values())


def get_method(named: str | Method) -> Method:
    """The method of this name.

    Args:
        named: The name of a built-in method; `package.module:NAME` or `file.py:NAME` of a user's
            own; or the method itself.

    Raises:
        ValueError: No such method; names all there are, and the closest. A user's own method that
            bears the name of a built-in one.
    """
    if isinstance(named, Method):
        method = named
    elif not isinstance(named, str):
        raise ValueError(f"a method is named {named!r}; give a name, or a Method itself.")
    elif named in _BY_NAME:
        return _BY_NAME[named]
    elif is_reference(named):
        method = resolve(named, Method, what="method")
    else:
        close = get_close_matches(named, _BY_NAME, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Method {named!r} is unknown.{hint} There are {', '.join(_BY_NAME)}; a method of "
            "your own is named package.module:NAME or file.py:NAME."
        )
    if _BY_NAME.get(method.name, method) is not method:
        raise ValueError(
            f"Method {named!r} bears the name of the built-in {method.name!r}; give it another, so "
            "that result rows tell them apart."
        )
    if method.name not in _BY_NAME:
        _OWN[method.name] = method
    return method


def get_methods(named: Iterable[str | Method]) -> tuple[Method, ...]:
    """The methods of these names, in order.

    Raises:
        ValueError: None at all, one that is unknown (see `get_method`), or two of one name.
    """
    if isinstance(named, str | bytes) or not isinstance(named, Iterable):
        raise ValueError(f"methods is {named!r}; give a sequence of methods.")
    methods = tuple(get_method(each) for each in named)
    if not methods:
        raise ValueError(f"methods is empty; choose some of {', '.join(_BY_NAME)}.")
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"methods names {name!r} twice; name each method once.")
    return methods


def needing(methods: Iterable[str | Method], need: str) -> list[str]:
    """Names of those methods that need "targets", the "easy" set, or another of `NEEDS`."""
    if need not in NEEDS:
        raise ValueError(f"need={need!r}; choose one of {', '.join(NEEDS)}.")
    return [method.name for method in map(get_method, methods) if need in method.needs]


def own_settings(methods: Iterable[str | Method]) -> dict[str, list[Setting]]:
    """Settings that `SweepConfig` has no field for, by name: all that bear it.

    Those of a user's own methods, and of the field's proposals.

    Raises:
        ValueError: An unknown method, or a setting that bears the name of a built-in one and is
            another.
    """
    from jelicit.probes.config import SWEEP_SETTINGS

    own: dict[str, list[Setting]] = {}
    for method in map(get_method, methods):
        for name, setting in method.reads.items():
            if name not in SWEEP_SETTINGS:
                own.setdefault(name, []).append(setting)
            elif setting != SWEEP_SETTINGS[name]:
                raise ValueError(
                    f"Setting {name!r} of method {method.name!r} bears the name of a built-in "
                    "setting and is another; inherit that one, or choose another name."
                )
    return own


def crossable(methods: Iterable[str | Method] = ()) -> dict[str, Setting]:
    """The settings that a study may cross, by name: the sweep's own, and those of these methods.

    Raises:
        ValueError: See `own_settings`.
    """
    from jelicit.probes.config import SWEEP_SETTINGS

    own = {name: settings[0] for name, settings in own_settings(methods).items()}
    return {**SWEEP_SETTINGS, **own}
