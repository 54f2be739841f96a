"""Models in GGUF files: the numbers of their weights, kept once, and refused where not read."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from tiny_models import CONTEXT, make_items
from transformers import LlamaConfig, LlamaForCausalLM

from extract import gguf_cache
from extract.hidden_states import extract
from extract.models import load
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


def write(path, model, *, kind=Type.F32, architecture="llama", leave=(), more=None, rope=None):
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
        ours, theirs = (store.load(layer) for store in stores)
        np.testing.assert_array_equal(ours, theirs)
    head, embeddings = lm.model.get_output_embeddings(), lm.model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied
