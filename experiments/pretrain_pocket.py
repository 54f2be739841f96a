"""Pretrain the pocket model on the pocket world and export it in Hugging Face format.

    python experiments/pretrain_pocket.py                     # the middle size, seed 0
    python experiments/pretrain_pocket.py --seeds 0 1 2       # three seeds, a folder each
    python experiments/pretrain_pocket.py --sizes small middle large

A run that is killed goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from common import start
from tokenizers import Tokenizer
from tqdm import tqdm

from extract.pocket_export import export
from extract.pocket_tokenizer import encoder, train_tokenizer
from jelicit import figures
from jelicit.pocket.corpus import WordEncoder
from jelicit.pocket.curriculum import Progress, RunConfig, curriculum, pretrain
from jelicit.pocket.model import SIZES, llama_config_dict, param_count, to_llama_state_dict
from jelicit.pocket.train import OptimiserConfig
from jelicit.pocket.world import tokenizer_texts
from jelicit.studies.checks import refuse, too_small, unknown
from jelicit.studies.study import machine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Pretrain the pocket model.

    Attributes:
        sizes: Which sizes to train: small (0.3 M parameters), middle (1.4 M, the shipped one),
            large (2.9 M).
        seeds: Seeds of weights and corpus.
        marks: Leave in the " yes"/" no" marks after verdicts; --no-marks is the ablation.
        scale: Multiplies the tokens of every phase.
        out: Run folder; one folder per size and seed inside.
        ship: Also write the last model trained to this folder (extract/pocket ships with the
            package).
        workers: Processes that make batches ahead (0: none). Worth it where a GPU trains.
    """

    sizes: tuple[str, ...] = ("middle",)
    seeds: tuple[int, ...] = (0,)
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


def train_one(
    settings: Settings, size: str, seed: int, tokenizer: Tokenizer, encode: WordEncoder
) -> Path:
    """Train and export one model; returns its folder."""
    config = RunConfig(
        model=SIZES[size],
        optimiser=OptimiserConfig(),
        phases=curriculum(marks=settings.marks, scale=settings.scale),
        seed=seed,
    )
    folder = settings.out / f"{size}-seed{seed}{'' if settings.marks else '-nomarks'}"
    with tqdm(total=tokens_left(config), unit="tok", unit_scale=True, desc=folder.name) as bar:

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
                shown = " ".join(
                    f"{k.split('/')[0][0]}/{k.split('/')[1][:5]} {v:.2f}"
                    for k, v in latest.items()
                    if "/" in k
                )
                bar.write(f"{latest['phase']:8s} {latest['tokens'] / 1e6:6.1f}M {shown}")

        state, progress = pretrain(
            config, encode, folder / "checkpoints", workers=settings.workers, report=report
        )
    history = {"settings": dataclasses.asdict(config), "progress": dataclasses.asdict(progress)}
    (folder / "history.json").write_text(json.dumps(history, indent=1, default=str))
    figures.save(figures.training_figure(dataclasses.asdict(progress)), folder / "training")
    pretraining = {
        "size": size,
        "seed": seed,
        "marks": settings.marks,
        "parameters": param_count(config.model),
        "tokens": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "machine": machine(),
        "settings": dataclasses.asdict(config),
        "ends": {entry["phase"]: entry for entry in progress.measures},
    }
    for target in [folder / "model", *([settings.ship] if settings.ship else [])]:
        export(
            to_llama_state_dict(state),
            llama_config_dict(config.model),
            tokenizer.to_str(),
            target,
            trained_length=max(phase.corpus.length for phase in config.phases),
        )
        (target / "pretraining.json").write_text(
            json.dumps(pretraining, indent=1) + "\n", encoding="utf-8"
        )
    return folder


def main(settings: Settings) -> None:
    problems = unknown("--sizes", settings.sizes, list(SIZES))
    if not 0 < settings.scale < float("inf"):
        problems.append(f"--scale {settings.scale}: allowed are numbers above 0")
    if not settings.seeds:
        problems.append("--seeds is empty; give at least one")
    refuse(problems + too_small([("--workers", settings.workers, 0)]))
    tokenizer, encode = make_tokenizer()
    for size, seed in itertools.product(settings.sizes, settings.seeds):
        folder = train_one(settings, size, seed, tokenizer, encode)
        print(f"{folder}: done")


if __name__ == "__main__":
    start(main, Settings, about=__doc__)
