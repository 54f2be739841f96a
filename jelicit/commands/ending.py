"""How commands end: a user's mistake in one line, and a stop without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Run a command; a mistake of the user's ends with exit code 1, a stop with 130.

    Mistakes are ValueError, OSError and MemoryError, which say what to do; every other error is a
    fault of the program and keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on after what was finished", file=sys.stderr)
        raise SystemExit(130) from None
