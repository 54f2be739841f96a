"""Files that commands write: refused before any work where they cannot be written."""

from __future__ import annotations

from pathlib import Path

from jelicit.disk import check_out_folder, looks_like_url


def check_out_file(path: Path, *, such_as: str) -> None:
    """Refuse a file that cannot be written: a URL, a folder, or one in a folder without room.

    Args:
        path: What --out names. Its folder is made.
        such_as: A name of the kind that is meant, for the message.

    Raises:
        ValueError: Saying which.
    """
    if looks_like_url(path):
        raise ValueError(
            f"--out {path}: results are written to a local file only; name one, such as "
            f"{such_as}, and copy it there afterwards"
        )
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name a file, such as {such_as}")
    check_out_folder(path.parent)
