"""The disk: files written whole or not at all, folders here or under a URL, journals.

The ground floor: it knows no hidden states, no rows and no probes, and imports nothing of jelicit.
Every file that is to last is written here, so that a kill, a full disk or a machine that stops
leaves the old content or the new, and an error says which file it was and what to do.
"""

from jelicit.disk.errors import writing
from jelicit.disk.folders import Buffer, Folder, Stamp, open_folder, stamp_of
from jelicit.disk.journal import Journal
from jelicit.disk.whole import (
    check_out_folder,
    looks_like_url,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)

__all__ = [
    "Buffer",
    "Folder",
    "Journal",
    "Stamp",
    "check_out_folder",
    "looks_like_url",
    "open_folder",
    "stamp_of",
    "whole_file",
    "whole_folder",
    "write_bytes",
    "write_text",
    "writing",
]
