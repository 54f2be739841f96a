"""The activation store: what is written is what is read, and everything else is refused."""

import dataclasses
import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from small_stores import (
    LAYERS,
    WHOLE,
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

from jelicit.activations import (
    DTYPES,
    ActivationStore,
    StoreSpec,
    StoreWriter,
    differences,
    shards,
    tensors,
)
from jelicit.activations.manifest import Manifest
from jelicit.disk import folders, temporary, whole


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_number_comes_back_exactly_and_lies_on_disk_in_the_models_dtype(tmp_path, dtype):
    fill(tmp_path / "s", dtype)
    store = ActivationStore.open(tmp_path / "s")
    states, log_probs = numbers(dtype)
    for layer in LAYERS:
        pairs = store.pairs(layer)
        for got, made in zip(pairs, states[layer], strict=True):
            np.testing.assert_array_equal(got, made.astype(np.float32))
            assert got.dtype == np.float32
    np.testing.assert_array_equal(store.log_probs, log_probs)
    assert store.items == make_items()
    assert store.spec == make_spec(make_items(), dtype=dtype)
    assert store.complete
    store.verify()
    on_disk = load_file(tmp_path / "s" / "shard-00001.safetensors")
    assert on_disk["layer.2.neg"].dtype == DTYPES[dtype]
    np.testing.assert_array_equal(on_disk["layer.2.neg"], states[2][1][3:6])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), max_size=12))
def test_rows_come_in_the_order_asked_also_across_shards(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "rows"
    store = ActivationStore.open(folder) if folder.exists() else fill(folder)
    states, _ = numbers()
    got = store.pairs(2, rows=rows)
    np.testing.assert_array_equal(got.pos, states[2][0][rows].astype(np.float32))
    np.testing.assert_array_equal(got.neg, states[2][1][rows].astype(np.float32))


def test_a_mask_picks_rows_and_minus_one_is_the_models_last_layer(tmp_path):
    store = fill(tmp_path)
    mask = np.arange(N) % 3 == 0
    np.testing.assert_array_equal(store.pairs(3, mask).neg, store.pairs(-1).neg[mask])


@pytest.mark.parametrize("rows", [[-1], [N], [0.5], np.ones(N + 1, bool), [[0, 1]]])
def test_rows_that_are_none_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="rows"):
        fill(tmp_path).pairs(2, rows=rows)


def test_reading_a_layer_leaves_the_other_layers_bytes_alone(tmp_path, monkeypatch):
    """Only its two tensors are asked for, and damage elsewhere does not show."""
    store = fill(tmp_path)
    before = store.pairs(2)
    states, _ = numbers()
    path = tmp_path / "shard-00000.safetensors"
    content = path.read_bytes()
    for layer in (0, 3):
        for tensor in states[layer]:
            piece = tensor[0:3].tobytes()
            assert content.count(piece) == 1
            content = content.replace(piece, bytes(len(piece)))
    path.write_bytes(content)
    asked, real = [], shards.safe_open

    class Spy:
        def __init__(self, *args, **options):
            self.file = real(*args, **options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def metadata(self):
            return self.file.metadata()

        def get_tensor(self, key):
            asked.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(shards, "safe_open", Spy)
    after = store.pairs(2)
    assert set(asked) == {"layer.2.pos", "layer.2.neg"}
    np.testing.assert_array_equal(after.pos, before.pos)
    np.testing.assert_array_equal(after.neg, before.neg)
    with pytest.raises(ValueError, match=r"checksum of shard-00000\.safetensors"):
        store.verify()


def test_the_folder_holds_these_files_and_no_others(tmp_path):
    fill(tmp_path / "a" / "s")
    shards = [f"shard-0000{number}.safetensors" for number in range(3)]
    assert sorted(files(tmp_path / "a" / "s")) == sorted(["manifest.json", "items.jsonl", *shards])
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["s"]


# --- several processes ---------------------------------------------------------------------------


def as_another(monkeypatch, action):
    """Does something as a process of another number, one that is alive."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", os.getppid)
        return action()


def interrupt(monkeypatch, owner, name, action, *, after=False):
    """The first call of owner.name does `action` first (or after it), as another process."""
    real, waiting = getattr(owner, name), [action]

    def step(*args, **options):
        def now():
            if waiting:
                as_another(monkeypatch, waiting.pop())

        if not after:
            now()
        result = real(*args, **options)
        if after:
            now()
        return result

    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    monkeypatch.setattr(owner, name, staticmethod(step) if is_static else step)


@pytest.mark.parametrize("name", ["_publish", "_sync"])
def test_two_may_finish_at_the_same_time(tmp_path, monkeypatch, name):
    """The second finishes while the first's new manifest has no name yet."""
    one, two = open_writer(tmp_path), open_writer(tmp_path)
    for shard in one.missing():
        write(one, shard)
    interrupt(monkeypatch, whole, name, two.finish)
    assert one.finish().complete
    assert_whole(tmp_path)


@pytest.mark.parametrize("after", [False, True])
def test_no_checksum_is_lost_between_its_file_and_the_manifest(tmp_path, monkeypatch, after):
    """The second finishes just before, or just after, the first reads the manifest."""
    one, two = open_writer(tmp_path), open_writer(tmp_path)
    for shard in one.missing():
        write(one, shard)
    interrupt(monkeypatch, Manifest, "read", two.finish, after=after)
    assert one.finish().complete
    assert_whole(tmp_path)


def test_what_another_process_finished_is_not_missing(tmp_path):
    one = open_writer(tmp_path)
    seen = ActivationStore.open(tmp_path)
    fill(tmp_path)
    assert seen.missing() == []
    assert one.missing() == []
    assert one.finish().complete
    assert_whole(tmp_path)


@pytest.mark.parametrize("done", ["opened", "finished"])
@pytest.mark.parametrize("step", ["list", "sync"])
def test_a_store_that_another_process_creates_meanwhile_is_joined(
    tmp_path, monkeypatch, step, done
):
    """It appears after we saw none: before the folder is listed, or before we publish ours."""
    action = {"opened": open_writer, "finished": fill}[done]
    owner, name = {"list": (folders._LocalFolder, "listing"), "sync": (whole, "_sync")}[step]
    interrupt(monkeypatch, owner, name, lambda: action(tmp_path))
    writer = open_writer(tmp_path)
    assert writer.missing() == ([0, 1, 2] if done == "opened" else [])
    for shard in writer.missing():
        write(writer, shard)
    writer.finish()
    assert_whole(tmp_path)


def test_who_comes_second_with_other_items_is_refused_and_changes_nothing(tmp_path, monkeypatch):
    interrupt(monkeypatch, whole, "_sync", lambda: fill(tmp_path))
    items = make_items()[::-1]
    with pytest.raises(ValueError, match="item_digest: stored"):
        StoreWriter.open(tmp_path, make_spec(items), items)
    assert_whole(tmp_path)


def test_a_file_system_without_links_gets_its_manifest(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    fill(tmp_path)
    assert_whole(tmp_path)


def beside(path):
    return path.with_name(temporary.temporary_name(path.name))


def test_finishing_deletes_leftovers_and_nothing_that_is_being_written(tmp_path, monkeypatch):
    writer = open_writer(tmp_path)
    for shard in writer.missing():
        write(writer, shard)
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    shard = tmp_path / "shard-00001.safetensors"
    mine = beside(shard)
    alive = as_another(monkeypatch, lambda: beside(shard))
    monkeypatch.setattr(temporary.platform, "node", lambda: "elsewhere")
    remote = beside(shard)
    monkeypatch.undo()
    dead = mine.with_name(mine.name.replace(f".{os.getpid()}-", f".{int(ended.stdout)}-"))
    old = mine.with_name(".items.jsonl.00000000.7.tmp.partial")
    assert len({mine, alive, remote, dead, old}) == 5
    for path in (mine, alive, remote, dead):
        path.write_bytes(b"half a shard")
    abandoned(old)
    writer.finish()
    assert sorted(files(tmp_path)) == sorted([alive.name, remote.name, *WHOLE])


TOGETHER = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from small_stores import open_writer, write

folder, me, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    (folder / f"{number}.{me}").touch()
    while not (folder / f"{number}.{1 - me}").exists():
        time.sleep(0.0002)
    writer = open_writer(folder / f"store{number}")
    for shard in writer.missing():
        write(writer, shard)
    writer.finish().verify()
"""


def test_two_real_processes_on_one_folder_make_one_whole_store(tmp_path):
    rounds, root = 8, Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", TOGETHER, str(tmp_path)]
    running = [
        subprocess.Popen(
            [*command, str(me), str(rounds)], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for me in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=60)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], errors
    for number in range(rounds):
        assert_whole(tmp_path / f"store{number}")


def signed(manifest):
    """A manifest's text with a checksum that fits, as an old or a hostile writer may make it."""
    body = {"spec": manifest["spec"], "shards": manifest["shards"]}
    text = json.dumps(body, sort_keys=True).encode()
    return json.dumps({**manifest, "sha256": hashlib.sha256(text).hexdigest()})


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    """File names are made from shard numbers; a name smuggled in is refused or not used."""
    fill(tmp_path / "s")
    (tmp_path / "s" / "shard-00000.safetensors").rename(tmp_path / "outside.safetensors")
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["file"] = "../outside.safetensors"
    path.write_text(signed(manifest))
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors is missing"):
        ActivationStore.open(tmp_path / "s").pairs(0)
    manifest["spec"]["shards"] = [[1, 3], [3, 6], [6, 7]]
    path.write_text(signed(manifest))
    with pytest.raises(ValueError, match="do not cover the rows"):
        ActivationStore.open(tmp_path / "s")


def test_an_incomplete_store_says_which_shards_miss_and_how_to_go_on(tmp_path):
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items), items)
    write(writer, 1)
    store = ActivationStore.open(tmp_path)
    assert not store.complete
    assert store.missing() == [0, 2]
    for read in (lambda: store.pairs(0), lambda: store.log_probs, store.verify):
        with pytest.raises(ValueError, match="incomplete") as error:
            read()
        assert "shard-00000.safetensors is missing; shard-00002" in str(error.value)
        assert "same settings: it goes on" in str(error.value)
    with pytest.raises(ValueError, match=r"shards \[0, 2\] are missing"):
        writer.finish()
    for shard in (0, 2):
        write(writer, shard)
    with pytest.raises(ValueError, match="was not finished"):
        ActivationStore.open(tmp_path).pairs(0)


PLAN = (((0,), (1,), (2,)), ((3,), (4,), (5,)), ((6,),))
PLAN_OF_OTHER_SHARDS = (((0, 1, 2),), ((3,),), ((4, 5, 6),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, r"\n  model: stored 'tiny', asked 'other'\n"),
        ({"model_digest": "xyz"}, "model_digest: stored 'abc', asked 'xyz'"),
        ({"dtype": "float32"}, "dtype: stored 'bfloat16', asked 'float32'"),
        ({"layers": (0, 1)}, r"layers: stored \[0, 2, 3\], asked \[0, 1\]"),
        ({"settings": {"token_budget": 65}}, "settings.token_budget: stored 64, asked 65"),
        ({"settings": {}}, "settings.token_budget: stored 64, asked 'nothing'"),
        (
            {"prompt_format": {"name": "claim", "true_word": " Yes"}},
            "prompt_format.true_word: stored ' True', asked ' Yes'",
        ),
        (
            {"shards": ((0, 3), (3, 4), (4, 7)), "batch_plan": PLAN_OF_OTHER_SHARDS},
            "shards: stored",
        ),
        (
            {"settings": {"token_budget": 65}, "batch_plan": PLAN},
            "settings.token_budget: stored 64",
        ),
    ],
)
def test_a_store_of_other_settings_is_refused_naming_both_values(tmp_path, change, message):
    fill(tmp_path)
    items = make_items()
    with pytest.raises(ValueError, match=message) as error:
        StoreWriter.open(tmp_path, make_spec(items, **change), items)
    assert str(error.value).count(": stored") == 1


def test_other_items_are_refused(tmp_path):
    fill(tmp_path)
    items = make_items()[::-1]
    with pytest.raises(ValueError, match="item_digest: stored"):
        StoreWriter.open(tmp_path, make_spec(items), items)
    with pytest.raises(ValueError, match="are not the 7 items of the spec"):
        StoreWriter.open(tmp_path, make_spec(make_items()), items)


def test_writers_whose_trials_took_other_times_write_one_store(tmp_path):
    items = make_items()
    specs = [
        make_spec(items, machine={"device": "cpu", "trial": said})
        for said in ("bfloat16, 3 ms", "bfloat16, 4 ms")
    ]
    first, second = (StoreWriter.open(tmp_path, spec, items) for spec in specs)
    assert first.spec.machine["trial"] == second.spec.machine["trial"] == "bfloat16, 3 ms"
    alone = StoreWriter(second._files, Manifest(specs[1], []))
    for writer, shard in [(first, 0), (second, 1), (alone, 2)]:
        write(writer, shard)
    assert first.missing() == []
    first.finish()
    assert_whole(tmp_path)


@pytest.mark.parametrize("name", ["versions", "machine"])
def test_machine_and_versions_count_only_while_shards_miss(tmp_path, name):
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items), items)
    changed = make_spec(items, **{name: {"torch": "3", "threads": 2}})
    with pytest.raises(ValueError, match=rf"{name}.threads: stored .*, asked 2"):
        StoreWriter.open(tmp_path, changed, items)
    for shard in writer.missing():
        write(writer, shard)
    writer.finish()
    assert StoreWriter.open(tmp_path, changed, items).missing() == []


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    items = make_items()
    with pytest.raises(ValueError, match=r"other files \(thesis\.tex\)"):
        StoreWriter.open(tmp_path, make_spec(items), items)
    assert list(files(tmp_path)) == ["thesis.tex"]
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        ActivationStore.open(tmp_path)


def test_a_manifest_of_another_version_or_not_json_is_refused(tmp_path):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    content = path.read_text()
    for changed in (content.replace('"version": 2', '"version": 3'), content[:-20], "[]"):
        assert changed != content
        path.write_text(changed)
        with pytest.raises(ValueError, match=r"manifest\.json cannot be read"):
            ActivationStore.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; allowed: float32"),
        ({"layers": ()}, "layers"),
        ({"layers": (3, 2)}, "layers"),
        ({"shards": ((0, 3), (4, 6), (6, 7))}, "do not cover"),
        ({"shards": ((0, 3), (3, 6), (6, 8))}, "do not cover"),
        ({"batch_plan": (((2, 0),), ((3, 4, 5),), ((6,),))}, "batch_plan of shard 0"),
        ({"batch_plan": (((2, 0, 3), (1,)), ((4, 5),), ((6,),))}, "batch_plan of shard 0"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_spec(make_items(), **change)


def test_a_shard_that_does_not_fit_the_spec_is_refused(tmp_path):
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items), items)
    states, log_probs = numbers()
    cut = {layer: (pos[:3], neg[:3]) for layer, (pos, neg) in states.items()}
    with pytest.raises(ValueError, match=r"layers \[0, 2\], not \(0, 2, 3\)"):
        writer.write(0, {layer: cut[layer] for layer in (0, 2)}, log_probs[:3])
    with pytest.raises(ValueError, match=r"log_probs is float32 \(2, 2\), not float32 \(3, 2\)"):
        writer.write(0, cut, log_probs[:2])
    wide = cut | {2: (cut[2][0].astype(np.float32), cut[2][1])}
    with pytest.raises(ValueError, match=r"layer\.2\.pos is float32 .* not bfloat16"):
        writer.write(0, wide, log_probs[:3])
    assert writer.missing() == [0, 1, 2]


def test_a_spec_equals_its_own_json(tmp_path):
    spec = make_spec(make_items(), settings={"a": (1, 2)})
    assert StoreSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert differences(spec, dataclasses.replace(spec)) == []
    with pytest.raises(ValueError, match="unknown fields"):
        StoreSpec.from_json(spec.to_json() | {"extra": 1})
    short = {key: value for key, value in spec.to_json().items() if key != "layers"}
    with pytest.raises(ValueError, match="layers"):
        StoreSpec.from_json(short)


def test_bfloat16_here_is_the_brain_float():
    """Eight exponent bits: 1e38 survives, 1 + 2**-8 rounds to 1."""
    made = np.array([1e38, 1 + 2**-8], dtype=DTYPES["bfloat16"])
    assert made.dtype == ml_dtypes.bfloat16
    assert np.isfinite(made.astype(np.float32)).all()
    assert made[1] == 1


# --- other batches -------------------------------------------------------------------------------


def test_the_stored_batches_win_over_those_asked_for(tmp_path):
    """Other settings would be refused; batches alone are not: they may have been replanned."""
    stored = open_writer(tmp_path).spec.batch_plan
    writer = open_writer(tmp_path, batch_plan=PLAN)
    assert writer.spec.batch_plan == stored != PLAN
    for shard in writer.missing():
        write(writer, shard)
    assert writer.finish().spec.batch_plan == stored
    assert open_writer(tmp_path, batch_plan=PLAN).missing() == []
    assert ActivationStore.open(tmp_path).spec.batch_plan == stored


def test_a_replan_changes_missing_shards_only_and_outlives_the_run(tmp_path):
    writer = open_writer(tmp_path)
    old = writer.spec.batch_plan
    write(writer, 0)
    writer.replan(PLAN)
    mixed = (old[0], *PLAN[1:])
    assert writer.spec.batch_plan == mixed
    resumed = open_writer(tmp_path)
    assert resumed.spec.batch_plan == mixed
    assert resumed.missing() == [1, 2]
    for shard in resumed.missing():
        write(resumed, shard)
    store = resumed.finish()
    assert store.spec.batch_plan == mixed
    assert store.spec.shards == make_spec(make_items()).shards
    assert_whole(tmp_path)


def test_two_workers_replan_their_own_shards(tmp_path):
    """Each gives the other's shards as it knows them, which may be the batches of before."""
    one, two = open_writer(tmp_path), open_writer(tmp_path)
    old = one.spec.batch_plan
    one.replan((PLAN[0], old[1], old[2]))
    two.replan((old[0], PLAN[1], old[2]))
    assert two.spec.batch_plan == (PLAN[0], PLAN[1], old[2])
    assert ActivationStore.open(tmp_path).spec.batch_plan == (PLAN[0], PLAN[1], old[2])
    write(one, 2)  # its plan is older than the second's
    assert one.missing() == two.missing() == [0, 1]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PLAN[:2], "batch_plan has 2 shards, not 3"),
        ((PLAN[0], ((3,), (4,)), PLAN[2]), r"batch_plan of shard 1 is not rows 3\.\.6"),
    ],
)
def test_a_replan_that_loses_rows_is_refused_and_changes_nothing(tmp_path, plan, message):
    writer = open_writer(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=message):
        writer.replan(plan)
    assert files(tmp_path) == before
    assert writer.spec == make_spec(make_items())


# --- the layout of a shard -----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text('abé.0129"', min_size=1, max_size=6), unique=True, max_size=6),
    data=st.data(),
)
def test_a_packed_file_is_the_librarys_own_to_the_byte(names, data):
    sizes = st.integers(0, 4)
    made = {
        name: np.full(
            data.draw(st.tuples(sizes, sizes)), 1.5, DTYPES[data.draw(st.sampled_from([*DTYPES]))]
        )
        for name in names
    }
    content = b"".join(tensors.pack(made, {"shard": "7"}))
    assert content == save(made, metadata={"shard": "7"})
    metadata, found = tensors.unpack(content)
    assert metadata == {"shard": "7"}
    assert set(found) == set(made)
    for name, tensor in made.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
