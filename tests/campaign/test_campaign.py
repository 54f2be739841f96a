"""A sample of the campaign (and all of it with `-m campaign`); and that it notices what is wrong.

A campaign that finds nothing says something only where it would have found it: the tests below
break what it looks at, one thing each.
"""

import json
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="commands that are killed need the extract extra")

from bad_inputs import MOST, try_many, wrong_ending
from campaign import SHARES, campaign
from children import Children, Ended
from hypothesis import strategies as st
from kills import COMMANDS
from mutations import Cut, Field, Flip, Header
from run import Settings, run
from spoiled import SIX, search_through_faults
from tally import Tally
from whats_left import differences, left


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """What the sample is tried with; its seed is fixed, so that failures do not come and go."""
    with campaign(tmp_path_factory.mktemp("campaign"), seed=1) as made:
        yield made


@pytest.mark.slow
def test_a_killed_extraction_leaves_what_an_undisturbed_one_leaves(sample):
    sample.kill(3, commands=COMMANDS[:1])
    assert sample.tally.failures == []
    assert sample.tally.counts["kills"]["extract"].tried >= 3


@pytest.mark.slow
def test_bad_files_and_answers_end_in_one_line_or_in_the_right_result(sample):
    sample.feed(
        40, only=[kind for kind in SHARES if kind not in ("tokenizer", "weights", "option")]
    )
    assert sample.tally.failures == []
    assert sum(count.tried for count in sample.tally.counts["inputs"].values()) >= 25


@pytest.mark.slow
def test_a_search_through_six_kinds_of_faults_ends_with_the_same_labels():
    searched = search_through_faults(draws=24)
    assert set(searched.spoiled) == set(SIX)
    assert sum(searched.spoiled.values()) == searched.requests // 5
    assert searched.same


@pytest.mark.campaign
def test_the_whole_campaign(tmp_path, capsys):
    tally = run(Settings(), tmp_path).tally
    with capsys.disabled():
        print("", *tally.lines(), sep="\n")
    assert tally.failures == []


# --- it notices ----------------------------------------------------------------------------------


@pytest.fixture
def children(tmp_path):
    with Children(tmp_path / "children", modules=("json",)) as made:
        yield made


def script(folder: Path, code: str) -> tuple[str, ...]:
    path = folder / "script.py"
    path.write_text(code, encoding="utf-8")
    return (str(path),)


def test_children_end_as_they_would_alone(children, tmp_path):
    code = "import sys; print('out'); print('error: no', file=sys.stderr); sys.exit(3)"
    ended = children.run(script(tmp_path, code), tmp_path)
    assert (ended.code, ended.out, ended.err) == (3, "out\n", "error: no\n")
    ended = children.run(script(tmp_path, "1 / 0"), tmp_path)
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.err


def test_a_kill_reaches_the_children_of_a_child_and_a_hang_is_told_from_it(children, tmp_path):
    waiting = "import os, time; os.fork(); open(f'{os.getpid()}.alive', 'w'); time.sleep(60)"
    ended = children.run(script(tmp_path, waiting), tmp_path, kill_after=1.0)
    assert ended.code == -signal.SIGKILL
    alive = [int(path.stem) for path in tmp_path.glob("*.alive")]
    assert len(alive) == 2
    assert_gone(alive)
    assert children.run(script(tmp_path, waiting), tmp_path, limit=0.5).code is None


def assert_gone(processes: list[int], *, within: float = 20.0) -> None:
    # A signal is sent at once; a loaded machine takes its time to end who gets it.
    end = time.monotonic() + within
    while alive := [process for process in processes if is_running(process)]:
        assert time.monotonic() < end, f"{alive} run on"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
    return not re.search(r"State:\s+Z", status)


def test_whatever_a_run_leaves_otherwise_is_told(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "rows").mkdir(parents=True)
        pd.DataFrame({"auroc": [0.5], "seconds": [random.random()]}).to_parquet(
            folder / "rows" / "a.parquet"
        )
        np.savez(folder / "b.npz", x=np.array([1.0, np.nan]))
        (folder / "labels.jsonl").write_text("{}\n")
        (folder / "page.html").write_text(f"<html>{random.random()}</html>\n")
    assert differences(left(one), left(other)) == []
    pd.DataFrame({"auroc": [0.6], "seconds": [1.0]}).to_parquet(other / "rows" / "a.parquet")
    np.savez(other / "b.npz", x=np.array([1.5, np.nan]))
    (other / "page.html").write_text("<html>cut")
    (other / "labels.jsonl").unlink()
    (other / ".labels.jsonl.00000000.1-0.tmp").touch()
    assert differences(left(one), left(other)) == [
        ".labels.jsonl.00000000.1-0.tmp is too much",
        "b.npz differs",
        "labels.jsonl is missing",
        "page.html differs",
        "rows/a.parquet differs",
    ]


@pytest.mark.parametrize(
    ("code", "err", "wrong"),
    [
        (1, "error: a.json: no number\n", ""),
        (1, "warning: so\nerror: a.json: no number\n", ""),
        (1, "Traceback (most recent call last):\nKeyError: 1\n", "a traceback: KeyError: 1"),
        (1, "error: a.json\nerror: again\n", "not one line"),
        (1, f"error: a.json {'x' * MOST}", f"{MOST + 14} characters"),
        (1, "error: it is wrong\n", "none of a.json is named"),
        (2, "│ Argument a.j │\n│ son: no number │\n", ""),
        (-11, "", "exit code -11"),
        (None, "", "it hangs"),
    ],
)
def test_endings_are_judged(code, err, wrong):
    judged = wrong_ending(Ended(code, "", err, 0.0), names=("a.json",))
    assert judged.startswith(wrong)
    assert bool(judged) == bool(wrong)


class Careless:
    """A command that does not mind what begins with a zero."""

    name, slow = "careless", False

    def changes(self):
        return st.lists(st.integers(0, 9), min_size=1, max_size=6)

    def wrong(self, change):
        return f"it takes {change[0]}" if change[0] == 0 else ""


def test_every_failure_is_counted_and_the_smallest_one_is_kept():
    told = try_many(Careless(), 200, start=0)
    assert told.tried == 200
    assert len(told.failures) == sum(change[0] == 0 for change, _ in told.failures) > 5
    assert told.smallest == {"it takes _": [0]}
    again = try_many(Careless(), 200, start=0)
    assert again.failures == told.failures


def test_mutations_change_what_they_say():
    assert Flip(0.5, 0).of(b"ab") == b"ac"
    assert Cut(0.5).of(b"abcd") == b"ab"
    content = json.dumps({"a": {"b": 1}, "c": [2]}).encode()
    set_b = Field(0.3, "set", "x")  # a, c, b, 0: the second of four
    assert json.loads(set_b.of(content)) == {"a": {"b": 1}, "c": "x"}
    assert json.loads(Field(0.0, "drop").of(content)) == {"c": [2]}
    assert json.loads(Field(0.0, "swap").of(content)) == {"a": [2], "c": {"b": 1}}
    lines = b'{"a": 1}\n{"a": 2}\n'
    assert Field(0.0, "set", 7, line=0.5).of(lines) == b'{"a": 1}\n{"a": 7}\n'
    file = (16).to_bytes(8, "little") + b'{"a":{"b":"F"}} ' + b"numbers"
    changed = Header(Field(0.5, "set", "BF16")).of(file)
    length = int.from_bytes(changed[:8], "little")
    assert json.loads(changed[8 : 8 + length]) == {"a": {"b": "BF16"}}
    assert changed[8 + length :] == b"numbers"


# --- the counts -----------------------------------------------------------------------------------


def test_the_counts_of_a_part_that_was_not_tried_stay(tmp_path):
    path = tmp_path / "campaign.json"
    first, second = Tally(0), Tally(3)
    first.add("kills", "sweep", tried=4, survived=4)
    first.write(path)
    second.add("inputs", "shard", tried=9, survived=8)
    second.write(path)
    assert json.loads(path.read_text()) == {
        "seed": 3,
        "kills": {"sweep": {"tried": 4, "survived": 4}},
        "inputs": {"shard": {"tried": 9, "survived": 8}},
    }
