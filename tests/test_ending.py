"""However a command ends, it ends in one line; unless the program itself is at fault."""

import errno
import json
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from jelicit.commands.ending import DEBUG, MOST, ending_in_one_line, stopping_at_once
from jelicit.probes.config import SWEEP_SETTINGS
from jelicit.studies.fit_settings import FitSettings

ROOT = Path(__file__).resolve().parents[1]

# Shells have their background jobs ignore SIGINT, and so would the children of a suite run as one.
LISTENING = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"


def ended(error):
    with ending_in_one_line():
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("--n is 0; allowed: 1 or more"), "--n is 0; allowed: 1 or more"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), "/x/y: No space left"),
        (
            OSError(errno.ENOSPC, "No space left"),
            "No space left, and the system does not say of wh",
        ),
        (MemoryError(), "out of memory; give"),
        (
            RecursionError("maximum depth"),
            "something is nested too deeply to be read (maximum depth",
        ),
        (
            RuntimeError("Invalid device\nat C++"),
            "RuntimeError: Invalid device; JELICIT_DEBUG=1 sho",
        ),
        (ValueError("name \x1b[31mred"), "name ?[31mred"),
    ],
)
def test_mistakes_end_in_one_line(error, said, capsys):
    with pytest.raises(SystemExit) as stop:
        ended(error)
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1


def test_a_huge_text_is_cut(capsys):
    with pytest.raises(SystemExit):
        ended(ValueError("x" * 2_000_000))
    told = capsys.readouterr().err
    assert len(told) < MOST + 100
    assert "(2,000,000 characters)" in told


def test_an_assertion_of_a_library_is_one_line_and_one_of_ours_is_not(capsys):
    with pytest.raises(SystemExit), ending_in_one_line():
        json.loads(3)  # type: ignore[arg-type]  # TypeError in the standard library
    assert capsys.readouterr().err.startswith("error: TypeError: the JSON object must be str")
    with pytest.raises(TypeError):
        ended(TypeError("a fault of ours"))
    with pytest.raises(AssertionError):
        ended(AssertionError("a fault of ours"))


def test_the_switch_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(SystemExit):
        ended(ValueError("what"))
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.endswith("error: what\n")


def test_ctrl_c_while_loading_ends_at_once_even_where_a_library_swallows_it():
    code = (
        f"{LISTENING}import os\n"
        "from jelicit.commands.ending import stopping_at_once\n"
        "with stopping_at_once():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "print('went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stopped before anything was begun\n"


def test_afterwards_and_where_it_is_handled_already_signals_are_as_before():
    before = signal.getsignal(signal.SIGINT)
    with stopping_at_once():
        pass
    assert signal.getsignal(signal.SIGINT) is before
    mine = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, mine)


@pytest.mark.parametrize("package", ["jelicit", "extract"])
def test_the_module_that_is_run_loads_nothing_heavy_itself(package):
    code = (
        f"import sys, {package}.__main__\n"
        "print([name for name in ('numpy', 'jax', 'torch', 'tyro', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_of_the_commands_waits_neither_for_jax_nor_for_pandas():
    code = (
        "import sys\nfrom jelicit.commands import cli\n"
        "print([name for name in ('jax', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_options_of_fits_allow_what_fits_allow():
    """They are written out where help is made, which does not wait for the declarations."""
    for name in ("precision", "divisor"):
        given = typing.get_args(typing.get_type_hints(FitSettings)[name])
        assert given == SWEEP_SETTINGS[name].options


STOPPED_AT = """
import os, runpy, signal, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == MOMENT:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop())
sys.argv = ["command", *WORDS]
if COMMAND.endswith(".py"):
    sys.path.insert(0, os.path.dirname(COMMAND))  # as Python does
    runpy.run_path(COMMAND, run_name="__main__")
else:
    runpy.run_module(COMMAND, run_name="__main__")
print("went on")
"""

SWEEP = ("sweep", "no-store", "--test", "no-store")
SCRIPTS = (
    *("salience", "imbalance", "impossible", "layers", "transfer", "icm", "scaling"),
    "warning_signs",
)
STUDIES = [f"experiments/{name}.py" for name in SCRIPTS]


@pytest.mark.parametrize(
    ("command", "words", "moment"),
    [
        ("extract", ("--help",), "numpy"),
        ("jelicit", ("--help",), "numpy"),
        ("jelicit", ("--help",), "tyro"),
        ("jelicit", ("--help",), "jelicit.studies.fit_settings"),
        ("jelicit", ("--help",), "tyro._backends._tyro_backend"),  # while the words are read
        ("jelicit", SWEEP, "jax"),
        ("jelicit", SWEEP, "pandas"),
        ("jelicit", ("datasets", "pocket/facts"), "jelicit.data.datasets"),
        ("jelicit", ("probe", "score", "no-probe", "no-store"), "jax"),
        ("jelicit", ("report", "no-folder"), "pandas"),
        *((script, (), "common") for script in STUDIES),
        *((script, (), "jelicit.studies") for script in STUDIES),
        *((STUDIES[0], (), name) for name in ("numpy", "jax", "torch")),
    ],
)
def test_ctrl_c_while_libraries_are_loaded_is_one_line(command, words, moment):
    words_of_it = f"COMMAND, WORDS, MOMENT = {command!r}, {words!r}, {moment!r}\n"
    code = f"{LISTENING}{words_of_it}{STOPPED_AT}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr == "stopped before anything was begun\n"
