"""Local files and folders that appear whole or not at all, even if the machine stops."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jelicit.disk.errors import writing
from jelicit.disk.temporary import hold, release, remove_leftovers, temporary_name

Buffer = bytes | memoryview

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems answer that cannot flush: network and FUSE mounts."""
_NO_FOLDER_SYNC = (*_NO_SYNC, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
"""The same of folders, which Windows does not even open."""


@contextmanager
def whole_file(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[IO[bytes]]:
    """A binary file to write to, which gets its name at the end of the block.

    Its folder is made. An error inside leaves what was there before. What killed writers of this
    file left beside it is removed; other files may be anybody's.

    Args:
        path: The file.
        replace: False = a file that has the name already keeps it.

    Raises:
        OSError: If it cannot be written; the message names it and says what to do.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path.name))
    publish = _publish if replace else _publish_first
    hold(temporary.name)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # another user's leftover is no reason not to write
                remove_leftovers(path.parent, of=path.name)
            with temporary.open("wb") as file:
                yield file
            publish(temporary, path)
        finally:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
            release(temporary.name)


def write_bytes(
    path: str | os.PathLike[str], content: Buffer | Sequence[Buffer], *, replace: bool = True
) -> None:
    """Writes a file whole or not at all; raises as `whole_file`."""
    pieces = [content] if isinstance(content, bytes | memoryview) else content
    with whole_file(path, replace=replace) as file:
        file.writelines(pieces)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, with its line ends as they are; raises as `whole_file`."""
    write_bytes(path, text.encode())


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty folder to fill, which gets its name at the end of the block.

    Leftovers of killed writers beside it are removed.

    Raises:
        FileExistsError: There is something of that name, or somebody was faster.
        OSError: If it cannot be written; the message names it and says what to do.
    """
    path = Path(path)
    refusal = f"{path} is there already, and is not overwritten; move it away, or choose another"
    if os.path.lexists(path):
        raise FileExistsError(refusal)
    temporary = path.with_name(temporary_name(path.name))
    hold(temporary.name)
    try:
        with writing(path):
            temporary.mkdir(parents=True)
            remove_leftovers(path.parent)
            yield temporary
            for inner in [*temporary.rglob("*"), temporary]:
                _sync(inner)
        try:
            temporary.rename(path)  # never onto a folder that holds something
        except OSError as error:
            if os.path.lexists(path):
                raise FileExistsError(refusal) from error
            raise
        with writing(path):
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        release(temporary.name)


def looks_like_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, or one that was made into a path, which loses a slash."""
    # Two letters at least: "c:/folder" is a disk.
    return bool(re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path)))


def check_out_folder(folder: str | os.PathLike[str], *, option: str = "--out") -> None:
    """Makes a folder for results and tries to write there: before hours of work, not after.

    Args:
        folder: The folder, which must be local.
        option: What the user set it with, for the message.

    Raises:
        ValueError: It is a URL, or cannot be written to.
    """
    if looks_like_url(folder):
        raise ValueError(
            f"{option} {os.fspath(folder)}: results are written to a local folder only; name one, "
            "and copy it there afterwards"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"a full disk takes an empty file, but no bytes")
    except OSError as error:
        raise ValueError(
            f"{option} {os.fspath(folder)} cannot be written to ({error.strerror or error}); "
            "choose another folder"
        ) from error


def _publish(temporary: Path, path: Path) -> None:
    """Gives a finished file its name; after a crash it is there whole or not at all."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _publish_first(temporary: Path, path: Path) -> None:
    """As `_publish`, but a file that has the name already keeps it."""
    _sync(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            temporary.replace(path)
    temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file's (or a folder's) content is on the disk, where that can be asked for."""
    is_folder = path.is_dir()
    refusals = _NO_FOLDER_SYNC if is_folder else _NO_SYNC
    try:
        # For writing: Windows flushes no file that was opened for reading.
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in refusals:
            raise
