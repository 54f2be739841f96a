"""Temporary names: who is writing a file, and whether they still are."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

STALE_AFTER = 24 * 3600
"""Seconds after which a temporary file of an unknown process is taken for a leftover."""

_LONGEST = 40
"""Characters of a file's name that its temporary name repeats: file systems allow 255 bytes."""

_numbers = itertools.count()
_in_use: set[str] = set()
"""Names that this process is writing to now."""


def temporary_name(name: str) -> str:
    """A name beside `name` that no other writer has, on this machine or another."""
    # Machine and process: several workers may write one folder. Number: so may several threads.
    start = f".{name[:_LONGEST]}.{_machine()}.{os.getpid()}"
    return f"{start}-{next(_numbers)}.tmp"


def hold(name: str) -> None:
    """This process starts to write to a temporary name."""
    _in_use.add(name)


def release(name: str) -> None:
    """This process does not write to that name any more."""
    _in_use.discard(name)


def is_leftover(name: str, written: Callable[[], float]) -> bool:
    """Whether nobody is writing this temporary file any more.

    Args:
        name: A file's name.
        written: When it was last written to, in seconds since 1970.
    """
    if not re.match(r"\..*\.tmp", name):
        return False
    writer = re.search(r"\.([0-9a-f]{8})\.([0-9]{1,9})(-[0-9]+)?\.tmp", name)
    if writer and writer[1] == _machine():
        process = int(writer[2])
        if process == os.getpid():
            return name not in _in_use
        # Not `os.kill(process, 0)`, which under Windows is Ctrl-C to that process.
        return not psutil.pid_exists(process)
    try:
        return time.time() - written() > STALE_AFTER
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path, *, of: str | None = None) -> None:
    """Deletes temporary files and folders that nobody is writing any more.

    Args:
        folder: Where.
        of: Name of the file that they were to become; None = any.
    """
    start = "." if of is None else f".{glob.escape(of[:_LONGEST])}."
    for path in folder.glob(f"{start}*.tmp*"):
        if is_leftover(path.name, lambda path=path: path.stat().st_mtime):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _machine() -> str:
    """Eight hex digits: two processes that share them do not share a process number."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path: "pid:[number]"
    except OSError:  # no Linux, so no containers of one name
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
