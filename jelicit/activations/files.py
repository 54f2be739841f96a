"""The only file operations of a store: a local folder, or a folder under an fsspec URL."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from jelicit.activations import tensors

STALE_AFTER = 24 * 3600
"""Seconds after which a temporary file of an unknown process is taken for a leftover."""

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}
"""Protocols that show a file only once all of it is there. All others get a temporary file."""

Buffer = bytes | memoryview
Stamp = dict[str, Any]
"""Checksum and size of a file: {"sha256": hex, "bytes": number}."""


class Folder(Protocol):
    """The files of one store; names are names within it."""

    @property
    def location(self) -> Path | str:
        """The folder or URL, as the user knows it."""
        ...

    def path(self, name: str) -> str:
        """A file's full name, for messages."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def listing(self) -> dict[str, int | None]:
        """Size of every file, None for a folder; empty where there is no such folder."""
        ...

    def create(self) -> None:
        """Makes the folder, unless it is there."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: If it is not there.
        """
        ...

    def stamp(self, name: str) -> Stamp:
        """Checksum and size of a file, read from its bytes."""
        ...

    def tensor(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        """(shard number in the metadata, one tensor); other tensors' bytes are not read.

        Raises:
            ValueError: If the file is damaged.
        """
        ...

    def write(self, name: str, pieces: Sequence[Buffer], *, replace: bool = True) -> Stamp:
        """Writes a file whole or not at all, and returns its checksum and size.

        Args:
            name: Its name.
            pieces: Its content.
            replace: False = a file that has the name already keeps it.

        Raises:
            OSError: If that is not possible; nothing has changed, and the message says what to do.
        """
        ...

    def remove(self, name: str) -> None:
        """Deletes a file, if it is there."""
        ...

    def sweep(self) -> None:
        """Deletes temporary files that nobody is writing any more."""
        ...


def open_folder(where: str | os.PathLike[str]) -> Folder:
    """The files at a local path, or at an fsspec URL.

    Raises:
        ValueError: If the URL's protocol is not known, or needs a package that is not installed, or
            if a URL was made into a path (which loses a slash).
    """
    if isinstance(where, str) and "://" in where:
        return _RemoteFolder(where)
    if not isinstance(where, str) and re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(where)):
        raise ValueError(
            f"{os.fspath(where)!r} looks like a URL that was made into a path; give it as a string"
        )
    return _LocalFolder(Path(where))


def _pieces_stamp(pieces: Sequence[Buffer]) -> Stamp:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return {"sha256": sha.hexdigest(), "bytes": sum(len(piece) for piece in pieces)}


def _damaged(path: object, error: object) -> ValueError:
    return ValueError(f"{path} is damaged ({error}); delete it and extract again")


# --- errors of writing ---------------------------------------------------------------------------

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def _writing(path: object) -> Iterator[None]:
    """An error of the disk says what happened to which file, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            advice = "Free some space (or raise the quota) there, then run the same again"
        elif error.errno in _FORBIDDEN or isinstance(error, PermissionError):
            advice = "Choose another folder, or get the right to write there"
        elif isinstance(error, FileExistsError | NotADirectoryError):
            advice = "A file stands where a folder should be: choose another folder"
        else:
            advice = "When that is mended, run the same again"
        # Its own kind: callers may catch PermissionError.
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        explained = kind(
            f"{path} could not be written: {error.strerror or error}. {advice}; what was written "
            "before is whole"
        )
        explained.errno = error.errno
        raise explained from error


# --- temporary files -----------------------------------------------------------------------------


def _temporary_name(name: str) -> str:
    # Machine and process number: several workers may write one store at the same time.
    return f".{name}.{_machine()}.{os.getpid()}.tmp"


def _temporary(path: Path) -> Path:
    return path.with_name(_temporary_name(path.name))


def _machine() -> str:
    """Eight hex digits: two processes that share them do not share a process number."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path: "pid:[number]"
    except OSError:  # no Linux, so no containers of one name
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _is_leftover(name: str, written: Callable[[], float]) -> bool:
    """Whether nobody is writing this temporary file any more: it is ours, or its process ended.

    Args:
        name: A file's name.
        written: When it was last written to, in seconds since 1970.
    """
    if not re.match(r"\..*\.tmp", name):
        return False
    writer = re.search(r"\.([0-9a-f]{8})\.([0-9]{1,9})\.tmp", name)
    if writer and writer[1] == _machine():
        return int(writer[2]) == os.getpid() or not _is_running(int(writer[2]))
    try:
        return time.time() - written() > STALE_AFTER
    except FileNotFoundError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


# --- local ---------------------------------------------------------------------------------------


class _LocalFolder:
    """A folder on a disk: files are renamed into place, flushed first, and read by memory map."""

    def __init__(self, location: Path) -> None:
        self.location = location

    def path(self, name: str) -> str:
        return str(self.location / name)

    def exists(self, name: str) -> bool:
        return (self.location / name).is_file()

    def listing(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        try:
            for path in self.location.iterdir():
                try:
                    about = path.stat()
                except FileNotFoundError:  # it was renamed or deleted meanwhile
                    continue
                found[path.name] = about.st_size if S_ISREG(about.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def create(self) -> None:
        with _writing(self.location):
            self.location.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return (self.location / name).read_bytes()

    def stamp(self, name: str) -> Stamp:
        with (self.location / name).open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": sha, "bytes": file.tell()}

    def tensor(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        path = self.location / name
        try:
            with safe_open(path, framework="np") as file:
                return (file.metadata() or {}).get("shard"), file.get_tensor(key)
        except PermissionError:  # no damage
            raise
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error

    def write(self, name: str, pieces: Sequence[Buffer], *, replace: bool = True) -> Stamp:
        path = self.location / name
        temporary = _temporary(path)
        publish = _publish if replace else _publish_first
        with _writing(path):
            try:
                with temporary.open("wb") as file:
                    file.writelines(pieces)
                publish(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return _pieces_stamp(pieces)

    def remove(self, name: str) -> None:
        (self.location / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        for path in self.location.glob(".*.tmp*"):
            if _is_leftover(path.name, lambda path=path: path.stat().st_mtime):
                path.unlink(missing_ok=True)


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
    """Waits until a file's (or a folder's) content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- remote --------------------------------------------------------------------------------------


class _RemoteFolder:
    """A folder under an fsspec URL.

    Object stores show an object only once it is complete, so files are put under their names in one
    write; on other systems (sftp, smb, hdfs, file, ...) they are written beside and moved. Flushing
    is up to the system. `replace=False` looks, then writes: two processes that do that at the same
    instant both write, and the later one stays.
    """

    def __init__(self, url: str) -> None:
        self.files, self.root = _file_system(url)
        self.location = url.rstrip("/")
        self._layouts: dict[str, tensors.Layout] = {}

    def path(self, name: str) -> str:
        return f"{self.location}/{name}"

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        # Not `isfile`, which takes an error of any kind for "no".
        return self.listing().get(name) is not None

    def listing(self) -> dict[str, int | None]:
        with _asking(self.location):
            self.files.invalidate_cache(self.root)  # other machines write here too
            try:
                found = self.files.ls(self.root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {
            PurePosixPath(entry["name"]).name: entry["size"] if entry["type"] == "file" else None
            for entry in found
            if entry["name"].strip("/") != self.root.strip("/")  # the folder's own marker
        }

    def create(self) -> None:
        if not self._is_object_store():  # which have no folders, and must not get a new bucket
            with _writing(self.location), _asking(self.location):
                self.files.makedirs(self.root, exist_ok=True)

    def read(self, name: str) -> bytes:
        with _asking(self.path(name)):
            return self.files.cat_file(self._at(name))

    def stamp(self, name: str) -> Stamp:
        return _pieces_stamp([self.read(name)])

    def tensor(self, name: str, key: str) -> tuple[str | None, np.ndarray]:
        try:
            found = self._layout(name)
            place = found.places[key]
            tensor = place.decode(self._range(name, place.start, place.stop))
        except FileNotFoundError as error:
            raise _damaged(self.path(name), "it is gone") from error
        except KeyError as error:
            raise _damaged(self.path(name), f"it has no {key}") from error
        except ValueError as error:
            raise _damaged(self.path(name), error) from error
        return found.metadata.get("shard"), tensor

    def _layout(self, name: str) -> tensors.Layout:
        """A shard's header; kept, since a shard that is written again has the same."""
        if name not in self._layouts:
            start = tensors.PREFIX
            stop = start + tensors.header_length(self._range(name, 0, start))
            self._layouts[name] = tensors.layout(self._range(name, start, stop))
        return self._layouts[name]

    def _range(self, name: str, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        with _asking(self.path(name)):
            return self.files.cat_file(self._at(name), start=start, end=stop)

    def write(self, name: str, pieces: Sequence[Buffer], *, replace: bool = True) -> Stamp:
        stamp = _pieces_stamp(pieces)
        if not replace and self.exists(name):
            return stamp
        target = self._at(name)
        with _writing(self.path(name)), _asking(self.path(name)):
            if self._is_object_store():
                self.files.pipe_file(target, b"".join(pieces))
                return stamp
            temporary = self._at(_temporary_name(name))
            try:
                self.files.pipe_file(temporary, b"".join(pieces))
                self.files.mv(temporary, target)
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    self.files.rm_file(temporary)
                raise
        return stamp

    def remove(self, name: str) -> None:
        with _asking(self.path(name)), suppress(FileNotFoundError):
            self.files.rm_file(self._at(name))

    def sweep(self) -> None:
        for name in self.listing():
            if _is_leftover(name, lambda name=name: self._written(name)):
                self.remove(name)

    def _written(self, name: str) -> float:
        try:
            return self.files.modified(self._at(name)).timestamp()
        except NotImplementedError:  # then it may stay
            return time.time()

    def _is_object_store(self) -> bool:
        known = self.files.protocol
        return not OBJECT_STORES.isdisjoint((known,) if isinstance(known, str) else known)


@contextmanager
def _asking(path: str) -> Iterator[None]:
    """An error of a remote system's own class becomes an OSError that names the file."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {error}") from error


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # only needed here: local folders work without it
    from fsspec.registry import known_implementations

    protocol = url.split("://")[0].split("::")[-1]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = known_implementations.get(protocol, {}).get("class", "fsspec").split(".")[0]
        install = "" if package == "fsspec" else f": pip install {package}"
        raise ValueError(
            f"{url} needs a package that is not installed ({error}){install}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url}: {error}; examples of URLs: s3://bucket/folder, gs://bucket/folder, "
            "file:///folder"
        ) from error
