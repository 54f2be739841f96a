"""What a run is called: a hash of everything that made it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np


def run_id(settings: Mapping[str, Any], data_digest: str, algorithms: Any) -> str:
    """The identity of a run: a hash of ALL that decides its numbers, and of nothing else.

    SHA-256 over canonical JSON: keys sorted, floats written so that they read back exactly,
    dataclasses with their class name, lists and tuples alike. 20 hex digits (80 bits).

    Args:
        settings: every setting that can change a result; nested mappings, dataclasses, lists,
            numbers, strings, paths and small arrays are fine.
        data_digest: digest of the items (`jelicit.data.items.digest`).
        algorithms: number of every method's and every stage's algorithm: results of another one
            are never read back, those of the same one are, in whatever version of the project.

    Raises:
        ValueError: a value with no canonical form (a set, a function, ...), naming the setting; a
            key that is no string; an empty digest, or no algorithm.
    """
    for name, value in (("data_digest", data_digest), ("algorithms", algorithms)):
        if not value:
            raise ValueError(f"{name} is empty; a run is identified by its data and code too.")
    identity = {
        "settings": plain(settings),
        "data": data_digest,
        "algorithms": plain(algorithms, "algorithms"),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def plain(value: Any, where: str = "settings") -> Any:
    """A setting as what JSON can say: dicts, lists, strings, numbers, booleans, None."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **plain(fields, where)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}; keys must be strings.")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist(), where)
    raise ValueError(
        f"{where} is a {type(value).__name__}, which has no canonical text; "
        "write it as numbers, strings, lists or mappings."
    )
