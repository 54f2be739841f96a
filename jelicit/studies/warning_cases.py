"""Cases of the study of warning signs: what fits looked like, and whether they failed.

A case is a method in a situation: the means over seeds of the AUROC on what is asked for and of the
indicators of its rows (`jelicit.indicators`). What compares situations with each other (other
prompts, the negated statements) is read off the item scores of a run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jelicit.indicators import INDICATORS, NAMES, Indicator, unit_ranks
from jelicit.results import ItemScores, ItemScoreStore, Record, Results
from jelicit.studies.better_sign import better, picks_none
from jelicit.studies.format_rows import without_ensembles
from jelicit.studies.indicating import CHANCE, without_labels
from jelicit.studies.stress_parts import TWINS

STUDY = "warning_signs"

ACROSS = (
    Indicator(
        "prompt_agreement",
        "Agreement over prompts",
        "low",
        "the same claims in other words are something else",
    ),
    Indicator(
        "negated_consistency",
        "Consistency over negated statements",
        "low",
        "what is true of a statement is false of the one that denies it",
    ),
)
"""Indicators that take more than one situation."""

ALL = (*INDICATORS, *ACROSS)
COLUMNS = tuple(indicator.name for indicator in ALL)

LINE = 5 / 6
"""The AUROC below which a method has failed: two thirds of the way from chance to 1, as of the
scorecard (`stress_card.KEPT`), and not 3/4, which is just what scores led by a feature have."""

KINDS = ("plain", "salience", "imbalance", "impossible", "transfer", "prompts")
"""What was done to the claims, or to what was fitted on."""

_WHERE = ("model", "dataset", "feature", "asked", "prompt", "train", "class_share", "layer")
_OF_METHOD = ("method", "orientation")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of finished runs, with their item scores where there are some.

    Those of several prompts together (ensembles, joint probes) are left out: they are no fits in a
    prompt of their own, and prompts would be compared with a mean that holds them.

    Attributes:
        name: Where they are from.
        rows: Result rows.
        scores: Run id -> what every method said of its test items.
    """

    name: str
    rows: pd.DataFrame
    scores: Mapping[str, ItemScores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = without_ensembles(self.rows)
        if len(rows) == len(self.rows):
            return
        left = set(rows["run_id"])
        scores = {run: said for run, said in self.scores.items() if run in left}
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "scores", scores)

    @classmethod
    def of_folder(cls, folder: Path, runs: Sequence[str]) -> Source:
        """The rows and item scores of these runs in the folder of a study."""
        results, items = Results(folder / "rows"), ItemScoreStore(folder / "items")
        rows = pd.concat([results.read(run) for run in runs], ignore_index=True)
        scores = {run: items.read(run) for run in runs if items.has(run)}
        return cls(name=folder.name, rows=rows, scores=scores)


def read_sources(places: Sequence[Path]) -> list[Source]:
    """Rows of finished runs.

    Args:
        places: Run folders, folders of run folders, or Parquet files of rows.

    Raises:
        ValueError: Nothing is there, or no row has an indicator: an older version measured them.
    """
    sources = [source for place in places for source in _sources_at(Path(place))]
    named = ", ".join(map(str, places))
    if not sources:
        raise ValueError(
            f"--runs {named}: no finished run; name folders with a report.json, or Parquet files "
            "of rows"
        )
    if not any(_has_indicators(source.rows) for source in sources):
        raise ValueError(
            f"--runs {named}: no row has an indicator, such as {NAMES[0]}: they were measured "
            "before there were any; run their study again with another --out"
        )
    return [source for source in sources if _has_indicators(source.rows)]


def _sources_at(place: Path) -> Iterator[Source]:
    if place.is_file():
        yield Source(name=place.stem, rows=pd.read_parquet(place))
        return
    for report in sorted(place.rglob("report.json")):
        record = Record.read(report.parent)
        if record.experiment != STUDY:  # its rows are of others
            yield Source.of_folder(report.parent, record.runs)


def _has_indicators(rows: pd.DataFrame) -> bool:
    present = [name for name in NAMES if name in rows]
    return bool(rows[present].notna().to_numpy().any())


# --- cases ---------------------------------------------------------------------------------------


def cases_of(source: Source, *, sign: str = "oracle") -> pd.DataFrame:
    """A row per case, of methods that see no label; a case whose fits all failed is left out.

    Args:
        source: Rows of a study.
        sign: Who picked the sign of unlabelled directions: "oracle" or "easy".

    Returns:
        Where it is, `tested` (whose questions) and `taught` (whose rows were fitted on), `kind`
        (one of `KINDS`), auroc, failed (it is below `LINE`), and the columns of `ALL`.
    """
    rows = source.rows.rename(columns={"format": "prompt"})
    methods = [name for name in _with_rebalanced(without_labels()) if name not in CHANCE]
    kept = (
        (rows["role"] == "truth")
        & rows["orientation"].isin(["none", sign])
        & rows["method"].isin(methods)
    )
    rows = with_better_sign(rows.loc[kept]).reindex(
        columns=["run_id", "source", *_WHERE, *_OF_METHOD, "auroc", *COLUMNS]
    )
    by = ["run_id", "source", *_WHERE, *_OF_METHOD]
    values = ["auroc", *COLUMNS]
    cases = pd.DataFrame(rows.groupby(by, dropna=False, sort=False)[values].mean()).reset_index()
    cases = pd.DataFrame(cases.loc[cases["auroc"].notna()]).reset_index(drop=True)
    cases = _with_places(cases)
    for column, told in (
        ("prompt_agreement", prompt_agreement(source)),
        ("negated_consistency", negated_consistency(source)),
    ):
        values = [told.get(key, np.nan) for key in _keys(cases)]
        cases[column] = cases[column].fillna(pd.Series(values, index=cases.index, dtype=float))
    return cases.drop(columns="run_id").assign(source=cases["source"].fillna(source.name))


def with_better_sign(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with the better of both signs where an oracle of one class could not pick one."""
    if "class_share" not in rows:
        return rows
    unpicked = picks_none(rows["orientation"], rows["class_share"].astype(float))
    return rows.assign(auroc=np.where(unpicked, better(rows["auroc"]), rows["auroc"]))


def all_cases(sources: Sequence[Source], *, sign: str = "oracle") -> pd.DataFrame:
    """The cases of several sources; what was measured twice with the same outcome counts once.

    Raises:
        ValueError: There is none.
    """
    cases = pd.concat([cases_of(source, sign=sign) for source in sources], ignore_index=True)
    if cases.empty:
        raise ValueError(
            "these runs have no case: no method that sees no label has rows with this sign"
        )
    same = ["model", "dataset", "asked", *_OF_METHOD, "auroc", *NAMES]
    return pd.DataFrame(cases.loc[~cases.duplicated(same)]).reset_index(drop=True)


def _with_rebalanced(methods: Sequence[str]) -> list[str]:
    return [*methods, *(f"{name}_rebalanced" for name in methods)]


def _with_places(cases: pd.DataFrame) -> pd.DataFrame:
    """With whose questions they are, whose rows were fitted on, the kind, and the outcome."""
    tested = [one_of_twins(name) for name in cases["dataset"].astype(str)]
    trained = cases["train"].where(cases["train"].notna(), cases["dataset"]).astype(str)
    return cases.assign(
        tested=tested,
        taught=[one_of_twins(name) for name in trained],
        kind=[_kind(case) for case in cases.to_dict("records")],
        failed=cases["auroc"] < LINE,
    )


def one_of_twins(dataset: str) -> str:
    """What the questions of a set are called: of a mixture, of the first set in it.

    Sets that say the same in either polarity have the same questions.
    """
    name = dataset.partition(" + ")[0]
    return min(name, TWINS.get(name, name))


def _kind(case: Mapping[Any, Any]) -> str:
    if pd.notna(case["train"]) and case["train"] != case["dataset"]:
        return "transfer"
    if pd.notna(case["class_share"]) and case["class_share"] != 0.5:
        return "imbalance"
    if " + " in str(case["dataset"]):
        return "impossible"
    if case["feature"] != "none":
        return "salience"
    return "plain" if pd.isna(case["prompt"]) else "prompts"


# --- what compares situations --------------------------------------------------------------------

Key = tuple[Any, ...]
"""A run, and a method in it."""


class _Said(NamedTuple):
    """What a method said of the items of a run."""

    key: Key
    run: Mapping[Any, Any]
    scores: pd.Series


def _keys(cases: pd.DataFrame) -> list[Key]:
    return [_key(str(case["run_id"]), case) for case in cases.to_dict("records")]


def _key(run: str, about: Mapping[Any, Any]) -> Key:
    share = about.get("class_share")
    layer = about.get("layer")
    return (
        run,
        about["method"],
        about["orientation"],
        None if share is None or pd.isna(share) else float(share),
        None if layer is None or pd.isna(layer) else int(layer),
    )


def _said(source: Source, index: str) -> list[_Said]:
    """What every method said in every run, by an item's name or text."""
    said = []
    for run, scored in source.scores.items():
        about = source.rows.loc[source.rows["run_id"] == run].to_dict("records")[-1]
        names = pd.Index(scored.items[index].astype(str))
        for settings, column in zip(scored.settings, scored.scores.T, strict=True):
            if "layer" in settings:  # a probe's
                said.append(_Said(_key(run, settings), about, pd.Series(column, index=names)))
    return said


def prompt_agreement(source: Source) -> dict[Key, float]:
    """Mean |Spearman's rho| with the same method's scores of the same claims in other prompts.

    Probes are fitted in each prompt by itself.
    """
    if "format" not in source.rows:
        return {}
    groups: dict[Key, list[_Said]] = {}
    for each in _said(source, "id"):
        run, (_, method, orientation, share, _) = each.run, each.key
        same = (run["dataset"], run["feature"], run.get("train"), method, orientation, share)
        groups.setdefault(same, []).append(each)
    agreement = {}
    for members in groups.values():
        for one in members:
            others = [o for o in members if o.run["format"] != one.run["format"]]
            alike = [abs(rank_correlation(one.scores, o.scores)) for o in others]
            if alike:
                agreement[one.key] = float(np.mean(alike))
    return agreement


def negated_consistency(source: Source) -> dict[Key, float]:
    """Minus Spearman's rho of a probe's scores of statements and of those that deny them.

    Of the same probe, which was trained on either: 1 where every denial is scored oppositely.
    """
    if "train" not in source.rows:
        return {}
    by_probe: dict[Key, list[_Said]] = {}
    for each in _said(source, "choice"):
        run, (_, method, orientation, share, layer) = each.run, each.key
        same = (run["train"], run.get("train_format"), method, orientation, share, layer)
        by_probe.setdefault(same, []).append(each)
    consistency = {}
    for members in by_probe.values():
        for one in members:
            for other in members:
                if TWINS.get(str(one.run["dataset"])) == other.run["dataset"]:
                    alike = rank_correlation(affirmed(one.scores), affirmed(other.scores))
                    consistency[one.key] = -alike
    return consistency


def affirmed(scores: pd.Series) -> pd.Series:
    """Scores by their statements, with negations taken out of them."""
    names = [
        str(text).replace(" is not ", " is ").replace(" does not mean ", " means ")
        for text in scores.index
    ]
    return pd.Series(scores.to_numpy(), index=names)


def rank_correlation(one: pd.Series, other: pd.Series) -> float:
    """Spearman's rho over the names that both have; nan of fewer than three."""
    both = pd.concat([_once(one), _once(other)], axis=1, join="inner").dropna().to_numpy(float)
    if len(both) < 3:
        return float("nan")
    return float(unit_ranks(both[:, 0]) @ unit_ranks(both[:, 1]))


def _once(scores: pd.Series) -> pd.Series:
    """Each name's first score."""
    return pd.Series(scores.loc[~scores.index.duplicated()])
