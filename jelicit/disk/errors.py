"""Errors of a disk in words: which file, what happened, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def writing(path: object) -> Iterator[None]:
    """An error of the disk says what happened to which file, and what to do.

    Args:
        path: What is being written, as the user knows it.

    Raises:
        OSError: For an OSError inside; a PermissionError stays one. `errno` is kept.
    """
    try:
        yield
    except OSError as error:
        # Its own kind: callers may catch PermissionError.
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        explained = kind(
            f"{path} could not be written: {error.strerror or error}. {_advice(error)}; what was "
            "written before is whole"
        )
        explained.errno = error.errno
        raise explained from error


def _advice(error: OSError) -> str:
    if error.errno in _FULL:
        return "Free some space (or raise the quota) there, then run the same again"
    if error.errno in _FORBIDDEN or isinstance(error, PermissionError):
        return "Choose another folder, or get the right to write there"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "A file stands where a folder should be: choose another folder"
    return "When that is mended, run the same again"
