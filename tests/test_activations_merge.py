"""Merged stores: nothing is lost, changed, counted twice or taken from another model."""

import dataclasses
import tracemalloc
import uuid

import numpy as np
import pytest
from small_stores import (
    DTYPES,
    LAYERS,
    SHARDS,
    D,
    assert_whole,
    files,
    fill,
    make_items,
    make_spec,
    numbers,
    open_writer,
    write,
)

from jelicit.activations import ActivationStore, StoreWriter, merge_stores
from jelicit.data.items import Item, digest

PLAN = (((0,), (1,), (2,)), ((3,), (4,), (5,)), ((6,),))


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Makes a path, or a URL, of a name."""
    if request.param == "local":
        return lambda name: tmp_path / name
    root = uuid.uuid4().hex
    return lambda name: f"memory://{root}/{name}"


def part(folder, shards, **changes):
    """A store of the seven items that has some of the three shards."""
    writer = open_writer(folder, **changes)
    for shard in shards:
        write(writer, shard)
    return folder


def other(folder, prefix, *, sizes=(2, 3), seed=1, **changes):
    """A complete store of items of its own."""
    n = sum(sizes)
    items = [Item(id=f"{prefix}{row}", choice=f"{prefix} {row}", label=None) for row in range(n)]
    stops = np.cumsum(sizes).tolist()
    shards = tuple(zip([0, *stops[:-1]], stops, strict=True))
    plan = tuple((tuple(reversed(range(*shard))),) for shard in shards)
    changes = {"shards": shards, "batch_plan": plan, "item_digest": digest(items)} | changes
    spec = make_spec(items, **changes)
    writer = StoreWriter.open(folder, spec, items)
    rng = np.random.default_rng(seed)
    dtype, d = DTYPES[spec.dtype], spec.d_model
    for shard in writer.missing():
        rows = shards[shard][1] - shards[shard][0]
        both = rng.normal(size=(len(spec.layers), 2, rows, d)).astype(dtype)
        states = {layer: (both[i, 0], both[i, 1]) for i, layer in enumerate(spec.layers)}
        writer.write(shard, states, rng.normal(size=(rows, 2)).astype(np.float32))
    writer.finish()
    return folder


# --- parts of one store --------------------------------------------------------------------------


def test_parts_of_a_store_become_the_undisturbed_one_to_the_byte(place, tmp_path):
    fill(tmp_path / "whole")
    a, b = part(place("a"), [1]), part(place("b"), [0, 2])
    store = merge_stores([a, b], place("c"))
    assert store.complete
    store.verify()
    assert files(place("c")) == files(tmp_path / "whole")


def test_complete_and_overlapping_parts_and_a_single_store_do_too(place, tmp_path):
    fill(tmp_path / "whole")
    fill(place("a"))
    for name, parts in {
        "c": [place("a")],
        "d": [part(place("b"), [0, 1]), place("a")],
        "e": [place("b"), part(place("b2"), [1, 2])],
    }.items():
        merge_stores(parts, place(name))
        assert files(place(name)) == files(tmp_path / "whole")


def test_shards_that_are_nowhere_are_listed_and_nothing_is_written(tmp_path):
    a, b = part(tmp_path / "a", [1]), part(tmp_path / "b", [1])
    expected = (
        rf"none of {a}, {b}: 0 \(rows 0\.\.3\), 2 \(rows 6\.\.7\)\. Run `python -m extract run"
    )
    with pytest.raises(ValueError, match=expected):
        merge_stores([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_each_shard_keeps_the_batches_it_was_computed_in(tmp_path):
    a = part(tmp_path / "a", [1])
    b = part(tmp_path / "b", [])
    writer = open_writer(b)
    writer.replan(PLAN)
    for shard in (0, 2):
        write(writer, shard)
    store = merge_stores([a, b], tmp_path / "c")
    assert store.spec.batch_plan == (PLAN[0], make_spec(make_items()).batch_plan[1], PLAN[2])


def test_machines_and_versions_that_differ_are_recorded_store_by_store(tmp_path):
    a = part(tmp_path / "a", [1])
    b = part(tmp_path / "b", [0, 2], machine={"device": "H200"}, versions={"torch": "2", "x": "1"})
    idle = part(tmp_path / "idle", [], machine={"device": "tape"})
    store = merge_stores([idle, a, b], tmp_path / "c")
    assert store.spec.machine == {"device": ["cpu", "H200"], "threads": [1, None]}
    assert store.spec.versions == {"torch": "2", "x": [None, "1"]}
    assert_whole(tmp_path / "c")


def test_a_changed_shard_is_refused_and_the_other_store_has_it_too(place, tmp_path):
    """Until the file is deleted: then the merge goes on with the copy of the second store."""
    fill(tmp_path / "whole")
    a, b = part(tmp_path / "a", [0, 1]), part(place("b"), [1, 2])
    path = a / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} was changed: its checksum"):
        merge_stores([a, b], place("c"))
    merged = ActivationStore.open(place("c"))
    assert not merged.complete
    assert merged.missing() == [1, 2]
    path.unlink()
    merge_stores([a, b], place("c"))
    assert files(place("c")) == files(tmp_path / "whole")


# --- rows one after another ----------------------------------------------------------------------


def test_stores_of_different_items_are_put_one_after_another(place):
    fill(place("a"))
    other(place("b"), "x")
    other(place("d"), "y", sizes=(4,), seed=2)
    store = merge_stores([place("a"), place("b"), place("d")], place("c"))
    store.verify()
    parts = [ActivationStore.open(place(name)) for name in "abd"]
    assert store.items == [item for one in parts for item in one.items]
    np.testing.assert_array_equal(store.log_probs, np.concatenate([p.log_probs for p in parts]))
    for layer in LAYERS:
        for sign in ("pos", "neg"):
            each = [getattr(one.pairs(layer), sign) for one in parts]
            np.testing.assert_array_equal(getattr(store.pairs(layer), sign), np.concatenate(each))
    assert store.spec.shards == (*SHARDS, (7, 9), (9, 12), (12, 16))
    plan = (*parts[0].spec.batch_plan, ((8, 7),), ((11, 10, 9),), ((15, 14, 13, 12),))
    assert store.spec.batch_plan == plan
    same = {"n_items", "item_digest", "shards", "batch_plan", "texts"}
    for field in dataclasses.fields(store.spec):
        if field.name not in same:
            assert getattr(store.spec, field.name) == getattr(parts[0].spec, field.name)


def test_the_order_of_the_stores_is_the_order_of_the_rows(tmp_path):
    a, b = other(tmp_path / "a", "x"), other(tmp_path / "b", "y")
    store = merge_stores([b, a], tmp_path / "c")
    assert [item.id for item in store.items[:6]] == ["y0", "y1", "y2", "y3", "y4", "x0"]


def test_an_id_that_occurs_twice_is_refused_naming_both_stores(tmp_path):
    a, b = other(tmp_path / "a", "x"), other(tmp_path / "b", "y")
    d = other(tmp_path / "d", "x", sizes=(3,))
    with pytest.raises(ValueError, match=rf"item 'x0' is in {a} and in {d}"):
        merge_stores([a, b, d], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_incomplete_store_of_other_items_is_refused(tmp_path):
    a, b = other(tmp_path / "a", "x"), part(tmp_path / "b", [0, 1])
    with pytest.raises(
        ValueError, match=rf"{b} is incomplete: shard-00002\.safetensors is missing"
    ):
        merge_stores([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()


LENGTHS = {"least": 3, "median": 4, "most": 9, "total": 40}


def test_facts_about_the_texts_are_put_together_and_kept(tmp_path):
    one = {"prompt_tokens": LENGTHS, "trained_length": 8, "beyond_trained_length": 1}
    two = {
        "prompt_tokens": {"least": 5, "median": 6, "most": 7, "total": 30},
        "trained_length": 8,
        "beyond_trained_length": 2,
    }
    a, b = other(tmp_path / "a", "x", texts=one), other(tmp_path / "b", "y", texts=two)
    other(tmp_path / "d", "z", texts=two)
    both = merge_stores([a, b], tmp_path / "c").spec.texts
    assert both["prompt_tokens"] == {"least": 3, "most": 9, "total": 70}
    assert both["trained_length"] == 8
    assert both["beyond_trained_length"] == 3
    assert both["parts"] == [one, two]
    three = merge_stores([tmp_path / "c", tmp_path / "d"], tmp_path / "e").spec.texts
    assert three["parts"] == [one, two, two]
    assert three["prompt_tokens"]["total"] == 100


def test_the_prefix_that_prompts_share_follows_from_the_items_and_may_differ(tmp_path):
    """Only between different items: of the same items it tells of another computation."""
    both = [{"token_budget": 64, "shared_prefix": length} for length in (12, 30)]
    a = other(tmp_path / "a", "x", settings=both[0])
    b = other(tmp_path / "b", "y", settings=both[1])
    merged = merge_stores([a, b], tmp_path / "c").spec.settings
    assert merged == {"token_budget": 64, "shared_prefix": [12, 30]}
    d = other(tmp_path / "d", "x", settings=both[1])
    with pytest.raises(ValueError, match=rf"settings\.shared_prefix: {a} has 12, {d} has 30"):
        merge_stores([a, d], tmp_path / "e")


# --- refused, interrupted ------------------------------------------------------------------------

DIFFERENT = {
    "model_digest": ("xyz", "'abc'", "'xyz'"),
    "dtype": ("float32", "'bfloat16'", "'float32'"),
    "layers": ((0, 2), r"\[0, 2, 3\]", r"\[0, 2\]"),
    "d_model": (4, "5", "4"),
    "settings": ({"token_budget": 9}, "64", "9"),
    "prompt_format": ({"name": "pair", "true_word": " True"}, "'claim'", "'pair'"),
}


@pytest.mark.parametrize("field", DIFFERENT)
@pytest.mark.parametrize("same_items", [False, True])
def test_stores_that_differ_where_it_matters_are_refused(tmp_path, field, same_items):
    value, first, second = DIFFERENT[field]
    a = other(tmp_path / "a", "x")
    b = other(tmp_path / "b", "x" if same_items else "y", **{field: value})
    expected = rf"\n  {field}[.a-z_]*: {a} has {first}, {b} has {second}$"
    with pytest.raises(ValueError, match=expected):
        merge_stores([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_parts_that_are_cut_into_other_shards_are_refused(tmp_path):
    a = part(tmp_path / "a", [0])
    shards, plan = ((0, 3), (3, 4), (4, 7)), (((0, 1, 2),), ((3,),), ((4, 5, 6),))
    b = open_writer(tmp_path / "b", shards=shards, batch_plan=plan).folder
    with pytest.raises(ValueError, match=rf"shards: {a} has \[\[0, 3\], \[3, 6\].* {b} has"):
        merge_stores([a, b], tmp_path / "c")


def test_the_same_weights_under_another_name_are_the_same_model(tmp_path):
    a = other(tmp_path / "a", "x", model="org/tiny", revision="abc")
    store = merge_stores([a, other(tmp_path / "b", "y", model="tiny")], tmp_path / "c")
    assert (store.spec.model, store.spec.revision) == ("org/tiny", "abc")


def test_a_store_is_not_merged_into_itself(tmp_path, monkeypatch):
    a = part(tmp_path / "a", [1])
    b = part(tmp_path / "b", [0, 2])
    before = files(a)
    (tmp_path / "link").symlink_to(a)
    monkeypatch.chdir(tmp_path)
    for out in (a, "a", "b/../a", "link"):
        with pytest.raises(ValueError, match="is one of the stores"):
            merge_stores([a, b], out)
    assert files(a) == before
    url = f"memory://{uuid.uuid4().hex}/s"
    fill(url)
    with pytest.raises(ValueError, match="is one of the stores"):
        merge_stores([url], url + "/")
    with pytest.raises(ValueError, match="no stores to merge"):
        merge_stores([], tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="nowhere is no activation store"):
        merge_stores([a, "nowhere"], tmp_path / "c")


def test_what_another_store_holds_is_not_overwritten(tmp_path):
    a, b = other(tmp_path / "a", "x"), other(tmp_path / "b", "y")
    fill(tmp_path / "c")
    before = files(tmp_path / "c")
    with pytest.raises(ValueError, match="item_digest: stored"):
        merge_stores([a, b], tmp_path / "c")
    assert files(tmp_path / "c") == before


@pytest.mark.parametrize("after", range(5))
def test_an_interrupted_merge_goes_on_and_ends_with_the_same_bytes(place, after, monkeypatch):
    """Interrupted after each shard; the last time when only the manifest is not final."""
    stores = [other(place("a"), "x"), other(place("b"), "y")]
    merge_stores(stores, place("whole"))
    real, left = StoreWriter.write, [None] * after

    def write_some(self, *args):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        real(self, *args)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", write_some)
        patch.setattr(StoreWriter, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_stores(stores, place("c"))
    cut = ActivationStore.open(place("c"))
    assert not cut.complete
    assert cut.missing() == list(range(after, 4))
    with pytest.raises(ValueError, match="incomplete"):
        cut.pairs(0)
    merge_stores(stores, place("c")).verify()
    assert files(place("c")) == files(place("whole"))
    merge_stores(stores, place("c"))
    assert files(place("c")) == files(place("whole"))


def test_one_shard_at_a_time_is_in_memory(tmp_path):
    """16 shards of 600 kB: the merge takes less than four of them at its height."""
    wide = {"d_model": 5_000, "dtype": "float32", "layers": (0,)}
    a = other(tmp_path / "a", "x", sizes=(15,) * 8, **wide)
    b = other(tmp_path / "b", "y", sizes=(15,) * 8, **wide)
    one = (a / "shard-00000.safetensors").stat().st_size
    assert one > 2 * 15 * 5_000 * 4
    tracemalloc.start()
    try:
        merge_stores([a, b], tmp_path / "c")
        height = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert height < 4 * one


def test_the_numbers_of_the_parts_are_those_that_were_made(tmp_path):
    """The helpers of these tests read back what `numbers` made, not each other."""
    a, b = part(tmp_path / "a", [0]), part(tmp_path / "b", [1, 2])
    store = merge_stores([a, b], tmp_path / "c")
    states, log_probs = numbers()
    np.testing.assert_array_equal(store.log_probs, log_probs)
    np.testing.assert_array_equal(store.pairs(3).neg, states[3][1].astype(np.float32))
    assert states[3][1].shape == (7, D)
