"""What the experiments share: the start of a command, messages, checks of options."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import jax
import rich
import tyro

from jelicit.commands.ending import ending_in_one_line

console = rich.get_console()
Settings = TypeVar("Settings")


def start(main: Callable[[Settings], None], settings: type[Settings], *, about: str | None) -> None:
    """Read the command line and run an experiment; a user's mistake ends in one line, not a trace.

    Args:
        main: The experiment.
        settings: Its settings, a dataclass.
        about: Help text above the options.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What was compiled once on this machine is read back by later runs.
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", "runs/compiled")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    given = tyro.cli(settings, description=about)
    with ending_in_one_line():
        main(given)


def say(line: str) -> None:
    """One line for the user, never wrapped: paths and run ids can be copied whole."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def machine() -> str:
    """The device that JAX computes on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU core{'' if cores == 1 else 's'}"


def named(label: str) -> str:
    """What rows call a label of `Item`: its own, "label", is the truth."""
    return "truth" if label == "label" else label


def slug(name: str) -> str:
    """A name as part of a path: letters, digits, dot, dash and underscore only."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def fit_folder(out: Path, what: str) -> Path:
    """Where finished fits are kept until what they are for is written.

    Args:
        out: Folder of the experiment.
        what: What they are for: the title of a panel, for example.
    """
    return out / "fits" / slug(what)


def forget(folder: Path) -> None:
    """Remove a folder of fits; at real sizes they are larger than all rows and figures."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other fits are there
        folder.parent.rmdir()


def layer_problems(layers: Sequence[str]) -> list[str]:
    """Problems of --layers: "best" alone, or numbers."""
    numbers = [layer.lstrip("-").isdecimal() for layer in layers]
    if tuple(layers) == ("best",) or (numbers and all(numbers)):
        return []
    return [f"--layers {' '.join(layers)}: give numbers, or best alone"]


def folder_problems(out: Path) -> list[str]:
    """Problems of --out: URLs, of which a path has only one slash left."""
    if re.match(r"^[a-z][a-z0-9+]+:/", out.as_posix()):
        return [f"--out {out}: figures are written to a local folder only"]
    return []


def too_small(values: Sequence[tuple[str, int, int]]) -> list[str]:
    """Problems of options (name, value, least) that are below what they allow."""
    return [
        f"{option} {value}: allowed are whole numbers from {least}"
        for option, value, least in values
        if value < least
    ]


def refuse(problems: Sequence[str]) -> None:
    """One error for everything that is wrong with the settings.

    Raises:
        ValueError: There is a problem.
    """
    if problems:
        raise ValueError("; ".join(problems))


def unknown(option: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Problems of an option whose values come from a list: unknown or repeated ones."""
    wrong = [name for name in given if name not in known]
    found = [f"{option} {' '.join(wrong)} is unknown; known: {', '.join(known)}"] if wrong else []
    if len(set(given)) < len(given):
        found.append(f"{option} names {' '.join(given)}: name each once")
    return found if given else [f"{option} is empty; choose from {', '.join(known)}"]


def same_names(names: Sequence[str]) -> list[str]:
    """Problem of two sets under one name, as two folders of the same last name are."""
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"two sets are called {', '.join(twice)}; rename a folder"] if twice else []
