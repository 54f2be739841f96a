"""Pretraining as `experiments/pretrain_pocket.py` does it, of a model that takes seconds.

    python tests/campaign/tiny_pretraining.py FOLDER

The same `pretrain` with the same checkpoints; the model has one block, and its measurements are one
number. Leaves the weights and the history in FOLDER.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import test_pocket_curriculum as tiny

from jelicit.disk import whole_file, write_text


def main(folder: Path) -> None:
    """Trains, or goes on."""
    tiny.module.measure = tiny.cheap_measure
    phases = (tiny.phase("one", 40, gate={"some": 1e9}), tiny.phase("two", 24, end_rate=0.0))
    state, progress = tiny.pretrain(
        tiny.run_config(*phases), tiny.encoder(), folder / "checkpoints"
    )
    leaves = jax.tree.leaves((state.params, state.opt_state))
    with whole_file(folder / "weights.npz") as file:
        np.savez(file, *map(np.asarray, leaves))
    write_text(folder / "history.json", str(dataclasses.replace(progress, seconds=0.0)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
