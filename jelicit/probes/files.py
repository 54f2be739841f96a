"""Probes on disk: a probe with its normaliser and the settings that made it, in an Orbax folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float

from jelicit.disk import whole_folder
from jelicit.pairs import Pairs, check_shapes
from jelicit.probes.linear import LinearProbe, score
from jelicit.probes.normalise import Normaliser

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore

_FORMAT = 2
_WITHOUT_CHECKSUM = 1


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A probe that is ready to score: with its normaliser, its sign chosen, its settings known.

    Attributes:
        probe: One probe, in the coordinates of the normaliser.
        normaliser: Statistics of the rows it was fitted on.
        settings: What made it (method, model, layer, seed, orientation, ...), as JSON has it.
    """

    probe: LinearProbe
    normaliser: Normaliser
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width, known = self.probe.weight.shape, self.normaliser.mean_pos.shape
        if len(width) != 1 or width != known:
            raise ValueError(
                f"a fitted probe is one probe with one normaliser of the same width; got weights "
                f"{width} and means {known} (pick one run with SweepResult.probe)"
            )

    def score(self, pairs: Pairs) -> Float[Array, " n"]:
        """Truth scores of hidden states [n, d] as the model made them; positive reads as true.

        Raises:
            ValueError: Malformed pairs, or pairs of another width.
        """
        d, width = self.probe.weight.shape[0], check_shapes(pairs)[1]
        if d != width:
            raise ValueError(
                f"the pairs have width {width}, the probe {d}: is it of another model? "
                f"It was made by {dict(self.settings)}"
            )
        return score(self.probe, self.normaliser, pairs)

    def score_store(
        self, store: ActivationStore, *, layer: int | None = None, other_model: bool = False
    ) -> Float[Array, " n"]:
        """Truth scores of a store's items, at the layer and of the model that it was fitted on.

        Args:
            store: Hidden states.
            layer: Another layer; None = its own.
            other_model: Whether the store may be of another model: its width alone must fit then.

        Raises:
            ValueError: The probe does not say its layer and none is given, the store is of another
                model and `other_model` does not allow it, or see `ActivationStore.pairs`.
        """
        known, digest = self.settings.get("model_digest"), store.spec.model_digest
        if not other_model and known not in (None, digest):
            raise ValueError(
                f"{store.folder} holds hidden states of {store.spec.model}, the probe was fitted "
                f"on those of {self.settings.get('model')} with other weights; where that is "
                "meant, say so: --other-model (other_model=True)"
            )
        layer = self.settings.get("layer") if layer is None else layer
        if type(layer) is not int:
            raise ValueError(
                f"the probe does not say which layer it is of (its layer is {layer!r}); give one: "
                "--layer (layer=)"
            )
        return self.score(store.pairs(layer))

    def flipped(self) -> FittedProbe:
        """The probe of the opposite sign."""
        probe = jax.tree.map(lambda leaf: -leaf, self.probe)
        return FittedProbe(probe=probe, normaliser=self.normaliser, settings=self.settings)


def save_probe(path: str | os.PathLike[str], fitted: FittedProbe) -> Path:
    """Write a probe, its settings and its normaliser to a new folder, whole or not at all.

    Nothing in it is bound to the devices that the probe lies on.

    Raises:
        FileExistsError: There is something at `path`.
        ValueError: The settings cannot be written as JSON.
        OSError: It cannot be written; the message names it.
    """
    folder = Path(path).absolute()
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; probes are never overwritten")
    normaliser = asdict(fitted.normaliser)
    facts = {"fitted_on": normaliser.pop("fitted_on"), "settings": _as_json(fitted.settings)}
    named = {"probe": asdict(fitted.probe), "normaliser": normaliser}
    arrays = jax.tree.map(np.asarray, named)
    record = {"format": _FORMAT, **facts, "sha256": _checksum(facts, arrays)}
    with whole_folder(folder) as temporary:
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(
                    temporary,
                    args=ocp.args.Composite(
                        arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
                    ),
                    force=True,  # the folder is there, and empty
                )
        except OSError:
            raise
        except Exception as error:  # the writer has classes of its own for errors of the disk
            raise OSError(_first_line(error)) from error
    return folder


def load_probe(path: str | os.PathLike[str]) -> FittedProbe:
    """Read a probe that `save_probe` wrote; its scores are identical, on whatever device.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: What is there is no probe, is damaged, was edited, or is of a newer format.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no probe folder")
    try:
        record = _restore(folder, record=ocp.args.JsonRestore())["record"]
        arrays = _restore(folder, arrays=ocp.args.PyTreeRestore(restore_args=_as_numpy()))["arrays"]
    except Exception as error:  # whatever the reader calls it: this folder is no whole probe
        raise ValueError(
            f"{folder} is no probe file, or a damaged one: {_first_line(error)}"
        ) from error
    return _checked(folder, record, arrays)


def _checked(folder: Path, record: Any, arrays: Mapping[str, Any]) -> FittedProbe:
    """The probe, if its record is whole and about these numbers."""
    version = record.get("format") if isinstance(record, dict) else None
    if version not in (_WITHOUT_CHECKSUM, _FORMAT):
        raise ValueError(
            f"{folder} has format {version!r}; this version reads {_WITHOUT_CHECKSUM} and {_FORMAT}"
        )
    expected = {"fitted_on": str, "settings": dict}
    if wrong := [name for name, kind in expected.items() if not isinstance(record.get(name), kind)]:
        raise ValueError(
            f"{folder} does not say {' and '.join(wrong)}, so nobody knows what its probe is of; "
            "save it again with save_probe"
        )
    facts = {name: record[name] for name in expected}
    if version == _FORMAT and record.get("sha256") != _checksum(facts, arrays):
        raise ValueError(
            f"{folder} was changed since it was saved: its checksum does not fit its settings and "
            "numbers; save the probe again"
        )
    numbers = jax.tree.map(jnp.asarray, arrays)
    return FittedProbe(
        probe=LinearProbe(**numbers["probe"]),
        normaliser=Normaliser(**numbers["normaliser"], fitted_on=record["fitted_on"]),
        settings=record["settings"],
    )


def _as_numpy() -> dict[str, dict[str, ocp.RestoreArgs]]:
    """How to read each array: not onto the device it was saved from, which may not be here."""
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    return {
        name: {one.name: as_numpy for one in fields(kind) if one.name != "fitted_on"}
        for name, kind in (("probe", LinearProbe), ("normaliser", Normaliser))
    }


def _restore(folder: Path, **args: Any) -> Any:
    with _checkpointer() as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.Composite(**args))


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they will be read back; numbers and arrays of NumPy and JAX become plain ones."""

    def plain(value: Any) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if hasattr(value, "__array__"):
            return np.asarray(value).tolist()
        raise TypeError(f"a {type(value).__name__} is no JSON")

    try:
        return json.loads(json.dumps(dict(settings), default=plain))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the settings of a probe cannot be written: {error}; give numbers, texts, lists and "
            "mappings"
        ) from error


def _checksum(facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what the record says and of every number."""
    sha = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
