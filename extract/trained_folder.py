"""What a training leaves on disk: checkpoints while it runs, its card in the end.

A training that was killed goes on at its last whole checkpoint when it is asked for again, and ends
as it would have; one that is finished is not made twice; one with other settings is refused.
Fine-tuned models grow in their folder (`TrainedFolder`), so that an adapter of a large model is
written once; reward models and policies appear whole or not at all (`there`, `work_folder`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerCallback

from jelicit.disk import check_out_folder, write_text

PLAN, CARD, CHECKPOINTS, WHOLE = "plan.json", "training.json", "checkpoints", "whole"
"""Files of the folder, the folder of checkpoints in it, and the mark of one that is whole."""


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a training that is finished; {} where there is none."""
    path = folder / CARD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# --- checkpoints ---------------------------------------------------------------------------------


class MarkWhole(TrainerCallback):
    """Marks a checkpoint once all its files are there: a kill may leave half of one."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer after the last file."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            write_text(folder / WHOLE, "")


def last_checkpoint(checkpoints: Path) -> str | None:
    """The last checkpoint that was written whole; those cut off by a kill are removed."""
    whole = []
    for each in checkpoints.glob("checkpoint-*"):
        if (each / WHOLE).is_file():
            whole.append(each)
        else:
            shutil.rmtree(each, ignore_errors=True)
    last = max(whole, key=lambda each: int(each.name.rpartition("-")[2]), default=None)
    return None if last is None else str(last)


# --- a folder that grows -------------------------------------------------------------------------


class TrainedFolder:
    """Where one training writes.

    Args:
        folder: A local folder, new or of the same training.
        plan: All that decides its result, as JSON.

    Raises:
        ValueError: The folder cannot be written to, holds another training (the message names
            what differs), or holds a model that no training wrote here.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder, self.plan = folder, json.loads(json.dumps(plan))
        check_out_folder(folder)
        written = folder / PLAN
        if written.is_file():
            self._compare(json.loads(written.read_text(encoding="utf-8")))
            return
        for name in ("config.json", "adapter_config.json"):
            if (folder / name).is_file():
                raise ValueError(
                    f"--out {folder} holds a model ({name}) that was not trained there, and is "
                    "not overwritten; choose another folder"
                )
        write_text(written, json.dumps(self.plan, indent=1) + "\n")

    def _compare(self, there: Mapping[str, Any]) -> None:
        names = sorted({*there, *self.plan})
        other = [name for name in names if there.get(name) != self.plan.get(name)]
        if other:
            said = "; ".join(
                f"{name} was {there.get(name)!r} and is {self.plan.get(name)!r}" for name in other
            )
            raise ValueError(
                f"--out {self.folder} holds another training ({said}): choose another folder, or "
                "give the same settings to go on with that one"
            )

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.folder / CARD).is_file()

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints while it runs."""
        return self.folder / CHECKPOINTS

    def finish(self, card: Mapping[str, Any]) -> None:
        """Write the card, the last thing of a training, and remove the checkpoints."""
        write_text(self.folder / CARD, json.dumps({**self.plan, **card}, indent=1) + "\n")
        shutil.rmtree(self.checkpoints, ignore_errors=True)


# --- a folder that appears whole -----------------------------------------------------------------


def there(folder: Path, key: str) -> bool:
    """Whether a folder has what this training leaves.

    Args:
        folder: It appears whole or not at all.
        key: Of everything that decides the training.

    Raises:
        FileExistsError: It has something else.
    """
    if not folder.exists():
        return False
    if read_card(folder).get("key") == key:
        return True
    raise FileExistsError(
        f"{folder} is there already and was not made by this training (other settings, rows or "
        "model); move it away, or choose another folder"
    )


@contextmanager
def work_folder(folder: Path, key: str) -> Iterator[Path]:
    """Where a training keeps what it needs to go on; removed once it is done.

    Its name holds the key, so a training of other settings does not go on from there.
    """
    work = folder.with_name(f"{folder.name}.training-{key[:12]}")
    work.mkdir(parents=True, exist_ok=True)
    yield work
    shutil.rmtree(work, ignore_errors=True)
