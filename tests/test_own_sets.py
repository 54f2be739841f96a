"""Sets, formats and features of one's own: by reference, and from an installed package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jelicit.data import registry
from jelicit.data.concerns import concerns
from jelicit.data.datasets import known_names, load_dataset, title_of
from jelicit.data.describe import describe
from jelicit.data.features import FEATURES, Feature, add_feature, get_feature
from jelicit.data.formats import PromptFormat
from jelicit.data.items import Item, labels
from jelicit.data.named_sets import NamedSet
from jelicit.data.prompts import FORMATS, get_format, zero_shot
from jelicit.data.sets import SETS, geometry_of_truth

ROOT = Path(__file__).resolve().parents[1]
OWN_SET = str(ROOT / "docs/examples/own_set.py") + ":PRIMES"
OWN_FEATURE = str(ROOT / "docs/examples/own_feature.py") + ":SPEAKER"


@pytest.fixture(autouse=True)
def _nothing_stays_known(monkeypatch):
    monkeypatch.setattr(registry, "_own_sets", {})
    monkeypatch.setattr(registry, "_own_formats", {})


def rows(n: int = 8, **fields) -> list[Item]:
    return [
        Item(id=f"{k}", question="q?", choice=f"c{k}.", label=k % 2 == 0, **fields)
        for k in range(n)
    ]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- the examples of the documentation -----------------------------------------------------------


def test_the_example_set_loads_by_reference_and_is_right():
    dataset = load_dataset(OWN_SET)
    assert (dataset.name, dataset.easy) == ("primes", "pocket/larger_than")
    assert (len(dataset.train), len(dataset.test)) == (136, 44)
    assert not {i.group for i in dataset.train} & {i.group for i in dataset.test}
    true = {item.choice for item in (*dataset.train, *dataset.test) if item.label}
    assert {"3 is a prime number.", "199 is a prime number.", "91 is not a prime number."} <= true
    assert "9 is a prime number." not in true
    assert not concerns(dataset)
    for row in describe(dataset):  # as many primes as others: neither "not" nor length tells
        assert row["true"] == 0.5
        assert abs(row["length_auroc"] - 0.5) < 0.1
    assert {(i.dataset, i.origin) for i in dataset.test} == {("primes", "own")}
    assert len(load_dataset(OWN_SET, max_train=20, balance="label").train) == 20


def test_what_was_loaded_by_reference_is_known_by_name_from_then_on():
    assert "primes" not in known_names()
    assert "primes/truth" not in FORMATS
    dataset = load_dataset(OWN_SET)
    assert load_dataset("primes") == dataset
    assert title_of("primes") == "Prime numbers"
    prompt = zero_shot(dataset.train[0], dataset.formats["label"])
    assert prompt == f"Mathematics: {dataset.train[0].choice}\nThis is"


def test_the_example_feature_is_added_by_reference_under_its_own_name():
    items = load_dataset("pocket/arithmetic", max_train=40).train
    made = add_feature(items, OWN_FEATURE, seed=3)
    assert made == add_feature(items, get_feature(OWN_FEATURE), seed=3)
    assert get_feature(OWN_FEATURE).title == "Who says it"
    assert made[0].id == f"{items[0].id}+speaker"
    assert {item.choice.split(" says: ")[0] for item in made} == {"A professor", "A child"}
    values, truth = labels(made, "speaker"), labels(made)
    assert values[truth == 1].mean() == values[truth == 0].mean() == 0.5


# --- sets ----------------------------------------------------------------------------------------


def test_a_set_may_be_given_as_it_is_with_splits_of_its_own():
    own = NamedSet(
        name="mine", title="Mine", source=lambda request: {"train": rows(4), "test": rows(2)}
    )
    dataset = load_dataset(own)
    assert (len(dataset.train), len(dataset.test), dataset.formats) == (4, 2, {"label": "claim"})
    assert {i.split for i in dataset.test} == {"test"}


def test_a_set_given_as_it_is_brings_its_formats_and_may_be_given_anew():
    for ask in ("{choice} right?", "{choice} wrong?"):  # a cell of a notebook, run twice
        format = PromptFormat(name="mine/ask", text=ask)
        own = NamedSet(
            name="mine", title="Mine", source=lambda r: rows(), formats={"label": format}
        )
        assert get_format(load_dataset(own).formats["label"]) is format
    with pytest.raises(ValueError, match="'liar' is another set's"):
        load_dataset(NamedSet(name="liar", title="Mine", source=lambda r: rows()))
    assert load_dataset(registry.sets()["pocket/pairs"], max_train=4).name == "pocket/pairs"
    assert "pocket/pairs" not in registry._own_sets


def test_two_files_cannot_hold_sets_of_one_name(tmp_path):
    text = "from jelicit.data import *\nSET = NamedSet(name='twin', title='T', source=lambda r: %s)"
    make = "[Item(id=str(k), choice='c', label=True) for k in range(4)]"
    one, two = (write(tmp_path / f"{name}.py", text % make) for name in ("one", "two"))
    assert load_dataset(f"{one}:SET") == load_dataset(f"{one}:SET")
    with pytest.raises(ValueError, match=r"two\.py:SET': the name 'twin' is another set's"):
        load_dataset(f"{two}:SET")


def test_a_source_is_told_what_is_wanted_and_may_ignore_it():
    asked = []
    own = NamedSet(name="m", title="M", source=lambda r: asked.append(r) or rows(40))
    assert len(load_dataset(own, seed=5, max_train=7, max_test=3).train) == 7
    assert (asked[0].seed, asked[0].max_train, asked[0].max_test) == (5, 7, 3)
    load_dataset(own, max_train=8, balance="label")
    assert asked[1].max_train is None  # what is balanced away is taken from the whole


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda r: {"train": rows()}, r"gives the splits \['train'\]; allowed: train, test"),
        (lambda r: {"train": [], "test": [], "more": []}, "allowed: train, test and optionally"),
        (
            lambda r: {"train": rows(split="test"), "test": rows()},
            "item '0': field 'split' is 'test'; it stands among the train rows",
        ),
        (
            lambda r: {"train": [{"id": "a"}], "test": rows()},
            "a dict among its rows; expected Item",
        ),
        (lambda r: [*rows(3), *rows(1)], "two rows have the id '0'"),
        (None, "'bad' has no source; give the folder"),
    ],
)
def test_a_source_that_gives_something_else_is_refused_by_name(source, said):
    with pytest.raises(ValueError, match=said) as error:
        load_dataset(NamedSet(name="bad", title="Bad", source=source))
    assert "'bad'" in str(error.value)


def test_names_that_are_taken_are_refused(tmp_path):
    start = "from jelicit.data import *\n"
    path = write(
        tmp_path / "taken.py",
        start + "LIAR = NamedSet(name='liar', title='x', source=list)\n"
        "CLAIM = PromptFormat(name='claim', text='{choice} ok?')\n"
        "SET = NamedSet(name='s', title='s', source=list, formats={'label': CLAIM})\n"
        "TENSE = Feature('tense', 'd', lambda q, c, v: (q, c))\n",
    )
    with pytest.raises(ValueError, match="the name 'liar' is another set's"):
        load_dataset(f"{path}:LIAR")
    for call, name in ((get_format, "CLAIM"), (load_dataset, "SET")):
        with pytest.raises(ValueError, match="the name 'claim' is another format's"):
            call(f"{path}:{name}")
    with pytest.raises(ValueError, match="the name 'tense' is another feature's"):
        get_feature(f"{path}:TENSE")
    with pytest.raises(ValueError, match="is a PromptFormat; expected a NamedSet"):
        load_dataset(f"{path}:CLAIM")


def test_a_format_by_reference_is_known_by_name_from_then_on(tmp_path):
    path = write(
        tmp_path / "own_format.py",
        "from jelicit.data import PromptFormat\nASK = PromptFormat(name='ask', text='{choice}?')\n",
    )
    format = get_format(f"{path}:ASK")
    assert get_format("ask") is format
    assert zero_shot(rows()[0], "ask") == "c0.?"


def test_a_format_must_ask_for_the_target_it_stands_under():
    with pytest.raises(ValueError, match=r"formats\['label'\] is 'f', which asks for 'party'"):
        NamedSet(
            name="s",
            title="S",
            formats={"label": PromptFormat(name="f", text="{choice}", target="party")},
        )


def test_every_shipped_set_is_a_file_of_its_name_with_a_title():
    files = {path.stem for path in (ROOT / "jelicit/data/sets").glob("*.py")}
    several = {named.name for named in geometry_of_truth.SETS}
    assert set(SETS) == (files - {"__init__", "challenges", "geometry_of_truth"}) | several
    assert [title_of(n) for n in ("gsm8k", "ctrl_z", "pocket/larger_than", "my/colour_words")] == [
        "GSM8K", "Ctrl-Z", "Larger than (pocket)", "Colour words (my)",
    ]  # fmt: skip


# --- features ------------------------------------------------------------------------------------


def test_misfit_says_why_a_feature_cannot_be_added():
    items = load_dataset("pocket/arithmetic", max_train=8).train
    pairs = load_dataset("pocket/pairs", max_train=8).train
    commands = load_dataset("pocket/commands", max_train=8).train
    for name, feature in FEATURES.items():
        assert feature.misfit(items, "claim") == ""
        assert feature.misfit(pairs, "pair") == "its texts are no single claims"
        assert feature.misfit(commands, "commands/safe") == "its texts are no single claims"
        assert bool(feature.misfit(items, "statement")) == (name == "sycophancy")
    assert FEATURES["sycophancy"].misfit(items, "statement") == "its prompt shows no question"
    bare = [Item(id="b", choice="c")]
    assert FEATURES["sycophancy"].misfit(bare, "claim") == "item 'b' has no question"
    second = Feature("x", "d", lambda q, c, v: (q, c), needs=("choice_2",), single_claims=False)
    assert second.misfit(pairs, "pair") == ""


def test_features_are_checked_and_titled():
    def same(question, choice, value):
        return question, choice

    assert Feature("own_thing", "d", same).title == "Own thing"
    for name in ("", "label", "none", "a+b"):
        with pytest.raises(ValueError, match="feature"):
            Feature(name, "d", same)
    with pytest.raises(ValueError, match=r"needs .*; allowed: question, choice, choice_2"):
        Feature("x", "d", same, needs=("answer",))


# --- installed packages --------------------------------------------------------------------------

STRANGER = """
from jelicit.data import Item, NamedSet, PromptFormat, get_format
def read(request):
    return [Item(id=str(k), choice=f"c{k}", label=k % 2 == 0) for k in range(8)]
assert get_format("claim").name == "claim"  # while it is being registered
ASK = PromptFormat(name="strange/ask", text="{choice}, no?")
SETS = [NamedSet(name=n, title="Strange", source=read, formats={"label": ASK})
        for n in ("strange/one", "liar")]
"""


def installed(root: Path, **points: str) -> Path:
    """A package on the path with metadata that registers sets, as pip leaves it."""
    write(root / "stranger.py", STRANGER)
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    folder = root / "stranger-1.0.dist-info"
    write(folder / "METADATA", "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    write(folder / "entry_points.txt", f"[jelicit.sets]\n{lines}")
    return root


def run(code: str, *path: Path) -> subprocess.CompletedProcess:
    found = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", f"from jelicit.data import *\n{code}"],
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_package_registers_sets_and_formats(tmp_path):
    code = (
        "d = load_dataset('strange/one')\n"
        "print(len(d.train), zero_shot(d.train[0], d.formats['label']), title_of(d.name))\n"
        "print(title_of('liar'), 'pocket/facts' in known_names(), 'facts/elm' in FORMATS)\n"
    )
    done = run(code, installed(tmp_path, strange="stranger:SETS"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["6 c0, no? Strange", "LIAR True True"]
    assert "set 'liar': the name 'liar' is another set's" in done.stderr


@pytest.mark.parametrize(
    "value", ["stranger:NONE", "absent:SETS", "stranger:STRANGE", "json:dumps"]
)
def test_a_broken_registration_is_told_and_the_other_sets_are_there(tmp_path, value):
    done = run("print('pocket/facts' in known_names())", installed(tmp_path, broken=value))
    assert done.stdout.strip() == "True"
    assert f"sets of {value} are left out" in done.stderr


def test_the_declared_entry_point_is_the_one_that_a_source_tree_falls_back_to():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry._OF_THE_SOURCE_TREE


def test_formats_are_those_that_stores_and_result_ids_were_made_with():
    # Stores and result rows are named by them: a change here orphans them, so must be deliberate.
    import hashlib
    import json

    def of(names):
        text = json.dumps([vars(get_format(n)) for n in sorted(names)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    came_later = {
        "asking": "f0f188b36af158bb",
        "literal": "5b6a5aa30ef266fb",
        "professor": "212a56310c049e21",
    }
    assert {name: of([name]) for name in came_later} == came_later
    first = set(FORMATS) - set(came_later)
    assert (len(first), of(first)) == (19, "e8fb8425cfeae811")
