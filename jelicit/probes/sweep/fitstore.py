"""Fits that are there already: in memory for one sweep, or in a folder that outlives it.

A unit of work is one family of methods at one layer, for all runs. Its name is a hash of all that
decides its fits (data, runs, the settings that the family reads, its algorithms), so that whoever
asks for the same fits finds them: a sweep that was killed, a second sweep in which another setting
changed, another host.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax.numpy as jnp
import numpy as np

from jelicit.disk import whole_file, writing
from jelicit.pairs import Pairs
from jelicit.probes.linear import LinearProbe
from jelicit.probes.method import Fits, Method


class FitStore:
    """Finished fits by the name of their unit.

    Args:
        folder: Where to keep them, one file per unit, written whole or not at all; several
            processes may share it. None keeps them in memory.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        self.folder = None if folder is None else Path(folder)
        self._here: dict[str, Fits] = {}
        if self.folder is not None:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        return name in self._here if self.folder is None else self._file(name).exists()

    def put(self, name: str, fits: Fits) -> None:
        """Keep the fits of a unit.

        Raises:
            OSError: Their file cannot be written; names it.
        """
        if self.folder is None:
            self._here[name] = fits
            return
        arrays: dict[str, Any] = _flat(fits)
        with whole_file(self._file(name)) as sink:
            np.savez(sink, **arrays)

    def get(self, name: str, methods: Sequence[Method]) -> Fits:
        """The fits of a unit, which are of these methods.

        Raises:
            KeyError: They are not there.
            ValueError: Their file is damaged; names it.
        """
        if self.folder is None:
            return self._here[name]
        file = self._file(name)
        if not file.exists():
            raise KeyError(name)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return _nested(dict(arrays), methods)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{file} is no whole file of fits ({error}); remove it, and it is made anew"
            ) from error

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.npz"


def pairs_digest(pairs: Pairs) -> str:
    """A hash of the hidden states."""
    return unit_name({}, pairs._asdict())


def unit_name(settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """A name that changes with every setting and every array that goes in."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for key, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _flat(fits: Fits) -> dict[str, np.ndarray]:
    arrays = {}
    for method, (probe, info) in fits.items():
        parts = {f"probe/{key}": getattr(probe, key) for key in _names(type(probe))}
        parts |= {f"info/{key}": value for key, value in info._asdict().items()}
        arrays |= {f"{method}/{key}": np.asarray(value) for key, value in parts.items()}
    return arrays


def _nested(arrays: Mapping[str, np.ndarray], methods: Sequence[Method]) -> Fits:
    fits: Fits = {}
    for method in methods:
        # A method of another kind of probe may give a linear one with some settings.
        others = set(_names(method.probe)) - set(_names(LinearProbe))
        own = all(f"{method.name}/probe/{key}" in arrays for key in others)
        kind = method.probe if own else LinearProbe
        probe = {key: jnp.asarray(arrays[f"{method.name}/probe/{key}"]) for key in _names(kind)}
        fields = method.info._fields  # pyright: ignore[reportAttributeAccessIssue]
        info = {key: jnp.asarray(arrays[f"{method.name}/info/{key}"]) for key in fields}
        fits[method.name] = (kind(**probe), method.info(**info))
    return fits


def _names(kind: Any) -> tuple[str, ...]:
    """The arrays of a kind of probe."""
    return tuple(each.name for each in fields(kind))
