"""Changed files: stores, sets of items, models."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from bad_inputs import Ended, wrong_ending
from children import Children
from hypothesis import strategies as st
from mutations import Mutation, damage, fields, headers

from jelicit.activations import ActivationStore
from jelicit.commands import cli
from jelicit.data.items import known_label, load_items, save_items

STORE_FILES = {
    "manifest": "manifest.json",
    "shard": "shard-00000.safetensors",
    "store's items": "items.jsonl",
}


def ran_here(words: tuple[str, ...]) -> Ended:
    """A command of `jelicit` in this process, where all is loaded and compiled."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main([*words])
        except SystemExit as stop:
            code = stop.code
        except Exception as error:
            print(f"Traceback: {error!r}", file=sys.stderr)
            code = 1
    return Ended(code, out.getvalue(), err.getvalue(), 0.0)


def changed_copy(good: Path, copy: Path, name: str, change: Mutation) -> bool:
    """A copy of a folder in which one file is another; whether it is."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(good, copy)
    content = (good / name).read_bytes()
    changed = change.of(content)
    (copy / name).write_bytes(changed)
    return changed != content


class StoreFile:
    """A file of an activation store; read by a saved probe that scores the store.

    Nothing in a store can be changed without notice: whatever is read has a checksum. So the scores
    are those of the store as it was written, or there are none.
    """

    slow = False

    def __init__(self, name: str, store: Path, probe: Path, place: Path) -> None:
        """One of the store's files, by its name here."""
        self.name, self._file = name, STORE_FILES[name]
        self._store, self._probe, self._place = store, probe, place
        self._scores = self._score(store)
        assert self._scores.code == 0, self._scores.err

    def changes(self) -> st.SearchStrategy[Mutation]:
        """Of bytes, and of fields where the file has any."""
        own = {"manifest.json": fields(), "items.jsonl": fields(lines=True)}
        return st.one_of(damage(), own.get(self._file, headers()))

    def wrong(self, change: Mutation) -> str:
        """See `Kind`."""
        copy, out = self._place / "store", self._place / "scores.csv"
        changed_copy(self._store, copy, self._file, change)
        ended = self._score(copy)
        if ended.code == 0:
            return "" if ended.out == self._scores.out else "other scores, and not a word"
        if self._score(copy, "--out", str(out)).code == 0 or out.exists():
            return "scores are written of a store that is refused"
        # A shard that is not the manifest's may be the manifest's fault, and is told as such.
        return wrong_ending(ended, names=(self._file, "manifest.json"))

    def _score(self, store: Path, *more: str) -> Ended:
        return ran_here(("probe", "score", str(self._probe), str(store), *more))


class ItemsFile:
    """train.jsonl of a set in a folder, which is described; what is read is what JSON says."""

    name, slow = "set of items", False

    def __init__(self, folder: Path, place: Path) -> None:
        """The folder of a good set."""
        self._folder, self._place = folder, place

    def changes(self) -> st.SearchStrategy[Mutation]:
        """Of bytes, and of the fields of a line."""
        return st.one_of(damage(), fields(lines=True), fields(lines=True))

    def wrong(self, change: Mutation) -> str:
        """See `Kind`."""
        copy = self._place / "items"
        changed_copy(self._folder, copy, "train.jsonl", change)
        ended = ran_here(("datasets", str(copy)))
        if ended.code == 0:
            return _as_json_says(copy / "train.jsonl")
        return wrong_ending(ended, names=("train.jsonl", str(copy)))


def _as_json_says(path: Path) -> str:
    """What was read otherwise than the standard library reads it; "" = nothing."""
    text = path.read_bytes().decode("utf-8-sig")
    lines = [json.loads(line) for line in io.StringIO(text, newline=None) if line.strip()]
    items = load_items(path)
    if len(items) != len(lines):
        return f"{len(items)} items of {len(lines)} lines"
    for item, line in zip(items, lines, strict=True):
        told = (item.id, item.choice, item.question, item.label, dict(item.alt_labels))
        said = (line["id"], line["choice"], line.get("question", ""), known_label(line["label"]))
        if told != (*said, line.get("alt_labels", {})):
            return f"{told} was read where {said} is written"
    return ""


class ModelFile:
    """A file of a language model, whose hidden states are extracted.

    Another file is another model, and may well have other numbers. Then the store says so: its
    digest of the model is another one, and its numbers are finite and whole on the disk.
    """

    slow = True

    def __init__(self, file: str, model: Path, place: Path, children: Children) -> None:
        """One of the model's files."""
        kinds = {"config.json": "config", "model.safetensors": "weights"}
        self.name = kinds.get(file, "tokenizer")
        self._file, self._model, self._place, self._children = file, model, place, children
        self._data = place / "claims"
        if not self._data.exists():
            write_claims(self._data)
        ended = self._extract(model)
        assert ended.code == 0, ended.err
        self._good = ActivationStore.open(self._out)
        self._numbers = _numbers(self._good)

    @property
    def _out(self) -> Path:
        return self._place / "extracted"

    def changes(self) -> st.SearchStrategy[Mutation]:
        """Of bytes, and of fields."""
        own = headers() if self._file.endswith(".safetensors") else fields()
        return st.one_of(damage(), own, own)

    def wrong(self, change: Mutation) -> str:
        """See `Kind`."""
        # A name of its own: a folder called "model" goes by its parent's.
        copy = self._place / "changed"
        is_other = changed_copy(self._model, copy, self._file, change)
        ended = self._extract(copy)
        if ended.code == 0:
            return self._wrong_store(is_other)
        if list(self._place.glob("extracted/.*.tmp*")):
            return "a temporary file is left"
        if self._out.exists() and ActivationStore.open(self._out).complete:
            return "a store that counts as whole is left"
        # An item that is too long for it, and a token beyond it, are told by the model's name.
        by_name = (f"{copy.name} reads at most", f"{copy.name}: its tokenizer has")
        return wrong_ending(ended, names=(str(copy), self._file, *by_name))

    def _wrong_store(self, is_other: bool) -> str:
        store = ActivationStore.open(self._out)
        store.verify()
        numbers = _numbers(store)
        if not all(np.isfinite(one).all() for one in numbers):
            return "numbers that are none"
        same = all(map(np.array_equal, numbers, self._numbers))
        told = store.spec.model_digest != self._good.spec.model_digest
        return "" if same or (is_other and told) else "other numbers of what says it is the model"

    def _extract(self, model: Path) -> Ended:
        shutil.rmtree(self._out, ignore_errors=True)
        words = ("extract", "run", "--model", str(model), "--dataset", str(self._data))
        more = ("--threads", "1", "--layers", "1", "2", "--out", str(self._out))
        return self._children.run((*words, *more), self._place, limit=120)


def _numbers(store: ActivationStore) -> list[np.ndarray]:
    pairs = [store.pairs(layer) for layer in store.layers]
    return [store.log_probs, *(np.asarray(x) for pair in pairs for x in pair)]


def write_claims(folder: Path) -> None:
    """A small set of items."""
    from tiny_models import make_items

    for split, count in (("train", 6), ("test", 4)):
        save_items(folder / f"{split}.jsonl", make_items(count))


def make_store_kinds(place: Path) -> dict[str, Callable[[], StoreFile]]:
    """A store with a probe that scores it, and the kinds of its files by name."""
    from test_cli import planted_store

    stores = [planted_store(place / name, seed=n, split=name) for n, name in enumerate("ab")]
    words = ("--methods", "supervised", "--seeds", "1", "--layers", "2", "--boot", "9")
    out = ("--save-probes", "--out", str(place / "swept"))
    ended = ran_here(("sweep", str(stores[0]), "--test", str(stores[1]), *words, *out))
    assert ended.code == 0, ended.err
    probe = place / "swept" / "probes" / "supervised-layer2"
    return {
        name: lambda name=name: StoreFile(name, stores[1], probe, place) for name in STORE_FILES
    }
