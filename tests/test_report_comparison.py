import json

import numpy as np
import pandas as pd
import pytest
from small_reports import HOSTILE, PARTS, Tags, data_of, sample_rows, write_folder

from jelicit.report import compare_reports, write_report
from jelicit.report.comparison import key_columns, short_names, side_by_side


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    first = write_folder(root / "first", settings={"steps": 10, "rate": 0.1})
    return first, write_folder(root / "second", settings={"steps": 20, "rate": 0.1}, seed=1)


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "compare.html"
    assert compare_reports(folders, out) == out
    return out.read_text(encoding="utf-8")


def both():
    first, second = (pd.concat(sample_rows(seed=s), ignore_index=True) for s in (0, 1))
    return first, second, pd.concat([first.assign(report="a"), second.assign(report="b")])


def test_every_point_has_the_mean_of_each_report_and_their_difference():
    first, second, rows = both()
    keys = key_columns(rows)
    joined = side_by_side(rows, keys)
    assert len(joined) == len(first.drop(columns=["seed"]).drop_duplicates(keys))
    point = joined.loc[
        (joined["method"] == "pca")
        & (joined["orientation"] == "easy")
        & (joined["feature"] == "tense")
        & (joined["role"] == "spurious")
        & (joined["layer"] == 5)
    ].iloc[0]
    means = []
    for frame in (first, second):
        chosen = frame.query(
            "method == 'pca' and orientation == 'easy' and feature == 'tense' "
            "and role == 'spurious' and layer == 5"
        )
        assert len(chosen) == 3
        means.append(chosen["auroc"].mean())
    assert point["auroc: a"] == pytest.approx(means[0])
    assert point["auroc: b"] == pytest.approx(means[1])
    assert point["auroc: b - a"] == pytest.approx(means[1] - means[0])


def test_means_over_some_of_the_seeds_say_of_how_many():
    _, _, rows = both()
    assert not [c for c in side_by_side(rows, key_columns(rows)) if " seeds: " in str(c)]
    lost = (rows["report"] == "b") & (rows["seed"] == 1) & (rows["method"] == "pca")
    rows.loc[lost & (rows["layer"] == 5), "auroc"] = np.nan
    joined = side_by_side(rows, key_columns(rows))
    here = (joined["method"] == "pca") & (joined["layer"] == 5)
    assert set(joined.loc[here, "auroc seeds: b"]) == {"2 of 3"}
    assert set(joined.loc[~here, "auroc seeds: b"]) == {""}
    assert "auroc seeds: a" not in joined


def test_a_row_that_only_one_report_has_stays_without_a_difference():
    first, second, _ = both()
    rows = pd.concat([first.assign(report="a"), second.query("layer != 2").assign(report="b")])
    joined = side_by_side(rows, key_columns(rows))
    alone = joined.loc[joined["layer"] == 2]
    assert len(alone)
    assert alone["auroc: a"].notna().all()
    assert alone["auroc: b"].isna().all()
    assert alone["auroc: b - a"].isna().all()


def test_a_layer_that_each_report_chose_for_itself_does_not_keep_rows_apart():
    first, second, _ = both()
    one, other = first.query("layer != 2"), second.query("layer != 5")
    rows = pd.concat([one.assign(report="a"), other.assign(report="b")])
    keys = key_columns(rows)
    joined = side_by_side(rows, keys)
    assert "layer" not in keys
    trained = joined.loc[joined["method"] != "zero_shot"]
    assert (trained["layer: a"] == 5).all()
    assert (trained["layer: b"] == 2).all()
    assert trained["auroc: b - a"].notna().all()


def test_rows_of_different_sets_are_never_the_same_row():
    first, second, _ = both()
    rows = pd.concat([first.assign(report="a"), second.assign(report="b", dataset="other")])
    joined = side_by_side(rows, key_columns(rows))
    assert np.isnan(joined["auroc: b - a"].to_numpy(float)).all()


def test_the_page_says_which_settings_differ_and_how(page):
    differ, agree = page.split("Settings that agree")
    assert '<th scope="row">steps</th><td>10</td><td>20</td>' in differ
    assert "rate" not in differ.split("Settings that differ")[1]
    assert "rate" in agree


def test_the_page_holds_the_joined_rows_and_the_points(page):
    about, tables = data_of(page)
    assert about["chart"]["series"] == "report"
    assert set(tables["rows"]["report"]) == {"first", "second"}
    gap = np.array(tables["joined"]["auroc: second"]) - np.array(tables["joined"]["auroc: first"])
    found = np.array(tables["joined"]["auroc: second - first"])
    np.testing.assert_allclose(found, gap, atol=2e-4)
    assert about["rows"]["signed"] == ["auroc: second - first", "accuracy: second - first"]


def test_hostile_texts_add_no_tag_to_the_comparison(page):
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} <= PARTS | {"strong", "thead"}
    assert HOSTILE[0] not in page


def test_a_report_that_is_there_is_linked(folders, tmp_path):
    write_report(folders[1])
    page = compare_reports(folders, folders[0].parent / "compare.html").read_text(encoding="utf-8")
    assert '<a href="second/report.html">second</a>' in page
    assert "first/report.html" not in page


def test_findings_of_all_reports_stand_in_one_table(folders, tmp_path):
    record = json.loads((folders[1] / "report.json").read_text())
    other = write_folder(tmp_path / "other")
    record["findings"] = [{"claim": "Only here", "measured": "m", "appears": None}]
    (other / "report.json").write_text(json.dumps(record))
    page = compare_reports([folders[0], other], tmp_path / "c.html").read_text(encoding="utf-8")
    assert '<th scope="row">Only here</th><td>not there</td><td><span class="mark unknown">' in page
    assert '<th scope="row">Claim two</th><td><span class="mark no">' in page


def test_folders_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert short_names(paths) == ["a/run", "b/run", "b/other"]
    assert short_names(paths[1:]) == ["run", "other"]


def test_fewer_than_two_folders_or_one_twice_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="1 folder named; a comparison needs two or more"):
        compare_reports(folders[:1], tmp_path / "out.html")
    with pytest.raises(ValueError, match="named twice"):
        compare_reports([folders[0], str(folders[0])], tmp_path / "out.html")
