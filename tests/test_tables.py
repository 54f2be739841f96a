"""Sets in tables: CSV, TSV, a JSON array and Parquet give the same items; doubt is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from experiment_scripts import joined, session_of
from rich.console import Console

from jelicit.commands.datasets import Datasets
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item, load_items, to_record
from jelicit.data.tables import read_table
from jelicit.studies import icm, imbalance, salience, transfer

KINDS = (".csv", ".tsv", ".json", ".parquet")


def write(path: Path, columns: dict[str, list]) -> Path:
    """A table in the kind that the name says."""
    frame = pd.DataFrame(columns)
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".tsv":
            frame.to_csv(path, index=False, sep="\t")
        case ".json":
            frame.to_json(path, orient="records")
        case ".parquet":
            frame.to_parquet(path)
    return path


def cities(count: int = 8) -> dict[str, list]:
    """Two statements about every city, one of them true."""
    return {
        "statement": [f"City {k // 2} is in {'Peru' if k % 2 else 'Chad'}." for k in range(count)],
        "label": [k % 2 for k in range(count)],
        "city": [f"City {k // 2}" for k in range(count)],
    }


# --- the four kinds ------------------------------------------------------------------------------

AWKWARD = ["NA", "None", "001", "1e5", 'two\nlines, "quoted"\tand a tab', " é中 ", "null", "nan"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_items_and_text_stays_text(tmp_path, kind):
    columns = {
        "statement": AWKWARD,
        "label": [0, 1] * 4,
        "group": [f"00{k // 2}" for k in range(8)],
        "source": AWKWARD[::-1],
    }
    assert read_table(write(tmp_path / f"mine{kind}", columns)) == [
        Item(
            id=f"mine/{k:05d}",
            choice=text,
            label=k % 2 == 1,
            group=f"00{k // 2}",
            meta={"source": AWKWARD[7 - k]},
        )
        for k, text in enumerate(AWKWARD)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_its_column(tmp_path, kind):
    columns = {
        "id": ["a", "b"], "question": ["Q?", "R?"], "Claim": ["x", "y"], "choice_2": ["v", "w"],
        "Label": ["True", "FALSE"], "group": ["g", "g"], "split": ["train", "test"],
    }  # fmt: skip
    dataset = load_dataset(write(tmp_path / f"mine{kind}", columns))
    one = Item(
        id="a", question="Q?", choice="x", choice_2="v", label=True, group="g", split="train",
        dataset="mine", origin="folder",
    )  # fmt: skip
    two = replace(one, id="b", question="R?", choice="y", choice_2="w", label=False, split="test")
    assert (dataset.train, dataset.test) == ((one,), (two,))
    assert (dataset.name, dict(dataset.formats), dataset.notes) == ("mine", {"label": "pair"}, ())


@pytest.mark.parametrize("name", ["statement", "claim", "text", "choice"])
@pytest.mark.parametrize(
    "written",
    [[0, 1], [False, True], [0.0, 1.0], ["0", "1"], ["false", "true"], ["False", "True"],
     ["FALSE", "True"], ["0.0", "1"]],
)  # fmt: skip
def test_a_label_is_understood_however_it_is_written(tmp_path, name, written):
    for kind in KINDS:
        path = write(tmp_path / f"mine{kind}", {name: ["a", "b"], "label": written})
        assert [(i.choice, i.label) for i in read_table(path)] == [("a", False), ("b", True)]


def test_items_as_a_json_array_are_the_items_of_jsonl(tmp_path):
    item = Item(
        id="a", choice="c", label=True, question="q", group="g", answer="7", alt_labels={"s": True},
        dataset="d", split="test", origin="o", meta={"n": 5, "deep": {"list": [1, None]}},
    )  # fmt: skip
    other = Item(id="b", choice="c", label=False, question="q", group="g", meta={"n": 6})
    records = [to_record(item), to_record(other) | {"dataset": "d", "split": "dev", "origin": "o"}]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(records, indent=2))
    lines = tmp_path / "mine.jsonl"
    lines.write_text("\n".join(map(json.dumps, records)))
    assert read_table(path) == load_items(lines)
    path.write_text(lines.read_text())  # lines of JSON are often called .json, too
    assert load_dataset(path).test == load_dataset(lines).test


def test_a_mark_in_front_a_column_of_row_numbers_and_blank_lines_are_no_content(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b'\xef\xbb\xbf,label,text\r\n0,1,"a\r\nb"\r\n\r\n1,0,c\r\n')
    first, second = read_table(path)
    assert (first.choice, first.label, first.meta) == ("a\r\nb", True, {})
    assert (second.choice, second.label, second.id) == ("c", False, "mine/00001")


# --- groups and splits ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_statements_about_one_city_stay_together(tmp_path, kind):
    dataset = load_dataset(write(tmp_path / f"towns{kind}", cities(40)))
    assert (len(dataset.train), len(dataset.test)) == (30, 10)
    assert {item.group for item in dataset.train} == {i.meta["city"] for i in dataset.train}
    assert not {item.group for item in dataset.train} & {item.group for item in dataset.test}


def test_rows_of_one_question_share_a_group_unless_all_do(tmp_path):
    columns = {"question": ["P?", "P?", "Q?"], "claim": ["a", "b", "c"], "label": [0, 1, 1]}
    one, two, three = read_table(write(tmp_path / "mine.csv", columns))
    assert one.group == two.group != three.group
    columns["question"] = ["Is it true?"] * 3
    assert len({item.group for item in read_table(write(tmp_path / "mine.csv", columns))}) == 3


def test_a_draw_of_test_rows_is_told(tmp_path, capsys):
    path = write(tmp_path / "towns.csv", cities(40))
    Datasets(names=(str(path),)).main()
    said = " ".join(capsys.readouterr().out.split())
    assert "towns: no row says that it is a test row: a quarter of the 20 groups of 40" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_may_hold_tables(tmp_path, kind):
    write(tmp_path / f"train{kind}", cities(8))
    write(tmp_path / "test.csv", cities(4))
    dataset = load_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.notes) == (8, 4, ())
    assert dataset.train[0].id == "train/00000"
    assert dataset.test[0].id == "test/00000"
    write(tmp_path / "test.parquet", cities(4))
    with pytest.raises(ValueError, match=r"test\.csv and test\.parquet may both be the test rows"):
        load_dataset(tmp_path)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"], "claim": ["b"], "label": [1]},
         "columns 'text' and 'claim' may all be the statement; keep one"),
        ({"text": ["a"], "label": [1], "is_true": [1]},
         "columns 'label' and 'is_true' may all be the label; keep one"),
        ({"text": ["a"], "label": [1], "Label": [1]}, "2 columns are called 'label'"),
        ({"text": ["a"], "truthful": [1]},
         "no column is called label or .*; the columns are: text, truthful"),
        ({"label": [1], "words": ["a"]}, "no column is called statement or .*: label, words"),
        ({"text": ["a", "b"], "label": [1.0, 0.5]}, r"row 2: column 'label' is '?0\.5'?; allowed"),
        ({"text": ["a", "b", "c"], "label": [0, 1, 2]}, r"row 3: column 'label' is '?2'?; allowed"),
        ({"text": ["a", "b"], "label": ["true", "unknown"]},
         "row 2: column 'label' is 'unknown'; allowed"),
        ({"text": ["a", "b"], "label": ["true", "0"]},
         "row 2: column 'label' is '0', and 'true' in row 1; a file writes all"),
        ({"text": ["a", "b"], "label": ["1", ""]}, "row 2: column 'label' is empty"),
        ({"text": ["a", " "], "label": [1, 0]}, "row 2: column 'text' is empty"),
        ({"text": ["a", "b"], "question": ["q", ""], "label": [1, 0]},
         "row 2: column 'question' is empty"),
        ({"text": ["a", "b"], "id": ["x", "x"], "label": [1, 0]},
         "row 2: column 'id' repeats 'x' of row 1"),
        ({"text": [], "label": []}, "no items; the table has no rows"),
    ],
)  # fmt: skip
def test_doubt_is_refused_in_one_line_with_file_row_and_column(tmp_path, kind, columns, said):
    path = write(tmp_path / f"mine{kind}", columns)
    with pytest.raises(ValueError, match=rf"mine\{kind}: {said}") as error:
        load_dataset(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "text,label,label\na,1,0\n", "2 columns are called 'label'"),
        ("a.csv", "text,label\na\n", r"row 1 has 1 cells and the header 2 columns \(text, label\)"),
        ("a.csv", "text,label\na,1,more\n", "row 1 has 3 cells and the header 2 columns"),
        ("a.csv", 'text,label\n"a,1\n', "unexpected end of data; expected are cells"),
        ("a.csv", 'text,label\n"a"b,1\n', "expected after '\"'; expected are cells"),
        ("a.csv", "text;label\na;1\n", "no column is called .*; the columns are: text;label"),
        ("a.csv", "", "no items"),
        ("a.csv", "PAR1", "is a Parquet file; its name says .csv"),
        ("a.parquet", "text,label\na,1\n", "is no Parquet file; its name says .parquet"),
        ("a.parquet", "PAR1 and no more", "the Parquet file cannot be read"),
        ("a.json", '[{"text": "a", "label": 1, "text": "b"}]', "an object has 'text' 2 times"),
        ("a.json", '[{"text": "a", "label": 1}, 5]', "row 2 is 5; expected an object"),
        ("a.json", '[{"text": 5, "label": 1}]', "row 1: column 'text' is 5; expected text"),
        ("a.json", '[{"text": "a", "label": 1}, {"text": "b"}]', "row 2: column 'label' is empty"),
        ("a.json", '[{"text": "a"', "not a JSON array of objects"),
        ("a.json", "[" * 100_000, "nested too deep"),
        (
            "a.json",
            '[{"text": "a", "label": 1, "n": Infinity}]',
            "'n' is inf, which is no JSON",
        ),
    ],
)
def test_a_file_that_is_no_whole_table_is_refused_by_name(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        load_dataset(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_text_in_another_encoding_is_refused(tmp_path):
    for name, written in (
        ("a.csv", b"text,label\n\xe9,1\n"),
        ("a.tsv", "text\tlabel".encode("utf-16")),
    ):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(ValueError, match="UTF-"):
            load_dataset(tmp_path / name)


NO_EASY = {"easy": "none", "methods": ("pca",)}


@pytest.mark.parametrize(
    ("study", "options"),
    [(salience, NO_EASY), (imbalance, NO_EASY), (transfer, NO_EASY), (icm, {})],
)
def test_a_study_tells_of_that_draw_too(study, options, tmp_path):
    path, console = write(tmp_path / "towns.csv", cities(40)), Console()
    settings = study.Settings(dataset=(str(path),), **options)
    session = session_of(study.STUDY, settings, tmp_path / "out", console=console)
    with console.capture() as printed:
        study.STUDY.plan(settings, session)
    assert joined(printed.get()).count("norowsaysthatitisatestrow") == 1
