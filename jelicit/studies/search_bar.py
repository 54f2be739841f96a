"""Progress of a label search on the terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from jelicit.icm import Step


class SearchBar:
    """Live progress of a search, and its steps with the accuracy that gold labels give.

    A search in batches is shown as one: what is said of labels is said of the present batch.

    Attributes:
        rows: One mapping per step, as the figure of a search reads them; steps count on from one
            batch to the next.
    """

    def __init__(self, title: str, most: int):
        """The text before the bar, and the most draws that the search may make."""
        self.rows: list[dict[str, Any]] = []
        self._bar = tqdm(total=most, desc=title, unit="draw", leave=False)
        self._batch = self._accepted = self._judged = self._reads = 0

    def __enter__(self) -> SearchBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, batch: int, step: Step) -> None:
        """One step more, of a batch by its number."""
        if batch != self._batch:
            self._batch, self._accepted, self._judged, self._reads = batch, 0, 0, 0
        self._accepted += step.accepted
        self._judged += step.judged
        self._reads += step.reads
        self.rows.append(
            {
                "step": len(self.rows),
                "batch": batch,
                "kind": step.kind,
                "temperature": step.temperature,
                "utility": step.utility,
                "gain": step.gain,
                "accepted": step.accepted,
                "labelled": step.labelled,
                "inconsistent": step.inconsistent,
                "reads": step.reads,
                "judged": step.judged,
                "accuracy": step.accuracy,
            }
        )
        self._bar.update(step.kind == "draw")
        right = "" if step.accuracy is None else f", right {step.accuracy:.2f}"
        utility = float("nan") if step.utility is None else step.utility
        of = f"batch {batch + 1}, " if batch else ""
        self._bar.set_postfix_str(
            f"{of}T {step.temperature:.1f}, U {utility:.1f}, accepted {self._accepted}, labelled "
            f"{step.labelled}, inconsistent {step.inconsistent}, reads {self._reads}, evaluations "
            f"per label {self._judged / max(step.labelled, 1):.1f}{right}"
        )
