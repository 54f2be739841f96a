"""Commands leave GPU memory to the language model beside them; the library decides nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jelicit.commands.gpu_memory import DECIDING, PREALLOCATE, take_as_needed

ROOT = Path(__file__).resolve().parents[1]

WATCHED = """
import json, os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            sys.meta_path.remove(self)
            seen.append({key: os.environ.get(key) for key in DECIDING})
        return None

seen = []
sys.meta_path.insert(0, Watch())
try:
    RUN
except SystemExit:
    pass
import jax
from jaxlib import xla_client
options = xla_client.generate_pjrt_gpu_plugin_options()
print()
print(json.dumps([seen[0], options.get("preallocate"), options.get("memory_fraction")]))
"""

COMMANDS = {
    "jelicit": 'sys.argv = ["jelicit", "--help"]; runpy.run_module("jelicit", run_name="__main__")',
    "extract": 'sys.argv = ["extract", "--help"]; runpy.run_module("extract", run_name="__main__")',
    "experiments": 'sys.path.insert(0, "experiments"); import common',
}


def in_a_child(run: str, **environment: str) -> tuple[dict[str, str | None], object, object]:
    """The variables when JAX was first imported, and what JAX makes of those at the end."""
    code = f"DECIDING = {DECIDING}\n{WATCHED.replace('RUN', run)}"
    clean = {name: value for name, value in os.environ.items() if name not in DECIDING}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_set_it_before_jax_is_imported(command):
    if command == "extract":
        pytest.importorskip("torch", reason="commands that open a model need the extract extra")
    seen, preallocates, fraction = in_a_child(COMMANDS[command])
    assert seen == {**dict.fromkeys(DECIDING), PREALLOCATE: "false"}
    assert (preallocates, fraction) == (False, None)


def test_a_fraction_that_the_user_set_stays():
    seen, preallocates, fraction = in_a_child(COMMANDS["jelicit"], XLA_CLIENT_MEM_FRACTION=".4")
    assert seen == {**dict.fromkeys(DECIDING), "XLA_CLIENT_MEM_FRACTION": ".4"}
    assert (preallocates, fraction) == (None, 0.4)


@pytest.mark.parametrize("name", DECIDING)
@pytest.mark.parametrize("value", ["true", ""])
def test_whatever_the_user_said_is_left_alone(name, value):
    environment = {name: value}
    take_as_needed(environment)
    assert environment == {name: value}


def test_the_library_sets_nothing():
    run = "import jelicit.probes.sweep, jelicit.studies"
    seen, preallocates, _ = in_a_child(run)
    assert seen == dict.fromkeys(DECIDING)
    assert preallocates is None
