"""Tables of what was measured on real language models, from the rows in docs/results/rows/real."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import assistant_tables
import pandas as pd
from result_tables import TUNED, tuned_lines

from jelicit.method_names import in_reading_order, readable
from jelicit.results.markdown import MARKS, markdown_table, mean_of, truth_and_spurious
from jelicit.studies.cells import number
from jelicit.studies.scaling import label_reading
from jelicit.studies.warning_signs import table_of, warning_lines

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs/results/rows/real"
RECORDS = "records.json"

MODELS = {
    "smollm2-135m": "SmolLM2-135M-Instruct, Q4_1",
    "gemma3-270m": "Gemma 3 270M (base), Q4_K_M",
    "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
    "qwen2.5-coder-1.5b": "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
}
"""What a model's folder is called -> its makers' name and the quantisation, by size."""

JUDGED = (
    *("salience", "imbalance", "impossible", "icm", "scaling", "finetune", "reward", "assistant"),
)
"""Studies whose rows are compared with what the papers find."""
FEATURES = ("none", "sycophancy", "punctuation", "tense")
SETS = ("cities", "sp_en_trans", "larger_than", "common_claim")
"""Sets that are asked with every feature."""
SHOWN = ("zero_shot", "ccs", "pca", "random_ensemble_consensus", "pca_ensemble_consensus")
LABELLED = ("supervised", "control_length")


def records() -> dict[str, Any]:
    """By run: its study, command, minutes, machine, versions and findings."""
    path = ROWS / RECORDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@cache
def rows_of(study: str) -> pd.DataFrame:
    """The rows of all runs of a study, with the name of their run."""
    frames = [
        pd.read_parquet(ROWS / f"{run}.parquet").assign(run=run)
        for run, record in records().items()
        if record["study"] == study
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _runs(*kinds: str) -> pd.DataFrame:
    """Rows of the salience runs of some kinds: a run is called by its kind and its model."""
    rows = rows_of("salience")
    return rows.loc[rows["run"].str.rsplit("-", n=1).str[0].isin(kinds)]


def _by_size(rows: pd.DataFrame) -> list[str]:
    """The models of some rows, those named above first, by size."""
    there = list(dict.fromkeys(rows["model"]))
    return [m for m in MODELS if m in there] + [m for m in there if m not in MODELS]


def _sizes(rows: pd.DataFrame) -> list[str]:
    """The models of some rows, by parameters."""
    sizes = dict(zip(rows["model"], rows["parameters"], strict=True))
    return sorted(sizes, key=lambda model: float(sizes[model]))


def _short(model: str) -> str:
    return MODELS.get(model, model).split(",")[0].removesuffix(" (base)").removesuffix("-Instruct")


def down(
    rows: pd.DataFrame,
    columns: Mapping[str, Callable[[pd.DataFrame], str]],
    *,
    methods: tuple[str, ...] = (*SHOWN, *LABELLED),
    orientations: tuple[str, ...] = ("none", "oracle"),
) -> str:
    """A line per model and method, a column per function of their rows."""
    lines = []
    for model in _by_size(rows):
        of_model = rows.loc[rows["model"] == model]
        for method in in_reading_order(of_model["method"]):
            if method.key not in methods:
                continue
            for sign in orientations:
                mine = of_model.loc[
                    (of_model["method"] == method.key) & (of_model["orientation"] == sign)
                ]
                if not mine.empty:
                    cells = [column(mine) for column in columns.values()]
                    lines.append([_short(model), method.name + MARKS[sign], *cells])
    return markdown_table(["Model", "Method", *columns], lines)


def _where(column: str, value: Any, cell: Callable[[pd.DataFrame], str]) -> Any:
    def shown(rows: pd.DataFrame) -> str:
        here = rows.loc[rows[column] == value]
        return "" if here.empty else cell(here)

    return shown


def _auroc(rows: pd.DataFrame) -> str:
    return mean_of(rows.loc[rows["role"] == "truth"], "auroc")


# --- salience ------------------------------------------------------------------------------------


def _salience(dataset: str) -> str:
    """One set: a column per feature, AUROC on truth [on the feature]."""
    rows = _runs("salience")
    rows = rows.loc[rows["dataset"] == dataset]
    columns = {
        _shown(name): _where("feature", name, truth_and_spurious)
        for name in FEATURES
        if name in set(rows["feature"])
    }
    return down(rows, columns)


def _shown(feature: str) -> str:
    return "Plain" if feature == "none" else readable(feature)


def _formats() -> str:
    """Cities asked in several ways, AUROC on truth [on the feature]."""
    rows = _runs("formats")
    columns = {
        f"{_shown(feature)}, `{name}`": _both(feature, name)
        for feature in dict.fromkeys(rows["feature"])
        for name in dict.fromkeys(rows["format"])
        if name != "ensemble"
    }
    return down(rows, columns)


def _both(feature: str, name: str) -> Any:
    within = _where("format", name, truth_and_spurious)
    return _where("feature", feature, within)


def _texts(*datasets: str) -> str:
    """Longer texts, and sets with two labels, each asked for in turn."""
    rows = _runs("texts", "gsm8k")
    rows = rows.loc[rows["dataset"].isin(datasets)]
    columns = {}
    for dataset in datasets:
        of_set = rows.loc[rows["dataset"] == dataset]
        for feature in dict.fromkeys(of_set["feature"]):
            named = (
                _shown(feature) if len(datasets) == 1 else f"{readable(dataset)}, {_shown(feature)}"
            )
            columns[named] = _where(
                "dataset", dataset, _where("feature", feature, truth_and_spurious)
            )
    return down(rows, columns)


def _own() -> str:
    """Which texts are the model's own."""
    return down(_runs("own"), {"AUROC": _auroc}, methods=(*SHOWN, *LABELLED, "control_likelihood"))


def _dtypes() -> str:
    """The same cities in float32 and in bfloat16, AUROC on truth."""
    rows = _runs("float32", "salience")
    coarse = rows["run"].str.startswith("salience-")
    rows = rows.assign(dtype=coarse.map({True: "bfloat16", False: "float32"}))
    both = set(rows.loc[~coarse, "model"])
    rows = rows.loc[rows["model"].isin(list(both)) & (rows["dataset"] == "cities")]
    columns = {
        f"{_shown(feature)}, {dtype}": _where("feature", feature, _where("dtype", dtype, _auroc))
        for feature in ("none", "sycophancy")
        for dtype in ("float32", "bfloat16")
    }
    return down(rows, columns)


def _measured() -> str:
    """How salient the truth and each feature are at the layer that was read."""
    rows = _runs("salience").dropna(subset="salience_truth")
    lines = []
    for model in _by_size(rows):
        mine = rows.loc[rows["model"] == model]
        for dataset, of_set in mine.groupby("dataset", sort=False):
            first = of_set.drop_duplicates("feature").set_index("feature")
            layers = sorted(set(of_set["layer"]))
            cells = [
                number(first["salience_feature"].get(name, float("nan"))) for name in FEATURES[1:]
            ]
            plain = number(first["salience_truth"].get("none", float("nan")))
            shown = ", ".join(f"{layer:g}" for layer in layers)
            lines.append((_short(model), readable(str(dataset)), shown, plain, *cells))
    head = ("Model", "Set", "Layer", "Truth, plain", *map(readable, FEATURES[1:]))
    return markdown_table(head, lines)


def _order() -> str:
    """Rank correlation of what is left of the truth with how salient the feature is."""
    rows = _runs("salience")
    rows = rows.loc[(rows["role"] == "truth") & rows["orientation"].isin(["none", "oracle"])]
    lines = []
    for model in _by_size(rows):
        of_model = rows.loc[rows["model"] == model]
        plain = of_model.loc[of_model["feature"] == "none"].groupby("dataset")["salience_truth"]
        cells = []
        for method in ("ccs", "pca"):
            mine = of_model.loc[(of_model["method"] == method) & (of_model["feature"] != "none")]
            cases = mine.groupby(["dataset", "feature"])[["auroc", "salience_feature"]].mean()
            truth = plain.first().reindex(cases.index.get_level_values("dataset")).to_numpy()
            for size in (cases["salience_feature"], cases["salience_feature"] / truth):
                cells.append(f"{cases['auroc'].corr(size, method='spearman'):.2f}")
        lines.append((_short(model), f"{len(cases)}", *cells))
    columns = [
        f"{method}, {how}"
        for method in ("CCS", "PCA")
        for how in ("salience of the feature", "as a share of the truth's")
    ]
    return markdown_table(("Model", "Cases", *columns), lines)


# --- the other studies ---------------------------------------------------------------------------

TRANSFERRED = ("ccs", "pca", "supervised")


def _layers() -> str:
    """Where each probe is best, on plain claims and beside a feature, and what it has there."""
    rows = rows_of("layers")
    rows = rows.loc[rows["orientation"].isin(["none", "oracle"]) & (rows["role"] == "truth")]
    lines = []
    for model in _by_size(rows):
        of_model = rows.loc[rows["model"] == model].dropna(subset="layer")
        last = int(of_model["layer"].max())
        for method in in_reading_order(of_model["method"]):
            if method.key not in TRANSFERRED:
                continue
            cells = []
            for feature in dict.fromkeys(of_model["feature"]):
                mine = (of_model["method"] == method.key) & (of_model["feature"] == feature)
                by_layer = of_model.loc[mine].groupby("layer")["auroc"].mean()
                at = float(by_layer.idxmax())
                cells.append(f"{by_layer[at]:.2f} ({at:g} of {last})")
            sign = MARKS["none" if method.key == "supervised" else "oracle"]
            lines.append((_short(model), method.name + sign, *cells))
    shown = [
        "Plain" if name == "none" else readable(name) for name in dict.fromkeys(rows["feature"])
    ]
    return markdown_table(("Model", "Method", *shown), lines)


NEGATED = (("cities", "neg_cities"), ("sp_en_trans", "neg_sp_en_trans"))
"""Sets and their negated twins."""


def _transferred() -> pd.DataFrame:
    rows = rows_of("transfer")
    return rows.loc[rows["orientation"].isin(["none", "oracle"]) & rows["method"].isin(TRANSFERRED)]


def _transfer() -> str:
    """The largest model: the set that a probe was trained on down, the one of its test across."""
    rows = _transferred()
    rows = rows.loc[rows["model"] == _by_size(rows)[-1]]
    sets = list(dict.fromkeys(rows["dataset"]))
    lines = []
    for method in in_reading_order(rows["method"]):
        of_method = rows.loc[rows["method"] == method.key]
        sign = MARKS["none" if method.key == "supervised" else "oracle"]
        for trained in sets:
            mine = of_method.loc[of_method["train"] == trained]
            cells = [_where("dataset", tested, _auroc)(mine) for tested in sets]
            lines.append((method.name + sign, readable(trained), *cells))
    return markdown_table(("Method", "Trained on", *map(readable, sets)), lines)


def _polarity() -> str:
    """From statements to their negations and back: AUROC, model by model."""
    rows = _transferred()
    columns = {}
    for plain, negated in NEGATED:
        name = readable(plain)
        columns |= {
            f"{name} to itself": (plain, plain),
            f"{name} to negated": (plain, negated),
            f"{name} from negated": (negated, plain),
            f"{name} negated to itself": (negated, negated),
        }
    lines = []
    for model in _by_size(rows):
        for method in in_reading_order(rows["method"]):
            mine = rows.loc[(rows["model"] == model) & (rows["method"] == method.key)]
            sign = MARKS["none" if method.key == "supervised" else "oracle"]
            cells = [
                _where("train", trained, _where("dataset", tested, _auroc))(mine)
                for trained, tested in columns.values()
            ]
            lines.append((_short(model), method.name + sign, *cells))
    return markdown_table(("Model", "Method", *columns), lines)


def _imbalance() -> str:
    """AUROC by the share of true claims among the train rows."""
    rows = rows_of("imbalance")
    shares = sorted(rows["class_share"].dropna().unique())
    columns = {f"{share:g}": _where("class_share", share, _auroc) for share in shares}
    return down(rows, columns, methods=(*SHOWN[1:], "supervised"))


def _impossible() -> str:
    """AUROC on claims with a truth value, and the share of the scores' variance among those."""

    def share(of: pd.DataFrame) -> str:
        return mean_of(of.loc[of["role"] == "truth"], "variance_share")

    return down(rows_of("impossible"), {"AUROC": _auroc, "Share of the variance": share})


def _finetune() -> str:
    """What a model was trained on, how much of it is right, and what it is worth then."""
    rows = rows_of("finetune")
    lines = [
        (_short(str(model)), readable(str(dataset)), *line)
        for (model, dataset), of_set in rows.groupby(["model", "dataset"], sort=False)  # type: ignore[misc]
        for line in tuned_lines(of_set)
    ]
    return markdown_table(("Model", "Set", *TUNED), lines)


def _rewards() -> str:
    """Reward models: a line per model, set and method."""
    rows = rows_of("reward")
    lines = []
    for (model, dataset), of_set in rows.groupby(["model", "dataset"], sort=False):  # type: ignore[misc]
        named = _short(str(model)), readable(str(dataset))
        lines += [[*named, *line] for line in assistant_tables.reward_lines(of_set)]
    return markdown_table(("Model", "Set", *assistant_tables.REWARDED), lines)


def _answers(*, wins: bool) -> str:
    """Policies of the assistant study, of its one model and set."""
    rows = rows_of("assistant")
    return assistant_tables.answer_table(rows.loc[rows["part"] == "assistant"], wins=wins)


def _warnings() -> str:
    """Failures told from successes without labels: all cases, and each kind of case."""
    return markdown_table(*warning_lines(table_of(rows_of("warning_signs"))))


def _icm() -> str:
    """Accuracy on test items, and how many of the labels shown are right."""
    rows = rows_of("icm")
    lines = []
    for model in _by_size(rows):
        for dataset, of_set in rows.loc[rows["model"] == model].groupby("dataset", sort=False):
            for method in in_reading_order(of_set["method"]):
                mine = of_set.loc[of_set["method"] == method.key]
                cells = [mean_of(mine, column) for column in ("accuracy", "auroc")]
                labels = f"{mine['n_train'].mean():g}", mean_of(mine, "label_accuracy")
                lines.append((_short(model), readable(str(dataset)), method.name, *cells, *labels))
    head = ("Model", "Set", "Method", "Test accuracy", "AUROC", "Labels shown", "Right among them")
    return markdown_table(head, lines)


def _scaling() -> str:
    """AUROC per model, by size."""
    rows = rows_of("scaling")
    rows = rows.loc[(rows["role"] == "truth") & (rows["feature"] == "none")]
    models = _sizes(rows)
    sets = list(dict.fromkeys(rows["dataset"]))
    lines = []
    for dataset in sets:
        of_set = rows.loc[rows["dataset"] == dataset]
        for method in in_reading_order(of_set["method"]):
            mine = of_set.loc[
                (of_set["method"] == method.key) & of_set["orientation"].isin(["none", "oracle"])
            ]
            sign = MARKS["oracle"] if set(mine["orientation"]) == {"oracle"} else ""
            cells = [_where("model", model, _auroc)(mine) for model in models]
            lines.append((readable(dataset), method.name + sign, *cells))
    return markdown_table(("Set", "Method", *map(_short, models)), lines)


def _reading() -> str:
    """How far verdicts follow the labels in the prompt: 1 = they do, 0.5 = they do not look."""
    reading = label_reading(rows_of("scaling"))
    models = _sizes(reading)
    lines = [
        (
            readable(str(dataset)),
            *(f"{of_set.loc[of_set['model'] == m, 'label_reading'].mean():.2f}" for m in models),
        )
        for dataset, of_set in reading.groupby("dataset", sort=False)
    ]
    return markdown_table(("Set", *map(_short, models)), lines)


# --- about all runs ------------------------------------------------------------------------------


def _findings(study: str) -> str:
    """The papers' findings, run by run."""
    words = {True: "yes", False: "no", None: "cannot tell"}
    lines = [
        (run, finding["claim"], words[finding["appears"]], finding["measured"])
        for run, record in records().items()
        if record["study"] == study
        for finding in record["findings"]
    ]
    return markdown_table(("Run", "Finding", "Appears", "Measured"), lines)


def _made_by() -> str:
    """Commands, minutes, rows."""
    lines = []
    for run, record in records().items():
        rows = rows_of(record["study"])
        mine = rows.loc[rows["run"] == run]
        models = ", ".join(MODELS.get(model, model) for model in _by_size(mine))
        trained = mine["n_train"].dropna() if "n_train" in mine else pd.Series(dtype=float)
        sizes = f"{trained.max():.0f}, {mine['n_test'].max():.0f}" if len(trained) else ""
        lines.append(
            (run, f"`{record['command']}`", models, sizes, f"{record['seconds'] / 60:.0f}")
        )
    head = ("Run", "Command", "Model", "Most rows trained on, tested on", "Minutes")
    return markdown_table(head, lines)


TABLES: dict[str, Callable[[], str]] = {
    "real-scaling": _scaling,
    "real-reading": _reading,
    **{f"real-salience-{name}": partial(_salience, name) for name in SETS},
    "real-order": _order,
    "real-truthfulqa": partial(_texts, "truthfulqa"),
    "real-gsm8k": partial(_texts, "gsm8k"),
    "real-two-labels": partial(_texts, "liar", "civil_comments"),
    "real-own": _own,
    "real-dtypes": _dtypes,
    "real-formats": _formats,
    "real-measured": _measured,
    "real-imbalance": _imbalance,
    "real-layers": _layers,
    "real-transfer": _transfer,
    "real-polarity": _polarity,
    "real-icm": _icm,
    "real-impossible": _impossible,
    "real-warnings": _warnings,
    "real-finetune": _finetune,
    "real-rewards": _rewards,
    "real-wins": partial(_answers, wins=True),
    "real-answers": partial(_answers, wins=False),
    **{f"real-findings-{study}": partial(_findings, study) for study in JUDGED},
    "real-made-by": _made_by,
}
