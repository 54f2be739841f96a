"""Writes the tables of the manual and the README, most from the rows in docs/results/rows.

    python docs/make_tables.py                 # writes every table anew
    python docs/make_tables.py --take runs     # takes rows and figures of finished studies first
    python docs/make_tables.py --take-real runs/real    # the same of studies of real models

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Nobody types there: a test fails
where the text between two markers is not what the rows say.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import assistant_tables
import pandas as pd
import real_tables
import roofline
import stress_tables
import tyro
from result_tables import RECORDS, ROWS, STUDIES, records
from result_tables import TABLES as OF_THE_POCKET_MODEL

from jelicit.results import Record, Results
from jelicit.studies.warning_cases import COLUMNS as INDICATORS
from jelicit.studies.warning_judge import COMBINED

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs/figures"

SHOWN_FIGURES = {
    "salience": "salience-pocket-arithmetic.svg",
    "loudness": "salience-all.svg",
    "imbalance": "imbalance-pocket-arithmetic.svg",
    "impossible": "impossible-pocket-arithmetic-pocket-opinions.svg",
    "layers": "layers-pocket-arithmetic.svg",
    "transfer": "transfer.svg",
    "icm": "icm-accuracy.svg",
    "warning_signs": "warning_signs.svg",
    "stress": "stress.svg",
    "assistant": "assistant-answers.svg",
    "finetune": "finetune-accuracy.svg",
}
"""The one figure of each study that its page shows, by its name in the run folder."""

KEPT = (
    *("dataset", "feature", "asked", "train", "class_share", "layer", "method", "orientation"),
    *("seed", "target", "role", "n_train", "auroc", "auroc_low", "auroc_high", "accuracy"),
    *("variance_share", "salience_truth", "salience_feature", "label_accuracy"),
    *("evaluations_per_label", "draws", "reads", "reads_alone"),
    *("source", "prompt", "tested", "taught", "kind", "failed", "boot", COMBINED, *INDICATORS),
    *assistant_tables.KEPT_OF_ASSISTANTS,
    *stress_tables.KEPT_OF_STRESS,
)
"""Columns that the tables read, or that a reader of the row files would ask for."""

KEPT_OF_REAL = ("model", "parameters", "family", "n_test", "format")

REAL_FIGURES = (
    "scaling/scaling",
    "salience-qwen1.5b/salience-cities",
    "icm-qwen1.5b/icm-bars",
    "transfer-qwen1.5b/transfer",
    "imbalance-qwen1.5b/imbalance-cities",
    "stress-qwen1.5b/stress",
)
"""Figures of runs of real models that the manual shows: name of the run, and of the figure."""

TABLES = {
    **OF_THE_POCKET_MODEL,
    **real_tables.TABLES,
    **roofline.TABLES,
    **assistant_tables.TABLES,
    **stress_tables.TABLES,
}

MARKER = re.compile(
    r"(?P<head><!-- table: (?P<name>[\w-]+) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Write the tables of the manual from its row files.

    Attributes:
        take: Folder of run folders, such as runs: rows, findings and figures of every finished
            study in it are taken over first. Studies that are not there keep what they have.
        take_real: The same, of studies of real language models: a run folder may have any name,
            which is what tables call it.
    """

    take: Path | None = None
    take_real: Path | None = None


def main(settings: Settings) -> None:
    """Takes rows if asked to, then writes every page that has a table."""
    if settings.take_real is not None:
        for run in take_real(settings.take_real):
            print(f"{run}: rows and figures taken")
    if settings.take is not None:
        for study in take(settings.take):
            print(f"{study}: rows and figure taken")
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text, name=page.name), encoding="utf-8")


def pages() -> list[Path]:
    """The pages that may hold tables: the README and the manual."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_tables(text: str, *, name: str) -> str:
    """A page's text with the present tables between its markers.

    Args:
        text: The page.
        name: What the page is called, for messages.

    Raises:
        ValueError: A marker names no table, or has no end.
    """

    def written(match: re.Match[str]) -> str:
        if match["name"] not in TABLES:
            known = ", ".join(TABLES)
            raise ValueError(f"{name}: there is no table {match['name']!r}; there are {known}")
        return f"{match['head']}\n{TABLES[match['name']]()}\n\n{match['tail']}"

    begun, ended = text.count("<!-- table: "), len(MARKER.findall(text))
    if begun != ended or text.count("<!-- end -->") != ended:
        raise ValueError(f"{name}: {begun} tables begin, {ended} of them end; mark both")
    return MARKER.sub(written, text)


# --- taking over ---------------------------------------------------------------------------------


def take(runs: Path) -> Iterator[str]:
    """Copies what the manual shows of every finished study below a folder; yields their names.

    Raises:
        ValueError: There is no finished study.
    """
    there = [study for study in STUDIES if (runs / study / "report.json").is_file()]
    if not there:
        raise ValueError(f"{runs} has no finished study; expected folders {', '.join(STUDIES)}")
    known = records()
    for study in there:
        record = Record.read(runs / study)
        rows = pd.concat(Results(runs / study / "rows").read(run) for run in record.runs)
        kept = rows[[column for column in KEPT if column in rows]]
        ROWS.mkdir(parents=True, exist_ok=True)
        kept.to_parquet(ROWS / f"{study}.parquet", index=False, compression="zstd")
        known[study] = {
            "command": record.command,
            "versions": record.versions,
            "findings": [asdict(finding) for finding in record.findings],
        }
        if study in SHOWN_FIGURES and (figure := runs / study / SHOWN_FIGURES[study]).is_file():
            shutil.copyfile(figure, FIGURES / f"{study}.svg")
        yield study
    ordered = {study: known[study] for study in STUDIES if study in known}
    (ROWS / RECORDS).write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def take_real(runs: Path) -> Iterator[str]:
    """Copies rows of every finished study of real models below a folder; yields the runs' names.

    Raises:
        ValueError: There is no finished study.
    """
    there = sorted(path.parent for path in runs.glob("*/report.json"))
    if not there:
        raise ValueError(f"{runs} has no folder of a finished study")
    known, rows_folder = real_tables.records(), real_tables.ROWS
    rows_folder.mkdir(parents=True, exist_ok=True)
    for folder in there:
        record = Record.read(folder)
        # A challenge of the stress test lies in the folder of the command that measured it.
        above = folder.resolve().parent
        whole = Record.read(above) if (above / "report.json").is_file() else record
        rows = pd.concat(Results(folder / "rows").read(run) for run in record.runs)
        kept = rows[[name for name in dict.fromkeys((*KEPT, *KEPT_OF_REAL)) if name in rows]]
        kept.to_parquet(rows_folder / f"{folder.name}.parquet", index=False, compression="zstd")
        known[folder.name] = {
            "study": record.experiment,
            "command": shown_command(whole.command),
            "seconds": round(whole.seconds),
            "machine": record.machine,
            "versions": record.versions,
            "findings": [asdict(finding) for finding in record.findings],
        }
        for figure in folder.glob("*.svg"):
            if f"{folder.name}/{figure.stem}" in REAL_FIGURES:
                shutil.copyfile(figure, FIGURES / f"real-{folder.name}.svg")
        yield folder.name
    text = json.dumps(dict(sorted(known.items())), indent=1)
    (rows_folder / RECORDS).write_text(text + "\n", encoding="utf-8")


def shown_command(command: str) -> str:
    """A command with every path by its last part: where models and sets lie is nobody's matter."""
    words = shlex.split(command)
    words = [Path(word).name if word.startswith(("/", "../")) else word for word in words]
    return shlex.join(words)


if __name__ == "__main__":
    main(tyro.cli(Settings))
