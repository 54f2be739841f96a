"""`python -m extract run|info|verify|merge` on a tiny model and a folder of items."""

import dataclasses
import io
import os
import re
import subprocess
import sys
import uuid

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_models import CONFIGS, ROOT, long_items, make_items, random_weights, tokenizer

from extract import cli
from extract.info import show
from jelicit.activations import ActivationStore, StoreSpec, StoreWriter, merge_stores
from jelicit.data.items import Item, digest, save_items
from jelicit.data.prompts import FORMATS


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
    assert "1, 3 of 0..3" in line(out, "layers")
    assert "D = 32, float32" in line(out, "per item")
    lengths = store.spec.texts["prompt_tokens"]
    assert f"{lengths['least']} to {lengths['most']}" in line(out, "tokens   ")
    norms = [np.linalg.norm(np.asarray(x), axis=1).mean() for x in store.pairs(3)]
    assert [f"{norm:.4g}" for norm in norms] == out.split("phi+ - phi-")[1].split()[5:7]

    assert run(monkeypatch, capsys, "verify", "s")[0] == 0
    shard = folders / "s" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    code, _, err = run(monkeypatch, capsys, "verify", "s")
    assert code == 1
    assert err.startswith("error: s: the checksum of shard-00000.safetensors")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"features": ("alice",), "dataset": "pocket/pairs"}, "its prompt shows choice_2, too"),
        ({"features": ("none", "sycophancy"), "format": "statement"}, "shows no question"),
        ({"features": ("alice", "punctuation")}, "its texts are no single claims"),
    ],
)
def test_a_feature_that_the_items_cannot_have_is_refused(words, why):
    with pytest.raises(ValueError, match=rf"^--features {words['features'][-1]}: .*{why}; leave"):
        cli.Run(max_items=8, **words).items()


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


@pytest.mark.slow
def test_two_processes_of_a_real_launcher_make_one_whole_store(folders, monkeypatch, capsys):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*RUN, "--out", "two", "--shard-size", "2", "--threads", "1"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "extract", *words],
        cwd=folders,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
    run(monkeypatch, capsys, *words[: words.index("two")], "one", *words[words.index("two") + 1 :])
    one, two = (
        {path.name: path.read_bytes() for path in (folders / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


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
        ((*RUN, "--model", "./modle", "--out", "s4://bucket/x"), "Protocol not known: s4"),
        (("merge", "nowhere", "--out", "c"), "nowhere is no activation store"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_1(folders, monkeypatch, capsys, words, message):
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 1
    assert err.count("error: ") == 1
    assert re.search(message, err), err


# --- options and names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tensor-parallel", "2"), "--tensor-parallel does nothing with --backend transformers"),
        (("--max-model-len", "99"), "--max-model-len does nothing with --backend transformers"),
        (("--scratch", "/dev/shm"), "--scratch does nothing with --backend transformers"),
        (("--backend", "vllm", "--method", "shared"), "--method does nothing with --backend vllm"),
        (("--backend", "vllm", "--device", "cpu"), "--device does nothing with --backend vllm"),
        (("--backend", "vllm"), "--threads does nothing with --backend vllm"),
        (("--device", "cuda:7"), "--threads does nothing with --device cuda:7"),
        (("--revision", "v2"), "revision is 'v2', but ./model: is a folder"),
        (("--model", "pocket", "--revision", "v2"), "the pocket model ships with the package"),
    ],
)
def test_options_that_do_nothing_are_refused(folders, monkeypatch, capsys, words, said):
    base = RUN if "--threads" in said else RUN[:-2]
    code, _, err = run(monkeypatch, capsys, *base, "--out", "s", *words)
    assert (code, err.count("\n")) == (1, 1), err
    assert said in err
    assert not (folders / "s").exists()


def test_skip_long_on_the_command_line(folders, monkeypatch, capsys):
    save_items(folders / "claims" / "train.jsonl", long_items())
    words = (*RUN, "--out", "s")
    code, _, err = run(monkeypatch, capsys, *words)
    assert (code, err.count("error: ")) == (1, 1)
    assert "--skip-long" in err
    assert not (folders / "s").exists()
    assert run(monkeypatch, capsys, *words, "--skip-long")[0] == 0
    assert len(ActivationStore.open("s")) == 3


def test_names_and_errors_give_the_terminal_no_orders(folders, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, *RUN[:4], "./\x1b[2J")
    assert code == 1
    assert "\x1b" not in err
    code, out, _ = run(monkeypatch, capsys, *RUN, "--out", "o \x1b[2Jé")
    assert code == 0
    assert "\x1b" not in out
    assert re.search(r"`python -m extract info 'o \\x1b\[2Jé'`", out)


# --- info ----------------------------------------------------------------------------------------


def hand_made(folder, items, *, log_probs, **changes):
    """A store of known log-probabilities, in one shard, with two layers of width 2."""
    n = len(items)
    spec = StoreSpec(
        **{
            "model": "tiny",
            "revision": "",
            "model_digest": "abc",
            "dtype": "float32",
            "prompt_format": dataclasses.asdict(FORMATS["statement"]),
            "layers": (0, 2),
            "n_items": n,
            "item_digest": digest(items),
            "d_model": 2,
            "shards": ((0, n),),
            "batch_plan": ((tuple(range(n)),),),
            "n_blocks": 2,
        }
        | changes
    )
    writer = StoreWriter.open(folder, spec, items)
    three_four = np.tile(np.array([3, 4], np.float32), (n, 1))
    states = {0: (three_four, 2 * three_four), 2: (0 * three_four, three_four)}
    writer.write(0, states, np.log(np.array(log_probs, np.float32)))
    return writer.finish()


def page(store, *, width=100):
    """What `info` prints, without the trailing space."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    show(store, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def fact(text, name):
    (found,) = re.findall(rf"^  {re.escape(name)}  +(.*)$", text, re.MULTILINE)
    return found


FOUR = [
    Item(id="a", choice="one", label=True, alt_labels={"loud": True}, origin="pocket", group="g"),
    Item(id="b", choice="two", label=False, origin="pocket", group="g"),
    Item(id="c", choice="three", label=False, origin="hub:x", dataset="d", split="test"),
    Item(id="d", choice="four", label=None, origin="pocket"),
]
# True, True, False, False: right, wrong, right, not known.
PROBABILITIES = [[0.6, 0.2], [0.5, 0.1], [0.1, 0.5], [0.2, 0.6]]


def test_info_counts_labels_and_measures_the_answers(tmp_path):
    text = page(hand_made(tmp_path / "s", FOUR, log_probs=PROBABILITIES))
    assert fact(text, "label") == "1 True, 2 False, 1 None"
    assert fact(text, "alt label loud") == "1 True, 0 False, 3 None"
    assert fact(text, "number") == "4 in 3 groups"
    assert fact(text, "origin") == "pocket 3, hub:x 1"
    assert fact(text, "verdict mass").startswith("0.700 (")
    expected = "0.667 of 3 labelled items (always the commoner label: 0.667)"
    assert fact(text, "accuracy") == expected
    assert fact(text, "says true") == "0.667 of them"
    assert re.search(r"0 +5 +10 +5\n +2 +0 +5 +5\n", text)


def test_info_measures_the_label_that_the_format_asks_for(tmp_path):
    format = dataclasses.asdict(FORMATS["statement"]) | {"target": "loud"}
    text = page(hand_made(tmp_path / "s", FOUR, log_probs=PROBABILITIES, prompt_format=format))
    assert fact(text, "accuracy").startswith("1.000 of 1 labelled items")
    assert "the alt label loud" in fact(text, "format")
    none = [dataclasses.replace(item, label=None) for item in FOUR]
    text = page(hand_made(tmp_path / "t", none, log_probs=PROBABILITIES))
    assert fact(text, "accuracy") == "no item has a label to compare with"


def test_info_names_everything_that_made_a_merged_store(tmp_path):
    for name, device in (("a", "cpu"), ("b", "H200")):
        items = [dataclasses.replace(item, id=f"{name}{item.id}") for item in FOUR]
        lengths = {"least": 3, "median": 4, "most": 5, "total": 16}
        hand_made(
            tmp_path / name,
            items,
            log_probs=PROBABILITIES,
            machine={"device": device},
            versions={"torch": "2.6"},
            revision="0123456789abcdef",
            texts={"prompt_tokens": lengths, "byte_share": {"a": 0.01, "b": 0.05}[name]},
        )
    store = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    text = page(store)
    assert fact(text, "on") == "device cpu | H200"
    assert fact(text, "with") == "torch 2.6"
    assert fact(text, "model") == "tiny 0123456789ab"
    assert fact(text, "tokens") == "3 to 5"
    assert fact(text, "letters spelled in bytes") == "1.0% to 5.0%"


def test_the_lines_that_info_prints_read_the_store(tmp_path):
    """Also from a folder whose name is wider than the terminal."""
    folder = tmp_path / ("long" * 20)
    store = hand_made(folder, FOUR, log_probs=PROBABILITIES)
    lines = page(store, width=60).split("Read it\n")[1].splitlines()
    assert len(lines) == 3
    found = {}
    exec("\n".join(lines), found)
    np.testing.assert_array_equal(found["pos"], store.pairs(2).pos)


def test_texts_of_a_data_set_neither_style_the_page_nor_reach_the_terminal(tmp_path):
    choice = "[bold red]x[/] [/nope] :smile: \x1b[2J\u202egnp" + "y" * 5_000 + "the end"
    items = [Item(id="[link=http://x]a[/link]", choice=choice, label=None, origin="[red]o")]
    store = hand_made(tmp_path / "s", items, log_probs=[[0.5, 0.5]], model="[blink]m[/blink]")
    text = page(store, width=1000)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"[bold red]x[/] [/nope] :smile: \x1b[2J\u202egnp" in text
    assert "[link=http://x]a[/link] (label None)" in text
    assert fact(text, "origin") == "[red]o"
    assert fact(text, "model") == "[blink]m[/blink]"
    assert "characters ...]" in text
    assert text.count("y") < 700
    assert re.search(r"yyythe end *│\n.*I think this claim is <' True' or ' False'>", text)


def test_info_reads_a_bounded_number_of_rows_for_the_norms(tmp_path, monkeypatch):
    monkeypatch.setattr("extract.info.NORM_ROWS", 3)
    asked, real = [], ActivationStore.pairs

    def spy(self, layer, rows=None):
        asked.append(rows)
        return real(self, layer, rows)

    monkeypatch.setattr(ActivationStore, "pairs", spy)
    text = page(hand_made(tmp_path / "s", FOUR, log_probs=PROBABILITIES))
    assert [list(rows) for rows in asked] == [[0, 1, 2]] * 2
    assert "Mean norms, of the first 3 items" in text


# --- merge, URLs ---------------------------------------------------------------------------------


def test_merge_of_two_data_sets(folders, monkeypatch, capsys):
    for split in ("train", "test"):
        save_items(folders / "more" / f"{split}.jsonl", renamed(make_items(5)))
    run(monkeypatch, capsys, *RUN, "--out", "a", "--shard-size", "4")
    more = ("./more" if word == "./claims" else word for word in RUN)
    run(monkeypatch, capsys, *more, "--out", "b", "--shard-size", "4")
    code, out, err = run(monkeypatch, capsys, "merge", "a", "b", "--out", "c")
    assert (code, err) == (0, "")
    assert out.startswith("c: 14 items in 5 shard(s), complete")
    assert run(monkeypatch, capsys, "verify", "c")[0] == 0
    code, out, _ = run(monkeypatch, capsys, "info", "c")
    assert "5, complete" in line(out, "shards")
    code, _, err = run(monkeypatch, capsys, "merge", "a", "c", "--out", "d")
    assert code == 1
    assert re.search(r"^error: item .* is in a and in c; ids must be unique", err)


def renamed(items):
    return [
        dataclasses.replace(item, id=f"more/{item.id}", group=f"more/{item.group}")
        for item in items
    ]


def test_merge_of_what_two_machines_wrote(folders, monkeypatch, capsys):
    words = (*RUN, "--shard-size", "4")
    run(monkeypatch, capsys, *words, "--out", "whole")
    for rank, out in enumerate("ab"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        run(monkeypatch, capsys, *words, "--out", out)
    code, _, err = run(monkeypatch, capsys, "merge", "a", "--out", "c")
    assert code == 1
    assert re.search(r"^error: .* none of a: 1 \(rows 4\.\.8\)\. Run", err), err
    code, out, _ = run(monkeypatch, capsys, "merge", "a", "b", "--out", "c é")
    assert code == 0
    assert "`python -m extract info 'c é'`" in out  # as a shell takes it
    for path in (folders / "whole").iterdir():
        assert (folders / "c é" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_run_info_verify_under_a_url(folders, monkeypatch, capsys, kind):
    url = f"file://{folders}/u/s" if kind == "file" else f"memory://{uuid.uuid4().hex}/s"
    words = (*RUN, "--shard-size", "4")
    code, out, err = run(monkeypatch, capsys, *words, "--out", url)
    assert (code, f"extract info {url}" in out) == (0, True), err
    run(monkeypatch, capsys, *words, "--out", "local")
    local, remote = ActivationStore.open("local"), ActivationStore.open(url)
    np.testing.assert_array_equal(remote.pairs(-1).neg, local.pairs(-1).neg)
    code, out, _ = run(monkeypatch, capsys, "info", url)
    assert code == 0
    assert "3, complete" in line(out, "shards")
    code, out, _ = run(monkeypatch, capsys, "verify", url)
    assert (code, out.startswith(f"{url}: 3 shard(s) and 9 items are as")) == (0, True)
    assert run(monkeypatch, capsys, "merge", url, "--out", "copy")[0] == 0
    assert ActivationStore.open("copy").complete
    code, _, err = run(monkeypatch, capsys, "info", f"{url}/typo")
    assert (code, err.count("error: ")) == (1, 1)
    code, _, err = run(monkeypatch, capsys, "info", "s4://bucket/x")
    assert (code, "Protocol not known" in err) == (1, True)
