"""Of every method on the plain claims: what its AUROC is uncertain from, a row per set.

Where a set's claims were shown by several prompts, all of them count, and its own prompt only if
it is among them; elsewhere the claims as they are, of which no variance between prompts is known.
Seeds are crossed with prompts: a seed draws the same train rows, and starts from the same key,
under each (a format that shows no question may leave out train rows whose text test has, and its
draws are then others). Where the best layer is chosen, each prompt has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jelicit.results import Results
from jelicit.studies.near_best import block_of
from jelicit.studies.spread import SOURCES, components, seeds_fitted
from jelicit.studies.stress_card import Draws, areas_by_seed
from jelicit.studies.stress_cases import PLAIN, Case, Key

ALGORITHM = 2
"""Of these rows; raised whenever their numbers change."""


def spread_rows(
    cases: Sequence[Case], *, boot: int, sign: str = "oracle", model: str = ""
) -> list[dict[str, Any]]:
    """A row per set and method, each source as a standard deviation of the AUROC of one fit.

    Args:
        cases: Of all challenges; the resamples of questions are those of the scorecard.
        boot: Resamples.
        sign: Who picks the sign of unlabelled directions.
        model: What rows call the model.
    """
    draws = Draws(cases, boot) if cases else None
    rows = []
    for shown in _claims(cases):
        assert draws is not None
        of_prompts = [areas_by_seed(case, draws) for case in shown]
        rows += [
            {
                "model": model,
                "method": key[0],
                "orientation": key[1],
                "block": block_of(key[0]),
                "dataset": shown[0].dataset,
                **_measured(key, shown, of_prompts),
            }
            # A method may lack rows under some of the prompts.
            for key in dict.fromkeys(key for case in shown for key in case.scores)
            if key[1] in ("none", sign)
        ]
    return rows


def _claims(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Of each set, its plain claims under every prompt that they were shown by."""
    plain: dict[str, Case] = {}
    prompts: dict[str, list[Case]] = {}
    for case in cases:
        if case.challenge == PLAIN:
            plain.setdefault(case.dataset, case)
        elif case.challenge == "prompts":
            prompts.setdefault(case.dataset, []).append(case)
    for dataset in dict.fromkeys([*prompts, *plain]):
        yield prompts.get(dataset) or [plain[dataset]]


def _measured(
    key: Key, shown: Sequence[Case], of_prompts: Sequence[dict[Key, tuple[np.ndarray, np.ndarray]]]
) -> dict[str, Any]:
    """The AUROC of a method, a mean over prompts and seeds, and what it is uncertain from."""
    pairs = [
        (case, areas[key]) for case, areas in zip(shown, of_prompts, strict=True) if key in areas
    ]
    areas = np.stack([values for _, (values, _) in pairs])
    samples = np.stack([resampled for _, (_, resampled) in pairs])
    fitted = areas[:, seeds_fitted(areas)]
    of_area = components(areas, samples)
    names = [case.name.removeprefix("as ") for case, _ in pairs if case.challenge != PLAIN]
    return {
        "prompts": ", ".join(names),
        "n_prompts": len(pairs),
        "n_seeds": fitted.shape[1],
        "n_test": min(len(case.labels) for case, _ in pairs),
        "auroc": float(fitted.mean()) if fitted.size else np.nan,
        **{f"sd_{source}": of_area.sd(source) for source in SOURCES},
        "below_zero": ", ".join(of_area.below_zero),
    }


def spread_folder(folder: Path) -> Results:
    """Where the rows are, in the folder of a stress test: beside its own."""
    return Results(folder / "spread")


def spread_name(run: str) -> str:
    """What the rows of a run of the stress test are called."""
    return f"{run}-{ALGORITHM}"


def read_spread(folder: Path, run: str) -> pd.DataFrame:
    """The rows of a run; none where no set's plain claims were measured.

    Args:
        folder: Of the stress test.
        run: Its run, `run_id` of its rows.
    """
    results, name = spread_folder(folder), spread_name(run)
    return results.read(name) if results.has(name) else pd.DataFrame()
