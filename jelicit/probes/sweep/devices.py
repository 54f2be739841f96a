"""Where arrays are: on the host, on one device, or cut over several."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DOUBLES = ("cpu", "gpu", "cuda", "rocm")
"""Platforms that decompose matrices of float64."""


def doubles_device() -> Any:
    """The device where fits in float64 are made: the host's CPU, or None = where all others are.

    Raises:
        RuntimeError: The default platform decomposes no float64, and JAX sees no CPU.
    """
    if jax.default_backend() in DOUBLES:
        return None
    return jax.local_devices(backend="cpu")[0]


@contextmanager
def doubling() -> Iterator[Any]:
    """JAX in x64, on `doubles_device()`: of the arrays there, those from the host."""
    device = doubles_device()
    with jax.enable_x64(True):
        if device is None:
            yield None
            return
        with jax.default_device(device):
            yield device


def mesh_of(devices: int) -> Mesh:
    """So many of this host's devices, which share runs; 0 takes all."""
    there = jax.local_devices()
    return Mesh(np.array(there[: devices or len(there)]), ("runs",))


def spread(tree: Any, mesh: Mesh, *axes: str) -> Any:
    """Arrays cut along their first axis over the devices, or (no axis) whole on each of them."""
    if mesh.size == 1:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def on_host(function: Callable[..., np.ndarray], *trees: Any) -> Any:
    """Map a NumPy function over trees of arrays: JAX would compile for every new shape."""
    return jax.tree.map(
        lambda *leaves: jnp.asarray(function(*(np.asarray(leaf) for leaf in leaves))), *trees
    )
