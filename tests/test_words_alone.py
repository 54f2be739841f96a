"""The look for leaks finds the one that was planted, and none where there is none."""

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "docs/examples/words_alone.py"


def words_alone(path: Path) -> float:
    spec = importlib.util.spec_from_file_location("words_alone", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.words_alone(str(path))


def write(path: Path, text) -> Path:
    rows = [
        f'"{text(k, label)}",{label},{k},{"test" if k % 3 == 0 else "train"}'
        for k in range(30)
        for label in (0, 1)
    ]
    path.write_text("\n".join(["statement,label,group,split", *rows]), encoding="utf-8")
    return path


def test_a_word_that_gives_the_label_away_is_found(tmp_path):
    leaky = write(
        tmp_path / "leaky.csv", lambda k, label: f"Town {k} is {'well' if label else 'so'}"
    )
    assert words_alone(leaky) == 1.0


def test_where_words_say_nothing_they_tell_nothing(tmp_path):
    # No word of a test row is known from train rows, but for those that all rows have.
    fair = write(tmp_path / "fair.csv", lambda k, label: f"Claim n{2 * k + label} is here")
    assert words_alone(fair) == 0.5
