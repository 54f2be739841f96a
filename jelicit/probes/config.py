"""The settings of a sweep: which methods, how hidden states are normalised, and all their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from jelicit.probes.joint import JointSettings
from jelicit.probes.lda import LDASettings
from jelicit.probes.method import Method
from jelicit.probes.normalise import Divisor
from jelicit.probes.pca_ensemble import PCAE2HSettings
from jelicit.probes.random_ensemble import RandomE2HSettings
from jelicit.probes.registry import PAPER, get_method, get_methods
from jelicit.probes.settings import Setting, choice, declared_settings
from jelicit.probes.training_settings import LabelTraining


@dataclass(frozen=True, kw_only=True)
class SweepConfig(JointSettings, LabelTraining, PCAE2HSettings, RandomE2HSettings, LDASettings):
    """Settings of a sweep; the defaults are paper A's.

    It inherits the settings of paper A's methods, of the difference of means and of LDA; those of
    all others are in `own`. A `PerRun` is a number, or an array [R] with one number per run of the
    sweep: runs of different rates share one program. All else is static, and the same for every
    run.
    """

    methods: tuple[str | Method, ...] = PAPER
    """Built-in ones by name; a user's own as `package.module:NAME`, or itself."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """Settings of other methods (the field's proposals, a user's own) by name, where they differ
    from their defaults."""
    divisor: Divisor = choice(
        "paper",
        get_args(Divisor),
        help="What normalises hidden states: paper, norm, burns or std; see `fit_normaliser`.",
    )
    memory_budget: int = 2**31
    """Bytes that the runs fitted together may take beside the hidden states; sets the chunks."""
    devices: int = 1
    """Devices that share the runs of a chunk; each holds the hidden states. 0 takes all."""

    def resolved(self) -> tuple[Method, ...]:
        """The methods themselves.

        Raises:
            ValueError: See `get_methods`.
        """
        return get_methods(self.methods)

    @property
    def names(self) -> tuple[str, ...]:
        """The methods by name, as results call them."""
        return tuple(method.name for method in self.resolved())

    def value(self, setting: Setting) -> Any:
        """The value of a setting: one of the fields, or one of `own`."""
        if setting.name in SWEEP_SETTINGS:
            return getattr(self, setting.name)
        return self.own.get(setting.name, setting.default)

    def settings_of(self, method: str | Method) -> Any:
        """A method's own settings, as its fit takes them; None where it has none."""
        method = get_method(method)
        if method.settings is None:
            return None
        return method.settings(**{name: self.value(own) for name, own in method.reads.items()})

    def with_settings(self, values: Mapping[str, Any]) -> SweepConfig:
        """These settings changed, whether they are fields or in `own`."""
        flat = {field.name for field in fields(self)}
        own = {name: value for name, value in values.items() if name not in flat}
        rest = {name: value for name, value in values.items() if name in flat}
        return replace(self, **{"own": {**self.own, **own}, **rest})


SWEEP_SETTINGS: dict[str, Setting] = declared_settings(SweepConfig)
"""Every setting that has a range, by name: those of the built-in methods, and the divisor."""

RATES: tuple[str, ...] = tuple(name for name, own in SWEEP_SETTINGS.items() if own.per_run)
"""The built-in settings that may differ from run to run."""
