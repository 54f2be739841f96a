"""`jelicit sweep`: its options. What it does is in `sweep_run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from jelicit.commands.ending import stopping_at_once
from jelicit.data.overlap import Policy
from jelicit.studies.fit_settings import FitSettings


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Fit and measure probes on activation stores that `python -m extract run` wrote.

    The product of methods, seeds, class shares, layers and settings, fitted together; what was
    finished is kept, so that a sweep that was killed goes on. Writes result rows (Parquet), item
    scores and report.html to the output folder.

    For example: `jelicit sweep activations/train --test activations/test --seeds 8`.
    """

    train: tyro.conf.Positional[str]
    """Store of the train rows: a folder or an fsspec URL."""
    test: str
    """Store of the test rows."""
    easy: str | None = None
    """Store of the easy labelled set, for e2h, ue_e2h and the ensembles that it weights."""
    target: str | None = None
    """The label to look for; default: the one that the train store's prompts ask for."""
    methods: tuple[str, ...] = ()
    """Which probes: names, or package.module:NAME or file.py:NAME of one's own; default: paper A's
    ten, those that need an easy set only with --easy."""
    seeds: int = 3
    """Runs, each with its own start and its own train rows."""
    class_shares: tuple[float, ...] = ()
    """Shares of true claims among the train rows; default: all train rows as they are."""
    train_size: int | None = None
    """Train rows of a run with a class share; default: as many as can be had at every share."""
    layers: tuple[int, ...] = ()
    """Which layers, negative ones from the end; default: all that the stores have in common."""
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    """How probes are fitted."""
    settings: tuple[str, ...] = ()
    """Settings of methods, one's own included, to cross: easy_share=0.25,0.5 restarts=1,10."""
    orientations: tuple[str, ...] = ()
    """Who picks the sign of unlabelled probes: oracle (train labels), easy (labels of the easy
    set); default: both, as far as there is an easy set."""
    others: tuple[str, ...] = ()
    """Further labels of the stores' items, such as a spurious feature, to measure on, too."""
    overlap: Policy = "drop"
    """What to do with train and easy rows whose text is a test row's: drop (with all rows of their
    groups), refuse, or keep."""
    boot: int = 1000
    """Bootstrap samples (of whole groups) behind every interval."""
    save_probes: bool = False
    """Keep every probe of seed 0, for `jelicit probe score`."""
    out: Path = Path("runs/sweep")
    """Folder of rows, probes and the report."""

    def main(self) -> None:
        """Sweeps, prints the means, and writes everything.

        Raises:
            ValueError: Options or stores that cannot work, before any fit.
        """
        with stopping_at_once():
            from jelicit.commands.sweep_run import run

        run(self)
