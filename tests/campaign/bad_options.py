"""Options that cannot be meant: refused before anything is computed, by their name."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from bad_inputs import wrong_ending
from children import ROOT, Children
from hypothesis import strategies as st

COUNTS = ("0", "-1", "-7", "1.5", "nan", "inf", "x", "", "1e3", "0x5", "٣x")
SHARES = ("-0.1", "1.5", "nan", "inf", "x", "", "2", "-1")
LAYERS = ("99", "1.5", "x", "", "nan", "-99")
SHORT_TEXTS = st.text(min_size=1, max_size=8).filter(
    lambda text: not text.startswith("-") and text.strip() == text
)
WORDS = st.one_of(st.sampled_from(["nonsense", "", "None,", "../..", "a=b", "é"]), SHORT_TEXTS)


@dataclass(frozen=True)
class Option:
    """An option of a command with a value that it cannot have."""

    command: str
    option: str
    value: str


def _probes_options() -> dict[str, st.SearchStrategy[str]]:
    counts = ("--seeds", "--boot", "--max-rows", "--restarts")
    words = ("--dataset", "--methods", "--precision", "--divisor", "--overlap")
    return {
        **dict.fromkeys(counts, st.sampled_from(COUNTS)),
        **dict.fromkeys((*words, "--easy"), WORDS),
        "--layers": st.sampled_from(("1.5", "x", "", "nan", "99")),
        "--memory-gb": st.sampled_from(SHARES[:1] + SHARES[2:6]),
        "--devices": st.sampled_from(COUNTS[1:]),
    }


OPTIONS: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "sweep": {
        **dict.fromkeys(("--seeds", "--boot", "--restarts"), st.sampled_from(COUNTS)),
        "--train-size": st.sampled_from(COUNTS),
        "--class-shares": st.sampled_from(SHARES),
        "--layers": st.sampled_from(LAYERS[:-1]),
        **dict.fromkeys(("--methods", "--precision", "--divisor"), WORDS),
        **dict.fromkeys(("--orientations", "--others", "--settings", "--target"), WORDS),
        **dict.fromkeys(("--test", "--easy"), WORDS),
    },
    "extract": {
        **dict.fromkeys(("--max-items", "--threads", "--token-budget"), st.sampled_from(COUNTS)),
        "--shard-size": st.sampled_from(COUNTS),
        "--layers": st.sampled_from(LAYERS),
        **dict.fromkeys(("--model", "--dataset", "--split", "--features", "--format"), WORDS),
        **dict.fromkeys(("--dtype", "--device", "--method", "--backend"), WORDS),
    },
    "salience": {
        **_probes_options(),
        **dict.fromkeys(("--features", "--prompting", "--rule", "--labels"), WORDS),
        "--train-size": st.sampled_from((*COUNTS, "5")),
        **dict.fromkeys(("--shots", "--prompt-seeds"), st.sampled_from(COUNTS)),
        **dict.fromkeys(("--pool", "--prompt-tests"), st.sampled_from((*COUNTS, "1"))),
    },
    "icm": {
        **dict.fromkeys(("--n", "--batch", "--tests", "--limit"), st.sampled_from(COUNTS)),
        **dict.fromkeys(("--seeds", "--boot", "--shots"), st.sampled_from(COUNTS)),
        "--draws": st.sampled_from(COUNTS[1:]),
        "--initial": st.sampled_from(COUNTS[1:]),
        "--alpha": st.sampled_from(SHARES[:1] + SHARES[2:6]),
        **dict.fromkeys(("--methods", "--rule", "--format", "--predictability"), WORDS),
        **dict.fromkeys(("--schedule", "--dataset", "--scorer"), WORDS),
    },
    "probe": {"--layer": st.sampled_from(LAYERS), "store": WORDS, "probe": WORDS},
}


class Options:
    """Options of five commands."""

    name, slow = "option", True

    def __init__(self, model: Path, place: Path, children: Children) -> None:
        """Commands that would work.

        Args:
            model: Folder of a tiny model.
            place: Where the stores `a` and `b` are, and the sweep of them, `swept`.
            children: Who runs them.
        """
        self._place, self._children = place, children
        self._good = {
            "sweep": ("jelicit", "sweep", "a", "--test", "b", "--out", "options"),
            "extract": ("extract", "run", "--model", str(model), "--out", "options"),
            "probe": ("jelicit", "probe", "score", "swept/probes/supervised-layer2", "b"),
        }
        for name in ("salience", "icm"):
            script = str(ROOT / f"experiments/{name}.py")
            words = ("--model", str(model), "--out", "options", "--stores", "options/stores")
            self._good[name] = (script, *words)

    def changes(self) -> st.SearchStrategy[Option]:
        """A command, one of its options, and a value."""
        return st.one_of(
            [
                st.builds(Option, st.just(command), st.just(option), values)
                for command, options in OPTIONS.items()
                for option, values in options.items()
            ]
        )

    def wrong(self, change: Option) -> str:
        """See `Kind`."""
        shutil.rmtree(self._place / "options", ignore_errors=True)
        words = [*self._good[change.command]]
        if change.option.startswith("-"):
            words += [change.option, change.value]
        else:
            words[{"probe": 3, "store": 4}[change.option]] = change.value
        ended = self._children.run(tuple(words), self._place, limit=120)
        if ended.code == 0:
            return f"{change.command} takes {change.option} for granted"
        left = [path for path in self._place.glob("options/**/*") if path.is_file()]
        if any(re.search(r"\.tmp|rows/|probes/|report", str(path)) for path in left):
            return f"{change.command} {change.option} leaves {left[0].name}"
        bare = change.option.strip("-")
        named = (change.option, bare, bare.replace("-", "_"), bare.split("-")[0], bare.rstrip("s"))
        # What no terminal shows is escaped, or a question mark.
        shown = "".join(char if char.isprintable() else "?" for char in change.value)
        values = [value for value in (change.value, shown, ascii(change.value)[1:-1]) if value]
        return wrong_ending(ended, names=(*named, repr(change.value), *values))
