"""`jelicit probe score`: a saved probe on the items of a store."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jelicit.commands.ending import stopping_at_once

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore
    from jelicit.probes.files import FittedProbe


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Score a store's items with a saved probe, and measure it where labels are known.

    The probe brings its own normaliser, so the scores are those of the sweep that saved it.

    For example: `jelicit probe score runs/sweep/probes/ccs-layer18 activations/other --out s.csv`.
    """

    action: tyro.conf.Positional[Literal["score"]]
    """What to do with it."""
    probe: tyro.conf.Positional[Path]
    """Folder of the probe."""
    store: tyro.conf.Positional[str]
    """Activation store: a folder or an fsspec URL."""
    layer: int | None = None
    """Layer of the store, negative ones from the end; default: the one the probe was fitted on.
    Another one is told."""
    other_model: bool = False
    """Score a store of another model than the probe was fitted on, of the same width."""
    out: Path | None = None
    """CSV of id, truth score and label; default: printed."""

    def main(self) -> None:
        """Scores, and prints AUROC and accuracy where labels are known.

        Raises:
            ValueError: A probe or store that cannot be read or do not belong together, or --out
                that cannot be written.
        """
        with stopping_at_once():
            import numpy as np
            import pandas as pd

            from jelicit.activations import ActivationStore
            from jelicit.commands.outputs import check_out_file
            from jelicit.commands.stores import labels_of
            from jelicit.disk import write_text
            from jelicit.probes.files import load_probe

        if self.out is not None:
            check_out_file(self.out, such_as="scores.csv")
        fitted, store = load_probe(self.probe), ActivationStore.open(self.store)
        layer = self._layer(fitted, store)
        scores = np.asarray(fitted.score_store(store, layer=layer, other_model=self.other_model))
        target = str(store.spec.prompt_format["target"])
        scored = pd.DataFrame(
            {
                "id": [item.id for item in store.items],
                "score": scores,
                "label": labels_of(store.items, target),
            }
        )
        if self.out is None:
            print(scored.to_csv(index=False), end="")
        else:
            write_text(self.out, scored.to_csv(index=False))
        print(_measured(scores, store, target), file=sys.stderr)

    def _layer(self, fitted: FittedProbe, store: ActivationStore) -> int | None:
        """The layer that was asked for; what is unusual about layer and model is told."""
        from jelicit.commands.said import warn
        from jelicit.commands.stores import layer_of, told_of_other_model

        asked = None if self.layer is None else layer_of(self.layer, store.spec, option="--layer")
        own = fitted.settings.get("layer")
        if None not in (own, asked) and asked != own:
            warn(f"{self.probe} was fitted on layer {own} and scores layer {asked}")
        if self.other_model:
            what = f"the probe {self.probe}"
            if told := told_of_other_model(store, self.store, fitted.settings, what):
                warn(told)
        return asked


def _measured(scores: object, store: ActivationStore, target: str) -> str:
    """What the scores come to on the store's labels, or why they come to nothing."""
    import numpy as np

    from jelicit import metrics
    from jelicit.commands.stores import labels_of
    from jelicit.data.concerns import few_rows, unmeasurable
    from jelicit.data.shown import printable

    items, known = store.items, labels_of(store.items, target)
    if why := unmeasurable(items, target, where="no AUROC"):
        return printable(why)
    values = np.asarray(scores)
    area, right = float(metrics.auroc(values, known)), float(metrics.accuracy(values, known))
    line = f"AUROC {area:.3f}, accuracy {right:.3f} on {target} of {len(items)} items"
    doubt = few_rows(items, target, where="few")
    return printable(f"{line}; {doubt}" if doubt else line)
