"""`python -m extract run|info|verify` on a tiny model and a folder of items."""

import re
import sys

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, make_items, random_weights, tokenizer

from extract import __main__ as cli
from jelicit.activations import ActivationStore
from jelicit.data.items import save_items


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A model folder and a data folder, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    threads = torch.get_num_threads()
    random_weights(CONFIGS["llama"]()).save_pretrained(tmp_path / "model")
    tokenizer(bos=True).save_pretrained(tmp_path / "model")
    save_items(tmp_path / "claims" / "train.jsonl", make_items(9))
    save_items(tmp_path / "claims" / "test.jsonl", make_items(4))
    yield tmp_path
    torch.set_num_threads(threads)


def run(monkeypatch, capsys, *words):
    """(exit code, what was printed, what went to stderr)."""
    monkeypatch.setattr(sys, "argv", ["extract", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


RUN = ("run", "--model", "./model", "--dataset", "./claims", "--threads", "1")


def test_run_info_verify(folders, monkeypatch, capsys):
    words = (*RUN, "--features", "punctuation", "tense", "--layers", "1", "-1", "--out", "s")
    code, out, err = run(monkeypatch, capsys, *words, "--split", "test")
    assert (code, "4 items in the format 'claim' -> s" in out) == (0, True), err
    store = ActivationStore.open(folders / "s")
    assert store.layers == (1, 3)
    assert [item.meta["features"] for item in store.items] == [["punctuation", "tense"]] * 4
    store.verify()

    code, out, _ = run(monkeypatch, capsys, "info", "s")
    assert code == 0
    assert f"{np.exp(store.log_probs).sum(1).mean():.3f}" in line(out, "verdict mass")
    assert "1, 3 of 0..3, width 32, float32" in line(out, "layers")
    lengths = store.spec.texts["prompt_tokens"]
    assert f"{lengths['least']} to {lengths['most']}" in line(out, "prompt tokens")
    norms = [np.linalg.norm(np.asarray(x), axis=1).mean() for x in store.pairs(3)]
    assert [f"{norm:.4g}" for norm in norms] == line(out, "│     3 │").split()[3:6:2]

    assert run(monkeypatch, capsys, "verify", "s")[0] == 0
    shard = folders / "s" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    code, _, err = run(monkeypatch, capsys, "verify", "s")
    assert code == 1
    assert err.startswith("error: s: the checksum of shard-00000.safetensors")


def line(text, name):
    (found,) = [line for line in text.splitlines() if name in line]
    return found


def test_the_default_folder_is_named_after_everything_asked_for(folders, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, *RUN, "--features", "tense", "--max-items", "5")
    assert code == 0, err
    store = ActivationStore.open(folders / "activations" / "model_claims_train_tense_claim")
    assert len(store) == 5


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("../../etc", "a/b", "c"), "etc_a-b_c"),
        (
            ("meta-llama/Llama-3.1-8B", "liar", "liar/truth"),
            "meta-llama-Llama-3.1-8B_liar_liar-truth",
        ),
        ((".hidden", "", "x y\n"), "hidden_x-y"),
    ],
)
def test_default_names_stay_inside_their_folder(parts, name):
    assert cli.default_name(*parts) == name


def test_the_same_command_again_changes_nothing_and_another_is_refused(
    folders, monkeypatch, capsys
):
    run(monkeypatch, capsys, *RUN, "--out", "s")
    before = {path: path.read_bytes() for path in (folders / "s").iterdir()}
    assert run(monkeypatch, capsys, *RUN, "--out", "s")[0] == 0
    code, _, err = run(monkeypatch, capsys, *RUN, "--out", "s", "--dtype", "bfloat16")
    assert code == 1
    assert "dtype: stored 'float32', asked 'bfloat16'" in err
    assert before == {path: path.read_bytes() for path in (folders / "s").iterdir()}


def test_workers_of_a_launcher_share_a_store(folders, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, state in ((1, "others are not"), (0, "complete")):
        monkeypatch.setenv("RANK", str(rank))
        code, out, _ = run(monkeypatch, capsys, *RUN, "--out", "s", "--shard-size", "2")
        assert code == 0
        assert state in out
    code, out, _ = run(monkeypatch, capsys, "info", "s")
    assert "5, complete" in line(out, "shards")


def test_an_incomplete_store_is_shown_as_that(folders, monkeypatch, capsys):
    run(monkeypatch, capsys, *RUN, "--out", "s", "--shard-size", "3")
    (folders / "s" / "shard-00001.safetensors").unlink()
    code, out, _ = run(monkeypatch, capsys, "info", "s")
    assert code == 0
    assert "INCOMPLETE: [1]" in line(out, "shards")
    assert "verdict mass" not in out
    code, _, err = run(monkeypatch, capsys, "verify", "s")
    assert code == 1
    assert "shard-00001.safetensors is missing" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "nowhere"), "nowhere is no activation store"),
        ((*RUN, "--format", "clam"), "unknown prompt format 'clam'"),
        ((*RUN, "--split", "valid"), "has no valid items"),
        ((*RUN[:4], "./clams"), "clams"),
        (("run", "--model", "./modle", "--dataset", "./claims"), "no model in the folder modle"),
        ((*RUN, "--layers", "7"), r"layers \[7\]: the model has 3 blocks"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_1(folders, monkeypatch, capsys, words, message):
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 1
    assert err.count("error: ") == 1
    assert re.search(message, err), err
