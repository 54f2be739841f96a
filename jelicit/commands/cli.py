"""Command line: `jelicit datasets|sweep|report|probe`. No command here needs a language model."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from jelicit.commands.ending import ending_in_one_line
from jelicit.probes.methods import ALL_METHODS, METHODS, NEEDS_EASY
from jelicit.progress import progress
from jelicit.studies.fit_settings import FitSettings, crossed
from jelicit.version import __version__

if TYPE_CHECKING:
    from jelicit.activations import ActivationStore
    from jelicit.studies.grid import Grid, GridResult
    from jelicit.studies.states import States

console = Console()


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """Say which data sets there are, or describe some of them.

    Without names: all named sets. With names (or folders of train.jsonl and test.jsonl): rows,
    groups, share of true labels, how much every other label says of the label, and the AUROC of
    bare length, split by split. What length alone can tell, no method deserves credit for.

    For example: `jelicit datasets pocket/facts pocket/comments`.
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which sets: pocket/..., a set of the hub, a folder, or file.py:SET."""
    show: int = 0
    """Test items to print of each."""

    def main(self) -> None:
        """Prints the sets."""
        from jelicit.data.concerns import concerns
        from jelicit.data.datasets import known_names, load_dataset
        from jelicit.data.describe import describe, table
        from jelicit.data.prompts import zero_shot

        if not self.names:
            for name in known_names():
                print(name)
            print("or a folder with train.jsonl and test.jsonl; describe: jelicit datasets NAME...")
            return
        sets = [load_dataset(name) for name in self.names]
        console.print(table([row for dataset in sets for row in describe(dataset)]))
        for dataset in sets:
            for line in concerns(dataset):
                print(f"{dataset.name}: {line}")
        for dataset in sets:
            format = next(iter(dataset.formats.values()))
            for item in dataset.test[: self.show]:
                print(f"--- {item.id}, label {item.label}\n{zero_shot(item, format)}")


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
    methods: tuple[str, ...] = METHODS
    """Which probes."""
    seeds: int = 3
    """Runs, each with its own start and its own train rows."""
    class_shares: tuple[float, ...] = ()
    """Shares of true claims among the train rows; default: all train rows as they are."""
    train_size: int | None = None
    """Train rows of a run with a class share; default: as many as can be had at every share."""
    layers: tuple[int, ...] = ()
    """Which layers; default: all that the stores have in common."""
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    """How probes are fitted."""
    settings: tuple[str, ...] = ()
    """Settings of `SweepConfig` to cross, such as easy_share=0.25,0.5 restarts=1,10."""
    orientations: tuple[str, ...] = ()
    """Who picks the sign of unlabelled probes: oracle (train labels), easy (labels of the easy
    set); default: both, as far as there is an easy set."""
    others: tuple[str, ...] = ()
    """Further labels of the stores' items, such as a spurious feature, to measure on, too."""
    boot: int = 1000
    """Bootstrap samples (of whole groups) behind every interval."""
    save_probes: bool = False
    """Keep every probe of seed 0, for `jelicit probe score`."""
    out: Path = Path("runs/sweep")
    """Folder of rows, probes and the report."""

    def main(self) -> None:
        """Sweeps, prints the means, and writes everything."""
        from jelicit.disk import check_out_folder
        from jelicit.results import run_id
        from jelicit.studies import scoring
        from jelicit.studies.grid import run_grid
        from jelicit.studies.states import States

        begin = time.perf_counter()
        check_out_folder(self.out)
        train, test = _open(self.train), _open(self.test)
        easy = None if self.easy is None else _open(self.easy)
        asked = self.target
        target = str(train.spec.prompt_format["target"]) if asked is None else asked
        grid = self._grid([train, test, *([] if easy is None else [easy])])
        warn_of_other_model(test, self.test, train.spec, f"the probes of {self.train}")
        warn_of_shared_items(train, test)
        identity = self._identity(grid, target, States.of_stores(train, test, easy))
        run = run_id(
            identity,
            f"{train.spec.item_digest}{test.spec.item_digest}",
            {"rows": scoring.ALGORITHM},
        )
        origin = _origin(run, train)
        if self.save_probes:
            self._check_probes(origin)
        with progress("fits") as report:
            result = run_grid(
                grid,
                train,
                _labels(train, target),
                test=test,
                test_labels=_labels(test, target),
                test_groups=[item.group for item in test.items],
                test_log_probs=test.log_probs,
                easy=easy,
                easy_labels=None if easy is None else _labels(easy, "label"),
                others=self._others(train, test, target),
                boot=self.boot,
                folder=self.out / "fits",
                report=report,
            )
        self._show(result)
        self._write(result, test, target, run, identity, time.perf_counter() - begin)
        if self.save_probes:
            self._save_probes(result, origin)

    def _grid(self, stores: Sequence[ActivationStore]) -> Grid:
        from jelicit.studies.grid import Grid

        unknown = [name for name in self.methods if name not in ALL_METHODS]
        if unknown or self.seeds < 1:
            raise ValueError(
                f"--methods {' '.join(unknown)} --seeds {self.seeds}: known methods are "
                f"{', '.join(ALL_METHODS)}; seeds start at 1"
            )
        if self.train_size is not None and self.train_size < 1:
            raise ValueError(f"--train-size {self.train_size}: allowed are numbers from 1")
        usable = tuple(m for m in self.methods if self.easy is not None or m not in NEEDS_EASY)
        if left_out := [m for m in self.methods if m not in usable]:
            print(f"without --easy there is no {', '.join(left_out)}")
        layers = sorted(set.intersection(*(set(store.spec.layers) for store in stores)))
        if not layers:
            had = "; ".join(str(tuple(store.spec.layers)) for store in stores)
            raise ValueError(f"the stores have no layer in common; they have {had}")
        return Grid(
            methods=usable,
            seeds=range(self.seeds),
            class_shares=self.class_shares or (None,),
            train_size=self.train_size,
            settings=crossed(self.settings, self.fit),
            orientations=self._orientations(),
            base=self.fit.config(usable),
            # Embeddings of the verdict word are the same for every item.
            layers=self.layers or tuple(layer for layer in layers if layer > 0) or (0,),
        )

    def _orientations(self) -> tuple[str, ...]:
        if self.easy is None and "easy" in self.orientations:
            raise ValueError("--orientations easy: without --easy there is only oracle")
        return self.orientations or (("oracle",) if self.easy is None else ("oracle", "easy"))

    def _others(
        self, train: ActivationStore, test: ActivationStore, target: str
    ) -> dict[str, tuple[Any, Any]]:
        # Rows call the label that was asked for "truth".
        if {"truth", target} & set(self.others) or len(set(self.others)) < len(self.others):
            raise ValueError(
                f"--others {' '.join(self.others)}: name each label once, and neither truth nor "
                f"{target}, which is measured anyway"
            )
        return {name: (_labels(train, name), _labels(test, name)) for name in self.others}

    def _show(self, result: GridResult) -> None:
        from jelicit.results import summarise

        of = ["target"] if self.others else []
        key = ["layer", "class_share", *result.grid.settings, "method", "orientation", *of]
        rows = result.rows.assign(class_share=result.rows.get("class_share"))
        means = summarise(rows, by=key, value="auroc").dropna(axis="columns", how="all")
        print(means.round(3).to_string(index=False))

    def _write(
        self,
        result: GridResult,
        test: ActivationStore,
        target: str,
        run: str,
        identity: Mapping[str, Any],
        seconds: float,
    ) -> None:
        from jelicit.report import write_report
        from jelicit.results import ItemScores, ItemScoreStore, Record, Results
        from jelicit.results.identity import plain

        about = {
            "dataset": test.items[0].dataset or "test",
            "feature": "none",
            "asked": "truth" if target == "label" else target,
            "model": test.spec.model,
            "n_test": len(test.items),
        }
        rows = [{**about, **row} for row in result.rows.to_dict("records")]
        Results(self.out / "rows").write(run, rows, identity)
        scores = ItemScores.of(test.items, result.scores, target=target)
        ItemScoreStore(self.out / "items").write(run, scores)
        Record(
            experiment="sweep",
            title=f"Probes of {test.spec.model}",
            lead="Every probe at every layer, seed and class share of one sweep.",
            command=shlex.join(["jelicit", *sys.argv[1:]]),
            seconds=seconds,
            machine=f"{os.cpu_count()} CPU cores",
            versions={"jelicit": __version__},
            settings=plain({**asdict(self), "target": target}),
            runs=(run,),
        ).write(self.out)
        print(f"rows: {self.out / 'rows'} ({len(rows)} of this command)")
        print(f"report: {write_report(self.out)}")

    def _identity(self, grid: Grid, target: str, states: States) -> dict[str, Any]:
        """Everything that changes a number of the rows, and nothing that does not."""
        from jelicit.studies.settings import fit_identity

        return {
            "experiment": "sweep",
            "target": target,
            "others": list(self.others),
            "seeds": self.seeds,
            "class_shares": list(self.class_shares),
            "train_size": self.train_size,
            "layers": list(states.layers if grid.layers is None else grid.layers),
            "crossed": {name: list(values) for name, values in grid.settings.items()},
            "orientations": list(grid.orientations),
            "boot": self.boot,
            "sweep": fit_identity(grid.base),
            "extraction": states.origin,
        }

    def _check_probes(self, origin: Mapping[str, str]) -> None:
        """Refuses a folder with probes of another sweep: they would be taken for this one's."""
        from jelicit import load_probe

        for path in sorted((self.out / "probes").glob("[!.]*")):
            if ".orbax-checkpoint-tmp" in path.name:  # of a version that left them when killed
                continue
            found = load_probe(path).settings
            if any(found.get(name) != value for name, value in origin.items()):
                raise ValueError(
                    f"{path} is of another sweep (other stores, settings or model); choose another "
                    f"--out, or move {self.out / 'probes'} away"
                )

    def _save_probes(self, result: GridResult, origin: Mapping[str, str]) -> None:
        from jelicit.probes.files import save_probe

        grid = result.grid
        for share, layer, method in product(grid.class_shares, grid.layers or (), grid.methods):
            for values in product(*grid.settings.values()):
                chosen = dict(zip(grid.settings, values, strict=True))
                named = f"{method}-layer{layer}" + ("" if share is None else f"-share{share:g}")
                named += "".join(f"-{name}-{value}" for name, value in chosen.items())
                path = self.out / "probes" / named
                if not path.exists():
                    found = result.probe(method, layer=layer, seed=0, class_share=share, **chosen)
                    with suppress(FileExistsError):  # the same sweep, run twice at once
                        save_probe(path, replace(found, settings={**found.settings, **origin}))
        print(f"probes: {self.out / 'probes'}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a finished run folder anew, or compare several of them.

    One folder: its report.html, from its rows, items and figures. Several: one page that sets them
    side by side: the settings that differ, and every row that they share.

    For example: `jelicit report runs/salience runs/salience-8b --out compare.html`.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of experiments, such as runs/salience."""
    out: Path = Path("comparison.html")
    """The page of a comparison."""

    def main(self) -> None:
        """Writes the page and prints its path."""
        from jelicit.report import compare_reports, write_report

        if not self.folders:
            raise ValueError("name at least one run folder, such as runs/salience")
        if len(self.folders) == 1:
            print(f"report: {write_report(self.folders[0])}")
        else:
            print(f"comparison: {compare_reports(self.folders, self.out)}")


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
    """Layer of the store; default: the one the probe was fitted on. Another one is told."""
    other_model: bool = False
    """Score a store of another model than the probe was fitted on, of the same width."""
    out: Path | None = None
    """CSV of id, truth score and label; default: printed."""

    def main(self) -> None:
        """Scores, and prints AUROC and accuracy where labels are known."""
        import numpy as np
        import pandas as pd

        from jelicit import load_probe, metrics
        from jelicit.disk import check_out_folder, write_text

        if self.out is not None:
            if self.out.is_dir():
                raise ValueError(f"--out {self.out} is a folder; name a file, such as scores.csv")
            check_out_folder(self.out.parent)
        fitted, store = load_probe(self.probe), _open(self.store)
        own = fitted.settings.get("layer")
        if None not in (own, self.layer) and self.layer != own:
            _warn(f"{self.probe} was fitted on layer {own} and scores layer {self.layer}")
        if self.other_model:
            warn_of_other_model(store, self.store, fitted.settings, f"the probe {self.probe}")
        allowed = {"layer": self.layer, "other_model": self.other_model}
        scores = np.asarray(fitted.score_store(store, **allowed))
        target = str(store.spec.prompt_format["target"])
        found = pd.DataFrame(
            {
                "id": [item.id for item in store.items],
                "score": scores,
                "label": _labels(store, target),
            }
        )
        if self.out is None:
            print(found.to_csv(index=False), end="")
        else:
            write_text(self.out, found.to_csv(index=False))
        area = float(metrics.auroc(scores, found["label"].to_numpy()))
        right = float(metrics.accuracy(scores, found["label"].to_numpy()))
        said = f"AUROC {area:.3f}, accuracy {right:.3f} on {target} of {len(found)} items"
        print(said, file=sys.stderr)


def _origin(run: str, train: ActivationStore) -> dict[str, str]:
    """What saved probes say of where they are from."""
    spec = train.spec
    return {"sweep": run, "model": spec.model, "model_digest": spec.model_digest}


def warn_of_other_model(store: ActivationStore, path: str, made_by: Any, what: str) -> None:
    """Says so where a store is of another model than probes are: legitimate, but seldom meant.

    Args:
        store: What is scored.
        path: Where it is.
        made_by: A store's spec or a probe's settings, with model and model_digest.
        what: The probes, for the message.
    """
    known = made_by if isinstance(made_by, Mapping) else vars(made_by)
    if known.get("model_digest", store.spec.model_digest) != store.spec.model_digest:
        _warn(
            f"{path} holds hidden states of {store.spec.model}, {what} were fitted on those of "
            f"{known.get('model')} with other weights"
        )


def warn_of_shared_items(train: ActivationStore, test: ActivationStore) -> None:
    """Says so where items are both fitted on and measured on."""
    shared = {item.id for item in train.items} & {item.id for item in test.items}
    if shared:
        _warn(
            f"{len(shared)} of the {len(test.items)} test items are train items as well, such as "
            f"{min(shared)!r}: what is measured is not held out"
        )


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _open(path: str) -> ActivationStore:
    from jelicit.activations import ActivationStore

    return ActivationStore.open(path)


def _labels(store: ActivationStore, target: str) -> Any:
    import numpy as np

    from jelicit.data.items import label_of

    if target != "label" and any(target not in item.alt_labels for item in store.items):
        known = set.intersection(*(set(item.alt_labels) for item in store.items))
        raise ValueError(
            f"not every item of the store has the label {target!r}; all have "
            f"{', '.join(['label', *sorted(known)])}"
        )
    values = [label_of(item, target) for item in store.items]
    return np.array([np.nan if value is None else float(value) for value in values])


Command = (
    Annotated[Datasets, tyro.conf.subcommand("datasets")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
)


def main(words: list[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on stderr and exit code 1."""
    command = tyro.cli(Command, prog="jelicit", description=__doc__, args=words)  # type: ignore[arg-type]
    with ending_in_one_line():
        command.main()


if __name__ == "__main__":
    main()
