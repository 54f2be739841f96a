"""Frozen dataclasses as JAX pytrees."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def frozen_pytree(*, static: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass as a pytree whose `static` fields belong to its structure.

    Unlike `jax.tree_util.register_dataclass` (and `flax.struct.dataclass`, which calls it),
    rebuilding skips the constructor. JAX and Orbax also rebuild trees of shapes, placeholders and
    NumPy arrays, which a constructor that is checked, as in our tests, refuses.
    """

    def register(cls: type[T]) -> type[T]:
        names = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
        data = [name for name in names if name not in static]
        keys = [jax.tree_util.GetAttrKey(name) for name in data]

        def flatten(value: T):
            leaves = tuple(getattr(value, name) for name in data)
            return leaves, tuple(getattr(value, name) for name in static)

        def flatten_with_keys(value: T):
            leaves, structure = flatten(value)
            return tuple(zip(keys, leaves, strict=True)), structure

        def rebuild(structure: tuple[Any, ...], leaves: Any) -> T:
            value = object.__new__(cls)
            for name, leaf in (*zip(data, leaves, strict=True), *zip(static, structure)):  # noqa: B905
                object.__setattr__(value, name, leaf)
            return value

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, rebuild, flatten)
        return cls

    return register
