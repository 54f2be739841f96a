"""How commands end: a mistake in one line, a stop without a traceback. Only the standard library.

`JELICIT_DEBUG=1` shows the traceback of what ends in one line.

A command's first import. It has to be quick, for until `stopping_at_once` begins Ctrl-C is a
traceback: what errors alone need is imported where it is needed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager

TYPE_CHECKING = False  # of typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

DEBUG = "JELICIT_DEBUG"
"""Environment variable: if set (and not 0), errors keep their traceback."""

MOST = 3000
"""Characters of an error that are shown: libraries and servers repeat what they were given."""

_TOLD = (ValueError, OSError, MemoryError, ImportError, RuntimeError)
_STOPPED = "stopped; the same command goes on after what was finished"


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Run a command; a mistake of the user's ends with exit code 1, a stop with 130.

    Mistakes are errors that say what to do (ValueError, OSError, MemoryError, ImportError), what
    else a library raises about what it was given (RuntimeError of any kind, RecursionError; any
    class where the error arose in an installed package). All others are faults of the program and
    keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if not isinstance(error, _TOLD) and not _is_of_a_library(error):
            raise
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            import traceback

            traceback.print_exception(error)
        print(f"error: {in_words(error)}", file=sys.stderr)
        raise SystemExit(1) from error


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """While a command loads its libraries, Ctrl-C ends the process there and then.

    A KeyboardInterrupt in the middle of an import is lost in some libraries, made another error by
    others, and aborts the process in a few; and there is nothing yet to be put in order.
    """
    main = threading.current_thread() is threading.main_thread()
    # Something else means that whoever started this wants it so (nohup, a test).
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped before anything was begun\n")
    os._exit(130)


def in_words(error: BaseException) -> str:
    """An error as a user should read it: what it says, or what is known of it; never too long."""
    text = "".join(char if char.isprintable() or char == "\n" else "?" for char in _said(error))
    if len(text) > MOST:
        text = f"{text[: MOST - 200]} ... {text[-100:]} ({len(text):,} characters)"
    return text


def _said(error: BaseException) -> str:
    import re
    import tempfile

    text = str(error).strip()
    hint = f"; {DEBUG}=1 shows where"
    if isinstance(error, RecursionError):
        return f"something is nested too deeply to be read ({text}){hint}"
    if isinstance(error, MemoryError):
        return text or f"out of memory; give the command less at once, or more memory{hint}"
    if isinstance(error, OSError) and error.errno is not None and re.match(r"\[Errno", text):
        if error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        return (
            f"{error.strerror}, and the system does not say of which file; look at the output "
            f"folder and at {tempfile.gettempdir()}{hint}"
        )
    if isinstance(error, _TOLD) and not isinstance(error, RuntimeError) and text:
        return text
    # A library's: its class says more than its text, which may be many lines.
    first = text.splitlines()[0] if text else "(it says no more)"
    return f"{type(error).__name__}: {first}{hint}"


def _is_of_a_library(error: BaseException) -> bool:
    """Whether an error arose in an installed package, not in jelicit's own code."""
    import sysconfig
    import traceback
    from pathlib import Path

    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    # By path, not by module: jelicit itself may be installed beside the libraries.
    own = Path(__file__).resolve().parents[2]
    file = Path(frames[-1].filename).resolve()
    if any(file.is_relative_to(own / part) for part in ("jelicit", "extract", "experiments")):
        return False
    installed = {sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib")}
    return any(file.is_relative_to(place) for place in installed)
