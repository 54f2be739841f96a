"""How fast a model is fine-tuned on verdicts, against a plain loop and against the matmul peak.

The plain way is the loop that anyone writes first: batches as they come, padded to their longest
prompt, the logits of every position, float32. Ours asks for logits where a prompt ends alone, and
computes in what `extract.trainer_settings.precision_of` says. Timed is from the beginning of the
first step to the end of the last: setting up and the checkpoint at the end are left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_models
import torch
from common import console, say, write_numbers
from rich.table import Table
from transformers.trainer_callback import TrainerCallback

from extract import training_run
from extract.finetune import run, trainable, verdict_loss, verdict_trainer
from extract.finetune_settings import FinetuneSettings, Weights
from extract.models import LanguageModel
from extract.trainer_settings import precision_of
from extract.verdict_data import Example, collate, examples_of
from jelicit.data.datasets import load_dataset
from jelicit.data.prompts import FORMATS
from jelicit.studies.checks import refuse

PASSES = {"lora": 2, "all": 3}
"""Products with each weight and token: forward and back to the states; and, where weights change,
one more for what they change by (an adapter's own are few, and not counted)."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Time the fine-tuning of a model on verdicts, against a plain loop and the matmul peak.

    Attributes:
        model: 170m, 1b or 8b (Llama shapes with random weights), or any model that `extract` takes.
        dataset: Whose train items are shown.
        steps: Optimiser's steps that are timed.
        batch: Items of a step.
        weights: Which weights change; auto as `extract finetune` has it.
        repeats: Times that each way is timed; the least counts.
        threads: CPU threads; default: chosen by the model's size.
        json: Where to write the numbers.
    """

    model: str = "170m"
    dataset: str = "pocket/facts"
    steps: int = 8
    batch: int = 16
    weights: Weights = "auto"
    repeats: int = 2
    threads: int | None = None
    json: Path | None = None


def check(settings: Training) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: Naming every option that is wrong.
    """
    asked = {name: getattr(settings, name) for name in ("steps", "batch", "repeats")}
    refuse([f"--{name} {value}: at least 1" for name, value in asked.items() if value < 1])


Timed = tuple[float, float]
"""Seconds of the steps, and the loss of the last."""


def plain_loop(model: Any, examples: Sequence[Example], settings: FinetuneSettings) -> Timed:
    """One epoch in the given order."""
    changing = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(changing, lr=settings.learning_rate or 0.0)
    model.train()
    loss = torch.tensor(float("nan"))
    begin = time.perf_counter()
    for start in range(0, len(examples), settings.batch_size):
        batch = collate(examples[start : start + settings.batch_size])
        ends, verdicts, targets = (batch.pop(name) for name in ("ends", "verdicts", "targets"))
        batch = {name: value.to(model.device) for name, value in batch.items()}
        logits = model(**batch).logits
        said = logits[torch.arange(len(ends)), ends.to(logits.device)]
        asked = verdicts.to(logits.device), targets.to(logits.device)
        loss = verdict_loss(said, *asked, loss=settings.loss).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - begin, loss.item()


class _Clock(TrainerCallback):
    """Seconds from the beginning of the first step to the end of the last so far."""

    begin = end = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begin = self.begin or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end = time.perf_counter()


def library(
    lm: LanguageModel, model: Any, examples: Sequence[Example], settings: FinetuneSettings
) -> Timed:
    """One epoch as `extract finetune` trains."""
    with tempfile.TemporaryDirectory() as folder, training_run.silent():
        trainer = verdict_trainer(lm, settings, examples, Path(folder), model=model)
        clock = _Clock()
        trainer.add_callback(clock)
        log = run(trainer, "", progress=False)
    return clock.end - clock.begin, [entry["loss"] for entry in log if "loss" in entry][-1]


def measure(settings: Training) -> dict[str, Any]:
    """All numbers, as JSON has them."""
    n = settings.steps * settings.batch
    dataset = load_dataset(settings.dataset)
    items, form = list(dataset.train[:n]), FORMATS[next(iter(dataset.formats.values()))]
    if len(items) < n:
        raise ValueError(
            f"--steps {settings.steps} --batch {settings.batch}: {settings.dataset} has "
            f"{len(items)} train items, {n} are needed"
        )
    texts = [f"{item.question} {item.choice}" for item in items]
    dtype = "auto" if torch.cuda.is_available() else "float32"  # as `extract finetune` loads it
    lm, again = (
        bench_models.model(settings.model, texts, threads=settings.threads, dtype=dtype)
        for _ in range(2)
    )
    own = FinetuneSettings(
        weights=settings.weights, epochs=1, batch_size=settings.batch, save_every=10**6
    ).fitting(lm.n_parameters)
    examples = examples_of(lm, items, [float(bool(item.label)) for item in items], form)
    tokens = sum(len(example["ids"]) for example in examples)
    forward = bench_models.operations(lm, tokens, len(examples))
    precision = precision_of(lm)
    peak, described = bench_models.peak_gflops(lm, precision), lm.describe()
    theirs, model = trainable(again, replace(own, merge=own.weights == "lora")), trainable(lm, own)
    seconds = {"plain": float("inf"), "ours": float("inf")}
    for turn in range(settings.repeats):
        for name in seconds:
            taken, loss = (
                plain_loop(theirs, examples, own)
                if name == "plain"
                else library(lm, model, examples, own)
            )
            say(f"  turn {turn + 1}, {name}: {taken:.1f} s, loss {loss:.3f}")
            seconds[name] = min(seconds[name], taken)
    floor = PASSES[own.weights] * forward / peak / 1e9
    return {
        "model": described,
        "dataset": settings.dataset,
        "steps": settings.steps,
        "batch": settings.batch,
        "weights": own.weights,
        "precision": precision,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_s": {name: tokens / taken for name, taken in seconds.items()},
        "ratio": seconds["plain"] / seconds["ours"],
        "peak_gflops": peak,
        "floor_s": floor,
        "floor_share": floor / seconds["ours"],
        "six_share": 3 * forward / peak / 1e9 / seconds["ours"],
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    say(result["model"])
    which = "all weights" if result["weights"] == "all" else "an adapter"
    table = Table(title=f"{result['steps']} steps of {result['batch']} items, {which}")
    for column in ("", "seconds", "tokens/s", "times faster"):
        table.add_column(column, justify="right" if column else "left")
    for label, key in (("plain loop", "plain"), (f"ours, {result['precision']}", "ours")):
        ratio = f"{result['ratio']:.2f}" if key == "ours" else ""
        numbers = f"{result['seconds'][key]:.1f}", f"{result['tokens_s'][key]:.0f}"
        table.add_row(label, *numbers, ratio)
    console.print(table)
    factor = 2 * PASSES[result["weights"]]
    say(
        f"floor: {result['floor_share']:.0%} of our seconds is what {factor} operations for each "
        f"weight and token take at the {result['peak_gflops']:.0f} GFLOP/s of a large product "
        f"(with 6 operations: {result['six_share']:.0%})"
    )


def main(settings: Training) -> None:
    check(settings)
    result = measure(settings)
    show(result)
    write_numbers(result, settings.json)
