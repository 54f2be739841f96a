"""The sets that Canavan et al. 2026 published together, in one repository of the hub."""

from __future__ import annotations

from collections.abc import Callable

from jelicit.data.hub import HubFiles
from jelicit.data.items import Item
from jelicit.data.records import Record


def challenge_files(folder: str, convert: Callable[[Record], list[Item]]) -> HubFiles:
    """The files of one of them."""
    return HubFiles(
        hub_id="callum-canavan/challenges-for-unsupervised-elicitation",
        files={split: f"{folder}/{split}.jsonl" for split in ("train", "test")},
        convert=convert,
    )
