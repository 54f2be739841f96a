"""A user's own things are found by `module:NAME` and `file.py:NAME`, and mistakes are named."""

import sys

import pytest

from jelicit.named import is_reference, resolve


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_things.py").write_text(
        "RATE = 3\nWORD = 'x'\nRUNS = globals().get('RUNS', 0) + 1\n"
    )
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n in ("own_things", "broken") or "jelicit_user" in n]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "reference", ["own_things:RATE", "own_things.py:RATE", "./own_things.py:RATE"]
)
def test_module_of_the_working_directory_and_file_give_the_object(own, reference):
    assert resolve(reference, int, what="method") == 3
    assert str(own) not in sys.path


def test_a_file_is_run_once_however_it_is_named(own):
    own.joinpath("counting.py").write_text("MADE = []\n")
    first = resolve("counting.py:MADE", list, what="method")
    assert resolve(str(own / "counting.py") + ":MADE", list, what="method") is first


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("own_things:RAET", "no 'RAET'; it has RATE"),
        ("own_things:WORD", "is a str; expected a int"),
        ("own_thing:RATE", "no module 'own_thing'"),
        ("other.py:RATE", "no file other.py"),
        ("RATE", "package.module:NAME"),
    ],
)
def test_a_mistake_says_what_is_there(own, reference, said):
    with pytest.raises(ValueError, match="method") as error:
        resolve(reference, int, what="method")
    assert said in str(error.value)


def test_what_the_module_itself_fails_to_import_is_not_hidden(own):
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        resolve("broken:RATE", int, what="method")


def test_urls_paths_and_plain_names_are_no_references():
    for text in ("s3://bucket/x", "pocket/facts", "folder/set", "C:\\sets\\mine", "ccs"):
        assert not is_reference(text)
    assert is_reference("a.b:C")
    assert is_reference("folder/file.py:C")
