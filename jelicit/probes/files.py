"""Probes on disk: a probe with its normaliser and the settings that made it, in an Orbax folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, Float

from jelicit.pairs import Pairs, check_shapes
from jelicit.probes.linear import LinearProbe, score
from jelicit.probes.normalise import Normaliser

_FORMAT = 1


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

    def flipped(self) -> FittedProbe:
        """The probe of the opposite sign."""
        probe = jax.tree.map(lambda leaf: -leaf, self.probe)
        return FittedProbe(probe=probe, normaliser=self.normaliser, settings=self.settings)


def save_probe(path: str | os.PathLike[str], fitted: FittedProbe) -> Path:
    """Write a probe, its settings and its normaliser to a new folder.

    Raises:
        FileExistsError: There is something at `path`.
        TypeError: The settings cannot be written as JSON.
    """
    folder = Path(path).absolute()
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; probes are never overwritten")
    named = asdict(fitted.normaliser)
    record = {
        "format": _FORMAT,
        "fitted_on": named.pop("fitted_on"),
        "settings": json.loads(json.dumps(dict(fitted.settings))),
    }
    arrays = {"probe": asdict(fitted.probe), "normaliser": named}
    with _checkpointer() as checkpointer:
        checkpointer.save(
            folder,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(jax.tree.map(jnp.asarray, arrays)),
                record=ocp.args.JsonSave(record),
            ),
        )
    return folder


def load_probe(path: str | os.PathLike[str]) -> FittedProbe:
    """Read a probe that `save_probe` wrote; its scores are identical.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: What is there is no probe, is damaged, or is of a newer format.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no probe folder")
    try:
        with _checkpointer() as checkpointer:
            record = checkpointer.restore(
                folder, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )["record"]
            arrays = checkpointer.restore(
                folder, args=ocp.args.Composite(arrays=ocp.args.StandardRestore())
            )["arrays"]
    except Exception as error:  # whatever the reader calls it: this folder is no whole probe
        raise ValueError(f"{folder} is no probe file, or a damaged one: {error}") from error
    if record.get("format") != _FORMAT:
        raise ValueError(
            f"{folder} has format {record.get('format')}; this version reads {_FORMAT}"
        )
    return FittedProbe(
        probe=LinearProbe(**arrays["probe"]),
        normaliser=Normaliser(**arrays["normaliser"], fitted_on=record["fitted_on"]),
        settings=record["settings"],
    )


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())
