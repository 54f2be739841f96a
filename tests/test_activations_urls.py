"""The activation store under fsspec URLs: the same bytes, and only the bytes that are asked for."""

import errno
import struct
import sys
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from small_stores import (
    LAYERS,
    SHARDS,
    WHOLE,
    D,
    N,
    abandoned,
    assert_whole,
    files,
    fill,
    make_items,
    make_spec,
    numbers,
    open_writer,
    write,
)

from jelicit.activations import ActivationStore, StoreWriter
from jelicit.disk import folders


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """An object store, and a remote system of folders and files."""
    if request.param == "file":
        yield f"file://{tmp_path}/url/s"
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield f"{root}/s"
    system = fsspec.filesystem("memory")
    if system.exists(root):
        system.rm(root, recursive=True)


def put(url, name, content):
    """Overwrites a file as somebody else would."""
    system, root = fsspec.core.url_to_fs(url)
    system.pipe_file(f"{root}/{name}", content)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_store_under_a_url_has_the_bytes_of_a_local_one(url, tmp_path, dtype):
    written = fill(url, dtype)
    fill(tmp_path / "local", dtype)
    assert files(url) == files(tmp_path / "local")
    store = ActivationStore.open(url + "/")
    assert str(store.folder) == str(written.folder) == url
    store.verify()
    assert store.complete
    assert store.items == make_items()
    assert store.size == sum(len(files(url)[name]) for name in WHOLE if "shard" in name)
    states, log_probs = numbers(dtype)
    np.testing.assert_array_equal(store.log_probs, log_probs)
    for layer in LAYERS:
        for got, made in zip(store.pairs(layer), states[layer], strict=True):
            np.testing.assert_array_equal(got, made.astype(np.float32))
    rows = [6, 0, 4, 0]
    np.testing.assert_array_equal(store.pairs(2, rows).neg, states[2][1][rows].astype(np.float32))


def fetched(monkeypatch, system, action):
    """Bytes fetched by an action, per file name."""
    counts, real = {}, system.cat_file

    def counting(self, path, start=None, end=None, **options):
        data = real(self, path, start=start, end=end, **options)
        name = path.split("/")[-1]
        counts[name] = counts.get(name, 0) + len(data)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(system, "cat_file", counting)
        action()
    return counts


def test_reading_a_layer_fetches_its_bytes_and_the_headers_only(url, monkeypatch):
    fill(url)
    system = MemoryFileSystem if url.startswith("memory") else LocalFileSystem
    store = ActivationStore.open(url)
    counts = fetched(monkeypatch, system, lambda: store.pairs(2))
    expected = {}
    for number, (start, stop) in enumerate(SHARDS):
        name = f"shard-0000{number}.safetensors"
        (header,) = struct.unpack("<Q", files(url)[name][:8])
        expected[name] = 8 + header + 2 * (stop - start) * D * 2  # two signs of bfloat16
    assert counts == expected
    counts = fetched(monkeypatch, system, lambda: store.pairs(3, rows=[0]))
    assert counts == {"shard-00000.safetensors": 2 * 3 * D * 2}  # its header is known by now
    counts = fetched(monkeypatch, system, lambda: store.log_probs)
    assert sum(counts.values()) == N * 2 * 4


def test_an_interrupted_store_goes_on_and_ends_with_the_same_bytes(url, tmp_path):
    fill(tmp_path / "whole")
    writer = open_writer(url)
    write(writer, 1)
    again = open_writer(url)
    assert again.missing() == [0, 2]
    with pytest.raises(ValueError, match=rf"{url} is incomplete: shard-00000\.safetensors is mis"):
        ActivationStore.open(url).pairs(0)
    with pytest.raises(ValueError, match=r"shards \[0, 2\] are missing"):
        again.finish()
    for shard in again.missing():
        write(again, shard)
    again.finish()
    assert files(url) == files(tmp_path / "whole")


def test_a_replan_outlives_the_run(url):
    plan = (((0,), (1,), (2,)), ((3,), (4,), (5,)), ((6,),))
    writer = open_writer(url)
    write(writer, 1)
    writer.replan(plan)
    assert open_writer(url).spec.batch_plan == (plan[0], ((3, 4, 5),), plan[2])


def test_finishing_deletes_leftovers(tmp_path):
    url = f"file://{tmp_path}/s"
    writer = open_writer(url)
    for shard in writer.missing():
        write(writer, shard)
    abandoned(tmp_path / "s" / ".shard-00001.safetensors.00000000.7.tmp")
    young = tmp_path / "s" / ".shard-00001.safetensors.00000000.8.tmp"
    young.write_bytes(b"half a shard")
    writer.finish()
    assert sorted(files(url)) == sorted([young.name, *WHOLE])


# --- faults --------------------------------------------------------------------------------------


def test_damage_is_named_with_its_url(url):
    store = fill(url)
    name = "shard-00001.safetensors"
    whole = files(url)[name]

    put(url, name, whole[:-9])
    with pytest.raises(ValueError, match=f"{name} has {len(whole) - 9} of {len(whole)} bytes"):
        store.pairs(0)
    put(url, name, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{url}: the checksum of {name} is not"):
        store.verify()
    put(url, name, bytes(len(whole)))
    lead = rf"{url}/{name} is damaged: layer 0 \(pos\)"
    with pytest.raises(ValueError, match=rf"{lead}.*its header has 0 bytes\)"):
        ActivationStore.open(url).pairs(0)
    put(url, name, whole[:8] + b"{" * (len(whole) - 8))
    with pytest.raises(ValueError, match=rf"{lead}.*its header cannot be read"):
        ActivationStore.open(url).pairs(0)
    put(url, "items.jsonl", files(url)["items.jsonl"].replace(b"claim 3", b"claim 4"))
    with pytest.raises(ValueError, match=rf"{url}/items\.jsonl was changed"):
        _ = ActivationStore.open(url).items
    writer = open_writer(url)
    assert writer.missing() == []


@pytest.mark.parametrize(
    ("found", "changed", "message"),
    [
        (
            b"[1,5]",
            b"[5,1]",
            r"layer 0 \(pos\) bfloat16 \(5, 1\), expected .* bfloat16 \(1, 5\)",
        ),
        (b'"BF16"', b'"BF61"', "its header cannot be read: 'BF61'"),
        (b"layer.0.neg", b"layer.7.neg", r"it has no layer\.0\.neg"),
        (b'"shard":"2"', b'"shard":"1"', "it says shard 1"),
        (b"[8,18]", b"[8,19]", r"layer\.0\.neg \(1, 5\) has the bytes 8\.\.19"),
        (b"[8,18]", b"[98,8]", "its header cannot be read"),
    ],
)
def test_a_header_that_lies_is_refused(url, found, changed, message):
    fill(url)
    name = "shard-00002.safetensors"
    whole = files(url)[name]
    assert found in whole
    put(url, name, whole.replace(found, changed)[: len(whole)])
    with pytest.raises(ValueError, match=message):
        ActivationStore.open(url).pairs(0)


def test_a_write_that_fails_half_way_leaves_no_half_shard(tmp_path, monkeypatch):
    """A system of files shows what was sent so far: so not under the shard's own name."""
    url, real = f"file://{tmp_path}/s", LocalFileSystem.pipe_file

    def half(self, path, value, **options):
        real(self, path, value[:20], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = open_writer(url)
    before = files(url)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "pipe_file", half)
        with pytest.raises(
            OSError, match=rf"{url}/shard-00000\.safetensors could not be written: No"
        ):
            write(writer, 0)
    assert files(url) == before
    fill(url)
    assert_whole(url)


def test_an_object_store_gets_each_file_in_one_write_under_its_own_name(monkeypatch):
    url, real, names = f"memory://{uuid.uuid4().hex}/s", MemoryFileSystem.pipe_file, []

    def spy(self, path, value, **options):
        names.append(path.split("/")[-1])
        real(self, path, value, **options)

    def never(*_args, **_options):
        raise AssertionError("moved, or made a folder")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", spy)
    monkeypatch.setattr(MemoryFileSystem, "mv", never)
    monkeypatch.setattr(MemoryFileSystem, "makedirs", never)
    fill(url)
    shards = [f"shard-0000{n}.{end}" for n in range(3) for end in ("safetensors", "json")]
    assert names == ["manifest.json", "items.jsonl", *shards, "manifest.json"]


def test_errors_of_a_remote_systems_own_class_name_the_file(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/s"
    store = fill(url)

    class NoCredentialsError(Exception):
        pass

    def refuse(*_args, **_options):
        raise NoCredentialsError("unable to locate credentials")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    expected = r"shard-00000\.safetensors: NoCredentialsError: unable to locate credentials"
    with pytest.raises(OSError, match=f"{url}/{expected}"):
        store.pairs(0)
    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    with pytest.raises(OSError, match=f"{url}: NoCredentialsError"):
        open_writer(url)


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs"), ("abfs://c/x", "adlfs")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, url, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{url} needs a package .* pip install {package}$"):
        ActivationStore.open(url)


def test_an_unknown_protocol_and_a_url_as_a_path_are_refused():
    with pytest.raises(ValueError, match="s4://bucket/x: Protocol not known: s4; examples"):
        ActivationStore.open("s4://bucket/x")
    with pytest.raises(
        ValueError, match="'s3:/bucket/x' looks like a URL that was made into a path"
    ):
        StoreWriter.open(Path("s3://bucket/x"), make_spec(make_items()), make_items())


def test_a_url_of_nothing_or_of_other_files_is_refused(url):
    with pytest.raises(FileNotFoundError, match=f"{url} is no activation store"):
        ActivationStore.open(url)
    system, root = fsspec.core.url_to_fs(url)
    system.makedirs(root)
    put(url, "thesis.tex", b"words")
    with pytest.raises(ValueError, match=r"other files \(thesis\.tex\)"):
        open_writer(url)
    assert files(url) == {"thesis.tex": b"words"}


# --- several workers -----------------------------------------------------------------------------


def test_the_listings_of_other_workers_are_not_taken_from_a_cache(monkeypatch):
    """As s3fs does, this system answers with its last listing until it is told to forget it."""
    url, known, real = f"memory://{uuid.uuid4().hex}/s", {}, MemoryFileSystem.ls

    def ls(self, path, detail=True, **options):
        if path not in known:
            known[path] = real(self, path, detail=detail, **options)
        return known[path]

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    monkeypatch.setattr(
        MemoryFileSystem, "invalidate_cache", lambda _self, path=None: known.pop(path, None)
    )
    one, two = open_writer(url), open_writer(url)
    write(two, 1)
    assert one.missing() == [0, 2]


def created_at_once(monkeypatch, url, first):
    """Opens a writer while another creates the same store between our look and our write."""
    real, waiting = folders._RemoteFolder.write, [first]

    def write_after(self, name, pieces, **options):
        replace = options.pop("replace", True)
        if waiting:
            waiting.pop()()
            replace = True  # both had looked before
        return real(self, name, pieces, replace=replace, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folders._RemoteFolder, "write", write_after)
        return open_writer(url)


def test_two_that_create_the_same_store_at_once_share_it(url, monkeypatch):
    others = []

    def other():
        others.append(open_writer(url))
        write(others[0], 1)

    mine = created_at_once(monkeypatch, url, other)
    assert mine.missing() == others[0].missing() == [0, 2]
    write(mine, 0)
    write(others[0], 2)
    mine.finish()
    assert_whole(url)


def test_two_that_create_different_stores_at_once_do_not_mix_their_shards(url, monkeypatch):
    others = []

    def other():
        others.append(open_writer(url, model_digest="xyz"))
        write(others[0], 1)

    mine = created_at_once(monkeypatch, url, other)
    assert mine.missing() == [0, 1, 2]
    write(others[0], 2)
    assert mine.missing() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"become another store.*\n.*model_digest: stored 'abc', "):
        others[0].finish()
    for shard in mine.missing():
        write(mine, shard)
    mine.finish()
    assert_whole(url)
