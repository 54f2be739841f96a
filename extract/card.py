"""The card of a pocket model: measured on the exported weights, written beside them.

    python -m extract card                                    # the model that ships
    python -m extract card --model runs/pocket/middle-seed0/model --larger-than data/larger_than

Unlike the rest of this package it measures probes, too: a card is about a model and what its
hidden states hold.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tqdm import tqdm

from extract.hidden_states import extract
from extract.models import LanguageModel, load
from extract.pocket_tokenizer import encoder
from jelicit.activations import ActivationStore
from jelicit.data.datasets import load_dataset
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.disk import write_text
from jelicit.pocket import card, evaluate
from jelicit.pocket.model import read_model
from jelicit.pocket.train import last_token_logits
from jelicit.pocket.world import KINDS

SHOTS = (8, 24)
READING_SHOTS = (8, 16, 24)


def model_folder(model: str) -> Path:
    """The folder of a pocket model: "pocket" is the one that ships.

    Raises:
        ValueError: It holds no pocket model.
    """
    folder = Path(__file__).parent / "pocket" if model == "pocket" else Path(model)
    if not (folder / "pretraining.json").is_file():
        raise ValueError(
            f"{folder} has no pretraining.json: a card is measured of pocket models, as "
            "experiments/pretrain_pocket.py exports them (runs/pocket/<run>/model)"
        )
    return folder


def measure_card(folder: Path, *, larger_than: Path | None = None) -> dict[str, Any]:
    """Everything that `jelicit.pocket.card` and `jelicit.pocket.evaluate` measure of one model.

    Args:
        folder: An exported pocket model, as of `model_folder`.
        larger_than: Folder of the real larger_than set; None leaves its accuracy out (null).

    Returns:
        The card, ready for JSON.
    """
    if larger_than is not None:
        load_dataset(str(larger_than))  # so that a wrong folder is found before minutes of work
    pretraining = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    lm = load(str(folder), threads=1)
    situations = card.situations()
    layers: dict[str, dict[str, dict[str, list[float]]]] = {}
    zero_shot: dict[str, float] = {}
    by_frequency: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, situation in enumerate(tqdm(situations, desc="hidden states", unit="set")):
            train, test = (
                _store(lm, rows, situation.format, Path(scratch) / f"{number}-{split}")
                for split, rows in (("train", situation.train), ("test", situation.test))
            )
            found = card.measure_layers(situation, train, test)
            layers.setdefault(situation.dataset, {})[situation.feature] = found
            if situation.feature == "none":
                zero_shot[situation.dataset] = card.zero_shot(test)
                if KINDS[situation.dataset].frequency is not None:
                    by_frequency[situation.dataset] = card.by_frequency(test, situation.dataset)
        real = None if larger_than is None else _real(lm, larger_than, Path(scratch) / "real")
    few_shot, reading = _in_context(folder)
    read = pretraining.get("reading")
    plain = {kind: found["none"] for kind, found in layers.items()}
    return {
        "zero_shot_accuracy": zero_shot,
        "zero_shot_by_frequency": by_frequency,
        "few_shot_accuracy": few_shot[SHOTS[0]],
        f"few_shot_accuracy_{SHOTS[1]}": few_shot[SHOTS[1]],
        **{card.reading_name(shots): found for shots, found in reading.items()},
        "supervised_auroc": _column(layers, "supervised"),
        "salience": _column(layers, "salience"),
        "ccs_auroc_plain": {kind: card.at_best_layer(found) for kind, found in plain.items()},
        "real_larger_than_accuracy": real,
        "shortcuts": {kind: card.shortcuts(kind) for kind in KINDS},
        "layers": layers,
        **{key: pretraining[key] for key in card.TRAINING},
        **({} if read is None else {"reading": {key: read[key] for key in card.READING}}),
        "megabytes": sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 2**20,
    }


def _column(layers: Any, name: str) -> dict[str, dict[str, list[float]]]:
    return {
        kind: {feature: found[name] for feature, found in by_feature.items() if name in found}
        for kind, by_feature in layers.items()
    }


def _store(
    lm: LanguageModel, items: Sequence[Item], format: str | PromptFormat, folder: Path
) -> ActivationStore:
    return extract(lm, items, get_format(format), folder, layers="all", progress=False)


def _real(lm: LanguageModel, larger_than: Path, folder: Path) -> float:
    dataset = load_dataset(str(larger_than))
    return card.zero_shot(_store(lm, (*dataset.train, *dataset.test), "claim", folder))


def _in_context(folder: Path) -> tuple[dict[int, dict[str, float]], ...]:
    """Few-shot accuracy by judge, and label reading by rival, for each number of examples.

    Of the same weights in Flax: equal to 1e-4, and faster here.
    """
    model = read_model(folder)
    encode = encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
    logits = partial(last_token_logits, model)
    measures = (
        (evaluate.few_shot_accuracy, evaluate.FEW_SHOT_JUDGES, SHOTS),
        (evaluate.label_reading, evaluate.RIVALS, READING_SHOTS),
    )
    return tuple(
        {shots: {name: of(logits, encode, name, shots=shots) for name in names} for shots in asked}
        for of, names, asked in measures
    )


def verdicts(found: dict[str, Any]) -> list[str]:
    """What to print of a card: missed aims, and where a feature is followed instead of truth."""
    return [f"missed: {line}" for line in card.missed(found)] + [
        f"followed: {line}" for line in card.followed(found["layers"])
    ]


def write(folder: Path, found: dict[str, Any], beside: Sequence[dict[str, Any]] = ()) -> None:
    """Write card.json (the other runs under "seeds") and README.md beside the weights."""
    found, others = _rounded(found), [_rounded(other) for other in beside]
    runs = [
        {k: v for k, v in run.items() if k not in ("layers", "seeds")} for run in (found, *others)
    ]
    write_text(folder / "card.json", json.dumps({**found, "seeds": runs}, indent=1) + "\n")
    write_text(folder / "README.md", card.page(found, others))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
