"""A folder of files, on a disk or under an fsspec URL, behind one Protocol."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, Protocol

from jelicit.disk.errors import writing
from jelicit.disk.temporary import hold, is_leftover, release, remove_leftovers, temporary_name
from jelicit.disk.whole import Buffer, looks_like_url, write_bytes

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}
"""Protocols that show a file only once all of it is there. All others get a temporary file."""

Stamp = dict[str, Any]
"""Checksum and size of a file: {"sha256": hex, "bytes": number}."""


class Folder(Protocol):
    """The files of one folder; names are names within it."""

    @property
    def location(self) -> Path | str:
        """The folder or URL, as the user knows it."""
        ...

    @property
    def local(self) -> Path | None:
        """The folder where its files can be mapped into memory; None under a URL."""
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

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start..stop of a file."""
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
    if not isinstance(where, str) and looks_like_url(where):
        raise ValueError(
            f"{os.fspath(where)!r} looks like a URL that was made into a path; give it as a string"
        )
    return _LocalFolder(Path(where))


def stamp_of(pieces: Sequence[Buffer]) -> Stamp:
    """Checksum and size of what `Folder.write` writes."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return {"sha256": sha.hexdigest(), "bytes": sum(len(piece) for piece in pieces)}


# --- local ---------------------------------------------------------------------------------------


class _LocalFolder:
    """A folder on a disk: files are flushed, then renamed into place."""

    def __init__(self, location: Path) -> None:
        self.location = location

    @property
    def local(self) -> Path:
        return self.location

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
        with writing(self.location):
            self.location.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return (self.location / name).read_bytes()

    def stamp(self, name: str) -> Stamp:
        with (self.location / name).open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
            return {"sha256": sha, "bytes": file.tell()}

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        with (self.location / name).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def write(self, name: str, pieces: Sequence[Buffer], *, replace: bool = True) -> Stamp:
        write_bytes(self.location / name, pieces, replace=replace)
        return stamp_of(pieces)

    def remove(self, name: str) -> None:
        (self.location / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        remove_leftovers(self.location)


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

    @property
    def local(self) -> None:
        return None

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
            with writing(self.location), _asking(self.location):
                self.files.makedirs(self.root, exist_ok=True)

    def read(self, name: str) -> bytes:
        with _asking(self.path(name)):
            return self.files.cat_file(self._at(name))

    def stamp(self, name: str) -> Stamp:
        return stamp_of([self.read(name)])

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        with _asking(self.path(name)):
            return self.files.cat_file(self._at(name), start=start, end=stop)

    def write(self, name: str, pieces: Sequence[Buffer], *, replace: bool = True) -> Stamp:
        stamp = stamp_of(pieces)
        if not replace and self.exists(name):
            return stamp
        target = self._at(name)
        with writing(self.path(name)), _asking(self.path(name)):
            if self._is_object_store():
                self.files.pipe_file(target, b"".join(pieces))
                return stamp
            beside = temporary_name(name)
            temporary = self._at(beside)
            hold(beside)
            try:
                self.files.pipe_file(temporary, b"".join(pieces))
                self.files.mv(temporary, target)
            except BaseException:
                with suppress(Exception):  # the first error is the one to tell
                    self.files.rm_file(temporary)
                raise
            finally:
                release(beside)
        return stamp

    def remove(self, name: str) -> None:
        with _asking(self.path(name)), suppress(FileNotFoundError):
            self.files.rm_file(self._at(name))

    def sweep(self) -> None:
        for name in self.listing():
            if is_leftover(name, lambda name=name: self._written(name)):
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
