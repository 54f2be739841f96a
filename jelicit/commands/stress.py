"""`jelicit stress`: what the list of commands says of it. Its options are in `stress_run`."""

from __future__ import annotations

from dataclasses import dataclass


# Options are those of a study, which bring JAX, and the list of commands does not wait for it:
# where the command is named, `stress_run.Stress` takes the place of this.
@dataclass(frozen=True, kw_only=True)
class Stress:
    """Put every challenge to any methods, and end in a scorecard: who survives.

    Its options: `jelicit stress --help`.

    For example: `jelicit stress --methods ccs pca my_method.py:METHOD`.
    """
