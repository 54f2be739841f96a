"""Tiny random language models and tokenizers, built on the spot."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from extract.models import LanguageModel, wrap
from jelicit.data.items import Item

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 320
CONTEXT = 160
TRAINING_TEXT = [
    "Question: what is it? Claim: the sum is so\nI think this claim is True",
    "Question: what was it? Claim: the sum was so\nI think this claim is False",
]

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "intermediate_size": 48,
}
_GROUPED: dict[str, Any] = _SIZES | {"num_key_value_heads": 2}
_HEADS: dict[str, Any] = _GROUPED | {"head_dim": 8}
_WINDOW: dict[str, Any] = {"sliding_window": 8}
_OLD: dict[str, Any] = {"vocab_size": VOCABULARY, "n_layer": 3, "n_head": 4}

CONFIGS = {
    "llama": lambda: LlamaConfig(**_GROUPED),
    "mistral": lambda: MistralConfig(**_GROUPED, **_WINDOW),
    "mixtral": lambda: MixtralConfig(**_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": lambda: Qwen2Config(**_GROUPED),
    "qwen3": lambda: Qwen3Config(**_HEADS),
    "gpt2": lambda: GPT2Config(**_OLD, n_embd=32, n_positions=CONTEXT),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZES),
    "bloom": lambda: BloomConfig(**_OLD, hidden_size=32),
    "gemma": lambda: GemmaConfig(**_HEADS),
    "gemma2": lambda: Gemma2Config(**_HEADS, **_WINDOW, final_logit_softcapping=2.0),
    "gemma3": lambda: Gemma3TextConfig(
        **_HEADS,
        **_WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "mamba": lambda: MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, state_size=4
    ),
}
"""Rotary, learned and ALiBi positions, grouped and parallel attention, sliding windows shorter than
the prompts, soft-capped logits, scaled embeddings, experts, and a recurrent state."""


def tokenizer(*, bos: bool, text=TRAINING_TEXT, vocabulary=VOCABULARY) -> PreTrainedTokenizerFast:
    """Byte-level BPE; with BOS it adds "<s>" in front, as Llama's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def sentencepiece_like(text=TRAINING_TEXT) -> PreTrainedTokenizerFast:
    """BPE that puts a space of its own before every text, as Llama 2's does."""
    made = Tokenizer(models.BPE(byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        text,
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", *bytes_], show_progress=False),
    )
    # Llama 2's own way: a "▁" in front whatever the text starts with, then every space is one.
    made.pre_tokenizer = None
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


def random_weights(config, *, seed=0):
    """A model with weights large enough that attention is far from uniform."""
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def tiny(kind="llama", *, bos=True, dtype=torch.float32) -> LanguageModel:
    """A tiny model of that architecture."""
    return wrap(
        random_weights(CONFIGS[kind]()).to(dtype),
        tokenizer(bos=bos),
        name=f"tiny-{kind}",
        threads=1,
    )


def make_items(n=9) -> list[Item]:
    """Items of very different lengths, none sorted by it."""
    return [
        Item(
            id=f"item/{row}",
            question="what is it?",
            choice="the sum is " + "so " * (row * 5 % 11) + str(row),
            label=row % 2 == 0,
        )
        for row in range(n)
    ]


def long_items() -> list[Item]:
    """Three items, and one in their midst that is longer than the tiny models' context."""
    long = Item(id="long", question="q", choice="so " * CONTEXT)
    first, second, third = make_items(3)
    return [first, second, long, third]
