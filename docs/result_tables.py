"""The tables of the manual, by name: what docs/make_tables.py writes between two markers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from jelicit.data.formats import BASE_FORMATS
from jelicit.data.sets import SETS
from jelicit.method_names import in_reading_order, method_of, readable
from jelicit.pocket.card import reading_name, runs_table
from jelicit.pocket.world.sets import SETS as WORLD
from jelicit.results import summarise
from jelicit.results.markdown import markdown_table, mean_of, methods_down, truth_and_spurious
from jelicit.studies.cells import number, with_interval
from jelicit.studies.warning_signs import table_of, warning_lines

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs/results/rows"
RECORDS = "records.json"
CARD = ROOT / "extract/pocket/card.json"
CAMPAIGN = ROOT / "docs/results/campaign.json"

STUDIES = (
    *("salience", "loudness", "imbalance", "impossible", "layers", "transfer", "icm"),
    *("stress", "warning_signs", "finetune", "iterative", "assistant"),
)
JUDGED = ("salience", "imbalance", "impossible", "stress", "icm", "finetune", "assistant")
"""Studies whose rows are compared with what the papers find."""
FEATURES = ("none", "sycophancy", "punctuation", "tense")


def records() -> dict[str, Any]:
    """By study: the command that made its rows, versions, and findings."""
    path = ROWS / RECORDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@cache
def _rows(study: str) -> pd.DataFrame:
    """A study's rows, without controls that read the feature itself (they have 1.00 by nature)."""
    rows = pd.read_parquet(ROWS / f"{study}.parquet")
    control = rows["method"].str.startswith("control_") & (rows["method"] != "control_length")
    return rows.loc[~control]


@cache
def _card() -> dict[str, Any]:
    return json.loads(CARD.read_text(encoding="utf-8"))


# --- the studies ---------------------------------------------------------------------------------


def _salience(dataset: str) -> str:
    """AUROC on the label that is asked for [on the feature], feature by feature."""
    rows = _rows("salience")
    of_set = rows.loc[rows["dataset"] == dataset]
    return methods_down(
        of_set,
        across=("feature",),
        columns={"Plain" if f == "none" else readable(f): (f,) for f in FEATURES},
        cell=truth_and_spurious,
    )


def _salience_asked() -> str:
    """Sets of which the prompt names one label of two."""
    rows = _rows("salience")
    asked = rows.loc[rows["feature"].str.contains("asked for")]
    cases = asked[["dataset", "feature"]].drop_duplicates().sort_values(["dataset", "feature"])
    columns = {
        f"{_short(dataset)}: {feature}": (dataset, feature)
        for dataset, feature in cases.itertuples(index=False)
    }
    across = ("dataset", "feature")
    return methods_down(asked, across=across, columns=columns, cell=truth_and_spurious)


def _salience_measured() -> str:
    """How salient truth and feature are, by situation."""
    rows = _rows("salience")
    names = ["dataset", "feature"]
    measured = rows.groupby(names)[["salience_truth", "salience_feature"]].first()
    return markdown_table(
        ("Set", "Feature", "Salience of the truth", "Salience of the feature"),
        [
            (_short(dataset), readable(feature), f"{truth:.2f}", number(spurious))
            for (dataset, feature), (truth, spurious) in zip(
                measured.index, measured.to_numpy(), strict=True
            )
        ],
    )


def _loudness() -> str:
    """Features of two strengths: how salient each is, and what is found beside it."""
    rows = _rows("loudness")
    methods = ("zero_shot", "ccs", "pca", "supervised")
    chosen = rows.loc[rows["method"].isin(methods) & rows["orientation"].isin(["oracle", "none"])]
    cases = chosen.groupby(["dataset", "feature"])[["salience_feature", "salience_truth"]].first()
    lines = []
    for (dataset, feature), (of_feature, of_truth) in sorted(
        zip(cases.index, cases.to_numpy(), strict=True),
        key=lambda case: (case[0][0], np.nan_to_num(case[1][0], nan=-1.0)),
    ):
        here = chosen.loc[(chosen["dataset"] == dataset) & (chosen["feature"] == feature)]
        found = (truth_and_spurious(here.loc[here["method"] == method]) for method in methods)
        given = (_short(dataset), readable(feature), number(of_feature), f"{of_truth:.2f}")
        lines.append((*given, *found))
    head = ("Set", "Feature", "Salience of the feature", "Salience of the truth")
    return markdown_table((*head, *map(_method_name, methods)), lines)


def _imbalance(dataset: str) -> str:
    """AUROC by the share of true claims among the train rows, with either sign."""
    rows = _rows("imbalance")
    of_set = rows.loc[rows["dataset"] == dataset]
    shares = sorted(of_set["class_share"].dropna().unique())
    shown = [share for share in shares if share in (0, 0.01, 0.1, 0.5, 0.9, 0.99, 1)]
    return methods_down(
        of_set,
        across=("class_share",),
        columns={f"{share:g}": (share,) for share in shown},
        cell=_auroc,
        orientations=("none", "oracle", "easy"),
    )


def _impossible() -> str:
    """AUROC and share of the scores' variance, by set."""
    rows = _rows("impossible")
    sets = sorted(rows["dataset"].unique())
    return methods_down(
        rows,
        across=("dataset",),
        columns={f"{_short(s.split(' + ')[0])}: AUROC, share": (s,) for s in sets},
        cell=lambda cell: f"{mean_of(cell, 'auroc')}, {mean_of(cell, 'variance_share')}",
    )


def _layers(feature: str) -> str:
    """AUROC on sums, layer by layer."""
    rows = _rows("layers")
    rows = rows.loc[(rows["dataset"] == "pocket/arithmetic") & (rows["feature"] == feature)]
    # What reads no hidden state stands in the rows of every layer.
    rows = rows.loc[~rows["method"].isin(["zero_shot", "control_length"])]
    return methods_down(
        rows,
        across=("layer",),
        columns={str(layer): (layer,) for layer in sorted(rows["layer"].unique())},
        cell=truth_and_spurious,
    )


def _transfer() -> str:
    """Means over tested sets: the set trained on, and the others."""
    rows = _rows("transfer")
    rows = rows.loc[rows["train"] != "none"]
    where = (rows["train"] == rows["dataset"]).map({True: "own", False: "others"})
    of = ["method", "orientation", "seed", "where"]
    means = rows.assign(where=where).groupby(of, sort=False)["auroc"].mean().reset_index()
    columns = {"The set trained on": ("own",), "Five others": ("others",)}
    return methods_down(means, across=("where",), columns=columns, cell=_auroc)


def _icm() -> str:
    """Share of right labels, evaluations per label, and what the labels are worth as examples."""
    if not (ROWS / "icm.parquet").is_file():
        return "*The rows of this study are not committed yet: `python experiments/icm.py`.*"
    rows = _rows("icm")
    values = {
        "right labels": "label_accuracy",
        "test accuracy": "accuracy",
        "evaluations per label": "evaluations_per_label",
    }
    lines = []
    for dataset, of_set in rows.groupby("dataset", sort=False):
        for method in dict.fromkeys(of_set["method"]):
            of_method = of_set.loc[of_set["method"] == method]
            cells = [mean_of(of_method, value) for value in values.values()]
            lines.append([_short(str(dataset)), _method_name(method), *cells])
    return markdown_table(("Set", "Method", *values), lines)


def _finetune() -> str:
    """What is trained on, how much of it is right, and what the model is worth then."""
    if not (ROWS / "finetune.parquet").is_file():
        return "*The rows of this study are not committed yet: `python experiments/finetune.py`.*"
    rows = _rows("finetune")
    lines = [
        [_short(str(dataset)), *line]
        for dataset, of_set in rows.groupby("dataset", sort=False)
        for line in tuned_lines(of_set)
    ]
    return markdown_table(("Set", *TUNED), lines)


def _iterative() -> str:
    """Labels found in batches, with and without training between them: as of `TUNED`."""
    return markdown_table(TUNED, tuned_lines(_rows("iterative")))


TUNED = ("Method", "Right labels", "Test accuracy", "AUROC")


def tuned_lines(rows: pd.DataFrame) -> list[list[str]]:
    """Of one set, a line per method as `TUNED` has it: means over seeds.

    Accuracies and AUROCs with their 95% intervals over test items and seeds, right labels with
    the least and the most of a seed.
    """
    lines = []
    for method in in_reading_order(rows["method"]):
        mine = rows.loc[rows["method"] == method.key]
        right = mine["label_accuracy"].dropna()
        spread = f" ({right.min():.2f} to {right.max():.2f})" if right.nunique() > 1 else ""
        cells = [_within(mine, value) for value in ("accuracy", "auroc")]
        lines.append([method.name, mean_of(mine, "label_accuracy") + spread, *cells])
    return lines


def _within(rows: pd.DataFrame, value: str) -> str:
    """A mean with its interval, where it has one."""
    known = rows.dropna(subset=value)
    if known.empty:
        return ""
    (point,) = summarise(known, by=["method"], value=value).to_dict("records")
    return with_interval(
        {value: point["mean"]} | {f"{value}_{e}": point[e] for e in ("low", "high")}, value
    )


def _findings(study: str) -> str:
    """What the papers find, or a study of our own claims, and whether it appears in these rows."""
    record = records().get(study)
    if record is None:
        return f"*Not committed yet: `python experiments/{study}.py`.*"
    words = {True: "yes", False: "no", None: "cannot tell"}
    return markdown_table(
        ("The papers' finding" if study in JUDGED else "Claim", "Appears", "Measured"),
        [(f["claim"], words[f["appears"]], f["measured"]) for f in record["findings"]],
    )


def _all_findings() -> str:
    """Every finding in a word; what was measured stands in the table of its study."""
    words = {True: "yes", False: "no", None: "cannot tell"}
    return markdown_table(
        ("Study", "The papers' finding", "On the pocket model"),
        [
            (study, finding["claim"], words[finding["appears"]])
            for study, record in records().items()
            if study in JUDGED
            for finding in record["findings"]
        ],
    )


def _warnings() -> str:
    """Failures told from successes: all cases, and the AUROC in each kind of case."""
    if not (ROWS / "warning_signs.parquet").is_file():
        return "*Not committed yet: `python experiments/warning_signs.py`.*"
    return markdown_table(*warning_lines(table_of(_rows("warning_signs"))))


def _made_by() -> str:
    """Commands and versions behind the rows."""
    kept = ("jelicit", "jax", "torch", "transformers")
    return markdown_table(
        ("Study", "Command", "Versions"),
        [
            (study, f"`{r['command']}`", ", ".join(f"{k} {r['versions'][k]}" for k in kept))
            for study, r in records().items()
        ],
    )


# --- the pocket model's card ---------------------------------------------------------------------


def _card_kinds() -> str:
    card = _card()
    return markdown_table(
        ("Kind", "Zero-shot accuracy", "Supervised AUROC, best layer", "CCS AUROC"),
        [
            (
                readable(kind),
                f"{card['zero_shot_accuracy'][kind]:.2f}",
                f"{max(card['supervised_auroc'][kind]['none']):.2f}",
                f"{card['ccs_auroc_plain'][kind]:.2f}",
            )
            for kind in _kinds()
        ],
    )


def _kinds() -> list[str]:
    """The kinds that the shipped model's card measured."""
    return list(_card()["zero_shot_accuracy"])


def _card_far() -> str:
    """How well the truth of facts is known, the less often the world speaks of a land."""
    [(_, thirds)] = _card()["zero_shot_by_frequency"].items()
    head = ("Far lands", *(readable(third) for third in thirds))
    right = (f"{share:.2f}" for share in thirds.values())
    return markdown_table(head, [("Zero-shot accuracy", *right)])


def _card_judges() -> str:
    card = _card()
    few, many = card["few_shot_accuracy"], card["few_shot_accuracy_24"]
    return markdown_table(
        ("Judge, from examples alone", "8 examples", "24 examples"),
        [(readable(judge), f"{few[judge]:.2f}", f"{many[judge]:.2f}") for judge in few],
    )


def _card_reading() -> str:
    """How far verdicts follow the labels of examples, by number of examples."""
    card = _card()
    shots = [n for n in (8, 16, 24) if reading_name(n) in card]
    names = {"opposite": "The truth turned round"}
    return markdown_table(
        ("Labels by the truth, or by", *(f"{n} examples" for n in shots)),
        [
            (
                names.get(rival, readable(rival)),
                *(f"{card[reading_name(n)][rival]:.2f}" for n in shots),
            )
            for rival in card["label_reading"]
        ],
    )


def _card_runs() -> str:
    """Every trained run: the one that ships, other seeds and sizes, the ablation."""
    return "\n".join(runs_table(_card()["seeds"]))


def _card_sizes() -> str:
    """The sizes of the pocket model, first parts alone: of several seeds the median, by kind."""
    whole = [run for run in _card()["seeds"] if run["marks"] and "reading" not in run]
    sizes = sorted({run["parameters"] for run in whole})
    seeds = {size: [run for run in whole if run["parameters"] == size] for size in sizes}
    values: dict[str, Callable[[dict[str, Any], str], float]] = {
        "Zero-shot accuracy": lambda run, kind: run["zero_shot_accuracy"][kind],
        "CCS AUROC": lambda run, kind: run["ccs_auroc_plain"][kind],
        "Supervised AUROC": lambda run, kind: max(run["supervised_auroc"][kind]["none"]),
    }
    lines = [
        (
            readable(kind),
            name,
            *(f"{median(map(of, runs, repeat(kind))):.2f}" for runs in seeds.values()),
        )
        for kind in _kinds()
        # No judge looks at poems; and these runs read a world without far lands.
        if kind != "poems" and all(kind in run["zero_shot_accuracy"] for run in whole)
        for name, of in values.items()
    ]
    shown = (
        f"{size / 1e6:.2f} M" + (f" (median of {len(runs)} seeds)" if len(runs) > 1 else "")
        for size, runs in seeds.items()
    )
    return markdown_table(("Kind", "Measured", *shown), lines)


def _auroc(rows: pd.DataFrame) -> str:
    return mean_of(rows, "auroc")


# --- words ---------------------------------------------------------------------------------------


def _short(dataset: str) -> str:
    return readable(dataset.removeprefix("pocket/"))


def _method_name(key: str) -> str:
    return method_of(key).name


# --- the campaign --------------------------------------------------------------------------------


def _campaign() -> str:
    """What was tried by force and what survived, as `tests/campaign/run.py --write` counted it."""
    counts = json.loads(CAMPAIGN.read_text(encoding="utf-8"))
    lines = [
        (part, what, f"{count['tried']:,}", f"{count['survived']:,}")
        for part, whats in counts.items()
        if part != "seed"
        for what, count in whats.items()
    ]
    return markdown_table(("Part", "What", "Tried", "Survived"), lines)


def _prompt_formats() -> str:
    """Every format that ships, as the code has it."""
    of_sets = [form for named in (*SETS.values(), *WORLD) for form in named.own_formats]
    forms = {form.name: form for form in (*BASE_FORMATS.values(), *of_sets)}.values()
    lines = [
        (
            f"`{form.name}`",
            _code(form.text) + (", after a system text" if form.system else ""),
            ", ".join(map(_code, (form.true_word, form.false_word))),
            "" if form.third_word is None else _code(form.third_word),
            "the truth" if form.target == "label" else f"`{form.target}`",
        )
        for form in forms
    ]
    return markdown_table(("Name", "Text", "Verdicts", "Third word", "Asks for"), lines)


def _code(text: str) -> str:
    """A text as code, ends of lines spelled; quoted where space at its ends counts."""
    spelled = text.replace("\n", "\\n")
    return f'`"{spelled}"`' if spelled != spelled.strip() else f"`{spelled}`"


TABLES: dict[str, Callable[[], str]] = {
    "prompt-formats": _prompt_formats,
    "salience-arithmetic": partial(_salience, "pocket/arithmetic"),
    "salience-larger-than": partial(_salience, "pocket/larger_than"),
    "salience-asked": _salience_asked,
    "salience-measured": _salience_measured,
    "loudness": _loudness,
    "imbalance-arithmetic": partial(_imbalance, "pocket/arithmetic"),
    "imbalance-commands": partial(_imbalance, "pocket/commands"),
    "impossible": _impossible,
    "layers-plain": partial(_layers, "none"),
    "layers-sycophancy": partial(_layers, "sycophancy"),
    "transfer": _transfer,
    "icm": _icm,
    "finetune": _finetune,
    "iterative": _iterative,
    **{f"findings-{study}": partial(_findings, study) for study in JUDGED},
    "findings-warning-signs": partial(_findings, "warning_signs"),
    "warning-signs": _warnings,
    "findings": _all_findings,
    "made-by": _made_by,
    "card-kinds": _card_kinds,
    "card-far": _card_far,
    "card-judges": _card_judges,
    "card-reading": _card_reading,
    "card-runs": _card_runs,
    "card-sizes": _card_sizes,
    "campaign": _campaign,
}
