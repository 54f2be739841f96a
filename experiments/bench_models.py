"""Language models of real shapes with random weights, and texts of real lengths, for benchmarks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from extract.models import Dtype, LanguageModel, load, wrap
from jelicit.data.items import Item

VOCABULARY = 128_256
"""Of Llama 3."""

SHAPES = {
    "170m": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=11,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "1b": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "8b": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    ),
}
"""Shapes by name: 168 M parameters, and those of Llama 3.2 1B and Llama 3.1 8B."""

WORDS = """
    a the each of and to in for is are has had buys sells gives keeps eats makes takes
    finds many much how left total more than twice half price cost dollars hours days week
    boxes apples eggs friends market farm school books pencils miles gallons minutes per
    day every after before then so therefore altogether answer first second number amount
    she he they his her their Anna Tom
""".split()  # noqa: SIM905

QUESTION_WORDS, CLAIM_WORDS = 45, 75
"""Of a mean question and a mean solution of GSM8K, numbers and signs not counted."""


def model(
    name: str, texts: Iterable[str], *, threads: int | None = None, dtype: Dtype = "auto"
) -> LanguageModel:
    """A model of `SHAPES` with random weights, or whatever `extract.models.load` takes.

    Random ones are, where `dtype` is auto, bfloat16 on a GPU and float32 on a CPU. Their tokenizer
    knows the words of `texts`, so that these have about as many tokens as Llama 3 gives them.
    """
    if name not in SHAPES:
        return load(name, threads=threads, dtype=dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    auto = "bfloat16" if device == "cuda" else "float32"
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, auto if dtype == "auto" else dtype))
        made = LlamaForCausalLM(SHAPES[name])
        torch.set_default_dtype(torch.float32)
    return wrap(made, tokenizer(texts), name=name, digest=f"random {name}", threads=threads)


def operations(lm: LanguageModel, tokens: float, prompts: int) -> float:
    """Operations of the matrix products that reading takes at the least, in a dense model.

    Two for each weight of the blocks and each token; and two for each weight of the output
    embedding and each prompt, whose last token predicts the verdict. Attention itself is not
    counted.

    Args:
        lm: The model.
        tokens: That pass through its blocks.
        prompts: Whose last token is turned into probabilities.
    """
    outside = (lm.model.get_input_embeddings(), lm.model.get_output_embeddings())
    ends = {id(weight): weight for each in outside for weight in each.parameters()}
    blocks = lm.n_parameters - sum(weight.numel() for weight in ends.values())
    head = lm.model.get_output_embeddings().weight.numel()
    return 2.0 * (blocks * tokens + head * prompts)


def peak_gflops(lm: LanguageModel, dtype: str | None = None) -> float:
    """What a large matrix product reaches in torch, with the model's threads.

    Args:
        lm: The model.
        dtype: Of the product; None = the model's.
    """
    size = 2048
    of = lm.model.dtype if dtype is None else getattr(torch, dtype)
    X = torch.randn(size, size, device=lm.device, dtype=of)
    best = float("inf")
    for _ in range(8):
        begin = time.perf_counter()
        float((X @ X)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A token per word, per three digits and per run of signs, as Llama 3 cuts texts."""
    pieces = Regex(r" ?[A-Za-z]+| ?\d{1,3}| ?[^\sA-Za-z\d]+|\s+")
    cut = pre_tokenizers.Split(pieces, behavior="isolated")
    known = {piece for text in texts for piece, _ in cut.pre_tokenize_str(text)}
    known |= {" True", " False", " Yes", " No"}
    vocabulary = {word: number for number, word in enumerate(["<unk>", *sorted(known)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = cut
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def claims(n: int, *, per_question: int = 1, seed: int = 0) -> list[Item]:
    """Items of GSM8K's lengths: questions in words and numbers with solutions."""
    rng = random.Random(seed)
    items = []
    for row in range(n):
        group = row // per_question
        words = random.Random(f"{seed} {group}")
        question = _text(words, max(int(words.gauss(QUESTION_WORDS, 12)), 10)) + "?"
        choice = _text(rng, max(int(rng.gauss(CLAIM_WORDS, 30)), 10)) + f". The answer is {row}."
        items.append(
            Item(
                id=f"bench/{row}",
                question=question,
                choice=choice,
                label=row % 2 == 0,
                group=f"question {group}",
            )
        )
    return items


def system_prompt(tokens: int) -> str:
    """A text of that many tokens."""
    rng = random.Random(1)
    return " ".join(rng.choice(WORDS) for _ in range(tokens))


def _text(rng: random.Random, words: int) -> str:
    """Words, with a number and a sign after every fifth."""
    parts = []
    for place in range(words):
        parts.append(rng.choice(WORDS))
        if place % 5 == 4:
            parts.append(f"{rng.randrange(1, 99)} + {rng.randrange(1, 99)}")
    return " ".join(parts)
