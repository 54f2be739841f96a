"""Progress of long work on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from tqdm import tqdm


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """What tells a bar (units done, of how many); it appears with the first word.

    Args:
        what: Text before the bar.
    """
    with ExitStack() as stack:

        @cache
        def bar(total: int) -> tqdm:
            return stack.enter_context(tqdm(desc=what, total=total, unit="unit", leave=False))

        def report(done: int, total: int) -> None:
            bar(total).update(done - bar(total).n)
            # A unit may take minutes: what is done is shown at once.
            bar(total).refresh()

        yield report
