"""A model is what it says: what is loaded is compared with its files, or refused in one line."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, make_items, random_weights, tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    LlamaForCausalLM,
    LlavaConfig,
    OPTConfig,
    PhiConfig,
)

from extract import load_errors, models
from extract.hidden_states import extract
from extract.load_errors import RefusedModelError
from extract.models import load, wrap
from jelicit.data.prompts import FORMATS

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model and its tokenizer as a folder, not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    random_weights(CONFIGS["llama"]()).save_pretrained(folder)
    tokenizer(bos=True).save_pretrained(folder)
    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """Copies the folder with other tensors or settings in its config."""

    def make(*, lacks=(), more=None, **config):
        folder = tmp_path / "tiny"
        shutil.copytree(saved, folder)
        tensors = load_file(folder / WEIGHTS)
        kept = {name: value for name, value in tensors.items() if name not in lacks}
        save_file({**kept, **(more or {})}, folder / WEIGHTS, metadata={"format": "pt"})
        set_config(folder, **config)
        return folder

    return make


def set_config(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder, **options):
    """The one line that a folder is refused with."""
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        load(folder, threads=1, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"],
)
def test_a_tensor_that_is_missing_is_named_and_not_drawn_at_random(changed, name, capfd):
    message = refusal(changed(lacks=[name]))
    assert f"lack 1 tensor ({name})" in message
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_one_more_block_than_the_files_hold_is_refused(changed):
    message = refusal(changed(num_hidden_layers=4))
    assert "lack 9 tensors (model.layers.3." in message
    assert "and 5 more" in message


def test_one_block_less_than_the_files_hold_is_refused(changed):
    assert "hold 9 tensors (model.layers.2." in refusal(changed(num_hidden_layers=2))


def test_tensors_of_another_shape_are_named_with_both(changed):
    message = refusal(changed(intermediate_size=64))
    assert "model.layers.0.mlp.down_proj.weight 32x48 (asked 32x64)" in message


def test_an_unknown_tensor_is_named_and_one_of_a_picture_tower_is_counted(changed, tmp_path):
    message = refusal(changed(more={"model.layers.0.foo.weight": torch.zeros(3)}))
    assert "hold 1 tensor (model.layers.0.foo.weight)" in message
    shutil.rmtree(tmp_path / "tiny")
    lm = load(changed(more={"vision_tower.patches.weight": torch.zeros(3)}), threads=1)
    assert "1 of parts that read no text left out" in lm.checks["weights"]


def test_a_head_that_is_tied_is_not_missing(changed, saved):
    tied = load(changed(lacks=["lm_head.weight"], tie_word_embeddings=True), threads=1)
    head, embeddings = tied.model.get_output_embeddings(), tied.model.get_input_embeddings()
    assert head.weight is embeddings.weight
    assert "output embeddings" not in tied.checks
    assert tied.digest != load(saved, threads=1).digest


def test_a_head_of_its_own_beside_a_config_that_ties_is_told(changed):
    folder = changed(tie_word_embeddings=True)
    lm, held = load(folder, threads=1), load_file(folder / WEIGHTS)
    assert torch.equal(lm.model.get_output_embeddings().weight, held["lm_head.weight"])
    assert "though the config ties them" in lm.describe()


def test_healthy_models_load_without_a_warning(saved, recwarn):
    lm = load(saved, threads=1)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    assert "30 tensors, none missing, unexpected" in lm.checks["weights"]
    assert "final norm" in lm.checks["hidden states"]
    assert lm.checks["prompts begin with"] == "<s>"


# --- hidden states -------------------------------------------------------------------------------


def test_a_config_that_unties_the_last_state_changes_no_number(changed, saved, tmp_path):
    untied = load(changed(tie_last_hidden_states=False), threads=1)
    plain, items = load(saved, threads=1), make_items(3)
    stores = [
        extract(lm, items, FORMATS["claim"], tmp_path / name, progress=False)
        for lm, name in ((untied, "untied"), (plain, "plain"))
    ]
    for one, other in zip(*(store.pairs(3) for store in stores), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_last_state_before_the_final_norm_is_refused():
    model = random_weights(CONFIGS["llama"]())
    inner = model.model.forward

    def before_norm(*args, **kwargs):
        outputs = inner(*args, **kwargs)
        if outputs.hidden_states is not None:
            *others, last = outputs.hidden_states
            outputs.hidden_states = (*others, others[-1] + 0 * last)
        return outputs

    model.model.forward = before_norm
    with pytest.raises(RefusedModelError, match=r"index 3\) is not what its output embeddings"):
        wrap(model, tokenizer(bos=True), name="odd")


def test_a_model_that_sees_later_tokens_is_no_causal_one():
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    model = random_weights(config)
    with pytest.raises(RefusedModelError, match="no causal language model: a token's state dep"):
        wrap(model, tokenizer(bos=True), name="bert")


@pytest.mark.parametrize("kind", [*CONFIGS, "opt", "phi"])
def test_architectures_pass_the_check_of_their_states(kind):
    made = {
        "opt": lambda: OPTConfig(
            vocab_size=320, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48
        ),
        "phi": lambda: PhiConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
        ),
    } | CONFIGS
    lm = wrap(random_weights(made[kind]()), tokenizer(bos=True), name=kind, threads=1)
    assert "causal; the last is what the output embeddings read" in lm.checks["hidden states"]


# --- adapters ------------------------------------------------------------------------------------


def save_adapter(folder, base, *, rank=2, seed=0, alpha=8):
    """A LoRA adapter of random weights."""
    peft = pytest.importorskip("peft", reason="needs peft")
    model = LlamaForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder)
    return folder


def states(lm, folder):
    store = extract(lm, make_items(3), FORMATS["claim"], folder, layers=(2,), progress=False)
    return np.asarray(store.pairs(2).pos)


def test_an_adapter_alone_is_its_base_with_the_adapter_applied(saved, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft")
    lm = load(save_adapter(tmp_path / "lora", saved), threads=1)
    base = load(saved, threads=1)
    assert "adapter: of the base" in lm.describe()
    assert lm.digest != base.digest
    got = states(lm, tmp_path / "a")
    assert np.abs(got - states(base, tmp_path / "b")).max() > 0.01
    merged = peft.PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(saved), tmp_path / "lora"
    ).merge_and_unload()
    expected = states(wrap(merged, base.tokenizer, name="m", threads=1), tmp_path / "c")
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_the_digest_covers_base_and_adapter(saved, changed, tmp_path):
    other = changed(trained_length=100)
    digests = {
        load(save_adapter(tmp_path / f"{seed}-{base.parent.name}", base, seed=seed)).digest
        for base in (saved, other)
        for seed in (0, 1)
    }
    assert len(digests) == 4


def test_the_digest_covers_the_adapters_config(saved, tmp_path):
    """Its scale is in no tensor: the same weights count for twice as much."""
    folders = [save_adapter(tmp_path / str(alpha), saved, alpha=alpha) for alpha in (8, 16)]
    weights = {(folder / "adapter_model.safetensors").read_bytes() for folder in folders}
    assert len(weights) == 1
    assert len({load(folder).digest for folder in folders}) == 2


def test_the_digest_of_an_adapted_model_in_memory_follows_its_scale(saved, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft")
    tok, digests = tokenizer(bos=True), set()
    for alpha in (8, 16):
        folder = save_adapter(tmp_path / str(alpha), saved, alpha=alpha)
        model = LlamaForCausalLM.from_pretrained(saved)
        adapted = peft.PeftModel.from_pretrained(model, folder).get_base_model()
        digests.add(wrap(adapted, tok, name="m", threads=1).digest)
    assert len(digests) == 2


def test_a_whole_model_beside_an_adapter_is_refused(saved, changed, tmp_path):
    both = changed()
    save_adapter(both, saved)
    assert "holds a whole model and an adapter" in refusal(both)


def test_an_adapter_without_peft_names_the_package(saved, tmp_path, monkeypatch):
    folder = save_adapter(tmp_path / "lora", saved)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"adapter of .*pip install peft"):
        load(folder)


def test_an_adapter_that_does_not_fit_is_refused(saved, tmp_path):
    folder = save_adapter(tmp_path / "lora", saved)
    tensors = load_file(folder / "adapter_model.safetensors")
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    assert f"lacks the tensors {lost}" in refusal(folder)
    set_config(folder, "adapter_config.json", base_model_name_or_path=str(tmp_path / "nowhere"))
    message = refusal(folder)
    assert "names as its base" in message
    assert "no model in the folder" in message
    set_config(folder, "adapter_config.json", base_model_name_or_path=None)
    assert "base_model_name_or_path is None" in refusal(folder)


# --- what is no model, or not to be had ----------------------------------------------------------


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors"])
def test_a_file_of_another_kind_is_named_as_that(tmp_path, name):
    assert "and there is no such file" in refusal(tmp_path / name)
    (tmp_path / name).write_bytes(b"GGUF")
    assert name in refusal(tmp_path / name)
    message = refusal(tmp_path)
    assert f"it holds {name}" in message
    assert "config.json, *.safetensors, tokenizer.json" in message


def test_a_gguf_path_that_reads_as_a_hub_id_is_named_as_gguf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is a GGUF container" in refusal("models/m.gguf")


def test_a_model_of_pictures_and_text_ends_in_a_short_line(saved, tmp_path):
    folder = tmp_path / "llava"
    shutil.copytree(saved, folder)
    LlavaConfig().save_pretrained(folder)
    message = refusal(folder)
    assert "its config is a LlavaConfig" in message
    assert len(message) < 300


def test_a_model_with_code_of_its_own_is_not_run_and_not_asked_about(changed):
    folder = changed(model_type="own", auto_map={"AutoConfig": "own.Config"})
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    message = refusal(folder)
    assert "code of its own (trust_remote_code)" in message


def test_a_type_that_transformers_does_not_know_is_named(changed):
    message = refusal(changed(model_type="nonesuch"))
    assert "cannot load" in message
    assert "nonesuch" in message


def test_weights_in_torchs_own_container_that_are_damaged_are_named(saved, tmp_path):
    folder = tmp_path / "bin"
    shutil.copytree(saved, folder)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert load(folder, threads=1).n_blocks == 3
    os.truncate(folder / "pytorch_model.bin", 5000)
    assert "pytorch_model.bin in" in refusal(folder)


def test_a_folder_without_weights_is_one_line(changed):
    folder = changed()
    (folder / WEIGHTS).unlink()
    assert "model.safetensors" in refusal(folder)


def test_the_variable_that_forbids_the_hub_is_named(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("We couldn't connect\nCheck your internet connection")

    monkeypatch.setattr(models, "find_adapter", lambda *_: None)
    monkeypatch.setattr(models, "load_tokenizer", refuse)
    monkeypatch.setattr(load_errors, "is_offline_mode", lambda: True)
    message = refusal("some/model")
    assert "HF_HUB_OFFLINE is set" in message
    assert "internet" not in message


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("foo", "unknown to torch"),
        ("cuda:7", "not to be had here"),
        ("meta", "holds no numbers"),
        ("mps", "not to be had here"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(saved, device, said):
    message = refusal(saved, device=device)
    assert f"device {device!r}" in message
    assert said in message


@pytest.mark.parametrize("model", ["pocket", "folder"])
def test_a_revision_of_what_has_none_is_refused(saved, model):
    name = saved if model == "folder" else "pocket"
    assert "revision is 'v2'" in refusal(name, revision="v2")


def test_a_folders_name_gives_the_terminal_no_orders(saved, tmp_path):
    folder = tmp_path / "m\x1b[2J\u202e"
    shutil.copytree(saved, folder)
    lm = load(folder, threads=1)
    assert r"m\x1b[2J\u202e: " in lm.describe()
    assert lm.describe().isprintable()


def test_a_healthy_models_tensors_are_those_of_from_pretrained(saved):
    lm = load(saved, threads=1)
    plain = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(tensor, plain[name])
