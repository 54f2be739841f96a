"""What a file is that was given as JSONL and is none: told by its first bytes or its first line."""

from __future__ import annotations

from pathlib import Path

_BY_FIRST_BYTES = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"GGUF": "a model file (GGUF)",
    b"PK\x03\x04": "a ZIP archive (so are .xlsx, .npz and .pt)",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF document",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
CURE = (
    "JSONL is expected, one JSON object per line in UTF-8; pandas, for example, writes it with "
    "to_json(path, orient='records', lines=True)"
)


def kind_of_file(path: Path) -> str:
    """What a file is if its first bytes are those of another kind than text in UTF-8; else ""."""
    with path.open("rb") as file:
        first = file.read(16)
    return next((kind for start, kind in _BY_FIRST_BYTES.items() if first.startswith(start)), "")


def kind_of_line(line: str) -> str:
    """What a file is whose first line is no JSON object; "" if the line does not tell."""
    text = line.strip()
    if text.startswith("["):
        return "a JSON array, or a JSON file over several lines"
    if text == "{":
        return "one JSON object over several lines"
    separators = {",": "CSV", "\t": "tab-separated values", ";": "CSV with semicolons"}
    if text.startswith("{"):
        return ""
    return next((kind for mark, kind in separators.items() if mark in text), "")
