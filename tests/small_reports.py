"""Run folders with made-up rows, item scores and figures, for the tests of reports."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jelicit.data.items import Item
from jelicit.report.packing import unpack
from jelicit.results import Finding, ItemScores, ItemScoreStore, Record, Results

METHODS = ("ccs", "pca", "supervised")
FEATURES = ("none", "tense")
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100">
<script>document.title = "run"; parent.document.title = "run"</script>
<text>AUROC over layers</text><text>0.5</text></svg>"""

# Text that breaks pages: markup, ends of scripts, line separators, overrides that turn the rest of
# a page around, characters that no page can hold, a word with no end.
HOSTILE = (
    "</script><script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "<!-- <script> {{data}} {{title}} ${document.title = 'run'}",
    "line\u2028separator\u2029 and \u0085 next",
    "\u202eturned around \u2067 and never closed",
    "NUL \x00 and bell \x07",
    "long" * 2000,
    "' \" ` &amp; &lt; \\u003c",
)


def sample_rows(*, seeds: int = 3, seed: int = 0) -> list[pd.DataFrame]:
    """Rows of one run per feature: three methods, both signs, a layer but for zero-shot."""
    rng = np.random.default_rng(seed)
    return [
        pd.DataFrame(
            [
                {**row, **_measured(rng)}
                for row in _points(feature, seeds)
                if row["role"] == "truth" or feature != "none"
            ]
        )
        for feature in FEATURES
    ]


def _points(feature: str, seeds: int) -> list[dict[str, Any]]:
    about = {"dataset": "pocket/facts", "feature": feature, "asked": "truth", "model": "pocket"}
    unread = {**about, "method": "zero_shot", "orientation": "none", "seed": 0, "layer": np.nan}
    read = [
        {**about, "method": method, "orientation": orientation, "seed": seed, "layer": layer}
        for method in METHODS
        for orientation in (("oracle", "easy") if method != "supervised" else ("none",))
        for seed in range(seeds)
        for layer in (2.0, 5.0)
    ]
    return [
        {**row, "role": role, "target": "truth" if role == "truth" else feature}
        for row in (unread, *read)
        for role in ("truth", "spurious")
    ]


def _measured(rng: np.random.Generator) -> dict[str, float]:
    area, half = rng.uniform(0.3, 0.95), rng.uniform(0.01, 0.05)
    return {
        "n_train": 100,
        "auroc": area,
        "auroc_low": area - half,
        "auroc_high": area + half,
        "accuracy": rng.uniform(0.4, 1.0),
    }


def sample_items(n: int = 60, *, texts: tuple[str, ...] = HOSTILE) -> list[Item]:
    """Items with hostile texts among plain ones; every tenth has no label."""
    return [
        Item(
            id=f"facts/test/{k}",
            question=f"Question {k}",
            choice=texts[k] if k < len(texts) else f"claim number {k}",
            label=None if k % 10 == 9 else k % 2 == 0,
            alt_labels={"tense": k % 3 == 0},
            dataset="pocket/facts",
        )
        for k in range(n)
    ]


def sample_scores(items: list[Item], *, seed: int = 0) -> ItemScores:
    """Scores by four columns; the last method leaves some items out."""
    rng = np.random.default_rng(seed)
    columns = [
        {"method": "ccs", "orientation": "oracle"},
        {"method": "ccs", "orientation": "easy"},
        {"method": "supervised", "orientation": "none"},
        {"method": "zero_shot", "orientation": "none"},
    ]
    scores = [rng.normal(size=len(items)) for _ in columns]
    scores[-1][::7] = np.nan
    return ItemScores.of(items, list(zip(columns, scores, strict=True)))


def write_folder(
    folder: Path, *, settings: dict[str, Any] | None = None, seed: int = 0, hostile: bool = True
) -> Path:
    """A run folder with two runs, item scores for both, one figure and three findings."""
    results, scores = Results(folder / "rows"), ItemScoreStore(folder / "items")
    runs = []
    for feature, rows in zip(FEATURES, sample_rows(seed=seed), strict=True):
        run = f"run-{feature}"
        results.write(run, rows, {"feature": feature, "steps": 10, "sweep": {"rate": 0.01}})
        scores.write(run, sample_scores(sample_items(), seed=seed))
        runs.append(run)
    (folder / "drawn.svg").write_bytes(SVG)
    record(tuple(runs), settings=settings or {"steps": 10}, hostile=hostile).write(folder)
    return folder


def record(runs: tuple[str, ...], *, settings: dict[str, Any], hostile: bool) -> Record:
    """A record whose every text is hostile, or plain."""
    text = " ".join(HOSTILE[:6]) if hostile else "plain"
    return Record(
        experiment="salience",
        title=f"Title {text}",
        lead=f"Lead {text}\n\nSecond paragraph",
        command=f"python experiments/salience.py {text}",
        seconds=90.0,
        machine=f"a machine {text}",
        versions={"jax": "0.10"},
        settings=settings,
        runs=runs,
        figures=("drawn.svg",),
        findings=(
            Finding(claim=f"Claim one {text}", measured="0.99 against 0.5", appears=True),
            Finding(claim="Claim two", measured=f"measured {text}", appears=False),
            Finding(claim="Claim three", measured="nothing", appears=None),
        ),
        doubts=(f"set: few rows {text}",),
    )


# All tags that a page may have before its script runs.
PARTS = {"html", "head", "meta", "title", "link", "style", "body", "main", "nav", "footer"}
PARTS |= {"header", "section", "div", "p", "h1", "h2", "a", "pre", "code", "details", "summary"}
PARTS |= {"table", "tbody", "tr", "th", "td", "ol", "ul", "li", "span", "figure", "figcaption"}
PARTS |= {"img", "noscript", "script", "label", "select", "option"}


class Tags(HTMLParser):
    """All tags of a page with their attributes, and the texts of its scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def data_of(page: str) -> tuple[dict[str, Any], dict[str, dict[str, list[Any]]]]:
    """What a page brings for its script."""
    return unpack(re.findall(r'<script type="application/octet-stream" id="data">(.*?)<', page)[0])
