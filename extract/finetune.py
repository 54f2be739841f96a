"""Fine-tuning: a causal language model learns to give the verdict after zero-shot prompts.

    L = - mean_i [ y_i log p(true | x_i) + (1 - y_i) log p(false | x_i) ]

x_i is an item's zero-shot prompt, y_i its label, 0 or 1 or between; nothing else of the text is
learnt (Wen et al. 2025, section 4.1; docs/methods.md). transformers' `Trainer` trains, peft makes
the adapter.

The rates are choices: Wen et al. print none. AdamW with beta_2 = 0.95, weight decay 0.1, 15 % of
warm-up and rank 8 are those of the nearest printed recipe, a LoRA trained on the verdict token;
batches are half as large as its 32, since sets here are small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from extract import training_run
from extract.bfloat16_training import quick_attention, turn_frozen
from extract.finetune_settings import ALGORITHM, ALL_BELOW, FinetuneSettings, Loss
from extract.gguf_file import find_gguf
from extract.models import LanguageModel, load, usable_device
from extract.reader import gathered_before
from extract.trained_folder import TrainedFolder
from extract.trainer_settings import library_arguments, lora_config, on_one_gpu, precision_of
from extract.verdict_data import (
    Labels,
    check_apart,
    collate,
    digest_of_data,
    examples_of,
    labelled,
)
from jelicit.data.items import Item
from jelicit.data.prompts import PromptFormat, get_format
from jelicit.disk import write_text

PACKAGES = ("torch", "transformers", "peft", "accelerate")


def finetune(
    model: str,
    items: Sequence[Item],
    labels: Labels,
    format: str | PromptFormat,
    out: str | Path,
    *,
    settings: FinetuneSettings | None = None,
    held_out: Sequence[Item] = (),
    origin: str = "",
    revision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    chat: bool | None = False,
    progress: bool = True,
    say: Callable[[str], object] = print,
) -> Path:
    """A folder with the model fine-tuned on items and labels: an adapter, or the whole model.

    Either is a model for every other command. Beside it lie its plan and its card
    (`training.json`). What is finished is given back; what was killed goes on.

    Args:
        model: As of `extract.models.load`; no adapter.
        items: n items. Of each the zero-shot prompt is read, and no label of its own.
        labels: [n] hard or soft; items without one (None, nan) are left out.
        format: The prompt format.
        out: The folder.
        settings: How.
        held_out: Items that the model will be tested on.
        origin: Where the labels came from, for the card.
        revision: Of a model on the hub.
        device: As of `load`.
        threads: As of `load`.
        chat: Train in the model's own chat template; the model is then to be asked with it, too.
        progress: Show a bar.
        say: Told what is trained, in one line.

    Raises:
        ValueError: If items or labels make no sense, a train item is held out, the model is an
            adapter, the folder holds another training; or as of `load` and `examples_of`.
        ImportError: If peft or accelerate is not installed.
    """
    form = get_format(format)
    chosen, targets = labelled(items, labels)
    check_apart(chosen, held_out)
    lm = _loaded(model, revision=revision, device=device, threads=threads, chat=chat)
    own = (settings or FinetuneSettings()).fitting(lm.n_parameters)
    examples = examples_of(lm, chosen, targets, form)
    folder = TrainedFolder(Path(out), _plan(lm, own, chosen, targets, form))
    if folder.finished:
        say(f"{out}: trained before")
        return folder.folder
    for line in _described(lm, own, examples, named=model):
        say(line)
    _train(lm, own, examples, folder, origin=origin, progress=progress)
    return folder.folder


def _loaded(model: str, *, device: str, **options: Any) -> LanguageModel:
    """The model in the dtype that it is trained in, and no adapter."""
    # Weights that learn are float32; what passes compute in is `precision_of`'s.
    dtype = "float32" if usable_device(device) in ("cpu", "mps") else "auto"
    with training_run.silent():
        lm = load(model, dtype=dtype, device=device, **options)
    refuse_adapter(lm, named=model)
    return lm


def refuse_adapter(lm: LanguageModel, *, named: str) -> None:
    """Refuses a model that is an adapter.

    Raises:
        ValueError: It is one.
    """
    if "adapter" in lm.checks:
        raise ValueError(
            f"{named} is an adapter, and an adapter of it would name no base that others can "
            "load: train its base, or a model that it was merged into"
        )


def _train(
    lm: LanguageModel,
    settings: FinetuneSettings,
    examples: Sequence[Any],
    folder: TrainedFolder,
    *,
    origin: str,
    progress: bool,
) -> None:
    """Trains from the last whole checkpoint on, and writes what is left."""
    begin = time.perf_counter()
    with training_run.silent(), training_run.own_seeds(settings.seed):
        trainer = verdict_trainer(lm, settings, examples, folder.checkpoints)
        log = run(trainer, f"fine-tuning {lm.name}", progress=progress)
        if not trainer.is_world_process_zero():
            return
        _save(trainer.model, lm, settings, folder.folder)
    folder.finish(
        {
            "labels from": origin,
            "losses": [entry["loss"] for entry in log if "loss" in entry],
            "seconds": round(time.perf_counter() - begin, 1),
            "packages": {name: version(name) for name in PACKAGES},
        }
    )


def _plan(
    lm: LanguageModel,
    settings: FinetuneSettings,
    items: Sequence[Item],
    targets: Sequence[float],
    form: PromptFormat,
) -> dict[str, Any]:
    """All that decides the result. How often it is saved does not."""
    how = {name: value for name, value in asdict(settings).items() if name != "save_every"}
    return {
        "training": "finetune",
        "algorithm": ALGORITHM,
        "base": {"name": lm.name, "revision": lm.revision, "digest": lm.digest},
        "settings": how,
        "format": form.name,
        "items": len(items),
        "share true": sum(targets) / len(targets),
        "data": digest_of_data(items, targets, form),
        "chat": None if lm.chat is None else lm.chat.digest,
        "device": lm.device.split(":")[0],
        "precision": precision_of(lm),
    }


def _described(
    lm: LanguageModel, settings: FinetuneSettings, examples: Sequence[Any], *, named: str
) -> list[str]:
    """What is trained, in one line, and a warning of a base that may be gone one day."""
    which = (
        f"all weights (below {ALL_BELOW / 1e6:.0f} M parameters)"
        if settings.weights == "all"
        else f"an adapter (LoRA, rank {settings.rank})"
    )
    lines = [
        f"fine-tuning {lm.name} ({lm.n_parameters / 1e6:.1f} M parameters) on {len(examples)} "
        f"items: {which}, {settings.epochs} epochs, rate {settings.learning_rate:g}, "
        f"{precision_of(lm)} on {lm.device}"
    ]
    if settings.weights == "lora" and not settings.merge and find_gguf(named) is not None:
        lines.append(
            f"the adapter's base is {lm.folder}, the folder that {named} was turned into, which a "
            "full cache may drop (loading the file makes it again): --merge writes a model that "
            "needs no base"
        )
    return lines


def run(trainer: VerdictTrainer, title: str, *, progress: bool = True) -> list[dict[str, float]]:
    """Trains to the end, or from the last whole checkpoint on; the trainer's log."""
    data: Any = trainer.train_dataset
    with quick_attention(trainer, max(len(example["ids"]) for example in data)):
        return training_run.train(trainer, title, progress=progress)


# --- the trainer ---------------------------------------------------------------------------------


def verdict_loss(
    logits: torch.Tensor, verdicts: torch.Tensor, targets: torch.Tensor, *, loss: Loss
) -> torch.Tensor:
    """Cross-entropy [n] of the verdicts with the labels, in float32.

    Args:
        logits: [n, vocabulary] of the token that follows each prompt.
        verdicts: [n, 2] tokens of the true and the false verdict.
        targets: [n] how likely the true one is.
        loss: What probabilities are normalised over.
    """
    logits = logits.float()
    pair = logits.gather(1, verdicts)
    total = torch.logsumexp(logits if loss == "vocabulary" else pair, 1)
    log_p = pair - total[:, None]
    return -(targets * log_p[:, 0] + (1 - targets) * log_p[:, 1])


class VerdictTrainer(Trainer):
    """The library's trainer, with the loss on the verdict alone."""

    loss_is_scaled_for_ga = False  # a mean of each pass, whatever models do with their own loss
    loss: Loss = "vocabulary"

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss of one pass; logits are computed where a prompt ends and nowhere else."""
        batch = dict(inputs)
        ends, verdicts, targets = (batch.pop(name) for name in ("ends", "verdicts", "targets"))
        where = torch.stack([torch.arange(len(ends), device=ends.device), ends], 1)
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with gathered_before(head, where) as gathered:
            outputs = model(**batch)
        logits = outputs.logits
        rows, columns = where.to(logits.device).unbind(1)
        logits = logits[0] if gathered else logits[rows, columns]
        asked = verdicts.to(logits.device), targets.to(logits.device)
        loss = verdict_loss(logits, *asked, loss=self.loss).mean()
        return (loss, outputs) if return_outputs else loss


def verdict_trainer(
    lm: LanguageModel,
    settings: FinetuneSettings,
    examples: Sequence[Any],
    checkpoints: Path,
    *,
    model: Any = None,
) -> VerdictTrainer:
    """The library's trainer, which has not begun.

    Args:
        lm: What is trained.
        settings: With nothing left to the model (`FinetuneSettings.fitting`).
        examples: Of `examples_of`.
        checkpoints: Folder from which a killed training goes on.
        model: Its weights as `trainable` has them; None = fresh ones.
    """
    at_once = settings.at_once or settings.batch_size
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.batch_size // at_once,
        learning_rate=settings.learning_rate or 0.0,
        weight_decay=settings.weight_decay,
        adam_beta2=0.95,
        warmup_steps=settings.warmup,
        seed=settings.seed,
        save_steps=settings.save_every,
        remove_unused_columns=False,
        **library_arguments(lm),
    )
    trainer = VerdictTrainer(
        model=trainable(lm, settings) if model is None else model,
        args=on_one_gpu(arguments),
        train_dataset=list(examples),  # type: ignore[arg-type]  # anything with a length
        data_collator=collate,
    )
    trainer.loss = settings.loss
    return trainer


def trainable(lm: LanguageModel, settings: FinetuneSettings) -> Any:
    """The model with the weights that are to change in float32; an adapter is put in."""
    if settings.weights == "all":
        return lm.model.float().train()
    import peft

    config: Any = lora_config(settings.rank, "CAUSAL_LM")
    # Asked first: an adapter's weights are no part of the model's size.
    coarse = precision_of(lm) == "bfloat16" and lm.device == "cpu"
    model = peft.get_peft_model(lm.model, config)  # puts the adapter in float32
    if coarse and not settings.merge:
        turn_frozen(model)
    return model


# --- what is left --------------------------------------------------------------------------------


def _save(trained: Any, lm: LanguageModel, settings: FinetuneSettings, folder: Path) -> None:
    """The adapter with its base's name, or the whole model with its tokenizer."""
    if settings.weights == "lora":
        config = trained.peft_config["default"]
        config.base_model_name_or_path = str(lm.folder.resolve()) if lm.folder else lm.name
        config.revision = lm.revision or None
    whole = settings.weights == "all" or settings.merge
    if settings.merge:
        trained = trained.merge_and_unload()
    if whole:
        trained.config.use_cache = True  # the trainer turns it off
        lm.tokenizer.save_pretrained(folder)
    trained.save_pretrained(folder)
    kind = "The whole model" if whole else "An adapter (LoRA)"
    write_text(
        folder / "README.md",
        f"{kind} of {lm.name}, fine-tuned by jelicit to give the verdict after zero-shot "
        "prompts. Settings, data digest and losses: training.json.\n",
    )
