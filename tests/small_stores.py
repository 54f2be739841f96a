"""Small stores with known numbers, for the tests of the activation store."""

import os
import time
from pathlib import Path

import fsspec
import numpy as np

from jelicit.activations import DTYPES, ActivationStore, StoreSpec, StoreWriter
from jelicit.data.items import Item, digest

N, D, LAYERS = 7, 5, (0, 2, 3)
SHARDS = ((0, 3), (3, 6), (6, 7))


def make_items(n=N):
    return [
        Item(id=f"i{row}", choice=f"claim {row} é\u2028", label=row % 2 == 0) for row in range(n)
    ]


def make_spec(items, **changes):
    values = {
        "model": "tiny",
        "revision": "",
        "model_digest": "abc",
        "dtype": "bfloat16",
        "prompt_format": {"name": "claim", "true_word": " True"},
        "layers": LAYERS,
        "n_items": len(items),
        "item_digest": digest(items),
        "d_model": D,
        "shards": SHARDS,
        "batch_plan": (((2, 0), (1,)), ((3, 4, 5),), ((6,),)),
        "n_blocks": 3,
        "settings": {"token_budget": 64},
        "versions": {"torch": "2"},
        "machine": {"device": "cpu", "threads": 1},
    }
    return StoreSpec(**(values | changes))


def numbers(dtype="bfloat16", seed=0):
    """Per layer (pos, neg) for all rows, and log-probabilities."""
    rng = np.random.default_rng(seed)

    def side() -> np.ndarray:
        return rng.normal(size=(N, D)).astype(DTYPES[dtype])

    states = {layer: (side(), side()) for layer in LAYERS}
    return states, rng.normal(size=(N, 2)).astype(np.float32)


def write(writer, shard, dtype="bfloat16"):
    states, log_probs = numbers(dtype)
    start, stop = SHARDS[shard]
    cut = {layer: (pos[start:stop], neg[start:stop]) for layer, (pos, neg) in states.items()}
    writer.write(shard, cut, log_probs[start:stop])


def fill(folder, dtype="bfloat16"):
    writer = open_writer(folder, dtype=dtype)
    for shard in writer.missing():
        write(writer, shard, dtype)
    return writer.finish()


def abandoned(path):
    """A file that was last written to two days ago."""
    path.write_bytes(b"half a shard")
    then = time.time() - 2 * 24 * 3600
    os.utime(path, (then, then))


def files(folder):
    """Name and content of every file in a folder or under a URL."""
    if isinstance(folder, Path):
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    system, root = fsspec.core.url_to_fs(folder)
    return {path.split("/")[-1]: system.cat_file(path) for path in system.ls(root, detail=False)}


def open_writer(folder, **changes):
    items = make_items()
    return StoreWriter.open(folder, make_spec(items, **changes), items)


WHOLE = ["items.jsonl", "manifest.json", *(f"shard-0000{n}.safetensors" for n in range(3))]


def assert_whole(folder):
    store = ActivationStore.open(folder)
    assert store.complete
    store.verify()
    np.testing.assert_array_equal(store.log_probs, numbers()[1])
    assert sorted(files(folder)) == WHOLE
