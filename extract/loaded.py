"""What was loaded, compared with what the files hold and what is said of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

from extract.load_errors import RefusedModelError
from extract.printable import first_line, listed

_OTHER_PARTS = re.compile(r"vision|visual|image|audio|speech|multi_modal|mm_projector|(^|\.)mtp\.")
"""Tensors of a checkpoint's other parts: they do not read text."""

ALIKE = 0.99
"""Least cosine of two states that are the same but for a factor and rounding."""


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers logs no report of its own: what it says there is said by an error here."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def check_weights(model: Any, report: Mapping[str, Any], source: str) -> str:
    """One line on how a model's tensors were filled.

    Args:
        model: The model.
        report: What `from_pretrained(..., output_loading_info=True)` gives beside it: the names of
            missing and unexpected tensors, and (name, shape in the file, shape in the model) of
            those of another shape.
        source: What the messages call the model.

    Raises:
        ValueError: If a tensor is missing (its values would be random), unexpected (it would be
            left out), or has another shape; the message names it.
    """
    if "score.weight" in _names(report, "unexpected_keys"):
        raise RefusedModelError(
            f"{source} is a reward model or a classifier: it scores texts and gives no verdicts. "
            f"Test it on pairs (experiments/reward.py --rewards {source}), or open it with "
            "extract.reward.open_reward"
        )
    missing = sorted(_names(report, "missing_keys") - _tied(model, report))
    if missing:
        raise RefusedModelError(
            f"{source}: its files lack {_tensors(missing)}, which its config asks for and which "
            "would be random; download the model again, or correct its config.json"
        )
    if shapes := sorted(_names(report, "mismatched_keys")):
        each = [f"{name} {_shape(held)} (asked {_shape(asked)})" for name, held, asked in shapes]
        raise RefusedModelError(
            f"{source}: {_tensors(each)} in its files with other shapes than its config asks for; "
            "the config.json is that of another model"
        )
    unexpected = _names(report, "unexpected_keys")
    other = {name for name in unexpected if _OTHER_PARTS.search(name)}
    if beyond := sorted(unexpected - other):
        raise RefusedModelError(
            f"{source}: its files hold {_tensors(beyond)}, which its config does not ask for and "
            "which would be left out; its config.json is that of another model, or of fewer blocks"
        )
    if errors := report.get("error_msgs"):
        said = first_line(errors[0])
        raise RefusedModelError(f"{source}: its weights could not be loaded: {said}")
    left_out = f", {len(other)} of parts that read no text left out" if other else ""
    count = sum(1 for _ in model.named_parameters())
    return f"{count} tensors, none missing, unexpected or of another shape{left_out}"


def _names(report: Mapping[str, Any], key: str) -> set[Any]:
    names: Any = report.get(key)
    return set(names or ())


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({listed(names)})"


def _shape(shape: Any) -> str:
    return "x".join(map(str, shape))


def _tied(model: Any, report: Mapping[str, Any]) -> set[str]:
    """Missing tensors that are another name of one that is there."""
    missing = _names(report, "missing_keys")
    names = {name: id(one) for name, one in model.named_parameters(remove_duplicate=False)}
    there = {one for name, one in names.items() if name not in missing}
    return {name for name in missing if names.get(name) in there}


def head_is_tied(model: Any) -> bool:
    """Whether the output embeddings are the input embeddings."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def loader_notes(model: Any) -> dict[str, str]:
    """What the loader did beyond reading the files, in one line each; {} as a rule."""
    notes = {}
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "tie_word_embeddings", False) and not head_is_tied(model):
        notes["output embeddings"] = "their own, as in the files, though the config ties them"
    quantiser = getattr(model, "hf_quantizer", None)
    if quantiser is not None:
        kind = str(getattr(quantiser.quantization_config, "quant_method", "?"))
        kept = getattr(model, "is_quantized", False)
        how = "kept so" if kept else f"turned into {model.dtype}".replace("torch.", "")
        notes["quantised"] = f"{kind.rsplit('.', 1)[-1].lower()}, {how}"
    return notes


# --- hidden states -------------------------------------------------------------------------------


def read_last_after_norm(model: Any) -> None:
    """Has the last hidden state be the one after the final norm, whatever the config says.

    A config with `tie_last_hidden_states: false` has transformers give the last block's output
    there, which is another state than the one that stores and probes call by this index.
    """
    for config in (model.config, model.config.get_text_config(decoder=True)):
        if getattr(config, "tie_last_hidden_states", None) is False:
            config.tie_last_hidden_states = True


@torch.inference_mode()
def check_states(model: Any, name: str) -> str:
    """One line on what the model's hidden states are, measured on two sequences of four tokens.

    There are n_blocks + 1 of them; the last is what the output embeddings read, that is after the
    final norm; and a token's state does not depend on later tokens, by which the two differ.

    Raises:
        ValueError: If one of this does not hold, or the model cannot read four tokens.
    """
    n_blocks = model.config.get_text_config(decoder=True).num_hidden_layers
    states, read = _two_sequences(model, name)
    if len(states) != n_blocks + 1:
        raise RefusedModelError(
            f"{name} gives {len(states)} hidden states, but its config says {n_blocks} blocks, "
            f"which have {n_blocks + 1}; states of its layers would be taken for others'"
        )
    last = states[n_blocks].float()
    near = 1e-3 if model.dtype == torch.float32 else 0.1
    apart = (last[0, :-1] - last[1, :-1]).norm() / last[0, :-1].norm()
    if float(apart) > near:
        raise RefusedModelError(
            f"{name} is no causal language model: a token's state depends on the tokens after it "
            f"({type(model).__name__}); contrast pairs need a model that reads from left to right"
        )
    if read is None or read.shape[-1] != last.shape[-1]:
        return f"{n_blocks + 1}, causal; whether the last is after the final norm was not checked"
    alike = torch.cosine_similarity(last[:, -1], read[:, -1].float().to(last.device), dim=-1)
    if float(alike.min()) < ALIKE:
        raise RefusedModelError(
            f"{name}: its last hidden state (index {n_blocks}) is not what its output embeddings "
            f"read (cosine {float(alike.min()):.2f}), so it is not the one after the final norm; "
            f"this architecture ({type(model).__name__}) is not known here"
        )
    return f"{n_blocks + 1}, causal; the last is what the output embeddings read (final norm)"


def _two_sequences(model: Any, name: str) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    """Hidden states [2, 4, D], and what the output embeddings read."""
    ids = torch.tensor([[1, 2, 3, 1], [1, 2, 3, 2]])
    read: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    hook = None
    if head is not None:
        hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        outputs = model(
            input_ids=ids.to(model.device),
            use_cache=False,
            output_hidden_states=True,
        )
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"{model.device} has no room to run {name}: {first_line(error)}"
        ) from error
    except (RuntimeError, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RefusedModelError(f"{name} cannot read four tokens: {first_line(error)}") from error
    finally:
        if hook is not None:
            hook.remove()
    return outputs.hidden_states, read[0] if read else None
