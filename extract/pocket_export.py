"""Writing a pocket model as a Hugging Face folder that loads with no custom code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from jelicit.disk import write_bytes, write_text

BOS, PAD = "<|bos|>", "<|pad|>"


def export(
    weights: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    tokenizer_json: str,
    folder: str | Path,
    *,
    trained_length: int,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model and its tokenizer so that `AutoModelForCausalLM` and `AutoTokenizer` load them.

    Args:
        weights: Arrays under the names of `LlamaForCausalLM`, as of
            `jelicit.pocket.model.to_llama_state_dict`; stored in float32.
        config: Fields of `LlamaConfig`, as of `jelicit.pocket.model.llama_config_dict`.
        tokenizer_json: A `tokenizers` tokenizer as JSON text; has the tokens `<|bos|>` and
            `<|pad|>`, and a post-processor that puts the first in front.
        folder: Where to write; made if absent, files of the same names are replaced.
        trained_length: Longest text the model was trained on, in tokens; goes to the config.
        extra: More fields for config.json.

    Raises:
        ValueError: The tokenizer lacks a special token or has more ids than the model, or `extra`
            names a field that is already there.
    """
    ids = _special_ids(tokenizer_json, int(config["vocab_size"]))
    fields = {
        **config,
        "dtype": "float32",
        "bos_token_id": ids[BOS],
        # A document ends where the next begins.
        "eos_token_id": ids[BOS],
        "pad_token_id": ids[PAD],
        "trained_length": trained_length,
    }
    taken = sorted(set(extra or {}) & set(fields))
    if taken:
        raise ValueError(f"extra fields {taken} are already in the config; give them other names")
    folder = Path(folder)
    _write_json(folder / "config.json", {**fields, **(extra or {})})
    special = {name: fields[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", special)
    write_text(folder / "tokenizer.json", tokenizer_json)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(config))
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    write_bytes(folder / "model.safetensors", save(arrays, metadata={"format": "pt"}))


def trained_length(folder: str | Path) -> int:
    """Longest text that a model of `export` was trained on, in tokens."""
    fields = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return int(fields["trained_length"])


def _tokenizer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "pad_token": PAD,
        "model_max_length": config["max_position_embeddings"],
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
    }


def _special_ids(tokenizer_json: str, vocab_size: int) -> dict[str, int]:
    tokenizer = json.loads(tokenizer_json)
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    missing = [token for token in (BOS, PAD) if token not in ids]
    if missing:
        raise ValueError(f"the tokenizer lacks {missing}: add them as special tokens")
    largest = max([*ids.values(), *tokenizer["model"]["vocab"].values()])
    if largest >= vocab_size:
        raise ValueError(
            f"the tokenizer has ids up to {largest} but the model's vocab_size is {vocab_size}; "
            "train the tokenizer with fewer tokens or the model with more"
        )
    return ids


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
