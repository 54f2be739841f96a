"""What every method says of every test item: kept beside the rows, read by the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jelicit.data.items import Item, label_of
from jelicit.disk import whole_file
from jelicit.results.identity import plain

METADATA_KEY = b"jelicit.scores"
ITEM_COLUMNS = ("id", "dataset", "group", "question", "choice", "choice_2", "label", "others")


@dataclass(frozen=True)
class ItemScores:
    """Scores of n test items by k methods (or method, layer, class share, ...).

    Attributes:
        items: [n] with the columns id, dataset, group, question, choice, choice_2 (None but in pair
            sets), label (1, 0, nan: of what the prompt asks for), others (JSON object of the other
            labels by name).
        settings: What sets the k columns apart [k]: method, orientation, and whatever else was set.
        scores: float32 [n, k]: truth score over its standard deviation among the test items,
            averaged over seeds; above 0 reads as True. nan where a method did not score an item.
    """

    items: pd.DataFrame
    settings: tuple[dict[str, Any], ...]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.items), len(self.settings)):
            raise ValueError(
                f"scores are {self.scores.shape} for {len(self.items)} items and "
                f"{len(self.settings)} settings"
            )
        missing = [name for name in ITEM_COLUMNS if name not in self.items]
        if missing:
            raise ValueError(f"items lack the columns {', '.join(missing)}")

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        found: Sequence[tuple[Mapping[str, Any], np.ndarray]],
        *,
        target: str = "label",
    ) -> ItemScores:
        """From items and (settings, signed truth scores [seeds, n] or [n]) of each method.

        Args:
            items: n test items.
            found: A score may be nan: the item was not scored.
            target: The label that the prompt asks for: "label" or the name of another one.

        Raises:
            ValueError: If scores are not of n items.
        """
        columns = []
        for settings, scores in found:
            runs = np.atleast_2d(np.asarray(scores, np.float64))
            if runs.shape[1] != len(items):
                raise ValueError(f"{dict(settings)}: {runs.shape[1]} scores, {len(items)} items")
            columns.append(standardised(runs))
        return cls._stacked(items, [settings for settings, _ in found], columns, target)

    @classmethod
    def in_own_units(
        cls,
        items: Sequence[Item],
        found: Sequence[tuple[Mapping[str, Any], np.ndarray]],
        *,
        target: str = "label",
    ) -> ItemScores:
        """As `of`, from scores [n] that keep the unit they have."""
        columns = [np.asarray(scores, np.float64) for _, scores in found]
        return cls._stacked(items, [settings for settings, _ in found], columns, target)

    @classmethod
    def _stacked(
        cls,
        items: Sequence[Item],
        settings: Sequence[Mapping[str, Any]],
        columns: Sequence[np.ndarray],
        target: str,
    ) -> ItemScores:
        frame = pd.DataFrame([_record(item, target) for item in items], columns=list(ITEM_COLUMNS))
        stacked = np.stack(columns, 1) if columns else np.zeros((len(items), 0))
        return cls(frame, tuple(map(dict, settings)), stacked.astype(np.float32))


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores [seeds, n] over each seed's standard deviation, averaged over seeds: [n].

    A score keeps its sign and its place; only the unit, which differs from method to method and
    from seed to seed, is taken out. A seed whose scores are all alike counts as it is.
    """
    # Not by the deviation alone: that of equal numbers is rounding, not always 0.
    varies = np.fmax.reduce(scores, 1, keepdims=True) > np.fmin.reduce(scores, 1, keepdims=True)
    spread = np.nanstd(np.where(varies, scores, 0.0), axis=1, keepdims=True)
    return (scores / np.where(spread > 0, spread, 1.0)).mean(0)


def _record(item: Item, target: str) -> dict[str, Any]:
    asked = label_of(item, target)
    others = {} if target == "label" else {"truth": item.label}
    others |= {name: value for name, value in item.alt_labels.items() if name != target}
    return {
        "id": item.id,
        "dataset": item.dataset,
        "group": item.group,
        "question": item.question,
        "choice": item.choice,
        "choice_2": item.choice_2,
        "label": np.nan if asked is None else float(asked),
        "others": json.dumps(others),
    }


class ItemScoreStore:
    """A folder of item scores: `<run id>.parquet` per run."""

    def __init__(self, folder: str | Path):
        """The folder; made on the first write."""
        self.folder = Path(folder)

    def has(self, run_id: str) -> bool:
        """Whether this run's scores are there."""
        return self._path(run_id).is_file()

    def write(self, run_id: str, found: ItemScores) -> None:
        """Writes one run's item scores, whole or not at all."""
        table = pa.Table.from_pandas(found.items, preserve_index=False)
        for place in range(len(found.settings)):
            table = table.append_column(f"score.{place}", pa.array(found.scores[:, place]))
        about = json.dumps(plain(list(found.settings)))
        table = table.replace_schema_metadata({METADATA_KEY: about})
        with whole_file(self._path(run_id)) as file:
            pq.write_table(table, file)

    def read(self, run_id: str) -> ItemScores:
        """One run's item scores.

        Raises:
            FileNotFoundError: the folder has no such run.
            ValueError: the file is damaged.
        """
        path = self._path(run_id)
        if not path.is_file():
            raise FileNotFoundError(f"there are no item scores {path}")
        try:
            table = pq.read_table(path)
            settings = json.loads((table.schema.metadata or {})[METADATA_KEY])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{path} is truncated or no file of item scores ({error}); delete it"
            ) from error
        frame = table.to_pandas()
        scores = frame[[f"score.{k}" for k in range(len(settings))]].to_numpy(np.float32)
        return ItemScores(frame[list(ITEM_COLUMNS)], tuple(settings), scores)

    def _path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.parquet"
