"""Activation stores as commands use them: the rows that count, their labels, their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jelicit.activations import ActivationStore, StoreSpec
from jelicit.data.items import Item, label_of
from jelicit.data.overlap import Policy, held_out, held_out_rows
from jelicit.data.shown import shown
from jelicit.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class StoreRows:
    """Rows of an activation store.

    Attributes:
        path: Where the store is, as the user named it.
        store: The store.
        left_out: Which of its rows do not count, bool [N]; None = all count.
    """

    path: str
    store: ActivationStore
    left_out: np.ndarray | None = None

    @classmethod
    def open(cls, path: str) -> StoreRows:
        """All rows of a store.

        Raises:
            ValueError: See `ActivationStore.open`.
        """
        return cls(path=path, store=ActivationStore.open(path))

    @property
    def spec(self) -> StoreSpec:
        """What made the store."""
        return self.store.spec

    @property
    def layers(self) -> tuple[int, ...]:
        """Its hidden-state indices."""
        return self.store.layers

    @property
    def kept(self) -> np.ndarray | None:
        """Numbers of the rows that count; None = all."""
        return None if self.left_out is None else np.flatnonzero(~self.left_out)

    @property
    def items(self) -> list[Item]:
        """Items of the rows that count."""
        items = self.store.items
        return items if self.kept is None else [items[row] for row in self.kept]

    @property
    def log_probs(self) -> np.ndarray:
        """Log P of both verdicts [n, 2] of the rows that count."""
        log_probs = self.store.log_probs
        return log_probs if self.kept is None else log_probs[self.kept]

    @property
    def left_out_ids(self) -> list[str]:
        """Ids of the rows that do not count."""
        if self.left_out is None:
            return []
        return [self.store.items[row].id for row in np.flatnonzero(self.left_out)]

    def pairs(self, layer: int) -> Pairs:
        """Hidden states of the rows that count."""
        return self.store.pairs(layer, self.kept)

    def labels(self, name: str) -> np.ndarray:
        """A label of the rows that count, float64: 1, 0, or nan for no value."""
        return labels_of(self.items, name)

    def held_out_from(
        self, test: StoreRows, policy: Policy, *, what: str, say: Callable[[str], object]
    ) -> StoreRows:
        """These rows without those that test has too, as the policy says.

        Args:
            test: Rows to measure on.
            policy: Of rows whose text is a test row's; see `jelicit.data.overlap.held_out`.
            what: What the rows are called in messages.
            say: Is given one line for everything that is shared.

        Raises:
            ValueError: The policy refuses, or would leave no row.
        """
        held_out(self.items, test.items, policy=policy, say=say, what=what)
        if policy != "drop":
            return self
        left_out = ~held_out_rows(self.items, test.items)
        if not left_out.any():
            return self
        return StoreRows(path=self.path, store=self.store, left_out=left_out)


def labels_of(items: Sequence[Item], name: str) -> np.ndarray:
    """A label of items, float64: 1, 0, or nan for no value."""
    values = [label_of(item, name) for item in items]
    return np.array([np.nan if value is None else float(value) for value in values])


def label_problems(option: str, name: str, stores: Sequence[StoreRows]) -> list[str]:
    """Problem of an option that names a label which not every item of the stores has."""
    for rows in stores:
        items = rows.store.items
        if name != "label" and any(name not in item.alt_labels for item in items):
            known = set.intersection(*(set(item.alt_labels) for item in items))
            return [
                f"{option} {name}: not every item of {rows.path} has the label {name!r}; all have "
                f"{', '.join(['label', *sorted(known)])}"
            ]
    return []


def layer_of(number: int, spec: StoreSpec, *, option: str) -> int:
    """A hidden-state index; negative ones count from the model's end: -1 is after the last block.

    Raises:
        ValueError: The model has no such layer, or its number of blocks is not known and the number
            is negative.
    """
    if spec.n_blocks is None:
        if number < 0:
            raise ValueError(
                f"{option} {number}: the store does not say how many blocks {spec.model} has, so "
                f"count from the start; it has {', '.join(map(str, spec.layers))}"
            )
        return number
    count = spec.n_blocks + 1
    if not -count <= number < count:
        raise ValueError(
            f"{option} {number}: {spec.model} has the hidden states 0 (embeddings) to "
            f"{spec.n_blocks}; from the end, -1 to -{count}"
        )
    return number % count


def told_of_other_model(store: ActivationStore, path: str, made_by: Any, what: str) -> str | None:
    """A line where a store is of another model than probes are: legitimate, but seldom meant.

    Args:
        store: What is scored.
        path: Where it is.
        made_by: A store's spec or a probe's settings, with model and model_digest.
        what: The probes, for the message.
    """
    known = made_by if isinstance(made_by, Mapping) else vars(made_by)
    if known.get("model_digest", store.spec.model_digest) == store.spec.model_digest:
        return None
    return (
        f"{path} holds hidden states of {store.spec.model}, {what} were fitted on those of "
        f"{known.get('model')} with other weights"
    )


def told_of_other_prompts(
    store: ActivationStore, path: str, other: StoreSpec, of: str
) -> list[str]:
    """One line on each way in which the items of two stores were asked otherwise.

    Probes carry over to other words, or they do not: it can be meant, and has to be known.

    Args:
        store: What is measured on.
        path: Where it is.
        other: What made the rows that probes are fitted on.
        of: Where these are.
    """
    here, there = store.spec.prompt_format, other.prompt_format
    lines = []
    if here.get("target") != there.get("target"):
        lines.append(
            f"{path}: its prompts ask for {here.get('target')!r}, those of {of} for "
            f"{there.get('target')!r}"
        )
    elif dict(here) != dict(there):
        names = [shown(one.get("name")) for one in (here, there)]
        changed = ", ".join(sorted(k for k in {*here, *there} if here.get(k) != there.get(k)))
        lines.append(
            f"{path}: its prompt format is {names[0]}, that of {of} is {names[1]} (they differ in "
            f"{changed})"
        )
    templates = [_chat_of(each) for each in (store.spec, other)]
    if templates[0] != templates[1]:
        which = "the two are" if all(templates) else "only one of the two is"
        what = "in other chat templates" if all(templates) else "in the model's chat template"
        lines.append(f"{path} and {of}: {which} {what}")
    return lines


def _chat_of(spec: StoreSpec) -> Any:
    """The chat template of a store's prompts, or None; of a merged store all parts have one."""
    parts = spec.texts.get("parts") or [spec.texts]
    chat = parts[0].get("chat") or {}
    return chat.get("template", chat.get("said"))
