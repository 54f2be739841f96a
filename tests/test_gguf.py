"""Models in GGUF files: the numbers of their weights, kept once, and refused where not read."""

import os
import shutil
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from tiny_models import CONTEXT, make_items
from transformers import LlamaConfig, LlamaForCausalLM

from extract import dtype_trial, gguf_cache, gguf_file
from extract.cli import Info
from extract.foreseen import foresee
from extract.hidden_states import extract
from extract.models import load, trained_length
from extract.opened import open_model
from jelicit.data.prompts import FORMATS

HEADS, GROUPS, WIDTH, INNER, BLOCKS = 4, 2, 32, 64, 2
LETTERS = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
LETTERS += [chr(256 + number) for number in range(68)]
MERGES = ["t h", "Ġ T", "ĠT r", "ĠTr u", "ĠTru e", "Ġ s", "i s"]
TOKENS = [*LETTERS, *(merge.replace(" ", "") for merge in MERGES), "<s>", "</s>"]
"""Bytes as byte-level vocabularies spell them, some merges, and two control tokens."""

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv(gguf_cache.VARIABLE, str(folder))
        yield folder / "gguf"


def llama(*, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=TOKENS.index("<s>"),
        eos_token_id=TOKENS.index("</s>"),
        rms_norm_eps=1e-5,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).float().eval()


def interleaved(weight, heads):
    """Rows in llama.cpp's order: the two halves that a rotation pairs, one by one."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def tensors(model):
    """(name in the file, weight) of each of a Llama's."""
    for name, value in model.state_dict().items():
        weight = value.numpy()
        if name == "lm_head.weight":
            if not model.config.tie_word_embeddings:
                yield "output.weight", weight
        elif name == "model.embed_tokens.weight":
            yield "token_embd.weight", weight
        elif name == "model.norm.weight":
            yield "output_norm.weight", weight
        else:
            _, _, block, *rest = name.removesuffix(".weight").split(".")
            short = NAMES[".".join(rest)]
            heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(short)
            weight = weight if heads is None else interleaved(weight, heads)
            yield f"blk.{block}.{short}.weight", weight


def write(
    path, model, *, kind=Type.F32, architecture="llama", leave=(), more=None, rope=None, parts=1
):
    """A GGUF file of a tiny Llama; matrices of the type `kind`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    if parts > 1:
        writer.add_uint16("split.count", parts)
    if rope:
        writer.add_rope_scaling_type(rope)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(TOKENS.index("<s>"))
    writer.add_eos_token_id(TOKENS.index("</s>"))
    writer.add_add_bos_token(True)
    for name, weight in [*tensors(model), *(more or {}).items()]:
        if name in leave:
            continue
        if weight.ndim == 1 or kind == Type.F32:
            writer.add_tensor(name, np.ascontiguousarray(weight, np.float32))
        else:
            packed = gguf.quantize(np.ascontiguousarray(weight), kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rounded(model, kind):
    """The model with every matrix as it is after quantisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and kind != Type.F32:
                packed = gguf.quantize(parameter.numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.dequantize(packed, kind)))
    return model


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tied Llama in Q8_0, alone in its folder."""
    path = tmp_path_factory.mktemp("models") / "tiny-q8" / "tiny-8bit.gguf"
    return write(path, llama(tied=True), kind=Type.Q8_0)


def refusal(path, **options):
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        load(path, threads=1, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# --- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0])
@pytest.mark.parametrize("tied", [True, False])
def test_states_are_those_of_the_same_weights_in_a_folder(kind, tied, tmp_path):
    path = write(tmp_path / "m.gguf", llama(tied=tied), kind=kind)
    lm = load(path, threads=1)
    same = tmp_path / "same"
    rounded(llama(tied=tied), kind).save_pretrained(same)
    lm.tokenizer.save_pretrained(same)
    beside = load(same, threads=1)
    stores = [
        extract(one, make_items(5), FORMATS["claim"], tmp_path / name, layers="all", progress=False)
        for one, name in ((lm, "a"), (beside, "b"))
    ]
    for layer in range(BLOCKS + 1):
        for ours, theirs in zip(*(store.pairs(layer) for store in stores), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    head, embeddings = lm.model.get_output_embeddings(), lm.model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied


def test_a_file_and_its_folder_are_one_model_pinned_by_the_files_sha256(file):
    by_file, by_folder = load(file, threads=1), load(file.parent, threads=1)
    assert by_file.digest == by_folder.digest == gguf_file.sha256_of(file)
    assert (by_file.name, by_folder.name) == ("tiny-8bit", "tiny-q8")
    assert by_file.context == CONTEXT
    assert trained_length(str(file)) is trained_length(str(file.parent)) is None
    assert open_model(str(file), say=lambda _: None, threads=1).name == "tiny-8bit"


def test_the_name_of_a_file_called_model_is_its_folders(file, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(file, tmp_path / "mine" / "model.gguf")
    for model in (tmp_path / "mine" / "model.gguf", tmp_path / "mine"):
        lm, foreseen = load(model, threads=1), foresee(str(model))
        assert (foreseen.name, foreseen.digest) == ("mine", lm.digest)
        assert lm.name == "mine"
    assert foresee(str(file)).digest == foreseen.digest  # whatever it is called
    assert foresee(str(file)).size == foreseen.size == file.stat().st_size


def test_the_tokenizer_is_the_files(file):
    lm = load(file, threads=1)
    ids = lm.tokenizer.encode("this is True", add_special_tokens=False)
    tokens = ["th", "is", "Ġ", "is", "ĠTrue"]
    assert [TOKENS[at] for at in ids] == tokens
    assert lm.checks["prompts begin with"] == "<s>"
    assert "from the GGUF file" in lm.checks["tokenizer"]


def test_types_and_dtype_are_told_in_the_models_line(file):
    said = load(file, threads=1).describe()
    assert "Q8_0 15, F32 5 (GGUF), turned into float32 (auto: fewer than 30 M parameters)" in said
    half = load(file, threads=1, dtype="bfloat16")
    assert half.dtype == "bfloat16"
    assert "turned into bfloat16" in half.describe()
    assert half.digest == gguf_file.sha256_of(file)


# --- the dtype -----------------------------------------------------------------------------------


@pytest.fixture
def tried(monkeypatch):
    """A CPU with instructions, whose trial takes a second in float32 and `tried` in bfloat16."""

    def set_up(seconds):
        shapes = []

        def trial(width, inner):
            shapes.append((width, inner))
            return dtype_trial.Trial(256, width, inner, 1.0, seconds)

        monkeypatch.setattr(dtype_trial, "computes_bfloat16", lambda: True)
        monkeypatch.setattr(dtype_trial, "trial", trial)
        return shapes

    return set_up


LARGE = gguf_cache.Size(30_000_000, 1536, 8960)


@pytest.mark.parametrize(
    ("size", "device", "dtype"),
    [
        (LARGE._replace(parameters=29_999_999), "cuda:0", "float32"),
        (LARGE._replace(parameters=29_999_999), "cpu", "float32"),
        (LARGE, "cuda:0", "bfloat16"),
        (LARGE, "cpu", "float32"),
    ],
)
def test_auto_tries_nothing_where_size_device_or_instructions_decide(
    size, device, dtype, monkeypatch
):
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: {"avx512_bf16": False, "amx_bf16": False},
        raising=False,
    )
    monkeypatch.setattr(dtype_trial, "trial", lambda *_: pytest.fail("it tried"))
    choice = gguf_cache.choose_dtype(size, device)
    assert choice.dtype == dtype
    assert choice.trial == ""


@pytest.mark.parametrize(
    ("seconds", "dtype", "why"),
    [
        (0.5, "bfloat16", "and bfloat16 faster in a trial)"),
        (2.0, "float32", "bfloat16 no faster in a trial)"),
        (0.9, "float32", "bfloat16 no faster in a trial)"),  # a draw, as far as a busy CPU tells
    ],
)
def test_auto_is_bfloat16_where_a_trial_of_the_models_shape_is_faster(seconds, dtype, why, tried):
    shapes = tried(seconds)
    choice = gguf_cache.choose_dtype(LARGE, "cpu")
    assert choice.dtype == dtype
    assert choice.why.endswith(why)
    assert shapes == [(1536, 8960)]
    assert f"{1000 * seconds:.2g} ms, float32 1e+03 ms" in choice.trial


@pytest.mark.parametrize(("faster", "least"), [("bfloat16", 0.125), ("float32", 8.0)])
def test_a_trial_takes_the_least_time_of_each_dtype(faster, least, monkeypatch):
    now, slow, seconds = 0.0, iter([0.0, 5.0, 1.0, 3.0]), 0.0  # the first is not timed

    def linear(states, weights):
        nonlocal now, seconds
        assert (states.shape, weights.shape) == ((256, 64), (128, 64))
        if states.dtype == torch.float32:
            seconds = next(slow)
        now += seconds if states.dtype == torch.float32 else least * seconds

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    trial = dtype_trial.measure(64, 128, clock=lambda: now)
    assert (trial.float32, trial.bfloat16) == (1.0, least)
    assert trial.faster == (faster == "bfloat16")


def test_a_trial_of_a_wide_model_takes_some_of_its_columns():
    trial = dtype_trial.measure(8192, 28672, clock=iter(range(100)).__next__)
    assert 0 < trial.rows * trial.width * trial.columns <= dtype_trial.MOST
    assert (trial.width, trial.float32, trial.bfloat16) == (8192, 1, 1)


def test_a_shape_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(dtype_trial, "measure", lambda *shape: tried.append(shape))
    for shape in [(3, 4), (3, 4), (3, 5)]:
        dtype_trial.trial(*shape)
    assert tried == [(3, 4), (3, 5)]
    dtype_trial.trial.cache_clear()


def test_the_trial_is_in_the_models_line_and_in_the_stores_machine(
    file, cache, tried, tmp_path, monkeypatch
):
    monkeypatch.setattr(gguf_cache, "LARGE", 1)
    shapes = tried(0.25)
    lm = load(file, threads=1)
    assert shapes == [(WIDTH, INNER)]
    assert lm.dtype == "bfloat16"
    said = f"256 x {WIDTH} by {INNER}, best of 3: 2.5e+02 ms, float32 1e+03 ms"
    assert f"bfloat16 trial: {said}" in lm.describe()
    items = make_items(4)
    store = extract(lm, items, FORMATS["claim"], tmp_path / "a", layers=[0], progress=False)
    assert store.spec.machine["trial"] == f"bfloat16, {said}"
    assert "bfloat16 faster in a trial" in store.spec.settings["checks"]["quantised"]
    assert said not in str(store.spec.settings)
    tried(0.125)  # known by its folder now
    again = load(file, threads=1)
    assert extract(
        again, items, FORMATS["claim"], tmp_path / "a", layers=[0], progress=False
    ).complete


# --- the cache -----------------------------------------------------------------------------------


def entry(path, cache):
    """The one folder that is kept of a file in float32."""
    (folder,) = cache.glob(f"{gguf_file.sha256_of(path)}-*-float32")
    return folder


def test_a_second_load_reads_what_the_first_kept(file, cache, monkeypatch):
    load(file, threads=1)
    monkeypatch.setattr(
        gguf_cache, "_dequantised", lambda *_: pytest.fail("it was converted again")
    )
    monkeypatch.setattr(gguf_file, "_reader", lambda _: pytest.fail("its header was read again"))
    assert load(file, threads=1).checks["quantised"].startswith("Q8_0 15")
    assert (entry(file, cache) / "model.safetensors").is_file()


def test_a_tokenizer_asked_for_alone_is_kept_without_weights(file, cache, monkeypatch):
    text = "Is this claim caf\u0065\u0301?  True"
    first = gguf_cache.tokenizer_of(file)
    (folder,) = cache.glob(f"{gguf_file.sha256_of(file)}-*-tokenizer")
    assert not list(folder.glob("*.safetensors"))
    monkeypatch.setattr(gguf_file, "_reader", lambda _: pytest.fail("its header was read again"))
    again = gguf_cache.tokenizer_of(file)
    assert again.encode(text) == first.encode(text) == load(file, threads=1).tokenizer.encode(text)


def test_a_tokenizer_is_read_where_nothing_can_be_kept(file, monkeypatch, tmp_path):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv(gguf_cache.VARIABLE, str(tmp_path / "a-file"))
    assert gguf_cache.tokenizer_of(file).encode("this", add_special_tokens=False)


def test_a_damaged_folder_is_made_again(file, cache):
    state = load(file, threads=1).model.state_dict()
    expected = {name: value.clone() for name, value in state.items()}  # not the file's own pages
    path = entry(file, cache) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.warns(UserWarning, match="not as it was written"):
        again = load(file, threads=1).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in expected.items())
    assert path.read_bytes() == whole


def test_a_folder_without_its_note_is_made_again(file, cache):
    load(file, threads=1)
    (entry(file, cache) / "jelicit_gguf.json").unlink()
    with pytest.warns(UserWarning, match="not as it was written"):
        load(file, threads=1)
    assert (entry(file, cache) / "jelicit_gguf.json").is_file()


def test_what_was_used_longest_ago_goes_first(tmp_path):
    for number, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(bytes(1000))
        note = tmp_path / name / "jelicit_gguf.json"
        note.write_text("{}")
        os.utime(note, (number, number))
    os.utime(tmp_path / "a" / "jelicit_gguf.json", (9, 9))
    gguf_cache.trim(tmp_path, 2500, keep=tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    gguf_cache.trim(tmp_path, 10, keep=tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


# --- what is refused -----------------------------------------------------------------------------


def test_several_files_are_listed(file, tmp_path):
    for name in ("b.gguf", "a.gguf"):
        shutil.copy(file, tmp_path / name)
    assert "holds 2 GGUF files (a.gguf, b.gguf); name one of them" in refusal(tmp_path)


def test_a_file_that_is_no_gguf_or_cut_short_is_named(file, tmp_path):
    path = tmp_path / "m.gguf"
    assert "is a GGUF container (llama.cpp), and there is no such file" in refusal(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "does not begin with the bytes 'GGUF'" in refusal(path)
    whole = file.read_bytes()
    for length in (4, 40, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        assert f"{path} is cut short or damaged" in refusal(path)


def test_an_unknown_type_of_tensor_is_named(file, tmp_path):
    path, raw = tmp_path / "m.gguf", bytearray(file.read_bytes())
    name = b"token_embd.weight"
    at = raw.index(name) + len(name) + 4 + 2 * 8  # after the number of dimensions and two of them
    assert raw[at] == Type.Q8_0
    raw[at] = 250
    path.write_bytes(raw)
    assert "the quantisation type 250" in refusal(path)


def test_a_part_of_a_model_is_refused(tmp_path):
    path = write(tmp_path / "m-00001-of-00003.gguf", llama(tied=True), parts=3)
    assert f"{path} is one of 3 files of a model; join them first" in refusal(path)


def test_an_unknown_architecture_is_named(tmp_path):
    path = write(tmp_path / "m.gguf", llama(tied=True), architecture="perceptron")
    message = refusal(path)
    assert "architecture 'perceptron', F32 20" in message
    assert "Hugging Face format" in message


def test_weights_that_transformers_would_make_up_or_leave_out_are_refused(tmp_path):
    lacks = write(tmp_path / "a.gguf", llama(tied=True), leave=["blk.1.ffn_up.weight"])
    assert "lack 1 tensor (model.layers.1.mlp.up_proj.weight)" in refusal(lacks)
    more = {"blk.1.ffn_gate.scale": np.ones(INNER, np.float32)}
    assert "transformers left tensors out" in refusal(
        write(tmp_path / "b.gguf", llama(tied=True), more=more)
    )


def test_stretched_rotations_are_refused(tmp_path):
    factors = {"rope_freqs.weight": np.ones(4, np.float32)}
    message = refusal(write(tmp_path / "a.gguf", llama(tied=True), more=factors))
    assert "stretches the rotation of positions (rope_freqs.weight)" in message
    yarn = write(tmp_path / "b.gguf", llama(tied=True), rope=gguf.RopeScalingType.YARN)
    assert "rope scaling 'yarn'" in refusal(yarn)


def test_the_missing_package_is_named(file, monkeypatch, tmp_path):
    monkeypatch.setenv(gguf_cache.VARIABLE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'jelicit[gguf]'" in refusal(file)


def test_a_revision_of_a_file_is_refused(file):
    assert "only models on the hub have revisions" in refusal(file, revision="main")


def test_info_says_what_a_file_holds(file, capsys):
    Info(store=str(file)).main()
    said = capsys.readouterr().out
    assert "types of tensors  Q8_0 15, F32 5" in said
    assert "output embeddings tied" in said
    assert gguf_file.sha256_of(file) in said
