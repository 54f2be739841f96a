"""Fine-tuning a causal model on verdicts: what is learnt, what is left, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("peft", reason="training needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from extract import dtype_trial
from extract.bfloat16_training import quick_attention, turn_frozen
from extract.finetune import finetune, verdict_loss
from extract.finetune_settings import FinetuneSettings
from extract.local_scorer import LocalScorer
from extract.models import load, trained_length
from extract.trained_folder import WHOLE, MarkWhole
from extract.trainer_settings import precision_of
from extract.verdict_data import collate, labelled
from jelicit.data.items import Item, labels
from jelicit.data.prompts import get_format
from jelicit.prompting import zero_shot_scores

ROOT = Path(__file__).resolve().parents[1]
FORM = get_format("statement")
QUICK = FinetuneSettings(epochs=2, batch_size=8, learning_rate=1e-2, save_every=500)


def items_of(n, *, split="train"):
    """Claims whose truth stands in them."""
    return [
        Item(id=f"{split}/{i}", choice=f"{split} {i} is {i % 2 == 0}.", label=i % 2 == 0)
        for i in range(n)
    ]


ITEMS = items_of(20)


def train(model, out, *, items=ITEMS, given=None, settings=QUICK, **options):
    given = labels(items) if given is None else given
    options = {"progress": False, "say": lambda line: None, **options}
    return finetune(str(model), items, given, FORM, out, settings=settings, **options)


def weights(folder):
    name = "adapter_model" if (folder / "adapter_config.json").is_file() else "model"
    return load_file(folder / f"{name}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(random_model, tmp_path_factory):
    return train(random_model, tmp_path_factory.mktemp("tuned") / "whole")


@pytest.fixture(scope="module")
def adapter(random_model, tmp_path_factory):
    settings = replace(QUICK, weights="lora")
    return train(random_model, tmp_path_factory.mktemp("tuned") / "lora", settings=settings)


def test_the_loss_is_that_of_the_verdict_token_alone():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(3, 7)))
    verdicts, targets = torch.tensor([[1, 4], [1, 4], [2, 0]]), torch.tensor([1.0, 0.0, 0.25])
    log_p = torch.log_softmax(logits.float(), 1)
    vocabulary = verdict_loss(logits, verdicts, targets, loss="vocabulary")
    expected = [-log_p[0, 1], -log_p[1, 4], -(0.25 * log_p[2, 2] + 0.75 * log_p[2, 0])]
    assert torch.allclose(vocabulary, torch.stack(expected))
    odds = (logits[:, verdicts[:, 0].tolist()].diag() - logits[[0, 1, 2], [4, 4, 0]]).float()
    alone = torch.nn.functional.binary_cross_entropy_with_logits(odds, targets, reduction="none")
    assert torch.allclose(verdict_loss(logits, verdicts, targets, loss="verdicts"), alone)


def test_a_batch_ends_where_its_prompts_end():
    batch = collate(
        [
            {"ids": (5, 6, 7), "verdicts": (1, 2), "target": 1.0},
            {"ids": (8,), "verdicts": (1, 2), "target": 0.5},
        ]
    )
    assert batch["ends"].tolist() == [2, 0]
    assert batch["attention_mask"].sum(1).tolist() == [3, 1]
    assert batch["input_ids"][1].tolist() == [8, *[0] * 7]
    assert batch["targets"].tolist() == [1.0, 0.5]


def test_the_model_gives_the_verdicts_that_it_was_taught(whole, adapter, random_model):
    settings = replace(QUICK, epochs=40, batch_size=20)
    for folder in (whole, adapter):
        losses = json.loads((folder / "training.json").read_text())["losses"]
        assert len(losses) == 6  # 2 epochs of 20 items in batches of 8
        assert losses[-1] < losses[0]
    turned = train(
        random_model, whole.parent / "turned", given=1 - labels(ITEMS), settings=settings
    )
    scores = zero_shot_scores(LocalScorer(load(str(turned))), ITEMS, FORM)
    assert ((scores > 0) == (labels(ITEMS) == 0)).all()


def test_the_first_loss_is_what_the_base_model_says(whole, random_model):
    """The loss of the first batch, over the vocabulary, as another way of computing has it."""
    one = train(random_model, whole.parent / "first", settings=replace(QUICK, batch_size=20))
    lm = load(str(random_model))
    probabilities = LocalScorer(lm, match="tokens").score(
        [(FORM.text.format(choice=item.choice),) for item in ITEMS], (" True", " False")
    )
    right = probabilities[np.arange(20), 1 - labels(ITEMS).astype(int)]
    losses = json.loads((one / "training.json").read_text())["losses"]
    assert losses[0] == pytest.approx(-right.mean(), rel=1e-5)


def test_what_is_left_is_a_model_for_transformers_and_for_every_command(whole, adapter):
    for folder in (whole, adapter):
        lm = load(str(folder))
        ids = torch.tensor([lm.tokenizer("a claim")["input_ids"]])
        other = AutoModelForCausalLM.from_pretrained(folder)
        with torch.inference_mode():
            assert torch.allclose(lm.model(ids).logits, other(ids).logits, atol=1e-6)
    assert load(str(whole)).config.use_cache


def test_an_adapter_knows_how_long_texts_its_base_was_trained_on(adapter, random_model):
    assert trained_length(str(adapter)) == trained_length(str(random_model)) == 512


def test_an_adapter_merged_is_the_same_model(adapter, random_model):
    settings = replace(QUICK, weights="lora", merge=True)
    merged = train(random_model, adapter.parent / "merged", settings=settings)
    assert not (merged / "adapter_config.json").exists()
    scores = [zero_shot_scores(LocalScorer(load(str(f))), ITEMS, FORM) for f in (adapter, merged)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_the_same_settings_give_the_same_weights_and_another_seed_others(whole, random_model):
    state = torch.get_rng_state()
    torch.manual_seed(77)  # whatever the process drew before
    again = train(random_model, whole.parent / "again")
    other = train(random_model, whole.parent / "other", settings=replace(QUICK, seed=1))
    torch.set_rng_state(state)
    assert same(weights(whole), weights(again))
    assert not same(weights(whole), weights(other))


def test_gold_labels_have_no_way_into_a_training(whole, random_model):
    """Items whose own labels were permuted, with the same labels given: the same bits."""
    turned = [replace(item, label=not item.label, alt_labels={"gold": True}) for item in ITEMS]
    again = train(random_model, whole.parent / "gold", items=turned, given=labels(ITEMS))
    assert same(weights(whole), weights(again))


def test_passes_of_a_few_items_make_the_same_step(whole, random_model):
    """Where batches are whole: the mean of means is the mean."""
    items = ITEMS[:16]
    at_once = train(random_model, whole.parent / "at-once", items=items)
    in_two = train(
        random_model, whole.parent / "in-two", items=items, settings=replace(QUICK, at_once=4)
    )
    losses = [json.loads((f / "training.json").read_text())["losses"] for f in (at_once, in_two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_soft_label_is_learnt_as_such(random_model, tmp_path):
    settings = replace(QUICK, epochs=40, batch_size=20, loss="verdicts")
    soft = train(random_model, tmp_path / "soft", given=np.full(20, 0.8), settings=settings)
    scores = zero_shot_scores(LocalScorer(load(str(soft)), match="tokens"), ITEMS, FORM)
    np.testing.assert_allclose(scores, np.log(4), atol=0.15)


def test_items_without_a_label_are_left_out():
    chosen, targets = labelled(ITEMS[:4], [True, None, float("nan"), 0.25])
    assert [item.id for item in chosen] == ["train/0", "train/3"]
    assert targets == [1.0, 0.25]


# --- killed, and asked for again -----------------------------------------------------------------


class _KilledError(Exception):
    pass


def test_a_training_that_stopped_goes_on_and_ends_the_same(whole, random_model, monkeypatch):
    out = whole.parent / "stopped"
    mark = MarkWhole.on_save

    def stops(self, args, state, control, **more):
        if state.global_step == 4:
            raise _KilledError  # the fourth step's files are there, and not known to be whole
        mark(self, args, state, control, **more)

    monkeypatch.setattr(MarkWhole, "on_save", stops)
    with pytest.raises(_KilledError):
        train(random_model, out, settings=replace(QUICK, save_every=2))
    monkeypatch.undo()
    kept = sorted(path.parent.name for path in out.glob(f"checkpoints/*/{WHOLE}"))
    assert kept == ["checkpoint-2"]
    (out / "checkpoints" / "checkpoint-4" / "model.safetensors").write_bytes(b"half of it")
    train(random_model, out)
    assert same(weights(whole), weights(out))
    assert len(json.loads((out / "training.json").read_text())["losses"]) == 6
    assert not (out / "checkpoints").exists()


KILLED = """
import os, signal, sys
from transformers import TrainerCallback
import test_finetune_model as tests
from extract.trained_folder import MarkWhole

class Kill(MarkWhole):
    def on_step_end(self, args, state, control, **more):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

import extract.training_run
extract.training_run.MarkWhole = Kill
settings = tests.replace(tests.QUICK, save_every=2)
tests.train(sys.argv[1], tests.Path(sys.argv[2]), settings=settings)
"""


@pytest.mark.campaign
def test_a_training_that_was_killed_goes_on_and_ends_the_same(whole, random_model):
    out = whole.parent / "killed"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(random_model), str(out)],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert (out / "checkpoints" / "checkpoint-4" / WHOLE).exists()
    train(random_model, out)
    assert same(weights(whole), weights(out))


def test_what_is_finished_is_not_trained_again(whole, random_model):
    before = (whole / "model.safetensors").stat().st_mtime_ns
    said = []
    assert train(random_model, whole, say=said.append) == whole
    assert (whole / "model.safetensors").stat().st_mtime_ns == before
    assert said == [f"{whole}: trained before"]


# --- what is refused -----------------------------------------------------------------------------


def test_a_folder_of_another_training_is_refused(whole, random_model):
    with pytest.raises(ValueError, match=r"data was .* and is .*: choose another folder"):
        train(random_model, whole, given=1 - labels(ITEMS))


def test_a_folder_with_a_model_is_not_overwritten(random_model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds a model \(config.json\) that was not trained"):
        train(random_model, tmp_path)


def test_items_that_will_be_tested_are_refused_by_text_and_by_group(random_model, tmp_path):
    by_text = [replace(ITEMS[3], id="elsewhere", group="g", choice=ITEMS[3].choice.upper())]
    with pytest.raises(ValueError, match="1 of 20 train items have the text of a test item"):
        train(random_model, tmp_path / "a", held_out=by_text)
    by_group = [replace(ITEMS[3], choice="something else")]
    with pytest.raises(ValueError, match=r"have the group \(question\) of a test item, 'train/3'"):
        train(random_model, tmp_path / "b", held_out=by_group)
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_an_adapter_is_refused(adapter, tmp_path):
    with pytest.raises(ValueError, match=r"is an adapter, .* train its base"):
        train(adapter, tmp_path / "out")


def test_labels_that_are_none_are_refused():
    with pytest.raises(ValueError, match="3 labels for 20 items"):
        labelled(ITEMS, [True] * 3)
    with pytest.raises(ValueError, match="'train/0': its label is 2; allowed: True, False, a n"):
        labelled(ITEMS[:1], [2])
    with pytest.raises(ValueError, match="none of 2 items has a label"):
        labelled(ITEMS[:2], [None, None])


def test_verdicts_of_several_tokens_are_refused(random_model, tmp_path):
    form = replace(FORM, name="long", true_word=" Abracadabra", false_word=" False")
    with pytest.raises(ValueError, match="training needs one token each"):
        finetune(str(random_model), ITEMS, labels(ITEMS), form, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("warmup", 1.0), ("learning_rate", 0.0), ("weights", "some"), ("at_once", 5)],
)
def test_settings_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        replace(QUICK, **{name: value})


# --- what passes compute in ----------------------------------------------------------------------


def sized(parameters, device="cpu") -> Any:
    """What a choice of the precision looks at."""
    return SimpleNamespace(n_parameters=parameters, device=device)


@pytest.mark.parametrize(
    ("parameters", "device", "tiles", "expected"),
    [
        (100_000_000, "cpu", True, "bfloat16"),
        (100_000_000, "cpu", False, "float32"),
        (2_000_000, "cpu", True, "float32"),  # the same numbers on all CPUs
        (100_000_000, "mps", True, "float32"),
    ],
)
def test_a_cpu_trains_in_bfloat16_where_it_has_tiles_of_it_and_no_trial_decides(
    monkeypatch, parameters, device, tiles, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tiles})
    monkeypatch.delattr(dtype_trial, "trial")
    assert precision_of(sized(parameters, device)) == expected


def test_passes_in_bfloat16_train_weights_in_float32(whole, random_model, tmp_path, monkeypatch):
    monkeypatch.setattr("extract.trainer_settings.precision_of", lambda lm: "bfloat16")
    monkeypatch.setattr("extract.finetune.precision_of", lambda lm: "bfloat16")
    coarse = train(random_model, tmp_path / "coarse", settings=replace(QUICK, weights="all"))
    there, fine = weights(coarse), weights(whole)
    assert {w.dtype for w in there.values()} == {torch.float32}
    assert not same(there, fine)  # it did compute in bfloat16
    start = weights(Path(random_model))
    moved = torch.cat([(fine[k] - start[k]).flatten() for k in start])
    apart = torch.cat([(there[k] - fine[k]).flatten() for k in start])
    assert apart.norm() < 0.3 * moved.norm()  # to about the same place
    assert json.loads((coarse / "training.json").read_text())["precision"] == "bfloat16"


def test_frozen_weights_turned_once_train_the_same_adapter(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr("extract.trainer_settings.precision_of", lambda lm: "bfloat16")
    monkeypatch.setattr("extract.finetune.precision_of", lambda lm: "bfloat16")
    settings = replace(QUICK, weights="lora")
    turned = []

    def noted(model):
        turn_frozen(model)
        turned.append({name: weight.dtype for name, weight in model.named_parameters()})

    monkeypatch.setattr("extract.finetune.turn_frozen", noted)
    once = train(random_model, tmp_path / "once", settings=settings)
    monkeypatch.setattr("extract.finetune.turn_frozen", lambda model: None)
    each = train(random_model, tmp_path / "each", settings=settings)
    assert same(weights(once), weights(each))
    (dtypes,) = turned
    within = "base_model.model.model."
    assert dtypes[f"{within}layers.0.self_attn.q_proj.base_layer.weight"] == torch.bfloat16
    for name in ("embed_tokens", "norm", "layers.0.self_attn.q_proj.lora_A.default"):
        assert dtypes[f"{within}{name}.weight"] == torch.float32
    # What is merged is written, so nothing of it is made coarser.
    monkeypatch.setattr("extract.finetune.turn_frozen", noted)
    train(random_model, tmp_path / "merged", settings=replace(settings, merge=True))
    assert len(turned) == 1


def test_attention_is_plain_where_texts_are_short_and_passes_are_in_bfloat16():
    switches = torch.backends.cuda  # of all devices

    def plain(longest, *, bf16=True, cpu=True, rows=16, texts=1):
        how = SimpleNamespace(use_cpu=cpu, bf16=bf16, per_device_train_batch_size=rows)
        shape = SimpleNamespace(num_hidden_layers=32, num_attention_heads=16)
        trainer = SimpleNamespace(args=how, model=SimpleNamespace(config=shape))
        with quick_attention(trainer, longest, texts=texts):
            assert switches.math_sdp_enabled()
            return not switches.flash_sdp_enabled()

    assert plain(128)  # 16 rows x 32 blocks x 16 heads x 128 x 128 = 2 ** 27
    assert not plain(129)
    assert not plain(12, bf16=False)
    assert not plain(12, cpu=False)
    assert plain(128, texts=2)
    assert not plain(128, rows=17, texts=2)  # more than may be kept


def test_an_adapters_own_weights_do_not_decide_what_a_training_computes_in(
    random_model, tmp_path, monkeypatch
):
    size = load(str(random_model)).n_parameters
    monkeypatch.setattr("extract.trainer_settings.ALL_BELOW", size + 1)
    monkeypatch.setattr("extract.finetune_settings.ALL_BELOW", size + 1)
    monkeypatch.setattr(dtype_trial, "has_tiles", lambda: True)
    seen = []
    monkeypatch.setattr("extract.finetune.turn_frozen", seen.append)
    one = train(random_model, tmp_path / "one", settings=replace(QUICK, weights="lora"))
    assert json.loads((one / "training.json").read_text())["precision"] == "float32"
    assert not seen
