import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_reports import (
    HOSTILE,
    PARTS,
    SVG,
    Tags,
    data_of,
    record,
    sample_items,
    sample_rows,
    sample_scores,
    write_folder,
)

from jelicit.report import html, write_report
from jelicit.report.document import document, part, scripts
from jelicit.report.item_browser import about_items, tables_of
from jelicit.report.packing import pack
from jelicit.report.row_table import about_chart, table_of
from jelicit.results import Finding, Record, Results, TextTable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("runs") / "salience")


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_holds_every_row_and_every_item_of_the_folder(page, folder):
    _, tables = data_of(page)
    rows = pd.concat([Results(folder / "rows").read(f"run-{f}") for f in ("none", "tense")])
    assert tables["rows"]["method"] == rows["method"].tolist()
    np.testing.assert_allclose(tables["rows"]["auroc"], rows["auroc"], atol=5e-5)
    assert tables["rows"]["run_id"] == rows["run_id"].tolist()
    items = sample_items()
    assert tables["items"]["choice"] == [item.choice for item in items] * 2
    labels = [None if i.label is None else float(i.label) for i in items] * 2
    assert tables["items"]["label"] == labels
    assert tables["items"]["other.tense"] == [i.alt_labels["tense"] for i in items] * 2
    exact = sample_scores(items).scores
    found = np.array([tables["scores 0"][str(k)] for k in range(4)], float).T
    np.testing.assert_allclose(found, exact, atol=1.1e-3)


def test_hostile_texts_add_no_tag_and_no_attribute(page):
    tags = Tags(page).tags
    assert {tag for tag, _ in tags} <= PARTS
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]
    assert [tag for tag, _ in tags].count("script") == 2
    assert [tag for tag, _ in tags].count("img") == 1


def test_the_page_names_no_other_file_and_no_address(page):
    sources = [
        value
        for tag, attributes in Tags(page).tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action") and not (tag == "a" and value[0] == "#")
    ]
    assert sources
    assert all(value.startswith("data:") for value in sources)


def test_the_policy_allows_just_the_style_and_the_script_that_are_there(page):
    tags = Tags(page)
    policy = next(a["content"] for _, a in tags.tags if "http-equiv" in a)
    script = max(tags.scripts, key=lambda text: "use strict" in text)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0]
    for name, text in (("script", script), ("style", style)):
        hashed = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{hashed}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_no_script_could_end_its_own_element():
    assert "</script" not in scripts().lower()
    assert "<!--" not in scripts()
    assert "</style" not in part("report.css").lower()


def test_the_same_folder_gives_the_same_bytes(folder, page):
    assert write_report(folder).read_text(encoding="utf-8") == page


def test_what_is_filled_in_is_never_filled_again():
    page = document(title="{{data}}", navigation={}, body="<p>{{script}}</p>", data="AAAA")
    assert "<title>{{data}}</title>" in page
    assert "<p>{{script}}</p>" in page


def test_what_speaks_against_the_numbers_stands_before_them(page):
    doubts, figures = page.index('<section id="doubts">'), page.index('<section id="figures">')
    assert doubts < page.index("set: few rows") < figures
    assert '<a href="#doubts">' in page


def test_where_nothing_is_doubted_the_page_has_no_part_for_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    replace(Record.read(folder), doubts=()).write(tmp_path / "run")
    assert "doubts" not in re.findall(
        r'id="([^"]+)"', write_report(tmp_path / "run").read_text(encoding="utf-8")
    )


def test_tables_of_a_record_stand_in_the_page_as_text(folder, page, tmp_path):
    assert "tables" not in re.findall(r'id="([^"]+)"', page)
    shutil.copytree(folder, tmp_path / "run")
    table = TextTable(
        title="Sources", heads=("Method", "Seeds"), lines=((HOSTILE[0], "0.01"),), note="in words"
    )
    replace(Record.read(folder), tables=(table,)).write(tmp_path / "run")
    assert Record.read(tmp_path / "run").tables == (table,)
    again = write_report(tmp_path / "run").read_text(encoding="utf-8")
    part = again[again.index('<section id="tables">') :].partition("</section>")[0]
    assert f'<th scope="row">{html.escape(HOSTILE[0])}</th><td>0.01</td>' in part
    assert "<p>Sources</p>" in part
    assert "<p>in words</p>" in part
    assert '<a href="#tables">' in again
    assert [tag for tag, _ in Tags(again).tags].count("script") == [
        tag for tag, _ in Tags(page).tags
    ].count("script")


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_one_text_without_hidden_characters(text):
    escaped = html.escape(text)
    assert not re.search(r"[<>\"'\x00-\x08\u202e\u2066-\u2069\u2028]", escaped)
    assert Tags(f'<p title="{escaped}">{escaped}</p>').tags[0][0] == "p"
    assert len(Tags(f"<p>{escaped}</p>").tags) == 1


def test_hidden_characters_are_shown_by_number():
    assert html.escape("a\u202eb\x00c\ud800") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩"
    assert html.escape("new\nline\tstays, é und 漢 too") == "new\nline\tstays, é und 漢 too"


def test_findings_are_told_in_words_beside_their_marks():
    found = [Finding(claim=f"c{k}", measured="m", appears=a) for k, a in enumerate((True, None))]
    shown = html.findings(found)
    assert "Of 2 findings, 1 appears here, 1 cannot be told." in shown
    for sign, words in (("✓", "appears"), ("?", "cannot tell")):
        assert f'aria-hidden="true">{sign}</span>{words}</span>' in shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.4, "4 seconds"), (150, "2.5 minutes"), (5400, "1.5 hours")]
)
def test_durations_are_told_in_words(seconds, words):
    assert html.minutes(seconds) == words


def test_a_figure_is_described_by_its_words():
    assert "AUROC over layers" in html.described("layers", SVG)
    assert "0.5" not in html.described("layers", SVG)


def test_settings_that_are_nested_are_told_by_dotted_names():
    assert dict(html.flat({"fit": {"steps": 3, "rates": [0.1, 0.2]}, "easy": None})) == {
        "fit.steps": "3",
        "fit.rates": "0.1, 0.2",
        "easy": "(none)",
    }


# --- what the chart may show ---------------------------------------------------------------------


def test_the_chart_chooses_by_all_that_was_set_and_varies():
    rows = table_of(pd.concat(sample_rows(), ignore_index=True))
    about = about_chart(rows)
    assert about is not None
    assert about["facets"] == ["feature", "layer", "orientation"]
    assert about["measures"] == ["auroc", "accuracy"]
    assert [key for key, *_ in about["methods"]] == ["zero_shot", "ccs", "pca", "supervised"]


def test_runs_that_measure_the_same_points_are_never_averaged():
    first, second = sample_rows()[1], sample_rows(seed=1)[1]
    rows = pd.concat([first.assign(run_id="a"), second.assign(run_id="b")], ignore_index=True)
    about = about_chart(table_of(rows))
    assert about is not None
    assert about["facets"] == ["layer", "orientation", "run_id"]


def test_a_column_that_only_repeats_another_is_left_out():
    rows = pd.DataFrame({"layer": [1, 2], "settings.layer": [1, 2], "settings.steps": [5, 6]})
    assert list(table_of(rows)) == ["layer", "settings.steps"]


def test_rows_without_methods_have_no_chart():
    assert about_chart(pd.DataFrame({"auroc": [0.5]})) is None


# --- names in the item browser -------------------------------------------------------------------


def test_score_columns_are_named_by_what_sets_them_apart():
    rows = pd.DataFrame({"run_id": ["r"], "dataset": ["pocket/facts"]})
    panel = about_items({"r": sample_scores(sample_items(4))}, rows)["panels"][0]
    assert panel["name"] == "Facts (pocket)"
    assert [(method["name"], method["place"]) for method in panel["methods"]] == [
        ("Zero-shot", 3),
        ("CCS, oracle sign", 0),
        ("CCS, easy sign", 1),
        ("Supervised", 2),
    ]


def test_panels_are_named_by_what_sets_runs_apart_or_by_their_id():
    rows = pd.DataFrame(
        {"run_id": ["aaaaaaaa", "bbbbbbbb", "cccccccc"], "dataset": "d", "feature": ["x", "y", "y"]}
    )
    scores = sample_scores(sample_items(4))
    named = about_items(dict.fromkeys(rows["run_id"], scores), rows)["panels"]
    assert [p["name"] for p in named] == ["X", "Y (run bbbbbb)", "Y (run cccccc)"]


def test_texts_that_panels_share_are_kept_once():
    scores = sample_scores(sample_items(40, texts=("x" * 500,)))
    sizes = [len(pack({}, tables_of({str(k): scores for k in range(panels)}))) for panels in (1, 8)]
    scores_alone = len(pack({}, {"scores 0": tables_of({"0": scores})["scores 0"]}))
    assert sizes[1] - sizes[0] < 8 * scores_alone


# --- faults --------------------------------------------------------------------------------------


def test_a_folder_without_a_record_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no report\.json"):
        write_report(tmp_path)


def test_a_figure_that_is_gone_is_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "drawn.svg").unlink()
    with pytest.raises(FileNotFoundError, match=r"figure drawn\.svg, which is not there"):
        write_report(tmp_path)


def test_rows_that_are_gone_are_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "rows" / "run-none.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="run-none"):
        write_report(tmp_path)


def test_a_record_without_runs_is_refused(tmp_path):
    record((), settings={}, hostile=False).write(tmp_path)
    with pytest.raises(ValueError, match=r"report\.json names no run"):
        write_report(tmp_path)


def test_half_a_surrogate_pair_in_a_record_does_not_stop_the_report(tmp_path):
    write_folder(tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    found["title"] = "half \ud800"
    (tmp_path / "report.json").write_text(json.dumps(found))
    assert Record.read(tmp_path).title == "half \ud800"
    assert "half ⟨U+D800⟩" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_run_without_item_scores_has_no_item_browser(tmp_path):
    write_folder(tmp_path)
    for path in (tmp_path / "items").iterdir():
        path.unlink()
    assert 'id="items"' not in write_report(tmp_path).read_text(encoding="utf-8")
