"""What trainings share: a start on disk, seeds of their own, a bar, going on after a kill, a card.

The training itself is a library's (transformers, trl, peft). Here is what makes one a function of
its settings: it draws from seeds of its own, and goes on after a kill where it stopped. What it
leaves is of `extract.trained_folder`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoTokenizer
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils import logging

from extract.adapters import merged
from extract.loaded import quiet
from extract.models import LanguageModel
from extract.trained_folder import CARD, MarkWhole, last_checkpoint
from jelicit.disk import whole_folder, write_text

PAGE = "README.md"
PACKAGES = ("transformers", "trl", "peft", "accelerate", "torch")


def require_training() -> None:
    """Refuses to train where the libraries for it are not installed.

    Raises:
        ImportError: Saying what to install.
    """
    for name in ("trl", "peft", "accelerate"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"training needs {name} ({error}); install it: pip install 'jelicit[train]'"
            ) from error


# --- where it begins -----------------------------------------------------------------------------


def start_folder(lm: LanguageModel, work: Path) -> Path:
    """A folder with the weights that a training begins with: the model's own, or a copy.

    Models of the hub, in memory, or with an adapter are written to the work folder, merged.
    """
    if lm.folder is not None and "adapter" not in lm.checks:
        return lm.folder
    folder = work / "start"
    if not folder.is_dir():
        model = lm.model
        if "adapter" in lm.checks:
            model = merged(model)
        with whole_folder(folder) as new, silent():
            model.save_pretrained(new)
            save_tokenizer(lm, new)
    return folder


def save_tokenizer(lm: LanguageModel, folder: Path) -> None:
    """The tokenizer's own files as they are where they are at hand, else as the library writes."""
    if lm.folder is not None and (lm.folder / "tokenizer.json").is_file():
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (lm.folder / name).is_file():
                shutil.copyfile(lm.folder / name, folder / name)
        if (lm.folder / "chat_template.jinja").is_file():
            shutil.copyfile(lm.folder / "chat_template.jinja", folder / "chat_template.jinja")
    else:
        lm.tokenizer.save_pretrained(folder)


def own_tokenizer(start: Path) -> Any:
    """A tokenizer that a trainer may change; one without padding pads with its end of text."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def own_seeds(seed: int) -> Iterator[None]:
    """Inside, all generators begin with a seed; outside nothing of it is to be seen."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - as below
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the libraries draw from it
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


# --- how it goes on, and what it leaves ----------------------------------------------------------


def key_of(**decides: Any) -> str:
    """A hash of everything that decides a training."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def train(trainer: Any, title: str, *, progress: bool = True) -> list[dict[str, float]]:
    """Runs a trainer to its end, from its last whole checkpoint on if it has one; its log.

    Args:
        trainer: Of transformers or trl.
        title: What is trained, before the bar.
        progress: Show a bar.
    """
    for printed in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printed)
    trainer.add_callback(MarkWhole())
    if progress:
        trainer.add_callback(_Bar(title))
    with silent():
        last = last_checkpoint(Path(trainer.args.output_dir))
        trainer.train(resume_from_checkpoint=last)
    return [dict(entry) for entry in trainer.state.log_history]


@contextmanager
def silent() -> Iterator[None]:
    """The library's own bars and remarks are left out: one bar tells of all."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet(), warnings.catch_warnings():
            # The libraries warn of each other's old names, at every checkpoint.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Bar(TrainerCallback):
    """A bar of steps with the last loss or reward."""

    def __init__(self, title: str):
        self._title = title
        self._bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self._title,
            unit="step",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        shown = {name: logs[name] for name in ("loss", "accuracy", "reward", "kl") if name in logs}
        if self._bar is not None and shown:
            self._bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def save(
    trainer: Any,
    lm: LanguageModel,
    folder: Path,
    card: Mapping[str, Any],
    *,
    page: Callable[[Mapping[str, Any]], str],
) -> None:
    """Writes a trained model as a folder that transformers loads, with its card.

    LoRA is merged into the weights, so that nothing but transformers is needed to read it.

    Args:
        trainer: At its end.
        lm: What it began with; its tokenizer goes along.
        folder: Where to; it appears whole or not at all.
        card: What made it.
        page: The card as a page for readers.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    made = {"versions": {name: version(name) for name in PACKAGES}, **card}
    with whole_folder(folder) as new, silent():
        model.save_pretrained(new)
        save_tokenizer(lm, new)
        write_text(new / CARD, json.dumps(made, indent=1, sort_keys=True) + "\n")
        write_text(new / PAGE, page(made))


def curve(log: list[dict[str, float]], *names: str) -> list[dict[str, float]]:
    """What a log says of these, step by step."""
    kept = ("step", *names)
    return [
        {name: float(entry[name]) for name in kept if name in entry}
        for entry in log
        if any(name in entry for name in names)
    ]


def table(rows: Mapping[str, Any]) -> str:
    """Names and values as a table of a page."""
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"
