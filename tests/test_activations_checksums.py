"""What is read for numbers is what was written: checksums per tensor, and of the manifest."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_stores import SHARDS, assert_whole, files, fill, make_items, make_spec, numbers, write

from jelicit.activations import ActivationStore, StoreWriter

ROOT = Path(__file__).resolve().parents[1]


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def whole_pairs(folder):
    store = ActivationStore.open(folder)
    return [np.concatenate(store.pairs(layer)) for layer in store.layers]


@pytest.mark.parametrize("remote", [False, True])
def test_one_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path, remote):
    """Every byte of a shard's file in turn; padding and unread log-probabilities change nothing."""
    fill(tmp_path)
    expected = whole_pairs(tmp_path)
    path = tmp_path / "shard-00001.safetensors"
    whole, refused = path.read_bytes(), []
    for place in range(len(whole)):
        flip(path, place, bit=place % 8)
        try:
            found = whole_pairs(f"file://{tmp_path}" if remote else tmp_path)
        except ValueError as error:
            refused.append(str(error))
        else:
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        path.write_bytes(whole)
    told = re.compile(r".*shard-00001\.safetensors is damaged: .*")
    assert not [line for line in refused if not told.fullmatch(line)]
    # All of the hidden states' bytes at least.
    assert len(refused) >= (SHARDS[1][1] - SHARDS[1][0]) * 5 * 2 * 2 * 3


def test_a_flipped_bit_is_told_with_file_and_layer_and_only_where_it_is_read(tmp_path):
    fill(tmp_path)
    path = tmp_path / "shard-00002.safetensors"
    states = numbers()[0][3][1][6:7]  # the last row of layer 3, neg
    flip(path, path.read_bytes().index(states.tobytes()))
    store = ActivationStore.open(tmp_path)
    for layer, rows in ((0, None), (2, None), (3, [0, 5])):
        store.pairs(layer, rows)
    told = r"shard-00002\.safetensors is damaged: layer 3 \(neg\) has another checksum.*; delete"
    with pytest.raises(ValueError, match=told):
        store.pairs(3)
    with pytest.raises(ValueError, match=told):  # nor is it forgotten
        store.pairs(3, rows=[6])
    path.unlink()
    writer = StoreWriter.open(tmp_path, make_spec(make_items()), make_items())
    write(writer, 2)
    writer.finish()
    assert_whole(tmp_path)


def test_the_commands_that_read_numbers_end_in_that_line(tmp_path):
    fill(tmp_path / "s")
    flip(tmp_path / "s" / "shard-00000.safetensors", -1)
    command = [sys.executable, "-m", "jelicit", "sweep", str(tmp_path / "s")]
    options = [
        "--test",
        str(tmp_path / "s"),
        "--target",
        "label",
        "--methods",
        "pca",
        "--overlap",
        "keep",
    ]
    done = subprocess.run(
        [*command, *options, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"error: .*shard-00000\.safetensors is damaged: layer 3 \(pos\)", last), last
    assert "Traceback" not in done.stderr


# --- the manifest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_blocks", 4),
        ("layers", [0, 2]),
        ("dtype", "float16"),
        ("model", "other"),
        ("prompt_format", {"name": "claim", "true_word": " False"}),
        ("machine", {}),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, field, value):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["spec"][field] != value
    manifest["spec"][field] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json cannot .* was changed since it was writ"):
        ActivationStore.open(tmp_path)


def test_a_manifest_that_is_only_laid_out_anew_is_read(tmp_path):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "value", [128.0, None, "128", True, [5], {}, -1, "7" * 5000], ids=lambda v: repr(v)[:9]
)
@pytest.mark.parametrize("field", ["d_model", "n_items", "n_blocks", "layers", "shards"])
def test_a_number_that_is_none_is_one_line_with_its_field(tmp_path, field, value):
    if (field, value) == ("n_blocks", None):
        return
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    nested = {"layers": [value], "shards": [[0, value]]}
    manifest["spec"][field] = nested.get(field, value)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read") as error:
        ActivationStore.open(tmp_path)
    assert field in str(error.value) or "was changed" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("change", [{"bytes": 3.0}, {"sha256": None}, {"tensors": []}])
def test_checksums_that_are_none_are_refused(tmp_path, change):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["version"] = 1
    manifest["shards"][0] |= change
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="its shards are not checksums and sizes"):
        ActivationStore.open(tmp_path)


# --- stores of version 1 -------------------------------------------------------------------------


def as_version_1(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    shards = [{k: v for k, v in stamp.items() if k != "tensors"} for stamp in manifest["shards"]]
    del manifest["sha256"]
    path.write_text(json.dumps({**manifest, "version": 1, "shards": shards}))


def test_a_store_without_checksums_of_tensors_is_checked_by_those_of_its_files(tmp_path):
    fill(tmp_path)
    expected = whole_pairs(tmp_path)
    as_version_1(tmp_path)
    np.testing.assert_array_equal(whole_pairs(tmp_path), expected)
    flip(tmp_path / "shard-00001.safetensors", -1)
    store = ActivationStore.open(tmp_path)
    store.pairs(0, rows=[0, 6])
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is damaged: its checksum is"):
        store.pairs(0)


def test_such_a_store_under_a_url_is_read_with_a_warning(tmp_path):
    fill(tmp_path)
    expected = whole_pairs(tmp_path)
    as_version_1(tmp_path)
    store = ActivationStore.open(f"file://{tmp_path}")
    with pytest.warns(UserWarning, match=r"no checksums per layer.*extract verify") as warned:
        found = [np.concatenate(store.pairs(layer)) for layer in store.layers]
    assert len(warned) == 1
    np.testing.assert_array_equal(found, expected)


def test_a_store_that_was_begun_by_version_1_is_finished(tmp_path):
    fill(tmp_path)
    as_version_1(tmp_path)
    (tmp_path / "shard-00001.safetensors").unlink()
    writer = StoreWriter.open(tmp_path, make_spec(make_items()), make_items())
    assert writer.missing() == [1]
    write(writer, 1)
    with warnings.catch_warnings(action="error"):
        writer.finish()
        assert_whole(tmp_path)
        whole_pairs(tmp_path)
    stamps = json.loads((tmp_path / "manifest.json").read_text())["shards"]
    assert ["tensors" in stamp for stamp in stamps] == [False, True, False]


# --- a run that failed before its first shard ----------------------------------------------------


@pytest.mark.parametrize("url", [False, True])
def test_a_store_without_shards_gives_way_to_other_settings(tmp_path, url):
    """As after float16 that overflowed: the advice is bfloat16, so the folder must take it."""
    folder = f"file://{tmp_path}/s" if url else tmp_path / "s"
    items = make_items()
    failed = StoreWriter.open(folder, make_spec(items, dtype="float16"), items)
    fill(folder)
    assert_whole(folder)
    fill(tmp_path / "fresh")
    assert files(folder) == files(tmp_path / "fresh")
    with pytest.raises(ValueError, match="has become another store since it was opened"):
        failed.finish()


def test_a_store_with_a_shard_does_not_give_way(tmp_path):
    items = make_items()
    writer = StoreWriter.open(tmp_path, make_spec(items, dtype="float16"), items)
    write(writer, 1, "float16")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="dtype: stored 'float16', asked 'bfloat16'"):
        fill(tmp_path)
    assert files(tmp_path) == before


def test_a_shard_written_under_replaced_settings_is_not_taken_for_one_of_the_new(tmp_path):
    items = make_items()
    slow = StoreWriter.open(tmp_path, make_spec(items, settings={"token_budget": 32}), items)
    writer = StoreWriter.open(tmp_path, make_spec(items), items)
    write(slow, 0)
    assert writer.missing() == [0, 1, 2]
    for shard in writer.missing():
        write(writer, shard)
    writer.finish()
    assert_whole(tmp_path)
