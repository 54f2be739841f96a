"""Pretrain the pocket model on the pocket world and export it in Hugging Face format.

    python experiments/pretrain_pocket.py                     # the middle size, seed 0
    python experiments/pretrain_pocket.py --seeds 0 1 2       # three seeds, a folder each
    python experiments/pretrain_pocket.py --sizes small middle large
    python experiments/pretrain_pocket.py --base runs/pocket/middle-seed0/base --seeds 0 1 2

A model is trained in two parts: the world first, and then, with all that stays as it is, new blocks
that read the labels of examples. The last command repeats the second part alone. A run that is
killed goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import start
from tokenizers import Tokenizer
from tqdm import tqdm

from extract.pocket_export import export, trained_length
from extract.pocket_tokenizer import encoder, train_tokenizer
from jelicit import figures
from jelicit.disk import write_text
from jelicit.pocket.corpus import WordEncoder
from jelicit.pocket.curriculum import Progress, RunConfig, pretrain, pretraining_config
from jelicit.pocket.model import (
    SIZES,
    PocketLM,
    llama_config_dict,
    param_count,
    read_model,
    to_llama_state_dict,
)
from jelicit.pocket.reading import learn_to_read, reading_config
from jelicit.pocket.world import tokenizer_texts
from jelicit.studies.checks import refuse, too_small, unknown
from jelicit.studies.study import machine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Pretrain the pocket model.

    Attributes:
        sizes: Which sizes to train: small (0.5 M parameters), middle (2.3 M, the shipped one),
            large (4.9 M).
        seeds: Seeds of weights and corpus.
        base: Folder of a model of the first part, which is then left out (size and marks are that
            model's).
        marks: Leave in the " yes"/" no" marks after verdicts; --no-marks is the ablation.
        scale: Multiplies the tokens of every phase.
        out: Run folder; one folder per size and seed inside.
        ship: Also write the last model trained to this folder (extract/pocket ships with the
            package).
        workers: Processes that make batches ahead (0: none). Worth it where a GPU trains.
    """

    sizes: tuple[str, ...] = ("middle",)
    seeds: tuple[int, ...] = (0,)
    base: Path | None = None
    marks: bool = True
    scale: float = 1.0
    out: Path = Path("runs/pocket")
    ship: Path | None = None
    workers: int = 0


def make_tokenizer() -> tuple[Tokenizer, WordEncoder]:
    """The tokenizer of the world, the same on every machine, and its table of words."""
    tokenizer = train_tokenizer(tokenizer_texts("tokenizer", 20_000))
    return tokenizer, encoder(tokenizer)


def tokens_left(config: RunConfig, phase: int = 0, step: int = 0) -> int:
    """Most tokens that a run still reads at a step of a phase; gates may end phases earlier."""
    tokens = 0
    for later in config.phases[phase:]:
        tokens += (later.steps - step) * later.corpus.length * later.corpus.rows
        step = 0
    return tokens


@contextmanager
def shown(config: RunConfig, name: str) -> Iterator[Callable[[Progress, RunConfig], None]]:
    """A progress bar of a run over its tokens; gives what the run reports to."""
    with tqdm(total=tokens_left(config), unit="tok", unit_scale=True, desc=name) as bar:

        def report(progress: Progress, config: RunConfig) -> None:
            if not bar.n and len(progress.losses) > 1:
                # What was read before a run was killed is not this run's speed.
                bar.initial = bar.n = progress.losses[-2][0]
            bar.total = progress.tokens + tokens_left(config, progress.phase, progress.step)
            bar.update(progress.tokens - bar.n)
            latest = progress.measures[-1] if progress.measures else {}
            phase = config.phases[min(progress.phase, len(config.phases) - 1)].corpus.name
            bar.set_postfix_str(f"{phase} loss {progress.losses[-1][1]:.3f}", refresh=False)
            if progress.step % config.measure_every == 0 and latest:
                measured = " ".join(
                    f"{k.split('/')[0][0]}/{k.split('/')[1][:5]} {v:.2f}"
                    for k, v in latest.items()
                    if "/" in k
                )
                bar.write(f"{latest['phase']:8s} {latest['tokens'] / 1e6:6.1f}M {measured}")

        yield report


def run_record(config: RunConfig, progress: Progress) -> dict[str, Any]:
    """What pretraining.json says of a run."""
    return {
        "seed": config.seed,
        "parameters": param_count(config.model),
        "tokens": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "machine": machine(),
        "settings": dataclasses.asdict(config),
        "ends": {entry["phase"]: entry for entry in progress.measures},
    }


def write_history(config: RunConfig, progress: Progress, folder: Path, name: str) -> None:
    """How a run went, as data and as a figure."""
    history = {"settings": dataclasses.asdict(config), "progress": dataclasses.asdict(progress)}
    write_text(folder / f"{name}.json", json.dumps(history, indent=1, default=str))
    figures.save(figures.training_figure(dataclasses.asdict(progress)), folder / name)


def write_model(
    model: PocketLM, tokenizer: Tokenizer, record: dict[str, Any], trained: int, folder: Path
) -> None:
    """A model in Hugging Face format with what it was trained on."""
    export(
        to_llama_state_dict(model),
        llama_config_dict(model.config),
        tokenizer.to_str(),
        folder,
        trained_length=trained,
    )
    write_text(folder / "pretraining.json", json.dumps(record, indent=1) + "\n")


def longest(config: RunConfig) -> int:
    """Tokens of the longest rows of a run."""
    return max(phase.corpus.length for phase in config.phases)


def train_base(
    settings: Settings, size: str, seed: int, tokenizer: Tokenizer, encode: WordEncoder
) -> Path:
    """The first part: train and export a model that knows the world; returns its run folder."""
    config = pretraining_config(size, seed=seed, marks=settings.marks, scale=settings.scale)
    folder = settings.out / f"{size}-seed{seed}{'' if settings.marks else '-nomarks'}"
    with shown(config, folder.name) as report:
        state, progress = pretrain(
            config, encode, folder / "checkpoints", workers=settings.workers, report=report
        )
    write_history(config, progress, folder, "training")
    record = {"size": size, "marks": settings.marks, **run_record(config, progress)}
    write_model(state.model(), tokenizer, record, longest(config), folder / "base")
    return folder


def train_reader(
    settings: Settings, base: Path, seed: int, tokenizer: Tokenizer, encode: WordEncoder, out: Path
) -> None:
    """The second part: put reading blocks on a model of the first, and export the whole."""
    record = json.loads((base / "pretraining.json").read_text(encoding="utf-8"))
    below = read_model(base)
    config = reading_config(below, seed=seed, scale=settings.scale)
    with shown(config, f"{out.name}, reading") as report:
        model, progress = learn_to_read(
            config, below, encode, out / "reading", workers=settings.workers, report=report
        )
    write_history(config, progress, out, "reading")
    record["reading"] = run_record(config, progress)
    trained = max(trained_length(base), longest(config))
    for target in [out / "model", *([settings.ship] if settings.ship else [])]:
        write_model(model, tokenizer, record, trained, target)


def base_problems(base: Path) -> list[str]:
    """Why a folder cannot be read as a model of the first part; none if it can."""
    try:
        record = json.loads((base / "pretraining.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [
            f"--base {base}: no pocket model is there (pretraining.json); give the folder `base` "
            "of a run of this command"
        ]
    if "reading" in record:
        return [f"--base {base}: this model reads labels already; give the one below it"]
    return []


def main(settings: Settings) -> None:
    problems = unknown("--sizes", settings.sizes, list(SIZES))
    if not 0 < settings.scale < float("inf"):
        problems.append(f"--scale {settings.scale}: allowed are numbers above 0")
    if not settings.seeds:
        problems.append("--seeds is empty; give at least one")
    if settings.base is not None:
        problems += base_problems(settings.base)
    refuse(problems + too_small([("--workers", settings.workers, 0)]))
    tokenizer, encode = make_tokenizer()
    if settings.base is not None:
        for seed in settings.seeds:
            folder = settings.out / f"reading-seed{seed}"
            train_reader(settings, settings.base, seed, tokenizer, encode, folder)
            print(f"{folder}: done")
        return
    for size, seed in itertools.product(settings.sizes, settings.seeds):
        folder = train_base(settings, size, seed, tokenizer, encode)
        train_reader(settings, folder / "base", seed, tokenizer, encode, folder)
        print(f"{folder}: done")


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
