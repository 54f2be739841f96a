"""At which layer is the truth, and who would have chosen that layer?

Every method at every layer, on the truth and on a spurious feature. Paper A reports one layer, the
one with the best CCS AUROC on plain train claims (an oracle); this shows what the choice decides.

    python experiments/layers.py
    python experiments/layers.py --dataset pocket/facts --methods ccs pca supervised
    python experiments/layers.py --model meta-llama/Llama-3.1-8B --dataset gsm8k

Prints a table, writes result rows (Parquet) and figures (PNG, SVG), and ends with their paths. Runs
with settings that were run before are read back, not computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import salience
from common import Extractor, console, refuse, same_names, say, slug, start

from jelicit import figures
from jelicit.results import Results, print_sweep


@dataclass(frozen=True, kw_only=True)
class Settings(salience.Settings):
    """Measure every method at every layer; options as of salience.py.

    Attributes:
        layers: Hidden-state indices, or "all" (0 = embeddings).
    """

    dataset: tuple[str, ...] = ("pocket/arithmetic", "pocket/facts")
    features: tuple[str, ...] = ("none", "sycophancy")
    layers: tuple[str, ...] = ("all",)
    out: Path = Path("runs/layers")


def main(settings: Settings) -> None:
    every = settings.layers == ("all",)
    salience.check(replace(settings, layers=("best",)) if every else settings)
    plans = [salience.plan(name, settings) for name in settings.dataset]
    refuse(same_names([plan.dataset.name for plan in plans]))
    extractor = Extractor(settings.run_on)
    if every:
        layers = tuple(str(layer) for layer in range(extractor.lm.n_blocks + 1))
        settings = replace(settings, layers=layers)
    results = Results(salience.results_folder(settings, "rows"))
    names = []
    for plan in plans:
        names += salience.run_set(plan, settings, extractor, results)
        salience.best_layer(plan, settings, extractor)
    rows = pd.concat([results.read(name) for name in names], ignore_index=True)
    panel_of = rows["dataset"] + ", " + rows["feature"]
    for (place, role), panel in rows.groupby([panel_of, "role"], sort=False):  # type: ignore[misc]
        said = "truth" if role == "truth" else "the spurious label"
        # The model's own answer has no layer; its rows say the same at each.
        title = f"AUROC on {said} by layer: {place}"
        print_sweep(panel, across="layer", title=title, console=console)
    made = []
    for dataset, panel in rows.groupby("dataset", sort=False):
        shown = panel.assign(layer=panel["layer"].where(panel["method"] != "zero_shot"))
        shown = shown.drop_duplicates(["feature", "role", "method", "orientation", "seed", "layer"])
        figure = figures.layers_figure(shown)
        made += figures.save(figure, settings.out / f"layers-{slug(str(dataset))}")
    say(f"rows: {salience.results_folder(settings, 'rows')} ({len(rows)} of this command)")
    for path in made:
        say(f"figure: {path}")


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
