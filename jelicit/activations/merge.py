"""Merging stores: shards that several machines wrote, or the rows of several data sets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jelicit.activations.reader import ActivationStore
from jelicit.activations.spec import StoreSpec, differences
from jelicit.activations.writer import StoreWriter
from jelicit.data.items import Item, digest

# The digest says which model it is; its name differs between a hub id and a folder.
_RECORDED = ("model", "revision", "machine", "versions")
# The prefix is what the prompts have in common: it follows from the items.
_OF_THE_ITEMS = (
    *("n_items", "item_digest", "shards", "batch_plan", "texts"),
    "settings.shared_prefix",
)


class _Plan(NamedTuple):
    """What the merged store holds, and per shard the (store, shard number) that it comes from."""

    spec: StoreSpec
    items: list[Item]
    sources: list[tuple[ActivationStore, int]]


def merge_stores(
    stores: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> ActivationStore:
    """Makes one store of several; the specs decide how.

    Stores of the same items are parts of one store, written by machines that share no disk: each
    shard is taken from the first that has it, with its batches. Complete stores of different items
    are put one after another: items, rows, shards and batches in the order given.

    Model digest, prompt format, layers, dtype, width and settings must be equal (but for the length
    of the shared prefix where the items differ). The model's name and revision are the first
    store's; a machine, version or shared prefix that differs becomes a list with one entry per
    store that was used. Shards are read one at a time and their checksums compared. A
    merge that was interrupted goes on when it is run again; until it is done, `out` is incomplete.

    Args:
        stores: Folders or fsspec URLs, at least one (which is copied).
        out: Folder or URL of the new store; none of `stores`.

    Returns:
        The new store, complete.

    Raises:
        FileNotFoundError: If one of `stores` is no activation store.
        ValueError: If stores differ in a field that matters (the message names it with both
            values); a shard is in none of them, or one of different items is incomplete; an item's
            id is in two of them; a shard or the items were changed; or `out` is one of `stores` or
            holds another store.
        OSError: If `out` cannot be written.
    """
    if not stores:
        raise ValueError("there are no stores to merge; give at least one")
    opened = [ActivationStore.open(store) for store in stores]
    for store in opened:
        if _place(store.folder) == _place(out):
            raise ValueError(f"out is {out}, which is one of the stores; choose another folder")
    same = len({store.spec.item_digest for store in opened}) == 1
    plan = _parts_of_one(opened) if same else _one_after_another(opened)
    writer = StoreWriter.open(out, plan.spec, plan.items)
    for shard in writer.missing():
        store, number = plan.sources[shard]
        writer.write(shard, *store.shard(number))
    return writer.finish()


def _place(folder: str | os.PathLike[str]) -> str:
    """The same text for the same folder."""
    text = os.fspath(folder)
    return text.rstrip("/") if "://" in text else os.path.realpath(text)


def _parts_of_one(stores: Sequence[ActivationStore]) -> _Plan:
    """The union of stores that are equal but for the shards that they have."""
    _check_equal(stores, ignore=(*_RECORDED, "batch_plan"))
    lacking = [(store, set(store.missing())) for store in stores]
    shards = stores[0].spec.shards
    sources: list[tuple[ActivationStore, int]] = []
    lost = []
    for shard, (start, stop) in enumerate(shards):
        has = [store for store, lacks in lacking if shard not in lacks]
        sources += [(store, shard) for store in has[:1]]
        lost += [] if has else [f"{shard} (rows {start}..{stop})"]
    if lost:
        raise ValueError(
            f"shards that are in none of {', '.join(_names(stores))}: {', '.join(lost)}. "
            "Run `python -m extract run` again in one of them, or add the store that has them"
        )
    plan = tuple(store.spec.batch_plan[shard] for store, shard in sources)
    used = [store for store in stores if any(store is source for source, _ in sources)]
    spec = dataclasses.replace(stores[0].spec, batch_plan=plan, **_recorded(used))
    return _Plan(spec, stores[0].items, sources)


def _one_after_another(stores: Sequence[ActivationStore]) -> _Plan:
    """The rows of all stores, in their order."""
    _check_equal(stores, ignore=(*_RECORDED, *_OF_THE_ITEMS))
    for store in stores:
        store.check_complete()
    items = _all_items(stores)
    shards: list[tuple[int, int]] = []
    batches: list[tuple[tuple[int, ...], ...]] = []
    sources: list[tuple[ActivationStore, int]] = []
    for store in stores:
        offset = shards[-1][1] if shards else 0
        shards += [(start + offset, stop + offset) for start, stop in store.spec.shards]
        batches += [
            tuple(tuple(row + offset for row in batch) for batch in shard)
            for shard in store.spec.batch_plan
        ]
        sources += [(store, number) for number in range(len(store.spec.shards))]
    spec = dataclasses.replace(
        stores[0].spec,
        n_items=len(items),
        item_digest=digest(items),
        shards=tuple(shards),
        batch_plan=tuple(batches),
        texts=_texts([store.spec.texts for store in stores]),
        settings=_gathered([store.spec.settings for store in stores]),
        **_recorded(stores),
    )
    return _Plan(spec, items, sources)


def _names(stores: Sequence[ActivationStore]) -> list[str]:
    return [str(store.folder) for store in stores]


def _check_equal(stores: Sequence[ActivationStore], *, ignore: Sequence[str]) -> None:
    for other in stores[1:]:
        names = (f"{stores[0].folder} has", f"{other.folder} has")
        if found := differences(stores[0].spec, other.spec, ignore=ignore, names=names):
            raise ValueError(
                "these stores cannot be merged, they were made with different settings:\n  "
                + "\n  ".join(found)
            )


def _all_items(stores: Sequence[ActivationStore]) -> list[Item]:
    home: dict[str, ActivationStore] = {}
    for store in stores:
        for item in store.items:
            if item.id in home:
                raise ValueError(
                    f"item {item.id!r} is in {home[item.id].folder} and in {store.folder}; "
                    "ids must be unique in a store, so leave one of the two out"
                )
            home[item.id] = store
    return [item for store in stores for item in store.items]


def _recorded(stores: Sequence[ActivationStore]) -> dict[str, dict[str, Any]]:
    """Machine and versions; where the stores differ, a list with one entry per store."""
    return {
        name: _gathered([getattr(store.spec, name) for store in stores])
        for name in ("machine", "versions")
    }


def _gathered(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = {}
    for key in dict.fromkeys(key for value in values for key in value):
        each = [value.get(key) for value in values]
        found[key] = each[0] if all(one == each[0] for one in each) else each
    return found


def _texts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts about all prompts together, as far as the parts tell; the parts are kept."""
    parts = [one for part in parts for one in part.get("parts", [part])]
    lengths = [part["prompt_tokens"] for part in parts if "prompt_tokens" in part]
    found: dict[str, Any] = {"parts": parts}
    if len(lengths) == len(parts):
        found["prompt_tokens"] = {
            "least": min(length["least"] for length in lengths),
            "most": max(length["most"] for length in lengths),
            "total": sum(length["total"] for length in lengths),
        }
    if all("beyond_trained_length" in part for part in parts):
        found["beyond_trained_length"] = sum(part["beyond_trained_length"] for part in parts)
        found["trained_length"] = parts[0].get("trained_length")
    return found
