"""What is within noise of the best: against scikit-learn, resample by resample."""

from io import StringIO

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from jelicit.method_groups import FROM_EASY, WITH, WITHOUT
from jelicit.metrics import group_bootstrap
from jelicit.results.tables import print_sweep, print_table
from jelicit.studies.measuring import Measured
from jelicit.studies.near_best import COLUMNS, add_near_best, block_of

N, SAMPLES = 80, 200
RNG = np.random.default_rng(3)
LABELS = np.arange(N) % 2 * 1.0
GROUPS = [f"question {i // 2}" for i in range(N)]


def scores(strength: float, seeds: int = 1) -> np.ndarray:
    return strength * (2 * LABELS - 1) + RNG.normal(size=(seeds, N))


STRONG, CLOSE, CHANCE = scores(1.2, 2), scores(1.0, 3), scores(0.0)
LABELLED, ASKED = scores(4.0), scores(0.9)


@pytest.fixture(scope="module")
def boot() -> np.ndarray:
    return np.asarray(group_bootstrap(jax.random.key(1), GROUPS, SAMPLES))


def measured(*of: tuple[str, str, int | None, np.ndarray], **more: object) -> Measured:
    made = Measured()
    for method, orientation, layer, found in of:
        about = {"method": method, "orientation": orientation, **more}
        made.scores.append(({**about, **({} if layer is None else {"layer": layer})}, found))
        made.rows += [
            {**about, "layer": np.nan if layer is None else layer, "seed": seed, "role": role}
            for seed in range(len(found))
            for role in ("truth", "spurious")
        ]
    return made


def columns(made: Measured, method: str, layer: float | None = None) -> dict[str, float]:
    """What all seeds of a method say alike on the label asked for; nothing on others."""
    of = [r for r in made.rows if r["method"] == method and layer in (None, r["layer"])]
    assert not any(name in row for row in of if row["role"] == "spurious" for name in COLUMNS)
    said = [{n: row[n] for n in COLUMNS if n in row} for row in of if row["role"] == "truth"]
    assert all(each == said[0] for each in said)
    return said[0]


def areas(found: np.ndarray, boot: np.ndarray) -> tuple[float, np.ndarray]:
    value = np.mean([roc_auc_score(LABELS, run) for run in found])
    samples = [
        np.mean([roc_auc_score(LABELS, run, sample_weight=weights) for run in found])
        for weights in boot
    ]
    return float(value), np.array(samples)


def test_the_difference_to_the_best_is_paired_over_questions(boot):
    made = measured(
        ("ccs", "oracle", 4, STRONG), ("pca", "oracle", 4, CLOSE), ("random", "oracle", 4, CHANCE)
    )
    add_near_best(made, LABELS, boot)
    best = areas(STRONG, boot)
    for method, found in (("ccs", STRONG), ("pca", CLOSE), ("random", CHANCE)):
        value, samples = areas(found, boot)
        low, high = np.quantile(best[1] - samples, [0.025, 0.975])
        said = columns(made, method)
        assert said["behind"] == pytest.approx(best[0] - value, abs=1e-5)
        assert said["behind_low"] == pytest.approx(low, abs=1e-4)
        assert said["behind_high"] == pytest.approx(high, abs=1e-4)
        assert said["near_best"] == (low <= 0)
    assert [columns(made, m)["near_best"] for m in ("ccs", "pca", "random")] == [True, True, False]


def test_methods_are_compared_with_those_that_see_the_same_labels(boot):
    made = measured(
        ("ccs", "oracle", 4, STRONG),
        ("supervised", "none", 4, LABELLED),
        ("golden_few_shot", "none", None, CLOSE),
        ("zero_shot", "none", None, ASKED),
        ("control_length", "none", None, CHANCE),
    )
    add_near_best(made, LABELS, boot)
    assert columns(made, "supervised")["behind"] == columns(made, "ccs")["behind"] == 0
    assert columns(made, "golden_few_shot")["behind"] > 0
    assert not columns(made, "golden_few_shot")["near_best"]
    assert 0 < columns(made, "zero_shot")["behind"] < 0.2
    assert columns(made, "control_length") == {}
    assert [block_of(m) for m in ("ccs_rebalanced", "e2h", "mlp", "icm")] == [
        *(WITHOUT, FROM_EASY, WITH, WITHOUT),
    ]


def test_settings_are_not_mixed(boot):
    """Each layer has its own best; a prompt stands beside several, and then is compared to none."""
    made = measured(
        ("ccs", "oracle", 4, CHANCE),
        ("pca", "oracle", 4, STRONG),
        ("ccs", "oracle", 5, CLOSE),
        ("zero_shot", "none", None, ASKED),
    )
    add_near_best(made, LABELS, boot)
    assert columns(made, "ccs", 5)["behind"] == 0
    assert columns(made, "ccs", 4)["behind"] > 0.2
    assert columns(made, "zero_shot") == {}


def test_without_both_labels_nothing_is_said(boot):
    made = measured(("ccs", "oracle", 4, STRONG), ("pca", "oracle", 4, CLOSE))
    add_near_best(made, np.where(LABELS == 1, 1.0, np.nan), boot)
    assert columns(made, "ccs") == {}


def test_items_without_a_label_do_not_count(boot):
    some = np.where(np.arange(N) < 60, LABELS, np.nan)
    made = measured(("ccs", "oracle", 4, STRONG), ("random", "oracle", 4, CHANCE))
    add_near_best(made, some, boot)
    value = np.mean([roc_auc_score(LABELS[:60], run[:60]) for run in STRONG])
    other = roc_auc_score(LABELS[:60], CHANCE[0, :60])
    assert columns(made, "random")["behind"] == pytest.approx(value - other, abs=1e-5)


def shown(printer, rows: list[dict], **more: object) -> str:
    out = StringIO()
    printer(pd.DataFrame(rows), console=Console(file=out, width=100), **more)
    return " ".join(out.getvalue().split())


def row(method: str, auroc: float, *, near: object, seed: int = 0, share: float = 0.5) -> dict:
    return {
        **{"dataset": "cities", "feature": "none", "role": "truth", "orientation": "none"},
        **{"method": method, "auroc": auroc, "seed": seed, "class_share": share},
        "near_best": near,
    }


def test_tables_mark_what_is_within_noise():
    rows = [
        row("zero_shot", 0.9, near=True),
        row("supervised", 0.8, near=False),
        row("mean_difference", 0.7, near=np.nan),
    ]
    text = shown(print_table, rows)
    assert "0.90 =" in text
    assert "0.80 =" not in text
    assert "0.70 =" not in text
    assert "= within noise of the best that sees the same labels" in text
    assert "within noise" not in shown(print_table, [row("zero_shot", 0.9, near=False)])
    swept = [row("zero_shot", 0.9, near=True), row("zero_shot", 0.6, near=False, share=0.1)]
    text = shown(print_sweep, swept, across="class_share")
    assert "0.90 =" in text
    assert "0.60 =" not in text
