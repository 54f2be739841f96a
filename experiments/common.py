"""What the experiments share: the start of a command, and the model that studies run on."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jelicit.commands.gpu_memory import take_as_needed

take_as_needed()

import rich
import tyro

from jelicit.commands.ending import ending_in_one_line, stopping_at_once
from jelicit.commands.model_settings import Dtype, ModelSettings, collect_rarely, keep_compiled, say
from jelicit.disk import write_text
from jelicit.studies.checks import empty_value
from jelicit.studies.study import Study, StudyResult

__all__ = ["Dtype", "ModelSettings", "ask", "console", "say", "start", "write_numbers"]

console = rich.get_console()
Settings = TypeVar("Settings")


def write_numbers(result: Mapping[str, Any], path: Path | None) -> None:
    """Writes what a benchmark measured as JSON, and says where; None = nowhere."""
    if path is not None:
        write_text(path, json.dumps(result, indent=1) + "\n")
        say(f"numbers: {path}")


def start(main: Callable[[Settings], Any], settings: type[Settings], *, about: str | None) -> None:
    """Read the command line and run an experiment; a user's mistake ends in one line, not a trace.

    Args:
        main: The experiment.
        settings: Its settings, a dataclass.
        about: Help text above the options.
    """
    keep_compiled()
    collect_rarely()
    with ending_in_one_line():
        with stopping_at_once():
            refuse_empty_words(sys.argv[1:])
            given = tyro.cli(settings, description=about)
        main(given)


def refuse_empty_words(words: Sequence[str]) -> None:
    """Refuse empty texts among the words of a command: of a path, one becomes ".".

    Raises:
        ValueError: There is one; the message names the option.
    """
    option = ""
    for word in words:
        if word.startswith("--"):
            option, sign, value = word.partition("=")
            if not sign or value:
                continue
        elif word:
            continue
        raise ValueError(empty_value(option or "the command line"))


def ask(study: Study, model: Any, settings: Any) -> StudyResult:
    """Run a study with the settings of this command."""
    command = shlex.join(["python", f"experiments/{study.name}.py", *sys.argv[1:]])
    return study.run(model, settings, console=console, command=command)
