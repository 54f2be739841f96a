"""Commands in children of a process that has loaded the libraries: they start in milliseconds.

So a kill at a random moment hits the work and not the imports, and hundreds of commands that load a
model take minutes. Every child is a process group of its own, with its own files for what it says.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "campaign")]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code; negative: the signal that ended it; None: it hung and was killed.
        out: What it printed.
        err: What went to stderr.
        seconds: How long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


class Children:
    """Runs commands one at a time; to be used as a context."""

    def __init__(self, place: Path, *, modules: tuple[str, ...]) -> None:
        """Starts the process that loads `modules` and is the parent of all commands.

        Args:
            place: Folder for what commands print, and where programs are compiled to.
            modules: What is loaded before anything is run.
        """
        self._place = place
        place.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(PATHS),
            "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(
        self, words: tuple[str, ...], cwd: Path, *, kill_after: float | None = None, limit=300.0
    ) -> Ended:
        """Run a command.

        Args:
            words: A module (`extract`), or a script's path, and its words.
            cwd: Where.
            kill_after: Seconds after which SIGKILL goes to its process group.
            limit: Seconds after which it hangs.
        """
        out, err = self._place / "stdout", self._place / "stderr"
        self._say({"words": words, "cwd": str(cwd), "out": str(out), "err": str(err)})
        begin = time.perf_counter()
        group = int(self._line())
        stop = limit if kill_after is None else min(kill_after, limit)
        ended_itself = self._wait(stop)
        if not ended_itself:
            os.killpg(group, signal.SIGKILL)
        code = int(self._line())
        hung = not ended_itself and kill_after is None
        seconds = time.perf_counter() - begin
        return Ended(None if hung else code, _text(out), _text(err), seconds)

    def _say(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _wait(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], max(seconds, 0.0))[0])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


# --- the process itself --------------------------------------------------------------------------


def main(modules: list[str]) -> None:
    """Loads modules, then answers every line with a child's number and, later, its exit code."""
    for name in modules:
        __import__(name)
    # Unbuffered and apart from sys.stdout: nothing that a child prints may get in between.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
        answers.write(f"{child}\n")
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


def _become(asked: dict[str, Any]) -> None:
    """The child: its own group, its own files, then the command; it never returns."""
    os.setsid()
    os.chdir(asked["cwd"])
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = list(asked["words"])
    code = 1
    try:
        _run(sys.argv[0])
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(program: str) -> None:
    if program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(f"{program}.__main__", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
