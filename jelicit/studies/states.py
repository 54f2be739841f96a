"""Hidden states behind a situation, wherever they come from: stores, arrays, a reader by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jelicit.pairs import Pairs
from jelicit.probes.sweep import LayerPairs

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore
    from jelicit.studies.situation import Situation


class Store(Protocol):
    """What is asked of an activation store, beside its `log_probs` [n, 2]."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Its hidden-state indices."""
        ...

    def pairs(self, layer: int) -> Pairs:
        """The pairs of a layer."""
        ...


@dataclass(frozen=True, kw_only=True)
class States:
    """Hidden states of the rows of a situation, by layer.

    Attributes:
        layers: Hidden-state indices to work on.
        train: Of the hard train rows: layer -> pairs [N, d], or a function of the layer.
        test: Of the test rows; None where nothing is measured.
        easy: Of the easy rows; None where there are none.
        train_log_probs: log P of the two verdicts [N, 2], or None where nobody knows them.
        test_log_probs: Of the test rows [n, 2].
        origin: What made them, for the identity of the rows that come from them.
        texts: Facts about the tokenised train prompts (`StoreSpec.texts`).
    """

    layers: tuple[int, ...]
    train: LayerPairs
    test: LayerPairs | None = None
    easy: LayerPairs | None = None
    train_log_probs: np.ndarray | None = None
    test_log_probs: np.ndarray | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_stores(cls, train: Store, test: Store, easy: Store | None = None) -> States:
        """Of activation stores, at the layers of the train store; read when they are asked for."""
        return cls(
            layers=tuple(train.layers),
            train=train.pairs,
            test=test.pairs,
            easy=None if easy is None else easy.pairs,
            train_log_probs=_log_probs(train),
            test_log_probs=_log_probs(test),
            origin={
                "train": _origin(train),
                "test": _origin(test),
                "easy": None if easy is None else _origin(easy),
            },
            texts=_texts(train),
        )

    @classmethod
    def of_arrays(
        cls,
        train: Pairs | Mapping[int, Pairs] | ActivationStore,
        test: Pairs | Mapping[int, Pairs] | ActivationStore | None = None,
        easy: Pairs | Mapping[int, Pairs] | ActivationStore | None = None,
        *,
        layers: tuple[int, ...] | None = None,
        train_log_probs: np.ndarray | None = None,
        test_log_probs: np.ndarray | None = None,
    ) -> States:
        """Of pairs (their layer is called 0), pairs by layer, or a store, in any mixture.

        Args:
            train: Of the hard train rows.
            test: Of the test rows.
            easy: Of the easy rows.
            layers: Which; None = all that train has.
            train_log_probs: log P of the two verdicts of the train rows [N, 2].
            test_log_probs: Of the test rows [n, 2].
        """
        return cls(
            layers=_layers_of(train) if layers is None else layers,
            train=_by_layer(train),
            test=None if test is None else _by_layer(test),
            easy=None if easy is None else _by_layer(easy),
            train_log_probs=train_log_probs,
            test_log_probs=test_log_probs,
        )


def digest_of_arrays(situation: Situation, states: States) -> str:
    """What tells labels of one's own, and hidden states of unknown origin, from any others."""
    content = hashlib.sha256()
    for part in ("train", "test", "easy"):
        pairs = None if states.origin else getattr(states, part)
        for layer in states.layers if pairs is not None else ():
            for side in at_layer(pairs, layer):  # type: ignore[arg-type]
                _add(content, f"{part} {layer}", side)
    _add(content, "train log probs", states.train_log_probs)
    _add(content, "test log probs", states.test_log_probs)
    for target in situation.targets():
        _add(content, f"{target.name} train", target.train)
        _add(content, f"{target.name} test", target.test)
    _add(content, "easy", None if situation.easy is None else situation.easy.labels)
    _add(content, "groups", np.array([item.group for item in situation.test]))
    return content.hexdigest()


def _add(content: Any, name: str, values: Any) -> None:
    array = np.zeros(0) if values is None else np.ascontiguousarray(values)
    content.update(f"{name} {array.dtype} {array.shape}".encode())
    content.update(array.tobytes())


def at_layer(pairs: LayerPairs, layer: int) -> Pairs:
    """The pairs of a layer, from either form."""
    return pairs(layer) if callable(pairs) else pairs[layer]


def _layers_of(states: Any) -> tuple[int, ...]:
    if isinstance(states, Pairs):
        return (0,)
    if isinstance(states, Mapping):
        return tuple(states)
    _check_kind(states)
    return tuple(states.layers)


def _by_layer(states: Any) -> LayerPairs:
    if isinstance(states, Pairs):
        return {0: states}
    if isinstance(states, Mapping):
        return states
    _check_kind(states)
    return states.pairs


def _check_kind(states: Any) -> None:
    """What has layers and gives their pairs is a store, whoever reads it."""
    if not (hasattr(states, "layers") and callable(getattr(states, "pairs", None))):
        raise ValueError(
            f"hidden states are a {type(states).__name__}; give Pairs, a mapping from layers to "
            "Pairs, or a store"
        )


def _log_probs(store: Any) -> np.ndarray | None:
    return getattr(store, "log_probs", None)


def _origin(store: Any) -> dict[str, Any]:
    """What made a store: its own account; of another reader, none."""
    spec = getattr(store, "spec", None)
    if spec is None:
        return {}
    return {
        "model": spec.model,
        "revision": spec.revision,
        "model_digest": spec.model_digest,
        "dtype": spec.dtype,
        "prompt_format": dict(spec.prompt_format),
        "settings": dict(spec.settings),
        # How many threads made them is no other number, rounding aside.
        "machine": {name: fact for name, fact in spec.machine.items() if name != "threads"},
        "versions": dict(spec.versions),
        "items": spec.item_digest,
    }


def _texts(store: Any) -> Mapping[str, Any]:
    spec = getattr(store, "spec", None)
    return {} if spec is None else spec.texts
