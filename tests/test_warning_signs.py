"""The study of warning signs: planted cases decide what warns, and nothing sees what it judges."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiment_scripts import planned
from rich.console import Console
from sklearn.metrics import roc_auc_score, roc_curve
from test_stress import planted_case

from jelicit.data.items import Item
from jelicit.indicators import NAMES
from jelicit.results import ItemScores, ItemScoreStore, Record, Results
from jelicit.studies import warning_signs
from jelicit.studies.model import Cases
from jelicit.studies.stress_parts import Part
from jelicit.studies.warning_cases import (
    COLUMNS,
    Source,
    all_cases,
    cases_of,
    one_of_twins,
    read_sources,
)
from jelicit.studies.warning_judge import (
    COMBINED,
    false_alarms,
    held_out,
    judged,
    places,
    warnings_of,
)

SETS = ("a", "b", "c", "d")
BOOT = 300  # one for all: programs are compiled by the number of cases and of resamples


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def row(**columns: Any) -> dict[str, Any]:
    """A result row of CCS on a set as it is."""
    about = {"model": "m", "dataset": "a", "feature": "none", "asked": "truth", "layer": 2}
    about |= {"method": "ccs", "orientation": "oracle", "seed": 0, "target": "truth"}
    about |= {"role": "truth", "auroc": 0.9, "run_id": "r"}
    return about | dict.fromkeys(NAMES, np.nan) | columns


def cases(*, telling: float = 2.0, sets: tuple[str, ...] = SETS, each: int = 24) -> pd.DataFrame:
    """Cases of which seed_agreement is lower where they failed, and nothing else says anything."""
    draw = rng(1)
    n = each * len(sets)
    failed = draw.random(n) < 0.4
    tested = np.repeat(sets, each)
    values = {name: draw.normal(size=n) for name in ("seed_agreement", "bimodality")}
    values["seed_agreement"] -= telling * failed
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, np.nan) | values, index=range(n))
    frame = frame.assign(tested=tested, taught=tested, kind="plain", failed=failed)
    frame.loc[::4, "kind"] = "salience"
    frame[COMBINED] = held_out(frame)
    return frame


# --- from rows to cases --------------------------------------------------------------------------


def test_a_case_is_the_mean_over_seeds_of_a_method_that_sees_no_label():
    rows = [
        row(auroc=0.7, bimodality=0.2),
        row(auroc=0.76, bimodality=0.6, seed=1),
        row(method="pca", auroc=0.84),
        row(role="spurious", auroc=0.1),
        row(orientation="easy", auroc=0.2),
        row(method="supervised", orientation="none"),
        row(method="random"),
        row(method="zero_shot", orientation="none", layer=np.nan),
        row(method="drc", auroc=np.nan),
    ]
    frame = cases_of(Source(name="s", rows=pd.DataFrame(rows))).set_index("method")
    assert list(frame.index) == ["ccs", "pca"]
    assert frame.loc["ccs", "auroc"] == pytest.approx(0.73)
    assert frame.loc["ccs", "bimodality"] == pytest.approx(0.4)
    assert frame["failed"].tolist() == [True, False]
    easy = cases_of(Source(name="s", rows=pd.DataFrame(rows)), sign="easy")
    assert easy["auroc"].tolist() == [0.2]


def test_the_truth_upside_down_is_no_failure_where_no_train_label_picks_a_sign():
    ends = [row(class_share=share, auroc=0.02, dataset=f"{share}") for share in (0.0, 0.1, 1.0)]
    own = row(class_share=0.0, auroc=0.02, dataset="own", method="drc", orientation="none")
    frame = cases_of(Source(name="s", rows=pd.DataFrame([*ends, own]))).set_index("dataset")
    assert frame["failed"].to_dict() == {"0.0": False, "0.1": True, "1.0": False, "own": True}
    assert frame.loc["1.0", "auroc"] == pytest.approx(0.98)


@pytest.mark.parametrize(
    ("columns", "kind", "taught"),
    [
        ({}, "plain", "a"),
        ({"feature": "sycophancy"}, "salience", "a"),
        ({"class_share": 1.0}, "imbalance", "a"),
        ({"class_share": 0.5}, "plain", "a"),
        ({"dataset": "a + b"}, "impossible", "a"),
        ({"train": "b"}, "transfer", "b"),
        ({"train": "a"}, "plain", "a"),
        ({"format": "asking"}, "prompts", "a"),
    ],
)
def test_what_was_done_is_read_off_the_row(columns, kind, taught):
    (case,) = cases_of(Source(name="s", rows=pd.DataFrame([row(**columns)]))).to_dict("records")
    assert (case["kind"], case["tested"], case["taught"]) == (kind, "a", taught)


def test_both_polarities_of_a_set_are_one_set_of_questions():
    assert one_of_twins("neg_cities") == one_of_twins("cities") == one_of_twins("cities + x")
    assert one_of_twins("liar") == "liar"


def test_what_was_measured_twice_counts_once():
    twice = pd.DataFrame([row(bimodality=0.3), row(bimodality=0.3, train="a", run_id="q")])
    again = pd.DataFrame([row(bimodality=0.4)])
    sources = [Source(name=str(k), rows=rows) for k, rows in enumerate((twice, again))]
    assert all_cases(sources)["bimodality"].tolist() == [0.3, 0.4]


def said(scores: dict[str, np.ndarray], *, texts: list[str] | None = None) -> ItemScores:
    """What CCS said of items."""
    (values,) = scores.values()
    texts = texts or [f"claim {k}" for k in range(len(values))]
    items = [Item(id=f"i{k}", choice=text, label=None) for k, text in enumerate(texts)]
    about = {"method": "ccs", "orientation": "oracle", "layer": 2}
    return ItemScores.of(items, [(about, values)])


def test_agreement_over_prompts_compares_the_same_claims_in_other_words():
    one, other = rng().normal(size=(2, 30))
    rows = [row(format=name, run_id=name) for name in ("claim", "asking", "statement")]
    rows.append(row(dataset="b", format="claim", run_id="alone"))
    scores = {"claim": one, "asking": -one, "statement": other, "alone": other}
    source = Source(
        name="s",
        rows=pd.DataFrame(rows),
        scores={run: said({run: values}) for run, values in scores.items()},
    )
    agreement = cases_of(source).set_index(["dataset", "prompt"])["prompt_agreement"]
    apart = abs(pd.Series(one).corr(pd.Series(other), method="spearman"))
    expected = {"claim": (1 + apart) / 2, "asking": (1 + apart) / 2, "statement": apart}
    for name, value in expected.items():
        assert float(agreement.at[("a", name)]) == pytest.approx(value)
    assert np.isnan(float(agreement.at[("b", "claim")]))


@pytest.mark.parametrize("of_several", ["ensemble", "joint"])
def test_what_is_of_several_prompts_is_no_case_and_no_other_prompt(of_several):
    scores = dict(zip(("claim", "asking", of_several), rng().normal(size=(3, 30)), strict=True))
    rows = [row(format=name, run_id=name) for name in scores]

    def told(*names: str) -> pd.DataFrame:
        own = pd.DataFrame([each for each in rows if each["run_id"] in names])
        source = Source(name="s", rows=own, scores={n: said({n: scores[n]}) for n in names})
        return cases_of(source)

    pd.testing.assert_frame_equal(told(*scores), told("claim", "asking"))


def test_a_probe_that_ignores_a_negation_is_inconsistent_over_negated_statements():
    truth = rng().normal(size=20)
    texts = [f"The city of {k} is in X." for k in range(20)]
    denied = [text.replace(" is ", " is not ") for text in texts][::-1]
    runs = {
        "home": ("cities", "cities", truth, texts),
        "heeds": ("neg_cities", "cities", -truth[::-1], denied),
        "other home": ("neg_cities", "neg_cities", truth[::-1], denied),
        "ignores": ("cities", "neg_cities", truth, texts),
    }
    source = Source(
        name="s",
        rows=pd.DataFrame(
            [row(dataset=d, train=train, run_id=run) for run, (d, train, *_) in runs.items()]
        ),
        scores={run: said({run: of}, texts=texts) for run, (*_, of, texts) in runs.items()},
    )
    consistency = cases_of(source).groupby("train")["negated_consistency"]
    ends = consistency.agg(["min", "max"])
    np.testing.assert_allclose(ends.loc["cities"], 1)
    np.testing.assert_allclose(ends.loc["neg_cities"], -1)


# --- judging -------------------------------------------------------------------------------------


def test_what_is_learnt_never_sees_the_set_that_it_judges():
    """Other outcomes of a set, and of what was taught on its rows, change no warning of its own."""
    frame = cases()
    frame.loc[frame.index[-6:], "taught"] = "a"  # of d's questions, fitted on rows of a
    before = held_out(frame)
    flipped = frame.assign(
        failed=frame["failed"] ^ (frame["tested"] == "a") ^ (frame["taught"] == "a")
    )
    flipped.loc[frame["tested"] == "a", "failed"] = ~frame["failed"]
    after = held_out(flipped)
    of_a = (frame["tested"] == "a").to_numpy()
    np.testing.assert_array_equal(after[of_a], before[of_a])
    assert not np.allclose(after[~of_a], before[~of_a])


def test_values_of_the_judged_set_move_no_other_case():
    """Places are those among the cases that taught: each of a set is judged by itself."""
    frame = cases()
    before = held_out(frame)
    moved = frame.copy()
    first = moved.index[0]
    moved.loc[first, "seed_agreement"] = 9.0
    changed = held_out(moved) != before
    of_a = (frame["tested"] == "a").to_numpy()
    assert np.flatnonzero(changed & of_a).tolist() == [first]


def test_what_tells_is_learnt_and_what_does_not_is_not():
    frame = cases()
    assert roc_auc_score(frame["failed"], frame[COMBINED]) > 0.85
    blank = cases(telling=0.0)
    assert roc_auc_score(blank["failed"], blank[COMBINED]) == pytest.approx(0.5, abs=0.15)


def test_a_set_whose_others_all_failed_is_not_judged():
    frame = cases(sets=("a", "b"))
    warned = held_out(frame.assign(failed=frame["failed"] | (frame["tested"] == "b")))
    assert np.isnan(warned[frame["tested"] == "a"]).all()
    assert not np.isnan(warned[frame["tested"] == "b"]).any()


def test_places_are_shares_of_the_others_that_lie_below():
    among = np.array([[1.0, np.nan], [2, np.nan], [2, np.nan], [np.nan, np.nan]])
    values = np.array([[0.0, 1], [2, 1], [3, 1], [np.nan, 1]])
    np.testing.assert_allclose(places(among, values)[:, 0], [-0.5, 2 / 3 - 0.5, 0.5, 0])
    np.testing.assert_array_equal(places(among, values)[:, 1], 0)


@pytest.mark.parametrize("found", [0.5, 0.9, 1.0])
def test_false_alarms_are_scikit_learns_false_positives(found):
    warning = np.round(rng().normal(size=80), 1)  # with ties
    failed = rng(1).random(80) < 0.3
    rates, hits, _ = roc_curve(failed, warning, drop_intermediate=False)
    assert false_alarms(warning, failed, found=found) == rates[hits >= found - 1e-9].min()
    assert np.isnan(false_alarms(warning, np.ones(80, bool)))


def lines(table: pd.DataFrame) -> dict[tuple[str, str], Any]:
    """The lines of a table of warnings, by kind and indicator."""
    return {(line["kind"], line["indicator"]): line for line in table.to_dict("records")}


def test_the_table_has_areas_by_their_definition_on_the_side_that_warns():
    frame = cases()
    frame.loc[::5, "bimodality"] = np.nan
    table = lines(judged(frame, boot=BOOT))
    told = ("seed_agreement", "bimodality", COMBINED)
    assert set(table) == {(kind, name) for kind in ("all", "plain", "salience") for name in told}
    kinds = frame["kind"].to_numpy(str)
    for (kind, name), line in table.items():
        (warning,) = (values for own, _, values in warnings_of(frame) if own == name)
        counted = ~np.isnan(warning) & ((kinds == kind) | (kind == "all"))
        values = frame[name].to_numpy(float)[counted]
        np.testing.assert_array_equal(warning[counted], values if name == COMBINED else -values)
        failed = frame["failed"].to_numpy(bool)[counted]
        area = roc_auc_score(failed, warning[counted])
        assert line["auroc"] == pytest.approx(area, abs=1e-6)
        assert (line["failures"], line["successes"]) == (failed.sum(), (~failed).sum())
        assert line["auroc_low"] < line["auroc"] < line["auroc_high"]


def test_intervals_are_of_whole_sets():
    """Where one set of four is judged wrongly throughout, its draws decide."""
    frame = cases()
    wrong = frame["tested"] == "a"
    frame["seed_agreement"] = np.where(frame["failed"] ^ wrong, 0.0, 1.0) + rng(2).normal(
        scale=1e-3, size=len(frame)
    )
    line = lines(judged(frame, boot=BOOT))["all", "seed_agreement"]
    of_set = [np.flatnonzero(frame["tested"] == name) for name in SETS]
    draws = [np.concatenate([of_set[k] for k in drawn]) for drawn in rng(3).choice(4, (300, 4))]
    failed, warning = frame["failed"].to_numpy(), -frame["seed_agreement"].to_numpy()
    areas = [
        np.mean(warning[d][failed[d]][:, None] > warning[d][~failed[d]][None, :]) for d in draws
    ]
    low, high = np.quantile(areas, [0.025, 0.975])
    assert line["auroc_low"] == pytest.approx(low, abs=0.08)
    assert line["auroc_high"] == pytest.approx(high, abs=0.08)
    assert line["auroc_high"] - line["auroc_low"] > 0.5
    one_set = judged(frame.assign(tested="b"), boot=BOOT)
    assert np.isnan(one_set["auroc_low"].to_numpy(float)).all()


def findings(frame: pd.DataFrame) -> list[bool | None]:
    return [each.appears for each in warning_signs.STUDY.findings(frame.assign(boot=BOOT))]


def test_findings_say_yes_no_and_cannot_tell():
    assert findings(cases(telling=6.0)) == [True, True, True]
    blank = cases(telling=0.0)
    assert findings(blank)[1:] == [False, False]
    alone = cases(sets=("a",), each=96)
    assert findings(alone) == [None, None, None]
    few = cases(telling=6.0)
    kept = ~few["failed"] | (few["failed"].cumsum() < warning_signs.LEAST)
    assert findings(pd.DataFrame(few[kept])) == [None, None, None]


def test_table_and_findings_have_the_intervals_that_rows_were_asked_to_have():
    frame = cases(telling=1.0).assign(boot=20)
    ends = [
        f"[{line['auroc_low']:.2f}, {line['auroc_high']:.2f}]"
        for boot in (20, BOOT)
        for line in [lines(judged(frame, boot=boot))["all", COMBINED]]
    ]
    assert ends[0] != ends[1]
    _, shown = warning_signs.warning_lines(warning_signs.table_of(frame))
    assert shown[-1][1].endswith(ends[0])
    assert ends[0] in warning_signs.findings(frame)[1].measured


# --- the study -----------------------------------------------------------------------------------


def finished(folder: Path, rows: list[dict[str, Any]]) -> None:
    """A run of a study, its rows in a folder."""
    runs = tuple(dict.fromkeys(r["run_id"] for r in rows))
    for run in runs:
        mine = [{k: v for k, v in r.items() if k != "run_id"} for r in rows if r["run_id"] == run]
        Results(folder / "rows").write(run, mine, {"steps": 1})
        ItemScoreStore(folder / "items").write(run, said({run: rng().normal(size=9)}))
    words = dict.fromkeys(("title", "lead", "machine", "command"), "x")
    Record(**words, experiment="salience", seconds=1.0, versions={}, settings={}, runs=runs).write(
        folder
    )


@pytest.fixture
def folder(tmp_path):
    """Two sets; seeds agree where the truth was found."""
    rows = [
        row(dataset=dataset, feature=feature, auroc=auroc, run_id=f"{dataset}-{feature}",
            seed_agreement=auroc / 2, bimodality=0.5, layer=2)
        for dataset in ("a", "b")
        for feature, auroc in (("none", 0.95), ("mood", 0.6), ("tense", 0.7), ("x", 0.9))
    ]  # fmt: skip
    finished(tmp_path / "runs/salience", rows)
    return tmp_path / "runs"


def run(place: Path, *sources: Path, boot: int = 50) -> tuple[Any, str]:
    console = Console(file=io.StringIO(), width=200)
    result = warning_signs.run(Cases(()), runs=sources, out=place, boot=boot, console=console)
    return result, console.file.getvalue()  # type: ignore[attr-defined]


def test_rows_of_finished_runs_are_judged_and_read_back(folder):
    result, printed = run(folder / "warnings", folder)
    assert len(result.rows) == 8
    assert result.rows["failed"].sum() == 4
    table = lines(judged(result.rows, boot=50))
    assert table["all", "seed_agreement"]["auroc"] == 1
    assert table["all", COMBINED]["false_alarms"] == 0
    assert "8 cases of 2 sets; 4 failed" in printed
    assert "Agreement over seeds" in printed
    # Its own rows, which lie there now, are none of its sources.
    again, printed = run(folder / "warnings", folder)
    assert "reused" in printed
    pd.testing.assert_frame_equal(again.rows, result.rows)
    drawn = result.figures["warning_signs"].axes[0]
    names = [label.get_text() for label in drawn.get_yticklabels()]
    whole = next(line for line in drawn.lines if line.get_label() == "all cases")
    areas = dict(zip(names, whole.get_xdata(), strict=True))
    assert areas["Agreement over seeds"] == 1
    assert areas["Bimodality"] == 0.5


def test_with_other_resamples_cases_are_judged_anew(folder):
    for boot in (50, 20):
        result, printed = run(folder / "warnings", folder, boot=boot)
        assert "reused" not in printed
        assert set(result.rows["boot"]) == {boot}


def test_kept_cases_are_rows_that_can_be_judged_again(folder, tmp_path):
    """As the manual keeps them: a Parquet file of cases is a source like any other."""
    first = all_cases(read_sources([folder]))
    kept = tmp_path / "kept.parquet"
    first.assign(role="truth", seed=0).to_parquet(kept)
    again = all_cases(read_sources([kept]))
    pd.testing.assert_frame_equal(again, first, check_dtype=False)
    assert set(first["source"]) == {"salience"}


def test_rows_without_indicators_and_places_without_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no finished run; name folders with a report\.json"):
        read_sources([tmp_path])
    old = {name: value for name, value in row().items() if name not in NAMES}
    finished(tmp_path / "old", [old])
    with pytest.raises(ValueError, match="no row has an indicator, such as repaired_loss"):
        read_sources([tmp_path])
    with pytest.raises(ValueError, match="--methods does nothing with --runs"):
        warning_signs.run(Cases(()), runs=(tmp_path,), methods=("pca",), quiet=True)


def test_without_runs_the_parts_of_the_stress_test_are_carried_out(tmp_path, monkeypatch):
    """The parts are planned as there; what each leaves in its folder is judged."""

    def leave(part: Part) -> None:
        run = f"{part.challenge}-run"
        finished(part.session.folder.folder, [row(auroc=0.6, bimodality=0.2, run_id=run)])
        part.session.folder.runs.append(run)
        part.session.folder.doubts.append("few rows")

    monkeypatch.setattr(Part, "carry_out", leave)
    model = Cases([planted_case("one", mood=4.0)])
    options: dict[str, Any] = {"methods": ("pca",), "challenges": ("salience",), "out": tmp_path}
    result = warning_signs.run(model, **options, boot=50, quiet=True)
    (case,) = result.rows.to_dict("records")
    assert (case["source"], case["bimodality"], case["failed"]) == ("salience", 0.2, True)
    assert Record.read(tmp_path).doubts == ("few rows",)


def test_other_prompts_are_put_to_those_sets_that_they_fit(tmp_path):
    """Comments have no question to show: they alone are left out."""
    settings = warning_signs.Settings(challenges=("prompts",), max_rows=24)
    *_, prompts = planned(warning_signs.STUDY, settings, tmp_path)
    shown = {each.plain.dataset for each in prompts.planned}
    assert shown == {"pocket/arithmetic", "pocket/larger_than", "pocket/facts"}
