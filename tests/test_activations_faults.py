"""The activation store when something goes wrong: nothing is lost, nothing is half-read."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_stores import (
    WHOLE,
    abandoned,
    assert_whole,
    files,
    fill,
    make_items,
    make_spec,
    open_writer,
    write,
)

from jelicit.activations import ActivationStore, StoreWriter, shards
from jelicit.data.items import Item, digest
from jelicit.disk import whole as disk

ROOT = Path(__file__).resolve().parents[1]


def test_an_interrupted_store_goes_on_and_ends_with_the_same_bytes(tmp_path):
    fill(tmp_path / "whole")
    items = make_items()
    writer = StoreWriter.open(tmp_path / "cut", make_spec(items), items)
    assert writer.missing() == [0, 1, 2]
    write(writer, 1)
    abandoned(tmp_path / "cut" / ".shard-00002.safetensors.00000000.1.tmp")
    again = StoreWriter.open(tmp_path / "cut", make_spec(items), items)
    assert again.missing() == [0, 2]
    for shard in again.missing():
        write(again, shard)
    again.finish()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_shard_gets_its_name_only_when_it_is_whole_on_the_disk(tmp_path, monkeypatch):
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items), items)

    def full(path):
        raise OSError(f"no space left for {path}")

    monkeypatch.setattr(disk, "_sync", full)
    with pytest.raises(OSError, match=r"no space left for .*\.shard-00000.*\.tmp"):
        write(writer, 0)
    assert not list(tmp_path.glob("shard-*"))


def test_a_truncated_shard_is_named_with_its_size_and_is_written_again(tmp_path):
    fill(tmp_path)
    path = tmp_path / "shard-00001.safetensors"
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 9)
    expected = f"shard-00001.safetensors has {len(whole) - 9} of {len(whole)} bytes"
    with pytest.raises(ValueError, match=expected):
        ActivationStore.open(tmp_path).pairs(0)
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items), items)
    assert writer.missing() == [1]
    write(writer, 1)
    writer.finish().verify()
    assert path.read_bytes() == whole


def test_shards_that_changed_places_or_hold_no_tensors_are_refused(tmp_path):
    fill(tmp_path)
    one, two = tmp_path / "shard-00000.safetensors", tmp_path / "shard-00001.safetensors"
    content = one.read_bytes()
    shutil.copy(two, one)
    with pytest.raises(ValueError, match="says shard 1"):
        ActivationStore.open(tmp_path).pairs(0)
    one.write_bytes(bytes(len(content)))
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors is damaged"):
        ActivationStore.open(tmp_path).pairs(0)


def test_changed_items_are_refused(tmp_path):
    fill(tmp_path)
    path = tmp_path / "items.jsonl"
    path.write_text(path.read_text().replace("claim 3", "claim 4"))
    with pytest.raises(ValueError, match=r"items\.jsonl was changed"):
        _ = ActivationStore.open(tmp_path).items
    path.write_bytes(b"\x80" + path.read_bytes())
    with pytest.raises(ValueError, match=r"items\.jsonl was changed: it is no text in UTF-8"):
        _ = ActivationStore.open(tmp_path).items


# --- a disk that does not take it ----------------------------------------------------------------


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_after(tmp_path):
    """The kernel refuses bytes beyond a limit: every shard has more, its checksum's file less."""
    fill(tmp_path / "whole")
    folder = tmp_path / "s"
    writer = open_writer(folder)
    write(writer, 1)
    before = files(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        with pytest.raises(
            OSError, match=r"shard-00000\.safetensors could not be written: File too"
        ):
            write(writer, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(folder) == before
    for shard in writer.missing():
        write(writer, shard)
    writer.finish()
    assert files(folder) == files(tmp_path / "whole")


@pytest.mark.parametrize("name", WHOLE)
def test_a_disk_that_is_full_when_a_file_is_flushed_loses_nothing(tmp_path, monkeypatch, name):
    """Each of the store's files in turn: the message names it, and the same run ends well after."""
    folder, real = tmp_path / "s", disk._sync

    def full(path):
        if path.name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_sync", full)
        with pytest.raises(OSError, match="No space left on device") as error:
            fill(folder)
    assert str(error.value) == (
        f"{folder / name} could not be written: No space left on device. Free some space (or raise "
        "the quota) there, then run the same again; what was written before is whole"
    )
    assert error.value.errno == errno.ENOSPC
    assert not [left for left in files(folder) if left.endswith(".tmp")]
    for shard in set(range(3)) - set(open_writer(folder).missing()):
        ActivationStore.open(folder).shard(shard)
    fill(folder)
    assert_whole(folder)


def test_a_disk_that_fills_up_at_the_end_leaves_a_store_that_is_not_complete(tmp_path, monkeypatch):
    writer = open_writer(tmp_path)
    for shard in writer.missing():
        write(writer, shard)
    before = files(tmp_path)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_sync", full)
        with pytest.raises(OSError, match=r"manifest\.json could not be written"):
            writer.finish()
        with pytest.raises(OSError, match=r"manifest\.json could not be written"):
            writer.replan(writer.spec.batch_plan)
    assert files(tmp_path) == before
    assert not ActivationStore.open(tmp_path).complete
    writer.finish()
    assert_whole(tmp_path)


def test_a_folder_that_may_not_be_written_is_a_permission_error(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "s")
    before = files(tmp_path / "s")

    def forbid(self, *_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    with monkeypatch.context() as patch:  # tests run as root, whom no mode stops
        patch.setattr(Path, "open", forbid)
        with pytest.raises(PermissionError, match=r"shard-00000\.safetensors could not be written"):
            write(writer, 0)
        patch.setattr(Path, "mkdir", forbid)
        with pytest.raises(
            PermissionError, match="new could not be written: Permission denied"
        ) as e:
            open_writer(tmp_path / "new")
    assert "Choose another folder, or get the right to write there" in str(e.value)
    assert files(tmp_path / "s") == before


def test_a_path_that_is_a_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("words")
    for folder in (path, path / "s"):
        with pytest.raises(OSError, match="A file stands where a folder should be"):
            open_writer(folder)
        with pytest.raises(FileNotFoundError, match="is no activation store"):
            ActivationStore.open(folder)
    assert path.read_text() == "words"


def test_a_shard_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    store = fill(tmp_path)

    def forbid(path, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shards, "safe_open", forbid)
    with pytest.raises(PermissionError, match=r"shard-00000\.safetensors"):
        store.pairs(0)


# --- shards that changed -------------------------------------------------------------------------


def test_a_whole_shard_is_read_only_with_its_own_checksum(tmp_path):
    store = fill(tmp_path)
    states, log_probs = store.shard(1)
    np.testing.assert_array_equal(log_probs, store.log_probs[3:6])
    np.testing.assert_array_equal(states[2][1].astype(np.float32), store.pairs(2).neg[3:6])
    path = tmp_path / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors was changed: its checksum"):
        store.shard(1)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors has \d+ of \d+ bytes"):
        store.shard(1)


def test_a_damaged_checksum_file_only_costs_its_own_shard(tmp_path):
    writer = open_writer(tmp_path)
    for shard in writer.missing():
        write(writer, shard)
    (tmp_path / "shard-00001.json").write_text('{"sha256": "ab')
    (tmp_path / "shard-00002.json").write_text("[]")
    assert writer.missing() == [1, 2]
    for shard in writer.missing():
        write(writer, shard)
    writer.finish()
    assert_whole(tmp_path)


# --- killed --------------------------------------------------------------------------------------

SHARDS_OF_MANY, LAYERS_OF_MANY = 40, (0, 1)

KILLER = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from test_activations_faults import write_many

folder = Path(sys.argv[1])
for line in sys.stdin:
    shards, delay = line.split()
    writer = os.fork()  # not a new process for each: JAX takes long to import
    if not writer:
        write_many(folder)
        os._exit(0)
    while len(list(folder.glob("shard-*.safetensors"))) < int(shards):
        time.sleep(0.0002)
    time.sleep(float(delay))
    os.kill(writer, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
"""


def write_many(folder):
    """40 shards of 3 rows, known numbers, in a loop."""
    n = 3 * SHARDS_OF_MANY
    items = [Item(id=f"i{row}", choice=f"claim {row}", label=None) for row in range(n)]
    shards = tuple((start, start + 3) for start in range(0, n, 3))
    spec = make_spec(
        items,
        item_digest=digest(items),
        shards=shards,
        batch_plan=tuple((tuple(range(*shard)),) for shard in shards),
        layers=LAYERS_OF_MANY,
        dtype="float32",
        d_model=64,
    )
    writer = StoreWriter.open(folder, spec, items)
    for shard in writer.missing():
        rng = np.random.default_rng(shard)
        both = rng.normal(size=(len(LAYERS_OF_MANY), 2, 3, 64)).astype(np.float32)
        states = {layer: (both[i, 0], both[i, 1]) for i, layer in enumerate(LAYERS_OF_MANY)}
        writer.write(shard, states, rng.normal(size=(3, 2)).astype(np.float32))
    return writer.finish()


def kills(folder, moments):
    """Writes the store in processes that are killed at these moments; yields after each kill."""
    command = [sys.executable, "-W", "ignore", "-c", KILLER, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    with process:
        for shards, delay in moments:
            print(shards, delay, file=process.stdin, flush=True)
            yield int(process.stdout.readline())


def test_a_writer_killed_at_any_moment_goes_on_and_ends_with_the_same_bytes(tmp_path):
    """Five kills of one store, each a little after a drawn number of shards had their names."""
    write_many(tmp_path / "whole")
    folder, draw = tmp_path / "cut", random.Random(0)
    moments = [(shards, draw.uniform(0, 0.01)) for shards in sorted(draw.sample(range(1, 32), 5))]
    done = 0
    for exit_code in kills(folder, moments):
        assert exit_code == -signal.SIGKILL
        store = ActivationStore.open(folder)
        assert not store.complete
        there = sorted(set(range(SHARDS_OF_MANY)) - set(store.missing()))
        assert done <= len(there) < SHARDS_OF_MANY
        for shard in there:
            store.shard(shard)
        with pytest.raises(ValueError, match="is incomplete"):
            store.pairs(0)
        done = len(there)
    assert done >= moments[-1][0] - 1
    write_many(folder)
    assert files(folder) == files(tmp_path / "whole")
