"""The activation store: contrast pairs' hidden states on disk, between `extract` and the probes.

One folder, or fsspec URL ("s3://bucket/x"), per (items, model, prompt format)::

    manifest.json            the `StoreSpec`, and SHA-256 and size of every shard once complete
    items.jsonl              the items, in row order
    shard-00000.safetensors  rows start..stop: "layer.<l>.pos" and "layer.<l>.neg" [n, D] in the
                             model's dtype, "log_probs" [n, 2] float32
    shard-00000.json         the shard's checksum; only until the store is complete

No other package knows these names, and names are made from shard numbers alone: a manifest from
elsewhere cannot point outside its folder. Everything is written whole or not at all, so that a
killed run leaves whole shards and goes on with the missing ones. Several processes may share a
folder: the manifest is created by one of them alone, and a checksum leaves its file only when the
manifest on disk has it.
"""

from jelicit.activations.manifest import ITEMS, KIND, MANIFEST, VERSION
from jelicit.activations.merge import merge_stores
from jelicit.activations.reader import ActivationStore
from jelicit.activations.spec import DTYPES, MAY_DIFFER, StoreSpec, differences
from jelicit.activations.writer import StoreWriter

__all__ = [
    "DTYPES",
    "ITEMS",
    "KIND",
    "MANIFEST",
    "MAY_DIFFER",
    "VERSION",
    "ActivationStore",
    "StoreSpec",
    "StoreWriter",
    "differences",
    "merge_stores",
]
